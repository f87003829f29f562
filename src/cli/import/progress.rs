//! How far an upload is: a bar on a terminal, a line every few seconds elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// Bytes that were read, and whether these are all.
#[derive(Clone, Default)]
pub(super) struct Counter(Arc<Count>);

#[derive(Default)]
struct Count {
    bytes: AtomicU64,
    ended: AtomicBool,
}

impl Counter {
    pub(super) fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// There is no more to read: what follows is the server's work.
    pub(super) fn end(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }

    fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::Relaxed)
    }

    fn get(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
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
        let (mut said, mut waits) = (String::new(), false);
        loop {
            tokio::select! {
                done = &mut work => {
                    if let Some(bar) = bar {
                        bar.finish_and_clear();
                    }
                    return done;
                }
                _ = ticks.tick() => match &bar {
                    Some(bar) => {
                        if self.read.has_ended() && !waits {
                            waits = true;
                            bar.set_style(style("{spinner} {binary_bytes} sent, waiting for the server, {elapsed}"));
                        }
                        bar.set_position(self.read.get());
                        bar.tick();
                    }
                    None => {
                        let line = self.line();
                        if line != said {
                            // Where standard error is gone, nobody wants to know.
                            let _ = std::io::stderr().write_all(line.as_bytes());
                            said = line;
                        }
                    }
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
        bar.with_style(style(template))
    }

    fn line(&self) -> String {
        let read = BinaryBytes(self.read.get());
        match self.size {
            _ if self.read.has_ended() => format!("sent {read}, waiting for the server\n"),
            Some(size) => format!("sent {read} of {}\n", BinaryBytes(size)),
            None => format!("sent {read}\n"),
        }
    }
}

/// The templates are ours; a test reads them.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_beside_the_show() {
        for size in [Some(10), None] {
            let progress = Progress::new(size);
            progress.counter().add(5);
            let of_all = if size.is_some() { " of 10 B" } else { "" };
            assert_eq!(progress.line(), format!("sent 5 B{of_all}\n"));
            progress.counter().end();
            assert_eq!(progress.line(), "sent 5 B, waiting for the server\n");
            let bar = progress.bar();
            bar.set_position(5);
            assert_eq!(progress.show(async { 7 }).await, 7);
        }
    }
}
