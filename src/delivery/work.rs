//! 5. What was handed over is sent: taken from the queue, made ready, opened, sent, recorded.
//!
//! Each account has a loop of its own, so that a slow one holds up no other. It takes as many tasks as there is room
//! for in the account's budget and among its places, makes them ready together, opens them in one commit, and lets each
//! go its way; the next crowd is prepared meanwhile. Waits are the ledger's: what has to wait longer than a moment goes
//! back to it.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ready::{Ready, Sorted, claim_of};
use super::record::OpenAttempt;
use super::recorder::EndedSend;
use super::{Delivery, SendingAccount};
use crate::domain::clock::later;
use crate::domain::{Channel, Epoch, Generation, HoldReason, NotificationId, OnFailure};
use crate::limits::{Lane, Permit, RecipientKey, WaitReason};
use crate::queue::{Ack, Delivery as Delivered};
use crate::store::{Claim, Open, Opened, StoreError, Urgency};

/// Tasks made ready together.
const CROWD: usize = 256;
/// Bundles of one channel in this process's hand at most, for queues that can be asked so. The window bounds the tasks.
const PREFETCH: u16 = 4_000;
/// A place in an account's budget that is further away is waited for in the ledger.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a failure of the ledger or the queue, this long before trying again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Works for every account until new work may not begin any more.
pub(super) fn start(delivery: &Arc<Delivery>) {
    let channels: BTreeSet<Channel> = delivery.sending.keys().map(|name| name.channel).collect();
    for channel in channels.intersection(&delivery.roles.channels).copied() {
        let this = Arc::clone(delivery);
        delivery.sends.spawn(async move { this.consume(channel).await });
    }
    for account in delivery.sending.values().filter(|account| delivery.roles.channels.contains(&account.name().channel))
    {
        let (this, account) = (Arc::clone(delivery), Arc::clone(account));
        delivery.sends.spawn(async move { this.work_for(&account).await });
    }
}

/// Asks the ledger until it answers: for what changes nothing, and has to be known before anything else can be done.
///
/// # Errors
/// What repeating does not mend, or that the process is stopping.
pub(super) async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
    stopping: &CancellationToken,
    ask: impl Fn() -> F,
) -> Result<T, StoreError> {
    loop {
        match ask().await {
            Err(error @ StoreError::Unavailable { .. }) if !stopping.is_cancelled() => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the ledger is away: asking again");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
            result => return result,
        }
    }
}

impl Delivery {
    /// Takes what is handed over for a channel, and gives it to the account that it is for.
    async fn consume(self: &Arc<Self>, channel: Channel) {
        loop {
            let mut consumer = tokio::select! {
                consumer = self.queue.consume(channel, PREFETCH) => match consumer {
                    Ok(consumer) => consumer,
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, %channel, "cannot take from the queue");
                        tokio::time::sleep(AFTER_FAILURE).await;
                        continue;
                    }
                },
                () = self.stopping.cancelled() => return,
            };
            loop {
                let deliveries = tokio::select! {
                    deliveries = consumer.next(CROWD) => deliveries,
                    () = self.stopping.cancelled() => return consumer.stop().await,
                };
                let Some(deliveries) = deliveries else { break };
                self.hand_out(deliveries).await;
            }
        }
    }

    async fn hand_out(&self, deliveries: Vec<Delivered>) {
        let mut strange = Vec::new();
        let mut of_account: HashMap<_, Vec<Delivered>> = HashMap::new();
        for delivery in deliveries {
            of_account.entry(delivery.task.account).or_default().push(delivery);
        }
        for (id, deliveries) in of_account {
            match self.account_by_id(id) {
                Some(account) => account.hand.put(deliveries),
                None => strange.extend(deliveries),
            }
        }
        if strange.is_empty() {
            return;
        }
        // Another process's settings name it, and ours do not.
        tracing::error!(
            count = strange.len(),
            "tasks of an account that is not in the settings went back to the ledger"
        );
        self.give_back_all(strange.iter().map(|delivery| delivery.task.chunk).collect()).await;
        self.queue.ack(strange.into_iter().map(|delivery| delivery.ack).collect()).await;
    }

    /// Sends what is in hand for one account.
    async fn work_for(self: &Arc<Self>, account: &Arc<SendingAccount>) {
        loop {
            let deliveries = tokio::select! {
                deliveries = self.next_crowd(account) => deliveries,
                () = self.stopping.cancelled() => return,
            };
            let sorted = match self.make_all_ready(account, &deliveries).await {
                Ok(sorted) => sorted,
                Err(error) => {
                    // Not begun: whoever takes up the chunk finds it as it was.
                    tracing::error!(error = &error as &dyn std::error::Error, "could not make tasks ready");
                    self.give_back_all(deliveries.iter().map(|delivery| delivery.task.chunk).collect()).await;
                    self.queue.ack(deliveries.into_iter().map(|delivery| delivery.ack).collect()).await;
                    continue;
                }
            };
            self.spend(account, sorted, deliveries).await;
        }
    }

    /// Makes a crowd ready. One whose rendering panics, which is a bug, takes no other with it: its own attempt says so.
    async fn make_all_ready(&self, account: &SendingAccount, deliveries: &[Delivered]) -> Result<Sorted, StoreError> {
        let whole = std::panic::AssertUnwindSafe(self.make_ready(account, deliveries)).catch_unwind();
        if let Ok(sorted) = whole.await {
            return sorted;
        }
        let mut all = Sorted::default();
        for delivery in deliveries {
            let one = std::slice::from_ref(delivery);
            match std::panic::AssertUnwindSafe(self.make_ready(account, one)).catch_unwind().await {
                Ok(sorted) => all.extend(sorted?),
                Err(_) => all.ready.extend(self.broken(&delivery.task).await?),
            }
        }
        Ok(all)
    }

    /// As many tasks as there is room for in the budget, or any where it rests. They may wait for places when they are
    /// ready.
    async fn next_crowd(&self, account: &SendingAccount) -> Vec<Delivered> {
        loop {
            account.hand.filled().await;
            match account.budget.ready(Instant::now()) {
                Ok(room) => {
                    let deliveries = account.hand.take(usize::try_from(room).unwrap_or(usize::MAX).min(CROWD));
                    if !deliveries.is_empty() {
                        return deliveries;
                    }
                }
                // They go back to the ledger: nothing waits in a process for longer than a moment.
                Err(wait) if wait > PATIENCE => return account.hand.take(CROWD),
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    /// Sends what is ready as places become free and the budget allows; the rest goes back to the ledger.
    async fn spend(self: &Arc<Self>, account: &Arc<SendingAccount>, mut sorted: Sorted, deliveries: Vec<Delivered>) {
        // Of the same there may be an earlier hand-over, too.
        let (mut acks, mut copies) = (HashMap::with_capacity(deliveries.len()), Vec::new());
        for delivery in deliveries {
            // The same hand-over once more: the delivery that is kept stands for both.
            copies.extend(acks.insert(name_of(&claim_of(&delivery.task)), delivery.ack));
        }
        let mut ready = std::mem::take(&mut sorted.ready).into_iter();
        while ready.len() > 0 {
            // A place first: what is reserved of the budget is to leave at once.
            let mut places = tokio::select! {
                places = free_places(account, ready.len()) => places,
                () = self.stopping.cancelled() => {
                    // Not begun: unsettled, they go back to the queue, and with this process's epoch to the ledger.
                    ready.for_each(|ready| drop(acks.remove(&name_of(&ready.claim))));
                    break;
                }
            };
            let mut group = Vec::new();
            for ready in ready.by_ref().take(places.num_permits()) {
                match self.permit(account, &ready).await {
                    Ok(()) => group.push(ready),
                    Err((wait, hold)) => {
                        sorted.postpone(ready.claim, &ready.new, later(self.clock.now(), wait), hold);
                    }
                }
            }
            if group.is_empty() {
                continue;
            }
            let opening: Vec<Ack> = group.iter().filter_map(|ready| acks.remove(&name_of(&ready.claim))).collect();
            let places = places.split(group.len());
            let (this, account) = (Arc::clone(self), Arc::clone(account));
            self.sends.spawn(async move { this.send_group(&account, group, opening, places).await });
        }
        self.put_aside(sorted).await;
        self.queue.ack(acks.into_values().chain(copies).collect()).await;
    }

    /// A place in the account's budget, or how long until there may be one.
    async fn permit(&self, account: &SendingAccount, ready: &Ready) -> Result<(), (Duration, HoldReason)> {
        let Ok(message) = &ready.message else { return Ok(()) };
        self.may_send(account).await.map_err(|wait| (wait, HoldReason::ChannelDown))?;
        let (recipient, weight) = (RecipientKey::of(&message.recipient), message.content.weight(ready.new.channel));
        let patience = Instant::now() + PATIENCE;
        loop {
            let now = Instant::now();
            match account.budget.take(Lane::Queued, recipient, weight, now) {
                Permit::Now => return Ok(()),
                // Nobody else should wait behind one recipient that rests.
                Permit::Later { wait, reason } if now + wait > patience || reason == WaitReason::RecipientPaused => {
                    return Err((wait, HoldReason::RateLimit));
                }
                Permit::Later { wait, .. } => tokio::time::sleep(wait).await,
            }
        }
    }

    /// What is not sent now: waits on in the ledger, or has ended.
    async fn put_aside(&self, sorted: Sorted) {
        if !sorted.postponed.is_empty() {
            let postponed = patiently(&self.stopping, || self.store.postpone(sorted.postponed.clone())).await;
            told(postponed.map(drop), "could not put tasks off");
        }
        if !sorted.settled.is_empty() {
            let settled = patiently(&self.stopping, || self.store.settle(sorted.settled.clone())).await;
            told(settled.map(drop), "could not end tasks");
        }
    }

    /// Opens in one commit; then each goes its way.
    async fn send_group(
        self: &Arc<Self>,
        account: &Arc<SendingAccount>,
        group: Vec<Ready>,
        acks: Vec<Ack>,
        mut places: Option<OwnedSemaphorePermit>,
    ) {
        let epoch = self.lease.epoch();
        let claims: Vec<Claim> = group.iter().map(|ready| ready.claim).collect();
        let open = Open { epoch, claims: claims.clone(), urgency: Urgency::Bulk };
        let opened = match self.store.open(open).await {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "could not open attempts");
                self.give_back_all(claims.iter().map(|claim| claim.chunk).collect()).await;
                return self.queue.ack(acks).await;
            }
        };
        self.queue.ack(acks).await;
        // There is room in the window.
        self.wake.notify_one();
        let mut opened: HashMap<_, Opened> = opened.into_iter().map(|opened| (opened.id, opened)).collect();
        for ready in group {
            // Not claimed: a copy, or it does not wait any more.
            let Some(opened) = opened.remove(&ready.new.id) else { continue };
            let place = places.as_mut().and_then(|places| places.split(1));
            let (this, account) = (Arc::clone(self), Arc::clone(account));
            self.sends.spawn(async move { this.send_opened(&account, epoch, ready, opened, place).await });
        }
    }

    /// Sends one that is open, and has its end recorded.
    async fn send_opened(
        self: &Arc<Self>,
        account: &SendingAccount,
        epoch: Epoch,
        ready: Ready,
        opened: Opened,
        place: Option<OwnedSemaphorePermit>,
    ) {
        let open = OpenAttempt {
            n: opened.attempt,
            opened_at: opened.opened_at,
            retry_count: opened.retry_count,
            resends: opened.resends,
        };
        let deadline = Instant::now() + self.options.send_deadline;
        let (outcome, content) = match &ready.message {
            Ok(message) => (self.hand_off(account, epoch, message, deadline).await, Some(&message.content)),
            Err(outcome) => (outcome.clone(), None),
        };
        let next = match ready.panics {
            Some(before) => self.next_after_panic(&ready.new, before),
            None => self.next(&ready.new, &open, &outcome, OnFailure::Queue, account.circuit.is_down()),
        };
        let close = self.close(&ready.new, &open, &outcome, content, next);
        let retries = open.retry_count;
        self.record_soon(epoch, EndedSend { new: ready.new, close, retries }, place);
    }
}

/// Waits for a free place, and takes up to `most` of those that are free.
async fn free_places(account: &SendingAccount, most: usize) -> OwnedSemaphorePermit {
    let first = Arc::clone(&account.places).acquire_owned().await;
    let mut places = first.expect("the places are there as long as their account");
    let more = account.places.available_permits().min(most.saturating_sub(1));
    if let Ok(more) = Arc::clone(&account.places).try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
        places.merge(more);
    }
    places
}

/// What tells one hand-over from all others.
fn name_of(claim: &Claim) -> (NotificationId, Generation) {
    (claim.id, claim.generation)
}

/// Says what failed, where nobody else can be told.
pub(super) fn told(result: Result<(), StoreError>, what: &'static str) {
    if let Err(error) = result {
        tracing::error!(error = &error as &dyn std::error::Error, "{what}");
    }
}
