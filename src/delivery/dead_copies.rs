//! Copies of what failed for good, for other programs that listen to the queue `notification.dlq`.
//!
//! The ledger's list is the dead letters; these are told as they fail, several together, and told again while the
//! broker is away. A copy that a crash takes is in the ledger all the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::domain::{NotificationId, RecordIds};
use crate::queue::Queue;
use crate::store::{Close, NewNotification};

/// Told together.
const AT_ONCE: usize = 200;
/// Kept while the broker is away; beyond it new ones are not told.
const WAITING: usize = 10_000;
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// See the module. Without a sender nobody is told: nobody can listen, or it is over.
pub(super) struct DeadCopies(Mutex<Option<mpsc::Sender<Told>>>);

/// Which one, and its copy.
type Told = (NotificationId, Vec<u8>);

/// The request's `QueuedNotification` with `error` and `failedAt`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Copy<'a> {
    id: NotificationId,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    template_id: Option<&'a str>,
    recipient: &'a str,
    context: &'a RecordIds,
    priority: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduled_at: Option<Timestamp>,
    retry_count: i16,
    max_retries: i16,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    error: String,
    failed_at: Timestamp,
}

impl DeadCopies {
    /// Tells until [`finish`](Self::finish), if anybody can listen.
    pub(super) fn start(queue: &Arc<dyn Queue>, tracker: &TaskTracker) -> Self {
        if !queue.is_shared() {
            return DeadCopies(Mutex::new(None));
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let queue = Arc::clone(queue);
        tracker.spawn(async move { tell(&*queue, receiver).await });
        DeadCopies(Mutex::new(Some(sender)))
    }

    /// Nothing fails any more: what waits is told, and a broker that is away is not waited for.
    pub(super) fn finish(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// What a close says of a notification that it failed.
    pub(super) fn failed(&self, new: &NewNotification, close: &Close, retry_count: i16) {
        let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return };
        let error = close.error.as_ref().map_or_else(
            || close.cause.to_owned(),
            |error| format!("{}: {} {}", close.cause, error.code, error.detail).trim_end().to_owned(),
        );
        let copy = Copy {
            id: new.id,
            channel: new.channel.as_str(),
            template_id: new.template.as_ref().map(|(id, _)| id.as_str()),
            recipient: &new.recipient,
            context: &new.records,
            priority: new.priority.as_str(),
            scheduled_at: new.scheduled_at,
            retry_count,
            max_retries: new.max_retries,
            metadata: new.metadata.as_deref().and_then(|json| serde_json::from_str(json).ok()),
            error,
            failed_at: close.closed_at,
        };
        let Ok(body) = serde_json::to_vec(&copy) else { return };
        if sender.try_send((new.id, body)).is_err() {
            tracing::warn!(notification.id = %new.id, "its copy for notification.dlq is not published: too many wait");
        }
    }
}

async fn tell(queue: &dyn Queue, mut receiver: mpsc::Receiver<Told>) {
    let mut copies = Vec::new();
    while receiver.recv_many(&mut copies, AT_ONCE).await > 0 {
        while let Err(error) = queue.tell_failed(&copies).await {
            if receiver.sender_strong_count() == 0 {
                let count = copies.len() + receiver.len();
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    count,
                    "copies of dead letters are not published"
                );
                return;
            }
            tracing::warn!(error = &error as &dyn std::error::Error, "copies of dead letters are not published yet");
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        copies.clear();
    }
}
