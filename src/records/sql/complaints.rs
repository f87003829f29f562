//! What the log hears of a source that fails, however often it is asked.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::SourceError;
use crate::domain::RecordKind;
use crate::store::postgres::pool::chain;

/// A kind that cannot be read is said so once in this time: work that needs it keeps asking.
const SAY_EVERY: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Complaints {
    // Held for a lookup in a map, never over an await.
    by_kind: Mutex<HashMap<RecordKind, Said>>,
}

struct Said {
    at: Instant,
    /// The log's last word is that it fails.
    fails: bool,
}

impl Complaints {
    /// Logs the answer if there is news in it.
    pub(super) fn hear<T>(&self, kind: RecordKind, answer: &Result<T, SourceError>) {
        if !self.is_news(kind, answer.is_err()) {
            return;
        }
        match answer {
            Ok(_) => tracing::info!(record.kind = %kind, "records can be read again"),
            Err(error @ SourceError::Unavailable { .. }) => {
                tracing::warn!(record.kind = %kind, "{}", chain(error));
            }
            Err(error @ SourceError::Unusable { .. }) => {
                tracing::error!(record.kind = %kind, "{error}; `vestnik doctor` says what to do");
            }
        }
    }

    fn is_news(&self, kind: RecordKind, fails: bool) -> bool {
        let mut by_kind = self.by_kind.lock().unwrap_or_else(PoisonError::into_inner);
        match by_kind.get_mut(&kind) {
            // Only who heard of a failure wants to hear that it is over.
            Some(said) if !fails => std::mem::take(&mut said.fails),
            None if !fails => false,
            Some(said) if said.at.elapsed() < SAY_EVERY => false,
            _ => {
                by_kind.insert(kind, Said { at: Instant::now(), fails: true });
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_once_a_minute_and_its_end_once() {
        const KIND: RecordKind = RecordKind::Deal;
        let complaints = Complaints::default();
        assert!(!complaints.is_news(KIND, false));
        assert!(complaints.is_news(KIND, true));
        assert!(complaints.is_news(RecordKind::Lead, true), "kinds fail apart");
        for _ in 0..1000 {
            assert!(!complaints.is_news(KIND, true));
        }
        assert!(complaints.is_news(KIND, false));
        for fails in [true, false, true, false] {
            assert!(!complaints.is_news(KIND, fails), "what comes and goes is told no more often");
        }
        tokio::time::advance(SAY_EVERY).await;
        assert!(complaints.is_news(KIND, true));
        assert!(complaints.is_news(KIND, false));
    }
}
