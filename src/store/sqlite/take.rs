//! Handing out what is due.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::accept::is_live;
use super::connection::from_sqlite;
use crate::domain::{AccountId, BatchId, Generation, NotificationId, Priority};
use crate::store::StoreError;
use crate::store::ledger::{ChunkId, Handed, HandedChunk, TakeDue};
use crate::store::sql::Value;

pub(super) fn take_due(db: &Connection, take: &TakeDue, now: Timestamp) -> Result<Vec<HandedChunk>, StoreError> {
    if !is_live(db, take.epoch.0)? {
        return Err(StoreError::EpochLost);
    }
    // One text for all accounts and one for a given one, so that each can use the index.
    const ONE: &str = "SELECT id, account, priority, batch_id, due_at, ids FROM due
                       WHERE handed_by IS NULL AND account = ?3 AND due_at <= ?1
                       ORDER BY priority, due_at LIMIT ?2";
    const ALL: &str = "SELECT id, account, priority, batch_id, due_at, ids FROM due
                       WHERE handed_by IS NULL AND due_at <= ?1
                       ORDER BY priority, due_at LIMIT ?2";
    let mut values = vec![Value::from(now), Value::Int(take.chunks.into())];
    let sql = match take.account {
        Some(account) => {
            values.push(Value::from(account.0));
            ONE
        }
        None => ALL,
    };
    let mut taken = Vec::new();
    for row in super::sql::query(db, "taking due work", sql, &values)? {
        let chunk = ChunkId(row.uuid(0)?);
        let ids = row.ids(5)?;
        let handed = mark(db, take.epoch.0, chunk, &ids, now).map_err(|error| from_sqlite("taking due work", error))?;
        taken.push(HandedChunk {
            id: chunk,
            account: AccountId(row.small(1)?),
            priority: row.word(2, Priority::from_code)?,
            batch: row.opt_uuid(3)?.map(BatchId),
            due_at: row.time(4)?,
            handed,
        });
    }
    Ok(taken)
}

fn mark(
    db: &Connection,
    epoch: i64,
    chunk: ChunkId,
    ids: &[uuid::Uuid],
    now: Timestamp,
) -> Result<Vec<Handed>, rusqlite::Error> {
    let now = now.as_microsecond();
    db.prepare_cached("UPDATE due SET handed_by = ?2, handed_at = ?3 WHERE id = ?1")?.execute(params![
        chunk.0.as_bytes(),
        epoch,
        now
    ])?;
    // 1 scheduled, 2 pending → 3 queued.
    let mut statement = db.prepare_cached(
        "UPDATE work SET state = 3, hold = NULL, generation = generation + 1
         WHERE id = ?1 AND state IN (1, 2) AND due_at <= ?2 RETURNING generation",
    )?;
    let mut handed = Vec::with_capacity(ids.len());
    for id in ids {
        let mut rows = statement.query(params![id.as_bytes(), now])?;
        if let Some(row) = rows.next()? {
            handed.push(Handed { id: NotificationId(*id), generation: Generation(row.get(0)?) });
        }
    }
    Ok(handed)
}
