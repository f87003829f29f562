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
const MOST_NAMES: usize = 500;
/// As many digits make a name a phone number, wherever it is from, or a date and time: data, not a name.
const MOST_DIGITS: usize = 8;
/// A name of a field within a field: as long as a record's own may be.
const LONGEST_NAME_BYTES: usize = 100;

const ID: &str = "id";

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

/// Reads what is written, once in a process's life.
pub(super) async fn load(sql: &(impl Sql + HasKnownFields), kind: RecordKind) -> Result<(), StoreError> {
    let was_read = sql.known_fields().of(kind).is_some();
    if !was_read {
        let written = written(sql, kind).await?;
        sql.known_fields().of(kind).get_or_insert_default().extend(written);
    }
    Ok(())
}

/// Adds the names of a record that are not known yet.
pub(super) fn add_new(sql: &impl HasKnownFields, record: &Record, new: &mut BTreeSet<String>) {
    let mut known = sql.known_fields().of(record.kind);
    let known = known.get_or_insert_default();
    if !known.contains(ID) {
        new.insert(ID.to_owned());
    }
    if known.len() < MOST_NAMES {
        add_names(record.fields(), known, new);
    }
}

/// Writes names that were not there yet, of records that are saved.
pub(super) async fn remember(
    sql: &(impl Sql + HasKnownFields),
    kind: RecordKind,
    mut new: BTreeSet<String>,
) -> Result<(), StoreError> {
    const INSERT: RowsStatement = RowsStatement {
        sql: "INSERT INTO record_fields (kind, field) SELECT given.kind, given.field FROM ROWS given WHERE true
              ON CONFLICT (kind, field) DO NOTHING RETURNING field",
        columns: &[("kind", ColumnType::Small), ("field", ColumnType::Text)],
    };
    let room = MOST_NAMES.saturating_sub(sql.known_fields().of(kind).as_ref().map_or(0, HashSet::len));
    let id = new.take(ID);
    let new: Vec<_> = id.into_iter().chain(new).take(room).collect();
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
    for (name, value) in fields.iter().filter(|(name, value)| looks_like_name(name) && !value.is_null()) {
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

/// A record's own name may be any text; one that is an address, or only numbers, is data.
fn looks_like_name(text: &str) -> bool {
    text.contains(char::is_alphabetic)
        && !text.contains('@')
        && text.chars().filter(|letter| letter.is_numeric()).count() <= MOST_DIGITS
}

/// What a template can ask for after a dot. Anything else is data: a phone number that a note belongs to, say.
fn is_name(text: &str) -> bool {
    text.len() <= LONGEST_NAME_BYTES
        && looks_like_name(text)
        && text.starts_with(|first: char| first.is_alphabetic() || first == '_')
        && text.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
}
