//! Messages within any 24 hours, by all processes together.
//!
//! The ledger counts them, in quarters of an hour: so a message counts for 24 hours and up to 15 minutes more. Here is
//! one process's part: a **reserve** that the ledger has counted as spent already, and that is spent without asking.
//! It is filled up in the background, before it runs out, and grows and shrinks with what is needed. So the limit is
//! never exceeded, whatever is killed; what a killed process had in reserve stays counted for its day.

use std::time::Duration;

use super::nanos_of;

/// Nobody should ask again sooner: a reserve is being filled up.
const FILLING: u64 = 20_000_000;
/// A living process that does not need its reserve gives it back within seconds.
const COMES_BACK: u64 = 2 * 1_000_000_000;
/// A dead one's is forgotten some time.
const LOOK_AGAIN: u64 = 60 * 1_000_000_000;
/// A reserve that is not used is told of this often, and so not forgotten.
const RENEW_EVERY: u64 = 60 * 60 * 1_000_000_000;
/// Of an account without a limit is only told what it spent, in case it will have one: not so often.
const TELL_UNLIMITED_EVERY: u64 = 10 * 1_000_000_000;
const DAY: u64 = 24 * 60 * 60 * 1_000_000_000;
/// A process at rest holds this part of a day, and no more than [`MOST_AT_REST`].
const PART_AT_REST: u64 = 200;
const MOST_AT_REST: u64 = 20;
/// A busy one holds no more than this part.
const PART_AT_MOST: u64 = 20;

/// What one process spent of an account's day, and what it wants to be able to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayWish {
    /// Since the last wish.
    pub spent: u64,
    pub limit: Option<u64>,
    /// What is left of its reserve.
    pub held: u64,
    /// How much it is to be filled up to.
    pub want: u64,
}

/// What all processes know of an account's day.
#[derive(Clone, Copy, Debug)]
pub struct KnownDay<'a> {
    /// How much was spent, and when it is a day ago; the oldest first.
    pub spent: &'a [(u64, Duration)],
    /// What other processes may still spend.
    pub reserved: u64,
    /// The part of it whose processes live.
    pub reserved_by_living: u64,
}

#[derive(Debug)]
pub(super) struct Day {
    limit: Option<u64>,
    /// Counted in the ledger, and not spent.
    reserve: u64,
    /// Spent, and not told to the ledger.
    spent: u64,
    /// Spent since the reserve's size was last thought over.
    lately: u64,
    /// What the reserve is filled up to.
    target: u64,
    /// The reserve was too small for a message of this weight.
    missed: u64,
    ran_low: bool,
    told_at: u64,
    /// What nobody has reserved, as the ledger was last seen.
    room: u64,
    /// What other processes have reserved and may give back.
    with_others: u64,
    /// When how much of what was spent is a day ago, the oldest first.
    leaves: Vec<(u64, u64)>,
}

impl Day {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Day {
            limit,
            reserve: 0,
            spent: 0,
            lately: 0,
            target: at_rest(limit),
            missed: 0,
            ran_low: false,
            told_at: 0,
            room: 0,
            with_others: 0,
            leaves: Vec::new(),
        }
    }

    /// How long until there is room; nothing means now. What weighs more than a day takes a whole one.
    pub(super) fn wait(&mut self, weight: u64, now: u64) -> u64 {
        let Some(limit) = self.limit else { return 0 };
        let weight = weight.min(limit.max(1));
        if weight <= self.reserve {
            return 0;
        }
        // What it cannot be filled up to is not asked for: two such processes would each keep what the other needs.
        if self.can_have(weight) {
            self.missed = self.missed.max(weight);
        }
        self.until_room(weight, now)
    }

    fn can_have(&self, weight: u64) -> bool {
        weight <= self.reserve.saturating_add(self.room)
    }

    /// How long nothing at all can leave.
    pub(super) fn rests(&self, now: u64) -> u64 {
        if self.limit.is_none() || self.reserve > 0 || self.room > 0 { 0 } else { self.until_room(1, now) }
    }

    fn until_room(&self, weight: u64, now: u64) -> u64 {
        let mut room = self.reserve.saturating_add(self.room);
        if self.can_have(weight) {
            return FILLING;
        }
        if weight <= room.saturating_add(self.with_others) {
            return COMES_BACK;
        }
        for (at, count) in &self.leaves {
            room = room.saturating_add(*count);
            if weight <= room {
                return at.saturating_sub(now).max(FILLING);
            }
        }
        // With a limit of nothing a day is as good as any time.
        if self.limit == Some(0) { DAY } else { LOOK_AGAIN }
    }

    /// Only after [`wait`](Day::wait) said nothing. Tells whether the reserve runs low.
    pub(super) fn take(&mut self, weight: u64) -> bool {
        self.spent = self.spent.saturating_add(weight);
        self.lately = self.lately.saturating_add(weight);
        let Some(limit) = self.limit else { return false };
        self.reserve = self.reserve.saturating_sub(weight.min(limit.max(1)));
        let runs_low = self.reserve < self.target.div_ceil(2);
        self.ran_low |= runs_low;
        runs_low
    }

    /// Whether somebody waits for the reserve to be filled up.
    pub(super) fn is_missed(&self) -> bool {
        self.missed > 0
    }

    /// What to tell the ledger, if there is anything. A change of the reserve's size is thought over with every
    /// `is_tick`, or when it ran low between two.
    pub(super) fn wish(&mut self, sharers: u32, is_tick: bool, now: u64) -> Option<DayWish> {
        let least = at_rest(self.limit);
        if self.ran_low {
            let most = self.limit.map_or(0, |limit| limit / PART_AT_MOST).max(least);
            self.target = self.target.saturating_mul(2).min(most);
        } else if is_tick && self.lately < self.target / 4 {
            self.target = (self.target / 2).max(least);
        }
        if is_tick {
            self.lately = 0;
        }
        // The others want some of it, too.
        let part = self.reserve.saturating_add(self.room) / (2 * u64::from(sharers.max(1)));
        let missed = std::mem::take(&mut self.missed);
        let missed = if self.can_have(missed) { missed } else { 0 };
        let mut want = if self.limit.is_none() { 0 } else { self.target.min(part).max(missed) };
        if !is_tick {
            // Whoever missed it has not come back for it yet.
            want = want.max(self.reserve);
        }
        let is_soon_enough = self.limit.is_none() && now < self.told_at.saturating_add(TELL_UNLIMITED_EVERY);
        let is_news = (self.spent > 0 && !is_soon_enough) || want != self.reserve;
        let is_old = self.reserve > 0 && now >= self.told_at.saturating_add(RENEW_EVERY);
        (is_news || is_old).then(|| self.wish_for(want, now))
    }

    /// The last one: nothing is held any more.
    pub(super) fn last_wish(&mut self, now: u64) -> Option<DayWish> {
        (self.spent > 0 || self.reserve > 0).then(|| self.wish_for(0, now))
    }

    fn wish_for(&mut self, want: u64, now: u64) -> DayWish {
        // Given back before the ledger is told, so that never more is spent than is counted there.
        let given_back = self.reserve.saturating_sub(want);
        self.reserve -= given_back;
        self.room = self.room.saturating_add(given_back);
        (self.missed, self.ran_low, self.told_at) = (0, false, now);
        DayWish { spent: std::mem::take(&mut self.spent), limit: self.limit, held: self.reserve, want }
    }

    /// The ledger counted, and lets this process spend `granted` of what it wished for.
    pub(super) fn granted(&mut self, wish: &DayWish, granted: u64) {
        let more = granted.saturating_sub(wish.held);
        self.reserve = self.reserve.saturating_add(more);
        self.room = self.room.saturating_sub(more);
        // Others were faster.
        if granted < wish.want {
            self.room = 0;
        }
    }

    /// The ledger did not answer: whether it counted is unknown, and it is told again.
    pub(super) fn not_told(&mut self, wish: &DayWish) {
        self.spent = self.spent.saturating_add(wish.spent);
    }

    /// What the ledger knows.
    pub(super) fn learn(&mut self, known: &KnownDay<'_>, now: u64) {
        let Some(limit) = self.limit else { return };
        let all: u64 = known.spent.iter().map(|(count, _)| *count).fold(0, u64::saturating_add);
        let taken = [all, known.reserved, self.reserve, self.spent].into_iter().fold(0, u64::saturating_add);
        self.room = limit.saturating_sub(taken);
        self.with_others = known.reserved_by_living;
        self.leaves = known.spent.iter().map(|(count, left)| (now.saturating_add(nanos_of(*left)), *count)).collect();
    }
}

fn at_rest(limit: Option<u64>) -> u64 {
    limit.map_or(0, |limit| (limit / PART_AT_REST).clamp(1, MOST_AT_REST))
}
