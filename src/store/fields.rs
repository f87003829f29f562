//! The names of fields that records had: what a template may ask for.
//!
//! A name is written once; what this process has written or read is remembered, so that an import asks for nothing.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value as Json};

use super::StoreError;
use super::sql::{ColumnType, RowsStatement, Sql};
use crate::domain::{Record, RecordKind};

/// Names of one kind at most: a CRM that puts data into names does not fill the ledger with them.
const MOST_NAMES: usize = 2000;
/// A name of a field within a field: as long as a record's own may be.
const LONGEST_NAME_BYTES: usize = 100;

/// The names known to be written, for each kind of which any were looked at.
#[derive(Default)]
pub(super) struct KnownFields([Mutex<Option<HashSet<String>>>; RecordKind::ALL.len()]);

impl KnownFields {
    fn of(&self, kind: RecordKind) -> std::sync::MutexGuard<'_, Option<HashSet<String>>> {
        let place = RecordKind::ALL.iter().position(|one| *one == kind).expect("ALL has every kind");
        self.0[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) trait HasKnownFields {
    fn known_fields(&self) -> &KnownFields;
}

/// Writes the names that were not there yet.
pub(super) async fn remember(
    sql: &(impl Sql + HasKnownFields),
    kind: RecordKind,
    records: &[Record],
) -> Result<(), StoreError> {
    const INSERT: RowsStatement = RowsStatement {
        sql: "INSERT INTO record_fields (kind, field) SELECT given.kind, given.field FROM ROWS given WHERE true
              ON CONFLICT (kind, field) DO NOTHING RETURNING field",
        columns: &[("kind", ColumnType::Small), ("field", ColumnType::Text)],
    };
    let was_read = sql.known_fields().of(kind).is_some();
    if !was_read {
        let written = written(sql, kind).await?;
        sql.known_fields().of(kind).get_or_insert_default().extend(written);
    }
    let new = {
        let known = sql.known_fields();
        let known = known.of(kind);
        let known = known.as_ref().expect("it was filled above, and nobody empties it");
        let mut new = BTreeSet::new();
        for record in records {
            add_names(record.fields(), known, &mut new);
        }
        new.extend((known.is_empty() && !records.is_empty()).then(|| "id".to_owned()));
        new.into_iter().take(MOST_NAMES.saturating_sub(known.len())).collect::<Vec<_>>()
    };
    if new.is_empty() {
        return Ok(());
    }
    let rows = new.iter().map(|name| vec![kind.code().into(), name.as_str().into()]).collect();
    sql.write_rows("saving names of fields", INSERT, rows).await?;
    sql.known_fields().of(kind).get_or_insert_default().extend(new);
    Ok(())
}

/// See [`Records::record_fields`](super::Records::record_fields).
pub(super) async fn written(sql: &impl Sql, kind: RecordKind) -> Result<Vec<String>, StoreError> {
    let query = "SELECT field FROM record_fields WHERE kind = $1 ORDER BY field";
    let rows = sql.read("reading names of fields", query.into(), vec![kind.code().into()]).await?;
    rows.iter().map(|row| row.text(0)).collect()
}

fn add_names(fields: &Map<String, Json>, known: &HashSet<String>, new: &mut BTreeSet<String>) {
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        if !known.contains(name) {
            new.insert(name.clone());
        }
        let Json::Object(inner) = value else { continue };
        for inner in inner.iter().filter(|(inner, value)| is_name(inner) && !value.is_null()).map(|(inner, _)| inner) {
            let path = format!("{name}.{inner}");
            if !known.contains(&path) {
                new.insert(path);
            }
        }
    }
}

/// What a template can ask for after a dot. Anything else is data: a phone number that a note belongs to, say.
fn is_name(text: &str) -> bool {
    text.len() <= LONGEST_NAME_BYTES
        && text.starts_with(|first: char| first.is_alphabetic() || first == '_')
        && text.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
}
