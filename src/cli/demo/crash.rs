//! kill -9 in the middle of a burst, and what the books say afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::stage::{SLOW_CHAT, Stage, send, until};
use crate::app::ledger_options;
use crate::cli::client::field;
use crate::cli::ledger;
use crate::cli::notifications::in_words;
use crate::config::{Settings, Sources};
use crate::domain::SystemClock;
use crate::store;

/// Sends of the burst.
const BURST: usize = 60;
/// The server is killed when so many of them were answered.
const ANSWERED: usize = 20;
/// Uncertain ones that are shown in full.
const SHOWN: usize = 2;
/// More than the demo ever accepts.
const MOST_ROWS: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// What was accepted, held against what the provider took.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Balance {
    accepted: usize,
    sent: usize,
    failed: usize,
    uncertain: usize,
    taken_by_provider: usize,
    /// Callers without an answer whose request had not reached the ledger: nothing was promised, nothing left.
    never_accepted: usize,
    /// Taken more than once; each is flagged in the ledger.
    twice_and_flagged: usize,
    /// Answered with 200, or taken, and not in the ledger; or `sent` there and never taken.
    lost: usize,
}

pub(super) async fn play(stage: &mut Stage) -> anyhow::Result<Balance> {
    let burst = burst_and_kill(stage).await?;
    stage
        .heading("The server starts again on the same ledger: what nobody can know is called uncertain, not guessed")?;
    stage.restart_server().await?;
    let rows = settled(stage).await?;
    show_uncertain(stage, &rows)?;
    show_resent(stage, &rows)?;
    balance(stage, &rows, &burst).await
}

/// What the callers of the burst know.
struct Burst {
    /// Ids that were answered with 200.
    answered: Vec<String>,
    unanswered: usize,
    /// Rows of the ledger before it.
    rows_before: usize,
}

async fn burst_and_kill(stage: &mut Stage) -> anyhow::Result<Burst> {
    stage.heading(&format!("kill -9 of the server, in the middle of {BURST} sends: nothing accepted is lost"))?;
    let rows_before = stage.api.list("/v1/notifications", &[], MOST_ROWS).await?.0.len();
    let mut sends = JoinSet::new();
    let api = Arc::new(crate::cli::client::Client::at(stage.api.base(), "by the demo", None));
    let spawn = |sends: &mut JoinSet<_>, body: Value| {
        let api = Arc::clone(&api);
        sends.spawn(async move { send(&api, &body, None).await });
    };
    // An alarm that may come twice rather than never, in flight for certain when the server dies.
    let alarm = json!({ "channel": "telegram", "recipient": SLOW_CHAT, "templateId": "new-lead-alert",
                        "context": { "leadId": 44 }, "deadlineMs": 30_000 });
    let before = stage.taken_count().await?;
    spawn(&mut sends, alarm);
    until("the alarm is in flight", PATIENCE, async || Ok((stage.taken_count().await? > before).then_some(()))).await?;
    for n in 0..BURST {
        let recipient = format!("+7999200{n:04}");
        spawn(&mut sends, json!({ "channel": "whatsapp", "recipient": recipient, "text": format!("Заказ {n} готов") }));
    }
    let mut answered = Vec::new();
    while answered.len() < ANSWERED {
        let (status, answer) = sends.join_next().await.context("the burst ended before the crash")???;
        ensure!(
            status.is_success() && answer["status"] == "sent",
            "a send of the burst was answered {status} {answer}"
        );
        answered.push(field(&answer, "id"));
    }
    let id = stage.kill_server().await?;
    let mut unanswered = 0;
    while let Some(ended) = sends.join_next().await {
        match ended? {
            // Its answer was on its way when the server died.
            Ok((status, answer)) if status.is_success() => answered.push(field(&answer, "id")),
            Ok((status, answer)) => bail!("a send of the burst was answered {status} {answer}"),
            Err(_) => unanswered += 1,
        }
    }
    stage.say(&format!(
        "process {id} is gone: {} sends were answered, {unanswered} callers got no answer",
        answered.len()
    ))?;
    ensure!(unanswered > 0, "nothing was in flight at the crash");
    Ok(Burst { answered, unanswered, rows_before })
}

/// All rows with their attempts, once nothing is on its way any more.
async fn settled(stage: &Stage) -> anyhow::Result<Vec<Value>> {
    const IN_FLIGHT: [&str; 4] = ["scheduled", "pending", "queued", "sending"];
    let rows = until("everything is settled", PATIENCE, async || {
        let (rows, _) = stage.api.list("/v1/notifications", &[], MOST_ROWS).await?;
        let waits = rows.iter().any(|row| IN_FLIGHT.contains(&row["status"].as_str().unwrap_or_default()));
        Ok((!waits).then_some(rows))
    })
    .await?;
    let mut whole = Vec::with_capacity(rows.len());
    for row in &rows {
        whole.push(stage.api.get(&format!("/v1/notifications/{}", field(row, "id"))).await?);
    }
    Ok(whole)
}

fn show_uncertain(stage: &Stage, rows: &[Value]) -> anyhow::Result<()> {
    let uncertain: Vec<_> = rows.iter().filter(|row| row["status"] == "uncertain").collect();
    ensure!(!uncertain.is_empty(), "nothing is uncertain, though sends were in flight at the crash");
    stage.say(&format!("{} are uncertain: they may have left. {SHOWN} of them:", uncertain.len()))?;
    for row in uncertain.iter().take(SHOWN) {
        stage.say(&in_words(row))?;
    }
    Ok(())
}

fn show_resent(stage: &Stage, rows: &[Value]) -> anyhow::Result<()> {
    stage.heading("The alarm was at_least_once: it was sent again by itself, and both attempts are flagged")?;
    let alarm = rows.iter().find(|row| row["recipient"] == SLOW_CHAT).context("the alarm is not in the ledger")?;
    stage.say(&in_words(alarm))?;
    let attempts = alarm["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let outcomes: Vec<_> = attempts.iter().map(|attempt| field(attempt, "outcome")).collect();
    ensure!(
        alarm["status"] == "sent" && outcomes == ["lost", "accepted"],
        "the alarm is {} after {outcomes:?}, not sent again",
        alarm["status"]
    );
    ensure!(attempts.iter().all(|attempt| attempt["flagged"] == true), "a possible duplicate is not flagged");
    Ok(())
}

/// The ledger against the simulator's own record, which knows nothing of it.
async fn balance(stage: &Stage, rows: &[Value], burst: &Burst) -> anyhow::Result<Balance> {
    stage.heading("The balance: what the provider took, held against the ledger")?;
    let taken = stage.taken(0).await?;
    let count = |status: &str| rows.iter().filter(|row| row["status"] == status).count();
    let by_id: BTreeMap<_, _> = rows.iter().map(|row| (field(row, "id"), row)).collect();
    let provider_ids: BTreeSet<_> = taken.iter().map(|taken| field(taken, "providerMessageId")).collect();

    // WhatsApp carries our id; of a Telegram message its chat says which it is.
    let mut times_taken: BTreeMap<String, usize> = BTreeMap::new();
    let mut unknown = 0;
    for message in taken.iter().filter(|taken| taken["channel"] == "whatsapp") {
        let id = field(message, "ourId");
        if by_id.contains_key(&id) { *times_taken.entry(id).or_default() += 1 } else { unknown += 1 }
    }
    let alarm = rows.iter().find(|row| row["recipient"] == SLOW_CHAT).context("the alarm is in the ledger")?;
    let alarms = taken.iter().filter(|taken| taken["recipient"] == SLOW_CHAT).count();
    times_taken.insert(field(alarm, "id"), alarms);

    let is_flagged = |row: &Value| {
        let mut attempts = row["attempts"].as_array().into_iter().flatten();
        attempts.all(|attempt| attempt["flagged"] == true)
    };
    let twice: Vec<_> =
        times_taken.iter().filter(|(_, times)| **times > 1).filter_map(|(id, _)| by_id.get(id)).collect();
    let silent = twice.iter().filter(|row| !is_flagged(row)).count();
    let unanswered_for =
        burst.answered.iter().filter(|id| by_id.get(*id).is_none_or(|row| row["status"] != "sent")).count();
    let never_taken = rows
        .iter()
        .filter(|row| row["status"] == "sent")
        .filter(|row| {
            let mut attempts = row["attempts"].as_array().into_iter().flatten();
            // Of an email it is our own id and the server's words, of which the last is the server's id.
            !attempts.any(|attempt| {
                let id = field(attempt, "providerMessageId");
                provider_ids.contains(id.rsplit(' ').next().unwrap_or_default())
            })
        })
        .count();
    let balance = Balance {
        accepted: rows.len(),
        sent: count("sent"),
        failed: count("failed"),
        uncertain: count("uncertain"),
        taken_by_provider: taken.len(),
        never_accepted: (burst.answered.len() + burst.unanswered).saturating_sub(rows.len() - burst.rows_before),
        twice_and_flagged: twice.len() - silent,
        lost: unknown + unanswered_for + never_taken,
    };
    stage.say(&format!(
        "accepted {} = sent {} + failed {} + uncertain {}",
        balance.accepted, balance.sent, balance.failed, balance.uncertain
    ))?;
    stage.say(&format!(
        "the simulator took {}, {} of them uncertain to us; twice {} (flagged), twice and silent {silent}; lost {}",
        balance.taken_by_provider,
        times_taken.keys().filter(|id| by_id.get(*id).is_some_and(|row| row["status"] == "uncertain")).count(),
        balance.twice_and_flagged,
        balance.lost
    ))?;
    stage.say(&format!(
        "{} callers without an answer were never accepted: nothing was promised them, and nothing of theirs left",
        balance.never_accepted
    ))?;
    ensure!(
        balance.accepted == balance.sent + balance.failed + balance.uncertain,
        "the ledger's own sum does not add up"
    );
    ensure!(balance.lost == 0, "{} were lost", balance.lost);
    ensure!(silent == 0, "{silent} were sent twice, and nobody was told");
    ensure!(balance.twice_and_flagged == 1, "the alarm, and nothing else, is to arrive twice");
    // Independent of which are which: every message the provider took is a send we know of, or a resend we flagged.
    let most = balance.sent + balance.uncertain + balance.twice_and_flagged;
    ensure!(
        (balance.sent..=most).contains(&balance.taken_by_provider),
        "the simulator took {} messages, and the ledger accounts for {} to {most}",
        balance.taken_by_provider,
        balance.sent
    );
    Ok(balance)
}

pub(super) async fn verify(stage: &Stage) -> anyhow::Result<()> {
    stage.heading("vestnik verify: the ledger's records, written at different times, agree with each other")?;
    let data_dir = ("ledger.data_dir".to_owned(), stage.data_dir().display().to_string());
    let settings = Settings::load(&Sources { overrides: vec![data_dir], ..Sources::default() })?;
    let store = store::connect_read_only(&ledger_options(&settings), Arc::new(SystemClock)).await?;
    let report = store.verify().await?;
    stage.say(&ledger::in_words(&report))?;
    ensure!(report.balances(), "the books do not balance");
    Ok(())
}
