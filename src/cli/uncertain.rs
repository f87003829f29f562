//! `vestnik uncertain`: nobody knows whether these left, until a person says so.

use serde_json::json;

use super::client::{Client, ServerArgs, counted};
use super::confirm::agreed;
use super::undecided::{self, ChosenArgs, FilterArgs};
use super::{Ended, Printer};
use crate::config::Settings;
use crate::domain::Verdict;

const EXAMPLES: &str = "\
Examples:
  vestnik uncertain list --channel telegram
  vestnik uncertain resolve sent 0197a2b4-6c1e-7d3f-8a90-1b2c3d4e5f60 --reason 'the customer has it'
  vestnik uncertain resolve failed --cause lost --until 2026-01-07T10:00:00+03:00 --reason 'not in the provider log'";

/// See and settle what may or may not have gone out.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct UncertainArgs {
    #[command(subcommand)]
    command: UncertainCommand,
}

#[derive(Debug, clap::Subcommand)]
enum UncertainCommand {
    /// List them, newest first.
    List {
        /// So many at most.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Say what became of them; what failed becomes a dead letter, which can be replayed.
    Resolve {
        /// `sent` or `failed`.
        verdict: Verdict,
        /// How you know; kept with each.
        #[arg(long)]
        reason: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        chosen: ChosenArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub async fn run(
    args: UncertainArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    match args.command {
        UncertainCommand::List { filter, limit, server } => {
            let client = Client::find(server, settings)?;
            undecided::list(&client, "/v1/uncertain", &filter, limit, printer).await?;
            Ok(Ended::Well)
        }
        UncertainCommand::Resolve { verdict, chosen, reason, yes, server } => {
            let bodies = chosen.bodies()?;
            let client = Client::find(server, settings)?;
            let which = if chosen.ids().is_empty() { "all that match" } else { "those named" };
            let question = format!("settle {which} as {verdict} for good?");
            if !yes && !agreed(&question, "--yes settles without asking")? {
                printer.either(&json!({ "changed": 0 }), || "nothing was settled\n".into())?;
                return Ok(Ended::Badly);
            }
            let beside = [("status", json!(verdict)), ("reason", json!(reason))];
            let (changed, skipped) =
                undecided::change_counted(&client, "/v1/uncertain/resolve", bodies, &beside).await?;
            printer.either(&json!({ "changed": changed, "skipped": skipped }), || {
                let mut text = format!("{} settled as {verdict}\n", counted(changed, "notification"));
                if skipped > 0 {
                    text.push_str(&format!("{skipped} not uncertain (any more), and left as they are\n"));
                }
                text
            })?;
            Ok(if skipped == 0 { Ended::Well } else { Ended::Badly })
        }
    }
}
