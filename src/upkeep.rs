//! What the service does in the background for the ledger's own sake: erasing what was asked for.
//!
//! Small steps with pauses between them, so that no send waits; each may be cut off and is gone on with after a
//! restart. Several processes may do it at the same time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::Clock;
use crate::store::{ErasureStep, Store, StoreError};

/// What another process was asked for is found this much later at most.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// What is being sent may have ended by then.
const WHILE_SENDING: Duration = Duration::from_secs(2);
/// After a failure of the ledger, this long before asking again.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Notifications looked at in one step.
const STEP: u32 = 500;

/// The background's own work.
pub struct Upkeep {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    asked: Notify,
}

impl Upkeep {
    /// Begins, until `stopping`.
    pub fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        tracker: &TaskTracker,
        stopping: CancellationToken,
    ) -> Arc<Self> {
        let upkeep = Arc::new(Upkeep { store, clock, asked: Notify::new() });
        let running = Arc::clone(&upkeep);
        tracker.spawn(async move {
            let mut pause = Duration::ZERO;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = running.asked.notified() => {}
                    () = stopping.cancelled() => return,
                }
                pause = running.step().await.unwrap_or_else(|error| {
                    tracing::error!(error = &error as &dyn std::error::Error, "could not go on erasing");
                    AFTER_FAILURE
                });
            }
        });
        upkeep
    }

    /// Something was asked for in this process.
    pub fn wake(&self) {
        self.asked.notify_one();
    }

    /// One step, and how long to pause after it.
    async fn step(&self) -> Result<Duration, StoreError> {
        Ok(match self.store.erase_some(STEP, self.clock.now()).await? {
            ErasureStep::Went => Duration::ZERO,
            ErasureStep::Waits => WHILE_SENDING,
            ErasureStep::Idle => LOOK_EVERY,
        })
    }
}
