//! `/v1/queues`: what waits, where it is, how fast it goes, and who cannot send.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;

use super::Api;
use super::auth::Caller;
use super::problem::Problem;
use crate::delivery::{AccountDown, AccountNow, LaneNow, QueueNow};
use crate::domain::{Channel, Priority};
use crate::store::Scope;

/// The whole picture.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueuesView {
    queue: QueueView,
    lanes: Vec<LaneView>,
    accounts: Vec<AccountView>,
    at: Timestamp,
}

/// The queue between the ledger and the workers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueueView {
    /// `embedded` or `rabbitmq`.
    kind: &'static str,
    /// `up`, `blocked` (it answers and takes nothing) or `down`. Accepting goes on in any case.
    condition: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Who counted `ready` and `consumers`: `process`, this one, or `broker`. Absent when it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    depths_from: Option<&'static str>,
}

/// One channel's lane of one priority.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct LaneView {
    channel: Channel,
    priority: Priority,
    /// The queue's name in a broker.
    name: &'static str,
    waiting: WaitingView,
    /// Handed over, and begun by nobody yet: in the queue, or in a worker's hand.
    handed_over: u64,
    /// In the queue, ready to be taken: notifications, or in a broker messages of up to 16 notifications.
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<u64>,
    /// Who takes from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    consumers: Option<u64>,
    /// Taken by this process's workers and not begun.
    in_hand: u64,
    /// When the oldest became due that is not begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_due_at: Option<Timestamp>,
}

/// In the ledger, and not handed over.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct WaitingView {
    /// Its time has come.
    due: u64,
    /// It waits for its time.
    later: u64,
    /// Of `later`, what waits for its next try. Absent when more than 50,000 become due soon.
    #[serde(skip_serializing_if = "Option::is_none")]
    retrying: Option<u64>,
    /// Of paused batches, and what is left of cancelled ones.
    paused: u64,
}

/// One account: how fast it may send and does, and what holds it up.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct AccountView {
    channel: Channel,
    account: String,
    /// By the settings, for all processes together. Absent when this process's settings do not name the account: nothing of it is sent from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_per_second: Option<f64>,
    /// What the provider took from this process, on an average of the last ten seconds.
    sent_per_second: f64,
    /// Queued sends of this process that are on their way.
    sending: u64,
    /// Taken by this process's workers and not begun.
    in_hand: u64,
    dead_letters: u64,
    /// Why it cannot send, whichever process found out. One message at a time is tried, by one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    down: Option<DownView>,
    /// Nothing of it leaves until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_until: Option<Timestamp>,
    /// `throttled` by the provider, or its `day_limit` is used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_for: Option<&'static str>,
}

/// Why an account is down.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DownView {
    since: Timestamp,
    /// `auth`, `billing`, `config`, `suspended` or `unreachable`.
    reason: String,
    /// The provider's own code.
    code: String,
}

/// What waits, per channel and lane, and how each account does.
///
/// `sentPerSecond`, `sending` and `inHand` are of the process that answers; all else is of all processes, `down` and
/// `pausedUntil` as they were within the last second.
#[utoipa::path(
    get, path = "/v1/queues", tag = "operations", security(("key" = [])),
    responses(
        (status = 200, body = QueuesView, description = "How it stands"),
        (status = 503, body = Problem, description = "The ledger is away")
    )
)]
pub(super) async fn show(State(api): State<Api>, caller: Caller) -> Result<Json<QueuesView>, Problem> {
    caller.may(Scope::Read)?;
    let now = api.delivery.queues().await?;
    let lanes = now.lanes.into_iter().map(|lane| lane_view(lane, now.knows_retries)).collect();
    let accounts = now.accounts.into_iter().map(AccountView::from).collect();
    Ok(Json(QueuesView { queue: now.queue.into(), lanes, accounts, at: api.clock.now() }))
}

fn lane_view(lane: LaneNow, knows_retries: bool) -> LaneView {
    LaneView {
        channel: lane.channel,
        priority: lane.priority,
        name: lane.name,
        waiting: WaitingView {
            due: lane.due,
            later: lane.later,
            retrying: knows_retries.then_some(lane.retrying),
            paused: lane.paused,
        },
        handed_over: lane.handed,
        ready: lane.ready,
        consumers: lane.consumers,
        in_hand: lane.in_hand,
        oldest_due_at: lane.oldest_due,
    }
}

impl From<QueueNow> for QueueView {
    fn from(queue: QueueNow) -> Self {
        let counter = if queue.kind == "embedded" { "process" } else { "broker" };
        QueueView {
            kind: queue.kind,
            condition: queue.condition,
            reason: queue.reason,
            depths_from: queue.tells_depths.then_some(counter),
        }
    }
}

impl From<AccountNow> for AccountView {
    fn from(account: AccountNow) -> Self {
        let (paused_until, paused_for) = account.paused.unzip();
        AccountView {
            channel: account.name.channel,
            account: account.name.name.to_string(),
            allowed_per_second: (!account.is_unknown).then_some(account.allowed_per_second),
            sent_per_second: (account.sent_per_second * 10.0).round() / 10.0,
            sending: account.sending,
            in_hand: account.in_hand,
            dead_letters: account.dead_letters,
            down: account.down.map(DownView::from),
            paused_until,
            paused_for,
        }
    }
}

impl From<AccountDown> for DownView {
    fn from(down: AccountDown) -> Self {
        DownView { since: down.since, reason: down.reason, code: down.code }
    }
}
