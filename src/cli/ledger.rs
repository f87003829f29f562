//! `vestnik migrate` and `vestnik verify`: the ledger without the service.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Ended, Printer};
use crate::app::ledger_options;
use crate::config::Settings;
use crate::domain::SystemClock;
use crate::queue::rabbitmq;
use crate::store::{self, VerifyReport};

/// Bring the ledger to this version, and make the broker's exchanges and queues. `serve` does both, where it may.
#[derive(Debug, clap::Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    place: LedgerPlace,
}

/// Check that the books balance; exit code 1 if they do not. May run beside the service.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    place: LedgerPlace,
}

#[derive(Debug, clap::Args)]
struct LedgerPlace {
    /// The folder of the embedded ledger.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl LedgerPlace {
    fn overrides(&self) -> Vec<(String, String)> {
        self.data_dir.iter().map(|dir| ("ledger.data_dir".to_owned(), dir.display().to_string())).collect()
    }
}

impl MigrateArgs {
    pub(super) fn overrides(&self) -> Vec<(String, String)> {
        self.place.overrides()
    }
}

impl VerifyArgs {
    pub(super) fn overrides(&self) -> Vec<(String, String)> {
        self.place.overrides()
    }
}

pub async fn migrate(settings: Settings, printer: Printer) -> anyhow::Result<Ended> {
    let store = store::connect(&ledger_options(&settings), Arc::new(SystemClock)).await?;
    let engine = store.engine();
    let broker = match settings.queue.rabbitmq_url {
        Some(_) => Some(rabbitmq::declare(&rabbitmq::Options::read(&settings.queue)?).await?),
        None => None,
    };
    let missing = |report: &rabbitmq::Report| {
        report.missing().map(|(item, why)| format!("{} is missing: {why}", item.name)).collect::<Vec<_>>()
    };
    let problems = broker.as_ref().map(missing).unwrap_or_default();
    let differences = |report: &rabbitmq::Report| {
        report.differences().map(|(name, why)| format!("{name} is used as it is: {why}")).collect::<Vec<_>>()
    };
    let differences = broker.as_ref().map(differences).unwrap_or_default();
    let answer = serde_json::json!({ "ledger": engine, "current": true, "broker": broker.is_some(), "problems": problems,
        "differences": differences });
    printer.either(&answer, || {
        let mut text = format!("the {engine} ledger is of this version\n");
        match (&broker, problems.as_slice()) {
            (None, _) => {}
            (Some(_), []) => text.push_str("the broker has all exchanges and queues\n"),
            (Some(_), problems) => {
                for problem in problems {
                    text.push_str(&format!("the broker: {problem}\n"));
                }
            }
        }
        for difference in &differences {
            text.push_str(&format!("the broker: {difference}\n"));
        }
        text
    })?;
    Ok(if problems.is_empty() { Ended::Well } else { Ended::Badly })
}

pub async fn verify(settings: Settings, printer: Printer) -> anyhow::Result<Ended> {
    let store = store::connect_read_only(&ledger_options(&settings), Arc::new(SystemClock)).await?;
    let report = store.verify().await?;
    printer.either(&report, || in_words(&report))?;
    Ok(if report.balances() { Ended::Well } else { Ended::Badly })
}

/// The report for people.
pub fn in_words(report: &VerifyReport) -> String {
    let sum = format!(
        "accepted {} = sent {} + delivered {} + read {} + failed {} + suppressed {} + cancelled {} + expired {} + \
         uncertain {} + in flight {}\n",
        report.accepted,
        report.sent,
        report.delivered,
        report.read,
        report.failed,
        report.suppressed,
        report.cancelled,
        report.expired,
        report.uncertain,
        report.in_flight,
    );
    if report.balances() {
        return format!(
            "{sum}dead letters {}\nthe books balance: {} invariants hold\n",
            report.dead_letters, report.checked
        );
    }
    let mut text = format!("{sum}the books do NOT balance:\n");
    for finding in &report.findings {
        text.push_str(&format!(
            "  {}: {} broken: {}\n    e.g. {}\n",
            finding.invariant,
            finding.count,
            finding.promise,
            finding.examples.join(", ")
        ));
    }
    text
}
