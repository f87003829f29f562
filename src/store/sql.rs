//! One SQL text for two engines.
//!
//! Statements are written with `$1 … $n`; SQLite gets them as `?1 … ?n` (given `$2 … $1` it would number them by
//! first appearance). Used for everything off the hot path; results come as plain [`Value`]s.

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use super::{StoreError, Urgency};
use crate::domain::clock::from_micros;

/// A bound value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Int(i64),
    Text(String),
    Uuid(Uuid),
    Bytes(Vec<u8>),
    /// A list of ids: `uuid[]` in PostgreSQL, 16 bytes each in SQLite.
    Ids(Vec<Uuid>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}
impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Value::Int(value.into())
    }
}
impl From<i16> for Value {
    fn from(value: i16) -> Self {
        Value::Int(value.into())
    }
}
impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.into())
    }
}
impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}
impl From<Uuid> for Value {
    fn from(value: Uuid) -> Self {
        Value::Uuid(value)
    }
}
impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Value::Bytes(value)
    }
}
impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        Value::Int(value.as_microsecond())
    }
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// One line of a result. A column of another type than asked for is damage, and said so.
#[derive(Clone, Debug)]
pub struct Row(pub Vec<Value>);

impl Row {
    pub fn int(&self, column: usize) -> Result<i64, StoreError> {
        self.opt_int(column)?.ok_or_else(|| self.unexpected(column, "a number"))
    }

    pub fn opt_int(&self, column: usize) -> Result<Option<i64>, StoreError> {
        match &self.0[column] {
            Value::Null => Ok(None),
            Value::Int(value) => Ok(Some(*value)),
            _ => Err(self.unexpected(column, "a number")),
        }
    }

    pub fn small(&self, column: usize) -> Result<i16, StoreError> {
        i16::try_from(self.int(column)?).map_err(|_| self.unexpected(column, "a small number"))
    }

    pub fn text(&self, column: usize) -> Result<String, StoreError> {
        self.opt_text(column)?.ok_or_else(|| self.unexpected(column, "a text"))
    }

    pub fn opt_text(&self, column: usize) -> Result<Option<String>, StoreError> {
        match &self.0[column] {
            Value::Null => Ok(None),
            Value::Text(value) => Ok(Some(value.clone())),
            _ => Err(self.unexpected(column, "a text")),
        }
    }

    pub fn uuid(&self, column: usize) -> Result<Uuid, StoreError> {
        self.opt_uuid(column)?.ok_or_else(|| self.unexpected(column, "an id"))
    }

    pub fn opt_uuid(&self, column: usize) -> Result<Option<Uuid>, StoreError> {
        match &self.0[column] {
            Value::Null => Ok(None),
            Value::Uuid(value) => Ok(Some(*value)),
            Value::Bytes(bytes) => {
                Uuid::from_slice(bytes).map(Some).map_err(|_| self.unexpected(column, "an id of 16 bytes"))
            }
            _ => Err(self.unexpected(column, "an id")),
        }
    }

    pub fn ids(&self, column: usize) -> Result<Vec<Uuid>, StoreError> {
        match &self.0[column] {
            Value::Ids(ids) => Ok(ids.clone()),
            Value::Bytes(bytes) if bytes.len() % 16 == 0 => Ok(bytes
                .chunks_exact(16)
                .map(|chunk| Uuid::from_slice(chunk).expect("chunks_exact gives 16 bytes"))
                .collect()),
            _ => Err(self.unexpected(column, "a list of ids")),
        }
    }

    pub fn bytes(&self, column: usize) -> Result<Vec<u8>, StoreError> {
        match &self.0[column] {
            Value::Bytes(value) => Ok(value.clone()),
            _ => Err(self.unexpected(column, "bytes")),
        }
    }

    pub fn opt_hash(&self, column: usize) -> Result<Option<[u8; 32]>, StoreError> {
        match &self.0[column] {
            Value::Null => Ok(None),
            Value::Bytes(value) => {
                value.as_slice().try_into().map(Some).map_err(|_| self.unexpected(column, "a hash of 32 bytes"))
            }
            _ => Err(self.unexpected(column, "a hash")),
        }
    }

    pub fn time(&self, column: usize) -> Result<Timestamp, StoreError> {
        self.int(column).map(from_micros)
    }

    pub fn opt_time(&self, column: usize) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.opt_int(column)?.map(from_micros))
    }

    /// A number that stands for one of our words.
    pub fn word<T>(&self, column: usize, from_code: fn(i16) -> Option<T>) -> Result<T, StoreError> {
        from_code(self.small(column)?).ok_or_else(|| self.unexpected(column, "a known code"))
    }

    fn unexpected(&self, column: usize, wanted: &str) -> StoreError {
        StoreError::refused("reading a row", format!("column {column} is not {wanted}"))
    }
}

/// One statement with its values.
#[derive(Clone, Debug)]
pub struct Statement {
    pub sql: &'static str,
    pub values: Vec<Value>,
    /// Run for many rows of values instead.
    pub rows: Option<GivenRows>,
    /// If it returns no row, those after it are not run.
    pub is_guard: bool,
}

impl Statement {
    pub fn new(sql: &'static str, values: Vec<Value>) -> Self {
        Statement { sql, values, rows: None, is_guard: false }
    }

    /// A change that the following ones depend on: it says with `RETURNING` whether it happened.
    pub fn guard(sql: &'static str, values: Vec<Value>) -> Self {
        Statement { sql, values, rows: None, is_guard: true }
    }

    /// One change of many rows; of none, when none are given.
    pub fn of_rows(statement: RowsStatement, rows: Vec<Vec<Value>>) -> Self {
        let given = GivenRows { columns: statement.columns, rows };
        Statement { sql: statement.sql, values: Vec::new(), rows: Some(given), is_guard: false }
    }
}

/// One statement for many rows of values.
#[derive(Clone, Copy, Debug)]
pub struct RowsStatement {
    /// In it, `ROWS` is a table of the columns.
    pub sql: &'static str,
    pub columns: &'static [(&'static str, ColumnType)],
}

/// The values of a statement for many rows.
#[derive(Clone, Debug)]
pub struct GivenRows {
    pub columns: &'static [(&'static str, ColumnType)],
    pub rows: Vec<Vec<Value>>,
}

/// What a column of given rows holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    Small,
    Big,
    Id,
    Text,
    /// Words with spaces between them, for the index of words.
    Words,
}

/// How an engine is asked for records with words that begin in some way. `PLACE` is what is bound.
#[derive(Clone, Copy, Debug)]
pub struct SearchSyntax {
    /// Around a beginning, in the question for the index of words.
    pub asked: (&'static str, &'static str),
    pub and: &'static str,
    pub or: &'static str,
    /// A row if many records match the question.
    pub are_many: &'static str,
    /// Where few match, they are looked up: table and condition.
    pub few: (&'static str, &'static str),
    /// Where many match, a walk in order of id soon has its page: what is bound around a beginning, and the condition
    /// that a record has it.
    pub has: (&'static str, &'static str, &'static str),
}

/// What both engines offer for everything off the hot path.
#[async_trait]
pub trait Sql: Send + Sync {
    /// A query that changes nothing. `sql` may be composed, but only from texts of ours; values are always bound.
    async fn read(&self, doing: &'static str, sql: String, values: Vec<Value>) -> Result<Vec<Row>, StoreError>;

    /// A query for many rows of values, kept ready for the next time: what it finds for each of them, in no order. In
    /// `sql`, which is always made alike, `ROWS` is a table of the columns.
    async fn read_rows(&self, doing: &'static str, sql: String, given: GivenRows) -> Result<Vec<Row>, StoreError>;

    /// Statements as one durable change, in order; the rows each of those that were run returned.
    async fn write(&self, doing: &'static str, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, StoreError> {
        self.write_as(doing, Urgency::Urgent, statements).await
    }

    /// The same, as soon as `urgency` says. What is not urgent has to be small all the same: it holds SQLite's writer
    /// from its first statement to its last.
    async fn write_as(
        &self,
        doing: &'static str,
        urgency: Urgency,
        statements: Vec<Statement>,
    ) -> Result<Vec<Vec<Row>>, StoreError>;

    /// One statement for many rows, as bulk work that gives way to all else. What it returned, in no order. Each row is
    /// written durably and in full or not at all; they need not all share one commit.
    async fn write_rows(
        &self,
        doing: &'static str,
        statement: RowsStatement,
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<Row>, StoreError>;

    /// How records are searched for words.
    fn search_syntax(&self) -> &'static SearchSyntax;

    /// A query of `columns` of the rows that `condition` finds for each row of `given`, row by row by an index,
    /// whatever the planner thinks of it.
    fn look_up(&self, columns: &str, given: &str, table: &str, condition: &str) -> String;

    /// A query with a row for every id in the lists `ids` of a table of ours: `member`, and the list's own columns
    /// `beside` it.
    fn members(&self, table: &str, beside: &[&str]) -> String;

    /// The id of all zeros as a literal.
    fn nil(&self) -> &'static str;

    /// Queries that all see one moment.
    async fn snapshot(&self, doing: &'static str, queries: Vec<String>) -> Result<Vec<Vec<Row>>, StoreError>;
}

/// `$1 … $n` as SQLite wants it.
pub(crate) fn for_sqlite(sql: &str) -> String {
    sql.replace('$', "?")
}

/// Ids as SQLite keeps them.
pub(crate) fn ids_to_bytes(ids: impl IntoIterator<Item = Uuid>) -> Vec<u8> {
    ids.into_iter().flat_map(Uuid::into_bytes).collect()
}
