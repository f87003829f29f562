//! What a measurement asks of a PostgreSQL server, and a database of its own to measure in.

use std::time::Duration;

use deadpool_postgres::Pool;
use secrecy::{ExposeSecret as _, SecretString};

use super::connection::{self, from_postgres};
use crate::store::{LedgerOptions, StoreError};

const DOING: &str = "measuring PostgreSQL";
/// A checkpoint writes all that is dirty in the server.
const LIMIT: Duration = Duration::from_secs(300);

pub struct Probe {
    pool: Pool,
}

impl Probe {
    pub fn new(url: &SecretString) -> Result<Self, StoreError> {
        let options = LedgerOptions {
            database_url: None,
            data_dir: Default::default(),
            pool_size: 1,
            call_timeout: LIMIT,
            sqlite_normal: false,
            lease: LIMIT,
        };
        Ok(Probe { pool: connection::pool(url, &options)? })
    }

    /// Makes a database on the server, and says how it is reached.
    pub async fn create_database(&self, url: &SecretString, name: &str) -> Result<SecretString, StoreError> {
        self.execute(&format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")).await?;
        let not_a_url = || StoreError::Setup("the bench takes a database as postgres://user@host/database".into());
        let (scheme, rest) = url.expose_secret().split_once("://").ok_or_else(not_a_url)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let query = path.split_once('?').map_or(String::new(), |(_, query)| format!("?{query}"));
        Ok(format!("{scheme}://{authority}/{name}{query}").into())
    }

    pub async fn drop_database(&self, name: &str) -> Result<(), StoreError> {
        self.execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
    }

    /// Writes all that is dirty, so that what comes next is counted alone. Needs a superuser.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        self.execute("CHECKPOINT").await
    }

    /// Bytes ever written to the server's log, whoever wrote them.
    pub async fn wal_bytes(&self) -> Result<i64, StoreError> {
        self.number("SELECT (pg_current_wal_insert_lsn() - '0/0')::int8").await
    }

    /// Full-page images ever written to the server's log; none are known before PostgreSQL 14.
    pub async fn full_page_images(&self) -> Result<i64, StoreError> {
        self.number("SELECT wal_fpi::int8 FROM pg_stat_wal").await
    }

    /// Updates of a table so far, and how many of them stayed on their page. The server's processes tell theirs with
    /// a delay, and when they end.
    pub async fn updates(&self, table: &'static str) -> Result<(i64, i64), StoreError> {
        let of = |column: &str| {
            format!("SELECT coalesce(sum({column}), 0)::int8 FROM pg_stat_user_tables WHERE relname = '{table}'")
        };
        Ok((self.number(&of("n_tup_upd")).await?, self.number(&of("n_tup_hot_upd")).await?))
    }

    /// The table and its indexes, in bytes.
    pub async fn size_bytes(&self, table: &'static str) -> Result<i64, StoreError> {
        self.number(&format!("SELECT pg_total_relation_size('{table}')")).await
    }

    async fn execute(&self, sql: &str) -> Result<(), StoreError> {
        let client = connection::get(&self.pool, DOING).await?;
        client.batch_execute(sql).await.map_err(|error| from_postgres(DOING, error))
    }

    async fn number(&self, sql: &str) -> Result<i64, StoreError> {
        let client = connection::get(&self.pool, DOING).await?;
        let row = client.query_one(sql, &[]).await.map_err(|error| from_postgres(DOING, error))?;
        Ok(row.get(0))
    }
}
