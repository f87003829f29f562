//! Closing attempts: the new state, the attempt, what waits again, what failed, the counters.

use rusqlite::{Connection, params};

use super::accept::{count, insert_chunks};
use super::connection::from_sqlite;
use crate::domain::{IdSource, Status};
use crate::store::StoreError;
use crate::store::ledger::{Close, Counts, Next, Record};
use crate::store::opens::{Closing, OpenSets};
use crate::store::plan::{Chunks, Deltas, Slot};

pub(super) fn record(
    db: &Connection,
    record: &Record,
    opens: &OpenSets,
    ids: &IdSource,
) -> Result<(Vec<bool>, Closing), StoreError> {
    let failed = |error| from_sqlite("recording outcomes", error);
    let closed = close_all(db, record).map_err(failed)?;
    let kept = record.closes.iter().zip(&closed).filter(|(_, closed)| **closed).map(|(close, _)| close);
    let (mut deltas, mut chunks) = (Deltas::default(), Chunks::default());
    for close in kept.clone() {
        insert_attempt(db, record.epoch.0, close).map_err(failed)?;
        deltas.closed(close);
        chunks.closed(close);
    }
    // What was reopened stays in its set.
    let ended = kept.filter(|close| !matches!(close.next, Next::Reopen { .. })).map(|close| close.id);
    let closing = opens.closing(ended);
    let small_tables = || {
        insert_chunks(db, &chunks.into_rows(ids))?;
        count(db, record.epoch.0, Slot::Record, &deltas)?;
        let mut drop_set = db.prepare_cached("DELETE FROM opens WHERE id = ?1")?;
        for set in &closing.drained {
            drop_set.execute([set.as_bytes()])?;
        }
        Ok(())
    };
    match small_tables() {
        Ok(()) => Ok((closed, closing)),
        Err(error) => {
            opens.take_back(closing);
            Err(failed(error))
        }
    }
}

fn close_all(db: &Connection, record: &Record) -> Result<Vec<bool>, rusqlite::Error> {
    // Only what is 4 sending, by this epoch, at this attempt.
    let mut end = db.prepare_cached(
        "UPDATE work SET state = ?4, hold = ?5, due_at = coalesce(?6, due_at), epoch = NULL, opened_at = NULL,
             retry_count = retry_count + ?7, resends = resends + ?8
         WHERE id = ?1 AND state = 4 AND epoch = ?2 AND attempt = ?3",
    )?;
    let mut reopen = db.prepare_cached(
        "UPDATE work SET attempt = attempt + 1, retry_count = retry_count + 1, opened_at = ?4
         WHERE id = ?1 AND state = 4 AND epoch = ?2 AND attempt = ?3
             AND EXISTS (SELECT 1 FROM workers WHERE epoch = ?2 AND lost_at IS NULL)",
    )?;
    let mut closed = Vec::with_capacity(record.closes.len());
    for close in &record.closes {
        let (id, epoch) = (close.id.0.as_bytes(), record.epoch.0);
        let touched = match close.next {
            Next::Reopen { opened_at } => {
                reopen.execute(params![id, epoch, close.attempt, opened_at.as_microsecond()])?
            }
            Next::Again { due_at, hold, counts } => end.execute(params![
                id,
                epoch,
                close.attempt,
                Status::Pending.code(),
                hold.code(),
                due_at.as_microsecond(),
                i16::from(counts == Counts::Retry),
                i16::from(counts == Counts::Resend),
            ])?,
            Next::Sent | Next::Failed | Next::Uncertain => end.execute(params![
                id,
                epoch,
                close.attempt,
                close.next.status().code(),
                None::<i16>,
                None::<i64>,
                0,
                0
            ])?,
        };
        closed.push(touched == 1);
    }
    Ok(closed)
}

fn insert_attempt(db: &Connection, epoch: i64, close: &Close) -> Result<(), rusqlite::Error> {
    let id = close.id.0.as_bytes();
    let error = close.error.as_ref();
    db.prepare_cached(
        "INSERT INTO attempts (notification_id, opened_at, closed_at, epoch, template_version, n, account, class,
             flagged, cause, provider_message_id, code, detail, text_hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?
    .execute(params![
        id,
        close.opened_at.as_microsecond(),
        close.closed_at.as_microsecond(),
        epoch,
        close.template.as_ref().map(|(_, version)| version.0),
        close.attempt,
        close.account.0,
        close.class.code(),
        close.flagged,
        close.cause,
        close.provider_message_id,
        error.map(|error| &error.code),
        error.map(|error| &error.detail),
        close.text_hash,
    ])?;
    let batch = close.batch.as_ref().map(|batch| batch.0.as_bytes());
    let closed_at = close.closed_at.as_microsecond();
    match close.next {
        Next::Failed => {
            db.prepare_cached(
                "INSERT INTO failed (id, failed_at, batch_id, account, cause, code, detail, template_id)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                id,
                closed_at,
                batch,
                close.account.0,
                close.cause,
                error.map(|error| &error.code),
                error.map(|error| &error.detail),
                close.template.as_ref().map(|(id, _)| id.as_str()),
            ])?;
        }
        Next::Uncertain => {
            db.prepare_cached(
                "INSERT INTO uncertain (id, since, batch_id, account, attempt, cause) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![id, closed_at, batch, close.account.0, close.attempt, close.cause])?;
        }
        Next::Sent | Next::Again { .. } | Next::Reopen { .. } => {}
    }
    if let Some(scope) = close.suppress {
        db.prepare_cached(
            "INSERT INTO suppressions (channel, address, scope, reason, created_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![close.channel.code(), close.recipient, scope.code(), close.cause, closed_at])?;
    }
    Ok(())
}
