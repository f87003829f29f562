//! Receipts on their way back to the sender: webhooks and callbacks, signed as the providers sign.
//!
//! A message's receipts are posted one after the other, each after the one before was answered or given up; those of
//! different messages overtake each other. Nothing here holds up the taking of messages: they are put on a list, and
//! a full list drops them (and counts that). The list goes with the process, as a provider's outage would.

mod plan;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::hmac;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::plan::Fate;
pub(super) use self::plan::{Status, Step, fate, posted, status_after};
use super::scenario::ReceiptScenario;
use super::{twilio, whatsapp};
use crate::channels::HttpClient;
use crate::channels::http_client::{HttpLimits, HttpRequest};
use crate::domain::Clock;

/// Messages whose receipts wait: some 400 bytes each.
const WAITING_MOST: usize = 1_000_000;
/// Posts under way at once; a provider's are more, and a test's service need not be.
const POSTS_AT_ONCE: usize = 64;
/// Until an answer counts as none, as with Twilio's callbacks.
const POST_LIMITS: HttpLimits =
    HttpLimits { connect: Duration::from_secs(5), total: Duration::from_secs(15), body_bytes: 64 * 1024 };

/// Where a message's receipts go, and what they are about.
#[derive(Debug)]
pub(super) enum Target {
    WhatsApp(whatsapp::Webhook),
    Twilio(twilio::Callback),
}

/// What became of receipts since the start or the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptFigures {
    /// Messages with receipts still to come.
    pub waiting: u64,
    /// Receipts that were answered with 2xx.
    pub posted: u64,
    /// Posts that were not, and were repeated.
    pub repeated: u64,
    /// Receipts that were not, time after time.
    pub given_up: u64,
    /// Messages whose receipts found the list full.
    pub dropped: u64,
}

/// The receipts of one message.
#[derive(Debug)]
struct Letter {
    target: Target,
    /// The last is the next.
    steps: Vec<Step>,
    /// How often the next one was posted in vain.
    tries: u32,
    retries: u32,
    retry_after: Duration,
    /// Letters from before a reset are thrown away.
    era: u64,
}

#[derive(Debug)]
struct Waiting {
    due: Reverse<Instant>,
    letter: Box<Letter>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

#[derive(Debug, Default)]
pub(super) struct Receipts {
    // Held for one push or pop.
    waiting: Mutex<BinaryHeap<Waiting>>,
    /// The earliest due time became earlier.
    sooner: Notify,
    era: AtomicU64,
    /// Messages on the list or being posted.
    open: AtomicU64,
    posted: AtomicU64,
    repeated: AtomicU64,
    given_up: AtomicU64,
    dropped: AtomicU64,
}

impl Receipts {
    pub(super) fn schedule(&self, target: Target, mut steps: Vec<Step>, scenario: &ReceiptScenario) {
        let Some(first) = steps.first().copied() else { return };
        steps.reverse();
        if self.open.load(Ordering::Relaxed) >= WAITING_MOST as u64 {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let retry_after = Duration::from_millis(scenario.retry_after_ms);
        let era = self.era.load(Ordering::Relaxed);
        let letter = Letter { target, steps, tries: 0, retries: scenario.retries, retry_after, era };
        self.push(Box::new(letter), Instant::now() + first.after);
    }

    pub(super) fn figures(&self) -> ReceiptFigures {
        ReceiptFigures {
            waiting: self.open.load(Ordering::Relaxed),
            posted: self.posted.load(Ordering::Relaxed),
            repeated: self.repeated.load(Ordering::Relaxed),
            given_up: self.given_up.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    /// Forgets what waits, and the figures.
    pub(super) fn clear(&self) {
        self.era.fetch_add(1, Ordering::Relaxed);
        let forgotten = std::mem::take(&mut *self.lock()).len();
        self.open.fetch_sub(forgotten as u64, Ordering::Relaxed);
        for count in [&self.posted, &self.repeated, &self.given_up, &self.dropped] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Posts until it is stopped.
    pub(super) async fn run(self: Arc<Self>, clock: Arc<dyn Clock>, stopping: CancellationToken, tasks: TaskTracker) {
        let http = HttpClient::new();
        let room = Arc::new(Semaphore::new(POSTS_AT_ONCE));
        loop {
            let next_due = self.lock().peek().map(|waiting| waiting.due.0);
            let wait = async {
                match next_due {
                    Some(due) if due <= Instant::now() => {}
                    Some(due) => tokio::select! {
                        () = tokio::time::sleep_until(due) => {}
                        () = self.sooner.notified() => {}
                    },
                    None => self.sooner.notified().await,
                }
                Arc::clone(&room).acquire_owned().await
            };
            let permit = tokio::select! {
                permit = wait => permit,
                () = stopping.cancelled() => return,
            };
            let Some(letter) = self.pop_due() else { continue };
            let (receipts, http, stopping) = (Arc::clone(&self), http.clone(), stopping.clone());
            let now = clock.now();
            tasks.spawn(async move {
                let _permit = permit;
                let post = async {
                    let Some(request) = letter.request(now) else { return false };
                    let answer = http.send(request, &POST_LIMITS).await;
                    answer.is_ok_and(|answer| answer.status.is_success())
                };
                tokio::select! {
                    answered = post => receipts.settle(letter, answered),
                    () = stopping.cancelled() => {}
                }
            });
        }
    }

    /// What comes after a post.
    fn settle(&self, mut letter: Box<Letter>, answered: bool) {
        if letter.era != self.era.load(Ordering::Relaxed) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        if !answered && letter.tries < letter.retries {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            let pause = letter.retry_after.saturating_mul(2u32.saturating_pow(letter.tries));
            letter.tries += 1;
            return self.push(letter, Instant::now() + pause);
        }
        let count = if answered { &self.posted } else { &self.given_up };
        count.fetch_add(1, Ordering::Relaxed);
        letter.tries = 0;
        letter.steps.pop();
        match letter.steps.last() {
            Some(next) => {
                let due = Instant::now() + next.after;
                self.push(letter, due);
            }
            None => {
                self.open.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn push(&self, letter: Box<Letter>, due: Instant) {
        let mut waiting = self.lock();
        let is_first = waiting.peek().is_none_or(|first| due < first.due.0);
        waiting.push(Waiting { due: Reverse(due), letter });
        drop(waiting);
        if is_first {
            self.sooner.notify_one();
        }
    }

    fn pop_due(&self) -> Option<Box<Letter>> {
        let mut waiting = self.lock();
        let is_due = waiting.peek().is_some_and(|first| first.due.0 <= Instant::now());
        if is_due { waiting.pop().map(|first| first.letter) } else { None }
    }

    fn lock(&self) -> MutexGuard<'_, BinaryHeap<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Letter {
    /// `None` for an address that no request can be made to.
    fn request(&self, now: jiff::Timestamp) -> Option<HttpRequest> {
        let status = self.steps.last()?.status;
        match &self.target {
            Target::WhatsApp(webhook) => webhook.request(status, now),
            Target::Twilio(callback) => callback.request(status, now),
        }
    }
}

/// HMAC-SHA256 for Meta, HMAC-SHA1 for Twilio.
pub(super) fn sign(algorithm: hmac::Algorithm, secret: &str, message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), message)
}
