//! Waiting for what another process does: with a deadline, and no longer than needed.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Longer than anything that is waited for may take on a loaded machine; reached only by a test that fails.
pub(crate) const LONG: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Asks until there is an answer.
///
/// # Panics
/// When `deadline` passes first; `what` says what was waited for.
pub(crate) async fn eventually<T>(deadline: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < until, "not within {} s: {what}", deadline.as_secs_f64());
        sleep(LOOK_EVERY).await;
    }
}
