//! Reading notifications: one, many by id, lists, totals.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::StoreError;
use super::batches::IS_SHOWN;
use super::ledger::StoredKey;
use super::plan::ACCEPTED;
use super::sql::{Row, Sql, Statement, Value};
use crate::domain::clock::{earlier, later};
use crate::domain::{
    AccountId, Attempt, BatchId, Channel, Epoch, Generation, HoldReason, Mode, NotificationId, OutcomeClass, Policy,
    Priority, ProviderError, RecordIds, Resolution, Status, TemplateId, TemplateVersion, Verdict,
};

/// A notification as the ledger knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundNotification {
    pub id: NotificationId,
    pub batch: Option<BatchId>,
    pub channel: Channel,
    pub account: AccountId,
    pub template: Option<(TemplateId, TemplateVersion)>,
    pub text: Option<String>,
    pub recipient: String,
    pub records: RecordIds,
    pub data: Option<String>,
    pub metadata: Option<String>,
    pub external_id: Option<String>,
    pub priority: Priority,
    pub policy: Policy,
    pub mode: Mode,
    pub max_retries: i16,
    /// When it is to leave, as it was said last.
    pub scheduled_at: Option<Timestamp>,
    pub not_after: Option<Timestamp>,
    pub created_at: Timestamp,
    pub status: Status,
    pub hold: Option<HoldReason>,
    pub due_at: Timestamp,
    pub retry_count: i16,
    /// How often it was handed over to the queue.
    pub generation: Generation,
    /// When the open attempt was opened, and by whom.
    pub open: Option<(Timestamp, Epoch)>,
    /// How many attempts were opened.
    pub attempt: i16,
    /// The closed ones, oldest first.
    pub attempts: Vec<Attempt>,
    /// Why it failed or was never sent: cause and error.
    pub failure: Option<(String, ProviderError)>,
    /// What a person did about its failure.
    pub resolved: Option<Resolved>,
    /// Who said what became of it, when nobody knew.
    pub settled: Option<SettledByHand>,
}

/// What became of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub how: Resolution,
    pub at: Timestamp,
    pub by: String,
    /// Given when it was discarded.
    pub reason: Option<String>,
    /// The notification that took its place.
    pub replayed_as: Option<NotificationId>,
}

/// A person's word on an uncertain notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledByHand {
    pub at: Timestamp,
    pub by: String,
    pub reason: String,
}

/// What a list is narrowed to. Newest first.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    pub channel: Option<Channel>,
    pub status: Option<Status>,
    pub batch: Option<BatchId>,
    pub contact: Option<String>,
    pub from: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Only what comes after this one in the list.
    pub after: Option<NotificationId>,
}

#[derive(Clone, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Whether more may follow.
    pub more: bool,
}

/// How many notifications stand where. Settled ones come from the counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub accepted: i64,
    pub by_status: HashMap<Status, i64>,
}

impl Totals {
    pub fn of(&self, status: Status) -> i64 {
        self.by_status.get(&status).copied().unwrap_or(0)
    }

    /// Accepted and not settled yet.
    pub fn in_flight(&self) -> i64 {
        self.accepted - self.by_status.values().sum::<i64>()
    }
}

#[async_trait]
pub trait Lookup: Send + Sync {
    /// Those of the ids that exist, in the order asked.
    async fn notifications(&self, ids: Vec<NotificationId>) -> Result<Vec<FoundNotification>, StoreError>;
    /// Newest first. Without attempts.
    async fn list(&self, filter: ListFilter, limit: u32) -> Result<Page<FoundNotification>, StoreError>;
    async fn stored_key(&self, scope: String, key: String, now: Timestamp) -> Result<Option<StoredKey>, StoreError>;
    /// Forgets up to 1,000 keys that have expired. Returns how many.
    async fn forget_expired_keys(&self, now: Timestamp) -> Result<u64, StoreError>;
    async fn totals(&self) -> Result<Totals, StoreError>;
    /// Whether the database answers.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// A notification's id is made before it waits for its budget, and before it is accepted: at most a request's time
/// earlier, and as much again for clocks that differ.
pub(super) const ID_BEFORE_ACCEPT: Duration = Duration::from_secs(120);

const COLUMNS: &str = "n.id, n.batch_id, n.channel, w.account, n.template_id, n.template_version, n.body, n.recipient,
    n.contact_id, n.lead_id, n.deal_id, n.company_id, n.data, n.metadata, n.external_id, n.priority, n.policy, n.mode,
    n.max_retries, coalesce(n.moved_to, b.scheduled_at, n.scheduled_at), n.not_after, n.created_at, w.state, w.hold, w.due_at, w.retry_count, w.opened_at,
    w.epoch, w.attempt, f.cause, f.code, f.detail, e.reason, e.at, e.actor, f.resolution,
    f.resolved_at, f.resolved_by, f.reason, f.replayed_as, w.generation";

/// `e` is why a notification ended without a send, or who settled it. `b` says when it leaves, unless it was moved by
/// itself.
const TABLES: &str = "notifications n JOIN work w ON w.id = n.id LEFT JOIN failed f ON f.id = n.id
    LEFT JOIN batches b ON b.id = n.batch_id
    LEFT JOIN events e ON e.notification_id = n.id AND e.status = w.state";

#[async_trait]
impl<S: Sql> Lookup for S {
    async fn notifications(&self, ids: Vec<NotificationId>) -> Result<Vec<FoundNotification>, StoreError> {
        const DOING: &str = "reading notifications";
        /// Bounds the statement's text.
        const AT_ONCE: usize = 500;
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(AT_ONCE) {
            let places: Vec<_> = (1..=ids.len()).map(|n| format!("${n}")).collect();
            let places = places.join(", ");
            let values: Vec<Value> = ids.iter().map(|id| id.0.into()).collect();
            let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE n.id IN ({places}) AND {IS_SHOWN}");
            let rows = self.read(DOING, sql, values.clone()).await?;
            let sql = format!(
                "SELECT notification_id, n, account, epoch, class, cause, provider_message_id, code, detail, opened_at,
                        closed_at, template_version, text_hash, flagged
                 FROM attempts WHERE notification_id IN ({places}) ORDER BY notification_id, n"
            );
            let mut attempts: HashMap<_, Vec<_>> = HashMap::new();
            for row in self.read(DOING, sql, values).await? {
                attempts.entry(NotificationId(row.uuid(0)?)).or_default().push(attempt(&row)?);
            }
            let mut by_id = HashMap::with_capacity(rows.len());
            for row in rows {
                let mut notification = notification(&row)?;
                notification.attempts = attempts.remove(&notification.id).unwrap_or_default();
                by_id.insert(notification.id, notification);
            }
            found.extend(ids.iter().filter_map(|id| by_id.remove(id)));
        }
        Ok(found)
    }

    async fn list(&self, filter: ListFilter, limit: u32) -> Result<Page<FoundNotification>, StoreError> {
        let mut values: Vec<Value> = Vec::new();
        let mut conditions = vec![IS_SHOWN.to_owned()];
        let mut narrow = |condition: &str, value: Value| {
            values.push(value);
            conditions.push(format!("{condition} ${}", values.len()));
        };
        if let Some(channel) = filter.channel {
            narrow("n.channel =", channel.code().into());
        }
        if let Some(status) = filter.status {
            narrow("w.state =", status.code().into());
        }
        if let Some(batch) = filter.batch {
            narrow("n.batch_id =", batch.0.into());
        }
        if let Some(contact) = filter.contact {
            narrow("n.contact_id =", contact.into());
        }
        // Ids are made from the time: a range of times is a range of ids, give or take.
        if let Some(from) = filter.from {
            narrow("n.id >=", first_id_at(earlier(from, ID_BEFORE_ACCEPT)).into());
            narrow("n.created_at >=", from.into());
        }
        if let Some(until) = filter.until {
            narrow("n.id <", first_id_at(later(until, ID_BEFORE_ACCEPT)).into());
            narrow("n.created_at <", until.into());
        }
        if let Some(after) = filter.after {
            narrow("n.id <", after.0.into());
        }
        values.push(i64::from(limit.saturating_add(1)).into());
        let sql = format!(
            "SELECT {COLUMNS} FROM {TABLES} WHERE {} ORDER BY n.id DESC LIMIT ${}",
            conditions.join(" AND "),
            values.len()
        );
        let rows = self.read("listing notifications", sql, values).await?;
        let more = rows.len() > limit as usize;
        let items = rows.iter().take(limit as usize).map(notification).collect::<Result<_, _>>()?;
        Ok(Page { items, more })
    }

    async fn stored_key(&self, scope: String, key: String, now: Timestamp) -> Result<Option<StoredKey>, StoreError> {
        let sql = "SELECT request_hash, ids, batch_id FROM idempotency
                   WHERE scope = $1 AND key = $2 AND expires_at >= $3";
        let rows = self.read("reading a key", sql.into(), vec![scope.into(), key.into(), now.into()]).await?;
        rows.first().map(stored_key).transpose()
    }

    async fn forget_expired_keys(&self, now: Timestamp) -> Result<u64, StoreError> {
        let delete = Statement::new(
            "DELETE FROM idempotency WHERE (scope, key) IN
                 (SELECT scope, key FROM idempotency WHERE expires_at < $1 LIMIT 1000) RETURNING created_at",
            vec![now.into()],
        );
        let rows = self.write("forgetting expired keys", vec![delete]).await?;
        Ok(rows[0].len() as u64)
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        let sql = "SELECT status, CAST(sum(n) AS BIGINT) FROM counters GROUP BY status";
        let mut totals = Totals::default();
        for row in self.read("reading the totals", sql.into(), vec![]).await? {
            match row.small(0)? {
                ACCEPTED => totals.accepted = row.int(1)?,
                _ => {
                    totals.by_status.insert(row.word(0, Status::from_code)?, row.int(1)?);
                }
            }
        }
        Ok(totals)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.read("asking the database", "SELECT 1".into(), vec![]).await.map(|_| ())
    }
}

/// The smallest id a notification made at `at` can have (RFC 9562: milliseconds come first).
pub(super) fn first_id_at(at: Timestamp) -> uuid::Uuid {
    let millis = u64::try_from(at.as_millisecond()).unwrap_or(0);
    uuid::Uuid::from_u128(u128::from(millis) << 80)
}

/// A key from its columns `request_hash, ids, batch_id`.
pub(super) fn stored_key(row: &Row) -> Result<StoredKey, StoreError> {
    Ok(StoredKey {
        request_hash: row.opt_hash(0)?.unwrap_or_default(),
        ids: row.ids(1)?.into_iter().map(NotificationId).collect(),
        batch: row.opt_uuid(2)?.map(BatchId),
    })
}

/// A template and its version, from two columns beside each other.
pub(super) fn template(row: &Row, column: usize) -> Result<Option<(TemplateId, TemplateVersion)>, StoreError> {
    let (Some(id), Some(version)) = (row.opt_text(column)?, row.opt_int(column + 1)?) else { return Ok(None) };
    let id = TemplateId::parse(&id).map_err(|error| StoreError::refused("reading a template id", error))?;
    Ok(Some((id, TemplateVersion(i32::try_from(version).unwrap_or(i32::MAX)))))
}

fn notification(row: &Row) -> Result<FoundNotification, StoreError> {
    let open = match (row.opt_time(26)?, row.opt_int(27)?) {
        (Some(at), Some(epoch)) => Some((at, Epoch(epoch))),
        _ => None,
    };
    let hold = match row.opt_int(23)? {
        Some(_) => Some(row.word(23, HoldReason::from_code)?),
        None => None,
    };
    let status = row.word(22, Status::from_code)?;
    let (scheduled_at, due_at) = (row.opt_time(19)?, row.time(24)?);
    let failure = match (row.opt_text(29)?, row.opt_text(32)?) {
        (Some(cause), _) => Some((
            cause,
            ProviderError {
                code: row.opt_text(30)?.unwrap_or_default(),
                detail: row.opt_text(31)?.unwrap_or_default(),
            },
        )),
        (None, Some(reason)) if !matches!(status, Status::Sent | Status::Delivered | Status::Read) => {
            Some((reason, ProviderError::default()))
        }
        (None, _) => None,
    };
    Ok(FoundNotification {
        id: NotificationId(row.uuid(0)?),
        batch: row.opt_uuid(1)?.map(BatchId),
        channel: row.word(2, Channel::from_code)?,
        account: AccountId(row.small(3)?),
        template: template(row, 4)?,
        text: row.opt_text(6)?,
        recipient: row.text(7)?,
        records: RecordIds {
            contact_id: row.opt_text(8)?,
            lead_id: row.opt_int(9)?,
            deal_id: row.opt_text(10)?,
            company_id: row.opt_text(11)?,
        },
        data: row.opt_text(12)?,
        metadata: row.opt_text(13)?,
        external_id: row.opt_text(14)?,
        priority: row.word(15, Priority::from_code)?,
        policy: row.word(16, Policy::from_code)?,
        mode: row.word(17, Mode::from_code)?,
        max_retries: row.small(18)?,
        scheduled_at,
        not_after: row.opt_time(20)?,
        created_at: row.time(21)?,
        status,
        hold,
        // What comes with its batch looks at no clock of its own.
        due_at: scheduled_at.map_or(due_at, |at| at.max(due_at)),
        retry_count: row.small(25)?,
        generation: Generation(i32::try_from(row.int(40)?).unwrap_or(i32::MAX)),
        open,
        attempt: row.small(28)?,
        attempts: Vec::new(),
        failure,
        resolved: resolved(row)?,
        settled: settled(row, status)?,
    })
}

fn resolved(row: &Row) -> Result<Option<Resolved>, StoreError> {
    let (Some(_), Some(at)) = (row.opt_int(35)?, row.opt_time(36)?) else { return Ok(None) };
    Ok(Some(Resolved {
        how: row.word(35, Resolution::from_code)?,
        at,
        by: row.opt_text(37)?.unwrap_or_default(),
        reason: row.opt_text(38)?,
        replayed_as: row.opt_uuid(39)?.map(NotificationId),
    }))
}

fn settled(row: &Row, status: Status) -> Result<Option<SettledByHand>, StoreError> {
    let (Some(at), Some(by)) = (row.opt_time(33)?, row.opt_text(34)?) else { return Ok(None) };
    // What the service itself ends without a send has an event, too.
    if Verdict::from_code(status.code()).is_none() || by == "accept" {
        return Ok(None);
    }
    Ok(Some(SettledByHand { at, by, reason: row.opt_text(32)?.unwrap_or_default() }))
}

fn attempt(row: &Row) -> Result<Attempt, StoreError> {
    let error = match (row.opt_text(7)?, row.opt_text(8)?) {
        (None, None) => None,
        (code, detail) => Some(ProviderError { code: code.unwrap_or_default(), detail: detail.unwrap_or_default() }),
    };
    Ok(Attempt {
        n: row.small(1)?,
        account: AccountId(row.small(2)?),
        epoch: Epoch(row.int(3)?),
        class: row.word(4, OutcomeClass::from_code)?,
        cause: row.text(5)?,
        provider_message_id: row.opt_text(6)?,
        error,
        opened_at: row.time(9)?,
        closed_at: row.time(10)?,
        template_version: row.opt_int(11)?.map(|version| TemplateVersion(i32::try_from(version).unwrap_or(i32::MAX))),
        text_hash: row.opt_hash(12)?,
        flagged: row.int(13)? != 0,
    })
}
