//! The pool, its safety checks, and the migrations.

use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use rustls::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::NoTls;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::migrations::{self, hash};
use crate::store::{LedgerOptions, StoreError};

/// Any number; the same for every vestnik, so that two starting at once migrate one after the other.
const MIGRATION_LOCK: i64 = 0x7665_7374_6e69_6b00;

pub(super) fn pool(url: &SecretString, options: &LedgerOptions) -> Result<Pool, StoreError> {
    let mut config: tokio_postgres::Config = url.expose_secret().parse().map_err(|error: tokio_postgres::Error| {
        // The error names the wrong part, never the password.
        StoreError::Setup(format!("DATABASE_URL is not a PostgreSQL URL: {}", chain(&error)))
    })?;
    let timeout = options.call_timeout;
    config.application_name("vestnik").connect_timeout(timeout).keepalives_idle(Duration::from_secs(30));
    let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    // The URL's sslmode decides. `prefer`, its default, stays plain on this machine, where servers tend to have a
    // certificate for another name, and elsewhere takes TLS where the server has it. Certificates are always checked.
    let is_plain = match config.get_ssl_mode() {
        SslMode::Disable => true,
        SslMode::Prefer => config.get_hosts().iter().all(is_local),
        _ => false,
    };
    let manager = if is_plain {
        Manager::from_config(config, NoTls, manager_config)
    } else {
        Manager::from_config(config, MakeRustlsConnect::new(tls()?), manager_config)
    };
    let statement_timeout = timeout.as_millis();
    // Our statements find rows by their keys. The planner, asked while a table is small, would rather read all of it
    // and hash it, and a prepared statement keeps that plan when the table has grown: a batch of 500 then costs a scan
    // of everything that was ever sent. Compiling such plans is never worth it.
    const PLANS: &str =
        "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off";
    Pool::builder(manager)
        .max_size(options.pool_size.max(4))
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(timeout))
        .create_timeout(Some(timeout))
        .recycle_timeout(Some(timeout))
        .post_create(Hook::async_fn(move |client, _| {
            Box::pin(async move {
                let set = format!(
                    "SET statement_timeout = {statement_timeout}; SET idle_in_transaction_session_timeout = {};
                     SET timezone = 'UTC'; {PLANS}",
                    statement_timeout * 2
                );
                client.batch_execute(&set).await.map_err(HookError::Backend)
            })
        }))
        .build()
        .map_err(|error| StoreError::Setup(format!("cannot make the connection pool: {error}")))
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

fn tls() -> Result<ClientConfig, StoreError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::Setup(format!("TLS to PostgreSQL: {error}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
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

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
