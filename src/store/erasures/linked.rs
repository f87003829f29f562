//! A contact's leads and deals: leads go, and deals lose the person's addresses. A few at a time, each few in a commit
//! of their own. First all deals are looked at, so that an address in one of them is found in the others.

use jiff::Timestamp;

use super::{CLEARED, DOING, ErasureId, ErasureStep, Open, RECORD, Step, addresses, guard, move_on};
use crate::domain::{RecordId, RecordKind};
use crate::store::StoreError;
use crate::store::ledger::Urgency;
use crate::store::records::{self, clear_fields};
use crate::store::sql::{ColumnType, RowsStatement, Sql, Statement, Value};

/// Taken away in one commit: the index of words makes it dear.
const LEADS_AT_ONCE: i64 = 4;
/// Remembered in one commit.
const DEALS_AT_ONCE: i64 = 50;
/// Changed at once; the writer takes them as it takes an import.
const CLEARED_AT_ONCE: i64 = 20;

/// The fields of a deal that hold an address, whatever it is.
const ADDRESSES: &[&str] = &["phone", "email", "telegramChatId"];

const LINKED: &[(&str, ColumnType)] = &[
    ("erasure", ColumnType::Id),
    ("kind", ColumnType::Small),
    ("id", ColumnType::Text),
    ("contact", ColumnType::Text),
];

/// Of records that are still linked as they were found.
macro_rules! remember {
    ($what:literal, $column:literal) => {
        RowsStatement {
            sql: concat!(
                "INSERT INTO erasing (erasure, what, value) SELECT given.erasure, ",
                $what,
                ", records.",
                $column,
                " FROM ROWS given JOIN records ON records.kind = given.kind AND records.id = given.id
                 WHERE (given.contact IS NULL OR records.contact_id = given.contact) AND records.",
                $column,
                " IS NOT NULL ON CONFLICT DO NOTHING"
            ),
            columns: LINKED,
        }
    };
}

const REMEMBER: [RowsStatement; 4] =
    [remember!("1", "phone"), remember!("2", "email"), remember!("3", "chat_id"), remember!("10 + records.kind", "id")];

/// Whoever saves one of them at the same time comes before all of this, or finds it gone.
const LOCK: RowsStatement = RowsStatement {
    sql: "UPDATE records SET revision = records.revision + 1 FROM ROWS given
          WHERE records.kind = given.kind AND records.id = given.id
            AND (given.contact IS NULL OR records.contact_id = given.contact)",
    columns: LINKED,
};

const DELETE: RowsStatement = RowsStatement {
    sql: "DELETE FROM records WHERE (kind, id) IN (
              SELECT r.kind, r.id FROM ROWS given JOIN records r ON r.kind = given.kind AND r.id = given.id
              WHERE given.contact IS NULL OR r.contact_id = given.contact)",
    columns: LINKED,
};

/// Takes a record away and remembers its addresses.
pub(super) fn take_away(id: ErasureId, kind: RecordKind, record: &RecordId) -> Vec<Statement> {
    taking_away(vec![vec![id.0.into(), kind.code().into(), record.as_str().into(), Value::Null]])
}

fn taking_away(rows: Vec<Vec<Value>>) -> Vec<Statement> {
    let all = [LOCK].into_iter().chain(REMEMBER).chain([DELETE]);
    all.map(|statement| Statement::of_rows(statement, rows.clone())).collect()
}

/// The next few leads go.
pub(super) async fn take_leads(sql: &impl Sql, erasure: &Open) -> Result<ErasureStep, StoreError> {
    let query = "SELECT id FROM records WHERE kind = $1 AND contact_id = $2 ORDER BY id LIMIT $3";
    let values = vec![RecordKind::Lead.code().into(), erasure.record.as_str().into(), LEADS_AT_ONCE.into()];
    let leads = texts(sql, query, values).await?;
    if leads.is_empty() {
        return move_on(sql, erasure, Step::Deals).await;
    }
    let mut statements = vec![guard(erasure)];
    statements.extend(taking_away(linked(erasure, RecordKind::Lead, leads)));
    sql.write_as(DOING, Urgency::Bulk, statements).await?;
    Ok(ErasureStep::Went)
}

/// The next few deals and what they hold are remembered.
pub(super) async fn remember_deals(sql: &impl Sql, erasure: &Open) -> Result<ErasureStep, StoreError> {
    let query = "SELECT id FROM records WHERE kind = $1 AND contact_id = $2
                 AND id > COALESCE((SELECT max(value) FROM erasing WHERE erasure = $3 AND what = $4), '')
                 ORDER BY id LIMIT $5";
    let deal = RecordKind::Deal.code();
    let seen = [erasure.id.0.into(), (RECORD + deal).into(), DEALS_AT_ONCE.into()];
    let values = [vec![deal.into(), erasure.record.as_str().into()], seen.into()].concat();
    let deals = texts(sql, query, values).await?;
    if deals.is_empty() {
        return move_on(sql, erasure, Step::Fields).await;
    }
    let rows = linked(erasure, RecordKind::Deal, deals);
    let mut statements = vec![guard(erasure)];
    statements.extend(REMEMBER.map(|statement| Statement::of_rows(statement, rows.clone())));
    sql.write_as(DOING, Urgency::Bulk, statements).await?;
    Ok(ErasureStep::Went)
}

/// The next few deals stay, without the person's addresses.
pub(super) async fn clear_deals(sql: &impl Sql, erasure: &Open, at: Timestamp) -> Result<ErasureStep, StoreError> {
    let query = "SELECT value FROM erasing WHERE erasure = $1 AND what = $2
                 AND value > COALESCE((SELECT max(value) FROM erasing WHERE erasure = $1 AND what = $3), '')
                 ORDER BY value LIMIT $4";
    let what = RECORD + RecordKind::Deal.code();
    let values = vec![erasure.id.0.into(), what.into(), CLEARED.into(), CLEARED_AT_ONCE.into()];
    let deals = texts(sql, query, values).await?;
    let Some(last) = deals.last() else { return move_on(sql, erasure, Step::Notifications).await };
    let ids = deals.iter().map(|id| records::kept_id(RecordKind::Deal, id)).collect::<Result<Vec<_>, _>>()?;
    let known = addresses(sql, erasure).await?;
    clear_fields(sql, RecordKind::Deal, ids, at, |fields| {
        let had = fields.len();
        fields.retain(|name, _| !ADDRESSES.contains(&name.as_str()));
        known.take_out(fields) || fields.len() < had
    })
    .await?;
    let cleared = Statement::new(
        "INSERT INTO erasing (erasure, what, value) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        vec![erasure.id.0.into(), CLEARED.into(), last.as_str().into()],
    );
    sql.write_as(DOING, Urgency::Bulk, vec![guard(erasure), cleared]).await?;
    Ok(ErasureStep::Went)
}

fn linked(erasure: &Open, kind: RecordKind, ids: Vec<String>) -> Vec<Vec<Value>> {
    let contact = erasure.record.as_str();
    ids.into_iter().map(|id| vec![erasure.id.0.into(), kind.code().into(), id.into(), contact.into()]).collect()
}

async fn texts(sql: &impl Sql, query: &str, values: Vec<Value>) -> Result<Vec<String>, StoreError> {
    sql.read(DOING, query.into(), values).await?.iter().map(|row| row.text(0)).collect()
}
