//! The hot part of the ledger: accept, take due, open, record. Every method takes many at once.
//!
//! A notification's way through it:
//! - [`accept`](Ledger::accept) writes it durably, waiting (in a *chunk* of up to 500 that become due together) or
//!   with its first attempt already open (a direct send).
//! - [`waiting`](Ledger::waiting) says what is due and what is handed over already; [`take_due`](Ledger::take_due)
//!   hands out chunks whose time has come, each notification with a new generation.
//! - [`open`](Ledger::open) claims by compare-and-set on (id, generation), fenced by the process's epoch, and opens the
//!   attempt in the same statement. Not claimed means: somebody else has it, or it no longer waits.
//! - [`record`](Ledger::record) closes open attempts, with what comes next, once each.
//! - [`recover`](Ledger::recover) settles what a lost process left open or had in hand.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{StoreError, SuppressionScope};
use crate::domain::{
    AccountId, AccountRef, BatchId, Channel, Epoch, Generation, HoldReason, Mode, NotificationId, OutcomeClass, Policy,
    Priority, ProviderError, RecordIds, Status, TemplateId, TemplateVersion,
};

/// A chunk of up to this many notifications is taken as one.
pub const CHUNK: usize = 500;

/// A process that begins to work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEpoch {
    /// For people: how the ledger lists it.
    pub name: String,
    /// What it may send by.
    pub channels: BTreeSet<Channel>,
}

/// The books' moving part.
///
/// All methods are durable when they return `Ok`; after an error of kind [`StoreError::Unavailable`] it is unknown
/// whether the change happened. Dropping a returned future does not undo it.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Numbers the accounts, the same number for the same name for ever.
    async fn accounts(&self, accounts: Vec<AccountRef>) -> Result<Vec<(AccountId, AccountRef)>, StoreError>;

    /// A new epoch for this process, with a lease. Several processes may live on PostgreSQL; on SQLite every earlier
    /// epoch is lost, because the lock file says so.
    async fn begin_epoch(&self, new: NewEpoch) -> Result<Epoch, StoreError>;

    /// Renews the lease. [`StoreError::EpochLost`] when it is too late.
    async fn renew(&self, epoch: Epoch) -> Result<(), StoreError>;

    /// How many living processes may send by each channel, this one among them.
    async fn senders(&self) -> Result<HashMap<Channel, u32>, StoreError>;

    /// A clean end: nothing is open any more, nobody needs to wait for the lease.
    async fn end_epoch(&self, epoch: Epoch) -> Result<(), StoreError>;

    /// Writes all of it, or nothing. With a key that is known already nothing is written, and the answer is what the
    /// first call with it wrote. Fails with [`StoreError::EpochLost`] if a lost epoch was to open or hold any of it.
    async fn accept(&self, accept: Accept) -> Result<Accepted, StoreError>;

    /// What waits, due or not, stream by stream, most urgent first; paused and cancelled batches apart. And how much of
    /// what was handed over nobody has opened yet.
    async fn waiting(&self) -> Result<Waiting, StoreError>;

    /// Hands out chunks that are due, in the order of the streams asked for and within a stream the oldest first. No
    /// two callers get the same one, and a lost epoch none ([`StoreError::EpochLost`]): nobody would give back what it
    /// holds.
    async fn take_due(&self, take: TakeDue) -> Result<Vec<HandedChunk>, StoreError>;

    /// What was asked for, of each that exists, in no order. For the work on what was handed over.
    async fn load(&self, ids: Vec<NotificationId>) -> Result<Vec<NewNotification>, StoreError>;

    /// Claims and opens. The answer holds those that were claimed, in the order asked; the others are copies.
    async fn open(&self, open: Open) -> Result<Vec<Opened>, StoreError>;

    /// Closes attempts. The answer says of each, in order, whether it was closed; `false` means that this process no
    /// longer held it (it was lost and recovered, or is closed already).
    async fn record(&self, record: Record) -> Result<Vec<bool>, StoreError>;

    /// A chunk that was handed over, by whomever, becomes due again, with those of its notifications that nobody opened.
    /// Returns how many wait again. What was handed over with it can still be opened until it is handed over anew.
    async fn give_back(&self, chunk: ChunkId) -> Result<u64, StoreError>;

    /// Counts anew what nobody opened of the chunks handed over before `before`, `by` one process or by any. Chunks of
    /// which nothing is left go; the others are named.
    async fn recount(&self, before: Timestamp, by: Option<Epoch>) -> Result<Vec<HandedLong>, StoreError>;

    /// Puts back until their `due_at` what was handed over. The answer says of each, in order, whether it was; `false`
    /// means that it is not in hand any more.
    async fn postpone(&self, postpones: Vec<Postpone>) -> Result<Vec<bool>, StoreError>;

    /// Ends without a send what still waits. The answer says of each, in order, whether it was this that ended it.
    async fn settle(&self, settles: Vec<Settle>) -> Result<Vec<bool>, StoreError>;

    /// Moves one that has not begun to another time, wherever it waits; `false` if it does not wait any more. What was
    /// handed over of it is a copy from now on. One of a batch does not come with its batch any more.
    async fn reschedule(&self, id: NotificationId, at: Timestamp) -> Result<bool, StoreError>;

    /// Moves a batch whose time has not come: all of it or nothing, but for what was moved by itself. `false` if its time
    /// has come, or it was cancelled, or is not there. Whether it is paused is another matter.
    async fn reschedule_batch(&self, id: BatchId, at: Timestamp) -> Result<bool, StoreError>;

    /// Settles what lost processes left: open attempts become `uncertain` (or wait for their one resend), chunks in
    /// hand become due again. A lease that ran out loses its epoch; what it had open is settled `send_deadline` later.
    async fn recover(&self, recover: Recover) -> Result<Recovered, StoreError>;
}

/// How soon a commit is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody waits for the answer of a direct send.
    Urgent,
    /// Bulk work, which gives way.
    Bulk,
}

/// What a request asked for, to be written as one.
#[derive(Clone, Debug)]
pub struct Accept {
    pub epoch: Epoch,
    pub notifications: Vec<NewNotification>,
    pub key: Option<NewKey>,
    pub urgency: Urgency,
    /// Part of a batch that is being accepted: nobody sees it until [`Batches::accept_batch`](super::Batches).
    pub unseen: bool,
}

impl Accept {
    /// Whether any of it is to be in the accepting process's hand, which then has to live.
    pub(super) fn holds(&self) -> bool {
        self.notifications.iter().any(|new| matches!(new.begin, Begin::Open | Begin::Held))
    }
}

#[derive(Clone, Debug)]
pub struct NewNotification {
    pub id: NotificationId,
    pub batch: Option<BatchId>,
    pub channel: Channel,
    pub account: AccountId,
    pub template: Option<(TemplateId, TemplateVersion)>,
    /// Given text, when there is no template.
    pub text: Option<String>,
    pub recipient: String,
    pub records: RecordIds,
    /// JSON.
    pub data: Option<String>,
    /// JSON.
    pub metadata: Option<String>,
    pub external_id: Option<String>,
    pub priority: Priority,
    pub policy: Policy,
    pub mode: Mode,
    pub max_retries: i16,
    pub scheduled_at: Option<Timestamp>,
    pub not_after: Option<Timestamp>,
    pub created_at: Timestamp,
    pub begin: Begin,
}

/// Where a new notification begins.
#[derive(Clone, Debug)]
pub enum Begin {
    /// Attempt 1 is open: it is sent as soon as this is durable.
    Open,
    /// In the accepting process's hand, to be opened within the call. Becomes due if the process is lost. Its chunk has
    /// the notification's own id, and it is handed over in generation 0.
    Held,
    /// Waits until `at`; `scheduled` when its sender chose the time.
    Due { at: Timestamp, scheduled: bool },
    /// A direct send that was not tried: it waits for what holds it up, and goes through the queue then.
    OnHold { until: Timestamp, hold: HoldReason },
    /// Settled without a send: `Suppressed` or `Failed`.
    Ended { status: Status, cause: &'static str, error: ProviderError },
}

/// An `Idempotency-Key` of one caller.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Whose key it is: two callers may use the same text.
    pub scope: String,
    pub key: String,
    pub request_hash: [u8; 32],
    pub expires_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    Stored,
    /// The key was there: nothing was written.
    Repeated(StoredKey),
}

/// What an idempotency key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    pub request_hash: [u8; 32],
    /// In the order of the request.
    pub ids: Vec<NotificationId>,
    pub batch: Option<BatchId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkId(pub uuid::Uuid);

/// Notifications that wait together: of one account, one priority, and one batch or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream {
    pub priority: Priority,
    pub account: AccountId,
    pub batch: Option<BatchId>,
}

/// The answer to [`Ledger::waiting`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Most urgent first.
    pub streams: Vec<WaitingStream>,
    pub handed: Vec<HandedOver>,
    /// Batches of which nothing may be sent just now.
    pub held: Vec<HeldBatch>,
    /// What still waits of cancelled batches: it is to be ended.
    pub cancelled: Vec<WaitingStream>,
}

/// A batch that was paused or cancelled and is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBatch {
    pub batch: BatchId,
    pub is_cancelled: bool,
}

/// A stream with something in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingStream {
    pub stream: Stream,
    /// When its first chunk becomes due; may lie in the past.
    pub due_at: Timestamp,
    /// Notifications, due or not. What was cancelled one by one may still be counted until its chunk's time comes.
    pub count: u64,
}

/// What one process handed over of one account and priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOver {
    pub by: Epoch,
    pub account: AccountId,
    pub priority: Priority,
    /// Notifications that nobody opened yet. What was cancelled or expired meanwhile may still be counted for a while.
    pub count: u64,
    /// When the oldest of them was handed over.
    pub since: Timestamp,
}

/// A chunk that was handed over a while ago, and of which something is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedLong {
    pub chunk: ChunkId,
    pub account: AccountId,
    pub priority: Priority,
}

#[derive(Clone, Debug)]
pub struct TakeDue {
    pub epoch: Epoch,
    pub from: Vec<TakeFrom>,
    /// Also what is not due yet: what is to be ended need not wait for its time.
    pub early: bool,
}

/// How much is taken of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakeFrom {
    pub stream: Stream,
    /// Notifications at most; a chunk that holds more is parted.
    pub limit: u32,
}

/// A chunk that was handed over. It stays in the ledger until each of its notifications is opened, postponed or
/// settled, or it is given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedChunk {
    pub id: ChunkId,
    pub account: AccountId,
    pub priority: Priority,
    pub batch: Option<BatchId>,
    pub due_at: Timestamp,
    /// Those of its notifications that were waiting; may be empty.
    pub handed: Vec<Handed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed {
    pub id: NotificationId,
    pub generation: Generation,
    pub retry_count: i16,
}

#[derive(Clone, Debug)]
pub struct Open {
    pub epoch: Epoch,
    pub claims: Vec<Claim>,
    pub urgency: Urgency,
}

/// What names one hand-over of one notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub id: NotificationId,
    pub generation: Generation,
    /// The chunk it was handed over with.
    pub chunk: ChunkId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    pub id: NotificationId,
    /// The number of the attempt that is open now, from 1.
    pub attempt: i16,
    pub retry_count: i16,
    /// How often it was sent again after an uncertain send.
    pub resends: i16,
    pub opened_at: Timestamp,
}

#[derive(Clone, Debug)]
pub struct Record {
    pub epoch: Epoch,
    pub closes: Vec<Close>,
    pub urgency: Urgency,
}

/// The end of one attempt, and what comes next.
#[derive(Clone, Debug)]
pub struct Close {
    pub id: NotificationId,
    pub batch: Option<BatchId>,
    pub account: AccountId,
    pub channel: Channel,
    pub priority: Priority,
    pub recipient: String,
    pub template: Option<(TemplateId, TemplateVersion)>,
    pub attempt: i16,
    pub opened_at: Timestamp,
    pub closed_at: Timestamp,
    pub class: OutcomeClass,
    pub cause: &'static str,
    pub provider_message_id: Option<String>,
    pub error: Option<ProviderError>,
    pub text_hash: Option<[u8; 32]>,
    /// This attempt and another may both have reached the person.
    pub flagged: bool,
    /// The recipient opted out: nothing of this scope is sent to the address any more.
    pub suppress: Option<SuppressionScope>,
    pub next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Sent,
    Failed,
    Uncertain,
    /// Waits until `due_at` for another try. `retry` counts it against the notification's retries, `resend` as the
    /// one resend after an uncertain send.
    Again {
        due_at: Timestamp,
        hold: HoldReason,
        counts: Counts,
    },
    /// The next attempt is opened in the same commit (a direct send within its deadline, nothing has left yet).
    Reopen {
        opened_at: Timestamp,
    },
}

/// What another try costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    Nothing,
    Retry,
    Resend,
}

impl Next {
    /// The status after it.
    pub const fn status(self) -> Status {
        match self {
            Next::Sent => Status::Sent,
            Next::Failed => Status::Failed,
            Next::Uncertain => Status::Uncertain,
            Next::Again { .. } => Status::Pending,
            Next::Reopen { .. } => Status::Sending,
        }
    }
}

/// One handed-over notification that has to wait on.
#[derive(Clone, Copy, Debug)]
pub struct Postpone {
    pub claim: Claim,
    pub account: AccountId,
    pub priority: Priority,
    pub batch: Option<BatchId>,
    pub due_at: Timestamp,
    pub hold: HoldReason,
}

/// The end of a notification that was not sent.
#[derive(Clone, Debug)]
pub struct Settle {
    pub epoch: Epoch,
    pub id: NotificationId,
    pub batch: Option<BatchId>,
    /// The chunk it was handed over with, by whoever has it in hand.
    pub chunk: Option<ChunkId>,
    /// `Suppressed`, `Expired` or `Cancelled`.
    pub status: Status,
    pub at: Timestamp,
    /// Who did it: `worker`, or a person.
    pub actor: String,
    pub reason: String,
}

#[derive(Clone, Debug)]
pub struct Recover {
    /// The process that does it.
    pub epoch: Epoch,
    pub now: Timestamp,
    /// An open attempt of a lost epoch may still be on its way to the provider for this long.
    pub send_deadline: Duration,
    /// How long an at-least-once resend waits for a receipt, on channels that have them.
    pub resend_grace: Duration,
}

/// What [`Ledger::recover`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub epochs: Vec<Epoch>,
    pub uncertain: u64,
    pub to_resend: u64,
    /// Notifications that wait again.
    pub due_again: u64,
}

impl Recovered {
    pub fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }
}
