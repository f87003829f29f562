//! Compiled templates by version, read without a lock.

use std::collections::HashMap;
use std::sync::Arc;

use super::compiled::Compiled;
use super::limits;
use crate::domain::{TemplateId, TemplateVersion};

#[derive(Default)]
pub(super) struct Cache {
    entries: HashMap<(TemplateId, TemplateVersion), Entry>,
    compiled_ever: u64,
}

struct Entry {
    compiled: Arc<Compiled>,
    /// Counts compilations: the lowest was compiled longest ago.
    number: u64,
}

impl Cache {
    pub(super) fn get(&self, key: &(TemplateId, TemplateVersion)) -> Option<Arc<Compiled>> {
        self.entries.get(key).map(|entry| entry.compiled.clone())
    }

    /// A copy with one more. Copying is fine: it happens once per template version, and entries are pointers.
    pub(super) fn with(&self, key: (TemplateId, TemplateVersion), compiled: Arc<Compiled>) -> Cache {
        let copy = |entry: &Entry| Entry { compiled: entry.compiled.clone(), number: entry.number };
        let mut entries: HashMap<_, _> = self.entries.iter().map(|(key, entry)| (key.clone(), copy(entry))).collect();
        let compiled_ever = self.compiled_ever + 1;
        entries.insert(key, Entry { compiled, number: compiled_ever });
        if entries.len() > limits::COMPILED_TEMPLATES {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.number).map(|(key, _)| key.clone());
            oldest.and_then(|key| entries.remove(&key));
        }
        Cache { entries, compiled_ever }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
