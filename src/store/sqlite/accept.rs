//! Writing what a request asked for.

use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::connection::from_sqlite;
use crate::domain::{IdSource, NotificationId, Status};
use crate::store::ledger::{Accept, Accepted, Begin, NewKey, NewNotification, StoredKey};
use crate::store::lookup::stored_key;
use crate::store::plan::{Chunks, Deltas, NewChunk, Slot, begins, held_by};
use crate::store::sql::{Value, ids_to_bytes};
use crate::store::{StoreError, Urgency};

/// The ids whose first attempt the request opens.
pub(super) fn opened_ids(accept: &Accept) -> impl Iterator<Item = NotificationId> + '_ {
    accept.notifications.iter().filter(|new| matches!(new.begin, Begin::Open)).map(|new| new.id)
}

/// The answer, and the set of the attempts that were opened, if any.
pub(super) fn accept(db: &Connection, accept: &Accept, ids: &IdSource) -> Result<(Accepted, Option<Uuid>), StoreError> {
    if accept.holds() && !is_live(db, accept.epoch.0)? {
        return Err(StoreError::EpochLost);
    }
    if let Some(key) = &accept.key
        && let Some(stored) = claim_key(db, key, accept)?
    {
        return Ok((Accepted::Repeated(stored), None));
    }
    write(db, accept, ids).map(|set| (Accepted::Stored, set)).map_err(|error| from_sqlite("accepting", error))
}

pub(super) fn is_live(db: &Connection, epoch: i64) -> Result<bool, StoreError> {
    let live = || {
        db.prepare_cached("SELECT 1 FROM workers WHERE epoch = ?1 AND lost_at IS NULL")?
            .query_row([epoch], |_| Ok(()))
            .optional()
    };
    live().map(|found| found.is_some()).map_err(|error| from_sqlite("checking the epoch", error))
}

/// Makes the key ours, or says what it stands for.
fn claim_key(db: &Connection, key: &NewKey, accept: &Accept) -> Result<Option<StoredKey>, StoreError> {
    let ids = ids_to_bytes(accept.notifications.iter().map(|new| new.id.0));
    let now = accept.notifications.first().map_or(0, |new| new.created_at.as_microsecond());
    let batch = accept.notifications.first().and_then(|new| new.batch).map(|batch| batch.0);
    let insert = || {
        db.prepare_cached("DELETE FROM idempotency WHERE scope = ?1 AND key = ?2 AND expires_at < ?3")?
            .execute(params![key.scope, key.key, now])?;
        db.prepare_cached(
            "INSERT INTO idempotency (scope, key, request_hash, ids, batch_id, created_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            key.scope,
            key.key,
            key.request_hash,
            ids,
            batch.as_ref().map(Uuid::as_bytes),
            now,
            key.expires_at.as_microsecond()
        ])
    };
    if insert().map_err(|error| from_sqlite("claiming a key", error))? == 1 {
        return Ok(None);
    }
    let mut found = super::sql::query(
        db,
        "reading a key",
        "SELECT request_hash, ids, batch_id FROM idempotency WHERE scope = ?1 AND key = ?2",
        &[Value::from(key.scope.as_str()), Value::from(key.key.as_str())],
    )?;
    let row = found.pop().ok_or_else(|| StoreError::refused("reading a key", "it vanished within a transaction"))?;
    stored_key(&row).map(Some)
}

fn write(db: &Connection, accept: &Accept, ids: &IdSource) -> Result<Option<Uuid>, rusqlite::Error> {
    let mut cold = db.prepare_cached(
        "INSERT INTO notifications (id, batch_id, created_at, scheduled_at, not_after, lead_id, template_version,
             channel, priority, policy, mode, max_retries, recipient, template_id, body, contact_id, deal_id,
             company_id, data, metadata, external_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
    )?;
    let mut hot = db.prepare_cached(
        "INSERT INTO work (id, due_at, opened_at, epoch, generation, account, state, hold, attempt, retry_count, resends)
         VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?7, ?8, 0, 0)",
    )?;
    for new in &accept.notifications {
        insert_notification(&mut cold, new)?;
        let (state, due_at, attempt, opened_at) = begins(new);
        hot.execute(params![
            new.id.0.as_bytes(),
            due_at.as_microsecond(),
            opened_at.map(|at| at.as_microsecond()),
            opened_at.map(|_| accept.epoch.0),
            new.account.0,
            state.code(),
            held_by(new),
            attempt,
        ])?;
        if let Begin::Ended { status, cause, error } = &new.begin {
            insert_ended(db, new, *status, cause, &error.code, &error.detail, ids)?;
        }
    }
    let mut chunks = Chunks::default();
    chunks.accepted(accept);
    insert_chunks(db, &chunks.into_rows(ids))?;
    let opened = ids_to_bytes(opened_ids(accept).map(|id| id.0));
    let set = (!opened.is_empty()).then(|| ids.next());
    if let Some(set) = set {
        insert_open_set(db, set, accept.epoch.0, &opened)?;
    }
    let mut deltas = Deltas::default();
    deltas.accepted(accept);
    let slot = match accept.urgency {
        Urgency::Urgent => Slot::UrgentAccept,
        Urgency::Bulk => Slot::BulkAccept,
    };
    count(db, accept.epoch.0, slot, &deltas)?;
    Ok(set)
}

fn insert_notification(
    statement: &mut rusqlite::CachedStatement<'_>,
    new: &NewNotification,
) -> Result<(), rusqlite::Error> {
    let template = new.template.as_ref();
    statement.execute(params![
        new.id.0.as_bytes(),
        new.batch.as_ref().map(|batch| batch.0.as_bytes()),
        new.created_at.as_microsecond(),
        new.scheduled_at.map(|at| at.as_microsecond()),
        new.not_after.map(|at| at.as_microsecond()),
        new.records.lead_id,
        template.map(|(_, version)| version.0),
        new.channel.code(),
        new.priority.code(),
        new.policy.code(),
        new.mode.code(),
        new.max_retries,
        new.recipient,
        template.map(|(id, _)| id.as_str()),
        new.text,
        new.records.contact_id,
        new.records.deal_id,
        new.records.company_id,
        new.data,
        new.metadata,
        new.external_id,
    ])?;
    Ok(())
}

fn insert_ended(
    db: &Connection,
    new: &NewNotification,
    status: Status,
    cause: &str,
    code: &str,
    detail: &str,
    ids: &IdSource,
) -> Result<(), rusqlite::Error> {
    if status == Status::Failed {
        db.prepare_cached(
            "INSERT INTO failed (id, failed_at, batch_id, account, cause, code, detail, template_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            new.id.0.as_bytes(),
            new.created_at.as_microsecond(),
            new.batch.as_ref().map(|batch| batch.0.as_bytes()),
            new.account.0,
            cause,
            code,
            detail,
            new.template.as_ref().map(|(id, _)| id.as_str()),
        ])?;
    }
    db.prepare_cached(
        "INSERT INTO events (id, notification_id, at, status, actor, reason) VALUES (?1, ?2, ?3, ?4, 'accept', ?5)",
    )?
    .execute(params![
        ids.next().as_bytes(),
        new.id.0.as_bytes(),
        new.created_at.as_microsecond(),
        status.code(),
        cause
    ])?;
    Ok(())
}

pub(super) fn insert_chunks(db: &Connection, chunks: &[NewChunk]) -> Result<(), rusqlite::Error> {
    let mut statement = db.prepare_cached(
        "INSERT INTO due (id, due_at, handed_by, handed_at, account, priority, batch_id, ids, outstanding)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for chunk in chunks {
        statement.execute(params![
            chunk.id.as_bytes(),
            chunk.due_at.as_microsecond(),
            chunk.handed_by.map(|epoch| epoch.0),
            chunk.handed_by.map(|_| chunk.due_at.as_microsecond()),
            chunk.account.0,
            chunk.priority.code(),
            chunk.batch.as_ref().map(|batch| batch.0.as_bytes()),
            ids_to_bytes(chunk.members.iter().copied()),
            chunk.outstanding(),
        ])?;
    }
    Ok(())
}

pub(super) fn insert_open_set(db: &Connection, set: Uuid, epoch: i64, ids: &[u8]) -> Result<(), rusqlite::Error> {
    db.prepare_cached("INSERT INTO opens (id, epoch, ids) VALUES (?1, ?2, ?3)")?
        .execute(params![set.as_bytes(), epoch, ids])
        .map(|_| ())
}

pub(super) fn count(db: &Connection, epoch: i64, slot: Slot, deltas: &Deltas) -> Result<(), rusqlite::Error> {
    let mut statement = db.prepare_cached(
        "INSERT INTO counters (batch_id, epoch, slot, status, n) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (batch_id, epoch, slot, status) DO UPDATE SET n = n + excluded.n",
    )?;
    for (batch, status, n) in deltas.iter() {
        statement.execute(params![batch.as_bytes(), epoch, slot.code(), status, n])?;
    }
    Ok(())
}
