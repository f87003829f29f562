//! `vestnik bench`: figures of one part at a time, beside what the machine itself can do.
//!
//! What is measured is said with each figure. CPU is time spent, ours and the database's, so that figures of a busy
//! machine can still be compared; rows per second of a busy machine cannot.

pub mod accept;
pub mod campaign;
pub mod direct;
pub mod email;
pub mod ledger;
pub mod measure;
pub mod priority;
mod process;
mod scratch;
mod stage;

use super::{Ended, Printer};

/// Measure what this machine reaches, on loopback and against the simulator.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, clap::Subcommand)]
enum BenchCommand {
    /// Accept, take, open and record in batches, on SQLite and PostgreSQL.
    Ledger(ledger::LedgerArgs),
    Direct(direct::DirectArgs),
    Email(email::EmailArgs),
    Campaign(campaign::CampaignArgs),
    Accept(accept::AcceptArgs),
    Priority(priority::PriorityArgs),
}

pub async fn run(args: BenchArgs, printer: Printer) -> anyhow::Result<Ended> {
    match args.command {
        BenchCommand::Ledger(args) => ledger::run(args, printer).await,
        BenchCommand::Direct(args) => direct::run(args, printer).await,
        BenchCommand::Email(args) => email::run(args, printer).await,
        BenchCommand::Campaign(args) => campaign::run(args, printer).await,
        BenchCommand::Accept(args) => accept::run(args, printer).await,
        BenchCommand::Priority(args) => priority::run(args, printer).await,
    }
}
