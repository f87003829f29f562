//! Claiming, fencing and opening in one statement each, all in one commit.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::accept::{insert_open_set, is_live};
use super::connection::from_sqlite;
use crate::store::StoreError;
use crate::store::ledger::{ChunkId, Claim, Open, Opened};
use crate::store::sql::ids_to_bytes;

pub(super) fn open(db: &Connection, open: &Open, set: Uuid, now: Timestamp) -> Result<Vec<Opened>, StoreError> {
    if !is_live(db, open.epoch.0)? {
        return Err(StoreError::EpochLost);
    }
    claim(db, open, set, now).map_err(|error| from_sqlite("opening attempts", error))
}

fn claim(db: &Connection, open: &Open, set: Uuid, now: Timestamp) -> Result<Vec<Opened>, rusqlite::Error> {
    // 2 pending, 3 queued → 4 sending. What is held waits for its time, and for another hand-over: of an earlier one
    // only a copy is left.
    let mut statement = db.prepare_cached(
        "UPDATE work SET state = 4, hold = NULL, epoch = ?3, attempt = attempt + 1, opened_at = ?4
         WHERE id = ?1 AND generation = ?2 AND state IN (2, 3) AND hold IS NULL
         RETURNING attempt, retry_count, resends",
    )?;
    let mut opened = Vec::with_capacity(open.claims.len());
    for claim in &open.claims {
        let values = params![claim.id.0.as_bytes(), claim.generation.0, open.epoch.0, now.as_microsecond()];
        let mut rows = statement.query(values)?;
        if let Some(row) = rows.next()? {
            opened.push(Opened {
                id: claim.id,
                attempt: row.get(0)?,
                retry_count: row.get(1)?,
                resends: row.get(2)?,
                opened_at: now,
            });
        }
    }
    if !opened.is_empty() {
        insert_open_set(db, set, open.epoch.0, &ids_to_bytes(opened.iter().map(|opened| opened.id.0)))?;
    }
    count_down(db, claimed_of(&open.claims, &opened))?;
    Ok(opened)
}

/// The chunks of those claims that were granted.
fn claimed_of(claims: &[Claim], opened: &[Opened]) -> impl Iterator<Item = ChunkId> {
    let mut opened = opened.iter().peekable();
    // Both are in the same order.
    claims.iter().filter_map(move |claim| opened.next_if(|one| one.id == claim.id).map(|_| claim.chunk))
}

/// What was handed over with these chunks is in hand no more, one for each time a chunk is named.
pub(super) fn count_down(db: &Connection, chunks: impl Iterator<Item = ChunkId>) -> Result<(), rusqlite::Error> {
    let mut counts: BTreeMap<Uuid, i64> = BTreeMap::new();
    for chunk in chunks {
        *counts.entry(chunk.0).or_default() += 1;
    }
    let mut drop_empty =
        db.prepare_cached("DELETE FROM due WHERE id = ?1 AND handed_by IS NOT NULL AND outstanding <= ?2")?;
    let mut count =
        db.prepare_cached("UPDATE due SET outstanding = outstanding - ?2 WHERE id = ?1 AND handed_by IS NOT NULL")?;
    for (chunk, n) in counts {
        if drop_empty.execute(params![chunk.as_bytes(), n])? == 0 {
            count.execute(params![chunk.as_bytes(), n])?;
        }
    }
    Ok(())
}
