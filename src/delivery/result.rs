//! What a direct call answers: what the ledger says right after, made of what was written there.

use std::time::Duration;

use super::direct::DirectResult;
use crate::domain::{Attempt, Epoch, Generation, Outcome, Status};
use crate::store::{Begin, Close, Counts, FoundNotification, NewNotification, Next};

impl DirectResult {
    /// Of one that was not tried: it ended, or waits, as it was accepted.
    pub(super) fn not_tried(new: &NewNotification, retry_after: Option<Duration>) -> Self {
        DirectResult { notification: view(new, Vec::new()), retry_after }
    }

    /// Of one whose last attempt in the call had this outcome, and `next` follows.
    pub(super) fn tried(new: &NewNotification, next: Next, attempts: Vec<Attempt>, outcome: &Outcome) -> Self {
        let mut notification = view(new, attempts);
        notification.status = next.status();
        if let Next::Again { due_at, hold, counts } = next {
            notification.hold = Some(hold);
            notification.due_at = due_at;
            notification.retry_count += i16::from(counts == Counts::Retry);
        }
        if next == Next::Failed {
            notification.failure = outcome.error().map(|error| (outcome.cause().to_owned(), error.clone()));
        }
        let retry_after = match (outcome, next) {
            // What goes on by itself is nothing to be repeated.
            (Outcome::Throttled { after, .. }, Next::Failed) => Some(*after),
            _ => None,
        };
        DirectResult { notification, retry_after }
    }
}

/// What the ledger says of a notification right after it was accepted and its attempts recorded.
fn view(new: &NewNotification, attempts: Vec<Attempt>) -> FoundNotification {
    let (status, failure) = match &new.begin {
        Begin::Ended { status, cause, error } => (*status, Some(((*cause).to_owned(), error.clone()))),
        Begin::OnHold { .. } => (Status::Pending, None),
        Begin::Open | Begin::Held | Begin::Due { .. } => (Status::Sending, None),
    };
    let (hold, due_at) = match new.begin {
        Begin::OnHold { until, hold } => (Some(hold), until),
        _ => (None, new.created_at),
    };
    FoundNotification {
        id: new.id,
        batch: new.batch,
        channel: new.channel,
        account: new.account,
        template: new.template.clone(),
        text: new.text.clone(),
        recipient: new.recipient.clone(),
        records: new.records.clone(),
        data: new.data.clone(),
        metadata: new.metadata.clone(),
        external_id: new.external_id.clone(),
        priority: new.priority,
        policy: new.policy,
        mode: new.mode,
        max_retries: new.max_retries,
        scheduled_at: new.scheduled_at,
        not_after: new.not_after,
        created_at: new.created_at,
        status,
        hold,
        due_at,
        retry_count: i16::try_from(attempts.len().saturating_sub(1)).unwrap_or(i16::MAX),
        generation: Generation::default(),
        open: None,
        attempt: i16::try_from(attempts.len()).unwrap_or(i16::MAX),
        attempts,
        failure,
        resolved: None,
        settled: None,
    }
}

pub(super) fn attempt(close: &Close, epoch: Epoch) -> Attempt {
    Attempt {
        n: close.attempt,
        account: close.account,
        epoch,
        class: close.class,
        cause: close.cause.to_owned(),
        provider_message_id: close.provider_message_id.clone(),
        error: close.error.clone(),
        opened_at: close.opened_at,
        closed_at: close.closed_at,
        template_version: close.template.as_ref().map(|(_, version)| *version),
        text_hash: close.text_hash,
        flagged: close.flagged,
    }
}
