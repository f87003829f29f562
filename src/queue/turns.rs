//! Whose turn it is: the most urgent lane first, and a tenth of the places to each lower one, so that it is slow behind
//! a flood and never stands still.

/// A lower lane gets one place in so many.
const ONE_IN: u8 = 10;

/// Hands out places to the lanes of one channel. What a lane is owed is carried on from one call to the next: workers
/// often have room for one task only, and a tenth of one place would be none.
#[derive(Debug)]
pub struct Turns {
    /// How many places others got while something waited in the normal and in the low lane.
    owed: [u8; 2],
}

impl Default for Turns {
    fn default() -> Self {
        // One apart, so that both are not owed the same place.
        Turns { owed: [0, 1] }
    }
}

impl Turns {
    /// The lane (0 is the most urgent) that gets the next place; `None` when nothing waits.
    pub fn next(&mut self, waits: [bool; 3]) -> Option<usize> {
        let first = waits.iter().position(|waits| *waits)?;
        for (owed, _) in self.owed.iter_mut().zip(&waits[1..]).filter(|(_, waits)| **waits) {
            *owed = owed.saturating_add(1);
        }
        let due = (1..waits.len()).find(|&lane| waits[lane] && self.owed[lane - 1] >= ONE_IN);
        let lane = due.unwrap_or(first);
        if lane > 0 {
            self.owed[lane - 1] = 0;
        }
        Some(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(turns: &mut Turns, count: usize, waits: [bool; 3]) -> [usize; 3] {
        let mut given = [0; 3];
        for _ in 0..count {
            given[turns.next(waits).expect("something waits")] += 1;
        }
        given
    }

    #[test]
    fn a_tenth_goes_to_each_lower_lane_also_one_place_at_a_time() {
        let mut turns = Turns::default();
        assert_eq!(places(&mut turns, 10, [true, true, true]), [8, 1, 1]);
        assert_eq!(places(&mut turns, 1000, [true, true, true]), [800, 100, 100]);
    }

    #[test]
    fn lanes_without_work_leave_their_places_to_others() {
        assert_eq!(places(&mut Turns::default(), 100, [false, true, true]), [0, 90, 10]);
        assert_eq!(places(&mut Turns::default(), 100, [true, false, true]), [90, 0, 10]);
        assert_eq!(places(&mut Turns::default(), 100, [false, false, true]), [0, 0, 100]);
        assert_eq!(Turns::default().next([false; 3]), None);
    }

    #[test]
    fn the_first_place_is_the_most_urgent_ones() {
        assert_eq!(Turns::default().next([true, true, true]), Some(0));
        assert_eq!(Turns::default().next([false, true, true]), Some(1));
    }
}
