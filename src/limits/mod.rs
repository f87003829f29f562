//! Budgets of provider accounts: how fast, how much in a day, and what has to rest.
//!
//! A [`Budget`] is one process's and does no I/O. Whoever sends asks it first: [`Budget::take`] reserves one
//! message or says how long to wait, [`Budget::acquire`] waits. Afterwards it is told how it went
//! ([`throttled`](Budget::throttled), [`succeeded`](Budget::succeeded)). Time is passed in, so every wait can be
//! tested without waiting. A message that was reserved and then not sent stays counted: the safe side.
//!
//! Several processes share an account's rate in equal parts ([`Budget::share_with`]); each keeps its own. Pauses, the
//! day and whether the account can send are the same for all of them: [`shared`] says what is told and learnt.
//!
//! A message weighs what its provider counts it as ([`Content::weight`](crate::domain::Content::weight)): an SMS of
//! three parts spends three of the rate and three of the day.

mod circuit;
mod day;
mod line;
mod meter;
mod pauses;
mod rate;
mod shared;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::circuit::{Change, Circuit, Down, Learnt, Way};
use self::day::Day;
pub use self::day::{DayWish, KnownDay};
use self::line::Lines;
pub use self::meter::Meter;
use self::pauses::Pauses;
pub use self::pauses::ScopeRule;
use self::rate::Rate;
pub use self::shared::Rest;
use crate::config::limits::LimitSettings;
use crate::domain::{Recipient, ThrottleScope};

/// Who asks: somebody who waits for the answer, or the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    Direct,
    Queued,
}

/// A recipient as the budget remembers it: a hash, so that no address is kept here. Should two ever share one, a
/// pause of one is a pause of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecipientKey(pub u64);

/// The answer to [`Budget::take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// One message is reserved: send it.
    Now,
    /// Nothing is reserved. Before this much time asking again is pointless, and later others may have been faster.
    Later { wait: Duration, reason: WaitReason },
}

/// What stands in the way longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    Rate,
    Day,
    /// The account or its sender was throttled.
    AccountPaused,
    RecipientPaused,
}

/// [`Budget::acquire`] cannot be granted by the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the account's limit leaves no room before the deadline")]
pub struct Busy {
    pub retry_after: Duration,
    pub reason: WaitReason,
}

/// What rests after a throttled answer. The scope may be wider than the answer's, see [`ScopeRule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    pub scope: ThrottleScope,
    pub until: Instant,
}

/// The budget of one account in this process.
#[derive(Debug)]
pub struct Budget {
    origin: Instant,
    settings: LimitSettings,
    /// Processes that send through the account.
    sharers: AtomicU32,
    // Held for some 100 ns, never over an await.
    state: Mutex<State>,
    /// Whether a success has anything to reset. Spares the lock on every send of a quiet account; a stale reading
    /// only delays the reset to the next success.
    is_troubled: AtomicBool,
    lines: Lines,
    /// Wakes whoever carries what is told to the ledger.
    news: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    rate: Rate,
    day: Day,
    pauses: Pauses,
}

impl Budget {
    pub fn new(settings: &LimitSettings, scope_rule: ScopeRule, now: Instant) -> Self {
        let state =
            State { rate: Rate::new(settings), day: Day::new(settings.per_day), pauses: Pauses::new(scope_rule) };
        Budget {
            origin: now,
            settings: settings.clone(),
            sharers: AtomicU32::new(1),
            state: Mutex::new(state),
            is_troubled: AtomicBool::new(false),
            lines: Lines::default(),
            news: Arc::default(),
        }
    }

    /// Wakes this one when there is something to tell other processes.
    pub fn telling(self, news: Arc<Notify>) -> Self {
        Budget { news, ..self }
    }

    /// Takes one process's part of the account's rate, when `processes` send through it: together they keep the whole.
    pub fn share_with(&self, processes: u32, now: Instant) {
        let processes = processes.max(1);
        if self.sharers.swap(processes, Ordering::Relaxed) == processes {
            return;
        }
        let part = LimitSettings {
            per_second: self.settings.per_second / f64::from(processes),
            burst: (self.settings.burst / processes).max(1),
            ..self.settings.clone()
        };
        let now = self.nanos(now);
        self.state().rate.become_like(&part, now);
    }

    /// Processes that share the account's rate, as far as this one knows.
    pub fn sharers(&self) -> u32 {
        self.sharers.load(Ordering::Relaxed)
    }

    /// Reserves one message of this weight to `recipient`, or tells how long until there might be room for it.
    pub fn take(&self, lane: Lane, recipient: RecipientKey, weight: u32, now: Instant) -> Permit {
        // A message that weighs nothing would go past every limit.
        let weight = u64::from(weight.max(1));
        let direct_waits = lane == Lane::Queued && self.lines.is_waiting(Lane::Direct);
        let now = self.nanos(now);
        let mut state = self.state();
        let waits = [
            (state.pauses.whole_until().saturating_sub(now), WaitReason::AccountPaused),
            (state.pauses.recipient_until(recipient).saturating_sub(now), WaitReason::RecipientPaused),
            (state.day.wait(weight, now), WaitReason::Day),
            (state.rate.wait(lane, weight, now), WaitReason::Rate),
            // Somebody stands there and waits for what would be taken here.
            (if direct_waits { state.rate.interval(Lane::Direct) } else { 0 }, WaitReason::Rate),
        ];
        // The first of the longest: with nothing to wait for, the first.
        let (wait, reason) = waits.into_iter().rev().max_by_key(|(wait, _)| *wait).unwrap_or((0, WaitReason::Rate));
        if wait > 0 {
            if state.day.is_missed() {
                self.news.notify_one();
            }
            return Permit::Later { wait: Duration::from_nanos(wait), reason };
        }
        state.rate.take(lane, weight, now);
        if state.day.take(weight) {
            self.news.notify_one();
        }
        Permit::Now
    }

    /// How many queued messages of weight one could leave now, or how long until there might be room for one. Nothing
    /// is reserved.
    pub fn ready(&self, now: Instant) -> Result<u64, Duration> {
        // No recipient: those that rest are found when they are known.
        let direct_waits = self.lines.is_waiting(Lane::Direct);
        let now = self.nanos(now);
        let mut state = self.state();
        let day = state.day.wait(1, now);
        if state.day.is_missed() {
            self.news.notify_one();
        }
        let behind_direct = if direct_waits { state.rate.interval(Lane::Direct) } else { 0 };
        let rests = state.pauses.whole_until().saturating_sub(now);
        match state.rate.wait(Lane::Queued, 1, now).max(day).max(rests).max(behind_direct) {
            0 => Ok(state.rate.room_until(Lane::Queued, now, now).max(1)),
            wait => Err(Duration::from_nanos(wait)),
        }
    }

    /// How many messages of weight one could leave within `patience`, were nobody else to take any; none while the
    /// account rests for longer.
    pub fn room(&self, lane: Lane, patience: Duration, now: Instant) -> u64 {
        let now = self.nanos(now);
        let until = now.saturating_add(nanos_of(patience));
        let state = self.state();
        let day = state.day.rests(now);
        let rests_until = state.pauses.whole_until().max(now.saturating_add(day));
        if rests_until > until { 0 } else { state.rate.room_until(lane, now.max(rests_until), until) }
    }

    /// Until when nothing at all may leave, and why: it was throttled, or its day is used up.
    pub fn rests_until(&self, now: Instant) -> Option<(Instant, WaitReason)> {
        let now = self.nanos(now);
        let state = self.state();
        let day = now.saturating_add(state.day.rests(now));
        let paused = state.pauses.whole_until();
        let (until, reason) = if day > paused { (day, WaitReason::Day) } else { (paused, WaitReason::AccountPaused) };
        (until > now).then(|| (self.instant(until), reason))
    }

    /// A send was throttled: `scope` rests for `step`, or longer where it was not the first time. Tells what rests.
    pub fn throttled(&self, scope: ThrottleScope, recipient: RecipientKey, step: Duration, now: Instant) -> Pause {
        let (scope, until) = {
            let mut state = self.state();
            // Set under the lock, so that no success between finds it unset.
            self.is_troubled.store(true, Ordering::Relaxed);
            state.pauses.throttled(scope, recipient, nanos_of(step), self.nanos(now))
        };
        self.news.notify_one();
        Pause { scope, until: self.instant(until) }
    }

    /// A send was accepted: the next throttle starts from its first step again. Ends no pause.
    pub fn succeeded(&self, recipient: RecipientKey, now: Instant) {
        if !self.is_troubled.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        let is_troubled = state.pauses.succeeded(recipient, self.nanos(now));
        self.is_troubled.store(is_troubled, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half-way through a change that matters.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The budget's own time scale, which begins with it.
    fn nanos(&self, at: Instant) -> u64 {
        nanos_of(at.saturating_duration_since(self.origin))
    }

    fn instant(&self, nanos: u64) -> Instant {
        self.origin + Duration::from_nanos(nanos).min(FAR_AWAY)
    }
}

/// An [`Instant`] further away may not be representable.
const FAR_AWAY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl RecipientKey {
    /// The same in every process of the same build; another build's may differ, and then shares no pause.
    pub fn of(recipient: &Recipient) -> Self {
        let mut hasher = DefaultHasher::new();
        recipient.hash(&mut hasher);
        RecipientKey(hasher.finish())
    }
}

fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
