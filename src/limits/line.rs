//! Waiting for a budget: one line per lane, first come first served, direct before queued.
//!
//! Only the head of a line looks at the budget; the others wait for their turn, so a free message wakes one waiter and
//! not all. Who waits for a resting recipient does so outside the line and holds nobody up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Budget, Busy, Lane, Permit, RecipientKey, WaitReason};

#[derive(Debug, Default)]
pub(super) struct Lines {
    direct: Line,
    queued: Line,
}

#[derive(Debug, Default)]
struct Line {
    /// Tokio's lock is fair: turns come in the order of asking.
    turn: tokio::sync::Mutex<()>,
    /// What those in line weigh together, the one whose turn it is included. Each counts for a burst at most: what is
    /// heavier holds up those behind it by nobody knows how much, for it may take either part of the rate.
    waiting: AtomicU64,
}

impl Lines {
    pub(super) fn is_waiting(&self, lane: Lane) -> bool {
        self.of(lane).waiting.load(Ordering::Relaxed) > 0
    }

    fn of(&self, lane: Lane) -> &Line {
        match lane {
            Lane::Direct => &self.direct,
            Lane::Queued => &self.queued,
        }
    }
}

/// A place in a line; dropping it, also by cancelling, leaves the line.
struct Place<'a> {
    line: &'a Line,
    weight: u64,
}

impl<'a> Place<'a> {
    fn enter(line: &'a Line, weight: u64) -> (Self, u64) {
        let ahead = line.waiting.fetch_add(weight, Ordering::Relaxed);
        (Place { line, weight }, ahead)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.line.waiting.fetch_sub(self.weight, Ordering::Relaxed);
    }
}

impl Budget {
    /// Waits until one message of this weight to `recipient` is reserved. Answers at once when it cannot be by
    /// `deadline`.
    ///
    /// Cancel safe: dropped, it has reserved nothing.
    pub async fn acquire(
        &self,
        lane: Lane,
        recipient: RecipientKey,
        weight: u32,
        deadline: Instant,
    ) -> Result<(), Busy> {
        loop {
            let now = Instant::now();
            // Who comes while others stand in line does not go past them.
            let obstacle = if self.lines.is_waiting(lane) {
                self.recipient_rests_for(recipient, now).map(|wait| (wait, WaitReason::RecipientPaused))
            } else {
                match self.take(lane, recipient, weight, now) {
                    Permit::Now => return Ok(()),
                    Permit::Later { wait, reason } => Some((wait, reason)),
                }
            };
            match obstacle {
                Some((wait, reason)) if now + wait > deadline => return Err(Busy { retry_after: wait, reason }),
                Some((wait, WaitReason::RecipientPaused)) => sleep_until(now + wait).await,
                Some(_) | None => {
                    if self.stand_in_line(lane, recipient, weight, deadline).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Whether a message was reserved; not, when it turned out at the head that the recipient rests.
    async fn stand_in_line(
        &self,
        lane: Lane,
        recipient: RecipientKey,
        weight: u32,
        deadline: Instant,
    ) -> Result<bool, Busy> {
        let line = self.lines.of(lane);
        let counted = u64::from(weight.max(1)).min(self.state().rate.smallest_burst());
        let (_place, ahead) = Place::enter(line, counted);
        let busy = |wait, reason| Err(Busy { retry_after: wait, reason });
        if let Some(wait) = self.too_late_after(lane, ahead, deadline) {
            return busy(wait, WaitReason::Rate);
        }
        let Ok(_turn) = timeout_at(deadline, line.turn.lock()).await else {
            return busy(self.interval(lane), WaitReason::Rate);
        };
        loop {
            let now = Instant::now();
            match self.take(lane, recipient, weight, now) {
                Permit::Now => return Ok(true),
                Permit::Later { wait, reason } if now + wait > deadline => return busy(wait, reason),
                Permit::Later { reason: WaitReason::RecipientPaused, .. } => return Ok(false),
                Permit::Later { wait, .. } => sleep_until(now + wait).await,
            }
        }
    }

    fn recipient_rests_for(&self, recipient: RecipientKey, now: Instant) -> Option<Duration> {
        let until = self.state().pauses.recipient_until(recipient);
        until.checked_sub(self.nanos(now)).filter(|wait| *wait > 0).map(Duration::from_nanos)
    }

    /// Whether those ahead alone use up all that comes free until the deadline; then, about how long they need.
    fn too_late_after(&self, lane: Lane, ahead: u64, deadline: Instant) -> Option<Duration> {
        let now = self.nanos(Instant::now());
        let state = self.state();
        let room = state.rate.room_until(lane, now, self.nanos(deadline));
        (room <= ahead).then(|| Duration::from_nanos(state.rate.interval(lane).saturating_mul(ahead + 1)))
    }

    fn interval(&self, lane: Lane) -> Duration {
        Duration::from_nanos(self.state().rate.interval(lane))
    }
}
