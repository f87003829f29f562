//! Which open attempts of this process are left in which row of `opens`.
//!
//! Attempts are opened in sets, one row a set. The row goes with the commit that closes the last of its attempts, so
//! that what a lost process had open is found without an index on the hot table. Commits are made one after the other;
//! one that fails is taken back.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use crate::domain::NotificationId;

#[derive(Debug, Default)]
pub(crate) struct OpenSets(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    set_of: HashMap<NotificationId, Uuid>,
    left_in: HashMap<Uuid, usize>,
}

/// What one commit closed, to be forgotten if it fails.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    closed: Vec<(NotificationId, Uuid)>,
    /// Sets that have nothing open any more: their rows go.
    pub(crate) drained: Vec<Uuid>,
}

impl OpenSets {
    pub(crate) fn opened(&self, set: Uuid, ids: impl IntoIterator<Item = NotificationId>) {
        let mut inner = self.lock();
        let mut count = 0;
        for id in ids {
            inner.set_of.insert(id, set);
            count += 1;
        }
        if count > 0 {
            *inner.left_in.entry(set).or_default() += count;
        }
    }

    pub(crate) fn closing(&self, ids: impl IntoIterator<Item = NotificationId>) -> Closing {
        let mut inner = self.lock();
        let mut closing = Closing::default();
        for id in ids {
            let Some(set) = inner.set_of.remove(&id) else { continue };
            closing.closed.push((id, set));
            if let Some(left) = inner.left_in.get_mut(&set) {
                *left -= 1;
                if *left == 0 {
                    inner.left_in.remove(&set);
                    closing.drained.push(set);
                }
            }
        }
        closing
    }

    /// The commit failed: what it closed is still open.
    pub(crate) fn take_back(&self, closing: Closing) {
        for (id, set) in closing.closed {
            self.opened(set, [id]);
        }
    }

    // Held for map operations only, never over an await or a statement.
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_drains_with_its_last_attempt_and_comes_back_with_a_failed_commit() {
        let [a, b] = [1, 2].map(|n| NotificationId(Uuid::from_u128(n)));
        let set = Uuid::from_u128(9);
        let sets = OpenSets::default();
        sets.opened(set, [a, b]);
        assert!(sets.closing([a]).drained.is_empty());
        let closing = sets.closing([b, a]);
        assert_eq!(closing.drained, [set]);
        sets.take_back(closing);
        assert_eq!(sets.closing([b]).drained, [set]);
    }
}
