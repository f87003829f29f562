//! Messages within any 24 hours.
//!
//! Counted in quarters of an hour, a moving sum of the present one and the 96 before it. So a message counts for 24
//! hours and up to 15 minutes more: the limit is never exceeded, and room comes back a quarter late at most.

const QUARTER: u64 = 15 * 60 * 1_000_000_000;
const QUARTERS: usize = 97;
pub(super) const WINDOW: u64 = 24 * 60 * 60 * 1_000_000_000;

#[derive(Debug)]
pub(super) struct DayWindow {
    limit: u64,
    counts: [u64; QUARTERS],
    /// The number of the present quarter; its count stands at that number modulo [`QUARTERS`].
    newest: u64,
    sum: u64,
}

impl DayWindow {
    pub(super) fn new(limit: u64) -> Self {
        DayWindow { limit, counts: [0; QUARTERS], newest: 0, sum: 0 }
    }

    /// How long until there is room; nothing means now. What weighs more than a day takes a whole one.
    pub(super) fn wait(&mut self, weight: u64, now: u64) -> u64 {
        self.advance(now);
        let weight = weight.min(self.limit.max(1));
        if self.sum + weight <= self.limit {
            return 0;
        }
        // The first quarter whose end makes room. With a limit of zero none does, and a day is as good as any time.
        let mut left = self.sum;
        for age in (0..QUARTERS as u64).rev() {
            let Some(quarter) = self.newest.checked_sub(age) else { continue };
            left -= self.counts[slot(quarter)];
            if left + weight <= self.limit {
                return ((quarter + QUARTERS as u64) * QUARTER).saturating_sub(now).max(1);
            }
        }
        WINDOW
    }

    /// Only after [`wait`](DayWindow::wait) said nothing.
    pub(super) fn take(&mut self, weight: u64, now: u64) {
        self.add(now, now, weight);
    }

    /// Counts what left at `at`, perhaps before this process began.
    pub(super) fn add(&mut self, now: u64, at: u64, count: u64) {
        self.advance(now);
        let quarter = (at / QUARTER).min(self.newest);
        if self.newest - quarter < QUARTERS as u64 {
            self.counts[slot(quarter)] += count;
            self.sum += count;
        }
    }

    fn advance(&mut self, now: u64) {
        let present = now / QUARTER;
        // A thread may come with a time taken a moment before another's: the window never goes back.
        let first = (self.newest + 1).max(present.saturating_sub(QUARTERS as u64 - 1));
        for quarter in first..=present {
            self.sum -= std::mem::take(&mut self.counts[slot(quarter)]);
        }
        self.newest = self.newest.max(present);
    }
}

fn slot(quarter: u64) -> usize {
    (quarter % QUARTERS as u64) as usize
}
