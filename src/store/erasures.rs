//! Erasing a person: what was known of them goes, what was done stays countable.
//!
//! A request takes the record away at once and remembers its addresses. What is left is done in small steps that may be
//! cut off anywhere: a contact's leads and deals come first; then notifications are gone through once, from the newest
//! to the oldest, and those that are being sent are come back to. Opt-outs survive as hashes, so that nobody is written to by mistake afterwards. When
//! all is done the addresses are forgotten.

mod linked;
mod sent;

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use super::ledger::{Ledger, Urgency};
use super::mentions::Addresses;
use super::records;
use super::sql::{Row, Sql, Statement};
use super::{StoreError, personal, suppressions};
use crate::domain::{Channel, ErasureId, RecordId, RecordKind};

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
    /// Erases a record, there or not: it is gone when this returns. The rest, a contact's leads and the addresses in
    /// its deals first, is [`erase_some`](Self::erase_some)'s, and will be done whatever happens.
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

const DOING: &str = "erasing personal data";
const COLUMNS: &str = "id, kind, record_id, requested_at, done_at, notifications";

// What is remembered (`erasing.what`): 1 phone, 2 email, 3 chat, 10 and the kind's code for a record, 20 a notification
// that was being sent, 21 a deal up to which all are cleared.
const PHONE: i16 = 1;
const EMAIL: i16 = 2;
const CHAT: i16 = 3;
const RECORD: i16 = 10;
const SENDING: i16 = 20;
const CLEARED: i16 = 21;

/// What is being done (`erasures.step`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Leads,
    Deals,
    Fields,
    Notifications,
    Sending,
}

impl Step {
    const fn code(self) -> i16 {
        match self {
            Step::Leads => 1,
            Step::Deals => 2,
            Step::Fields => 3,
            Step::Notifications => 4,
            Step::Sending => 5,
        }
    }

    fn from_code(code: i16) -> Option<Self> {
        const ALL: [Step; 5] = [Step::Leads, Step::Deals, Step::Fields, Step::Notifications, Step::Sending];
        ALL.into_iter().find(|step| step.code() == code)
    }
}

/// An erasure that is not done.
struct Open {
    id: ErasureId,
    kind: RecordKind,
    record: RecordId,
    step: Step,
    /// Notifications from it on are done.
    cursor: Uuid,
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
        let step = if kind == RecordKind::Contact { Step::Leads } else { Step::Notifications };
        let mut statements = vec![
            Statement::new(
                "INSERT INTO erasures (id, kind, record_id, step, cursor, notifications, requested_at)
                 VALUES ($1, $2, $3, $4, $5, 0, $6)",
                vec![
                    erasure.id.0.into(),
                    kind.code().into(),
                    id.as_str().into(),
                    step.code().into(),
                    Uuid::max().into(),
                    at.into(),
                ],
            ),
            Statement::new(
                "INSERT INTO erasing (erasure, what, value) VALUES ($1, $2, $3)",
                vec![erasure.id.0.into(), (RECORD + kind.code()).into(), id.as_str().into()],
            ),
        ];
        statements.extend(linked::take_away(erasure.id, kind, &id));
        self.write(DOING, statements).await?;
        Ok(erasure)
    }

    async fn erase_some(&self, limit: u32, at: Timestamp) -> Result<ErasureStep, StoreError> {
        /// Those that wait must not hide others behind them.
        const ERASURES: i64 = 1000;
        let sql = "SELECT id, kind, record_id, step, cursor FROM erasures WHERE done_at IS NULL ORDER BY id LIMIT $1";
        let mut came_to = ErasureStep::Idle;
        for row in self.read(DOING, sql.into(), vec![ERASURES.into()]).await? {
            let kind = row.word(1, RecordKind::from_code)?;
            let erasure = Open {
                id: ErasureId(row.uuid(0)?),
                kind,
                record: records::kept_id(kind, &row.text(2)?)?,
                step: row.word(3, Step::from_code)?,
                cursor: row.uuid(4)?,
            };
            let step = match erasure.step {
                Step::Leads => linked::take_leads(self, &erasure).await?,
                Step::Deals => linked::remember_deals(self, &erasure).await?,
                Step::Fields => linked::clear_deals(self, &erasure, at).await?,
                Step::Notifications => sent::go_on(self, &erasure, limit.max(1), at).await?,
                Step::Sending => sent::come_back(self, &erasure, at).await?,
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

/// Nobody else has come further meanwhile.
fn guard(erasure: &Open) -> Statement {
    Statement::guard(
        "UPDATE erasures SET step = $2 WHERE id = $1 AND step = $2 RETURNING id",
        vec![erasure.id.0.into(), erasure.step.code().into()],
    )
}

async fn move_on(sql: &impl Sql, erasure: &Open, step: Step) -> Result<ErasureStep, StoreError> {
    let next = Statement::new(
        "UPDATE erasures SET step = $3 WHERE id = $1 AND step = $2",
        vec![erasure.id.0.into(), erasure.step.code().into(), step.code().into()],
    );
    sql.write_as(DOING, Urgency::Bulk, vec![next]).await?;
    Ok(ErasureStep::Went)
}

/// What is remembered of the person's addresses, and their id if it is one.
async fn addresses(sql: &impl Sql, erasure: &Open) -> Result<Addresses, StoreError> {
    let query = "SELECT what, value FROM erasing WHERE erasure = $1 AND what IN (1, 2, 3)";
    let mut found = Addresses::default();
    found.add_id(erasure.record.as_str());
    for row in sql.read(DOING, query.into(), vec![erasure.id.0.into()]).await? {
        let address = row.text(1)?;
        match row.small(0)? {
            PHONE => found.add_phone(&address),
            EMAIL => found.add_email(&address),
            _ => found.add_chat(&address),
        }
    }
    Ok(found)
}

/// Whether the record's id tells an address, and may not stay either.
async fn is_id_personal(sql: &impl Sql, erasure: &Open) -> Result<bool, StoreError> {
    Ok(erasure.kind != RecordKind::Lead && addresses(sql, erasure).await?.are_id(erasure.record.as_str()))
}

async fn finish(sql: &impl Sql, erasure: &Open, at: Timestamp) -> Result<ErasureStep, StoreError> {
    let id = erasure.id;
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
    if is_id_personal(sql, erasure).await? {
        statements.push(Statement::new(
            "UPDATE erasures SET record_id = $2 WHERE id = $1",
            vec![id.0.into(), personal::ERASED.into()],
        ));
    }
    statements.push(Statement::new("DELETE FROM erasing WHERE erasure = $1", vec![id.0.into()]));
    statements.push(Statement::new(
        "UPDATE erasures SET done_at = $2 WHERE id = $1 AND done_at IS NULL",
        vec![id.0.into(), at.into()],
    ));
    sql.write_as(DOING, Urgency::Bulk, statements).await?;
    Ok(ErasureStep::Went)
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
