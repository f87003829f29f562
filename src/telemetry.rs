//! Logs and figures.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::log::LogFormat;

/// Latencies in seconds: from a quick answer to a provider's time limit.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The RabbitMQ client prints the bodies of messages that come back, and calls ordinary events errors. What an operator
/// needs of it our own lines say.
const QUIET: &str = "lapin=off";

/// Sends log lines of `filter` (`info`, `vestnik=debug,warn`, …) to standard error.
///
/// # Errors
/// When the filter cannot be read; says where.
pub fn log_to_stderr(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|error| format!("log.level: {error}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let done = match format {
        LogFormat::Json => registry.with(layer.json()).try_init(),
        LogFormat::Text => registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init(),
    };
    done.map_err(|error| format!("the log was set up before: {error}"))
}

/// The process's recorder of figures, made once.
pub fn figures() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let builder = PrometheusBuilder::new();
            let builder = builder
                .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)
                .expect("the list of buckets is not empty");
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            // Only a program that embeds the library can have set another one; then its figures win.
            let _ = metrics::set_global_recorder(recorder);
            handle
        })
        .clone()
}
