//! 3. What the ledger holds for later and is due now: taken, prepared, opened, sent, recorded.

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use futures::{FutureExt as _, StreamExt as _};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::accept::is_marketing;
use super::context::reader;
use super::record::OpenAttempt;
use super::{Delivery, SendingAccount};
use crate::domain::clock::later;
use crate::domain::message::{Content, OutgoingMessage};
use crate::domain::notification::is_expired;
use crate::domain::template::Template;
use crate::domain::{Epoch, HoldReason, Outcome, PermanentReason, ProviderError, Recipient, RecordIds, Status};
use crate::limits::{Lane, RecipientKey};
use crate::records::{Loaded, RecordSet, SourceError};
use crate::store::{
    Begin, ChunkId, Claim, FoundNotification, Handed, HandedChunk, NewNotification, Open, Postpone, Settle, StoreError,
    SuppressionScope, TakeDue, Urgency,
};

/// The ledger is asked for due work at least this often; what becomes due in this process is known at once.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Sends of due work in flight at once.
const AT_ONCE: usize = 64;
/// Chunks taken at a time: what is in hand when the process is lost waits for its lease to run out.
const CHUNKS: u32 = 2;
/// A place in an account's budget that is further away is waited for in the ledger.
const PATIENCE: Duration = Duration::from_secs(2);
/// What cannot be rendered because its records cannot be read is tried again after this.
const RECORDS_AWAY: Duration = Duration::from_secs(5);
/// After a failure of the ledger, this long before asking again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What became of a task in hand.
enum Worked {
    Done,
    /// It still waits, in this process's hand.
    Left,
}

/// Works on what is due until new work may not begin any more.
pub(super) fn start(delivery: &Arc<Delivery>) {
    let delivery = Arc::clone(delivery);
    let sends = delivery.sends.clone();
    sends.spawn(async move {
        loop {
            let pause = match delivery.deliver_due().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "could not work on what is due");
                    AFTER_FAILURE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = delivery.wake.notified() => {}
                () = delivery.stopping.cancelled() => return,
            }
        }
    });
}

impl Delivery {
    /// Sends all that is due now. Returns how long nothing more will be.
    pub async fn deliver_due(&self) -> Result<Duration, StoreError> {
        while !self.stopping.is_cancelled() {
            let Some(due_at) = self.store.next_due().await? else { return Ok(LOOK_EVERY) };
            let wait = Duration::try_from(due_at.duration_since(self.clock.now())).unwrap_or(Duration::ZERO);
            if !wait.is_zero() {
                return Ok(wait.min(LOOK_EVERY));
            }
            let epoch = self.lease.epoch();
            let take = TakeDue { epoch, account: None, chunks: CHUNKS };
            let mut chunks = self.store.take_due(take).await?;
            // From the end, so that the most urgent one is worked off first.
            chunks.reverse();
            if chunks.is_empty() {
                return Ok(AFTER_FAILURE);
            }
            while let Some(chunk) = chunks.pop() {
                let id = chunk.id;
                if let Err(error) = self.work_off(chunk).await {
                    tracing::error!(error = &error as &dyn std::error::Error, "could not work off a chunk");
                    for id in chunks.iter().map(|chunk| chunk.id).chain([id]) {
                        self.give_back(epoch, id).await;
                    }
                    return Ok(AFTER_FAILURE);
                }
            }
        }
        Ok(LOOK_EVERY)
    }

    async fn work_off(&self, chunk: HandedChunk) -> Result<(), StoreError> {
        let ids = chunk.handed.iter().map(|handed| handed.id).collect();
        let found = self.store.notifications(ids).await?;
        let by_id: std::collections::HashMap<_, _> = found.into_iter().map(|found| (found.id, found)).collect();
        let ids: Vec<_> = by_id.values().map(|found: &FoundNotification| found.records.clone()).collect();
        let records = self.records_of(&ids).await;
        let tasks = chunk.handed.iter().filter_map(|handed| Some((*handed, by_id.get(&handed.id)?.clone())));
        let tasks: Vec<_> = tasks.map(|(handed, found)| self.work_on(handed, found, &records).boxed()).collect();
        let mut running = stream::iter(tasks).buffer_unordered(AT_ONCE);
        let mut left = 0;
        let mut failure = None;
        while let Some(result) = running.next().await {
            match result {
                Ok(Worked::Done) => {}
                Ok(Worked::Left) => left += 1,
                Err(error) => failure = Some(error),
            }
        }
        // What waits on keeps its chunk in hand, until this epoch ends.
        match failure {
            Some(error) => return Err(error),
            None if left > 0 => return Ok(()),
            None => {}
        }
        let epoch = self.lease.epoch();
        let drained = Open { epoch, claims: Vec::new(), drained: vec![chunk.id], urgency: Urgency::Bulk };
        self.store.open(drained).await.map(|_| ())
    }

    /// Lets a chunk be taken again, however long the ledger is away; a process that ends meanwhile gives back all.
    async fn give_back(&self, epoch: Epoch, chunk: ChunkId) {
        while let Err(error) = self.store.give_back(epoch, chunk).await {
            tracing::error!(error = &error as &dyn std::error::Error, "could not give a chunk back");
            tokio::select! {
                () = tokio::time::sleep(AFTER_FAILURE) => {}
                () = self.stopping.cancelled() => return,
            }
        }
    }

    async fn work_on(
        &self,
        handed: Handed,
        found: FoundNotification,
        records: &Result<Loaded, SourceError>,
    ) -> Result<Worked, StoreError> {
        if self.stopping.is_cancelled() {
            return Ok(Worked::Left);
        }
        let Some(account) = self.account_by_id(found.account) else {
            tracing::error!(
                notification.id = %found.id,
                "its account is not in the settings any more: it waits until the account is back"
            );
            return Ok(Worked::Left);
        };
        if is_expired(found.not_after, self.clock.now()) {
            return self.settle(&found, Status::Expired, "notAfter passed before it left").await;
        }
        let records = match records {
            Ok(loaded) => loaded.of(&found.records),
            Err(_) if found.template.is_some() && found.records != RecordIds::default() => {
                return self.postpone(handed, &found, RECORDS_AWAY, HoldReason::Records).await;
            }
            Err(_) => RecordSet::default(),
        };
        let content = self.content(&found, &records).await?;
        if let Ok(content) = &content
            && self.is_suppressed(&found, content).await?
        {
            return self.settle(&found, Status::Suppressed, "opted_out").await;
        }
        let recipient = Recipient::parse(found.channel, &found.recipient, None);
        let message = match (content, recipient) {
            (Ok(content), Ok(recipient)) => Ok(OutgoingMessage { id: found.id, recipient, content }),
            (Err(error), _) => Err(Outcome::Permanent { reason: PermanentReason::Template, error }),
            (_, Err(error)) => Err(Outcome::Permanent {
                reason: PermanentReason::Recipient,
                error: ProviderError::new("address", error.to_string()),
            }),
        };
        self.send_due(handed, &found, account, message).await
    }

    async fn send_due(
        &self,
        handed: Handed,
        found: &FoundNotification,
        account: &Arc<SendingAccount>,
        message: Result<OutgoingMessage, Outcome>,
    ) -> Result<Worked, StoreError> {
        if let Ok(message) = &message {
            let recipient = RecipientKey::of(&message.recipient);
            let weight = message.content.weight(found.channel);
            let patience = Instant::now() + PATIENCE;
            if let Err(busy) = account.budget.acquire(Lane::Queued, recipient, weight, patience).await {
                return self.postpone(handed, found, busy.retry_after, HoldReason::RateLimit).await;
            }
        }
        let epoch = self.lease.epoch();
        let claims = vec![Claim { id: handed.id, generation: handed.generation }];
        let open = Open { epoch, claims, drained: Vec::new(), urgency: Urgency::Bulk };
        let opened = self.store.open(open).await?;
        // Not claimed: a copy, or it does not wait any more.
        let Some(opened) = opened.first() else { return Ok(Worked::Done) };
        let open = OpenAttempt {
            n: opened.attempt,
            opened_at: opened.opened_at,
            retry_count: opened.retry_count,
            resends: opened.resends,
        };
        let deadline = Instant::now() + self.options.send_deadline;
        let (outcome, content) = match &message {
            Ok(message) => (self.hand_off(account, epoch, message, deadline).await, Some(&message.content)),
            Err(outcome) => (outcome.clone(), None),
        };
        let new = asked(found);
        let next = self.next(&new, &open, &outcome, Lane::Queued);
        let close = self.close(&new, &open, &outcome, content, next);
        if !self.record(epoch, close, Urgency::Bulk).await? {
            tracing::error!(notification.id = %found.id, "its attempt was settled by another process while it was sent");
        }
        Ok(Worked::Done)
    }

    /// Waits are the ledger's: a throttled account holds up no other.
    async fn postpone(
        &self,
        handed: Handed,
        found: &FoundNotification,
        wait: Duration,
        hold: HoldReason,
    ) -> Result<Worked, StoreError> {
        let postpone = Postpone {
            handed,
            account: found.account,
            priority: found.priority,
            batch: found.batch,
            due_at: later(self.clock.now(), wait),
            hold,
        };
        self.store.postpone(postpone).await.map(|_| Worked::Done)
    }

    async fn content(
        &self,
        found: &FoundNotification,
        records: &RecordSet,
    ) -> Result<Result<Content, ProviderError>, StoreError> {
        if let Some(text) = &found.text {
            return Ok(self
                .renderer
                .given(found.channel, text)
                .map_err(|error| ProviderError::new("text", error.to_string())));
        }
        let Some((id, version)) = &found.template else {
            return Ok(Err(ProviderError::new("template", "it has neither a template nor a text")));
        };
        let Some(template) = self.renderer.version(id, *version).await? else {
            return Ok(Err(ProviderError::new(
                "template",
                format!("version {} of template `{id}` is gone", version.0),
            )));
        };
        Ok(self.rendered(&template, found, records))
    }

    fn rendered(
        &self,
        template: &Template,
        found: &FoundNotification,
        records: &RecordSet,
    ) -> Result<Content, ProviderError> {
        let given: Map<String, Value> = match &found.data {
            Some(json) => serde_json::from_str(json).map_err(|error| ProviderError::new("data", error.to_string()))?,
            None => Map::new(),
        };
        let data = Value::Object(records.data(&given));
        let reader = reader(&found.recipient, found.channel, records, &data);
        let rendered = self.renderer.render(template, found.channel, &data, reader);
        rendered.map_err(|error| ProviderError::new("template", error.to_string()))
    }

    async fn is_suppressed(&self, found: &FoundNotification, content: &Content) -> Result<bool, StoreError> {
        let scopes = self.suppressions.of(found.channel, found.recipient.clone()).await?;
        Ok(scopes.iter().any(|scope| match scope {
            SuppressionScope::All => true,
            SuppressionScope::Marketing => is_marketing(content),
        }))
    }

    async fn settle(&self, found: &FoundNotification, status: Status, reason: &str) -> Result<Worked, StoreError> {
        let settle = Settle {
            epoch: self.lease.epoch(),
            id: found.id,
            batch: found.batch,
            status,
            at: self.clock.now(),
            actor: "worker".into(),
            reason: reason.into(),
        };
        self.store.settle(settle).await.map(|_| Worked::Done)
    }
}

/// What was asked for, from what the ledger says of it.
fn asked(found: &FoundNotification) -> NewNotification {
    NewNotification {
        id: found.id,
        batch: found.batch,
        channel: found.channel,
        account: found.account,
        template: found.template.clone(),
        text: found.text.clone(),
        recipient: found.recipient.clone(),
        records: found.records.clone(),
        data: found.data.clone(),
        metadata: found.metadata.clone(),
        external_id: found.external_id.clone(),
        priority: found.priority,
        policy: found.policy,
        mode: found.mode,
        max_retries: found.max_retries,
        scheduled_at: found.scheduled_at,
        not_after: found.not_after,
        created_at: found.created_at,
        begin: Begin::Due { at: found.due_at, scheduled: false },
    }
}
