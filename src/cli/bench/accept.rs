//! `vestnik bench accept`: one large bulk call, from the first byte to the answer.
//!
//! It is scheduled for tomorrow, so that accepting is measured and nothing else.

use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;

use super::measure::table;
use super::stage::{Cost, Place, Places, Stage, books};
use crate::cli::{Ended, Printer};
use crate::domain::clock::later;
use crate::domain::{Clock as _, SystemClock};
use crate::store::VerifyReport;

/// One bulk call of many contact ids: how long it takes, and the server's memory.
#[derive(Debug, clap::Args)]
pub struct AcceptArgs {
    /// Ids in the call, round by round.
    #[arg(long, value_delimiter = ',', default_value = "100000")]
    pub ids: Vec<u64>,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Round {
    place: &'static str,
    ids: u64,
    seconds: f64,
    memory_before_mib: f64,
    memory_peak_mib: f64,
    #[serde(flatten)]
    cost: Cost,
    books: VerifyReport,
}

pub async fn run(args: AcceptArgs, printer: Printer) -> anyhow::Result<Ended> {
    ensure!(args.ids.iter().all(|n| *n > 0), "nothing to measure");
    let mut rounds = Vec::new();
    for place in args.places.chosen()? {
        for ids in &args.ids {
            rounds.push(round(&args, place, *ids).await?);
        }
    }
    printer.either(&rounds, || in_words(&rounds))?;
    Ok(Ended::Well)
}

async fn round(args: &AcceptArgs, place: Place, ids: u64) -> anyhow::Result<Round> {
    const TOMORROW: Duration = Duration::from_secs(24 * 60 * 60);
    let stage = Stage::start(&args.places, place).await?;
    stage.import_contacts(0..ids).await?;
    stage.forget_memory_peak()?;
    let memory_before_mib = stage.memory_mib()?;
    let before = stage.used().await?;
    let began = before.at;
    stage.bulk(0..ids, "normal", Some(later(SystemClock.now(), TOMORROW))).await?;
    let took = began.elapsed();
    Ok(Round {
        place: place.as_str(),
        ids,
        seconds: took.as_secs_f64(),
        memory_before_mib,
        memory_peak_mib: stage.memory_peak_mib()?,
        cost: stage.cost(before, ids).await?,
        books: stage.end().await?,
    })
}

fn in_words(rounds: &[Round]) -> String {
    let row = |round: &Round| {
        let mut cells = vec![
            round.place.into(),
            round.ids.to_string(),
            format!("{:.2}", round.seconds),
            format!("{:.0}", round.memory_before_mib),
            format!("{:.0}", round.memory_peak_mib),
        ];
        cells.extend(round.cost.cells());
        cells
    };
    let mut head = vec!["accept on", "ids", "seconds", "MiB before", "peak MiB"];
    head.extend(Cost::HEAD);
    let mut text = table(&head, &rounds.iter().map(row).collect::<Vec<_>>());
    for round in rounds {
        text.push_str(&format!("{}: {}\n", round.place, books(&round.books)));
    }
    text
}
