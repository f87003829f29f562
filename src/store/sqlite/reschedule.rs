//! Moving a batch to another time.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::connection::from_sqlite;
use crate::domain::BatchId;
use crate::store::StoreError;

/// The batch's time, and that of its chunks: a few hundred for 100,000 notifications.
pub(super) fn reschedule_batch(
    db: &Connection,
    batch: BatchId,
    at: Timestamp,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let run = || {
        let mut batches = db.prepare_cached(
            "UPDATE batches SET scheduled_at = ?2
             WHERE id = ?1 AND state = 2 AND cancelled_at IS NULL AND scheduled_at > ?3",
        )?;
        let id = batch.0.as_bytes();
        let moved = batches.execute(params![id, at.as_microsecond(), now.as_microsecond()])? == 1;
        if moved {
            let mut chunks = db.prepare_cached(
                "UPDATE due SET due_at = ?2
                 WHERE handed_by IS NULL AND batch_id = ?1 AND with_batch = 1
                     AND (priority, account) = (SELECT priority, account FROM batches WHERE id = ?1)",
            )?;
            chunks.execute(params![id, at.max(now).as_microsecond()])?;
        }
        Ok(moved)
    };
    run().map_err(|error| from_sqlite("moving a batch", error))
}
