//! The embedded ledger: one SQLite file, one writer thread with group commit, used by one process.

mod accept;
mod connection;
mod open;
mod record;
mod setup;
mod take;

use std::fs::File;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params};

use self::connection::{Connections, from_sqlite};
use super::fields::{HasKnownFields, KnownFields};
use super::ledger::{Ledger, Postpone, Recover, Recovered, Settle};
use super::opens::OpenSets;
use super::sql::{Row, RowsStatement, SearchSyntax, Sql, Statement, Value, for_sqlite, ids_to_bytes};
use super::{
    Accept, Accepted, ChunkId, Condition, HandedChunk, LedgerOptions, Open, Opened, Record, Store, StoreError, TakeDue,
    Urgency, migrations, recovery,
};
use crate::domain::{AccountId, AccountRef, Clock, Epoch, IdSource};

/// See the module.
pub struct Sqlite {
    connections: Connections,
    opens: Arc<OpenSets>,
    ids: Arc<IdSource>,
    clock: Arc<dyn Clock>,
    fields: KnownFields,
    /// Held as long as the ledger is open for writing: a second process is refused, and every earlier epoch is known
    /// to be dead.
    _lock: Option<File>,
}

impl Sqlite {
    /// Opens or makes `data_dir/ledger.sqlite3`.
    pub async fn open(options: &LedgerOptions, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let (dir, normal) = (options.data_dir.clone(), options.sqlite_normal);
        let now = clock.now();
        let opened = tokio::task::spawn_blocking(move || setup::open(&dir, normal, now)).await;
        let (connections, lock) = opened.map_err(|error| StoreError::refused("opening the ledger", error))??;
        Ok(Self::new(connections, clock, Some(lock)))
    }

    /// Opens an existing ledger to look at it, beside a process that may be using it.
    pub async fn open_read_only(options: &LedgerOptions, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let path = setup::existing(&options.data_dir)?;
        let ledger = Self::new(Connections::read_only(&path), clock, None);
        let applied = ledger.read("reading the ledger's version", setup::APPLIED.into(), vec![]).await?;
        let applied =
            applied.iter().map(|row| Ok((row.int(0)?, row.text(1)?))).collect::<Result<Vec<_>, StoreError>>()?;
        migrations::must_be_current(&applied, |migration| migration.sqlite)?;
        Ok(ledger)
    }

    fn new(connections: Connections, clock: Arc<dyn Clock>, lock: Option<File>) -> Self {
        let ids = Arc::new(IdSource::new(Arc::clone(&clock)));
        Sqlite { connections, opens: Arc::default(), ids, clock, fields: KnownFields::default(), _lock: lock }
    }
}

#[async_trait]
impl Store for Sqlite {
    fn engine(&self) -> &'static str {
        "sqlite"
    }

    async fn condition(&self) -> Result<Condition, StoreError> {
        let sql = "SELECT sqlite_version(), journal_mode FROM pragma_journal_mode";
        let rows = self.read("asking SQLite how it is set up", sql.into(), vec![]).await?;
        let Some(row) = rows.first() else { return Err(StoreError::refused("asking SQLite", "it did not say")) };
        let journal = row.text(1)?;
        // `synchronous` belongs to the writer's connection, not to the file: the settings say it.
        let is_durable = journal == "wal";
        Ok(Condition { version: row.text(0)?, durability: vec![("journal_mode", journal)], is_durable, clock: None })
    }
}

#[async_trait]
impl Ledger for Sqlite {
    async fn accounts(&self, accounts: Vec<AccountRef>) -> Result<Vec<(AccountId, AccountRef)>, StoreError> {
        recovery::number_accounts(self, accounts).await
    }

    async fn begin_epoch(&self, name: String) -> Result<Epoch, StoreError> {
        let now = self.clock.now().as_microsecond();
        let begin = move |db: &Connection| {
            // The lock file is ours: whoever is in here is dead.
            let ended = db.execute("UPDATE workers SET lost_at = ?1, lease_until = 0 WHERE lost_at IS NULL", [now]);
            ended
                .and_then(|_| {
                    db.query_row(
                        "INSERT INTO workers (name, started_at, lease_until) VALUES (?1, ?2, ?3) RETURNING epoch",
                        params![name, now, i64::MAX],
                        |row| row.get(0),
                    )
                })
                .map(Epoch)
                .map_err(|error| from_sqlite("beginning an epoch", error))
        };
        self.connections.write("beginning an epoch", Urgency::Urgent, begin, drop).await
    }

    async fn renew(&self, epoch: Epoch) -> Result<(), StoreError> {
        // The lock file is the lease: it lasts as long as the process, or until the process begins anew.
        let is_live = move |db: &mut Connection| accept::is_live(db, epoch.0);
        if self.connections.read("renewing the lease", is_live).await? { Ok(()) } else { Err(StoreError::EpochLost) }
    }

    async fn end_epoch(&self, epoch: Epoch) -> Result<(), StoreError> {
        recovery::end_epoch(self, epoch).await
    }

    async fn accept(&self, accept: Accept) -> Result<Accepted, StoreError> {
        let (opens, ids) = (Arc::clone(&self.opens), Arc::clone(&self.ids));
        let urgency = accept.urgency;
        let undo_opens = Arc::clone(&self.opens);
        let run = move |db: &Connection| {
            let (accepted, opened) = accept::accept(db, &accept, &ids)?;
            if let Some(set) = opened {
                opens.opened(set, accept::opened_ids(&accept));
                return Ok((accepted, accept::opened_ids(&accept).collect()));
            }
            Ok((accepted, Vec::new()))
        };
        let undo = move |(_, opened): (Accepted, Vec<_>)| drop(undo_opens.closing(opened));
        self.connections.write("accepting", urgency, run, undo).await.map(|(accepted, _)| accepted)
    }

    async fn take_due(&self, take: TakeDue) -> Result<Vec<HandedChunk>, StoreError> {
        let now = self.clock.now();
        let run = move |db: &Connection| take::take_due(db, &take, now);
        self.connections.write("taking due work", Urgency::Bulk, run, drop).await
    }

    async fn next_due(&self) -> Result<Option<jiff::Timestamp>, StoreError> {
        recovery::next_due(self).await
    }

    async fn open(&self, open: Open) -> Result<Vec<Opened>, StoreError> {
        let (opens, ids, now) = (Arc::clone(&self.opens), Arc::clone(&self.ids), self.clock.now());
        let urgency = open.urgency;
        let undo_opens = Arc::clone(&self.opens);
        let run = move |db: &Connection| {
            let set = ids.next();
            let opened = open::open(db, &open, set, now)?;
            opens.opened(set, opened.iter().map(|opened| opened.id));
            Ok(opened)
        };
        let undo = move |opened: Vec<Opened>| drop(undo_opens.closing(opened.into_iter().map(|opened| opened.id)));
        self.connections.write("opening attempts", urgency, run, undo).await
    }

    async fn record(&self, record: Record) -> Result<Vec<bool>, StoreError> {
        let (opens, ids) = (Arc::clone(&self.opens), Arc::clone(&self.ids));
        let urgency = record.urgency;
        let undo_opens = Arc::clone(&self.opens);
        let run = move |db: &Connection| record::record(db, &record, &opens, &ids);
        let undo = move |(_, closing)| undo_opens.take_back(closing);
        self.connections.write("recording outcomes", urgency, run, undo).await.map(|(closed, _)| closed)
    }

    async fn give_back(&self, epoch: Epoch, chunk: ChunkId) -> Result<u64, StoreError> {
        recovery::give_back_one(self, epoch, chunk).await
    }

    async fn postpone(&self, postpone: Postpone) -> Result<bool, StoreError> {
        recovery::postpone(self, postpone).await
    }

    async fn settle(&self, settle: Settle) -> Result<bool, StoreError> {
        recovery::settle(self, settle).await
    }

    async fn recover(&self, recover: Recover) -> Result<Recovered, StoreError> {
        recovery::recover(self, recover).await
    }
}

impl recovery::HasIds for Sqlite {
    fn next_id(&self) -> uuid::Uuid {
        self.ids.next()
    }
}

impl HasKnownFields for Sqlite {
    fn known_fields(&self) -> &KnownFields {
        &self.fields
    }
}

impl recovery::LedgerClock for Sqlite {
    fn now_sql(&self) -> String {
        self.clock.now().as_microsecond().to_string()
    }
}

#[async_trait]
impl Sql for Sqlite {
    async fn read(&self, doing: &'static str, sql: String, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        self.connections.read(doing, move |db| query(db, doing, &for_sqlite(&sql), &values)).await
    }

    async fn write(&self, doing: &'static str, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, StoreError> {
        let run = move |db: &Connection| {
            let mut results = Vec::with_capacity(statements.len());
            for statement in &statements {
                let rows = query(db, doing, &for_sqlite(statement.sql), &statement.values)?;
                let goes_on = !statement.is_guard || !rows.is_empty();
                results.push(rows);
                if !goes_on {
                    break;
                }
            }
            Ok(results)
        };
        self.connections.write(doing, Urgency::Urgent, run, drop).await
    }

    async fn write_rows(
        &self,
        doing: &'static str,
        statement: RowsStatement,
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<Row>, StoreError> {
        let columns = statement.columns.iter().enumerate();
        let columns: Vec<_> = columns.map(|(place, (name, _))| format!("?{} AS {name}", place + 1)).collect();
        let sql: Arc<str> = statement.sql.replace("ROWS", &format!("(SELECT {})", columns.join(", "))).into();
        // All jobs are handed over before the first is waited for: the writer fits as many as it may into each commit.
        let jobs = bulk_jobs(rows).into_iter().map(|rows| {
            let sql = Arc::clone(&sql);
            let run = move |db: &Connection| {
                let returned =
                    rows.iter().map(|values| query(db, doing, &sql, values)).collect::<Result<Vec<_>, _>>()?;
                Ok(returned.into_iter().flatten().collect::<Vec<_>>())
            };
            self.connections.write(doing, Urgency::Bulk, run, drop)
        });
        Ok(futures::future::try_join_all(jobs).await?.into_iter().flatten().collect())
    }

    fn search_syntax(&self) -> &'static SearchSyntax {
        &SearchSyntax {
            before: "\"",
            after: "\"*",
            and: " AND ",
            or: " OR ",
            few: ("records NOT INDEXED", "row IN (SELECT rowid FROM record_words WHERE record_words MATCH PLACE)"),
            many: ("records", "+row IN (SELECT rowid FROM record_words WHERE record_words MATCH PLACE)"),
            // Where one in 500 of a million matches, a page of 100 is found within 50,000 records.
            are_many: Some("SELECT 1 FROM record_words WHERE record_words MATCH $1 LIMIT 1 OFFSET 2000"),
        }
    }

    fn members(&self, table: &str, beside: &[&str]) -> String {
        let beside: String = beside.iter().map(|column| format!(", {column}")).collect();
        format!(
            "WITH RECURSIVE cut(ids, place{beside}) AS (
                 SELECT ids, 1{beside} FROM {table} WHERE length(ids) > 0
                 UNION ALL SELECT ids, place + 16{beside} FROM cut WHERE place + 16 <= length(ids)
             ) SELECT substr(ids, place, 16) AS member{beside} FROM cut"
        )
    }

    fn nil(&self) -> &'static str {
        "x'00000000000000000000000000000000'"
    }

    async fn snapshot(&self, doing: &'static str, queries: Vec<String>) -> Result<Vec<Vec<Row>>, StoreError> {
        self.connections
            .read(doing, move |db| {
                let snapshot = db.transaction().map_err(|error| from_sqlite(doing, error))?;
                queries.iter().map(|sql| query(&snapshot, doing, &for_sqlite(sql), &[])).collect()
            })
            .await
    }
}

/// Rows in portions that the writer is done with in a millisecond or two.
fn bulk_jobs(rows: Vec<Vec<Value>>) -> Vec<Vec<Vec<Value>>> {
    const MOST_ROWS: usize = 32;
    const MOST_BYTES: usize = 32 * 1024;
    let mut jobs: Vec<Vec<_>> = Vec::new();
    let mut bytes = 0;
    for row in rows {
        let texts = row.iter().map(|value| if let Value::Text(text) = value { text.len() } else { 0 });
        bytes += texts.sum::<usize>();
        match jobs.last_mut() {
            Some(job) if job.len() < MOST_ROWS && bytes < MOST_BYTES => job.push(row),
            _ => {
                jobs.push(vec![row]);
                bytes = 0;
            }
        }
    }
    jobs
}

fn query(db: &Connection, doing: &'static str, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
    let run = || {
        let mut statement = db.prepare_cached(sql)?;
        let columns = statement.column_count();
        let mut found = statement.query(rusqlite::params_from_iter(values))?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            rows.push(Row((0..columns).map(|column| row.get_ref(column).map(value_of)).collect::<Result<_, _>>()?));
        }
        Ok(rows)
    };
    run().map_err(|error| from_sqlite(doing, error))
}

fn value_of(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Int(value),
        // No column of ours is a float; a damaged one becomes a text, and the reader says so.
        ValueRef::Real(value) => Value::Text(value.to_string()),
        ValueRef::Text(value) => Value::Text(String::from_utf8_lossy(value).into_owned()),
        ValueRef::Blob(value) => Value::Bytes(value.into()),
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Int(value) => ToSqlOutput::Borrowed(ValueRef::Integer(*value)),
            Value::Text(value) => ToSqlOutput::Borrowed(ValueRef::Text(value.as_bytes())),
            Value::Uuid(value) => ToSqlOutput::Borrowed(ValueRef::Blob(value.as_bytes())),
            Value::Bytes(value) => ToSqlOutput::Borrowed(ValueRef::Blob(value)),
            Value::Ids(ids) => ToSqlOutput::Owned(ids_to_bytes(ids.iter().copied()).into()),
        })
    }
}
