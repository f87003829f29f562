//! What is off the hot path: one text for both engines, run on a connection of the pool.

use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::Object;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use super::connection::from_postgres;
use super::{Postgres, on_connection};
use crate::store::sql::{ColumnType, GivenRows, Row, RowsStatement, SearchSyntax, Sql, Statement, Value};
use crate::store::{StoreError, Urgency};

#[async_trait]
impl Sql for Postgres {
    async fn read(&self, doing: &'static str, sql: String, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        on_connection(&self.pool, self.call_timeout, doing, move |client| {
            Box::pin(async move {
                // Composed texts are prepared for once: the cache of a connection never shrinks.
                let statement = client.prepare(&sql).await.map_err(|error| from_postgres(doing, error))?;
                query(client, doing, &statement, &values).await
            })
        })
        .await
    }

    async fn read_rows(&self, doing: &'static str, sql: String, given: GivenRows) -> Result<Vec<Row>, StoreError> {
        on_connection(&self.pool, self.call_timeout, doing, move |client| {
            Box::pin(async move { for_all(client, doing, &sql, &given).await })
        })
        .await
    }

    async fn write_as(
        &self,
        doing: &'static str,
        _: Urgency,
        statements: Vec<Statement>,
    ) -> Result<Vec<Vec<Row>>, StoreError> {
        on_connection(&self.pool, self.call_timeout, doing, move |client| {
            Box::pin(async move {
                let failed = |error| from_postgres(doing, error);
                client.batch_execute("BEGIN").await.map_err(failed)?;
                let mut results = Vec::with_capacity(statements.len());
                for statement in &statements {
                    let rows = match &statement.rows {
                        None => {
                            let prepared = client.prepare_cached(statement.sql).await.map_err(failed)?;
                            query(client, doing, &prepared, &statement.values).await?
                        }
                        Some(given) => for_all(client, doing, statement.sql, given).await?,
                    };
                    let goes_on = !statement.is_guard || !rows.is_empty();
                    results.push(rows);
                    if !goes_on {
                        break;
                    }
                }
                client.batch_execute("COMMIT").await.map_err(failed)?;
                Ok(results)
            })
        })
        .await
    }

    async fn write_rows(
        &self,
        doing: &'static str,
        statement: RowsStatement,
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<Row>, StoreError> {
        let given = GivenRows { columns: statement.columns, rows };
        on_connection(&self.pool, self.call_timeout, doing, move |client| {
            Box::pin(async move { for_all(client, doing, statement.sql, &given).await })
        })
        .await
    }

    fn search_syntax(&self) -> &'static SearchSyntax {
        // The planner guesses how many match a beginning, and where it guesses too many it walks through all records
        // to find none. Materialized, the index of words is asked first whatever it guesses.
        &SearchSyntax {
            asked: ("'", "':*"),
            and: " & ",
            or: " | ",
            are_many: "WITH found AS MATERIALIZED (SELECT 1 FROM records WHERE words @@ CAST(PLACE AS text)::tsquery)
                       SELECT 1 FROM found OFFSET 2000 LIMIT 1",
            few: (
                "(WITH found AS MATERIALIZED (SELECT * FROM records WHERE words @@ CAST(PLACE AS text)::tsquery)
                  SELECT * FROM found) AS records",
                "true",
            ),
            has: ("'", "':*", "words @@ CAST(PLACE AS text)::tsquery"),
        }
    }

    fn look_up(&self, columns: &str, given: &str, table: &str, condition: &str) -> String {
        // Of a table that was just filled there are no statistics: the planner takes it for small, and would rather
        // compare all of it with each that is given. OFFSET keeps the inner query one of its own, which is asked for
        // each.
        format!(
            "SELECT {columns} FROM {given} CROSS JOIN LATERAL (SELECT * FROM {table} WHERE {condition} OFFSET 0) found"
        )
    }

    fn members(&self, table: &str, beside: &[&str]) -> String {
        let beside: String = beside.iter().map(|column| format!(", {column}")).collect();
        format!("SELECT unnest(ids) AS member{beside} FROM {table}")
    }

    fn nil(&self) -> &'static str {
        "'00000000-0000-0000-0000-000000000000'::uuid"
    }

    async fn snapshot(&self, doing: &'static str, queries: Vec<String>) -> Result<Vec<Vec<Row>>, StoreError> {
        /// A whole ledger is read: longer than any single call, and still bounded.
        const LIMIT: Duration = Duration::from_secs(600);
        on_connection(&self.pool, LIMIT, doing, move |client| {
            Box::pin(async move {
                let failed = |error| from_postgres(doing, error);
                // Whole tables are read and compared: the one place where scans and hashes are right.
                let begin = format!(
                    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {};
                     SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on",
                    LIMIT.as_millis()
                );
                client.batch_execute(&begin).await.map_err(failed)?;
                let mut results = Vec::with_capacity(queries.len());
                for sql in &queries {
                    let statement = client.prepare(sql).await.map_err(failed)?;
                    results.push(query(client, doing, &statement, &[Value::Null; 0]).await?);
                }
                client.batch_execute("COMMIT").await.map_err(failed)?;
                Ok(results)
            })
        })
        .await
    }
}

/// A statement for many rows, which travel as an array for each column.
async fn for_all(client: &Object, doing: &'static str, sql: &str, given: &GivenRows) -> Result<Vec<Row>, StoreError> {
    if given.rows.is_empty() {
        return Ok(Vec::new());
    }
    let sql = sql.replace("ROWS", &unnested(given.columns));
    let statement = client.prepare_cached(&sql).await.map_err(|error| from_postgres(doing, error))?;
    let columns: Vec<Vec<&Value>> =
        (0..given.columns.len()).map(|column| given.rows.iter().map(|row| &row[column]).collect()).collect();
    query(client, doing, &statement, &columns).await
}

/// The arrays as a table.
fn unnested(columns: &[(&'static str, ColumnType)]) -> String {
    let (mut arrays, mut names, mut results) = (Vec::new(), Vec::new(), Vec::new());
    for (place, (name, column_type)) in columns.iter().enumerate() {
        let (array, result) = match column_type {
            ColumnType::Small => ("smallint[]", (*name).to_owned()),
            ColumnType::Big => ("bigint[]", (*name).to_owned()),
            ColumnType::Id => ("uuid[]", (*name).to_owned()),
            ColumnType::Text => ("text[]", (*name).to_owned()),
            ColumnType::Words => ("text[]", format!("{name}::tsvector AS {name}")),
        };
        arrays.push(format!("${}::{array}", place + 1));
        names.push(*name);
        results.push(result);
    }
    let (arrays, names, results) = (arrays.join(", "), names.join(", "), results.join(", "));
    format!("(SELECT {results} FROM unnest({arrays}) AS u ({names}))")
}

async fn query(
    client: &Object,
    doing: &'static str,
    statement: &tokio_postgres::Statement,
    values: &[impl ToSql + Sync],
) -> Result<Vec<Row>, StoreError> {
    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    let rows = client.query(statement, &values).await.map_err(|error| from_postgres(doing, error))?;
    rows.iter().map(|row| row_of(row).map_err(|error| from_postgres(doing, error))).collect()
}

pub(super) fn row_of(row: &tokio_postgres::Row) -> Result<Row, tokio_postgres::Error> {
    let mut values = Vec::with_capacity(row.len());
    for (place, column) in row.columns().iter().enumerate() {
        values.push(match *column.type_() {
            Type::INT2 => row.try_get::<_, Option<i16>>(place)?.into(),
            Type::INT4 => row.try_get::<_, Option<i32>>(place)?.into(),
            Type::INT8 => row.try_get::<_, Option<i64>>(place)?.into(),
            Type::UUID => row.try_get::<_, Option<Uuid>>(place)?.into(),
            Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(place)?.into(),
            Type::UUID_ARRAY => row.try_get::<_, Option<Vec<Uuid>>>(place)?.map_or(Value::Null, Value::Ids),
            _ => row.try_get::<_, Option<String>>(place)?.into(),
        });
    }
    Ok(Row(values))
}

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut bytes::BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(value) => match *ty {
                Type::INT2 => i16::try_from(*value)?.to_sql(ty, out),
                Type::INT4 => i32::try_from(*value)?.to_sql(ty, out),
                _ => value.to_sql(ty, out),
            },
            Value::Text(value) => value.to_sql(ty, out),
            Value::Uuid(value) => value.to_sql(ty, out),
            Value::Bytes(value) => value.to_sql(ty, out),
            Value::Ids(value) => value.to_sql(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
