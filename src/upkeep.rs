//! What the service does in the background for the ledger's own sake: erasing what was asked for, and clearing away
//! what is old or was never accepted in full.
//!
//! Small steps with pauses between them, so that no send waits; each may be cut off and is gone on with after a
//! restart. Several processes may do it at the same time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::retention::RetentionSettings;
use crate::domain::Clock;
use crate::store::{ErasureStep, Store, StoreError};

/// An erasure that another process was asked for is found this much later at most.
const LOOK_FOR_ERASURES: Duration = Duration::from_secs(30);
/// What is being sent may have ended by then.
const WHILE_SENDING: Duration = Duration::from_secs(2);
/// Days are counted; nobody waits for the minute.
const LOOK_FOR_OLD: Duration = Duration::from_secs(10 * 60);
/// Between two steps of what nobody waits for.
const BREATH: Duration = Duration::from_millis(50);
/// After a failure of the ledger, this long before asking again.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Notifications looked at in one step.
const STEP: u32 = 500;

/// The background's own work.
pub struct Upkeep {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    retention: RetentionSettings,
    erasure_asked: Notify,
}

impl Upkeep {
    /// Begins, until `stopping`.
    pub fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        retention: RetentionSettings,
        tracker: &TaskTracker,
        stopping: &CancellationToken,
    ) -> Arc<Self> {
        let upkeep = Arc::new(Upkeep { store, clock, retention, erasure_asked: Notify::new() });
        let (running, stopped) = (Arc::clone(&upkeep), stopping.clone());
        tracker.spawn(async move {
            let mut pause = Duration::ZERO;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = running.erasure_asked.notified() => {}
                    () = stopped.cancelled() => return,
                }
                pause = unless_away(running.erase().await, "could not go on erasing");
            }
        });
        let (running, stopped) = (Arc::clone(&upkeep), stopping.clone());
        tracker.spawn(async move {
            let mut pause = Duration::ZERO;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stopped.cancelled() => return,
                }
                pause =
                    unless_away(running.clear_away().await, "could not clear away what is old or was never accepted");
            }
        });
        upkeep
    }

    /// An erasure was asked for in this process.
    pub fn wake(&self) {
        self.erasure_asked.notify_one();
    }

    /// One step, and how long to pause after it.
    async fn erase(&self) -> Result<Duration, StoreError> {
        Ok(match self.store.erase_some(STEP, self.clock.now()).await? {
            ErasureStep::Went => Duration::ZERO,
            ErasureStep::Waits => WHILE_SENDING,
            ErasureStep::Idle => LOOK_FOR_ERASURES,
        })
    }

    /// The same of what is old, and of batches whose process died before they were accepted.
    async fn clear_away(&self) -> Result<Duration, StoreError> {
        let now = self.clock.now();
        let mut more = self.store.drop_abandoned(None, STEP).await? > 0;
        if let Some(before) = self.retention.remove_before(now) {
            more |= self.store.remove_old(before, now, STEP).await?.more;
        }
        if let Some(before) = self.retention.personal_before(now) {
            more |= self.store.purge_personal_data(before, STEP).await?.more;
            more |= self.store.drop_old_quarantined(before, STEP).await? == u64::from(STEP);
        }
        Ok(if more { BREATH } else { LOOK_FOR_OLD })
    }
}

fn unless_away(pause: Result<Duration, StoreError>, what: &str) -> Duration {
    pause.unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "{what}");
        AFTER_FAILURE
    })
}
