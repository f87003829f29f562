//! How far an upload is: a bar on a terminal, a line every few seconds elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval_at};

const BAR_EVERY: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows what was read of a file while it is sent.
pub(super) struct Progress {
    read: Counter,
    size: Option<u64>,
}

/// Bytes that were read.
#[derive(Clone, Default)]
pub(super) struct Counter(Arc<AtomicU64>);

impl Counter {
    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Progress {
    pub(super) fn new(size: Option<u64>) -> Self {
        Progress { read: Counter::default(), size }
    }

    pub(super) fn counter(&self) -> Counter {
        self.read.clone()
    }

    /// Shows progress for as long as `work` takes.
    pub(super) async fn show<T>(self, work: impl Future<Output = T>) -> T {
        let bar = std::io::stderr().is_terminal().then(|| self.bar());
        let every = if bar.is_some() { BAR_EVERY } else { LINE_EVERY };
        let mut ticks = interval_at(tokio::time::Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => {
                    if let Some(bar) = bar {
                        bar.finish_and_clear();
                    }
                    return done;
                }
                _ = ticks.tick() => match &bar {
                    Some(bar) => bar.set_position(self.read.get()),
                    None => self.line(),
                },
            }
        }
    }

    fn bar(&self) -> ProgressBar {
        let (bar, template) = match self.size {
            Some(size) => (
                ProgressBar::new(size),
                "{bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} to go",
            ),
            None => (ProgressBar::no_length(), "{spinner} {binary_bytes}, {binary_bytes_per_sec}"),
        };
        // The templates are ours; a test reads them.
        bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    fn line(&self) {
        let read = BinaryBytes(self.read.get());
        let text = match self.size {
            Some(size) => format!("sent {read} of {}\n", BinaryBytes(size)),
            None => format!("sent {read}\n"),
        };
        // Where standard error is gone, nobody wants to know.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_beside_the_show() {
        for size in [Some(10), None] {
            let progress = Progress::new(size);
            progress.counter().add(5);
            progress.line();
            let bar = progress.bar();
            bar.set_position(5);
            assert_eq!(progress.show(async { 7 }).await, 7);
        }
    }
}
