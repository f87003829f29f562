//! `vestnik demo`: the service at work, in a minute, and checked as it goes.
//!
//! A simulator and a server run as processes of their own on free ports, on a folder that is removed at the end. Each
//! step says what it proves, shows it, and fails the demo if it is not so. Whatever ends the demo, no process of it is
//! left behind.

mod campaign;
mod crash;
mod mail;
mod process;
mod stage;
mod steps;

use anyhow::Context as _;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use self::stage::Stage;
use super::{Ended, Printer};

const EXAMPLES: &str = "\
Examples:
  vestnik demo
  vestnik demo --keep

Nothing leaves this machine. Exit code: 0 when all was as promised, 1 when it was interrupted or a promise
was not kept.";

/// See it at work: sends, refusals, a campaign, crashes in the middle, and books that balance. Nothing is sent to anyone.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// Leave the simulator and the server running, to try things by hand; Ctrl-C stops them.
    #[arg(long)]
    keep: bool,
}

pub async fn run(args: DemoArgs, printer: Printer) -> anyhow::Result<Ended> {
    // Asked for before anything starts, so that no signal in between goes astray.
    let mut interrupt = signal(SignalKind::interrupt()).context("could not listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("could not listen for SIGTERM")?;
    let told = tokio::select! {
        told = tell(printer) => told,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("interrupted")),
    };
    // Dropping what `tell` holds kills both processes.
    let stage = match told {
        Ok(stage) => stage,
        Err(error) => {
            printer.either(&json!({ "ok": false, "error": format!("{error:#}") }), || {
                format!("\nNOT as promised: {error:#}\nBoth processes were stopped.\n")
            })?;
            return Ok(Ended::Badly);
        }
    };
    if args.keep {
        stage.say_how_to_go_on()?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
    stage.end().await?;
    Ok(Ended::Well)
}

async fn tell(printer: Printer) -> anyhow::Result<Stage> {
    let mut stage = Stage::set(printer).await?;
    steps::play(&stage).await?;
    let balance = crash::play(&mut stage).await?;
    let campaign = campaign::play(&mut stage).await?;
    crash::verify(&stage).await?;
    stage.summary(&balance, &campaign)?;
    Ok(stage)
}
