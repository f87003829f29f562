//! 1b. Accept for later: one notification, or a batch of any size.
//!
//! A batch is written in as many transactions as it takes, and shown in one last one: whoever looks sees all of it or
//! nothing, and a crash in between leaves nothing that anybody sends. What is wrong with one recipient is that
//! recipient's own end and disturbs no other.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::accept::{IdempotencyKey, Prepared, Refusal, SendRequest};
use super::context::recipient;
use super::work::patiently;
use super::{Delivery, DirectError, DirectResult, SendingAccount};
use crate::domain::clock::later;
use crate::domain::{BatchId, Epoch, Mode, NotificationId, RecordIds, Status};
use crate::records::RecordSet;
use crate::store::{
    Accept, AcceptBatch, BatchBegun, Begin, NewBatch, NewKey, NewNotification, SavedTemplate, StoreError, Urgency,
};

/// Rows written in one transaction: few enough that a direct send hardly waits for SQLite's writer.
const ROWS: usize = 250;
/// Recipients prepared, and their records read, together.
const AT_ONCE: usize = 1_000;
/// A ledger that is away is asked again for so long; after that the call has failed, and what it wrote is removed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two questions.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// One of the recipients of a bulk call.
#[derive(Clone, Debug, Default)]
pub struct BulkRecipient {
    /// Where it goes; else to the address of the contact.
    pub recipient: Option<String>,
    pub contact_id: Option<String>,
    /// Laid over the call's own.
    pub data: Map<String, Value>,
}

/// A batch as it was asked for.
#[derive(Clone, Debug)]
pub struct BulkRequest {
    /// What all have in common; it has no recipient of its own.
    pub common: SendRequest,
    pub recipients: Vec<BulkRecipient>,
    pub scheduled_at: Option<Timestamp>,
}

/// A batch that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedBatch {
    pub id: BatchId,
    /// Each once, in the order of the call.
    pub ids: Vec<NotificationId>,
    /// Recipients that were given more than once.
    pub duplicates: u64,
    /// Of the accepted ones, those that ended at once: without an address to send to.
    pub failed: u64,
}

impl Delivery {
    /// Accepts one notification for the queue, now or at `scheduled_at`.
    pub async fn send_later(
        self: &Arc<Self>,
        request: SendRequest,
        scheduled_at: Option<Timestamp>,
        key: Option<IdempotencyKey>,
    ) -> Result<DirectResult, DirectError> {
        let this = Arc::clone(self);
        self.to_its_end(async move {
            if let Some(mut repeated) = this.repeated(key.as_ref()).await? {
                return repeated.pop().ok_or_else(|| internal("a repeated call without a result"));
            }
            this.check_times(scheduled_at, request.not_after)?;
            let mut prepared = this.prepare(request).await?;
            let now = this.clock.now();
            prepared.new.mode = Mode::Async;
            prepared.new.scheduled_at = scheduled_at;
            prepared.new.begin = begin_at(scheduled_at, now);
            prepared.new.created_at = now;
            let id = prepared.new.id;
            let epoch = this.lease.epoch();
            if let Some(mut repeated) = this.accept_all(std::slice::from_ref(&prepared), epoch, key).await? {
                return repeated.pop().ok_or_else(|| internal("a repeated call without a result"));
            }
            this.tell_of_due();
            this.left_waiting(id).await
        })
        .await
    }

    /// Accepts a batch. The template has to be there and to serve the channel; each recipient is looked at for itself.
    pub async fn send_bulk(
        self: &Arc<Self>,
        request: BulkRequest,
        key: Option<IdempotencyKey>,
    ) -> Result<AcceptedBatch, DirectError> {
        let this = Arc::clone(self);
        self.to_its_end(async move { this.accept_bulk(request, key).await }).await
    }

    /// A batch was paused, resumed or cancelled: that takes hold at once.
    pub fn look_at_batches(&self) {
        self.tell_of_due();
    }

    /// Runs a call to its end whatever becomes of its caller.
    async fn to_its_end<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, DirectError>> + Send + 'static,
    ) -> Result<T, DirectError> {
        if self.stopping.is_cancelled() {
            return Err(DirectError::Stopping);
        }
        self.sends.spawn(call).await.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "accepting broke off");
            internal("accepting broke off")
        })?
    }

    async fn accept_bulk(
        self: &Arc<Self>,
        request: BulkRequest,
        key: Option<IdempotencyKey>,
    ) -> Result<AcceptedBatch, DirectError> {
        if let Some(batch) = self.batch_of(key.as_ref()).await? {
            // The first answer, though its times may have passed since, and the template be gone.
            return self.accepted_before(batch).await;
        }
        self.check_times(request.scheduled_at, request.common.not_after)?;
        let (account, template) = self.check_common(&request.common).await?;
        self.check_serves(&request.common, template.as_ref())?;
        let new = NewBatch {
            id: self.ids.batch(),
            epoch: self.lease.epoch(),
            channel: request.common.channel,
            account: account.id,
            priority: request.common.priority,
            template: request.common.template.clone(),
            scheduled_at: request.scheduled_at,
            created_at: self.clock.now(),
        };
        let new_key = key.map(|key| NewKey {
            scope: key.scope,
            key: key.key,
            request_hash: key.request_hash,
            expires_at: later(new.created_at, self.options.key_lifetime),
        });
        let begun = self.store.begin_batch(new.clone(), new_key).await;
        match begun.inspect_err(|_| self.abandon(new.id))? {
            BatchBegun::Begun => {}
            BatchBegun::Repeated(batch) => return self.accepted_before(batch).await,
            BatchBegun::Running => return Err(DirectError::KeyRunning),
            BatchBegun::KeyReused => return Err(DirectError::KeyReused),
        }
        let accepted = self.write_batch(&new, request, &account, template.as_ref()).await;
        if accepted.is_err() {
            self.abandon(new.id);
        }
        self.tell_of_due();
        accepted
    }

    /// Before anything is written: a template that cannot serve the channel would fail for everybody.
    fn check_serves(&self, common: &SendRequest, template: Option<&SavedTemplate>) -> Result<(), DirectError> {
        let wrong = match (template, &common.text) {
            (Some(saved), _) if !saved.template.body.main.serves(common.channel) => Some(Refusal::new(
                "/templateId",
                "template",
                format!("the template `{}` has nothing to send by {}", saved.template.id, common.channel),
            )),
            (None, Some(text)) => self
                .renderer
                .given(common.channel, text)
                .err()
                .map(|error| Refusal { pointer: "/text".into(), ..Refusal::of_rendering(&error) }),
            _ => None,
        };
        wrong.map_or(Ok(()), |wrong| Err(DirectError::Refused(vec![wrong])))
    }

    /// Rows are prepared while those before them are written.
    async fn write_batch(
        self: &Arc<Self>,
        batch: &NewBatch,
        request: BulkRequest,
        account: &Arc<SendingAccount>,
        template: Option<&SavedTemplate>,
    ) -> Result<AcceptedBatch, DirectError> {
        let (rows, mut prepared) = mpsc::channel::<Vec<NewNotification>>(1);
        let (this, epoch) = (Arc::clone(self), batch.epoch);
        let writing = self.sends.spawn(async move {
            while let Some(rows) = prepared.recv().await {
                this.write_rows(epoch, rows).await?;
            }
            Ok(())
        });
        let accept = self.prepare_rows(batch, request, account, template, rows).await;
        // To its end whatever happened: nothing is written any more when what was written is removed.
        writing.await.unwrap_or_else(|_| Err(internal("writing the rows broke off")))?;
        let (accept, ids) = accept?;
        let (duplicates, failed) = (accept.duplicates, accept.ended.get(&Status::Failed).copied().unwrap_or(0));
        let shown = self.insist(|| self.store.accept_batch(accept.clone())).await?;
        // Not shown by this: by an earlier try whose answer was lost, or somebody called it abandoned.
        if !shown && self.store.batch(batch.id).await?.is_none() {
            return Err(internal("the batch was given up while it was accepted"));
        }
        Ok(AcceptedBatch { id: batch.id, ids, duplicates, failed })
    }

    /// The rows of a batch, some at a time, into `to`; then what shows them, and the ids in order.
    async fn prepare_rows(
        &self,
        batch: &NewBatch,
        request: BulkRequest,
        account: &Arc<SendingAccount>,
        template: Option<&SavedTemplate>,
        to: mpsc::Sender<Vec<NewNotification>>,
    ) -> Result<(AcceptBatch, Vec<NotificationId>), DirectError> {
        let BulkRequest { common, recipients, scheduled_at } = request;
        let mut seen: HashSet<[u8; 16]> = HashSet::with_capacity(recipients.len());
        let (mut ids, mut waiting) = (Vec::with_capacity(recipients.len()), Vec::with_capacity(recipients.len()));
        let (mut ended, mut duplicates) = (BTreeMap::<Status, u64>::new(), 0);
        let begin = begin_at(scheduled_at, batch.created_at);
        let mut recipients = recipients.into_iter();
        loop {
            let some: Vec<BulkRecipient> = recipients.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                break;
            }
            let mut rows = Vec::with_capacity(some.len());
            for prepared in self.rows_of(&common, some, account, template).await? {
                let mut new = prepared.new;
                let is_new = new.recipient.is_empty() || seen.insert(short_hash(&new.recipient));
                if !is_new {
                    duplicates += 1;
                    continue;
                }
                new.batch = Some(batch.id);
                new.mode = Mode::Async;
                new.scheduled_at = scheduled_at;
                new.created_at = batch.created_at;
                match &new.begin {
                    Begin::Ended { status, .. } => *ended.entry(*status).or_default() += 1,
                    _ => {
                        new.begin = begin.clone();
                        waiting.push(new.id);
                    }
                }
                ids.push(new.id);
                rows.push(new);
            }
            // Writing failed: it says why.
            if to.send(rows).await.is_err() {
                break;
            }
        }
        let accept = AcceptBatch {
            id: batch.id,
            epoch: batch.epoch,
            account: batch.account,
            priority: batch.priority,
            due_at: scheduled_at.map_or(batch.created_at, |at| at.max(batch.created_at)),
            waiting,
            ended,
            duplicates,
        };
        Ok((accept, ids))
    }

    /// A row for each, with its address, or failed for want of one.
    async fn rows_of(
        &self,
        common: &SendRequest,
        some: Vec<BulkRecipient>,
        account: &Arc<SendingAccount>,
        template: Option<&SavedTemplate>,
    ) -> Result<Vec<Prepared>, DirectError> {
        let ids: Vec<RecordIds> =
            some.iter().map(|one| RecordIds { contact_id: one.contact_id.clone(), ..RecordIds::default() }).collect();
        // Who brings an address needs no record to be accepted.
        let needed: Vec<RecordIds> =
            ids.iter().zip(&some).filter(|(_, one)| one.recipient.is_none()).map(|(ids, _)| ids.clone()).collect();
        let loaded = if needed.is_empty() { None } else { Some(self.records_of(&needed).await?) };
        let row = |(one, ids): (BulkRecipient, RecordIds)| {
            let records = match &loaded {
                Some(loaded) if one.recipient.is_none() => loaded.of(&ids),
                _ => RecordSet::default(),
            };
            let mut data = common.data.clone();
            data.extend(one.data);
            let request = SendRequest { recipient: one.recipient, records: ids, data, ..common.clone() };
            let given = request.recipient.as_deref();
            match recipient(given, request.channel, &records, &request.data, self.options.default_region) {
                Ok(to) => {
                    let begin = Begin::Due { at: Timestamp::UNIX_EPOCH, scheduled: false };
                    let new = self.new_notification(request, account, template, to.to_string(), begin);
                    Prepared { account: Arc::clone(account), new, message: None }
                }
                Err(wrong) => self.refused_one(request, Arc::clone(account), template, &records, &[wrong]),
            }
        };
        Ok(some.into_iter().zip(ids).map(row).collect())
    }

    /// All of them at the same time, so that they share commits; and to the end of all, so that nothing is written any
    /// more when what was written is removed.
    async fn write_rows(&self, epoch: Epoch, rows: Vec<NewNotification>) -> Result<(), DirectError> {
        let writes = rows.chunks(ROWS).map(|rows| {
            self.store.accept(Accept {
                epoch,
                notifications: rows.to_vec(),
                key: None,
                urgency: Urgency::Bulk,
                unseen: true,
            })
        });
        // What failed may have been written: asked again, the ids would be there twice. The whole call is asked again.
        join_all(writes).await.into_iter().try_for_each(|written| Ok(written.map(drop)?))
    }

    /// Asks a ledger that is away again, for what may be asked twice.
    async fn insist<T, F: Future<Output = Result<T, StoreError>>>(&self, ask: impl Fn() -> F) -> Result<T, StoreError> {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            match ask().await {
                Err(StoreError::Unavailable { .. }) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                result => return result,
            }
        }
    }

    /// What was written of a batch that failed goes, and its key with it, as soon as the ledger is there; if this process
    /// ends before that, upkeep does it.
    fn abandon(self: &Arc<Self>, batch: BatchId) {
        const STEP: u32 = 500;
        let this = Arc::clone(self);
        self.sends.spawn(async move {
            loop {
                match patiently(&this.stopping, || this.store.drop_abandoned(Some(batch), STEP)).await {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(
                            batch.id = %batch,
                            error = &error as &dyn std::error::Error,
                            "what was written of a batch that was not accepted is not removed yet"
                        );
                        return;
                    }
                }
            }
        });
    }

    /// The batch that was accepted for the same request with this key.
    async fn batch_of(&self, key: Option<&IdempotencyKey>) -> Result<Option<BatchId>, StoreError> {
        let Some(key) = key else { return Ok(None) };
        let stored = self.store.stored_key(key.scope.clone(), key.key.clone(), self.clock.now()).await?;
        let same = stored.filter(|stored| stored.request_hash == key.request_hash);
        match same.and_then(|stored| stored.batch) {
            Some(batch) => Ok(self.store.batch(batch).await?.map(|found| found.id)),
            None => Ok(None),
        }
    }

    async fn accepted_before(&self, id: BatchId) -> Result<AcceptedBatch, DirectError> {
        let found = self.store.batch(id).await?.ok_or_else(|| internal("an accepted batch is not in the ledger"))?;
        let ids = self.store.batch_members(id).await?;
        // What it answered then: what failed since is no part of it.
        let failed = self.store.failed_at_accept(id).await?;
        Ok(AcceptedBatch { id, ids, duplicates: found.duplicates, failed })
    }
}

pub(super) fn begin_at(scheduled_at: Option<Timestamp>, now: Timestamp) -> Begin {
    match scheduled_at {
        Some(at) if at > now => Begin::Due { at, scheduled: true },
        _ => Begin::Due { at: now, scheduled: false },
    }
}

/// Enough to tell recipients of one batch apart, and a fraction of their addresses' size.
fn short_hash(address: &str) -> [u8; 16] {
    let hash = Sha256::digest(address.as_bytes());
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    short
}

fn internal(what: &'static str) -> DirectError {
    DirectError::Store(StoreError::Refused { doing: "accepting for the queue", source: what.into() })
}
