//! Whether an account can send at all.
//!
//! An account that its provider refuses (a revoked token, no money left) or that cannot be reached is *down*, for all
//! processes: nothing is sent, and one message at a time, a *probe*, is let through to find out whether it is back.
//! Any send that is accepted ends it. Here is what one process sees of that: what it has to tell the others
//! ([`Circuit::untold`]), and what it learns of them ([`Circuit::learn`]). Which process may probe, the ledger says.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::domain::Probe;

/// The first wait before the account is tried; it doubles with every refusal.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// Whoever mends the account should not have to wait much longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Another process probes: by then this one has learnt what became of it, or of the next probe's time.
const ANOTHER_PROBES: Duration = Duration::from_secs(1);
/// So many in a row that reached nobody, and the account is down.
const UNREACHABLE: u32 = 10;

/// Whether one account can send.
#[derive(Debug, Default)]
pub struct Circuit {
    /// Spares the lock on every send of an account that works.
    is_open: AtomicBool,
    // Held for some 10 ns, never over an await.
    state: Mutex<State>,
    /// Sends in a row that reached nobody.
    unreached: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    down: Option<Down>,
    untold: Option<Change>,
}

/// Why an account is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down {
    pub since: Timestamp,
    /// A word of ours: `auth`, `billing`, `unreachable`, ….
    pub reason: String,
    /// The provider's own code.
    pub code: String,
    wait: Duration,
    probe_at: Instant,
    /// This process's probe is on its way.
    probe: Option<Probe>,
}

/// What other processes are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Down {
        reason: String,
        code: String,
        wait: Duration,
    },
    /// The probe was refused.
    StillDown {
        probe: Probe,
        reason: String,
        code: String,
        wait: Duration,
    },
    Works,
}

/// Whether one may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Free,
    /// Only as the probe, if the ledger grants it; nobody else should be granted one within `wait`.
    AsProbe {
        wait: Duration,
    },
}

/// What [`Circuit::learn`] changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learnt {
    Nothing,
    IsDown,
    Works,
}

impl Circuit {
    /// The account was refused: nothing is sent until the next probe. Tells whether that is news.
    pub fn refused(&self, reason: &str, code: &str, at: Timestamp, now: Instant) -> bool {
        let mut state = self.lock();
        let (since, wait, probe) = match &state.down {
            None => (at, FIRST_WAIT, None),
            Some(known) => match known.probe {
                // Those that were on their way already say nothing new.
                None => return false,
                Some(probe) => (known.since, (known.wait * 2).min(LONGEST_WAIT), Some(probe)),
            },
        };
        let (reason, code) = (reason.to_owned(), code.to_owned());
        state.untold = Some(match probe {
            None => Change::Down { reason: reason.clone(), code: code.clone(), wait },
            Some(probe) => Change::StillDown { probe, reason: reason.clone(), code: code.clone(), wait },
        });
        state.down = Some(Down { since, reason, code, wait, probe_at: now + wait, probe: None });
        self.is_open.store(true, Ordering::Release);
        true
    }

    /// A send reached nobody. The tenth in a row is a refusal, and so is a probe's; tells whether that is news.
    pub fn unreachable(&self, code: &str, at: Timestamp, now: Instant) -> bool {
        let unreached = self.unreached.fetch_add(1, Ordering::Relaxed) + 1;
        (unreached >= UNREACHABLE || self.is_down()) && self.refused("unreachable", code, at, now)
    }

    /// The account sent something. Tells whether it was down.
    pub fn worked(&self) -> bool {
        self.forget_unreached();
        if !self.is_open.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.lock();
        self.is_open.store(false, Ordering::Release);
        let was_down = state.down.take().is_some();
        if was_down {
            state.untold = Some(Change::Works);
        }
        was_down
    }

    /// How many may be handed over: any number, one to try it, or none.
    pub fn room(&self, now: Instant) -> Option<u64> {
        if !self.is_open.load(Ordering::Acquire) {
            return Some(u64::MAX);
        }
        match &self.lock().down {
            None => Some(u64::MAX),
            Some(down) => (now >= down.probe_at).then_some(1),
        }
    }

    /// Whether one more may be sent now, or how long nothing may. While the account is down one in each wait may ask for
    /// the probe: it then says [`probes`](Circuit::probes) or [`another_probes`](Circuit::another_probes).
    pub fn lets_through(&self, now: Instant) -> Result<Way, Duration> {
        if !self.is_open.load(Ordering::Acquire) {
            return Ok(Way::Free);
        }
        match &mut self.lock().down {
            None => Ok(Way::Free),
            Some(down) if now >= down.probe_at => {
                down.probe_at = now + down.wait;
                Ok(Way::AsProbe { wait: down.wait })
            }
            Some(down) => Err(down.probe_at.saturating_duration_since(now)),
        }
    }

    /// The ledger granted this probe.
    pub fn probes(&self, probe: Probe) {
        if let Some(down) = &mut self.lock().down {
            down.probe = Some(probe);
        }
    }

    /// The ledger granted none. Tells how long to wait.
    pub fn another_probes(&self, now: Instant) -> Duration {
        if let Some(down) = &mut self.lock().down {
            down.probe_at = now + ANOTHER_PROBES;
        }
        ANOTHER_PROBES
    }

    /// What other processes are to be told; it is told once.
    pub fn untold(&self) -> Option<Change> {
        self.lock().untold.take()
    }

    /// It could not be told. What came since says more.
    pub fn not_told(&self, change: Change) {
        self.lock().untold.get_or_insert(change);
    }

    /// What all processes know, unless this one has something to say that they do not.
    pub fn learn(&self, known: Option<Down>) -> Learnt {
        let mut state = self.lock();
        if state.untold.is_some() {
            return Learnt::Nothing;
        }
        let learnt = match (&state.down, &known) {
            (None, Some(_)) => Learnt::IsDown,
            (Some(_), None) => Learnt::Works,
            (None, None) | (Some(_), Some(_)) => Learnt::Nothing,
        };
        let probe = state.down.as_ref().and_then(|down| down.probe);
        self.is_open.store(known.is_some(), Ordering::Release);
        state.down = known.map(|known| Down { probe, ..known });
        drop(state);
        if learnt == Learnt::Works {
            self.forget_unreached();
        }
        learnt
    }

    /// Whether it is down; asked for with every send.
    pub fn is_down(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Why it is down, if it is.
    pub fn down(&self) -> Option<Down> {
        self.lock().down.clone()
    }

    fn forget_unreached(&self) {
        if self.unreached.load(Ordering::Relaxed) > 0 {
            self.unreached.store(0, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Down {
    /// As the ledger knows it.
    pub fn known(since: Timestamp, reason: String, code: String, wait: Duration, probe_at: Instant) -> Self {
        Down { since, reason, code, wait, probe_at, probe: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME_TIME: Timestamp = Timestamp::UNIX_EPOCH;

    fn second(n: u64, origin: Instant) -> Instant {
        origin + Duration::from_secs(n)
    }

    fn known(wait: u64, probe_at: Instant) -> Down {
        Down::known(SOME_TIME, "auth".into(), "190".into(), Duration::from_secs(wait), probe_at)
    }

    #[test]
    fn one_at_a_time_finds_out_whether_it_is_back() {
        let (circuit, t0) = (Circuit::default(), Instant::now());
        assert_eq!(circuit.lets_through(t0), Ok(Way::Free));
        assert!(circuit.refused("auth", "401", SOME_TIME, t0));
        assert_eq!((circuit.room(t0), circuit.lets_through(t0)), (None, Err(FIRST_WAIT)));
        let probe = second(5, t0);
        assert_eq!(circuit.room(probe), Some(1));
        assert_eq!(circuit.lets_through(probe), Ok(Way::AsProbe { wait: FIRST_WAIT }));
        assert!(circuit.lets_through(probe).is_err(), "a second one asks for the probe");
        assert!(circuit.worked());
        assert_eq!((circuit.room(probe), circuit.down()), (Some(u64::MAX), None));
        assert_eq!(circuit.untold(), Some(Change::Works), "what was before is not told any more");
        assert_eq!(circuit.untold(), None);
    }

    #[test]
    fn waits_grow_to_a_minute_and_the_first_refusal_is_remembered() {
        let (circuit, mut now) = (Circuit::default(), Instant::now());
        for (n, seconds) in [5, 10, 20, 40, 60, 60].into_iter().enumerate() {
            let (at, wait) = (SOME_TIME + Duration::from_secs(seconds), Duration::from_secs(seconds));
            assert!(circuit.refused("billing", "21611", at, now));
            match circuit.untold() {
                Some(Change::Down { wait: told, .. }) => assert_eq!((n, told), (0, wait)),
                Some(Change::StillDown { probe: Probe(probe), wait: told, .. }) => {
                    assert_eq!((probe, told), (i64::try_from(n).unwrap(), wait));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(circuit.lets_through(now), Err(wait));
            now += wait;
            assert_eq!(circuit.lets_through(now), Ok(Way::AsProbe { wait }));
            circuit.probes(Probe(i64::try_from(n + 1).unwrap()));
        }
        assert_eq!(circuit.down().map(|down| down.since), Some(SOME_TIME + Duration::from_secs(5)));
    }

    #[test]
    fn a_crowd_that_was_on_its_way_counts_once() {
        let (circuit, t0) = (Circuit::default(), Instant::now());
        assert_eq!((0..100).filter(|_| circuit.refused("auth", "401", SOME_TIME, t0)).count(), 1);
        assert_eq!(circuit.lets_through(t0), Err(FIRST_WAIT));
    }

    #[test]
    fn what_others_know_holds_here() {
        let (circuit, t0) = (Circuit::default(), Instant::now());
        assert_eq!(circuit.learn(Some(known(20, second(7, t0)))), Learnt::IsDown);
        assert_eq!((circuit.is_down(), circuit.lets_through(t0)), (true, Err(Duration::from_secs(7))));
        // Another process had the probe, and was refused.
        assert_eq!(circuit.lets_through(second(7, t0)), Ok(Way::AsProbe { wait: Duration::from_secs(20) }));
        assert_eq!(circuit.another_probes(second(7, t0)), ANOTHER_PROBES);
        assert_eq!(circuit.lets_through(second(7, t0)), Err(ANOTHER_PROBES));
        assert_eq!(circuit.learn(Some(known(40, second(47, t0)))), Learnt::Nothing);
        assert_eq!(circuit.lets_through(second(8, t0)), Err(Duration::from_secs(39)));
        assert!(!circuit.refused("auth", "190", SOME_TIME, t0), "it was on its way, and says nothing new");
        assert_eq!(circuit.learn(None), Learnt::Works);
        assert_eq!((circuit.lets_through(t0), circuit.untold()), (Ok(Way::Free), None));
    }

    #[test]
    fn what_was_not_told_is_not_unlearnt() {
        let (circuit, t0) = (Circuit::default(), Instant::now());
        circuit.refused("auth", "401", SOME_TIME, t0);
        assert_eq!(circuit.learn(None), Learnt::Nothing);
        assert!(circuit.is_down());
        let change = circuit.untold().expect("it is news");
        circuit.not_told(change.clone());
        assert_eq!(circuit.untold(), Some(change.clone()));
        circuit.worked();
        circuit.not_told(change);
        assert_eq!(circuit.untold(), Some(Change::Works), "what came since says more");
    }

    #[test]
    fn a_probe_stays_this_process_s_own_when_others_are_heard() {
        let (circuit, t0) = (Circuit::default(), Instant::now());
        circuit.learn(Some(known(5, t0)));
        circuit.lets_through(t0).unwrap();
        circuit.probes(Probe(3));
        circuit.learn(Some(known(5, second(5, t0))));
        // One that cannot be reached, however few were tried from here.
        assert!(circuit.unreachable("connect", SOME_TIME, second(1, t0)));
        let wait = Duration::from_secs(10);
        let (reason, code) = ("unreachable".to_owned(), "connect".to_owned());
        assert_eq!(circuit.untold(), Some(Change::StillDown { probe: Probe(3), reason, code, wait }));
    }
}
