//! What a process's budget tells the others, and learns of them: pauses, and what is spent of the day.
//!
//! What was seen here and not told yet is kept until it is; whoever carries it to the ledger is woken.

use std::time::Duration;

use tokio::time::Instant;

use super::day::{DayWish, KnownDay};
use super::{Budget, RecipientKey, nanos_of};

/// Something rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The whole account without one.
    pub recipient: Option<RecipientKey>,
    pub left: Duration,
    /// How often it was throttled in a row.
    pub strikes: u32,
}

impl Budget {
    /// Pauses that were not told yet, and still go on.
    pub fn untold_rests(&self, now: Instant) -> Vec<Rest> {
        let now = self.nanos(now);
        self.state().pauses.take_untold(now)
    }

    /// They could not be told.
    pub fn not_told(&self, rests: &[Rest]) {
        let mut state = self.state();
        rests.iter().for_each(|rest| state.pauses.tell_again(rest.recipient));
    }

    /// Another process was throttled.
    pub fn learn_rest(&self, rest: &Rest, now: Instant) {
        let until = self.nanos(now).saturating_add(nanos_of(rest.left));
        let mut state = self.state();
        if state.pauses.learn(rest.recipient, until, rest.strikes, self.nanos(now)) {
            // A success here forgives it.
            self.is_troubled.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// What is to be counted of the day, and how much should be reserved; nothing when nothing has changed. Asked for
    /// regularly (`is_tick`) and whenever the budget wakes whoever asks.
    pub fn day_wish(&self, is_tick: bool, now: Instant) -> Option<DayWish> {
        let now = self.nanos(now);
        self.state().day.wish(self.sharers(), is_tick, now)
    }

    /// The same for the last time: what was reserved is given back.
    pub fn last_day_wish(&self, now: Instant) -> Option<DayWish> {
        let now = self.nanos(now);
        self.state().day.last_wish(now)
    }

    /// It was counted, and so much may be spent.
    pub fn day_granted(&self, wish: &DayWish, granted: u64) {
        self.state().day.granted(wish, granted);
    }

    /// It may not have been counted.
    pub fn day_not_told(&self, wish: &DayWish) {
        self.state().day.not_told(wish);
    }

    /// What all processes together spent of the day, and what the others may still spend.
    pub fn learn_day(&self, known: &KnownDay<'_>, now: Instant) {
        let now = self.nanos(now);
        self.state().day.learn(known, now);
    }
}
