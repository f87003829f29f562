//! The `vestnik` binary: arguments, command, exit code.

use clap::Parser;
use vestnik::cli::bench::{self, BenchArgs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "vestnik", version)]
enum Command {
    /// Measures one part at a time.
    Bench(BenchArgs),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Bench(args) => bench::run(args).await,
    }
}
