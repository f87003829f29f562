//! What of a notification is about a person, and how it goes: whom it went to, what it said, and the providers' words
//! about it. What is left proves that it was sent and how that ended: times, outcomes, codes, hashes, counts.

use uuid::Uuid;

use super::sql::{ColumnType, RowsStatement, Statement};
use crate::domain::RecordKind;

/// What stands where an address was.
pub const ERASED: &str = "erased";

const IDS: &[(&str, ColumnType)] = &[("id", ColumnType::Id)];

// A provider's message id and words may hold the address; what a person wrote as a reason may hold anything.
const PARTS: &[&str] = &[
    "UPDATE notifications SET recipient = 'erased', body = NULL, data = NULL, metadata = NULL, external_id = NULL
     FROM ROWS given WHERE notifications.id = given.id",
    "UPDATE attempts SET provider_message_id = NULL, detail = NULL
     FROM ROWS given WHERE attempts.notification_id = given.id",
    "UPDATE failed SET detail = NULL, reason = NULL FROM ROWS given WHERE failed.id = given.id",
    "UPDATE events SET reason = 'erased' FROM ROWS given
     WHERE events.notification_id = given.id AND events.actor NOT IN ('accept', 'worker', 'erasure')",
];

/// Takes the personal part out of settled notifications. Done again, it changes nothing.
pub(super) fn erase(ids: &[Uuid]) -> impl Iterator<Item = Statement> {
    let rows: Vec<_> = ids.iter().map(|id| vec![(*id).into()]).collect();
    PARTS.iter().map(move |sql| Statement::of_rows(RowsStatement { sql, columns: IDS }, rows.clone()))
}

/// Takes the id of a record out of notifications about it: for an id that is an address.
pub(super) fn erase_id(kind: RecordKind, record: &str, ids: &[Uuid]) -> Option<Statement> {
    const COLUMNS: &[(&str, ColumnType)] = &[("id", ColumnType::Id), ("record", ColumnType::Text)];
    let sql = match kind {
        RecordKind::Contact => {
            "UPDATE notifications SET contact_id = 'erased' FROM ROWS given
             WHERE notifications.id = given.id AND notifications.contact_id = given.record"
        }
        RecordKind::Deal => {
            "UPDATE notifications SET deal_id = 'erased' FROM ROWS given
             WHERE notifications.id = given.id AND notifications.deal_id = given.record"
        }
        RecordKind::Company => {
            "UPDATE notifications SET company_id = 'erased' FROM ROWS given
             WHERE notifications.id = given.id AND notifications.company_id = given.record"
        }
        RecordKind::Lead => return None,
    };
    let rows = ids.iter().map(|id| vec![(*id).into(), record.into()]).collect();
    Some(Statement::of_rows(RowsStatement { sql, columns: COLUMNS }, rows))
}
