//! What the log hears of a source that fails, however often it is asked.

use std::collections::HashMap;
use std::error::Error;
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
    pub(super) fn hear<T>(&self, kind: RecordKind, answer: &Result<T, SourceError>) {
        let mut by_kind = self.by_kind.lock().unwrap_or_else(PoisonError::into_inner);
        match (answer, by_kind.get_mut(&kind)) {
            (Ok(_), Some(said)) if said.fails => {
                said.fails = false;
                tracing::info!(record.kind = %kind, "records can be read again");
            }
            (Ok(_), _) => {}
            (Err(_), Some(said)) if said.at.elapsed() < SAY_EVERY => {}
            (Err(error), _) => {
                by_kind.insert(kind, Said { at: Instant::now(), fails: true });
                let cause = error.source().map(chain);
                match error {
                    SourceError::Unavailable { .. } => {
                        tracing::warn!(record.kind = %kind, cause, "{error}");
                    }
                    SourceError::Unusable { .. } => {
                        tracing::error!(record.kind = %kind, "{error}; `vestnik doctor` says more");
                    }
                }
            }
        }
    }
}
