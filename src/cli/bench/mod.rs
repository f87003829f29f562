//! `vestnik bench`: what this machine reaches.
//!
//! Figures are of the machine they were taken on and of what else it was doing: read them as ratios to the disk's
//! fdatasync that stands beside them.

pub mod direct;
pub mod measure;

use super::{Ended, Printer};

/// Measure what this machine reaches, on loopback and against the simulator.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, clap::Subcommand)]
enum BenchCommand {
    Direct(direct::DirectArgs),
}

pub async fn run(args: BenchArgs, printer: Printer) -> anyhow::Result<Ended> {
    match args.command {
        BenchCommand::Direct(args) => direct::run(args, printer).await,
    }
}
