//! Reaching a PostgreSQL server: the ledger's, or one that CRM records are read from.

use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use rustls::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::NoTls;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How a server is reached.
pub(crate) struct Reach<'a> {
    pub(crate) url: &'a SecretString,
    /// The setting that holds the URL, for errors.
    pub(crate) setting: &'static str,
    pub(crate) connections: usize,
    /// For a connection, and for a statement.
    pub(crate) timeout: Duration,
    /// `SET` statements for each new connection.
    pub(crate) set: &'a str,
}

/// A server as the client knows it: where, as whom, and encrypted or not.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) config: tokio_postgres::Config,
    pub(crate) tls: Option<MakeRustlsConnect>,
}

impl Server {
    /// # Errors
    /// When the URL is none; says what is wrong with it, never what it holds.
    pub(crate) fn of(reach: &Reach<'_>) -> Result<Server, String> {
        let mut config: tokio_postgres::Config =
            reach.url.expose_secret().parse().map_err(|error: tokio_postgres::Error| {
                // The error names the wrong part, never the password.
                format!("{} is not a PostgreSQL URL: {}", reach.setting, chain(&error))
            })?;
        config.application_name("vestnik").connect_timeout(reach.timeout).keepalives_idle(Duration::from_secs(30));
        // The URL's sslmode decides. `prefer`, its default, stays plain on this machine, where servers tend to have a
        // certificate for another name, and elsewhere takes TLS where the server has it. Certificates are always
        // checked.
        let is_plain = match config.get_ssl_mode() {
            SslMode::Disable => true,
            SslMode::Prefer => config.get_hosts().iter().all(is_local),
            _ => false,
        };
        let tls = if is_plain { None } else { Some(MakeRustlsConnect::new(tls()?)) };
        Ok(Server { config, tls })
    }
}

/// A pool that connects when it is first asked.
///
/// # Errors
/// As [`Server::of`].
pub(crate) fn pool(reach: &Reach<'_>) -> Result<Pool, String> {
    pool_of(Server::of(reach)?, reach)
}

/// The same, of a server that is known.
pub(crate) fn pool_of(Server { config, tls }: Server, reach: &Reach<'_>) -> Result<Pool, String> {
    let timeout = reach.timeout;
    let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match tls {
        None => Manager::from_config(config, NoTls, manager_config),
        Some(tls) => Manager::from_config(config, tls, manager_config),
    };
    let timeout_ms = timeout.as_millis();
    let set = format!(
        "SET statement_timeout = {timeout_ms}; SET idle_in_transaction_session_timeout = {};
         SET timezone = 'UTC'; {}",
        idle_limit(timeout).as_millis(),
        reach.set
    );
    Pool::builder(manager)
        .max_size(reach.connections)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(timeout))
        .create_timeout(Some(timeout))
        .recycle_timeout(Some(timeout))
        .post_create(Hook::async_fn(move |client, _| {
            let set = set.clone();
            Box::pin(async move { client.batch_execute(&set).await.map_err(HookError::Backend) })
        }))
        .build()
        .map_err(|error| format!("cannot make the connection pool: {error}"))
}

/// For so long a process may say nothing amid a transaction.
pub(super) fn idle_limit(call_timeout: Duration) -> Duration {
    call_timeout * 2
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

fn tls() -> Result<ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS to PostgreSQL: {error}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
