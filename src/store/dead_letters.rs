//! Dead letters: what failed for good, was not delivered after all, and was neither replayed nor discarded.
//!
//! A replay is one commit: the dead letter is claimed by compare-and-set and its new notification is written beside
//! it. So it is replayed once, whoever asks at the same time and whatever is killed.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use super::lookup::Page;
use super::plan::{ACCEPTED, Slot};
use super::recovery::HasIds;
use super::sql::{ColumnType, Row, RowsStatement, Sql, Statement, Value};
use super::undecided::{self, AT_ONCE, DEAD, URGENCY, Undecided, UndecidedFilter};
use crate::domain::{AccountId, Channel, NotificationId, Priority, TemplateId, TemplateVersion};

/// Dead letters that failed for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CauseGroup {
    pub channel: Channel,
    /// The account's name.
    pub account: String,
    pub cause: String,
    pub code: Option<String>,
    pub template: Option<TemplateId>,
    pub count: u64,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
}

/// Who decides, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub by: String,
    pub at: Timestamp,
}

/// A dead letter and what takes its place: a notification that waits until `due_at`, with all that the dead letter was
/// asked with, but for what is given here.
#[derive(Clone, Debug)]
pub struct Replay {
    pub dead: NotificationId,
    pub new: NotificationId,
    pub account: AccountId,
    pub priority: Priority,
    pub due_at: Timestamp,
    pub recipient: Option<String>,
    pub template: Option<(TemplateId, TemplateVersion)>,
}

#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// What they failed for, the most frequent first; `limit` groups at most.
    async fn dead_letter_causes(&self, filter: UndecidedFilter, limit: u32) -> Result<Vec<CauseGroup>, StoreError>;

    /// Newest first by the time they were accepted, after the given one.
    async fn dead_letters(
        &self,
        filter: UndecidedFilter,
        after: Option<NotificationId>,
        limit: u32,
    ) -> Result<Page<Undecided>, StoreError>;

    /// Writes the new notifications and marks the dead letters, each pair in one commit; not all pairs share one.
    /// Returns the dead letters that were: not those that are none any more, nor those of whom a person is being
    /// erased or was.
    async fn replay(&self, replays: Vec<Replay>, decision: Decision) -> Result<Vec<NotificationId>, StoreError>;

    /// Marks those that are dead letters as not to be sent any more, and returns them.
    async fn discard(
        &self,
        ids: Vec<NotificationId>,
        reason: String,
        decision: Decision,
    ) -> Result<Vec<NotificationId>, StoreError>;
}

const REPLAYING: &str = "replaying dead letters";

const GIVEN: &[(&str, ColumnType)] = &[
    ("id", ColumnType::Id),
    ("new_id", ColumnType::Id),
    ("resolved_at", ColumnType::Big),
    ("resolved_by", ColumnType::Text),
    ("due_at", ColumnType::Big),
    ("recipient", ColumnType::Text),
    ("template_id", ColumnType::Text),
    ("version", ColumnType::Big),
    ("nil", ColumnType::Id),
];

/// An erasure goes from the newest notification to the oldest: the copy of one that it has not come to yet would stay
/// behind it. The codes are those of `erasures`.
const CLAIM: &str = "
    UPDATE failed SET resolved_at = given.resolved_at, resolution = 1, resolved_by = given.resolved_by,
        replayed_as = given.new_id
    FROM ROWS given JOIN work w ON w.id = given.id AND w.state = 8
    JOIN notifications n ON n.id = given.id AND n.recipient <> 'erased'
    WHERE failed.id = given.id AND failed.resolved_at IS NULL AND NOT EXISTS (
        SELECT 1 FROM erasing e
        WHERE (e.what IN (1, 2, 3) AND e.value = n.recipient) OR (e.what = 11 AND e.value = n.contact_id)
           OR (e.what = 12 AND e.value = CAST(n.lead_id AS text)) OR (e.what = 13 AND e.value = n.deal_id)
           OR (e.what = 14 AND e.value = n.company_id))
    RETURNING failed.id";

/// The same rows that `accept` writes for one that waits. The mode is 2 async, the state 2 pending.
const WRITE: [&str; 3] = [
    "INSERT INTO notifications (id, created_at, not_after, lead_id, template_version, channel, priority, policy, mode,
         max_retries, recipient, template_id, body, contact_id, deal_id, company_id, data, metadata, external_id)
     SELECT given.new_id, given.resolved_at, n.not_after, n.lead_id,
         CASE WHEN given.template_id IS NULL THEN n.template_version ELSE given.version END, n.channel, n.priority,
         n.policy, 2, n.max_retries, coalesce(given.recipient, n.recipient),
         coalesce(given.template_id, n.template_id), CASE WHEN given.template_id IS NULL THEN n.body END, n.contact_id,
         n.deal_id, n.company_id, n.data, n.metadata, n.external_id
     FROM ROWS given JOIN failed f ON f.id = given.id AND f.replayed_as = given.new_id
     JOIN notifications n ON n.id = given.id",
    "INSERT INTO work (id, due_at, generation, account, state, attempt, retry_count, resends)
     SELECT given.new_id, given.due_at, 0, w.account, 2, 0, 0, 0
     FROM ROWS given JOIN notifications n ON n.id = given.new_id JOIN work w ON w.id = given.id",
    // Counters of what a person does belong to no process.
    "INSERT INTO counters (batch_id, epoch, slot, status, n)
     SELECT given.nil, 0, 3, 0, count(*) FROM ROWS given JOIN notifications n ON n.id = given.new_id
     WHERE true GROUP BY given.nil
     ON CONFLICT (batch_id, epoch, slot, status) DO UPDATE SET n = counters.n + excluded.n",
];
const _: () = assert!(Slot::Settle as i16 == 3 && ACCEPTED == 0, "the codes in the statement");

const DISCARD: RowsStatement = RowsStatement {
    sql: "UPDATE failed SET resolved_at = given.resolved_at, resolution = 2, resolved_by = given.resolved_by,
              reason = given.reason
          FROM ROWS given JOIN work w ON w.id = given.id AND w.state = 8
          WHERE failed.id = given.id AND failed.resolved_at IS NULL RETURNING failed.id",
    columns: &[
        ("id", ColumnType::Id),
        ("resolved_at", ColumnType::Big),
        ("resolved_by", ColumnType::Text),
        ("reason", ColumnType::Text),
    ],
};

#[async_trait]
impl<S: Sql + HasIds> DeadLetters for S {
    async fn dead_letter_causes(&self, filter: UndecidedFilter, limit: u32) -> Result<Vec<CauseGroup>, StoreError> {
        let mut values = Vec::new();
        let conditions = DEAD.narrowed(&filter, &mut values);
        values.push(i64::from(limit).into());
        let query = format!(
            "SELECT a.channel, a.name, g.cause, g.code, g.template_id, g.n, g.first_at, g.last_at
             FROM (SELECT f.account, f.cause, f.code, f.template_id, CAST(count(*) AS BIGINT) AS n,
                          min(f.failed_at) AS first_at, max(f.failed_at) AS last_at
                   FROM {} WHERE {conditions} GROUP BY f.account, f.cause, f.code, f.template_id) g
             JOIN accounts a ON a.id = g.account
             ORDER BY g.n DESC, g.last_at DESC, g.account, g.cause, g.code, g.template_id LIMIT ${}",
            DEAD.tables,
            values.len()
        );
        self.read("counting causes of failures", query, values).await?.iter().map(group).collect()
    }

    async fn dead_letters(
        &self,
        filter: UndecidedFilter,
        after: Option<NotificationId>,
        limit: u32,
    ) -> Result<Page<Undecided>, StoreError> {
        DEAD.page(self, &filter, after, limit).await
    }

    async fn replay(&self, mut replays: Vec<Replay>, decision: Decision) -> Result<Vec<NotificationId>, StoreError> {
        // In one order for all: two that replay the same ones wait for each other once, never in a circle.
        replays.sort_by_key(|replay| replay.dead);
        let mut replayed = Vec::with_capacity(replays.len());
        for replays in replays.chunks(AT_ONCE) {
            let rows: Vec<_> = replays.iter().map(|replay| values(replay, &decision)).collect();
            let of_rows = |sql| Statement::of_rows(RowsStatement { sql, columns: GIVEN }, rows.clone());
            let mut statements = vec![Statement { is_guard: true, ..of_rows(CLAIM) }];
            statements.extend(WRITE.map(of_rows));
            statements.extend(chunks(self, replays));
            let results = self.write_as(REPLAYING, URGENCY, statements).await?;
            replayed.extend(ids(&results)?);
        }
        Ok(replayed)
    }

    async fn discard(
        &self,
        mut ids_given: Vec<NotificationId>,
        reason: String,
        decision: Decision,
    ) -> Result<Vec<NotificationId>, StoreError> {
        ids_given.sort_unstable();
        let mut discarded = Vec::with_capacity(ids_given.len());
        for given in ids_given.chunks(AT_ONCE) {
            let row = |id: &NotificationId| {
                vec![id.0.into(), decision.at.into(), decision.by.as_str().into(), reason.as_str().into()]
            };
            let statement = Statement::of_rows(DISCARD, given.iter().map(row).collect());
            let results = self.write_as("discarding dead letters", URGENCY, vec![statement]).await?;
            discarded.extend(ids(&results)?);
        }
        Ok(discarded)
    }
}

fn values(replay: &Replay, decision: &Decision) -> Vec<Value> {
    vec![
        replay.dead.0.into(),
        replay.new.0.into(),
        decision.at.into(),
        decision.by.as_str().into(),
        replay.due_at.into(),
        replay.recipient.as_deref().into(),
        replay.template.as_ref().map(|(id, _)| id.as_str()).into(),
        replay.template.as_ref().map(|(_, version)| version.0).into(),
        Uuid::nil().into(),
    ]
}

/// A chunk names what becomes due together. It may name one that somebody else replayed first: nothing waits under
/// that id, and the chunk passes it over.
fn chunks(ids: &impl HasIds, replays: &[Replay]) -> Vec<Statement> {
    let mut together: BTreeMap<(AccountId, Priority, Timestamp), Vec<Uuid>> = BTreeMap::new();
    for replay in replays {
        together.entry((replay.account, replay.priority, replay.due_at)).or_default().push(replay.new.0);
    }
    let chunk = |((account, priority, due_at), members): ((AccountId, Priority, Timestamp), Vec<Uuid>)| {
        Statement::new(
            "INSERT INTO due (id, due_at, outstanding, account, priority, ids) VALUES ($1, $2, $3, $4, $5, $6)",
            vec![
                ids.next_id().into(),
                due_at.into(),
                i64::try_from(members.len()).unwrap_or(i64::MAX).into(),
                account.0.into(),
                priority.code().into(),
                Value::Ids(members),
            ],
        )
    };
    together.into_iter().map(chunk).collect()
}

/// What the first statement says that it changed.
pub(super) fn ids(results: &[Vec<Row>]) -> Result<Vec<NotificationId>, StoreError> {
    let changed = results.first().map(Vec::as_slice).unwrap_or_default();
    changed.iter().map(|row| row.uuid(0).map(NotificationId)).collect()
}

fn group(row: &Row) -> Result<CauseGroup, StoreError> {
    Ok(CauseGroup {
        channel: row.word(0, Channel::from_code)?,
        account: row.text(1)?,
        cause: row.text(2)?,
        code: row.opt_text(3)?.filter(|code| !code.is_empty()),
        template: undecided::template(row, 4)?,
        count: u64::try_from(row.int(5)?).unwrap_or(0),
        first_at: row.time(6)?,
        last_at: row.time(7)?,
    })
}
