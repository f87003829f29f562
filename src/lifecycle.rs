//! Starting and stopping: who runs, and how it ends.
//!
//! The first SIGINT or SIGTERM stops softly: no new work, what runs is settled. The second stops hard.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of the process and the two ways to end them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    tracker: TaskTracker,
    soft: CancellationToken,
    hard: CancellationToken,
}

/// How a stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Everything settled.
    Finished,
    /// The time was up, or a second signal came: something was cut off, and the ledger knows what.
    CutOff,
}

impl Lifecycle {
    /// Turns signals into stops.
    pub fn listen_for_signals(&self) -> io::Result<()> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (soft, hard) = (self.soft.clone(), self.hard.clone());
        // Not tracked: a stop does not wait for the one who listens for stops.
        let listening = async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if soft.is_cancelled() {
                    tracing::warn!("second signal: stopping hard");
                    hard.cancel();
                } else {
                    tracing::info!("stopping: no new work, what runs is settled; a second signal stops hard");
                    soft.cancel();
                }
            }
        };
        #[expect(clippy::disallowed_methods, reason = "see above: it must not be waited for")]
        drop(tokio::spawn(listening));
        Ok(())
    }

    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Cancelled when no new work may begin.
    pub fn soft(&self) -> &CancellationToken {
        &self.soft
    }

    /// Cancelled when nothing may be waited for any more.
    pub fn hard(&self) -> &CancellationToken {
        &self.hard
    }

    /// Waits for `settled` and then for every task, for `grace` at most.
    pub async fn stop(&self, settled: impl Future<Output = ()>, grace: Duration) -> Stopped {
        self.soft.cancel();
        self.tracker.close();
        let all = async {
            settled.await;
            self.tracker.wait().await;
        };
        tokio::select! {
            () = all => Stopped::Finished,
            () = tokio::time::sleep(grace) => Stopped::CutOff,
            () = self.hard.cancelled() => Stopped::CutOff,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_tasks_but_not_for_ever() {
        let lifecycle = Lifecycle::default();
        lifecycle.tracker().spawn(tokio::time::sleep(Duration::from_secs(1)));
        assert_eq!(lifecycle.stop(async {}, Duration::from_secs(5)).await, Stopped::Finished);

        let lifecycle = Lifecycle::default();
        lifecycle.tracker().spawn(tokio::time::sleep(Duration::from_secs(60)));
        assert_eq!(lifecycle.stop(async {}, Duration::from_secs(5)).await, Stopped::CutOff);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hard_stop_waits_for_nothing() {
        let lifecycle = Lifecycle::default();
        lifecycle.tracker().spawn(std::future::pending::<()>());
        lifecycle.hard().cancel();
        assert_eq!(lifecycle.stop(std::future::pending(), Duration::from_secs(3600)).await, Stopped::CutOff);
    }
}
