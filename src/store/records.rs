//! The CRM records kept here: contacts, leads, deals, companies.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use super::StoreError;
use super::fields::{self, HasKnownFields};
use super::search::{Search, words_of};
use super::sql::{ColumnType, GivenRows, Row, RowsStatement, Sql, Statement, Value};
use crate::domain::{Channel, Record, RecordId, RecordKind};

/// Records read or written in one call at most.
pub const RECORDS_AT_ONCE: usize = 500;

/// Each round somebody gets through: this many others would have to write the same record at once.
const ROUNDS: usize = 100;

/// Records, each with its whole content; the ledger's notifications name them by id and hold no copy.
#[async_trait]
pub trait Records: Send + Sync {
    /// Writes up to [`RECORDS_AT_ONCE`] of one kind, durable when it returns; after an error some may be written, each
    /// of them in full. The answer says of each, in order, what became of it. An id given twice is written twice, in
    /// order. A record that stays what it was is not touched. What others write at the same time is merged, not lost.
    async fn save_records(
        &self,
        kind: RecordKind,
        records: Vec<Record>,
        how: SaveHow,
        at: Timestamp,
    ) -> Result<Vec<Saved>, StoreError>;

    /// Those of the ids that are there, in no order. One query, however many.
    async fn records(&self, kind: RecordKind, ids: Vec<RecordId>) -> Result<Vec<KeptRecord>, StoreError>;

    /// A page in order of id, after the given one.
    async fn list_records(
        &self,
        kind: RecordKind,
        filter: RecordFilter,
        after: Option<RecordId>,
        limit: u32,
    ) -> Result<Vec<KeptRecord>, StoreError>;

    /// Whether there was one. What was sent about it stays: [`Erasures`](super::Erasures) is for that.
    async fn delete_record(&self, kind: RecordKind, id: RecordId) -> Result<bool, StoreError>;

    /// The names of fields that saved records of this kind had, `id` among them, sorted; records within records as
    /// `address.city`, as deep as two. A name that looks like data, a phone number say, is none. Empty as long as there was no record. For checks of templates.
    async fn record_fields(&self, kind: RecordKind) -> Result<Vec<String>, StoreError>;
}

/// What becomes of fields that a new record does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveHow {
    /// They stay; a null takes one away.
    Merge,
    /// They go.
    Replace,
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saved {
    Created,
    Updated,
    Unchanged,
    /// Merged, it would be more than a record may be.
    Refused(String),
}

/// What a list is narrowed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// Records with this address on this channel, exactly.
    pub address: Option<(Channel, String)>,
    /// Records that hold a word beginning with each of these words, in any field, whatever the case.
    pub text: Option<String>,
}

/// A record with its times.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptRecord {
    pub record: Record,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

const COLUMNS: &str = "id, fields, revision, created_at, updated_at";

const NEW_COLUMNS: &[(&str, ColumnType)] = &[
    ("kind", ColumnType::Small),
    ("id", ColumnType::Text),
    ("revision", ColumnType::Big),
    ("at", ColumnType::Big),
    ("phone", ColumnType::Text),
    ("email", ColumnType::Text),
    ("chat_id", ColumnType::Text),
    ("contact_id", ColumnType::Text),
    ("fields", ColumnType::Text),
    ("words", ColumnType::Words),
];

/// One that somebody else made meanwhile is not returned.
const INSERT: RowsStatement = RowsStatement {
    sql: "INSERT INTO records
              (kind, id, revision, created_at, updated_at, phone, email, chat_id, contact_id, fields, words)
          SELECT kind, id, revision, at, at, phone, email, chat_id, contact_id, fields, words
          FROM ROWS given WHERE true ON CONFLICT (kind, id) DO NOTHING RETURNING id",
    columns: NEW_COLUMNS,
};

/// One that somebody else changed or deleted meanwhile is not returned.
const UPDATE: RowsStatement = RowsStatement {
    sql: "UPDATE records SET revision = given.revision + 1, updated_at = given.at, phone = given.phone,
              email = given.email, chat_id = given.chat_id, contact_id = given.contact_id, fields = given.fields,
              words = given.words
          FROM ROWS given
          WHERE records.kind = given.kind AND records.id = given.id AND records.revision = given.revision
          RETURNING records.id",
    columns: NEW_COLUMNS,
};

#[async_trait]
impl<S: Sql + HasKnownFields> Records for S {
    async fn save_records(
        &self,
        kind: RecordKind,
        records: Vec<Record>,
        how: SaveHow,
        at: Timestamp,
    ) -> Result<Vec<Saved>, StoreError> {
        const DOING: &str = "saving records";
        fields::load(self, kind).await?;
        // Of what is saved; what is refused leaves nothing.
        let mut names = BTreeSet::new();
        let mut saved = vec![Saved::Unchanged; records.len()];
        // Sorted by id, so that two who write the same ones lock them in the same order.
        let mut waiting: BTreeMap<RecordId, Vec<(usize, Record)>> = BTreeMap::new();
        for (place, record) in records.into_iter().enumerate() {
            waiting.entry(record.id.clone()).or_default().push((place, record));
        }
        for _ in 0..ROUNDS {
            let mut present: HashMap<_, _> = read(self, kind, waiting.keys().cloned().collect())
                .await?
                .into_iter()
                .map(|found| (found.kept.record.id.clone(), found))
                .collect();
            let (mut inserts, mut updates) = (Vec::new(), Vec::new());
            let mut coming = HashMap::new();
            waiting.retain(|id, given| {
                let found = present.remove(id);
                if let Some(found) = &found {
                    fields::add_new(self, &found.kept.record, &mut names);
                }
                let revision = found.as_ref().map(|found| found.revision);
                let Some(record) = apply(found, given, how, &mut saved) else { return false };
                fields::add_new(self, &record, coming.entry(id.clone()).or_default());
                let row = |revision| new_row(&record, revision, at);
                match revision {
                    None => inserts.push(row(at.as_microsecond())),
                    Some(revision) => updates.push(row(revision)),
                }
                true
            });
            let inserted = self.write_rows(DOING, INSERT, inserts).await?;
            let updated = self.write_rows(DOING, UPDATE, updates).await?;
            for row in inserted.iter().chain(&updated) {
                let id = kept_id(kind, &row.text(0)?)?;
                waiting.remove(&id);
                names.extend(coming.remove(&id).unwrap_or_default());
            }
            if waiting.is_empty() {
                fields::remember(self, kind, names).await?;
                return Ok(saved);
            }
        }
        Err(StoreError::unavailable(DOING, "others kept changing the same records"))
    }

    async fn records(&self, kind: RecordKind, ids: Vec<RecordId>) -> Result<Vec<KeptRecord>, StoreError> {
        Ok(read(self, kind, ids).await?.into_iter().map(|found| found.kept).collect())
    }

    async fn list_records(
        &self,
        kind: RecordKind,
        filter: RecordFilter,
        after: Option<RecordId>,
        limit: u32,
    ) -> Result<Vec<KeptRecord>, StoreError> {
        const DOING: &str = "listing records";
        let mut values: Vec<Value> = vec![kind.code().into(), after.as_ref().map_or("", RecordId::as_str).into()];
        let mut conditions = vec!["kind = $1 AND id > $2".to_owned()];
        let mut table = "records".to_owned();
        if let Some((channel, address)) = &filter.address {
            if address.contains('\0') {
                // PostgreSQL takes no such text; and nobody has such an address.
                return Ok(Vec::new());
            }
            values.push(address.as_str().into());
            conditions.push(format!("{} = ${}", address_column(*channel), values.len()));
        }
        if let Some(search) = filter.text.as_deref().and_then(|text| Search::parse(kind, text)) {
            let syntax = self.search_syntax();
            let text = search.text(syntax);
            // An address leaves few to look at, and has an index of its own.
            let are_many = filter.address.is_some() || {
                let query = syntax.are_many.replace("PLACE", "$1");
                !self.read(DOING, query, vec![text.as_str().into()]).await?.is_empty()
            };
            if are_many {
                conditions.push(search.condition(syntax, &mut values));
            } else {
                values.push(text.into());
                let place = format!("${}", values.len());
                table = syntax.few.0.replace("PLACE", &place);
                conditions.push(syntax.few.1.replace("PLACE", &place));
            }
        }
        values.push(i64::from(limit).into());
        let sql = format!(
            "SELECT {COLUMNS} FROM {table} WHERE {} ORDER BY id LIMIT ${}",
            conditions.join(" AND "),
            values.len()
        );
        let rows = self.read(DOING, sql, values).await?;
        rows.iter().map(|row| found(kind, row).map(|found| found.kept)).collect()
    }

    async fn delete_record(&self, kind: RecordKind, id: RecordId) -> Result<bool, StoreError> {
        let delete = Statement::new(
            "DELETE FROM records WHERE kind = $1 AND id = $2 RETURNING id",
            vec![kind.code().into(), id.as_str().into()],
        );
        let rows = self.write("deleting a record", vec![delete]).await?;
        Ok(!rows[0].is_empty())
    }

    async fn record_fields(&self, kind: RecordKind) -> Result<Vec<String>, StoreError> {
        fields::written(self, kind).await
    }
}

/// Changes those of the records that are there, whoever else saves them at the same time. `clear` says whether it
/// changed anything.
pub(super) async fn clear_fields(
    sql: &impl Sql,
    kind: RecordKind,
    ids: Vec<RecordId>,
    at: Timestamp,
    clear: impl Fn(&mut Map<String, Json>) -> bool + Send + Sync,
) -> Result<(), StoreError> {
    const DOING: &str = "clearing fields of records";
    let mut waiting = ids;
    for _ in 0..ROUNDS {
        let mut changes = Vec::new();
        for found in read(sql, kind, std::mem::take(&mut waiting)).await? {
            let mut fields = found.kept.record.fields().clone();
            if clear(&mut fields) {
                waiting.push(found.kept.record.id.clone());
                changes.push(new_row(&Record::from_kept(kind, found.kept.record.id, fields), found.revision, at));
            }
        }
        for row in sql.write_rows(DOING, UPDATE, changes).await? {
            let id = kept_id(kind, &row.text(0)?)?;
            waiting.retain(|waiting| *waiting != id);
        }
        if waiting.is_empty() {
            return Ok(());
        }
    }
    Err(StoreError::unavailable(DOING, "others kept changing the same records"))
}

/// A record as it was found, and what to hold a change against.
struct Found {
    kept: KeptRecord,
    json: String,
    revision: i64,
}

const WANTED: &[(&str, ColumnType)] = &[("wanted_kind", ColumnType::Small), ("record_id", ColumnType::Text)];

async fn read(sql: &impl Sql, kind: RecordKind, mut ids: Vec<RecordId>) -> Result<Vec<Found>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    // A join gives a row for each time an id is asked for.
    ids.sort_unstable();
    ids.dedup();
    let look_up = sql.look_up(COLUMNS, "ROWS given", "records", "kind = wanted_kind AND id = record_id");
    let rows = ids.iter().map(|id| vec![kind.code().into(), id.as_str().into()]).collect();
    let rows = sql.read_rows("reading records", look_up, GivenRows { columns: WANTED, rows }).await?;
    rows.iter().map(|row| found(kind, row)).collect()
}

/// What is to be kept of a record after all that was given for it, and into `saved` what became of each; `None` when
/// it stays what it was.
fn apply(found: Option<Found>, given: &[(usize, Record)], how: SaveHow, saved: &mut [Saved]) -> Option<Record> {
    let (was, mut now) = found.map_or((None, None), |found| (Some(found.json), Some(found.kept.record)));
    let mut changed = false;
    for (place, record) in given {
        let newer = match (&now, how) {
            (Some(now), SaveHow::Merge) => now.clone().merged(record.clone()),
            _ => Ok(record.clone().without_nulls()),
        };
        saved[*place] = match (newer, &now) {
            (Err(problem), _) => Saved::Refused(problem.to_string()),
            (Ok(newer), Some(now)) if newer == *now => Saved::Unchanged,
            (Ok(newer), before) => {
                // A float may come back from its text as its neighbour; its text stays the same.
                let is_same = !changed && was.as_deref().is_some_and(|was| was == json_of(&newer));
                let became = match (is_same, before) {
                    (true, _) => Saved::Unchanged,
                    (false, Some(_)) => Saved::Updated,
                    (false, None) => Saved::Created,
                };
                changed |= !is_same;
                now = Some(newer);
                became
            }
        };
    }
    now.filter(|_| changed)
}

fn new_row(record: &Record, revision: i64, at: Timestamp) -> Vec<Value> {
    vec![
        record.kind.code().into(),
        record.id.as_str().into(),
        revision.into(),
        at.into(),
        record.text("phone").into(),
        record.text("email").into(),
        record.address(Channel::Telegram).into(),
        record.link("contactId").as_ref().map(RecordId::as_str).into(),
        json_of(record).into(),
        words_of(record).into(),
    ]
}

fn json_of(record: &Record) -> String {
    serde_json::to_string(record.fields()).expect("a JSON object can be printed")
}

const fn address_column(channel: Channel) -> &'static str {
    match channel {
        Channel::WhatsApp | Channel::Sms => "phone",
        Channel::Email => "email",
        Channel::Telegram => "chat_id",
    }
}

/// A record from its [`COLUMNS`].
fn found(kind: RecordKind, row: &Row) -> Result<Found, StoreError> {
    let json = row.text(1)?;
    let fields = serde_json::from_str(&json).map_err(|error| StoreError::refused("reading a record", error))?;
    let record = Record::from_kept(kind, kept_id(kind, &row.text(0)?)?, fields);
    let kept = KeptRecord { record, created_at: row.time(3)?, updated_at: row.time(4)? };
    Ok(Found { kept, json, revision: row.int(2)? })
}

pub(super) fn kept_id(kind: RecordKind, text: &str) -> Result<RecordId, StoreError> {
    RecordId::parse(kind, text).map_err(|error| StoreError::refused("reading a record's id", error))
}
