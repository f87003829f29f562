//! `vestnik erase`: a person's data goes, what was done stays countable.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::client::{Client, ServerArgs, encode, field, printable};
use super::{Ended, Printer};
use crate::config::Settings;

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
    #[arg(long, default_value = "contacts", value_parser = ["contacts", "leads", "deals", "companies"])]
    kind: String,
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
    if !args.yes && !agreed(&args.kind, &args.id)? {
        printer.either(&serde_json::json!({ "erased": false }), || "nothing was erased\n".into())?;
        return Ok(Ended::Badly);
    }
    let path = format!("/v1/{}/{}/erase", args.kind, encode(&args.id));
    let mut erasure = client.post(&path, &serde_json::json!({}), &[]).await?;
    while !args.no_wait && erasure["doneAt"].is_null() {
        tokio::time::sleep(ASK_EVERY).await;
        erasure = client.get(&format!("/v1/erasures/{}", field(&erasure, "id"))).await?;
    }
    printer.either(&erasure, || match erasure["doneAt"].as_str() {
        Some(_) => format!("erased, and {} notifications with it\n", field(&erasure, "notifications")),
        None => format!("begun: GET /v1/erasures/{} says how far it is\n", field(&erasure, "id")),
    })?;
    Ok(Ended::Well)
}

fn agreed(kind: &str, id: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to ask\nhint: --yes erases without asking");
    }
    let mut out = std::io::stdout().lock();
    write!(out, "erase {}/{} for good? [y/N] ", kind, printable(id)).and_then(|()| out.flush())?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("could not read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
