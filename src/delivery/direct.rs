//! 2. Sends that somebody waits for.
//!
//! The row and its open attempt are durable before the hand-off, the outcome before the answer. A send that began
//! ends, also when its caller hangs up.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::accept::{IdempotencyKey, Prepared, Refusal, SendRequest};
use super::not_now::{NotNow, busy_outcome};
use super::record::OpenAttempt;
use super::result::attempt;
use super::{Delivery, SendingAccount};
use crate::domain::clock::later;
use crate::domain::message::OutgoingMessage;
use crate::domain::{
    Epoch, Generation, HoldReason, Mode, NotificationId, OnFailure, Outcome, ProviderError, Status, retry,
};
use crate::limits::{Lane, RecipientKey};
use crate::records::SourceError;
use crate::store::{
    Accept, Accepted, Begin, ChunkId, Claim, FoundNotification, NewKey, NewNotification, Next, Open, StoreError,
    StoredKey, Urgency,
};

/// Why a direct call has no result. A send that failed is a result.
#[derive(Debug, thiserror::Error)]
pub enum DirectError {
    #[error("the request cannot be sent as it is")]
    Refused(Vec<Refusal>),
    #[error("this Idempotency-Key was used with another request")]
    KeyReused,
    #[error("the first request with this Idempotency-Key is still running")]
    KeyRunning,
    #[error("too many direct sends are in the works")]
    Overloaded,
    #[error("the service is stopping")]
    Stopping,
    #[error("the records it is about cannot be read; nothing was sent")]
    Records(#[from] SourceError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A result with what the caller should know beside the ledger's view.
#[derive(Clone, Debug)]
pub struct DirectResult {
    pub notification: FoundNotification,
    /// When trying the same again may succeed, if it is known.
    pub retry_after: Option<Duration>,
}

/// How a direct call is to be dealt with.
#[derive(Clone, Copy)]
struct Call {
    deadline: Instant,
    on_failure: OnFailure,
    /// Whether it is among those that may be sent now.
    has_place: bool,
}

/// Beyond a send's deadline, the ledger gets this long to record its end before the caller is told to ask later.
const RECORD_TIME: Duration = Duration::from_secs(10);

impl Delivery {
    /// Sends one now. Answers within its deadline and the time a durable record takes.
    pub async fn send_now(
        self: &Arc<Self>,
        request: SendRequest,
        key: Option<IdempotencyKey>,
    ) -> Result<DirectResult, DirectError> {
        let call = self.call(&request);
        let this = Arc::clone(self);
        let mut results = self
            .detached(1, call, async move |call| {
                if let Some(repeated) = this.repeated(key.as_ref()).await? {
                    return Ok(repeated);
                }
                let prepared = this.prepare(request).await?;
                this.send_prepared(vec![prepared], key, call).await
            })
            .await?;
        results.pop().ok_or_else(|| internal("a direct send without a result"))
    }

    /// Sends up to the auto threshold at once, each with its own result, in order. A recipient that cannot be sent to
    /// is a failed notification of its own and disturbs no other.
    pub async fn send_all_now(
        self: &Arc<Self>,
        requests: Vec<SendRequest>,
        key: Option<IdempotencyKey>,
    ) -> Result<Vec<DirectResult>, DirectError> {
        let Some(call) = requests.first().map(|first| self.call(first)) else { return Ok(Vec::new()) };
        let this = Arc::clone(self);
        self.detached(requests.len(), call, async move |call| {
            if let Some(repeated) = this.repeated(key.as_ref()).await? {
                return Ok(repeated);
            }
            let Some(first) = requests.first() else { return Ok(Vec::new()) };
            let (account, template) = this.check_common(first).await?;
            let ids: Vec<_> = requests.iter().map(|request| request.records.clone()).collect();
            let loaded = this.records_of(&ids).await?;
            let prepared = requests
                .into_iter()
                .map(|request| {
                    let (account, template) = (Arc::clone(&account), template.clone());
                    let records = loaded.of(&request.records);
                    this.prepare_one(request.clone(), Arc::clone(&account), template.clone(), &records)
                        .unwrap_or_else(|wrong| this.refused_one(request, account, template.as_ref(), &records, &wrong))
                })
                .collect();
            this.send_prepared(prepared, key, call).await
        })
        .await
    }

    /// How many recipients an auto call may have and still be sent directly.
    pub fn auto_threshold(&self) -> usize {
        self.options.auto_threshold
    }

    fn call(&self, request: &SendRequest) -> Call {
        let deadline = Instant::now() + request.deadline.unwrap_or(self.options.direct_deadline);
        Call { deadline, on_failure: request.on_failure, has_place: true }
    }

    /// Runs a call to its end whatever becomes of its caller. One that is to go through the queue where it cannot be
    /// sent is told that it has no place, and runs without.
    async fn detached<F: Future<Output = Result<Vec<DirectResult>, DirectError>> + Send>(
        self: &Arc<Self>,
        sends: usize,
        call: Call,
        run: impl FnOnce(Call) -> F + Send + 'static,
    ) -> Result<Vec<DirectResult>, DirectError> {
        if self.stopping.is_cancelled() {
            return Err(DirectError::Stopping);
        }
        let this = Arc::clone(self);
        // More than there are places at all would wait for ever.
        let sends = u32::try_from(sends.min(self.options.direct_concurrency)).unwrap_or(u32::MAX);
        let running = self.sends.spawn(async move {
            let permit = tokio::time::timeout_at(call.deadline, this.direct_permits.acquire_many(sends)).await;
            match (permit, call.on_failure) {
                (Ok(Ok(_permit)), _) => run(call).await,
                (_, OnFailure::Queue) => run(Call { has_place: false, ..call }).await,
                (_, OnFailure::Fail) => Err(DirectError::Overloaded),
            }
        });
        match tokio::time::timeout_at(call.deadline + RECORD_TIME, running).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a direct send broke off");
                Err(internal("the send broke off"))
            }
            Err(_) => {
                Err(StoreError::Unavailable { doing: "recording outcomes", source: "it takes too long".into() }.into())
            }
        }
    }

    /// The results of the call that used this key before.
    pub(super) async fn repeated(
        &self,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Vec<DirectResult>>, DirectError> {
        let Some(key) = key else { return Ok(None) };
        let stored = self.store.stored_key(key.scope.clone(), key.key.clone(), self.clock.now()).await?;
        match stored {
            Some(stored) => self.replay(key, stored).await.map(Some),
            None => Ok(None),
        }
    }

    async fn replay(&self, key: &IdempotencyKey, stored: StoredKey) -> Result<Vec<DirectResult>, DirectError> {
        if stored.request_hash != key.request_hash {
            return Err(DirectError::KeyReused);
        }
        let found = self.store.notifications(stored.ids).await?;
        // Waiting for the queue, and being on its way through it, is an answer; being sent by the call is not one yet.
        let is_running = |n: &FoundNotification| {
            let is_with_the_queue = n.hold.is_some() || n.generation > Generation::default();
            let has_begun = n.status == Status::Sending || (n.status.in_flight() && n.attempt == 0);
            n.mode == Mode::Sync && has_begun && !is_with_the_queue
        };
        if found.iter().any(is_running) {
            return Err(DirectError::KeyRunning);
        }
        Ok(found.into_iter().map(|notification| DirectResult { notification, retry_after: None }).collect())
    }

    async fn send_prepared(
        self: &Arc<Self>,
        mut prepared: Vec<Prepared>,
        key: Option<IdempotencyKey>,
        call: Call,
    ) -> Result<Vec<DirectResult>, DirectError> {
        let Call { deadline, on_failure, has_place } = call;
        let alone = prepared.len() == 1;
        for one in &mut prepared {
            self.end_if_suppressed(one).await?;
        }
        let mut retry_after = HashMap::new();
        for one in &mut prepared {
            let Some((recipient, content)) = &one.message else { continue };
            let (recipient, weight) = (RecipientKey::of(recipient), content.weight(one.new.channel));
            if !has_place {
                one.hold(self.clock.now(), HoldReason::RateLimit);
                continue;
            }
            if let Err(wait) = self.may_send(&one.account).await {
                let wait = one.not_now(&NotNow::Down(wait), on_failure, self.clock.now());
                retry_after.extend(wait.map(|wait| (one.new.id, wait)));
                continue;
            }
            // One waits for its budget before it is accepted; of many, those that must wait are accepted as held, so
            // that they hold up nobody.
            let patience = if alone { deadline } else { Instant::now() };
            match one.account.budget.acquire(Lane::Direct, recipient, weight, patience).await {
                Ok(()) => {}
                Err(busy) if !alone && Instant::now() + busy.retry_after < deadline => one.new.begin = Begin::Held,
                Err(busy) => {
                    let wait = one.not_now(&NotNow::Busy(busy), on_failure, self.clock.now());
                    retry_after.extend(wait.map(|wait| (one.new.id, wait)));
                }
            }
        }
        let epoch = self.lease.epoch();
        let now = self.clock.now();
        for one in &mut prepared {
            one.new.created_at = now;
        }
        if let Some(repeated) = self.accept_all(&prepared, epoch, key).await? {
            return Ok(repeated);
        }
        if prepared.iter().any(|one| matches!(one.new.begin, Begin::OnHold { .. })) {
            self.tell_of_due();
        }
        let ids: Vec<_> = prepared.iter().map(|one| one.new.id).collect();
        let ends = join_all(prepared.into_iter().map(|one| self.run(one, epoch, call))).await;
        let mut results = Vec::with_capacity(ends.len());
        for (id, end) in ids.into_iter().zip(ends) {
            // What broke off for one is told by its row, and hides no other's end.
            let mut result = match end {
                Err(_) if !alone => self.left_waiting(id).await?,
                end => end?,
            };
            result.retry_after = result.retry_after.or(retry_after.get(&id).copied());
            results.push(result);
        }
        Ok(results)
    }

    async fn end_if_suppressed(&self, one: &mut Prepared) -> Result<(), StoreError> {
        let Some((_, content)) = &one.message else { return Ok(()) };
        if self.suppressions.stops(one.new.channel, one.new.recipient.clone(), content).await? {
            one.message = None;
            one.new.begin =
                Begin::Ended { status: Status::Suppressed, cause: "opted_out", error: ProviderError::default() };
        }
        Ok(())
    }

    /// Everything of a call in one durable commit; the earlier results if its key was used meanwhile.
    pub(super) async fn accept_all(
        self: &Arc<Self>,
        prepared: &[Prepared],
        epoch: Epoch,
        key: Option<IdempotencyKey>,
    ) -> Result<Option<Vec<DirectResult>>, DirectError> {
        let new_key = key.as_ref().map(|key| NewKey {
            scope: key.scope.clone(),
            key: key.key.clone(),
            request_hash: key.request_hash,
            expires_at: later(self.clock.now(), self.options.key_lifetime),
        });
        let notifications = prepared.iter().map(|one| one.new.clone()).collect();
        let accept = Accept { epoch, notifications, key: new_key, urgency: Urgency::Urgent, unseen: false };
        let accepted = self.store.accept(accept).await.inspect_err(|error| {
            if matches!(error, StoreError::Unavailable { .. }) {
                self.disown(prepared, epoch);
            }
        })?;
        match (accepted, key) {
            (Accepted::Repeated(stored), Some(key)) => self.replay(&key, stored).await.map(Some),
            (Accepted::Repeated(_), None) => Err(internal("a repeated key without a key")),
            (Accepted::Stored, _) => Ok(None),
        }
    }

    /// From the accepted row to its end.
    async fn run(self: &Arc<Self>, one: Prepared, epoch: Epoch, call: Call) -> Result<DirectResult, DirectError> {
        let Call { deadline, on_failure, .. } = call;
        let Prepared { account, new, message } = one;
        let Some((recipient, content)) = message else { return Ok(DirectResult::not_tried(&new, None)) };
        let message = OutgoingMessage { id: new.id, recipient, content };
        let open = match new.begin {
            Begin::Held => match self.open_held(&account, &new, &message, epoch, call).await? {
                Some(open) => open,
                None => return self.left_waiting(new.id).await,
            },
            _ => OpenAttempt { n: 1, opened_at: new.created_at, retry_count: 0, resends: 0 },
        };
        let mut attempts = Vec::new();
        let (mut open, mut sent_until_now) = (open, 0_u32);
        loop {
            let outcome = self.hand_off(&account, epoch, &message, deadline).await;
            let next = self.next(&new, &open, &outcome, on_failure, account.circuit.is_down());
            let mut close = self.close(&new, &open, &outcome, Some(&message.content), next);
            // Where the account is down meanwhile, it would reach nobody again.
            let wait = self.wait_before_retry(&new, &outcome, sent_until_now, deadline);
            if let Some(wait) = wait.filter(|_| !account.circuit.is_down()) {
                // The record and the next open are one commit, so the attempt stays open while it waits.
                tokio::select! {
                    () = tokio::time::sleep(wait) => close.next = Next::Reopen { opened_at: self.clock.now() },
                    () = self.stopping.cancelled() => {}
                }
            }
            let next = close.next;
            attempts.push(attempt(&close, epoch));
            if !self.record(epoch, close, Urgency::Urgent).await? {
                // Somebody settled it while we were away: the ledger's view is the answer.
                return self.left_waiting(new.id).await;
            }
            let Next::Reopen { opened_at } = next else {
                return Ok(DirectResult::tried(&new, next, attempts, &outcome));
            };
            sent_until_now += 1;
            open = OpenAttempt { n: open.n + 1, opened_at, retry_count: open.retry_count + 1, ..open };
        }
    }

    /// Only what provably did not leave is tried again within the call.
    fn wait_before_retry(
        &self,
        new: &NewNotification,
        outcome: &Outcome,
        retries: u32,
        deadline: Instant,
    ) -> Option<Duration> {
        if !matches!(outcome, Outcome::Transient { handed_off: false, .. }) || self.stopping.is_cancelled() {
            return None;
        }
        let allowed = u32::try_from(new.max_retries).unwrap_or(0);
        let wait = retry::wait(retries, allowed, 0.0)?;
        (Instant::now() + wait < deadline).then_some(wait)
    }

    /// One of many that had to wait for its budget: it is opened when the budget has room.
    async fn open_held(
        self: &Arc<Self>,
        account: &SendingAccount,
        new: &NewNotification,
        message: &OutgoingMessage,
        epoch: Epoch,
        call: Call,
    ) -> Result<Option<OpenAttempt>, DirectError> {
        let (recipient, weight) = (RecipientKey::of(&message.recipient), message.content.weight(new.channel));
        let room = account.budget.acquire(Lane::Direct, recipient, weight, call.deadline).await;
        let opened = match self.store.open(claim_of(new, epoch)).await {
            Ok(opened) => opened,
            Err(error) => {
                self.disown_one(new, epoch);
                return Err(error.into());
            }
        };
        let Some(opened) = opened.first() else { return Ok(None) };
        let open = OpenAttempt {
            n: opened.attempt,
            opened_at: opened.opened_at,
            retry_count: opened.retry_count,
            resends: opened.resends,
        };
        if let Err(busy) = room {
            // Opened only to be closed: the caller wants an end, or the queue is to have it.
            let outcome = busy_outcome(&busy);
            let next = self.next(new, &open, &outcome, call.on_failure, false);
            let close = self.close(new, &open, &outcome, None, next);
            self.record(epoch, close, Urgency::Urgent).await?;
            return Ok(None);
        }
        Ok(Some(open))
    }

    pub(super) async fn left_waiting(&self, id: NotificationId) -> Result<DirectResult, DirectError> {
        let mut found = self.store.notifications(vec![id]).await?;
        let notification = found.pop().ok_or_else(|| internal("an accepted notification is not in the ledger"))?;
        Ok(DirectResult { notification, retry_after: None })
    }
}

/// Takes a held notification in hand for its first attempt.
pub(super) fn claim_of(new: &NewNotification, epoch: Epoch) -> Open {
    let claim = Claim { id: new.id, generation: Generation::default(), chunk: ChunkId(new.id.0) };
    Open { epoch, claims: vec![claim], urgency: Urgency::Urgent }
}

fn internal(what: &'static str) -> DirectError {
    DirectError::Store(StoreError::Refused { doing: "sending directly", source: what.into() })
}
