//! 6. What an outcome means, and its durable record.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use super::Delivery;
use crate::domain::clock::later;
use crate::domain::message::Content;
use crate::domain::{Epoch, HoldReason, NotificationId, OnFailure, Outcome, PermanentReason, ProviderError, retry};
use crate::store::{
    Close, Counts, NewNotification, Next, Record, StoreError, SuppressionScope, Urgency, after_unknown,
};

/// WhatsApp's code for "stopped marketing messages": other messages still go (Meta's error codes).
const STOPPED_MARKETING: &str = "131050";
/// What an account could not send is due again after this long, and waits for the account's return.
const CHANNEL_DOWN_WAIT: Duration = Duration::from_secs(1);

/// What panics for this time while it is made ready is given up.
const POISON_AT: u32 = 3;

/// The attempt that an outcome ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenAttempt {
    pub(super) n: i16,
    pub(super) opened_at: Timestamp,
    pub(super) retry_count: i16,
    pub(super) resends: i16,
}

impl Delivery {
    /// What follows an outcome. Nothing is tried later where a caller wants it to fail at once. `is_down`: the account
    /// cannot send, which is no fault of this message.
    pub(super) fn next(
        &self,
        new: &NewNotification,
        open: &OpenAttempt,
        outcome: &Outcome,
        on_failure: OnFailure,
        is_down: bool,
    ) -> Next {
        let now = self.clock.now();
        match (outcome, on_failure) {
            (Outcome::Accepted { .. }, _) => Next::Sent,
            (Outcome::Permanent { .. }, _) => Next::Failed,
            (Outcome::Ambiguous { .. }, _) => {
                after_unknown(new.policy, open.resends, new.channel, now, self.options.resend_grace)
            }
            (Outcome::Transient { .. } | Outcome::Throttled { .. } | Outcome::ChannelDown { .. }, OnFailure::Fail) => {
                Next::Failed
            }
            (Outcome::Transient { handed_off: false, .. }, OnFailure::Queue) if is_down => held_up(now),
            (Outcome::Transient { .. }, OnFailure::Queue) => {
                let retries = u32::try_from(open.retry_count).unwrap_or(0);
                let allowed = u32::try_from(new.max_retries).unwrap_or(0);
                retry::wait(retries, allowed, spread(new.id)).map_or(Next::Failed, |wait| Next::Again {
                    due_at: later(now, wait),
                    hold: HoldReason::Retry,
                    counts: Counts::Retry,
                })
            }
            (Outcome::Throttled { after, .. }, OnFailure::Queue) => {
                Next::Again { due_at: later(now, *after), hold: HoldReason::RateLimit, counts: Counts::Nothing }
            }
            (Outcome::ChannelDown { .. }, OnFailure::Queue) => held_up(now),
        }
    }

    /// What follows when making one ready panicked, `before` times already. It is no fault of the provider's: it costs
    /// no retry, and no number of retries helps poison.
    pub(super) fn next_after_panic(&self, new: &NewNotification, before: u32) -> Next {
        retry::wait(before, POISON_AT - 1, spread(new.id)).map_or(Next::Failed, |wait| Next::Again {
            due_at: later(self.clock.now(), wait),
            hold: HoldReason::Retry,
            counts: Counts::Nothing,
        })
    }

    /// The record of one attempt.
    pub(super) fn close(
        &self,
        new: &NewNotification,
        open: &OpenAttempt,
        outcome: &Outcome,
        content: Option<&Content>,
        next: Next,
    ) -> Close {
        let is_resend = matches!(next, Next::Again { counts: Counts::Resend, .. });
        Close {
            id: new.id,
            batch: new.batch,
            account: new.account,
            channel: new.channel,
            priority: new.priority,
            recipient: new.recipient.clone(),
            template: new.template.clone(),
            attempt: open.n,
            opened_at: open.opened_at,
            closed_at: self.clock.now(),
            class: outcome.class(),
            cause: outcome.cause(),
            provider_message_id: match outcome {
                Outcome::Accepted { provider_message_id, .. } => Some(provider_message_id.clone()),
                _ => None,
            },
            error: match outcome {
                Outcome::Accepted { note, .. } => note.as_ref().map(|note| ProviderError::new("note", note.clone())),
                _ => outcome.error().cloned(),
            },
            text_hash: content.map(Content::hash),
            flagged: open.resends > 0 || is_resend,
            suppress: suppression(outcome),
            next,
        }
    }

    /// Makes it durable, however long that takes: the message is out, and only this process knows. Gives up when the
    /// process is stopped hard; the attempt is then found open, and uncertain. Returns whether the ledger still held
    /// the attempt open for us.
    pub(super) async fn record(&self, epoch: Epoch, close: Close, urgency: Urgency) -> Result<bool, StoreError> {
        let _unrecorded = Unrecorded::count(&self.unrecorded);
        Ok(self.record_all(epoch, vec![close], urgency).await? == [true])
    }

    /// The same for many, in one commit; the answer is in their order.
    pub(super) async fn record_all(
        &self,
        epoch: Epoch,
        closes: Vec<Close>,
        urgency: Urgency,
    ) -> Result<Vec<bool>, StoreError> {
        const FIRST_WAIT: Duration = Duration::from_millis(50);
        const LONGEST_WAIT: Duration = Duration::from_secs(5);
        let mut wait = FIRST_WAIT;
        let mut tried = false;
        loop {
            match self.store.record(Record { epoch, closes: closes.clone(), urgency }).await {
                Ok(mut closed) => {
                    for (closed, close) in closed.iter_mut().zip(&closes).filter(|(closed, _)| !**closed) {
                        // After an error the first try may have happened all the same.
                        *closed = tried && self.is_recorded(epoch, close).await?;
                    }
                    if closes.iter().any(|close| matches!(close.next, Next::Again { .. })) {
                        self.wake.notify_one();
                    }
                    return Ok(closed);
                }
                Err(error @ StoreError::Unavailable { .. }) => {
                    tracing::error!(
                        count = closes.len(),
                        error = &error as &dyn std::error::Error,
                        "outcomes of sends are not recorded yet: trying again"
                    );
                    tried = true;
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn is_recorded(&self, epoch: Epoch, close: &Close) -> Result<bool, StoreError> {
        let found = self.store.notifications(vec![close.id]).await?;
        let is_ours = |attempt: &crate::domain::Attempt| {
            attempt.n == close.attempt && attempt.epoch == epoch && attempt.class == close.class
        };
        Ok(found.iter().flat_map(|notification| &notification.attempts).any(is_ours))
    }
}

/// One outcome that only this process knows, as long as it lives.
pub(super) struct Unrecorded(Arc<AtomicUsize>);

impl Unrecorded {
    pub(super) fn count(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::AcqRel);
        Unrecorded(Arc::clone(counter))
    }
}

impl Drop for Unrecorded {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Waits until the account sends again.
fn held_up(now: Timestamp) -> Next {
    Next::Again { due_at: due_when_down(now), hold: HoldReason::ChannelDown, counts: Counts::Nothing }
}

/// When what its account cannot send is looked at again: from then on it waits for the account's return.
pub(super) fn due_when_down(now: Timestamp) -> Timestamp {
    later(now, CHANNEL_DOWN_WAIT)
}

/// Whether one that had panicked so often before, and did again, is given up.
pub(super) fn is_poison(before: u32) -> bool {
    before >= POISON_AT - 1
}

fn suppression(outcome: &Outcome) -> Option<SuppressionScope> {
    match outcome {
        Outcome::Permanent { reason: PermanentReason::OptedOut, error } if error.code == STOPPED_MARKETING => {
            Some(SuppressionScope::Marketing)
        }
        Outcome::Permanent { reason: PermanentReason::OptedOut, .. } => Some(SuppressionScope::All),
        _ => None,
    }
}

/// Where in the jitter a notification's waits fall: its id is random enough, and the same wait can be told again.
fn spread(id: NotificationId) -> f64 {
    f64::from(id.0.as_bytes()[15]) / 255.0
}
