//! The ledger's pool, its safety checks, and the migrations.

use deadpool_postgres::{Object, Pool};
use secrecy::SecretString;
use tokio_postgres::error::SqlState;

use super::pool::{self, Reach, Server};
use crate::store::migrations::{self, hash};
use crate::store::{LedgerOptions, StoreError};

/// Any number; the same for every vestnik, so that two starting at once migrate one after the other.
const MIGRATION_LOCK: i64 = 0x7665_7374_6e69_6b00;

pub(super) fn pool(url: &SecretString, options: &LedgerOptions) -> Result<Pool, StoreError> {
    server_and_pool(url, options).map(|(_, pool)| pool)
}

/// Where the ledger is, and a pool of connections to it.
pub(super) fn server_and_pool(url: &SecretString, options: &LedgerOptions) -> Result<(Server, Pool), StoreError> {
    // Our statements find rows by their keys. The planner, asked while a table is small, would rather read all of it
    // and hash it, and a prepared statement keeps that plan when the table has grown: a batch of 500 then costs a scan
    // of everything that was ever sent. Compiling such plans is never worth it.
    const PLANS: &str =
        "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off";
    let reach = Reach {
        url,
        setting: "DATABASE_URL",
        connections: options.pool_size.max(4),
        timeout: options.call_timeout,
        set: PLANS,
    };
    let server = Server::of(&reach).map_err(StoreError::Setup)?;
    let pool = pool::pool_of(server.clone(), &reach).map_err(StoreError::Setup)?;
    Ok((server, pool))
}

pub(super) async fn get(pool: &Pool, doing: &'static str) -> Result<Object, StoreError> {
    pool.get().await.map_err(|error| StoreError::unavailable(doing, error))
}

/// Accepted must mean on disk: a server that does not flush its log is refused.
pub(super) async fn check_durability(client: &Object) -> Result<(), StoreError> {
    const DOING: &str = "checking PostgreSQL's settings";
    for (setting, bad, mend) in [
        ("fsync", "off", "set fsync = on in postgresql.conf"),
        ("synchronous_commit", "off", "set synchronous_commit = on (ALTER ROLE … SET synchronous_commit = on)"),
        ("full_page_writes", "off", "set full_page_writes = on in postgresql.conf"),
    ] {
        let sql = format!("SELECT current_setting('{setting}')");
        let row = client.query_one(sql.as_str(), &[]).await.map_err(|error| from_postgres(DOING, error))?;
        if row.get::<_, String>(0) == bad {
            return Err(StoreError::Setup(format!(
                "PostgreSQL runs with {setting} = {bad}: what it calls committed may be lost with the power, and \
                 Vestnik promises that nothing accepted is. {mend}"
            )));
        }
    }
    let row = client
        .query_one("SELECT current_setting('server_version_num')::int4, current_setting('server_encoding')", &[])
        .await
        .map_err(|error| from_postgres(DOING, error))?;
    if row.get::<_, i32>(0) < 120_000 {
        return Err(StoreError::Setup("PostgreSQL 12 is the oldest that is supported".into()));
    }
    if row.get::<_, String>(1) != "UTF8" {
        return Err(StoreError::Setup(
            "the PostgreSQL database is not UTF8: make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
                .into(),
        ));
    }
    Ok(())
}

pub(super) async fn migrate(client: &mut Object) -> Result<(), StoreError> {
    let failed = |error| from_postgres("migrating the ledger", error);
    let tx = client.transaction().await.map_err(failed)?;
    // Released with the transaction.
    tx.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await.map_err(failed)?;
    tx.batch_execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations
         (version bigint PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())",
    )
    .await
    .map_err(failed)?;
    let rows = tx.query("SELECT version, sha256 FROM schema_migrations ORDER BY version", &[]).await.map_err(failed)?;
    let applied: Vec<(i64, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for migration in migrations::pending(&applied, |migration| migration.postgres)? {
        tx.batch_execute(migration.postgres).await.map_err(failed)?;
        tx.execute(
            "INSERT INTO schema_migrations (version, sha256) VALUES ($1, $2)",
            &[&migration.version, &hash(migration.postgres)],
        )
        .await
        .map_err(failed)?;
    }
    tx.commit().await.map_err(failed)
}

pub(super) async fn must_be_current(client: &Object) -> Result<(), StoreError> {
    let rows = client.query("SELECT version, sha256 FROM schema_migrations ORDER BY version", &[]).await;
    let rows = rows.map_err(|error| match error.code() {
        Some(&SqlState::UNDEFINED_TABLE) => StoreError::Setup(
            "there is no ledger in this database: `vestnik serve` or `vestnik migrate` makes one".into(),
        ),
        _ => from_postgres("reading the ledger's version", error),
    })?;
    let applied: Vec<(i64, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    migrations::must_be_current(&applied, |migration| migration.postgres)
}

/// A refused value or constraint is a bug; everything else (connection, shutdown, time, locks, disk) may pass.
pub(super) fn from_postgres(doing: &'static str, error: tokio_postgres::Error) -> StoreError {
    let refused = error.code().is_some_and(|code| {
        // Classes 22 data, 23 constraint, 42 syntax or access (postgresql.org/docs/current/errcodes-appendix.html).
        ["22", "23", "42"].contains(&&code.code()[..2])
    });
    if refused { StoreError::refused(doing, error) } else { StoreError::unavailable(doing, error) }
}
