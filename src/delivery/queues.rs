//! How all of it stands: what waits in the ledger, what the queue holds, what is in hand, how fast it goes, and who
//! cannot send. For people who watch; nothing decides by it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Delivery, SendingAccount};
use crate::domain::clock::later;
use crate::domain::{AccountId, AccountRef, Channel, Priority};
use crate::limits::{Down, WaitReason};
use crate::queue::{Condition, Lane, LaneDepth};
use crate::store::StoreError;

/// A queue that does not tell how much it holds by then is said not to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The whole picture.
#[derive(Clone, Debug)]
pub struct QueuesNow {
    pub queue: QueueNow,
    /// Of every channel that has an account or something that waits; most urgent first.
    pub lanes: Vec<LaneNow>,
    /// By name.
    pub accounts: Vec<AccountNow>,
    /// Whether retries were counted: not when too much becomes due soon to look at each of it.
    pub knows_retries: bool,
}

/// The queue between the relay and the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueNow {
    /// `embedded` or `rabbitmq`.
    pub kind: &'static str,
    /// `up`, `blocked` (it answers and takes nothing) or `down`.
    pub condition: &'static str,
    pub reason: Option<String>,
    /// Whether it told how much its lanes hold.
    pub tells_depths: bool,
}

/// One channel's lane of one priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneNow {
    pub channel: Channel,
    pub priority: Priority,
    /// Its name, which is the queue's in a broker.
    pub name: &'static str,
    /// In the ledger; its time has come.
    pub due: u64,
    /// In the ledger; waits for its time.
    pub later: u64,
    /// Of these, what waits for its next try.
    pub retrying: u64,
    /// In the ledger, of paused batches and what is left of cancelled ones.
    pub paused: u64,
    /// Handed over, and begun by nobody yet: in the queue or in hand.
    pub handed: u64,
    /// In the queue, ready to be taken; a broker counts messages, each with a bundle.
    pub ready: Option<u64>,
    /// Who takes from it.
    pub consumers: Option<u64>,
    /// Taken by workers of this process and not begun.
    pub in_hand: u64,
    /// When the oldest became due that is not begun.
    pub oldest_due: Option<Timestamp>,
}

/// One account.
#[derive(Clone, Debug)]
pub struct AccountNow {
    pub name: AccountRef,
    /// The settings of this process do not name it: nothing of it is sent from here.
    pub is_unknown: bool,
    /// What the settings allow.
    pub allowed_per_second: f64,
    /// What the provider took from this process, on an average of the last ten seconds.
    pub sent_per_second: f64,
    /// Queued sends of this process that are on their way.
    pub sending: u64,
    pub in_hand: u64,
    pub dead_letters: u64,
    pub down: Option<AccountDown>,
    /// Nothing of it leaves until then, and why: `throttled` or `day_limit`.
    pub paused: Option<(Timestamp, &'static str)>,
}

/// An account that cannot send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountDown {
    pub since: Timestamp,
    /// A word of ours: `auth`, `billing`, `unreachable`, ….
    pub reason: String,
    /// The provider's own code.
    pub code: String,
}

impl From<Down> for AccountDown {
    fn from(down: Down) -> Self {
        AccountDown { since: down.since, reason: down.reason, code: down.code }
    }
}

impl Delivery {
    /// Everything there is to see. A few small queries, and one question to the queue.
    pub async fn queues(&self) -> Result<QueuesNow, StoreError> {
        let now = self.clock.now();
        let (lanes, retrying, dead_letters, depths) =
            tokio::join!(self.backlog(), self.store.retrying(now), self.store.dead_letter_counts(), self.depths());
        let (mut lanes, retrying) = (lanes?, retrying?);
        for one in retrying.iter().flatten() {
            let Some(name) = self.names.get(&one.account) else { continue };
            let of_lane = |lane: &&mut LaneNow| lane.channel == name.channel && lane.priority == one.priority;
            if let Some(lane) = lanes.iter_mut().find(of_lane) {
                lane.retrying += one.count;
            }
        }
        for depth in depths.iter().flatten() {
            let of_lane = |lane: &&mut LaneNow| lane.name == depth.lane.name();
            if let Some(lane) = lanes.iter_mut().find(of_lane) {
                (lane.ready, lane.consumers) = (Some(depth.ready), Some(depth.consumers));
            }
        }
        let accounts = self.accounts_now(&dead_letters?.into_iter().collect());
        let queue = QueueNow { tells_depths: depths.is_some(), ..self.queue_now() };
        Ok(QueuesNow { queue, lanes, accounts, knows_retries: retrying.is_some() })
    }

    /// What waits, lane by lane, as the ledger and this process know it.
    pub async fn backlog(&self) -> Result<Vec<LaneNow>, StoreError> {
        let backlog = self.store.backlog(self.clock.now()).await?;
        let mut lanes: BTreeMap<Channel, [LaneNow; 3]> = BTreeMap::new();
        let of_channel = |channel| Lane::of(channel).map(empty);
        for account in self.sending.values() {
            let lanes = lanes.entry(account.name().channel).or_insert_with_key(|channel| of_channel(*channel));
            for (lane, in_hand) in lanes.iter_mut().zip(account.hand.lens()) {
                lane.in_hand += in_hand as u64;
            }
        }
        for one in backlog {
            // The ledger numbered an account after this process had started.
            let Some(name) = self.names.get(&one.account) else { continue };
            let lanes = lanes.entry(name.channel).or_insert_with_key(|channel| of_channel(*channel));
            let Some(lane) = lanes.iter_mut().find(|lane| lane.priority == one.priority) else { continue };
            lane.due += one.due;
            lane.later += one.later;
            lane.paused += one.held;
            lane.handed += one.handed;
            lane.oldest_due = [lane.oldest_due, one.oldest_due].into_iter().flatten().min();
        }
        Ok(lanes.into_values().flatten().collect())
    }

    /// The queue, without asking it how much it holds.
    pub fn queue_now(&self) -> QueueNow {
        let (condition, reason) = match &*self.queue.condition().borrow() {
            Condition::Up => ("up", None),
            Condition::Blocked { reason } => ("blocked", Some(reason.clone())),
            Condition::Down { reason } => ("down", Some(reason.clone())),
        };
        QueueNow { kind: self.queue.kind(), condition, reason, tells_depths: false }
    }

    /// Every account of the settings by name, with why it cannot send, if it cannot.
    pub fn accounts_down(&self) -> Vec<(AccountRef, Option<AccountDown>)> {
        let mut all: Vec<_> = self
            .sending
            .values()
            .map(|account| (account.name().clone(), account.circuit.down().map(AccountDown::from)))
            .collect();
        all.sort_by_key(|(name, _)| name.to_string());
        all
    }

    async fn depths(&self) -> Option<Vec<LaneDepth>> {
        let asked = tokio::time::timeout(PATIENCE, self.queue.depths()).await;
        asked.ok()?.inspect_err(|error| tracing::debug!(%error, "the queue does not tell how much it holds")).ok()
    }

    fn accounts_now(&self, dead_letters: &BTreeMap<AccountId, u64>) -> Vec<AccountNow> {
        let of = |id: &AccountId| dead_letters.get(id).copied().unwrap_or(0);
        let known = self.sending.values().map(|account| self.account_now(account, of(&account.id)));
        let unknown = dead_letters.iter().filter_map(|(id, count)| {
            let name = self.names.get(id).filter(|name| !self.sending.contains_key(*name))?;
            Some(AccountNow {
                name: name.clone(),
                is_unknown: true,
                allowed_per_second: 0.0,
                sent_per_second: 0.0,
                sending: 0,
                in_hand: 0,
                dead_letters: *count,
                down: None,
                paused: None,
            })
        });
        let mut all: Vec<_> = known.chain(unknown).collect();
        all.sort_by_key(|account| account.name.to_string());
        all
    }

    fn account_now(&self, account: &Arc<SendingAccount>, dead_letters: u64) -> AccountNow {
        let now = Instant::now();
        let paused = account.budget.rests_until(now).map(|(until, reason)| {
            let why = if reason == WaitReason::Day { "day_limit" } else { "throttled" };
            (later(self.clock.now(), until.saturating_duration_since(now)), why)
        });
        AccountNow {
            name: account.name().clone(),
            is_unknown: false,
            allowed_per_second: account.allowed_per_second,
            sent_per_second: account.sent.per_second(now),
            sending: account.in_the_works() as u64,
            in_hand: account.in_hand() as u64,
            dead_letters,
            down: account.circuit.down().map(AccountDown::from),
            paused,
        }
    }
}

fn empty(lane: Lane) -> LaneNow {
    LaneNow {
        channel: lane.channel,
        priority: lane.priority,
        name: lane.name(),
        due: 0,
        later: 0,
        retrying: 0,
        paused: 0,
        handed: 0,
        ready: None,
        consumers: None,
        in_hand: 0,
        oldest_due: None,
    }
}
