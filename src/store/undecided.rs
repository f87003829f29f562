//! What waits for a person: dead letters, and notifications of which nobody knows whether they left. They are listed
//! and narrowed in the same way.

use jiff::Timestamp;

use super::batches::IS_SHOWN;
use super::lookup::Page;
use super::sql::{Row, Sql, Value};
use super::{StoreError, Urgency};
use crate::domain::{BatchId, Channel, NotificationId, ProviderError, TemplateId};

/// Changed notifications in one commit: about two milliseconds of SQLite's writer.
pub(super) const AT_ONCE: usize = 50;
/// Who decides does so on a whole list; a direct send goes first.
pub(super) const URGENCY: Urgency = Urgency::Bulk;

/// One notification that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    pub id: NotificationId,
    /// When it was given up, or since when nobody knows.
    pub at: Timestamp,
    pub channel: Channel,
    /// The account's name.
    pub account: String,
    pub cause: String,
    pub error: ProviderError,
    pub template: Option<TemplateId>,
    pub batch: Option<BatchId>,
    pub recipient: String,
    pub contact: Option<String>,
    pub external_id: Option<String>,
    pub created_at: Timestamp,
}

/// Which of them are meant: all that have everything that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UndecidedFilter {
    pub channel: Option<Channel>,
    /// Of this name, on whatever channel.
    pub account: Option<String>,
    pub cause: Option<String>,
    pub code: Option<String>,
    pub template: Option<TemplateId>,
    pub batch: Option<BatchId>,
    /// Given up, or uncertain, since this time or later.
    pub from: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// Where one kind of them is found.
pub(super) struct Kind {
    /// `f` is the small table, `n` what was asked.
    pub(super) tables: &'static str,
    pub(super) condition: &'static str,
    pub(super) at: &'static str,
    pub(super) code: &'static str,
    pub(super) detail: &'static str,
    pub(super) template: &'static str,
}

// CROSS: SQLite begins with the table named first, which is the small one.

/// 8 failed: a receipt may have corrected it since.
pub(super) const DEAD: Kind = Kind {
    tables: "failed f CROSS JOIN work w",
    condition: "w.id = f.id AND f.resolved_at IS NULL AND w.state = 8",
    at: "f.failed_at",
    code: "f.code",
    detail: "f.detail",
    template: "f.template_id",
};

pub(super) const UNCERTAIN: Kind = Kind {
    tables: "uncertain f CROSS JOIN notifications n
             LEFT JOIN attempts t ON t.notification_id = f.id AND t.n = f.attempt",
    condition: "n.id = f.id",
    at: "f.since",
    code: "t.code",
    detail: "t.detail",
    template: "n.template_id",
};

impl Kind {
    /// The conditions of a filter, whose values are added to `values`.
    pub(super) fn narrowed(&self, filter: &UndecidedFilter, values: &mut Vec<Value>) -> String {
        let is_shown = IS_SHOWN.replace("n.batch_id", "f.batch_id");
        let mut conditions = vec![self.condition.to_owned(), is_shown];
        let mut narrow = |before: &str, value: Option<Value>, after: &str| {
            if let Some(value) = value {
                values.push(value);
                conditions.push(format!("{before} ${}{after}", values.len()));
            }
        };
        let channel = filter.channel.map(|channel| channel.code().into());
        narrow("f.account IN (SELECT id FROM accounts WHERE channel =", channel, ")");
        let account = filter.account.as_deref().map(Value::from);
        narrow("f.account IN (SELECT id FROM accounts WHERE name =", account, ")");
        narrow("f.cause =", filter.cause.as_deref().map(Value::from), "");
        narrow(&format!("{} =", self.code), filter.code.as_deref().map(Value::from), "");
        let template = filter.template.as_ref().map(|template| template.as_str().into());
        narrow(&format!("{} =", self.template), template, "");
        narrow("f.batch_id =", filter.batch.map(|batch| batch.0.into()), "");
        narrow(&format!("{} >=", self.at), filter.from.map(Value::from), "");
        narrow(&format!("{} <", self.at), filter.until.map(Value::from), "");
        conditions.join(" AND ")
    }

    /// A page, newest first.
    pub(super) async fn page(
        &self,
        sql: &impl Sql,
        filter: &UndecidedFilter,
        after: Option<NotificationId>,
        limit: u32,
    ) -> Result<Page<Undecided>, StoreError> {
        let mut values = Vec::new();
        let mut conditions = self.narrowed(filter, &mut values);
        if let Some(after) = after {
            values.push(after.0.into());
            conditions.push_str(&format!(" AND f.id < ${}", values.len()));
        }
        values.push(i64::from(limit.saturating_add(1)).into());
        let Kind { tables, at, code, detail, template, .. } = self;
        let query = format!(
            "SELECT p.*, m.channel, coalesce(a.name, ''), m.recipient, m.contact_id, m.external_id, m.created_at
             FROM (SELECT f.id, {at} AS at, f.account, f.cause, {code} AS code, {detail} AS detail,
                          {template} AS template_id, f.batch_id
                   FROM {tables} WHERE {conditions} ORDER BY f.id DESC LIMIT ${}) p
             JOIN notifications m ON m.id = p.id LEFT JOIN accounts a ON a.id = p.account ORDER BY p.id DESC",
            values.len()
        );
        let rows = sql.read("listing what waits for a person", query, values).await?;
        let more = rows.len() > limit as usize;
        let items = rows.iter().take(limit as usize).map(undecided).collect::<Result<_, _>>()?;
        Ok(Page { items, more })
    }
}

fn undecided(row: &Row) -> Result<Undecided, StoreError> {
    Ok(Undecided {
        id: NotificationId(row.uuid(0)?),
        at: row.time(1)?,
        cause: row.text(3)?,
        error: ProviderError {
            code: row.opt_text(4)?.unwrap_or_default(),
            detail: row.opt_text(5)?.unwrap_or_default(),
        },
        template: template(row, 6)?,
        batch: row.opt_uuid(7)?.map(BatchId),
        channel: row.word(8, Channel::from_code)?,
        account: row.text(9)?,
        recipient: row.text(10)?,
        contact: row.opt_text(11)?,
        external_id: row.opt_text(12)?,
        created_at: row.time(13)?,
    })
}

pub(super) fn template(row: &Row, column: usize) -> Result<Option<TemplateId>, StoreError> {
    let parse =
        |id: String| TemplateId::parse(&id).map_err(|error| StoreError::refused("reading a template id", error));
    row.opt_text(column)?.map(parse).transpose()
}
