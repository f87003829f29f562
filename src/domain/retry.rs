//! How long to wait before the next try, and when to give up.

use std::time::Duration;

/// The first wait; it doubles with every further retry (the request's 1, 2, 4, 8 … s).
pub const FIRST_WAIT: Duration = Duration::from_secs(1);
/// No wait grows beyond this.
pub const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);
/// Waits are spread by this share in both directions, so that a failed crowd does not come back as a crowd.
pub const JITTER: f64 = 0.2;

/// The wait before retry number `retry` (counted from 0), or `None` when `max_retries` are used up.
///
/// `spread` in 0..=1 places the wait within the jitter: 0 the shortest, 1 the longest.
pub fn wait(retry: u32, max_retries: u32, spread: f64) -> Option<Duration> {
    if retry >= max_retries {
        return None;
    }
    let doubled = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(retry)).min(LONGEST_WAIT);
    Some(doubled.mul_f64(1.0 - JITTER + 2.0 * JITTER * spread.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_and_end() {
        let waits: Vec<_> = (0..5).map(|retry| wait(retry, 4, 0.5).map(|wait| wait.as_secs())).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(4), Some(8), None]);
    }

    proptest! {
        #[test]
        fn a_wait_stays_within_its_jitter_and_the_cap(retry in 0_u32..200, spread in 0.0..=1.0_f64) {
            let wait = wait(retry, u32::MAX, spread).expect("retries are left");
            let middle = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(retry)).min(LONGEST_WAIT).as_secs_f64();
            prop_assert!((middle * 0.799..=middle * 1.201).contains(&wait.as_secs_f64()));
        }
    }
}
