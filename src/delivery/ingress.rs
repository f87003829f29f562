//! 1c. What other programs publish to the broker becomes notifications like any other.
//!
//! The sender's own id, or else the message's hash, stands in the ledger as an idempotency key: what comes again after
//! a crash is known.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use serde_json::Map;
use sha2::{Digest as _, Sha256};

use super::accept::SendRequest;
use super::enqueue::begin_at;
use super::{Delivery, DirectError, Refusal};
use crate::domain::clock::later;
use crate::domain::{Mode, NotificationId, OnFailure, TemplateId};
use crate::queue::foreign::{Accepted, ForeignNotification, Ingress, Poison, Refused, Unavailable};
use crate::store::{Accept, Accepted as Stored, NewKey, Quarantined, StoreError, Urgency};

/// The same id from the same source is the same notification for so long.
const KNOWN_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The way in, which is there before who takes: the queue is made first, and the path with it.
#[derive(Default)]
pub struct Door(OnceLock<Weak<Delivery>>);

impl Door {
    /// From now on, what comes is taken.
    pub fn open(&self, delivery: &Arc<Delivery>) {
        // Opened once, by whoever puts the process together.
        let _ = self.0.set(Arc::downgrade(delivery));
    }

    fn delivery(&self) -> Result<Arc<Delivery>, Unavailable> {
        let open = self.0.get().and_then(Weak::upgrade).filter(|delivery| !delivery.stopping.is_cancelled());
        open.ok_or_else(|| Unavailable { reason: "the service is starting or stopping".into() })
    }
}

#[async_trait]
impl Ingress for Door {
    async fn accept(&self, notifications: Vec<ForeignNotification>) -> Vec<Result<Accepted, Refused>> {
        match self.delivery() {
            Ok(delivery) => join_all(notifications.into_iter().map(|one| delivery.take_in(one))).await,
            Err(unavailable) => notifications.iter().map(|_| Err(Refused::Unavailable(unavailable.clone()))).collect(),
        }
    }

    async fn quarantine(&self, poison: Vec<Poison>) -> Result<(), Unavailable> {
        let delivery = self.delivery()?;
        let at = delivery.clock.now();
        let poison = poison.into_iter().map(|poison| Quarantined {
            received_at: at,
            source: poison.source,
            reason: poison.reason,
            content_type: poison.content_type,
            body: poison.body,
            body_size: poison.body_size,
            times: 1,
        });
        let poison: Vec<_> = poison.collect();
        for one in &poison {
            tracing::warn!(
                queue = one.source,
                reason = one.reason,
                bytes = one.body_size,
                "a message is in quarantine"
            );
        }
        delivery.store.quarantine(poison).await.map_err(|error| unavailable(&error))
    }
}

fn unavailable(error: &StoreError) -> Unavailable {
    Unavailable { reason: error.to_string() }
}

impl Delivery {
    async fn take_in(self: &Arc<Self>, foreign: ForeignNotification) -> Result<Accepted, Refused> {
        let accepted = self.accept_foreign(foreign).await.map_err(|error| match error {
            DirectError::Refused(refusals) => Refused::Wrong { reason: in_words(&refusals) },
            // It would be refused again and again, and hold up what comes after it.
            DirectError::Store(error @ StoreError::Refused { .. }) => Refused::Wrong { reason: error.to_string() },
            error => Refused::Unavailable(Unavailable { reason: error.to_string() }),
        })?;
        self.tell_of_due();
        Ok(Accepted { id: accepted })
    }

    async fn accept_foreign(&self, foreign: ForeignNotification) -> Result<NotificationId, DirectError> {
        let template = match foreign.template_id.as_deref().map(TemplateId::parse) {
            Some(Ok(id)) => Some(id),
            Some(Err(error)) => {
                return Err(DirectError::Refused(vec![Refusal::new("/templateId", "template", error.to_string())]));
            }
            None => None,
        };
        let request = SendRequest {
            channel: foreign.channel,
            account: None,
            template,
            text: None,
            recipient: foreign.recipient.clone(),
            records: foreign.records.clone(),
            data: Map::new(),
            metadata: foreign.metadata.clone(),
            external_id: foreign.external_id.clone(),
            priority: foreign.priority,
            policy: None,
            // It has been tried so often before it came here.
            max_retries: (foreign.max_retries - foreign.retry_count).max(0),
            not_after: None,
            deadline: None,
            on_failure: OnFailure::default(),
        };
        let (account, template) = self.check_common(&request).await?;
        let records = self.records_of(std::slice::from_ref(&request.records)).await?.of(&request.records);
        let prepared = self.prepare_one(request.clone(), Arc::clone(&account), template.clone(), &records);
        let now = self.clock.now();
        let mut new = match prepared {
            Ok(prepared) => {
                let mut new = prepared.new;
                new.begin = begin_at(foreign.scheduled_at, now);
                new
            }
            // Its own failure, to be seen among the dead letters: the sender is not there to be told.
            Err(wrong) => self.refused_one(request, account, template.as_ref(), &records, &wrong).new,
        };
        new.mode = Mode::Async;
        new.scheduled_at = foreign.scheduled_at;
        new.created_at = now;
        let key = NewKey {
            scope: format!("queue {}", foreign.source),
            key: known_by(&foreign),
            request_hash: [0; 32],
            expires_at: later(now, KNOWN_FOR),
        };
        let id = new.id;
        let accept = Accept {
            epoch: self.lease.epoch(),
            notifications: vec![new],
            key: Some(key),
            urgency: Urgency::Bulk,
            unseen: false,
        };
        match self.store.accept(accept.clone()).await? {
            Stored::Stored => Ok(id),
            // Two equal messages without an id may both be meant, unless the broker says that it gave this one before.
            Stored::Repeated(_) if foreign.external_id.is_none() && !foreign.redelivered => {
                self.store.accept(Accept { key: None, ..accept }).await?;
                Ok(id)
            }
            Stored::Repeated(stored) => stored.ids.first().copied().ok_or_else(|| {
                DirectError::Store(StoreError::Refused {
                    doing: "accepting from the queue",
                    source: "its id stands for nothing".into(),
                })
            }),
        }
    }
}

/// What the ledger knows it by: the sender's id, of any length, or its body.
fn known_by(foreign: &ForeignNotification) -> String {
    let (what, hash) = match &foreign.external_id {
        Some(id) => ("id", Sha256::digest(id.as_bytes()).into()),
        None => ("body", foreign.body_hash),
    };
    hash.iter().fold(format!("{what}:"), |text, byte| text + &format!("{byte:02x}"))
}

fn in_words(refusals: &[Refusal]) -> String {
    let texts: Vec<_> = refusals.iter().map(|refusal| format!("{}: {}", refusal.code, refusal.detail)).collect();
    texts.join("; ")
}
