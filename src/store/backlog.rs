//! How much waits, counted from small tables: a million that wait are two thousand chunks.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::StoreError;
use super::sql::{Row, Sql};
use super::undecided::DEAD;
use crate::domain::clock::later;
use crate::domain::{AccountId, BatchId, HoldReason, Priority, Status, retry};

/// What waits of one account and priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    pub account: AccountId,
    pub priority: Priority,
    /// Its time has come, and it is not handed over.
    pub due: u64,
    /// Waits for its time: a schedule, a retry, a throttled account.
    pub later: u64,
    /// Of paused batches, and what is left of cancelled ones.
    pub held: u64,
    /// Handed over, and opened by nobody yet.
    pub handed: u64,
    /// When the oldest became due whose time has come, handed over or not; held ones apart.
    pub oldest_due: Option<Timestamp>,
}

/// How many notifications of one account and priority wait for their next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retrying {
    pub account: AccountId,
    pub priority: Priority,
    pub count: u64,
}

#[async_trait]
pub trait Backlogs: Send + Sync {
    /// What waits, by account and priority.
    async fn backlog(&self, now: Timestamp) -> Result<Vec<Backlog>, StoreError>;

    /// Of what waits for a later time, what waits for its next try. `None` when too much becomes due soon to look at
    /// each of it.
    async fn retrying(&self, now: Timestamp) -> Result<Option<Vec<Retrying>>, StoreError>;

    /// Batches that run and of which something waits for its turn, and how many of each have ended.
    async fn under_way(&self, now: Timestamp) -> Result<Vec<(BatchId, u64)>, StoreError>;

    /// Dead letters by account.
    async fn dead_letter_counts(&self) -> Result<Vec<(AccountId, u64)>, StoreError>;
}

/// Looked at one by one at most.
const MOST_LOOKED_AT: u64 = 50_000;
const DOING: &str = "counting what waits";

#[async_trait]
impl<S: Sql> Backlogs for S {
    async fn backlog(&self, now: Timestamp) -> Result<Vec<Backlog>, StoreError> {
        const QUERY: &str = "
            SELECT account, priority, CAST(sum(CASE WHEN kind = 1 THEN n ELSE 0 END) AS BIGINT),
                CAST(sum(CASE WHEN kind = 2 THEN n ELSE 0 END) AS BIGINT),
                CAST(sum(CASE WHEN kind = 3 THEN n ELSE 0 END) AS BIGINT),
                CAST(sum(CASE WHEN kind = 4 THEN n ELSE 0 END) AS BIGINT),
                min(CASE WHEN kind IN (1, 4) AND due_at <= $1 THEN due_at END)
            FROM (
                SELECT d.account, d.priority, d.due_at, d.outstanding AS n,
                    CASE WHEN d.handed_by IS NOT NULL THEN 4 WHEN b.id IS NOT NULL THEN 3 WHEN d.due_at <= $1 THEN 1
                         ELSE 2 END AS kind
                FROM due d LEFT JOIN batches b
                    ON b.id = d.batch_id AND (b.paused_at IS NOT NULL OR b.cancelled_at IS NOT NULL)
            ) w GROUP BY account, priority";
        let rows = self.read(DOING, QUERY.into(), vec![now.into()]).await?;
        let backlog = |row: &Row| {
            Ok(Backlog {
                account: AccountId(row.small(0)?),
                priority: row.word(1, Priority::from_code)?,
                due: count(row, 2)?,
                later: count(row, 3)?,
                held: count(row, 4)?,
                handed: count(row, 5)?,
                oldest_due: row.opt_time(6)?,
            })
        };
        rows.iter().map(backlog).collect()
    }

    async fn retrying(&self, now: Timestamp) -> Result<Option<Vec<Retrying>>, StoreError> {
        // A next try is no further away than this.
        let until = later(now, retry::LONGEST_WAIT.mul_f64(1.0 + retry::JITTER) + Duration::from_secs(1));
        let soon = "SELECT coalesce(CAST(sum(outstanding) AS BIGINT), 0) FROM due
                    WHERE handed_by IS NULL AND due_at > $1 AND due_at <= $2";
        let rows = self.read(DOING, soon.into(), vec![now.into(), until.into()]).await?;
        match rows.first().map_or(Ok(0), |row| count(row, 0))? {
            0 => return Ok(Some(Vec::new())),
            soon if soon > MOST_LOOKED_AT => return Ok(None),
            _ => {}
        }
        let few = "(SELECT ids, account, priority FROM due
                    WHERE handed_by IS NULL AND due_at > $1 AND due_at <= $2) few";
        let query = format!(
            "SELECT l.account, l.priority, count(*) FROM ({}) l JOIN work w ON w.id = l.member
             WHERE w.state = {} AND w.hold = {} GROUP BY l.account, l.priority",
            self.members(few, &["account", "priority"]),
            Status::Pending.code(),
            HoldReason::Retry.code(),
        );
        let rows = self.read(DOING, query, vec![now.into(), until.into()]).await?;
        let retrying = |row: &Row| {
            Ok(Retrying {
                account: AccountId(row.small(0)?),
                priority: row.word(1, Priority::from_code)?,
                count: count(row, 2)?,
            })
        };
        rows.iter().map(retrying).collect::<Result<_, _>>().map(Some)
    }

    async fn under_way(&self, now: Timestamp) -> Result<Vec<(BatchId, u64)>, StoreError> {
        // By the due rows' indexes: batches that are over are not looked at.
        let sql = "SELECT b.id, coalesce(CAST(sum(c.n) AS BIGINT), 0)
             FROM batches b LEFT JOIN counters c ON c.batch_id = b.id AND c.status > 0
             WHERE b.id IN (SELECT batch_id FROM due WHERE handed_by IS NULL AND batch_id IS NOT NULL
                            UNION SELECT batch_id FROM due WHERE handed_by IS NOT NULL AND batch_id IS NOT NULL)
                 AND b.paused_at IS NULL AND b.cancelled_at IS NULL AND (b.scheduled_at IS NULL OR b.scheduled_at <= $1)
             GROUP BY b.id";
        let rows = self.read("looking for batches that run", sql.into(), vec![now.into()]).await?;
        rows.iter().map(|row| Ok((BatchId(row.uuid(0)?), count(row, 1)?))).collect()
    }

    async fn dead_letter_counts(&self) -> Result<Vec<(AccountId, u64)>, StoreError> {
        let conditions = DEAD.narrowed(&super::UndecidedFilter::default(), &mut Vec::new());
        let query = format!("SELECT f.account, count(*) FROM {} WHERE {conditions} GROUP BY f.account", DEAD.tables);
        let rows = self.read("counting dead letters", query, vec![]).await?;
        rows.iter().map(|row| Ok((AccountId(row.small(0)?), count(row, 1)?))).collect()
    }
}

fn count(row: &Row, column: usize) -> Result<u64, StoreError> {
    Ok(u64::try_from(row.int(column)?).unwrap_or(0))
}
