//! `vestnik migrate` and `vestnik verify`: the ledger without the service.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Ended, Printer};
use crate::app::ledger_options;
use crate::config::Settings;
use crate::domain::SystemClock;
use crate::store::{self, VerifyReport};

/// Bring the ledger to this version. `serve` does it, too.
#[derive(Debug, clap::Args)]
pub struct MigrateArgs {
    /// The folder of the embedded ledger.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Check that the books balance; exit code 1 if they do not. May run beside the service.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The folder of the embedded ledger.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

pub async fn migrate(args: MigrateArgs, mut settings: Settings, printer: Printer) -> anyhow::Result<Ended> {
    if let Some(data_dir) = args.data_dir {
        settings.ledger.data_dir = data_dir;
    }
    let store = store::connect(&ledger_options(&settings), Arc::new(SystemClock)).await?;
    let engine = store.engine();
    printer.either(&serde_json::json!({ "ledger": engine, "current": true }), || {
        format!("the {engine} ledger is of this version\n")
    })?;
    Ok(Ended::Well)
}

pub async fn verify(args: VerifyArgs, mut settings: Settings, printer: Printer) -> anyhow::Result<Ended> {
    if let Some(data_dir) = args.data_dir {
        settings.ledger.data_dir = data_dir;
    }
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
