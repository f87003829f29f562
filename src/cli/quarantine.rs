//! `vestnik quarantine`: what came by the broker and is no notification, until a person has seen to it.

use serde_json::{Value, json};

use super::client::{Client, ServerArgs, encode, field, printable};
use super::{Ended, Printer};
use crate::config::Settings;

const EXAMPLES: &str = "\
Examples:
  vestnik quarantine list
  vestnik quarantine list --bodies --json
  vestnik quarantine drop 0197a2b4-6c1e-7d3f-8a90-1b2c3d4e5f60";
/// Of a body, on a terminal.
const SHOWN_CHARACTERS: usize = 200;

/// See and drop messages from the broker that could not be read.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct QuarantineArgs {
    #[command(subcommand)]
    command: QuarantineCommand,
}

#[derive(Debug, clap::Subcommand)]
enum QuarantineCommand {
    /// List them, in no particular order.
    List {
        /// So many at most.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Show what they hold, too; it may be personal data.
        #[arg(long)]
        bodies: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Drop those that somebody has seen to, for good.
    Drop {
        /// As `list` shows them.
        #[arg(required = true)]
        ids: Vec<uuid::Uuid>,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub async fn run(
    args: QuarantineArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    match args.command {
        QuarantineCommand::List { limit, bodies, server } => {
            let client = Client::find(server, settings)?;
            let (mut items, more) = client.list("/v1/quarantine", &[], limit as usize).await?;
            if !bodies {
                items.iter_mut().filter_map(Value::as_object_mut).for_each(|item| drop(item.remove("body")));
            }
            printer.either(&json!({ "items": items, "more": more }), || {
                if items.is_empty() {
                    return "there is none\n".into();
                }
                let mut text: String = items.iter().map(shown).collect();
                if more {
                    text.push_str("there are more: --limit shows them\n");
                }
                text
            })?;
        }
        QuarantineCommand::Drop { ids, server } => {
            let client = Client::find(server, settings)?;
            for id in &ids {
                client.delete(&format!("/v1/quarantine/{}", encode(&id.to_string()))).await?;
            }
            printer.either(&json!({ "dropped": ids }), || format!("dropped {}\n", ids.len()))?;
        }
    }
    Ok(Ended::Well)
}

fn shown(item: &Value) -> String {
    let mut text = format!(
        "{}  {}  {}  {} bytes, {} times\n  {}\n",
        field(item, "id"),
        field(item, "receivedAt"),
        field(item, "source"),
        field(item, "bodyBytes"),
        field(item, "times"),
        field(item, "reason"),
    );
    if let Some(body) = item["body"].as_str() {
        let beginning: String = body.chars().take(SHOWN_CHARACTERS).collect();
        text.push_str(&format!("  {}\n", printable(&beginning)));
    }
    text
}
