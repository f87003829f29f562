//! `vestnik bench priority`: how long a high notification takes to the provider, behind a campaign and without one.
//!
//! From just before the call that hands it in to the moment the simulator takes it; both clocks are this machine's.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::measure::{Latencies, millis, table};
use super::stage::{Cost, Place, Places, Stage, TEMPLATE, books, contact, phone};
use crate::cli::{Ended, Printer};
use crate::domain::{Clock as _, SystemClock};
use crate::store::VerifyReport;

/// High notifications behind a campaign of low ones: how long to the provider.
#[derive(Debug, clap::Args)]
pub struct PriorityArgs {
    /// Low notifications that wait and are being sent.
    #[arg(long, default_value_t = 100_000)]
    pub low: u64,
    /// High notifications, once on an idle queue and once behind the low ones.
    #[arg(long, default_value_t = 200)]
    pub high: u64,
    /// Between two of the high ones, in ms.
    #[arg(long, default_value_t = 20)]
    pub every_ms: u64,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Round {
    place: &'static str,
    low: u64,
    high: u64,
    idle_p50_ms: f64,
    idle_p99_ms: f64,
    behind_p50_ms: f64,
    behind_p99_ms: f64,
    /// Low ones that had not left when the last high one had.
    low_left: u64,
    #[serde(flatten)]
    cost: Cost,
    books: VerifyReport,
}

pub async fn run(args: PriorityArgs, printer: Printer) -> anyhow::Result<Ended> {
    ensure!(args.low > 0 && args.high > 0, "nothing to measure");
    let mut rounds = Vec::new();
    for place in args.places.chosen()? {
        rounds.push(round(&args, place).await?);
    }
    printer.either(&rounds, || in_words(&rounds))?;
    Ok(Ended::Well)
}

async fn round(args: &PriorityArgs, place: Place) -> anyhow::Result<Round> {
    let stage = Stage::start(&args.places, place).await?;
    stage.import_contacts(0..args.low + 2 * args.high).await?;
    let idle = times(&stage, send_high(&stage, args, args.low..args.low + args.high).await?).await?;
    let before = stage.used().await?;
    let batch = stage.bulk(0..args.low, "low", None).await?;
    // Being sent, and most of it still to be.
    stage.until_taken(args.high + args.low / 50).await?;
    let handed_in = send_high(&stage, args, args.low + args.high..args.low + 2 * args.high).await?;
    let low_left = (args.low + 2 * args.high).saturating_sub(stage.taken().await?);
    let behind = times(&stage, handed_in).await?;
    stage.until_finished(&[batch]).await?;
    stage.until_taken(args.low + 2 * args.high).await?;
    Ok(Round {
        place: place.as_str(),
        low: args.low,
        high: args.high,
        idle_p50_ms: millis(idle.percentile(0.5)),
        idle_p99_ms: millis(idle.percentile(0.99)),
        behind_p50_ms: millis(behind.percentile(0.5)),
        behind_p99_ms: millis(behind.percentile(0.99)),
        low_left,
        cost: stage.cost(before, args.low + args.high).await?,
        books: stage.end().await?,
    })
}

/// Sends one to each of these contacts, and tells when it was handed in.
async fn send_high(
    stage: &Stage,
    args: &PriorityArgs,
    contacts: std::ops::Range<u64>,
) -> anyhow::Result<Vec<(u64, Timestamp)>> {
    let mut handed_in = Vec::new();
    for n in contacts {
        let body = json!({
            "channel": "whatsapp", "templateId": TEMPLATE, "context": { "contactId": contact(n) }, "mode": "async",
            "priority": "high", "data": { "discount": 20 },
        });
        handed_in.push((n, SystemClock.now()));
        stage.post("/v1/notifications", &body).await?;
        tokio::time::sleep(Duration::from_millis(args.every_ms)).await;
    }
    Ok(handed_in)
}

/// How long each took to the provider.
async fn times(stage: &Stage, handed_in: Vec<(u64, Timestamp)>) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::default();
    for (n, at) in handed_in {
        latencies.add(taken_at(stage, n).await?.duration_since(at).unsigned_abs());
    }
    Ok(latencies)
}

/// When the message to this contact was taken.
async fn taken_at(stage: &Stage, n: u64) -> anyhow::Result<Timestamp> {
    const PATIENCE: Duration = Duration::from_secs(60);
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    // The page is read from its newest entry: what is looked for lies there.
    let path = format!("/_sim/taken?newest=true&limit=1&recipient={}", phone(n).trim_start_matches('+'));
    let look = async {
        loop {
            let page = stage.simulator(&path).await?;
            if let Some(at) = page["items"][0]["at"].as_str() {
                return Ok::<_, anyhow::Error>(at.parse()?);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.context("a high notification did not leave within a minute")?
}

fn in_words(rounds: &[Round]) -> String {
    let row = |round: &Round| {
        let mut cells = vec![
            round.place.into(),
            round.low.to_string(),
            round.low_left.to_string(),
            format!("{:.1}", round.idle_p50_ms),
            format!("{:.1}", round.idle_p99_ms),
            format!("{:.1}", round.behind_p50_ms),
            format!("{:.1}", round.behind_p99_ms),
        ];
        cells.extend(round.cost.cells());
        cells
    };
    let mut head = vec!["high on", "low", "low left", "idle p50 ms", "p99 ms", "behind p50 ms", "p99 ms"];
    head.extend(Cost::HEAD);
    let mut text = table(&head, &rounds.iter().map(row).collect::<Vec<_>>());
    for round in rounds {
        text.push_str(&format!(
            "{}: p99 behind low ones {:.1} ms above the idle queue; {}\n",
            round.place,
            round.behind_p99_ms - round.idle_p99_ms,
            books(&round.books)
        ));
    }
    text
}
