//! How much left lately.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Whole seconds that are looked back on.
const WINDOW: u64 = 10;
const SLOTS: usize = WINDOW as usize + 1;

/// Counts events of the last ten seconds.
#[derive(Debug)]
pub struct Meter {
    origin: Instant,
    /// Second and count; each slot is used anew every eleven seconds.
    // Held for some 10 ns, never over an await.
    slots: Mutex<[(u64, u64); SLOTS]>,
}

impl Meter {
    pub fn new(now: Instant) -> Self {
        Meter { origin: now, slots: Mutex::new([(0, 0); SLOTS]) }
    }

    /// One happened.
    pub fn count(&self, now: Instant) {
        let second = self.second(now);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut slots[(second % SLOTS as u64) as usize];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 += 1;
    }

    /// How many happened in a second, on an average of the last ten whole ones, or of as many as there were yet.
    pub fn per_second(&self, now: Instant) -> f64 {
        let current = self.second(now);
        let slots = *self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = |is_meant: &dyn Fn(u64) -> bool| -> u64 {
            slots.iter().filter(|(second, _)| is_meant(*second)).map(|(_, count)| count).sum()
        };
        match current.min(WINDOW) {
            0 => counted(&|second| second == 0) as f64,
            seconds => counted(&|second| second < current && second + WINDOW >= current) as f64 / seconds as f64,
        }
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ten_seconds_are_looked_back_on() {
        let t0 = Instant::now();
        let at = |millis: u64| t0 + Duration::from_millis(millis);
        let meter = Meter::new(t0);
        assert_eq!(meter.per_second(at(0)), 0.0);
        for _ in 0..30 {
            meter.count(at(100));
        }
        assert_eq!((meter.per_second(at(500)), meter.per_second(at(3_000))), (30.0, 10.0));
        for _ in 0..50 {
            meter.count(at(9_999));
        }
        assert_eq!((meter.per_second(at(10_500)), meter.per_second(at(11_000))), (8.0, 5.0));
        // Its slot is used again.
        meter.count(at(20_999));
        assert_eq!((meter.per_second(at(21_000)), meter.per_second(at(40_000))), (0.1, 0.0));
    }
}
