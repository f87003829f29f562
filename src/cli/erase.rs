//! `vestnik erase`: a person's data goes, what was done stays countable.

use std::time::Duration;

use super::client::{Client, ServerArgs, counted, encode, field, printable};
use super::confirm::agreed;
use super::records::kind;
use super::{Ended, Printer};
use crate::config::Settings;
use crate::domain::RecordKind;

const EXAMPLES: &str = "\
Examples:
  vestnik erase c-anna
  vestnik erase 42 --kind leads --yes --no-wait

The record goes at once; its leads, and the addresses in its deals, too. Then every notification about it, or to
its addresses, loses address, text and data. Times, outcomes and counts stay, and so do opt-outs, as hashes.";

/// How often a running erasure is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// Erase a person: records, addresses, texts. There is no way back.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct EraseArgs {
    /// The contact's id, or that of another record with `--kind`.
    id: String,
    /// `contacts`, `leads`, `deals` or `companies`.
    #[arg(long, default_value = "contacts", value_parser = kind)]
    kind: RecordKind,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Do not wait until all is done: it goes on in the background.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(
    args: EraseArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    let client = Client::find(args.server, settings)?;
    let question = format!("erase {}/{} for good?", args.kind.plural(), printable(&args.id));
    if !args.yes && !agreed(&question, "--yes erases without asking")? {
        printer.either(&serde_json::json!({ "erased": false }), || "nothing was erased\n".into())?;
        return Ok(Ended::Badly);
    }
    let path = format!("/v1/{}/{}/erase", args.kind.plural(), encode(&args.id));
    let mut erasure = client.post(&path, &serde_json::json!({}), &[]).await?;
    while !args.no_wait && erasure["doneAt"].is_null() {
        tokio::time::sleep(ASK_EVERY).await;
        erasure = client.get(&format!("/v1/erasures/{}", field(&erasure, "id"))).await?;
    }
    printer.either(&erasure, || match erasure["doneAt"].as_str() {
        Some(_) => {
            let notifications = erasure["notifications"].as_u64().unwrap_or_default();
            format!("erased, and {} with it\n", counted(notifications, "notification"))
        }
        None => format!("begun: GET /v1/erasures/{} says how far it is\n", field(&erasure, "id")),
    })?;
    Ok(Ended::Well)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_kind_is_one_that_there_is() {
        let parse = |kind| Cli::try_parse_from(["vestnik", "erase", "7", "--kind", kind]);
        let Command::Erase(args) = parse("leads").unwrap().command else { panic!("it is an erasure") };
        assert_eq!(args.kind, RecordKind::Lead);
        assert!(parse("people").is_err());
    }
}
