//! Keeping only as long as needed: first the personal part of old notifications goes, later the rows themselves.
//!
//! Each call is a small step of its own. A cursor goes up the notifications once; what is passed over because it is
//! not settled yet is remembered and looked at again. What is removed is counted in the same commit, so that the
//! books balance all the same.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use super::ledger::Urgency;
use super::lookup::{ID_BEFORE_ACCEPT, first_id_at};
use super::personal;
use super::sql::{ColumnType, RowsStatement, Sql, Statement, Value};
use super::{Lookup as _, StoreError};
use crate::domain::Status;
use crate::domain::clock::earlier;

/// Nothing younger is removed: an account's day of sends is counted from its rows.
pub const YOUNGEST_REMOVED: Duration = Duration::from_secs(25 * 3600);

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Notifications that lost their personal part, or were removed.
    pub notifications: u64,
    /// Whether there may be more to do: call again.
    pub more: bool,
}

#[async_trait]
pub trait Retention: Send + Sync {
    /// Takes the personal part (address, text, data, the providers' words) out of settled notifications that were
    /// accepted before `before`, give or take two minutes. Looks at `limit` at most; about 100 are changed per commit.
    async fn purge_personal_data(&self, before: Timestamp, limit: u32) -> Result<Cleared, StoreError>;

    /// Removes settled notifications that were accepted before `before`, with all that belongs to them; their counts
    /// stay. Never those that wait, are being sent or are uncertain, none that an idempotency key still answers with,
    /// and none younger than [`YOUNGEST_REMOVED`] at `now`. Looks at `limit` at most; about 100 go per commit.
    async fn remove_old(&self, before: Timestamp, now: Timestamp, limit: u32) -> Result<Cleared, StoreError>;
}

/// Codes of `retention.step`.
#[derive(Clone, Copy)]
enum Step {
    Purge = 1,
    Remove = 2,
}

/// Changed notifications in one commit: two or three milliseconds of SQLite's writer.
const AT_ONCE: usize = 100;

const DOING: &str = "clearing away old notifications";

const GIVEN: &[(&str, ColumnType)] =
    &[("step", ColumnType::Small), ("id", ColumnType::Id), ("state", ColumnType::Small), ("nil", ColumnType::Id)];

/// What is there still is looked at again.
const REMEMBER: &str = "INSERT INTO retention_later (step, id) SELECT given.step, given.id FROM ROWS given
                        JOIN work w ON w.id = given.id WHERE true ON CONFLICT DO NOTHING";

const FORGET: &str = "DELETE FROM retention_later WHERE (step, id) IN (SELECT given.step, given.id FROM ROWS given)";

/// A statement on those of the given that still are in the state they were seen in: a receipt may have come since.
macro_rules! of_unchanged {
    ($before:literal) => {
        concat!($before, " IN (SELECT w.id FROM ROWS given JOIN work w ON w.id = given.id AND w.state = given.state)")
    };
}

// The first keeps the states from changing until the last is through.
const REMOVE: &[&str] = &[
    "UPDATE work SET state = given.state FROM ROWS given WHERE work.id = given.id AND work.state = given.state",
    "INSERT INTO removed (batch_id, status, n)
     SELECT coalesce(o.batch_id, given.nil), w.state, count(*) FROM ROWS given
     JOIN work w ON w.id = given.id AND w.state = given.state JOIN notifications o ON o.id = w.id
     WHERE true GROUP BY coalesce(o.batch_id, given.nil), w.state
     ON CONFLICT (batch_id, status) DO UPDATE SET n = removed.n + excluded.n",
    of_unchanged!("DELETE FROM attempts WHERE notification_id"),
    of_unchanged!("DELETE FROM events WHERE notification_id"),
    of_unchanged!("DELETE FROM failed WHERE id"),
    of_unchanged!("DELETE FROM notifications WHERE id"),
    of_unchanged!("DELETE FROM work WHERE id"),
];

#[async_trait]
impl<S: Sql> Retention for S {
    async fn purge_personal_data(&self, before: Timestamp, limit: u32) -> Result<Cleared, StoreError> {
        clear(self, Step::Purge, first_id_at(earlier(before, ID_BEFORE_ACCEPT)), limit).await
    }

    async fn remove_old(&self, before: Timestamp, now: Timestamp, limit: u32) -> Result<Cleared, StoreError> {
        while self.forget_expired_keys(now).await? > 0 {}
        let oldest_key = "SELECT min(created_at) FROM idempotency";
        let oldest_key = self.read(DOING, oldest_key.into(), vec![]).await?;
        let oldest_key = oldest_key.first().map_or(Ok(None), |row| row.opt_time(0))?;
        let before = before.min(earlier(now, YOUNGEST_REMOVED)).min(oldest_key.unwrap_or(before));
        clear(self, Step::Remove, first_id_at(earlier(before, ID_BEFORE_ACCEPT)), limit).await
    }
}

/// A notification that was looked at.
#[derive(Clone, Copy)]
struct Seen {
    id: Uuid,
    /// None when it is gone.
    state: Option<i16>,
    is_erased: bool,
}

impl Seen {
    fn is_settled(&self) -> bool {
        let status = self.state.and_then(Status::from_code);
        self.state.is_none() || status.is_some_and(|status| !status.in_flight() && status != Status::Uncertain)
    }

    fn values(&self, step: Step) -> Vec<Value> {
        vec![(step as i16).into(), self.id.into(), self.state.unwrap_or(0).into(), Uuid::nil().into()]
    }
}

async fn clear(sql: &impl Sql, step: Step, bound: Uuid, limit: u32) -> Result<Cleared, StoreError> {
    let settled = later_settled(sql, step, bound).await?;
    if !settled.is_empty() {
        // One that is not as it was seen is remembered again.
        let statements = changes(step, &settled, true);
        sql.write_as(DOING, Urgency::Bulk, statements).await?;
        return Ok(Cleared { notifications: count(step, &settled), more: true });
    }
    let query = "SELECT cursor FROM retention WHERE step = $1";
    let cursor = sql.read(DOING, query.into(), vec![(step as i16).into()]).await?;
    let cursor = cursor.first().map_or(Ok(Uuid::nil()), |row| row.uuid(0))?;
    let query = "SELECT n.id, w.state, n.recipient FROM notifications n JOIN work w ON w.id = n.id
                 WHERE n.id > $1 AND n.id < $2 ORDER BY n.id LIMIT $3";
    let values = vec![cursor.into(), bound.into(), i64::from(limit.max(1)).into()];
    let rows = sql.read(DOING, query.into(), values).await?;
    let mut more = rows.len() >= limit.max(1) as usize;
    let (mut settled, mut others) = (Vec::new(), Vec::new());
    for row in &rows {
        let is_erased = row.text(2)? == personal::ERASED;
        let seen = Seen { id: row.uuid(0)?, state: Some(row.small(1)?), is_erased };
        if seen.is_settled() { &mut settled } else { &mut others }.push(seen);
        if settled.len() == AT_ONCE {
            more = true;
            break;
        }
    }
    let Some(last) = settled.last().into_iter().chain(others.last()).map(|seen| seen.id).max() else {
        return Ok(Cleared::default());
    };
    let mut statements = vec![Statement::guard(
        "INSERT INTO retention (step, cursor) VALUES ($1, $3)
         ON CONFLICT (step) DO UPDATE SET cursor = excluded.cursor WHERE retention.cursor = $2 RETURNING step",
        vec![(step as i16).into(), cursor.into(), last.into()],
    )];
    statements.extend(changes(step, &settled, false));
    statements.push(of_given(REMEMBER, step, &others));
    // Somebody else may have gone the same step.
    let is_ours = sql.write_as(DOING, Urgency::Bulk, statements).await?.len() > 1;
    Ok(Cleared { notifications: if is_ours { count(step, &settled) } else { 0 }, more })
}

/// Those that were passed over, and are settled or gone by now.
async fn later_settled(sql: &impl Sql, step: Step, bound: Uuid) -> Result<Vec<Seen>, StoreError> {
    // 4 and less is in flight, 9 uncertain.
    let query = "SELECT l.id, w.state, n.recipient FROM retention_later l LEFT JOIN work w ON w.id = l.id
                 LEFT JOIN notifications n ON n.id = l.id
                 WHERE l.step = $1 AND l.id < $2 AND (w.state IS NULL OR (w.state > 4 AND w.state <> 9))
                 ORDER BY l.id LIMIT $3";
    let at_once = i64::try_from(AT_ONCE).unwrap_or(i64::MAX);
    let rows = sql.read(DOING, query.into(), vec![(step as i16).into(), bound.into(), at_once.into()]).await?;
    rows.iter()
        .map(|row| {
            let state = row.opt_int(1)?.map(|_| row.small(1)).transpose()?;
            let is_erased = row.opt_text(2)?.is_none_or(|recipient| recipient == personal::ERASED);
            Ok(Seen { id: row.uuid(0)?, state, is_erased })
        })
        .collect()
}

fn changes(step: Step, settled: &[Seen], were_later: bool) -> Vec<Statement> {
    let mut statements = Vec::new();
    match step {
        Step::Purge => {
            let ids: Vec<_> = settled.iter().map(|seen| seen.id).collect();
            statements.extend(personal::erase(&ids));
        }
        Step::Remove => statements.extend(REMOVE.iter().map(|sql| of_given(sql, step, settled))),
    }
    if were_later {
        statements.push(of_given(FORGET, step, settled));
    }
    if matches!(step, Step::Remove) {
        statements.push(of_given(REMEMBER, step, settled));
    }
    statements
}

fn of_given(sql: &'static str, step: Step, seen: &[Seen]) -> Statement {
    Statement::of_rows(RowsStatement { sql, columns: GIVEN }, seen.iter().map(|seen| seen.values(step)).collect())
}

fn count(step: Step, settled: &[Seen]) -> u64 {
    let counts = |seen: &&Seen| match step {
        Step::Purge => !seen.is_erased,
        Step::Remove => seen.state.is_some(),
    };
    settled.iter().filter(counts).count() as u64
}
