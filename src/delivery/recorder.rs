//! 7a. Outcomes of queued sends are recorded together: whatever ended within a few milliseconds shares a commit.
//!
//! A send's place is given back when its outcome is durable, and not before, so that what only this process knows
//! stays bounded. Nothing waits in here at a stop: the sends' tracker waits for the recording, too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::Delivery;
use super::record::Unrecorded;
use crate::domain::Epoch;
use crate::store::{Close, NewNotification, Next, Urgency};

/// An outcome waits so long for company.
const GATHER: Duration = Duration::from_millis(5);
/// Recorded in one call at most: SQLite's writer is not held for longer than a direct send may wait.
const AT_ONCE: usize = 250;

/// Outcomes that wait to be recorded.
#[derive(Default)]
pub(super) struct Recorder {
    // Held to move a few values, never over an await.
    waiting: Mutex<Waiting>,
    /// There is enough for a call.
    full: Notify,
}

#[derive(Default)]
struct Waiting {
    ended: Vec<Ended>,
    /// Somebody records, and looks here again before ending.
    is_running: bool,
}

/// One queued send that is over.
pub(super) struct EndedSend {
    pub(super) new: NewNotification,
    pub(super) close: Close,
    /// How often it had been tried again.
    pub(super) retries: i16,
}

struct Ended {
    epoch: Epoch,
    send: EndedSend,
    at: Instant,
    _place: Option<OwnedSemaphorePermit>,
    _unrecorded: Unrecorded,
}

impl Recorder {
    /// Whether nobody records yet, and the caller has to see to it.
    fn put(&self, ended: Ended) -> bool {
        let mut waiting = self.waiting();
        waiting.ended.push(ended);
        if waiting.ended.len() == AT_ONCE {
            self.full.notify_one();
        }
        !std::mem::replace(&mut waiting.is_running, true)
    }

    /// What is recorded next; `None` when nothing waits, and whoever puts the next sees to it.
    async fn next(&self) -> Option<Vec<Ended>> {
        let gathered = {
            let mut waiting = self.waiting();
            let Some(first) = waiting.ended.first() else {
                waiting.is_running = false;
                return None;
            };
            if waiting.ended.len() >= AT_ONCE { Instant::now() } else { first.at + GATHER }
        };
        // What came while the last were recorded has waited already.
        let _ = tokio::time::timeout_at(gathered, self.full.notified()).await;
        let mut waiting = self.waiting();
        let count = waiting.ended.len().min(AT_ONCE);
        Some(waiting.ended.drain(..count).collect())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delivery {
    /// Records the end of a queued send soon, and gives its place back when that is durable.
    pub(super) fn record_soon(self: &Arc<Self>, epoch: Epoch, send: EndedSend, place: Option<OwnedSemaphorePermit>) {
        let unrecorded = Unrecorded::count(&self.unrecorded);
        let ended = Ended { epoch, send, at: Instant::now(), _place: place, _unrecorded: unrecorded };
        if self.recorder.put(ended) {
            let this = Arc::clone(self);
            self.sends.spawn(async move {
                while let Some(ended) = this.recorder.next().await {
                    this.record_ended(ended).await;
                }
            });
        }
    }

    async fn record_ended(&self, mut ended: Vec<Ended>) {
        // One process has one epoch at a time; around its loss there may be sends of two.
        while let Some(epoch) = ended.first().map(|ended| ended.epoch) {
            let (of_epoch, others) = ended.into_iter().partition(|one| one.epoch == epoch);
            self.record_of_epoch(epoch, of_epoch).await;
            ended = others;
        }
    }

    async fn record_of_epoch(&self, epoch: Epoch, ended: Vec<Ended>) {
        let closes: Vec<Close> = ended.iter().map(|one| one.send.close.clone()).collect();
        match self.record_all(epoch, closes, Urgency::Bulk).await {
            Ok(closed) => {
                for (Ended { send, .. }, closed) in ended.iter().zip(closed) {
                    match closed {
                        true if send.close.next == Next::Failed => {
                            self.dead_copies.failed(&send.new, &send.close, send.retries);
                        }
                        true => {}
                        false => tracing::error!(
                            notification.id = %send.close.id,
                            "its attempt was settled by another process while it was sent"
                        ),
                    }
                }
            }
            // One that cannot be recorded takes no other with it.
            Err(_) if ended.len() > 1 => {
                for one in ended {
                    Box::pin(self.record_of_epoch(epoch, vec![one])).await;
                }
            }
            Err(error) => {
                for one in &ended {
                    tracing::error!(
                        notification.id = %one.send.close.id,
                        error = &error as &dyn std::error::Error,
                        "the end of a send is not recorded: it will be uncertain"
                    );
                }
            }
        }
    }
}
