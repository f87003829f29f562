//! `vestnik bench campaign`: a campaign to contacts, from the first bulk call to the last record of a send.
//!
//! Contacts and template are there before; each message is rendered from its contact's record and sent in one call to
//! the provider.

use anyhow::ensure;
use serde::Serialize;

use super::measure::{as_float, table};
use super::stage::{Cost, Place, Places, Stage, books};
use crate::cli::{Ended, Printer};
use crate::store::VerifyReport;

/// A campaign through the queue: messages a second, and what each costs whom.
#[derive(Debug, clap::Args)]
pub struct CampaignArgs {
    /// Recipients, round by round: each round is a campaign of its own.
    #[arg(long, value_delimiter = ',', default_value = "20000")]
    pub recipients: Vec<u64>,
    /// Recipients in one bulk call.
    #[arg(long, default_value_t = 5_000)]
    pub per_call: u64,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Round {
    place: &'static str,
    recipients: u64,
    seconds: f64,
    per_second: f64,
    /// Until the last bulk call was answered.
    accepted_seconds: f64,
    memory_peak_mib: f64,
    /// Some seconds after the end.
    memory_idle_mib: f64,
    #[serde(flatten)]
    cost: Cost,
    books: VerifyReport,
}

pub async fn run(args: CampaignArgs, printer: Printer) -> anyhow::Result<Ended> {
    ensure!(args.per_call > 0 && args.recipients.iter().all(|n| *n > 0), "nothing to measure");
    let mut rounds = Vec::new();
    for place in args.places.chosen()? {
        for recipients in &args.recipients {
            rounds.push(round(&args, place, *recipients).await?);
        }
    }
    printer.either(&rounds, || in_words(&rounds))?;
    Ok(Ended::Well)
}

async fn round(args: &CampaignArgs, place: Place, recipients: u64) -> anyhow::Result<Round> {
    /// The allocator gives back what it kept, and the ledger's writer its cache, after a few seconds without work.
    const REST: std::time::Duration = std::time::Duration::from_secs(8);
    let stage = Stage::start(&args.places, place).await?;
    stage.import_contacts(0..recipients).await?;
    stage.forget_memory_peak()?;
    let before = stage.used().await?;
    let began = before.at;
    let mut batches = Vec::new();
    for from in (0..recipients).step_by(usize::try_from(args.per_call)?) {
        batches.push(stage.bulk(from..recipients.min(from + args.per_call), "normal", None).await?);
    }
    let accepted = began.elapsed();
    stage.until_taken(recipients).await?;
    stage.until_finished(&batches).await?;
    let took = began.elapsed();
    let cost = stage.cost(before, recipients).await?;
    let memory_peak_mib = stage.memory_peak_mib()?;
    tokio::time::sleep(REST).await;
    Ok(Round {
        place: place.as_str(),
        recipients,
        seconds: took.as_secs_f64(),
        per_second: as_float(recipients) / took.as_secs_f64(),
        accepted_seconds: accepted.as_secs_f64(),
        memory_peak_mib,
        memory_idle_mib: stage.memory_mib()?,
        cost,
        books: stage.end().await?,
    })
}

fn in_words(rounds: &[Round]) -> String {
    let row = |round: &Round| {
        let mut cells = vec![
            round.place.into(),
            round.recipients.to_string(),
            format!("{:.0}", round.per_second),
            format!("{:.2}", round.accepted_seconds),
            format!("{:.0}", round.memory_peak_mib),
            format!("{:.0}", round.memory_idle_mib),
        ];
        cells.extend(round.cost.cells());
        cells
    };
    let mut head = vec!["campaign on", "messages", "a second", "accepted s", "peak MiB", "idle MiB"];
    head.extend(Cost::HEAD);
    let mut text = table(&head, &rounds.iter().map(row).collect::<Vec<_>>());
    for round in rounds {
        text.push_str(&format!("{}: {}\n", round.place, books(&round.books)));
    }
    text
}
