//! How fast batches go just now.
//!
//! The counters that all processes keep are looked at every few seconds, of the batches that are under way; what they
//! gained within the last minute is the pace. What is paused is not looked at, so a pause does not count, and neither
//! does what went on before this process began.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::{BatchId, Clock};
use crate::store::Store;

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Long enough for a rate of a few a minute, short enough to follow a change.
const WINDOW: Duration = Duration::from_secs(60);
/// What was seen within less says little.
const SHORTEST: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub struct Pace {
    /// By batch: when it was looked at, and how many of it had ended. Oldest first.
    seen: Mutex<HashMap<BatchId, VecDeque<(Instant, u64)>>>,
}

impl Pace {
    /// Looks until `stopping`.
    pub fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        tracker: &TaskTracker,
        stopping: &CancellationToken,
    ) -> Arc<Self> {
        let pace = Arc::new(Pace::default());
        let (looking, stopping) = (Arc::clone(&pace), stopping.clone());
        tracker.spawn(async move {
            loop {
                match store.under_way(clock.now()).await {
                    Ok(batches) => looking.look(batches, Instant::now()),
                    Err(error) => {
                        tracing::debug!(
                            error = &error as &dyn std::error::Error,
                            "could not look at the batches' pace"
                        );
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    () = stopping.cancelled() => return,
                }
            }
        });
        pace
    }

    /// Ended per second lately, of a batch of which `settled` have ended by now.
    pub fn rate(&self, batch: BatchId, settled: u64) -> Option<f64> {
        self.rate_at(batch, settled, Instant::now())
    }

    fn rate_at(&self, batch: BatchId, settled: u64, now: Instant) -> Option<f64> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, before) = *seen.get(&batch)?.iter().find(|(at, _)| now - *at <= WINDOW)?;
        let (gained, passed) = (settled.saturating_sub(before), now - at);
        (gained > 0 && passed >= SHORTEST).then(|| gained as f64 / passed.as_secs_f64())
    }

    /// What is under way now, and how much of each has ended; of what is not, nothing is remembered.
    fn look(&self, batches: Vec<(BatchId, u64)>, now: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *seen);
        for (batch, settled) in batches {
            let mut looks = before.remove(&batch).unwrap_or_default();
            looks.retain(|(at, _)| now - *at <= WINDOW);
            looks.push_back((now, settled));
            seen.insert(batch, looks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: BatchId = BatchId(uuid::Uuid::nil());

    #[tokio::test]
    async fn the_pace_is_that_of_the_last_minute() {
        let (pace, start) = (Pace::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        pace.look(vec![(BATCH, 1_000)], at(0));
        assert_eq!(pace.rate_at(BATCH, 1_000, at(0)), None, "nothing is known yet");
        assert_eq!(pace.rate_at(BATCH, 1_100, at(10)), Some(10.0));
        pace.look(vec![(BATCH, 7_000)], at(60));
        assert_eq!(pace.rate_at(BATCH, 7_000, at(60)), Some(100.0));
        pace.look(vec![(BATCH, 7_000)], at(100));
        assert_eq!(pace.rate_at(BATCH, 7_120, at(100)), Some(3.0), "what was before the last minute does not count");
        assert_eq!(pace.rate_at(BATCH, 7_000, at(110)), None, "nothing ended lately");
    }

    #[tokio::test]
    async fn a_pause_does_not_count() {
        let (pace, start) = (Pace::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        pace.look(vec![(BATCH, 0)], at(0));
        pace.look(vec![], at(10));
        assert_eq!(pace.rate_at(BATCH, 500, at(20)), None);
        pace.look(vec![(BATCH, 500)], at(50));
        assert_eq!(pace.rate_at(BATCH, 600, at(52)), Some(50.0));
    }
}
