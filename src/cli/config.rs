//! `vestnik config`: what holds, and who said so.

use serde_json::{Value, json};

use super::{Ended, Printer};
use crate::app::providers;
use crate::config::Settings;

const EXAMPLES: &str = "\
Examples:
  vestnik config
  vestnik --config /etc/vestnik.toml config check
  VESTNIK__HTTP__LISTEN=127.0.0.1:9000 vestnik config --json

Settings come from vestnik.toml, then the environment (VESTNIK__SECTION__KEY, DATABASE_URL), then flags.";

/// Print the settings that hold, with where each came from. Secrets are masked.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: Option<ConfigCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum ConfigCommand {
    /// Only say whether they are fine.
    Check,
}

/// Settings that cannot be used do not get here: loading them is the error.
pub fn run(args: &ConfigArgs, settings: &Settings, printer: Printer) -> anyhow::Result<Ended> {
    match args.command {
        Some(ConfigCommand::Check) => {
            // What only its channel knows of an account is looked at when the account is made.
            providers(settings)?;
            printer.either(&json!({ "ok": true }), || "the settings are fine\n".to_owned())?;
        }
        None => {
            let values: Value = serde_json::to_value(settings)?;
            printer
                .either(&json!({ "settings": values, "origins": settings.origins() }), || settings.effective_toml())?;
        }
    }
    Ok(Ended::Well)
}
