//! A connection of the pool, in use.

use deadpool_postgres::{Object, Pool, Transaction};

use super::failure::Failure;

/// Dropped before it is given back, the connection is closed: its statement may still run, and what it answers must
/// not hold up whoever comes next.
pub(super) struct Held(Option<Object>);

impl Held {
    pub(super) async fn of(pool: &Pool) -> Result<Self, Failure> {
        pool.get().await.map(|object| Held(Some(object))).map_err(Failure::away)
    }

    /// Nothing that runs in it can write. It ends when it is dropped; there is nothing to commit.
    pub(super) async fn begin(&mut self) -> Result<Transaction<'_>, Failure> {
        let object = self.0.as_mut().expect("it is here until it is given back");
        object.build_transaction().read_only(true).start().await.map_err(Failure::away)
    }

    /// Gives it back if it is as good as before.
    pub(super) fn give_back<T>(mut self, result: Result<T, Failure>) -> Result<T, Failure> {
        if matches!(result, Ok(_) | Err(Failure::Refused(_))) {
            drop(self.0.take());
        }
        result
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}
