//! What a change means for the small tables, worked out once for both databases: chunks, counters.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::ledger::{Accept, Begin, CHUNK, Close, Next, Postpone};
use crate::domain::{AccountId, BatchId, Epoch, IdSource, Priority, Status};

/// Which committer of a process counts; each has its own counter rows, so that they never wait for each other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot {
    UrgentAccept = 0,
    BulkAccept = 1,
    Record = 2,
    Settle = 3,
}

impl Slot {
    pub(super) const fn code(self) -> i16 {
        self as i16
    }
}

/// The counter of what was accepted, beside those of the statuses.
pub(super) const ACCEPTED: i16 = 0;

/// Changes of counters by (batch or none, status), in an order all committers share.
#[derive(Debug, Default)]
pub(super) struct Deltas(BTreeMap<(Uuid, i16), i64>);

impl Deltas {
    pub(super) fn add(&mut self, batch: Option<BatchId>, status: i16, n: i64) {
        let batch = batch.map_or(Uuid::nil(), |batch| batch.0);
        *self.0.entry((batch, status)).or_default() += n;
    }

    pub(super) fn accepted(&mut self, accept: &Accept) {
        for new in accept.notifications.iter().filter(|_| !accept.unseen) {
            self.add(new.batch, ACCEPTED, 1);
            if let Begin::Ended { status, .. } = &new.begin {
                self.add(new.batch, status.code(), 1);
            }
        }
    }

    /// Counts what a closed attempt settled; what waits or sends again is in flight, and that is not counted.
    pub(super) fn closed(&mut self, close: &Close) {
        let status = close.next.status();
        if !status.in_flight() {
            self.add(close.batch, status.code(), 1);
        }
    }

    /// (batch, status, change), without those that cancelled out.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Uuid, i16, i64)> + '_ {
        self.0.iter().filter(|(_, n)| **n != 0).map(|((batch, status), n)| (*batch, *status, *n))
    }
}

/// A row of `due` to be written.
#[derive(Debug)]
pub(super) struct NewChunk {
    pub(super) id: Uuid,
    pub(super) due_at: Timestamp,
    pub(super) handed_by: Option<Epoch>,
    pub(super) account: AccountId,
    pub(super) priority: Priority,
    pub(super) batch: Option<BatchId>,
    pub(super) members: Vec<Uuid>,
}

impl NewChunk {
    /// Those that nobody opened yet: all of them.
    pub(super) fn outstanding(&self) -> i32 {
        i32::try_from(self.members.len()).unwrap_or(i32::MAX)
    }
}

#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// By account, priority, batch and due time.
    due: BTreeMap<(AccountId, Priority, Option<BatchId>, i64), Vec<Uuid>>,
    held: Vec<NewChunk>,
}

impl Chunks {
    pub(super) fn accepted(&mut self, accept: &Accept) {
        for new in accept.notifications.iter().filter(|_| !accept.unseen) {
            match new.begin {
                Begin::Due { at, .. } => {
                    let key = (new.account, new.priority, new.batch, at.as_microsecond());
                    self.due.entry(key).or_default().push(new.id.0);
                }
                Begin::OnHold { until, .. } => {
                    let key = (new.account, new.priority, new.batch, grain(until));
                    self.due.entry(key).or_default().push(new.id.0);
                }
                // In hand one by one, under its own id, so that whoever opens it can name it.
                Begin::Held => self.held.push(NewChunk {
                    id: new.id.0,
                    due_at: new.created_at,
                    handed_by: Some(accept.epoch),
                    account: new.account,
                    priority: new.priority,
                    batch: new.batch,
                    members: vec![new.id.0],
                }),
                Begin::Open | Begin::Ended { .. } => {}
            }
        }
    }

    pub(super) fn closed(&mut self, close: &Close) {
        if let Next::Again { due_at, .. } = close.next {
            let key = (close.account, close.priority, close.batch, grain(due_at));
            self.due.entry(key).or_default().push(close.id.0);
        }
    }

    pub(super) fn postponed(&mut self, postpone: &Postpone) {
        let key = (postpone.account, postpone.priority, postpone.batch, grain(postpone.due_at));
        self.due.entry(key).or_default().push(postpone.claim.id.0);
    }

    pub(super) fn into_rows(self, ids: &IdSource) -> Vec<NewChunk> {
        let mut rows = self.held;
        for ((account, priority, batch, at), members) in self.due {
            for members in members.chunks(CHUNK) {
                rows.push(NewChunk {
                    id: ids.next(),
                    due_at: crate::domain::clock::from_micros(at),
                    handed_by: None,
                    account,
                    priority,
                    batch,
                    members: members.to_vec(),
                });
            }
        }
        rows
    }
}

/// Chunks looked at of one stream at a time.
pub(super) const MOST_CHUNKS: i64 = 64;

/// How much of each chunk of these sizes is taken, in order, until `limit` is reached.
pub(super) fn portion(limit: u32, sizes: impl Iterator<Item = i32>) -> impl Iterator<Item = u32> {
    let mut left = limit;
    sizes.map_while(move |size| {
        let taken = u32::try_from(size).unwrap_or(0).min(left);
        let goes_on = left > 0;
        left -= taken;
        goes_on.then_some(taken)
    })
}

/// What comes due within the same tenth of a second shares chunks.
fn grain(due_at: Timestamp) -> i64 {
    const GRAIN_MICROS: i64 = 100_000;
    due_at.as_microsecond().saturating_add(GRAIN_MICROS - 1).div_euclid(GRAIN_MICROS).saturating_mul(GRAIN_MICROS)
}

/// The state, due time, attempt and open time a new notification begins with. Due is what its chunk brings when this time
/// has come, too.
pub(super) fn begins(new: &super::NewNotification) -> (Status, Timestamp, i16, Option<Timestamp>) {
    match &new.begin {
        Begin::Open => (Status::Sending, new.created_at, 1, Some(new.created_at)),
        Begin::Held => (Status::Pending, new.created_at, 0, None),
        // It comes with its batch's chunk, which may be moved as one.
        Begin::Due { scheduled: true, .. } if new.batch.is_some() => (Status::Scheduled, new.created_at, 0, None),
        Begin::Due { at, scheduled: true } => (Status::Scheduled, *at, 0, None),
        Begin::Due { at, scheduled: false } => (Status::Pending, *at, 0, None),
        Begin::OnHold { until, .. } => (Status::Pending, *until, 0, None),
        Begin::Ended { status, .. } => (*status, new.created_at, 0, None),
    }
}

/// The code of what a new notification waits for, if it is held up.
pub(super) fn held_by(new: &super::NewNotification) -> Option<i16> {
    match &new.begin {
        Begin::OnHold { hold, .. } => Some(hold.code()),
        Begin::Open | Begin::Held | Begin::Due { .. } | Begin::Ended { .. } => None,
    }
}
