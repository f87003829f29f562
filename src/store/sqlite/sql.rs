//! What is off the hot path: one text for both engines, run on the writer or a reader.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql};

use super::Sqlite;
use super::connection::from_sqlite;
use crate::store::sql::{
    ColumnType, GivenRows, Row, RowsStatement, SearchSyntax, Sql, Statement, Value, for_sqlite, ids_to_bytes,
};
use crate::store::{StoreError, Urgency};

#[async_trait]
impl Sql for Sqlite {
    async fn read(&self, doing: &'static str, sql: String, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        self.connections.read(doing, move |db| query(db, doing, &for_sqlite(&sql), &values)).await
    }

    async fn read_rows(&self, doing: &'static str, sql: String, given: GivenRows) -> Result<Vec<Row>, StoreError> {
        let sql = with_row(&for_sqlite(&sql), given.columns);
        self.connections.read(doing, move |db| for_each(db, doing, &sql, &given.rows)).await
    }

    async fn write_as(
        &self,
        doing: &'static str,
        urgency: Urgency,
        statements: Vec<Statement>,
    ) -> Result<Vec<Vec<Row>>, StoreError> {
        let run = move |db: &Connection| {
            let mut results = Vec::with_capacity(statements.len());
            for statement in &statements {
                let rows = match &statement.rows {
                    None => query(db, doing, &for_sqlite(statement.sql), &statement.values)?,
                    Some(given) => for_each(db, doing, &with_row(statement.sql, given.columns), &given.rows)?,
                };
                let goes_on = !statement.is_guard || !rows.is_empty();
                results.push(rows);
                if !goes_on {
                    break;
                }
            }
            Ok(results)
        };
        self.connections.write(doing, urgency, run, drop).await
    }

    async fn write_rows(
        &self,
        doing: &'static str,
        statement: RowsStatement,
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<Row>, StoreError> {
        let sql: Arc<str> = with_row(statement.sql, statement.columns).into();
        // All jobs are handed over before the first is waited for: the writer fits as many as it may into each commit.
        let jobs = bulk_jobs(rows).into_iter().map(|rows| {
            let sql = Arc::clone(&sql);
            let run = move |db: &Connection| for_each(db, doing, &sql, &rows);
            self.connections.write(doing, Urgency::Bulk, run, drop)
        });
        Ok(futures::future::try_join_all(jobs).await?.into_iter().flatten().collect())
    }

    fn search_syntax(&self) -> &'static SearchSyntax {
        &SearchSyntax {
            asked: ("\"", "\"*"),
            and: " AND ",
            or: " OR ",
            // Where one in 500 of a million matches, a page of 50 is found within 25,000 records.
            are_many: "SELECT 1 FROM record_words WHERE record_words MATCH PLACE LIMIT 1 OFFSET 2000",
            few: ("records NOT INDEXED", "row IN (SELECT rowid FROM record_words WHERE record_words MATCH PLACE)"),
            has: (" ", "", "instr(words, PLACE) > 0"),
        }
    }

    fn look_up(&self, columns: &str, given: &str, table: &str, condition: &str) -> String {
        // CROSS keeps to this order.
        format!("SELECT {columns} FROM {given} CROSS JOIN {table} WHERE {condition}")
    }

    fn members(&self, table: &str, beside: &[&str]) -> String {
        let beside: String = beside.iter().map(|column| format!(", {column}")).collect();
        // Materialized, the members can be given an index; else each row that is joined to them would look at all.
        format!(
            "WITH RECURSIVE cut(ids, place{beside}) AS (
                 SELECT ids, 1{beside} FROM {table} WHERE length(ids) > 0
                 UNION ALL SELECT ids, place + 16{beside} FROM cut WHERE place + 16 <= length(ids)
             ), members AS MATERIALIZED (SELECT substr(ids, place, 16) AS member{beside} FROM cut)
             SELECT * FROM members"
        )
    }

    fn nil(&self) -> &'static str {
        "x'00000000000000000000000000000000'"
    }

    async fn snapshot(&self, doing: &'static str, queries: Vec<String>) -> Result<Vec<Vec<Row>>, StoreError> {
        self.connections
            .read(doing, move |db| queries.iter().map(|sql| query(db, doing, &for_sqlite(sql), &[])).collect())
            .await
    }
}

/// The text of a statement for many rows, for one of them.
fn with_row(sql: &str, columns: &[(&'static str, ColumnType)]) -> String {
    let columns = columns.iter().enumerate();
    let columns: Vec<_> = columns.map(|(place, (name, _))| format!("?{} AS {name}", place + 1)).collect();
    sql.replace("ROWS", &format!("(SELECT {})", columns.join(", ")))
}

fn for_each(db: &Connection, doing: &'static str, sql: &str, rows: &[Vec<Value>]) -> Result<Vec<Row>, StoreError> {
    let mut returned = Vec::new();
    for values in rows {
        returned.extend(query(db, doing, sql, values)?);
    }
    Ok(returned)
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

pub(super) fn query(db: &Connection, doing: &'static str, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
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
