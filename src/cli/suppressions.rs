//! `vestnik suppressions`: addresses that want nothing more.

use serde_json::{Value, json};

use super::client::{Client, ServerArgs, encode, field};
use super::{Ended, Printer};
use crate::config::Settings;
use crate::domain::Channel;
use crate::store::SuppressionScope;

const EXAMPLES: &str = "\
Examples:
  vestnik suppressions add whatsapp '+7 999 123-45-67' --scope marketing --reason 'asked by phone'
  vestnik suppressions lift whatsapp +79991234567
  vestnik suppressions list --json";

/// List, add and lift opt-outs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SuppressionsArgs {
    #[command(subcommand)]
    command: SuppressionsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum SuppressionsCommand {
    /// List them by channel and address.
    List {
        /// So many at most.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Send nothing there any more.
    Add {
        /// `whatsapp`, `telegram`, `sms` or `email`.
        channel: Channel,
        /// A phone number, or a Telegram chat id.
        #[arg(allow_hyphen_values = true)]
        address: String,
        /// `all`, or only `marketing`.
        #[arg(long, default_value = "all")]
        scope: SuppressionScope,
        /// For people: who says so.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// The person wants to hear again.
    Lift {
        /// `whatsapp`, `telegram`, `sms` or `email`.
        channel: Channel,
        /// A phone number, or a Telegram chat id.
        #[arg(allow_hyphen_values = true)]
        address: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub async fn run(
    args: SuppressionsArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    match args.command {
        SuppressionsCommand::List { limit, server } => {
            let client = Client::find(server, settings)?;
            let (items, more) = client.list("/v1/suppressions", &[], limit as usize).await?;
            printer.either(&json!({ "items": items, "more": more }), || {
                if items.is_empty() {
                    return "there is none\n".into();
                }
                let mut text: String = items.iter().map(line).collect();
                if more {
                    text.push_str("there are more: --limit shows them\n");
                }
                text
            })?;
        }
        SuppressionsCommand::Add { channel, address, scope, reason, server } => {
            let body = json!({ "channel": channel, "address": address, "scope": scope, "reason": reason });
            let added = Client::find(server, settings)?.post("/v1/suppressions", &body, &[]).await?;
            printer.either(&added, || line(&added))?;
        }
        SuppressionsCommand::Lift { channel, address, server } => {
            let path = format!("/v1/suppressions/{channel}/{}", encode(&address));
            Client::find(server, settings)?.delete(&path).await?;
            printer.either(&json!({ "channel": channel, "address": address, "lifted": true }), || "lifted\n".into())?;
        }
    }
    Ok(Ended::Well)
}

fn line(suppression: &Value) -> String {
    format!(
        "{:<8}  {:<16}  {:<9}  {}  {}\n",
        field(suppression, "channel"),
        field(suppression, "address"),
        field(suppression, "scope"),
        field(suppression, "createdAt"),
        field(suppression, "reason"),
    )
}
