//! Records that are kept elsewhere: queries on the CRM's own PostgreSQL.
//!
//! One query per kind, given by the operator, with the ids as `$1`. Nothing is ever written: connections and
//! transactions are read-only, so PostgreSQL refuses what is not reading. Every read has a time limit, here and on the
//! server. The first read connects, so the service starts while that database is away. What fails is logged here, not
//! by whoever asks, and not each time.

mod check;
mod complaints;
mod failure;
mod held;
mod ids;
mod query;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Pool, Transaction};
use futures::TryStreamExt as _;
use phonenumber::country;
use serde_json::{Map, Value};
use tokio::time::timeout;

pub use self::check::Checked;
use self::complaints::Complaints;
use self::failure::Failure;
pub use self::failure::Trouble;
use self::held::Held;
use self::ids::{Asked, IdType};
use self::query::Query;
use super::{RecordSource, SourceError};
use crate::config::ConfigError;
use crate::config::records::SqlSettings;
use crate::domain::{Record, RecordId, RecordKind};
use crate::store::postgres::pool::{self, Reach};

/// The records of every kind that has a query.
pub struct SqlSource {
    pool: Pool,
    time_limit: Duration,
    queries: BTreeMap<RecordKind, Query>,
    region: Option<country::Id>,
    complaints: Complaints,
}

impl SqlSource {
    /// Connects to nothing yet. `region` is where phone numbers without a country code are from.
    ///
    /// # Errors
    /// When the URL is none, or a query is not one statement.
    pub fn new(settings: &SqlSettings, region: Option<country::Id>) -> Result<Self, ConfigError> {
        let refuse = |setting: &str, message| ConfigError::Setting {
            setting: format!("records.sql.{setting}"),
            message,
            origin: None,
        };
        let time_limit = Duration::from_millis(settings.timeout_ms);
        let pool = pool::pool(&Reach {
            url: &settings.url,
            setting: "records.sql.url",
            connections: settings.pool_size,
            timeout: time_limit,
            // As a `SET` and not as an option of the connection, which poolers between us and the server refuse.
            set: "SET default_transaction_read_only = on",
        })
        .map_err(|message| refuse("url", message))?;
        let query = |(kind, text): (RecordKind, &str)| match Query::parse(text) {
            Ok(query) => Ok((kind, query)),
            Err(message) => Err(refuse(kind.as_str(), message)),
        };
        let queries = settings.queries().map(query).collect::<Result<_, _>>()?;
        Ok(SqlSource { pool, time_limit, queries, region, complaints: Complaints::default() })
    }

    /// The kinds that are read here.
    pub fn kinds(&self) -> impl Iterator<Item = RecordKind> {
        self.queries.keys().copied()
    }

    async fn load_rows(&self, kind: RecordKind, ids: Vec<RecordId>) -> Result<Vec<Record>, Failure> {
        let query = self.query(kind)?;
        let mut held = Held::of(&self.pool).await?;
        let tx = held.begin().await?;
        let records = self.read(&tx, kind, query, ids).await;
        drop(tx);
        held.give_back(records)
    }

    /// Rows become records as they come, so that a query which gives all there is stops at the first too many.
    async fn read(
        &self,
        tx: &Transaction<'_>,
        kind: RecordKind,
        query: &Query,
        ids: Vec<RecordId>,
    ) -> Result<Vec<Record>, Failure> {
        const ONE_EACH: &str = "give one row per id of $1, with that id as the column `id`";
        let failed = |error| Failure::of(query, &query.as_json, error);
        let statement = tx.prepare_cached(&query.as_json).await.map_err(failed)?;
        let mut asked = Asked::new(IdType::of(statement.params()).map_err(Failure::Refused)?, ids);
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let mut records = Vec::new();
        let rows = tx.query_raw(&statement, [asked.parameter()]).await.map_err(failed)?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            let (row_id, fields) = row.try_get(0).map_err(failed).and_then(|json| split(kind, json))?;
            let same = asked.take(row_id.as_str()).ok_or_else(|| {
                let seen = format!("its query gives a row with id {row_id}, which was not asked for");
                Failure::Rows(Trouble::new(seen, ONE_EACH))
            })?;
            if same.is_empty() {
                let seen = format!("its query gives two rows with id {row_id}");
                return Err(Failure::Rows(Trouble::new(seen, ONE_EACH)));
            }
            let record = |id| Record::read_leniently(kind, id, fields.clone(), self.region);
            records.extend(same.into_iter().map(record));
        }
        Ok(records)
    }

    fn query(&self, kind: RecordKind) -> Result<&Query, Failure> {
        self.queries
            .get(&kind)
            .ok_or_else(|| Failure::Refused(Trouble::new("it has no query", format!("give records.sql.{kind}"))))
    }

    /// Waits no longer than the time limit, and logs what fails.
    async fn in_time<T>(
        &self,
        kind: RecordKind,
        read: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, SourceError> {
        let answer = timeout(self.time_limit, read).await.unwrap_or_else(|_| Err(Failure::late(self.time_limit)));
        let answer = answer.map_err(|failure| failure.into_source_error(kind));
        self.complaints.hear(kind, &answer);
        answer
    }
}

#[async_trait]
impl RecordSource for SqlSource {
    async fn load(&self, kind: RecordKind, ids: Vec<RecordId>) -> Result<Vec<Record>, SourceError> {
        self.in_time(kind, self.load_rows(kind, ids)).await
    }

    /// The query's columns.
    async fn fields(&self, kind: RecordKind) -> Result<Vec<String>, SourceError> {
        Ok(self.in_time(kind, self.describe(kind)).await?.columns)
    }
}

/// A row's id and its other columns.
fn split(kind: RecordKind, json: &str) -> Result<(RecordId, Map<String, Value>), Failure> {
    let unusable = |seen: String| Failure::Rows(Trouble::new(seen, "see what the query gives in psql"));
    // The error's place and kind, and nothing of the row.
    let mut fields: Map<String, Value> =
        serde_json::from_str(json).map_err(|error| unusable(format!("a row of its query is not readable: {error}")))?;
    let id = match fields.remove("id") {
        Some(Value::String(id)) => id,
        Some(Value::Number(id)) => id.to_string(),
        Some(_) => return Err(unusable("a row of its query has an id that is neither text nor number".to_owned())),
        None => return Err(unusable(check::NO_ID.to_owned())),
    };
    let id = RecordId::parse(kind, &id)
        .map_err(|error| unusable(format!("a row of its query has an id that is none: {error}")))?;
    Ok((id, fields))
}
