//! Erasing a person: what was known of them goes, what was done stays countable.
//!
//! A request takes the records away at once and remembers their addresses. What is left is done in small steps that
//! may be cut off anywhere: notifications are gone through once, from the newest to the oldest, and those that are
//! being sent are come back to. Opt-outs survive as hashes, so that nobody is written to by mistake afterwards. When
//! all is done the addresses are forgotten.

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use super::ledger::{Ledger, Settle, Urgency};
use super::records::{self, clear_fields};
use super::sql::{ColumnType, Row, RowsStatement, Sql, Statement, Value};
use super::{StoreError, personal, suppressions};
use crate::domain::{BatchId, Channel, Epoch, ErasureId, NotificationId, RecordId, RecordKind, Status};

/// A request to erase a record, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    pub id: ErasureId,
    pub kind: RecordKind,
    pub record: RecordId,
    pub requested_at: Timestamp,
    pub done_at: Option<Timestamp>,
    /// How many notifications lost their personal part so far.
    pub notifications: u64,
}

/// What a call of [`Erasures::erase_some`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErasureStep {
    /// There is more to do: call again.
    Went,
    /// What is left is being sent: call again when that may have ended, within the send deadline.
    Waits,
    /// Nothing is to be erased.
    Idle,
}

#[async_trait]
pub trait Erasures: Send + Sync {
    /// Erases a record, there or not: it is gone when this returns, and so are the leads of a contact and the
    /// addresses in its deals. The rest is [`erase_some`](Self::erase_some)'s, and will be done whatever happens.
    ///
    /// Erased with it is the personal part of all notifications about the record (and a contact's leads and deals),
    /// and of those to its addresses. Those that still wait are cancelled.
    async fn request_erasure(&self, kind: RecordKind, id: RecordId, at: Timestamp) -> Result<Erasure, StoreError>;

    /// Goes on with what was requested, looking at `limit` notifications at most. Several processes may do so at once.
    async fn erase_some(&self, limit: u32, at: Timestamp) -> Result<ErasureStep, StoreError>;

    async fn erasure(&self, id: ErasureId) -> Result<Option<Erasure>, StoreError>;

    /// Newest first, after the given one.
    async fn list_erasures(&self, after: Option<ErasureId>, limit: u32) -> Result<Vec<Erasure>, StoreError>;
}

/// Changed notifications in one commit: about a millisecond of SQLite's writer.
const AT_ONCE: usize = 50;
/// Counters of erasures belong to no process.
const NO_EPOCH: Epoch = Epoch(0);
const ACTOR: &str = "erasure";
const DOING: &str = "erasing personal data";
const COLUMNS: &str = "id, kind, record_id, requested_at, done_at, notifications, cursor";

// What is remembered (`erasing.what`): 1 phone, 2 email, 3 chat, 10 and the kind's code for a record, 20 a notification
// that was being sent.
const PHONE: i16 = 1;
const EMAIL: i16 = 2;
const CHAT: i16 = 3;
const RECORD: i16 = 10;
const SENDING: i16 = 20;

/// The record ($2 kind, $3 id) and, of a contact, its leads and deals.
macro_rules! remember {
    ($what:literal, $column:literal) => {
        concat!(
            "INSERT INTO erasing (erasure, what, value) SELECT $1, ",
            $what,
            ", ",
            $column,
            " FROM records WHERE ((kind = $2 AND id = $3) OR ($2 = 1 AND kind IN (2, 3) AND contact_id = $3)) AND ",
            $column,
            " IS NOT NULL ON CONFLICT DO NOTHING"
        )
    };
}

#[async_trait]
impl<S: Sql + Ledger + super::recovery::HasIds> Erasures for S {
    async fn request_erasure(&self, kind: RecordKind, id: RecordId, at: Timestamp) -> Result<Erasure, StoreError> {
        let erasure = Erasure {
            id: ErasureId(self.next_id()),
            kind,
            record: id.clone(),
            requested_at: at,
            done_at: None,
            notifications: 0,
        };
        let known: Vec<Value> = vec![erasure.id.0.into(), kind.code().into(), id.as_str().into()];
        let of_record = || known[1..].to_vec();
        let what = RECORD + kind.code();
        let statements = vec![
            Statement::new(
                "INSERT INTO erasures (id, kind, record_id, cursor, notifications, requested_at)
                 VALUES ($1, $2, $3, $4, 0, $5)",
                [known.clone(), vec![Uuid::max().into(), at.into()]].concat(),
            ),
            // Whoever saves one of them at the same time comes before all of this, or finds it gone.
            Statement::new(
                "UPDATE records SET revision = revision + 1
                 WHERE (kind = $1 AND id = $2) OR ($1 = 1 AND kind IN (2, 3) AND contact_id = $2)",
                of_record(),
            ),
            Statement::new(remember!("1", "phone"), known.clone()),
            Statement::new(remember!("2", "email"), known.clone()),
            Statement::new(remember!("3", "chat_id"), known.clone()),
            Statement::new(remember!("10 + kind", "id"), known.clone()),
            Statement::new(
                "INSERT INTO erasing (erasure, what, value) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                vec![erasure.id.0.into(), what.into(), id.as_str().into()],
            ),
            Statement::new(
                "DELETE FROM records WHERE (kind = $1 AND id = $2) OR ($1 = 1 AND kind = 2 AND contact_id = $2)",
                of_record(),
            ),
        ];
        self.write(DOING, statements).await?;
        clear_deals(self, erasure.id, at).await?;
        Ok(erasure)
    }

    async fn erase_some(&self, limit: u32, at: Timestamp) -> Result<ErasureStep, StoreError> {
        /// Those that wait must not hide others behind them.
        const ERASURES: i64 = 1000;
        let sql = format!("SELECT {COLUMNS} FROM erasures WHERE done_at IS NULL ORDER BY id LIMIT $1");
        let mut came_to = ErasureStep::Idle;
        for row in self.read(DOING, sql, vec![ERASURES.into()]).await? {
            let (id, cursor) = (ErasureId(row.uuid(0)?), row.uuid(6)?);
            let step = if cursor.is_nil() {
                come_back(self, id, at).await?
            } else {
                if cursor.is_max() {
                    clear_deals(self, id, at).await?;
                }
                go_on(self, id, cursor, limit.max(1), at).await?
            };
            match step {
                ErasureStep::Went => return Ok(step),
                ErasureStep::Waits => came_to = step,
                ErasureStep::Idle => {}
            }
        }
        Ok(came_to)
    }

    async fn erasure(&self, id: ErasureId) -> Result<Option<Erasure>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM erasures WHERE id = $1");
        self.read("reading an erasure", sql, vec![id.0.into()]).await?.first().map(erasure).transpose()
    }

    async fn list_erasures(&self, after: Option<ErasureId>, limit: u32) -> Result<Vec<Erasure>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM erasures WHERE id < $1 ORDER BY id DESC LIMIT $2");
        let after = after.map_or(Uuid::max(), |id| id.0);
        let rows = self.read("listing erasures", sql, vec![after.into(), i64::from(limit).into()]).await?;
        rows.iter().map(erasure).collect()
    }
}

/// Deals stay, without the addresses in them.
async fn clear_deals(sql: &impl Sql, id: ErasureId, at: Timestamp) -> Result<(), StoreError> {
    let query = "SELECT e.value FROM erasing e JOIN erasures s ON s.id = e.erasure
                 WHERE e.erasure = $1 AND e.what = 13 AND s.kind = 1";
    let deals = sql.read(DOING, query.into(), vec![id.0.into()]).await?;
    let deals = deals.iter().map(|row| records::kept_id(RecordKind::Deal, &row.text(0)?));
    let deals = deals.collect::<Result<Vec<_>, _>>()?;
    for deals in deals.chunks(records::RECORDS_AT_ONCE) {
        clear_fields(sql, RecordKind::Deal, deals, &["phone", "email", "telegramChatId"], at).await?;
    }
    Ok(())
}

/// One step down the notifications.
async fn go_on<S: Sql + Ledger>(
    store: &S,
    id: ErasureId,
    cursor: Uuid,
    limit: u32,
    at: Timestamp,
) -> Result<ErasureStep, StoreError> {
    let query = "SELECT n.id, CASE
                     WHEN n.recipient IN (SELECT value FROM erasing WHERE erasure = $1 AND what IN (1, 2, 3))
                       OR n.contact_id IN (SELECT value FROM erasing WHERE erasure = $1 AND what = 11) THEN 2
                     WHEN CAST(n.lead_id AS text) IN (SELECT value FROM erasing WHERE erasure = $1 AND what = 12)
                       OR n.deal_id IN (SELECT value FROM erasing WHERE erasure = $1 AND what = 13)
                       OR n.company_id IN (SELECT value FROM erasing WHERE erasure = $1 AND what = 14) THEN 1
                     ELSE 0 END
                 FROM (SELECT id, recipient, contact_id, lead_id, deal_id, company_id FROM notifications
                       WHERE id < $2 ORDER BY id DESC LIMIT $3) n
                 ORDER BY n.id DESC";
    let rows = store.read(DOING, query.into(), vec![id.0.into(), cursor.into(), i64::from(limit).into()]).await?;
    let mut matches = Vec::new();
    let mut next = if rows.len() < limit as usize { Uuid::nil() } else { rows[rows.len() - 1].uuid(0)? };
    for row in &rows {
        let how = row.int(1)?;
        if how > 0 {
            matches.push(Match { id: row.uuid(0)?, is_to_person: how > 1 });
        }
        if matches.len() == AT_ONCE {
            next = row.uuid(0)?;
            break;
        }
    }
    let found = end_waiting(store, &matches, at).await?;
    let count = i64::try_from(found.settled.iter().filter(|one| !one.is_erased()).count()).unwrap_or(0);
    let mut statements = vec![Statement::guard(
        "UPDATE erasures SET cursor = $3, notifications = notifications + $4 WHERE id = $1 AND cursor = $2 RETURNING id",
        vec![id.0.into(), cursor.into(), next.into(), count.into()],
    )];
    let settled: Vec<_> = found.settled.iter().map(|one| one.id).collect();
    statements.extend(personal::erase(&settled));
    statements.extend(hash_opt_outs(&found.settled));
    statements.push(Statement::of_rows(
        RowsStatement {
            sql: "INSERT INTO erasing (erasure, what, value) SELECT erasure, what, value FROM ROWS given WHERE true
                  ON CONFLICT DO NOTHING",
            columns: &[("erasure", ColumnType::Id), ("what", ColumnType::Small), ("value", ColumnType::Text)],
        },
        found.sending.iter().map(|one| vec![id.0.into(), SENDING.into(), one.to_string().into()]).collect(),
    ));
    store.write_as(DOING, Urgency::Bulk, statements).await?;
    Ok(ErasureStep::Went)
}

/// After the last notification: those that were being sent, and then the end.
async fn come_back<S: Sql + Ledger>(store: &S, id: ErasureId, at: Timestamp) -> Result<ErasureStep, StoreError> {
    let query = "SELECT value FROM erasing WHERE erasure = $1 AND what = 20";
    let mut matches = Vec::new();
    for row in store.read(DOING, query.into(), vec![id.0.into()]).await? {
        let id = row.text(0)?.parse().map_err(|error| StoreError::refused(DOING, error))?;
        matches.push(Match { id, is_to_person: true });
    }
    if matches.is_empty() {
        return finish(store, id, at).await;
    }
    let mut came_to = ErasureStep::Waits;
    for matches in matches.chunks(AT_ONCE) {
        let found = end_waiting(store, matches, at).await?;
        for one in &found.settled {
            let mut statements = vec![
                Statement::guard(
                    "DELETE FROM erasing WHERE erasure = $1 AND what = 20 AND value = $2 RETURNING value",
                    vec![id.0.into(), one.id.to_string().into()],
                ),
                Statement::new(
                    "UPDATE erasures SET notifications = notifications + $2 WHERE id = $1",
                    vec![id.0.into(), i64::from(!one.is_erased()).into()],
                ),
            ];
            statements.extend(personal::erase(&[one.id]));
            statements.extend(hash_opt_outs(std::slice::from_ref(one)));
            store.write_as(DOING, Urgency::Bulk, statements).await?;
            came_to = ErasureStep::Went;
        }
        for gone in matches.iter().filter(|one| !found.names(one.id)) {
            let forget = Statement::new(
                "DELETE FROM erasing WHERE erasure = $1 AND what = 20 AND value = $2",
                vec![id.0.into(), gone.id.to_string().into()],
            );
            store.write_as(DOING, Urgency::Bulk, vec![forget]).await?;
            came_to = ErasureStep::Went;
        }
    }
    Ok(came_to)
}

async fn finish(sql: &impl Sql, id: ErasureId, at: Timestamp) -> Result<ErasureStep, StoreError> {
    let query = "SELECT what, value FROM erasing WHERE erasure = $1 AND what IN (1, 2, 3)";
    let mut statements = Vec::new();
    for row in sql.read(DOING, query.into(), vec![id.0.into()]).await? {
        let address = row.text(1)?;
        let channels: &[Channel] = match row.small(0)? {
            PHONE => &[Channel::WhatsApp, Channel::Sms],
            EMAIL => &[Channel::Email],
            CHAT => &[Channel::Telegram],
            _ => &[],
        };
        statements.extend(channels.iter().flat_map(|channel| suppressions::hash(*channel, &address)));
    }
    statements.push(Statement::new("DELETE FROM erasing WHERE erasure = $1", vec![id.0.into()]));
    statements.push(Statement::new(
        "UPDATE erasures SET done_at = $2 WHERE id = $1 AND done_at IS NULL",
        vec![id.0.into(), at.into()],
    ));
    sql.write_as(DOING, Urgency::Bulk, statements).await?;
    Ok(ErasureStep::Went)
}

#[derive(Clone, Copy)]
struct Match {
    id: Uuid,
    /// It went to the person, not only to somebody about them.
    is_to_person: bool,
}

struct Settled {
    id: Uuid,
    /// Where it went, if that is the person's address.
    to: Option<(Channel, String)>,
    recipient: String,
}

impl Settled {
    fn is_erased(&self) -> bool {
        self.recipient == personal::ERASED
    }
}

#[derive(Default)]
struct Ended {
    settled: Vec<Settled>,
    sending: Vec<Uuid>,
}

impl Ended {
    fn names(&self, id: Uuid) -> bool {
        self.sending.contains(&id) || self.settled.iter().any(|one| one.id == id)
    }
}

/// Cancels what still waits, and tells what is settled now from what is being sent.
async fn end_waiting<S: Sql + Ledger>(store: &S, matches: &[Match], at: Timestamp) -> Result<Ended, StoreError> {
    let mut ended = Ended::default();
    if matches.is_empty() {
        return Ok(ended);
    }
    let places: Vec<_> = (1..=matches.len()).map(|n| format!("${n}")).collect();
    let query = format!(
        "SELECT n.id, n.channel, n.recipient, n.batch_id, w.state FROM notifications n JOIN work w ON w.id = n.id
         WHERE n.id IN ({})",
        places.join(", ")
    );
    let ids = matches.iter().map(|one| one.id.into()).collect();
    for row in store.read(DOING, query, ids).await? {
        let (id, recipient) = (row.uuid(0)?, row.text(2)?);
        let is_settled = match row.word(4, Status::from_code)? {
            Status::Sending => false,
            status if status.may_become(Status::Cancelled) => {
                let settle = Settle {
                    epoch: NO_EPOCH,
                    id: NotificationId(id),
                    batch: row.opt_uuid(3)?.map(BatchId),
                    status: Status::Cancelled,
                    at,
                    actor: ACTOR.into(),
                    reason: personal::ERASED.into(),
                };
                store.settle(settle).await?
            }
            _ => true,
        };
        if !is_settled {
            ended.sending.push(id);
            continue;
        }
        let is_to_person = matches.iter().any(|one| one.id == id && one.is_to_person);
        let to = is_to_person.then(|| Ok((row.word(1, Channel::from_code)?, recipient.clone()))).transpose()?;
        ended.settled.push(Settled { id, to, recipient });
    }
    Ok(ended)
}

fn hash_opt_outs(settled: &[Settled]) -> impl Iterator<Item = Statement> {
    let addresses = settled.iter().filter(|one| !one.is_erased()).filter_map(|one| one.to.as_ref());
    addresses.flat_map(|(channel, address)| suppressions::hash(*channel, address))
}

fn erasure(row: &Row) -> Result<Erasure, StoreError> {
    let kind = row.word(1, RecordKind::from_code)?;
    Ok(Erasure {
        id: ErasureId(row.uuid(0)?),
        kind,
        record: records::kept_id(kind, &row.text(2)?)?,
        requested_at: row.time(3)?,
        done_at: row.opt_time(4)?,
        notifications: u64::try_from(row.int(5)?).unwrap_or(0),
    })
}
