//! Handing out what is due.

use jiff::Timestamp;
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::accept::is_live;
use super::connection::from_sqlite;
use crate::domain::{Generation, IdSource, NotificationId};
use crate::store::StoreError;
use crate::store::ledger::{ChunkId, Handed, HandedChunk, TakeDue, TakeFrom};
use crate::store::plan::{MOST_CHUNKS, portion};
use crate::store::sql::{Row, Value, ids_to_bytes};

const DOING: &str = "taking due work";

pub(super) fn take_due(
    db: &Connection,
    take: &TakeDue,
    ids: &IdSource,
    now: Timestamp,
) -> Result<Vec<HandedChunk>, StoreError> {
    if !is_live(db, take.epoch.0)? {
        return Err(StoreError::EpochLost);
    }
    let due_by = if take.early { i64::MAX } else { now.as_microsecond() };
    let mut taken = Vec::new();
    for from in &take.from {
        for (members, mut chunk) in pick(db, *from, ids, due_by)? {
            let handed = hand(db, take.epoch.0, chunk.id, &members, now, due_by);
            chunk.handed = handed.map_err(|error| from_sqlite(DOING, error))?;
            taken.push(chunk);
        }
    }
    taken.retain(|chunk| !chunk.handed.is_empty());
    Ok(taken)
}

/// The oldest chunks of a stream up to its limit, with the ids in them; nothing is handed over yet.
fn pick(
    db: &Connection,
    from: TakeFrom,
    ids: &IdSource,
    due_by: i64,
) -> Result<Vec<(Vec<Uuid>, HandedChunk)>, StoreError> {
    const PICK: &str = "SELECT id, due_at, outstanding FROM due
                        WHERE handed_by IS NULL AND priority = ?1 AND account = ?2 AND batch_id IS ?3 AND due_at <= ?4
                        ORDER BY due_at LIMIT ?5";
    let TakeFrom { stream, limit } = from;
    let values = [
        Value::from(stream.priority.code()),
        stream.account.0.into(),
        stream.batch.map(|batch| batch.0).into(),
        due_by.into(),
        MOST_CHUNKS.into(),
    ];
    let found = super::sql::query(db, DOING, PICK, &values)?;
    let sizes = found.iter().map(|row| row.int(2).map_or(0, |size| i32::try_from(size).unwrap_or(i32::MAX)));
    let chosen = portion(limit, sizes).count();
    let (mut picked, mut left) = (Vec::with_capacity(chosen), limit as usize);
    for row in &found[..chosen] {
        let mut id = row.uuid(0)?;
        let mut members = members_of(db, id)?;
        if members.len() > left {
            let rest = members.split_off(left);
            let part = ids.next();
            take_apart(db, id, part, &members, &rest).map_err(|error| from_sqlite(DOING, error))?;
            id = part;
        }
        left -= members.len();
        let chunk = HandedChunk {
            id: ChunkId(id),
            account: stream.account,
            priority: stream.priority,
            batch: stream.batch,
            due_at: row.time(1)?,
            handed: Vec::new(),
        };
        picked.push((members, chunk));
        if left == 0 {
            break;
        }
    }
    Ok(picked)
}

fn members_of(db: &Connection, chunk: Uuid) -> Result<Vec<Uuid>, StoreError> {
    let rows = super::sql::query(db, DOING, "SELECT ids FROM due WHERE id = ?1", &[chunk.into()])?;
    rows.first().map_or_else(|| Ok(Vec::new()), |row: &Row| row.ids(0))
}

/// The first of a chunk become one of their own, `part`; the rest stays as it was.
fn take_apart(db: &Connection, chunk: Uuid, part: Uuid, first: &[Uuid], rest: &[Uuid]) -> Result<(), rusqlite::Error> {
    db.prepare_cached(
        "INSERT INTO due (id, due_at, outstanding, account, priority, batch_id, ids)
         SELECT ?2, due_at, ?3, account, priority, batch_id, ?4 FROM due WHERE id = ?1",
    )?
    .execute(params![
        chunk.as_bytes(),
        part.as_bytes(),
        i64::try_from(first.len()).unwrap_or(i64::MAX),
        ids_to_bytes(first.iter().copied()),
    ])?;
    db.prepare_cached("UPDATE due SET ids = ?2, outstanding = ?3 WHERE id = ?1")?.execute(params![
        chunk.as_bytes(),
        ids_to_bytes(rest.iter().copied()),
        i64::try_from(rest.len()).unwrap_or(i64::MAX),
    ])?;
    Ok(())
}

fn hand(
    db: &Connection,
    epoch: i64,
    chunk: ChunkId,
    members: &[Uuid],
    now: Timestamp,
    due_by: i64,
) -> Result<Vec<Handed>, rusqlite::Error> {
    // 1 scheduled, 2 pending → 3 queued.
    let mut statement = db.prepare_cached(
        "UPDATE work SET state = 3, hold = NULL, generation = generation + 1
         WHERE id = ?1 AND state IN (1, 2) AND due_at <= ?2 RETURNING generation, retry_count",
    )?;
    let mut handed = Vec::with_capacity(members.len());
    for id in members {
        let mut rows = statement.query(params![id.as_bytes(), due_by])?;
        if let Some(row) = rows.next()? {
            let (generation, retry_count) = (Generation(row.get(0)?), row.get(1)?);
            handed.push(Handed { id: NotificationId(*id), generation, retry_count });
        }
    }
    if handed.is_empty() {
        db.prepare_cached("DELETE FROM due WHERE id = ?1")?.execute([chunk.0.as_bytes()])?;
    } else {
        let outstanding = i64::try_from(handed.len()).unwrap_or(i64::MAX);
        db.prepare_cached("UPDATE due SET handed_by = ?2, handed_at = ?3, outstanding = ?4 WHERE id = ?1")?
            .execute(params![chunk.0.as_bytes(), epoch, now.as_microsecond(), outstanding])?;
    }
    Ok(handed)
}
