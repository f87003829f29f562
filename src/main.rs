//! The `vestnik` binary: arguments, command, exit code.

use clap::Parser;
use vestnik::cli::simulator::{self, SimulatorArgs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "vestnik", version)]
enum Command {
    Simulator(SimulatorArgs),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Simulator(args) => simulator::run(args).await,
    }
}
