//! Counts of what came and what became of it, per provider.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::fault::FaultKind;

#[derive(Debug, Default)]
pub(super) struct Figures {
    requests: AtomicU64,
    taken: AtomicU64,
    // Only what went wrong takes this lock.
    mishaps: Mutex<Mishaps>,
}

#[derive(Debug, Default)]
struct Mishaps {
    refused: BTreeMap<String, u64>,
    faults: BTreeMap<Cow<'static, str>, u64>,
}

/// A provider's figures since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelFigures {
    /// Requests read, looks at the account included.
    pub requests: u64,
    pub taken: u64,
    /// Refusals by the provider's code, or a word for it.
    pub refused: BTreeMap<String, u64>,
    pub faults: BTreeMap<String, u64>,
}

impl Figures {
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn taken(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, code: &str) {
        let mut mishaps = self.mishaps.lock().unwrap_or_else(PoisonError::into_inner);
        match mishaps.refused.get_mut(code) {
            Some(count) => *count += 1,
            None => {
                mishaps.refused.insert(code.to_owned(), 1);
            }
        }
    }

    pub(super) fn fault(&self, kind: FaultKind) {
        let mut mishaps = self.mishaps.lock().unwrap_or_else(PoisonError::into_inner);
        *mishaps.faults.entry(kind.name()).or_default() += 1;
    }

    pub(super) fn snapshot(&self) -> ChannelFigures {
        let mishaps = self.mishaps.lock().unwrap_or_else(PoisonError::into_inner);
        ChannelFigures {
            requests: self.requests.load(Ordering::Relaxed),
            taken: self.taken.load(Ordering::Relaxed),
            refused: mishaps.refused.clone(),
            faults: mishaps.faults.iter().map(|(kind, count)| (kind.to_string(), *count)).collect(),
        }
    }

    pub(super) fn clear(&self) {
        let mut mishaps = self.mishaps.lock().unwrap_or_else(PoisonError::into_inner);
        *mishaps = Mishaps::default();
        self.requests.store(0, Ordering::Relaxed);
        self.taken.store(0, Ordering::Relaxed);
    }
}
