//! How long to wait before connecting to a server again.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
/// No pause grows beyond twice this.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// 0.2 s, doubling to 10 s, each lengthened by chance, so that many processes do not come back in step. Never ends.
pub fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(SHORTEST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_never_end() {
        let pauses: Vec<_> = pauses().take(30).collect();
        assert!(pauses[0] >= SHORTEST_PAUSE && pauses[0] < 3 * SHORTEST_PAUSE, "{pauses:?}");
        assert!(pauses[20..].iter().all(|pause| *pause >= LONGEST_PAUSE && *pause <= 2 * LONGEST_PAUSE), "{pauses:?}");
    }
}
