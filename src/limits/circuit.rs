//! Whether an account can send at all.
//!
//! An account that its provider refuses (a revoked token, no money left) or that cannot be reached is *down*: what is
//! queued for it waits, and one message at a time is let through to find out whether it is back. Direct sends are not
//! held up; one that is accepted ends the wait.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// The first wait before the account is tried; it doubles with every refusal.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// Whoever mends the account should not have to wait much longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Whether one account can send.
#[derive(Debug, Default)]
pub struct Circuit {
    /// Spares the lock on every send of an account that works.
    is_open: AtomicBool,
    // Held for some 10 ns, never over an await.
    down: Mutex<Option<Down>>,
    /// Sends in a row that reached nobody.
    unreached: AtomicU32,
}

/// So many in a row that reached nobody, and the account is down.
const UNREACHABLE: u32 = 10;

/// Why an account is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down {
    pub since: Timestamp,
    /// A word of ours: `credentials`, `funds`, ….
    pub reason: &'static str,
    /// The provider's own code.
    pub code: String,
    wait: Duration,
    probe_at: Instant,
    /// One was let through to find out, and nothing is known of it yet.
    is_tried: bool,
}

impl Circuit {
    /// The account was refused: nothing is sent until the next try.
    pub fn refused(&self, reason: &'static str, code: &str, at: Timestamp, now: Instant) {
        let mut down = self.lock();
        let (since, wait) = match &*down {
            // Those that were on their way already say nothing new.
            Some(known) if !known.is_tried => return,
            Some(known) => (known.since, (known.wait * 2).min(LONGEST_WAIT)),
            None => (at, FIRST_WAIT),
        };
        *down = Some(Down { since, reason, code: code.to_owned(), wait, probe_at: now + wait, is_tried: false });
        self.is_open.store(true, Ordering::Release);
    }

    /// A send reached nobody. The tenth in a row is a refusal; tells whether the account is down.
    pub fn unreachable(&self, code: &str, at: Timestamp, now: Instant) -> bool {
        let is_down = self.unreached.fetch_add(1, Ordering::Relaxed) + 1 >= UNREACHABLE;
        if is_down {
            self.refused("unreachable", code, at, now);
        }
        is_down
    }

    /// The account sent something. Tells whether it was down.
    pub fn worked(&self) -> bool {
        if self.unreached.load(Ordering::Relaxed) > 0 {
            self.unreached.store(0, Ordering::Relaxed);
        }
        if !self.is_open.load(Ordering::Acquire) {
            return false;
        }
        self.is_open.store(false, Ordering::Release);
        self.lock().take().is_some()
    }

    /// How many may be handed over: any number, one to try it, or none.
    pub fn room(&self, now: Instant) -> Option<u64> {
        if !self.is_open.load(Ordering::Acquire) {
            return Some(u64::MAX);
        }
        match &*self.lock() {
            None => Some(u64::MAX),
            Some(down) => (now >= down.probe_at).then_some(1),
        }
    }

    /// Whether one more may be sent now. While the account is down that is one in each wait.
    pub fn lets_through(&self, now: Instant) -> Result<(), Duration> {
        if !self.is_open.load(Ordering::Acquire) {
            return Ok(());
        }
        match &mut *self.lock() {
            None => Ok(()),
            Some(down) if now >= down.probe_at => {
                down.probe_at = now + down.wait;
                down.is_tried = true;
                Ok(())
            }
            Some(down) => Err(down.probe_at.saturating_duration_since(now)),
        }
    }

    /// Whether it is down; asked for with every send.
    pub fn is_down(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Why it is down, if it is.
    pub fn down(&self) -> Option<Down> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Down>> {
        // Nothing in here panics half-way through a change.
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(n: u64, origin: Instant) -> Instant {
        origin + Duration::from_secs(n)
    }

    #[test]
    fn one_at_a_time_finds_out_whether_it_is_back() {
        let (circuit, t0) = (Circuit::default(), Instant::now());
        assert_eq!(circuit.lets_through(t0), Ok(()));
        circuit.refused("credentials", "401", Timestamp::UNIX_EPOCH, t0);
        assert_eq!((circuit.room(t0), circuit.lets_through(t0)), (None, Err(FIRST_WAIT)));
        let probe = second(5, t0);
        assert_eq!(circuit.room(probe), Some(1));
        assert_eq!(circuit.lets_through(probe), Ok(()));
        assert!(circuit.lets_through(probe).is_err(), "a second one goes with the probe");
        assert!(circuit.worked());
        assert_eq!((circuit.room(probe), circuit.down()), (Some(u64::MAX), None));
    }

    #[test]
    fn waits_grow_to_a_minute_and_the_first_refusal_is_remembered() {
        let (circuit, mut now) = (Circuit::default(), Instant::now());
        for seconds in [5, 10, 20, 40, 60, 60] {
            circuit.refused("funds", "21611", Timestamp::UNIX_EPOCH + Duration::from_secs(seconds), now);
            assert_eq!(circuit.lets_through(now), Err(Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
            assert_eq!(circuit.lets_through(now), Ok(()));
        }
        assert_eq!(circuit.down().map(|down| down.since), Some(Timestamp::UNIX_EPOCH + Duration::from_secs(5)));
    }

    #[test]
    fn a_crowd_that_was_on_its_way_counts_once() {
        let (circuit, t0) = (Circuit::default(), Instant::now());
        for _ in 0..100 {
            circuit.refused("credentials", "401", Timestamp::UNIX_EPOCH, t0);
        }
        assert_eq!(circuit.lets_through(t0), Err(FIRST_WAIT));
    }
}
