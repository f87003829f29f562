//! Messages per second, with bursts: the generic cell rate algorithm, and its split between the lanes.
//!
//! Times are nanoseconds on the budget's own scale.

use super::Lane;
use crate::config::limits::LimitSettings;

/// Queued messages always keep at least a twentieth of the rate; a share of 1 would silence them for ever.
pub(super) const LARGEST_DIRECT_SHARE: f64 = 0.95;
/// A rate of nothing, or less, is read as one message a day.
const SLOWEST_PER_SECOND: f64 = 1.0 / 86_400.0;

/// At most `burst + t × rate` messages in any time `t`: exact, with one number of state.
///
/// A message may weigh more than one. Heavier than the whole burst, it leaves when the bucket is full, and what comes
/// after it waits until the rate has caught up: only then does a time hold more, and never by more than one message.
#[derive(Debug)]
struct Bucket {
    interval: u64,
    /// How far `due` may lie ahead of now: `(burst − 1) × interval`.
    tolerance: u64,
    /// When the bucket would be full again.
    due: u64,
}

impl Bucket {
    fn new(per_second: f64, burst: f64) -> Self {
        // Rounded to the slow side, so that the rate is kept and not nearly kept.
        let interval = (1e9 / per_second).ceil().max(1.0);
        Bucket { interval: interval as u64, tolerance: ((burst - 1.0) * interval) as u64, due: 0 }
    }

    /// How long until there is room; nothing means now.
    fn wait(&self, weight: u64, now: u64) -> u64 {
        let beyond_one = self.interval.saturating_mul(weight.saturating_sub(1)).min(self.tolerance);
        self.due.saturating_sub(self.tolerance - beyond_one).saturating_sub(now)
    }

    fn take(&mut self, weight: u64, now: u64) {
        self.due = self.due.max(now).saturating_add(self.interval.saturating_mul(weight));
    }

    /// Has as many messages to catch up with as `other` has.
    fn owe(&mut self, other: &Bucket, now: u64) {
        let ahead = u128::from(other.due.saturating_sub(now));
        let scaled = ahead * u128::from(self.interval) / u128::from(other.interval);
        self.due = now.saturating_add(u64::try_from(scaled).unwrap_or(u64::MAX));
    }

    /// The heaviest message that leaves nothing to catch up with.
    fn burst(&self) -> u64 {
        self.tolerance / self.interval + 1
    }

    /// How many of weight one could leave until `at`, were nobody else to take any.
    fn room_until(&self, now: u64, at: u64) -> u64 {
        match at.saturating_add(self.tolerance).checked_sub(self.due.max(now)) {
            Some(spare) => spare / self.interval + 1,
            None => 0,
        }
    }
}

/// The rate of an account, split so that neither lane can take the other's due.
///
/// Two buckets share out rate and burst: direct sends have one for themselves, everything may use the other. So
/// queued ones can never use more than their share, direct ones always find theirs, and both together never exceed
/// the whole. A burst too small to be shared out (a part below one message) is rounded up in both and kept by a third
/// bucket over them; a direct send may then wait for the time of one message.
///
/// A direct message too heavy for its own part takes the other, whose queue then catches up, rather than leave the
/// direct sends after it without their share.
#[derive(Debug)]
pub(super) struct Rate {
    shared: Bucket,
    direct: Option<Bucket>,
    whole: Option<Bucket>,
}

impl Rate {
    pub(super) fn new(settings: &LimitSettings) -> Self {
        // `max` also turns NaN into a number; `clamp` would not.
        let per_second = settings.per_second.max(SLOWEST_PER_SECOND);
        let share = settings.direct_share.max(0.0).clamp(0.0, LARGEST_DIRECT_SHARE);
        let burst = f64::from(settings.burst.max(1));
        let part = |share: f64| Bucket::new(per_second * share, (burst * share).max(1.0));
        let is_rounded = burst * share < 1.0 || burst * (1.0 - share) < 1.0;
        Rate {
            shared: part(1.0 - share),
            direct: (share > 0.0).then(|| part(share)),
            whole: (share > 0.0 && is_rounded).then(|| Bucket::new(per_second, burst)),
        }
    }

    /// At other settings from now on. What was taken stays taken.
    pub(super) fn become_like(&mut self, settings: &LimitSettings, now: u64) {
        let mut new = Rate::new(settings);
        new.shared.owe(&self.shared, now);
        let owe = |new: &mut Option<Bucket>, old: &Option<Bucket>| {
            if let (Some(new), Some(old)) = (new, old) {
                new.owe(old, now);
            }
        };
        owe(&mut new.direct, &self.direct);
        owe(&mut new.whole, &self.whole);
        *self = new;
    }

    pub(super) fn wait(&self, lane: Lane, weight: u64, now: u64) -> u64 {
        let shared = self.shared.wait(weight, now);
        let part = match self.own_part(lane, weight) {
            Some(direct) => direct.wait(weight, now).min(shared),
            None => shared,
        };
        part.max(self.whole.as_ref().map_or(0, |whole| whole.wait(weight, now)))
    }

    /// Only after [`wait`](Rate::wait) said nothing.
    pub(super) fn take(&mut self, lane: Lane, weight: u64, now: u64) {
        // Its own part first: what it leaves of the other is there for the queue.
        let from_own = self.own_part(lane, weight).is_some_and(|direct| direct.wait(weight, now) == 0);
        match &mut self.direct {
            Some(direct) if from_own => direct.take(weight, now),
            Some(_) | None => self.shared.take(weight, now),
        }
        if let Some(whole) = &mut self.whole {
            whole.take(weight, now);
        }
    }

    /// The lane's own part, where a message of this weight may use it.
    fn own_part(&self, lane: Lane, weight: u64) -> Option<&Bucket> {
        let direct = self.direct.as_ref().filter(|_| lane == Lane::Direct)?;
        (weight <= direct.burst() || direct.burst() > self.shared.burst()).then_some(direct)
    }

    /// The heaviest message that leaves nothing to catch up with, whichever part it takes.
    pub(super) fn smallest_burst(&self) -> u64 {
        let parts = [Some(&self.shared), self.direct.as_ref(), self.whole.as_ref()];
        parts.into_iter().flatten().map(Bucket::burst).min().unwrap_or(1)
    }

    /// How many of weight one of this lane could leave until `at`, were nobody else to take any.
    pub(super) fn room_until(&self, lane: Lane, now: u64, at: u64) -> u64 {
        let direct = match lane {
            Lane::Direct => self.direct.as_ref().map_or(0, |direct| direct.room_until(now, at)),
            Lane::Queued => 0,
        };
        let parts = direct.saturating_add(self.shared.room_until(now, at));
        self.whole.as_ref().map_or(parts, |whole| whole.room_until(now, at).min(parts))
    }

    /// The time of a message of weight one of this lane when nothing is left of any burst.
    pub(super) fn interval(&self, lane: Lane) -> u64 {
        match (lane, &self.direct) {
            (Lane::Direct, Some(direct)) => {
                let (own, shared) = (direct.interval as f64, self.shared.interval as f64);
                (own * shared / (own + shared)) as u64
            }
            (Lane::Direct, None) | (Lane::Queued, _) => self.shared.interval,
        }
    }
}
