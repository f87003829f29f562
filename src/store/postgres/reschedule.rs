//! Moving a batch to another time, by the server's clock.

use deadpool_postgres::Object;
use jiff::Timestamp;
use uuid::Uuid;

use super::accept::execute;
use super::connection::from_postgres;
use crate::domain::BatchId;
use crate::store::StoreError;

pub(super) const DOING: &str = "moving a batch";

// Two that move the same batch take turns.
const LOCK: &str =
    "SELECT priority, account FROM batches WHERE id = $1 AND state = 2 AND cancelled_at IS NULL FOR UPDATE";
// This waits for whoever hands over some of it, and passes by none: that its time has not come is looked at after it.
const CHUNKS: &str = "SELECT id FROM due
    WHERE handed_by IS NULL AND priority = $2 AND account = $3 AND batch_id = $1 AND with_batch = 1
    ORDER BY id FOR UPDATE";
const MOVE: &str = "UPDATE batches SET scheduled_at = $2 WHERE id = $1 AND scheduled_at > vestnik_now()
    RETURNING greatest($2, vestnik_now())";
const MOVE_CHUNKS: &str = "UPDATE due SET due_at = $2 WHERE id = ANY($1)";

/// The batch's time, and that of its chunks: a few hundred for 100,000 notifications.
pub(super) async fn reschedule_batch(client: &Object, batch: BatchId, at: Timestamp) -> Result<bool, StoreError> {
    let failed = |error| from_postgres(DOING, error);
    client.batch_execute("BEGIN").await.map_err(failed)?;
    let moved = move_all(client, batch, at).await?;
    client.batch_execute(if moved { "COMMIT" } else { "ROLLBACK" }).await.map_err(failed)?;
    Ok(moved)
}

async fn move_all(client: &Object, batch: BatchId, at: Timestamp) -> Result<bool, StoreError> {
    let failed = |error| from_postgres(DOING, error);
    let lock = client.prepare_cached(LOCK).await.map_err(failed)?;
    let Some(found) = client.query_opt(&lock, &[&batch.0]).await.map_err(failed)? else { return Ok(false) };
    let (priority, account): (i16, i16) = (found.get(0), found.get(1));
    let chunks = client.prepare_cached(CHUNKS).await.map_err(failed)?;
    let chunks = client.query(&chunks, &[&batch.0, &priority, &account]).await.map_err(failed)?;
    let chunks: Vec<Uuid> = chunks.iter().map(|row| row.get(0)).collect();
    let moving = client.prepare_cached(MOVE).await.map_err(failed)?;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&batch.0, &at.as_microsecond()];
    let Some(moved) = client.query_opt(&moving, &values).await.map_err(failed)? else { return Ok(false) };
    let due_at: i64 = moved.get(0);
    execute(client, DOING, MOVE_CHUNKS, &[&chunks, &due_at]).await?;
    Ok(true)
}
