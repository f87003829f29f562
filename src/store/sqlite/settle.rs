//! Moves without a send: what is put off, and what ends.

use rusqlite::{Connection, params};

use super::accept::{count, insert_chunks};
use super::connection::from_sqlite;
use super::open::count_down;
use crate::domain::IdSource;
use crate::store::StoreError;
use crate::store::ledger::{Postpone, Settle};
use crate::store::plan::{Chunks, Deltas, Slot};

pub(super) fn postpone(db: &Connection, postpones: &[Postpone], ids: &IdSource) -> Result<Vec<bool>, StoreError> {
    let run = || {
        // 3 queued → 2 pending: only what is still in this hand.
        let mut put_off = db.prepare_cached(
            "UPDATE work SET state = 2, hold = ?3, due_at = ?4 WHERE id = ?1 AND generation = ?2 AND state = 3",
        )?;
        let (mut chunks, mut done) = (Chunks::default(), Vec::with_capacity(postpones.len()));
        for one in postpones {
            let (claim, due_at) = (&one.claim, one.due_at.as_microsecond());
            let values = params![claim.id.0.as_bytes(), claim.generation.0, one.hold.code(), due_at];
            let put_off = put_off.execute(values)? == 1;
            if put_off {
                chunks.postponed(one);
            }
            done.push(put_off);
        }
        insert_chunks(db, &chunks.into_rows(ids))?;
        let put_off = postpones.iter().zip(&done).filter(|(_, done)| **done);
        count_down(db, put_off.map(|(one, _)| one.claim.chunk))?;
        Ok(done)
    };
    run().map_err(|error| from_sqlite("postponing notifications", error))
}

pub(super) fn settle(db: &Connection, settles: &[Settle], ids: &IdSource) -> Result<Vec<bool>, StoreError> {
    let run = || {
        // 1 scheduled, 2 pending, 3 queued: what still waits. Its chunk passes over it.
        let mut end =
            db.prepare_cached("UPDATE work SET state = ?2, hold = NULL WHERE id = ?1 AND state IN (1, 2, 3)")?;
        let mut tell = db.prepare_cached(
            "INSERT INTO events (id, notification_id, at, status, actor, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        let (mut deltas, mut done) = (Deltas::default(), Vec::with_capacity(settles.len()));
        for one in settles {
            let (id, status) = (one.id.0.as_bytes(), one.status.code());
            let ended = end.execute(params![id, status])? == 1;
            if ended {
                let event = ids.next();
                tell.execute(params![event.as_bytes(), id, one.at.as_microsecond(), status, one.actor, one.reason])?;
                deltas.add(one.batch, status, 1);
            }
            done.push(ended);
        }
        if let Some(first) = settles.first() {
            count(db, first.epoch.0, Slot::Settle, &deltas)?;
        }
        let ended = settles.iter().zip(&done).filter(|(_, done)| **done);
        count_down(db, ended.filter_map(|(one, _)| one.chunk))?;
        Ok(done)
    };
    run().map_err(|error| from_sqlite("settling notifications", error))
}
