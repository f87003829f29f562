//! `vestnik serve`: the service.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;

use super::{Ended, Printer};
use crate::app::App;
use crate::config::Settings;
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
}

impl ServeArgs {
    /// Flags as settings.
    pub(super) fn overrides(&self) -> Vec<(String, String)> {
        let listen = self.listen.map(|listen| ("http.listen".to_owned(), listen.to_string()));
        let data_dir = self.data_dir.as_ref().map(|dir| ("ledger.data_dir".to_owned(), dir.display().to_string()));
        listen.into_iter().chain(data_dir).collect()
    }
}

/// Runs until SIGINT or SIGTERM, then settles what runs.
pub async fn run(settings: Settings, printer: Printer) -> anyhow::Result<Ended> {
    telemetry::log_to_stderr(&settings.log.level, settings.log.format).map_err(anyhow::Error::msg)?;
    let lifecycle = Lifecycle::default();
    lifecycle.listen_for_signals().context("could not listen for signals")?;
    let app = App::start(&settings, lifecycle).await?;
    let url = format!("http://{}", app.addr);
    let greeting = json!({ "url": url, "ledger": app.store.engine(), "needsKey": app.needs_key });
    printer.either(&greeting, || {
        let keys = if app.needs_key {
            "requests need an API key"
        } else {
            "no API key exists: only this machine is served (`vestnik keys create` makes one)"
        };
        format!("vestnik listens on {url} (ledger: {}); {keys}\ndocs: {url}/docs\n", app.store.engine())
    })?;
    match app.run().await? {
        Stopped::Finished => Ok(Ended::Well),
        Stopped::CutOff => {
            tracing::error!("stopped before everything had settled: what was cut off is settled at the next start");
            Ok(Ended::Badly)
        }
    }
}
