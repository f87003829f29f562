//! `vestnik bench`: figures of one part at a time, beside what the machine itself can do.
//!
//! What is measured is said with each figure. CPU is time spent, ours and the database's, so that figures of a busy
//! machine can still be compared; rows per second of a busy machine cannot.

pub mod ledger;
pub mod measure;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub what: Bench,
}

#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Accept, take, open and record in batches, on SQLite and PostgreSQL.
    Ledger(ledger::LedgerArgs),
}

pub async fn run(args: BenchArgs) -> anyhow::Result<()> {
    match args.what {
        Bench::Ledger(args) => ledger::run(args).await,
    }
}
