//! Bulk calls: accepted in many transactions and one last one that shows them, and what becomes of them.
//!
//! While a batch is being accepted its rows are there and nobody sees them: they are in no chunk, in no counter and in
//! no list. [`Batches::accept_batch`] shows all of them in one commit. A batch whose process died before that is removed
//! by [`Batches::drop_abandoned`], and its key may be used again.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use super::ledger::{CHUNK, NewKey};
use super::lookup::Page;
use super::plan::{ACCEPTED, Slot};
use super::recovery::HasIds;
use super::sql::{ColumnType, Row, RowsStatement, Sql, Statement, Value};
use super::{StoreError, Urgency};
use crate::domain::{AccountId, BatchId, Channel, Epoch, NotificationId, Priority, Status, TemplateId};

/// In a condition on `notifications n`: not of a batch that is being accepted.
pub(super) const IS_SHOWN: &str = "(n.batch_id IS NULL OR n.batch_id NOT IN (SELECT id FROM batches WHERE state = 1))";

/// Bulk calls.
#[async_trait]
pub trait Batches: Send + Sync {
    /// Begins one that nobody sees yet.
    async fn begin_batch(&self, new: NewBatch, key: Option<NewKey>) -> Result<BatchBegun, StoreError>;

    /// Shows all of it, due and counted. `false` if it is shown already, or is gone.
    async fn accept_batch(&self, accept: AcceptBatch) -> Result<bool, StoreError>;

    /// Removes up to `limit` rows of batches that were never accepted in full, and the batches when nothing is left of
    /// them: those of processes that are gone, and `of` if given. Returns how many rows went.
    async fn drop_abandoned(&self, of: Option<BatchId>, limit: u32) -> Result<u64, StoreError>;

    /// One that was accepted.
    async fn batch(&self, id: BatchId) -> Result<Option<FoundBatch>, StoreError>;

    /// Newest first.
    async fn batches(&self, after: Option<BatchId>, limit: u32) -> Result<Page<FoundBatch>, StoreError>;

    /// All its notifications, in the order of the call.
    async fn batch_members(&self, id: BatchId) -> Result<Vec<NotificationId>, StoreError>;

    /// How many of it ended as failed when it was accepted.
    async fn failed_at_accept(&self, id: BatchId) -> Result<u64, StoreError>;

    /// Holds it up, or lets it go on. `false` if it was that already, was cancelled, or is not there.
    async fn pause_batch(&self, id: BatchId, paused_at: Option<Timestamp>) -> Result<bool, StoreError>;

    /// Ends what has not begun; that is done in the background. `false` if it was cancelled already, or is not there.
    async fn cancel_batch(&self, id: BatchId, at: Timestamp, by: String) -> Result<bool, StoreError>;
}

/// A batch to be accepted.
#[derive(Clone, Debug)]
pub struct NewBatch {
    pub id: BatchId,
    pub epoch: Epoch,
    pub channel: Channel,
    pub account: AccountId,
    pub priority: Priority,
    pub template: Option<TemplateId>,
    pub scheduled_at: Option<Timestamp>,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchBegun {
    Begun,
    /// The key stands for this batch, which was accepted.
    Repeated(BatchId),
    /// The key stands for a batch that is being accepted just now.
    Running,
    /// The key stands for another request.
    KeyReused,
}

/// The last commit of an accept.
#[derive(Clone, Debug)]
pub struct AcceptBatch {
    pub id: BatchId,
    pub epoch: Epoch,
    pub account: AccountId,
    pub priority: Priority,
    /// When it becomes due.
    pub due_at: Timestamp,
    /// Those that wait, in the order of the call.
    pub waiting: Vec<NotificationId>,
    /// Those that ended at once.
    pub ended: BTreeMap<Status, u64>,
    /// Recipients that were given more than once.
    pub duplicates: u64,
}

/// A batch and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBatch {
    pub id: BatchId,
    pub channel: Channel,
    pub account: AccountId,
    pub priority: Priority,
    pub template: Option<TemplateId>,
    pub accepted: u64,
    pub duplicates: u64,
    pub created_at: Timestamp,
    pub scheduled_at: Option<Timestamp>,
    pub paused_at: Option<Timestamp>,
    pub cancelled_at: Option<Timestamp>,
    pub cancelled_by: Option<String>,
    /// What has ended, by status; the rest is on its way.
    pub settled: BTreeMap<Status, u64>,
}

impl FoundBatch {
    /// Those that are still on their way.
    pub fn in_flight(&self) -> u64 {
        self.accepted.saturating_sub(self.settled.values().sum())
    }
}

const COLUMNS: &str = "id, channel, account, priority, template_id, accepted, duplicates, created_at, scheduled_at,
    paused_at, cancelled_at, cancelled_by";

#[async_trait]
impl<S: Sql + HasIds> Batches for S {
    async fn begin_batch(&self, new: NewBatch, key: Option<NewKey>) -> Result<BatchBegun, StoreError> {
        let Some(key) = key else {
            self.write(BEGINNING, vec![insert(&new)]).await?;
            return Ok(BatchBegun::Begun);
        };
        // Three rounds at most: another may take or leave the key between two questions.
        for _ in 0..3 {
            let claim = Statement::guard(
                "INSERT INTO idempotency AS i (scope, key, request_hash, ids, batch_id, created_at, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (scope, key) DO UPDATE SET request_hash = excluded.request_hash, ids = excluded.ids,
                     batch_id = excluded.batch_id, created_at = excluded.created_at, expires_at = excluded.expires_at
                     WHERE i.expires_at < excluded.created_at
                 RETURNING key",
                vec![
                    key.scope.clone().into(),
                    key.key.clone().into(),
                    key.request_hash.to_vec().into(),
                    Value::Ids(Vec::new()),
                    new.id.0.into(),
                    new.created_at.into(),
                    key.expires_at.into(),
                ],
            );
            if self.write(BEGINNING, vec![claim, insert(&new)]).await?.len() > 1 {
                return Ok(BatchBegun::Begun);
            }
            match standing_for(self, &key).await? {
                Standing::Answer(begun) => return Ok(begun),
                Standing::Free => {}
                Standing::Abandoned(old) => {
                    let claim = Statement::guard(
                        "UPDATE idempotency SET batch_id = $4, created_at = $5, expires_at = $6
                         WHERE scope = $1 AND key = $2 AND batch_id = $3 RETURNING key",
                        vec![
                            key.scope.clone().into(),
                            key.key.clone().into(),
                            old.into(),
                            new.id.0.into(),
                            new.created_at.into(),
                            key.expires_at.into(),
                        ],
                    );
                    if self.write(BEGINNING, vec![claim, insert(&new)]).await?.len() > 1 {
                        return Ok(BatchBegun::Begun);
                    }
                }
            }
        }
        Ok(BatchBegun::Running)
    }

    async fn accept_batch(&self, accept: AcceptBatch) -> Result<bool, StoreError> {
        let accepted = accept.waiting.len() as u64 + accept.ended.values().sum::<u64>();
        let mut statements = vec![Statement::guard(
            "UPDATE batches SET state = 2, accepted = $2, duplicates = $3 WHERE id = $1 AND state = 1 RETURNING id",
            vec![accept.id.0.into(), big(accepted), big(accept.duplicates)],
        )];
        for members in accept.waiting.chunks(CHUNK) {
            statements.push(Statement::new(
                "INSERT INTO due (id, due_at, outstanding, account, priority, batch_id, ids, with_batch)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, 1)",
                vec![
                    self.next_id().into(),
                    accept.due_at.into(),
                    big(members.len() as u64),
                    accept.account.0.into(),
                    accept.priority.code().into(),
                    accept.id.0.into(),
                    Value::Ids(members.iter().map(|id| id.0).collect()),
                ],
            ));
        }
        let ended = accept.ended.iter().map(|(status, n)| (status.code(), *n));
        for (status, n) in std::iter::once((ACCEPTED, accepted)).chain(ended) {
            statements.push(Statement::new(
                "INSERT INTO counters (batch_id, epoch, slot, status, n) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (batch_id, epoch, slot, status) DO UPDATE SET n = counters.n + excluded.n",
                vec![accept.id.0.into(), accept.epoch.0.into(), Slot::BulkAccept.code().into(), status.into(), big(n)],
            ));
        }
        Ok(self.write_as("accepting a batch", Urgency::Bulk, statements).await?.len() > 1)
    }

    async fn drop_abandoned(&self, of: Option<BatchId>, limit: u32) -> Result<u64, StoreError> {
        const DOING: &str = "removing what was never accepted";
        const TABLES: [&str; 4] = [
            "DELETE FROM events WHERE notification_id IN (SELECT id FROM ROWS given)",
            "DELETE FROM failed WHERE id IN (SELECT id FROM ROWS given)",
            "DELETE FROM work WHERE id IN (SELECT id FROM ROWS given)",
            "DELETE FROM notifications WHERE id IN (SELECT id FROM ROWS given)",
        ];
        let abandoned = "SELECT id FROM batches
             WHERE state = 1 AND (id = $1 OR epoch NOT IN (SELECT epoch FROM workers WHERE lost_at IS NULL))
             ORDER BY id LIMIT 1";
        let of = of.map_or(Uuid::nil(), |batch| batch.0);
        let Some(row) = self.read(DOING, abandoned.into(), vec![of.into()]).await?.pop() else { return Ok(0) };
        let batch = row.uuid(0)?;
        let some = "SELECT id FROM notifications WHERE batch_id = $1 ORDER BY id LIMIT $2";
        let rows = self.read(DOING, some.into(), vec![batch.into(), i64::from(limit).into()]).await?;
        let ids = rows.iter().map(|row| Ok(vec![Value::Uuid(row.uuid(0)?)])).collect::<Result<Vec<_>, StoreError>>()?;
        let count = ids.len() as u64;
        let mut statements: Vec<Statement> = TABLES
            .into_iter()
            .map(|sql| Statement::of_rows(RowsStatement { sql, columns: &[("id", ColumnType::Id)] }, ids.clone()))
            .collect();
        if count < u64::from(limit) {
            // Its key, too: the same request may come again.
            for sql in
                ["DELETE FROM idempotency WHERE batch_id = $1", "DELETE FROM batches WHERE id = $1 AND state = 1"]
            {
                statements.push(Statement::new(sql, vec![batch.into()]));
            }
        }
        self.write_as(DOING, Urgency::Bulk, statements).await?;
        Ok(count.max(1))
    }

    async fn batch(&self, id: BatchId) -> Result<Option<FoundBatch>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM batches WHERE id = $1 AND state = 2");
        let rows = self.read(READING, sql, vec![id.0.into()]).await?;
        Ok(with_progress(self, &rows).await?.pop())
    }

    async fn batches(&self, after: Option<BatchId>, limit: u32) -> Result<Page<FoundBatch>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM batches WHERE state = 2 AND id < $1 ORDER BY id DESC LIMIT $2");
        let after = after.map_or(Uuid::max(), |batch| batch.0);
        let mut rows = self.read(READING, sql, vec![after.into(), (i64::from(limit) + 1).into()]).await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        Ok(Page { items: with_progress(self, &rows).await?, more })
    }

    async fn batch_members(&self, id: BatchId) -> Result<Vec<NotificationId>, StoreError> {
        let sql = "SELECT id FROM notifications WHERE batch_id = $1 ORDER BY id";
        let rows = self.read(READING, sql.into(), vec![id.0.into()]).await?;
        rows.iter().map(|row| row.uuid(0).map(NotificationId)).collect()
    }

    async fn failed_at_accept(&self, id: BatchId) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(CAST(sum(n) AS BIGINT), 0) FROM counters
                   WHERE batch_id = $1 AND slot = $2 AND status = $3";
        let values = vec![id.0.into(), Slot::BulkAccept.code().into(), Status::Failed.code().into()];
        let rows = self.read(READING, sql.into(), values).await?;
        rows.first().map_or(Ok(0), |row| row.int(0).map(|n| u64::try_from(n).unwrap_or(0)))
    }

    async fn pause_batch(&self, id: BatchId, paused_at: Option<Timestamp>) -> Result<bool, StoreError> {
        let statement = Statement::new(
            "UPDATE batches SET paused_at = $2
             WHERE id = $1 AND state = 2 AND cancelled_at IS NULL
                 AND CASE WHEN paused_at IS NULL THEN 0 ELSE 1 END <> $3
             RETURNING id",
            vec![id.0.into(), paused_at.into(), i64::from(paused_at.is_some()).into()],
        );
        Ok(!self.write("pausing a batch", vec![statement]).await?[0].is_empty())
    }

    async fn cancel_batch(&self, id: BatchId, at: Timestamp, by: String) -> Result<bool, StoreError> {
        let statement = Statement::new(
            "UPDATE batches SET cancelled_at = $2, cancelled_by = $3
             WHERE id = $1 AND state = 2 AND cancelled_at IS NULL RETURNING id",
            vec![id.0.into(), at.into(), by.into()],
        );
        Ok(!self.write("cancelling a batch", vec![statement]).await?[0].is_empty())
    }
}

const BEGINNING: &str = "beginning a batch";
const READING: &str = "reading batches";

fn insert(new: &NewBatch) -> Statement {
    Statement::new(
        "INSERT INTO batches (id, state, channel, account, priority, epoch, template_id, accepted, created_at,
             scheduled_at)
         VALUES ($1, 1, $2, $3, $4, $5, $6, 0, $7, $8)",
        vec![
            new.id.0.into(),
            new.channel.code().into(),
            new.account.0.into(),
            new.priority.code().into(),
            new.epoch.0.into(),
            new.template.as_ref().map(|id| id.as_str().to_owned()).into(),
            new.created_at.into(),
            new.scheduled_at.into(),
        ],
    )
}

/// What a key stands for.
enum Standing {
    Answer(BatchBegun),
    /// Nothing any more.
    Free,
    /// A batch that nobody accepts any more.
    Abandoned(Uuid),
}

async fn standing_for(sql: &impl Sql, key: &NewKey) -> Result<Standing, StoreError> {
    let query = "SELECT i.request_hash, i.batch_id, b.state,
                     CASE WHEN w.epoch IS NULL THEN 0 ELSE 1 END
                 FROM idempotency i LEFT JOIN batches b ON b.id = i.batch_id
                     LEFT JOIN workers w ON w.epoch = b.epoch AND w.lost_at IS NULL
                 WHERE i.scope = $1 AND i.key = $2";
    let values = vec![key.scope.clone().into(), key.key.clone().into()];
    let rows = sql.read(BEGINNING, query.into(), values).await?;
    let Some(row) = rows.first() else { return Ok(Standing::Free) };
    if row.opt_hash(0)? != Some(key.request_hash) {
        return Ok(Standing::Answer(BatchBegun::KeyReused));
    }
    let (Some(batch), state) = (row.opt_uuid(1)?, row.opt_int(2)?) else {
        return Ok(Standing::Answer(BatchBegun::KeyReused));
    };
    Ok(match (state, row.int(3)? != 0) {
        (Some(2), _) => Standing::Answer(BatchBegun::Repeated(BatchId(batch))),
        (Some(_), true) => Standing::Answer(BatchBegun::Running),
        (Some(_), false) | (None, _) => Standing::Abandoned(batch),
    })
}

async fn with_progress(sql: &impl Sql, rows: &[Row]) -> Result<Vec<FoundBatch>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let places: Vec<_> = (1..=rows.len()).map(|n| format!("${n}")).collect();
    let query = format!(
        "SELECT batch_id, status, CAST(sum(n) AS BIGINT) FROM counters WHERE batch_id IN ({}) AND status > 0
         GROUP BY batch_id, status",
        places.join(", ")
    );
    let ids = rows.iter().map(|row| row.uuid(0).map(Value::Uuid)).collect::<Result<_, _>>()?;
    let mut settled: BTreeMap<Uuid, BTreeMap<Status, u64>> = BTreeMap::new();
    for row in sql.read(READING, query, ids).await? {
        let n = u64::try_from(row.int(2)?).unwrap_or(0);
        if n > 0 {
            settled.entry(row.uuid(0)?).or_default().insert(row.word(1, Status::from_code)?, n);
        }
    }
    rows.iter()
        .map(|row| {
            let id = row.uuid(0)?;
            let template = row.opt_text(4)?.map(|id| TemplateId::parse(&id)).transpose();
            Ok(FoundBatch {
                id: BatchId(id),
                channel: row.word(1, Channel::from_code)?,
                account: AccountId(row.small(2)?),
                priority: row.word(3, Priority::from_code)?,
                template: template.map_err(|error| StoreError::refused(READING, error))?,
                accepted: u64::try_from(row.int(5)?).unwrap_or(0),
                duplicates: u64::try_from(row.int(6)?).unwrap_or(0),
                created_at: row.time(7)?,
                scheduled_at: row.opt_time(8)?,
                paused_at: row.opt_time(9)?,
                cancelled_at: row.opt_time(10)?,
                cancelled_by: row.opt_text(11)?,
                settled: settled.remove(&id).unwrap_or_default(),
            })
        })
        .collect()
}

fn big(n: u64) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}
