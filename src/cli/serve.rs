//! `vestnik serve` and `vestnik worker`: the service, whole or in parts.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{Ended, Printer};
use crate::app::App;
use crate::config::Settings;
use crate::delivery::Roles;
use crate::domain::Channel;
use crate::lifecycle::{Lifecycle, Stopped};
use crate::telemetry;

/// Run the service: it answers the API, sends, and keeps the ledger.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Where to listen; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// The folder of the embedded ledger.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// What this process does: `api` answers requests and sends directly, `relay` hands over what is due, `worker` sends
    /// it. All, if not given.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROLE")]
    pub roles: Vec<Role>,
}

/// A part of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    Api,
    Relay,
    Worker,
}

/// Send what is queued, beside a service on the same database: as many of these as it takes, on any machine.
///
/// Needs `DATABASE_URL`: the embedded ledger belongs to one process. With `RABBITMQ_URL` all share the broker's queues;
/// without, each takes its share of what is due from the database.
#[derive(Debug, clap::Args)]
pub struct WorkerArgs {
    /// Only these channels; all, if not given.
    #[arg(long, value_delimiter = ',', value_name = "CHANNEL")]
    pub channels: Vec<Channel>,
    /// Sends of one account at the same time.
    #[arg(long, value_name = "N")]
    pub concurrency: Option<usize>,
}

impl WorkerArgs {
    /// Flags as settings.
    pub(super) fn overrides(&self) -> Vec<(String, String)> {
        self.concurrency.iter().map(|n| ("delivery.concurrency".to_owned(), n.to_string())).collect()
    }

    fn roles(&self) -> Roles {
        let all = Roles::default();
        let channels = if self.channels.is_empty() { all.channels } else { self.channels.iter().copied().collect() };
        Roles { api: false, channels, ..all }
    }
}

impl ServeArgs {
    fn roles(&self) -> Roles {
        if self.roles.is_empty() {
            return Roles::default();
        }
        let has = |role| self.roles.contains(&role);
        Roles { api: has(Role::Api), relay: has(Role::Relay), work: has(Role::Worker), ..Roles::default() }
    }

    /// Flags as settings.
    pub(super) fn overrides(&self) -> Vec<(String, String)> {
        let listen = self.listen.map(|listen| ("http.listen".to_owned(), listen.to_string()));
        let data_dir = self.data_dir.as_ref().map(|dir| ("ledger.data_dir".to_owned(), dir.display().to_string()));
        listen.into_iter().chain(data_dir).collect()
    }
}

/// `vestnik worker`.
///
/// # Errors
/// Without a database that processes can share.
pub async fn work(args: &WorkerArgs, settings: Settings, printer: Printer) -> anyhow::Result<Ended> {
    if settings.ledger.database_url.is_none() {
        bail!(
            "a worker needs a ledger that it shares with the service, and none is set\nhint: set DATABASE_URL, for the \
             service as well; on the embedded ledger `vestnik serve` does all the work itself"
        );
    }
    start(args.roles(), settings, printer).await
}

/// `vestnik serve`.
pub async fn run(args: &ServeArgs, settings: Settings, printer: Printer) -> anyhow::Result<Ended> {
    start(args.roles(), settings, printer).await
}

/// Runs until SIGINT or SIGTERM, then settles what runs.
async fn start(roles: Roles, settings: Settings, printer: Printer) -> anyhow::Result<Ended> {
    telemetry::log_to_stderr(&settings.log.level, settings.log.format).map_err(anyhow::Error::msg)?;
    if settings.queue.rabbitmq_url.is_none() && roles.relay != roles.work {
        bail!(
            "without a broker the same process hands over and sends: `relay` and `worker` go together\nhint: give both, \
             or set RABBITMQ_URL for all processes"
        );
    }
    let lifecycle = Lifecycle::default();
    lifecycle.listen_for_signals().context("could not listen for signals")?;
    let app = App::start(&settings, roles, lifecycle).await?;
    let url = app.addr.map(|addr| format!("http://{addr}"));
    let (engine, queue) = (app.store.engine(), app.queue.kind());
    let greeting = json!({ "url": url, "ledger": engine, "queue": queue, "needsKey": app.needs_key });
    printer.either(&greeting, || match &url {
        Some(url) => {
            let keys = if app.needs_key {
                "requests need an API key"
            } else {
                "no API key exists: only this machine is served (`vestnik keys create` makes one)"
            };
            format!("vestnik listens on {url} (ledger: {engine}, queue: {queue}); {keys}\ndocs: {url}/docs\n")
        }
        None => format!("vestnik works (ledger: {engine}, queue: {queue}); it answers no requests\n"),
    })?;
    match app.run().await? {
        Stopped::Finished => Ok(Ended::Well),
        Stopped::CutOff => {
            tracing::error!("stopped before everything had settled: what was cut off is settled at the next start");
            Ok(Ended::Badly)
        }
    }
}
