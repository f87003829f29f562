//! This process's life in the ledger: an epoch, its lease, and what lost processes left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::work::told;
use super::{Delivery, DeliveryOptions};
use crate::domain::Epoch;
use crate::store::{NewEpoch, Recover, Recovered, Store, StoreError};

/// The epoch under which attempts are opened, and until when this process may believe in it.
pub struct Lease {
    store: Arc<dyn Store>,
    new: NewEpoch,
    length: Duration,
    epoch: AtomicI64,
    /// An earlier epoch of this process was lost.
    was_lost: AtomicBool,
    /// In ms of the boot clock, which goes on while the machine sleeps or the process is frozen.
    valid_until_ms: AtomicU64,
}

impl Lease {
    pub(super) async fn begin(
        store: Arc<dyn Store>,
        new: NewEpoch,
        options: &DeliveryOptions,
    ) -> Result<Arc<Self>, StoreError> {
        let asked_at_ms = boot_ms();
        let epoch = store.begin_epoch(new.clone()).await?;
        let lease = Lease {
            store,
            new,
            length: options.lease,
            epoch: AtomicI64::new(epoch.0),
            was_lost: AtomicBool::new(false),
            valid_until_ms: AtomicU64::new(asked_at_ms + millis(options.lease)),
        };
        Ok(Arc::new(lease))
    }

    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    fn was_lost(&self) -> bool {
        self.was_lost.load(Ordering::Acquire)
    }

    /// Whether `epoch` may hand something off now: checked right before the first byte leaves, so that a process that
    /// was frozen after opening an attempt does not send what others have settled meanwhile.
    pub(super) fn allows(&self, epoch: Epoch) -> bool {
        self.epoch() == epoch && boot_ms() < self.valid_until_ms.load(Ordering::Acquire)
    }

    /// A sign of life. A lease that was lost is not mourned: a new epoch begins, and what the old one had open is
    /// settled like anybody's.
    async fn renew(&self) -> Result<(), StoreError> {
        let asked_at_ms = boot_ms();
        match self.store.renew(self.epoch()).await {
            Ok(()) => {}
            Err(StoreError::EpochLost) => {
                tracing::error!(epoch = self.epoch().0, "lost the lease on the ledger: beginning a new epoch");
                let epoch = self.store.begin_epoch(self.new.clone()).await?;
                self.was_lost.store(true, Ordering::Release);
                self.epoch.store(epoch.0, Ordering::Release);
            }
            Err(error) => return Err(error),
        }
        // Counted from before the question: the ledger's answer may have taken its time.
        self.valid_until_ms.store(asked_at_ms + millis(self.length), Ordering::Release);
        Ok(())
    }
}

/// Renews the lease, looks after lost processes and forgets expired keys until the tracker's tasks are told to stop.
pub(super) fn keep(delivery: &Arc<Delivery>) {
    // Each for itself: what a lost process still holds locked keeps nobody from saying that he lives.
    let this = Arc::clone(delivery);
    delivery.tracker.spawn(async move {
        let mut ticks = this.ticks();
        while this.is_time(&mut ticks).await {
            told(this.lease.renew().await, "could not renew the lease on the ledger");
            told(this.share_budgets().await, "could not count the processes");
        }
    });
    let this = Arc::clone(delivery);
    delivery.tracker.spawn(async move {
        let mut ticks = this.ticks();
        while this.is_time(&mut ticks).await {
            told(this.recover().await.map(drop), "could not look for lost processes");
            let forgotten = this.store.forget_expired_keys(this.clock.now()).await;
            told(forgotten.map(drop), "could not forget expired idempotency keys");
        }
    });
}

impl Delivery {
    /// Three signs of life in a lease: two may fail.
    fn ticks(&self) -> Interval {
        let every = (self.options.lease / 3).max(Duration::from_millis(100));
        let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    /// Waits for the next time. `false` when what was running has settled: until then it needs the lease.
    async fn is_time(&self, ticks: &mut Interval) -> bool {
        tokio::select! {
            _ = ticks.tick() => true,
            () = self.settled() => false,
        }
    }

    /// Every process that may send by a channel takes its part of each account's rate: what all of them send keeps the
    /// whole. One that comes or goes is seen within a third of a lease.
    pub(super) async fn share_budgets(&self) -> Result<(), StoreError> {
        let senders = self.store.senders().await?;
        for account in self.sending.values() {
            let processes = senders.get(&account.name().channel).copied().unwrap_or(1);
            account.budget.share_with(processes, tokio::time::Instant::now());
        }
        Ok(())
    }

    /// Settles what lost processes left.
    ///
    /// Not while this process itself lost an epoch and still has outcomes to record: it would call unknown what it
    /// knows.
    pub(super) async fn recover(&self) -> Result<Recovered, StoreError> {
        if self.lease.was_lost() && self.unrecorded.load(Ordering::Acquire) > 0 {
            return Ok(Recovered::default());
        }
        let recovered = self
            .store
            .recover(Recover {
                epoch: self.lease.epoch(),
                now: self.clock.now(),
                send_deadline: self.options.send_deadline,
                resend_grace: self.options.resend_grace,
            })
            .await?;
        if !recovered.is_empty() {
            tracing::warn!(
                processes = recovered.epochs.len(),
                uncertain = recovered.uncertain,
                to_resend = recovered.to_resend,
                due_again = recovered.due_again,
                "settled what a lost process left"
            );
            self.wake.notify_one();
        }
        Ok(recovered)
    }
}

/// Time since boot, sleep included, in ms.
fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}
