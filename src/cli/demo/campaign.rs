//! A campaign through the queue: refusals, a kill -9 in the middle, and the balance of all its messages.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::stage::{Stage, until};
use crate::cli::client::field;
use crate::cli::watch::{Progress, in_one_line};

const PEOPLE: usize = 1_000;
/// The server is killed when so many have ended.
const ENDED: u64 = 400;
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of the campaign, held against what the provider took.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CampaignBalance {
    accepted: usize,
    sent: usize,
    failed: usize,
    uncertain: usize,
    taken_by_provider: usize,
    /// Sent by the ledger and never taken, or taken and not in the ledger.
    lost: usize,
    twice: usize,
}

pub(super) async fn play(stage: &mut Stage) -> anyhow::Result<CampaignBalance> {
    stage.heading(&format!(
        "A campaign for {PEOPLE} through the queue; the provider refuses some for now, and some for good"
    ))?;
    // 131000: something went wrong, try later. 131026: this number has no WhatsApp.
    let errors = json!([{ "code": 131_000, "share": 0.04 }, { "code": 131_026, "share": 0.02 }]);
    let latency = json!({ "min": 10, "p50": 30, "p99": 120 });
    stage.set_scenario(&json!({ "whatsapp": { "latencyMs": latency, "errors": errors } })).await?;
    let people = (0..PEOPLE).map(|n| format!("+7999300{n:04},Клиент {n}\n"));
    stage.lay_out("people.csv", &format!("phone,contact.name\n{}", people.collect::<String>()))?;
    let before = stage.taken_count().await?;
    let arguments = [
        &["bulk", "--channel", "whatsapp", "--template", "promo-campaign", "--csv", "people.csv"][..],
        &[
            "--data",
            "sale.percent=20",
            "--data",
            "sale.until=2026-08-31",
            "--data",
            "sale.url=https://example.com/sale",
        ],
        &["--priority", "low"],
    ]
    .concat();
    let said = stage.run(&arguments, 0).await?;
    let id =
        said.lines().find_map(|line| line.trim().strip_prefix("batch  ")).context("it names its batch")?.to_owned();

    let mut progress = (!stage.printer.is_json()).then(Progress::new);
    let part = follow(stage, &id, progress.as_mut(), ENDED).await?;
    let shown = stage.run_quietly(&["queues"], 0).await?;
    let process = stage.kill_server().await?;
    if let Some(progress) = progress.take() {
        progress.end();
    }
    stage.say(&in_one_line(&[part]))?;
    stage.say("$ vestnik queues")?;
    stage.say(&shown)?;
    stage.heading(&format!(
        "kill -9 of the server, process {process}, in the middle; a new one takes the campaign up"
    ))?;
    stage.restart_server().await?;
    let mut progress = (!stage.printer.is_json()).then(Progress::new);
    let whole = follow(stage, &id, progress.as_mut(), PEOPLE as u64).await?;
    if let Some(progress) = progress.take() {
        progress.end();
    }
    stage.say(&in_one_line(&[whole]))?;
    stage.run(&["dead-letters", "causes", "--batch", &id], 0).await?;
    balance(stage, &id, before).await
}

/// Shows the batch until so many of it have ended.
async fn follow(stage: &Stage, id: &str, mut progress: Option<&mut Progress>, ended: u64) -> anyhow::Result<Value> {
    until("the campaign goes on", PATIENCE, async || {
        let view = stage.api.get(&format!("/v1/batches/{id}")).await?;
        if let Some(progress) = &mut progress {
            progress.show(std::slice::from_ref(&view));
        }
        let (accepted, in_flight) = (view["accepted"].as_u64(), view["inFlight"].as_u64());
        let so_far = accepted.zip(in_flight).map(|(accepted, in_flight)| accepted - in_flight);
        Ok((so_far.context("a batch counts")? >= ended).then_some(view))
    })
    .await
}

async fn balance(stage: &Stage, id: &str, before: u64) -> anyhow::Result<CampaignBalance> {
    stage.heading("The balance of the campaign: what the provider took, held against the ledger")?;
    let (rows, _) = stage.api.list("/v1/notifications", &[("batchId", id.to_owned())], PEOPLE + 1).await?;
    let mut times_taken: BTreeMap<String, usize> = rows.iter().map(|row| (field(row, "id"), 0)).collect();
    let taken = stage.taken(before).await?;
    let mut unknown = 0;
    for message in &taken {
        match times_taken.get_mut(&field(message, "ourId")) {
            Some(times) => *times += 1,
            None => unknown += 1,
        }
    }
    let of = |status: &str| rows.iter().filter(|row| row["status"] == status).collect::<Vec<_>>();
    let times = |row: &Value| times_taken.get(&field(row, "id")).copied().unwrap_or(0);
    let (sent, failed, uncertain) = (of("sent"), of("failed"), of("uncertain"));
    let balance = CampaignBalance {
        accepted: rows.len(),
        sent: sent.len(),
        failed: failed.len(),
        uncertain: uncertain.len(),
        taken_by_provider: taken.len(),
        lost: unknown + sent.iter().filter(|row| times(row) == 0).count(),
        twice: times_taken.values().filter(|times| **times > 1).count(),
    };
    stage.say(&format!(
        "accepted {} = sent {} + failed {} + uncertain {}",
        balance.accepted, balance.sent, balance.failed, balance.uncertain
    ))?;
    stage.say(&format!(
        "the simulator took {}: each that was sent, and {} of the uncertain; twice {}, lost {}",
        balance.taken_by_provider,
        uncertain.iter().filter(|row| times(row) > 0).count(),
        balance.twice,
        balance.lost
    ))?;
    ensure!(
        balance.accepted == PEOPLE && balance.sent + balance.failed + balance.uncertain == PEOPLE,
        "the campaign's own sum does not add up: {balance:?}"
    );
    ensure!(balance.failed > 0, "the provider refused nobody");
    ensure!(balance.lost == 0 && balance.twice == 0, "messages were lost or sent twice: {balance:?}");
    ensure!(failed.iter().all(|row| times(row) == 0), "one that failed was taken all the same");
    Ok(balance)
}
