//! `vestnik simulator`: the providers' stand-in as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Printer;
use crate::domain::SystemClock;
use crate::simulator::{Scenario, Simulator, SimulatorOptions};

/// Answers as WhatsApp and Telegram do, for tests, rehearsals and measurements. Nothing is sent to anyone.
#[derive(Debug, clap::Args)]
pub struct SimulatorArgs {
    /// Where to listen; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    pub listen: SocketAddr,
    /// What chance starts from: the same seed fails the same messages.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// How the providers behave; without it everything works, at once.
    #[arg(long, value_name = "FILE.json")]
    pub scenario: Option<PathBuf>,
    /// Also append every message that was taken to this file, a line of JSON each.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Listen on an address that others can reach: whoever can, reads the record and changes the scenario.
    #[arg(long)]
    pub allow_remote: bool,
}

/// Runs until SIGINT or SIGTERM.
pub async fn run(args: SimulatorArgs, printer: Printer) -> anyhow::Result<()> {
    if !args.listen.ip().is_loopback() && !args.allow_remote {
        bail!(
            "{} can be reached by others, and the simulator asks nobody who they are\nhint: listen on 127.0.0.1, or \
             add --allow-remote if that is meant",
            args.listen
        );
    }
    let scenario = match &args.scenario {
        Some(path) => {
            let json = std::fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
            Scenario::parse(&json).with_context(|| format!("{} is no scenario", path.display()))?
        }
        None => Scenario::default(),
    };
    // Asked for before anything listens, so that no signal in between goes astray.
    let mut interrupt = signal(SignalKind::interrupt()).context("could not listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("could not listen for SIGTERM")?;
    let greeting = Greeting::of(&scenario);
    let options = SimulatorOptions {
        listen: args.listen,
        seed: args.seed,
        scenario,
        clock: Arc::new(SystemClock),
        record_file: args.record,
    };
    let simulator = Simulator::start(options)
        .await
        .with_context(|| format!("could not start on {}\nhint: --listen takes another address", args.listen))?;
    greeting.print(&simulator.url(), args.seed, printer)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let taken = simulator.taken_count();
    simulator.stop().await;
    if !printer.is_json() {
        printer.line(format!("stopped; {taken} messages were taken"))?;
    }
    Ok(())
}

/// What a user needs to point Vestnik here.
struct Greeting {
    whatsapp_token: Option<String>,
    phone_number_id: Option<String>,
    telegram_token: Option<String>,
}

impl Greeting {
    fn of(scenario: &Scenario) -> Self {
        Greeting {
            whatsapp_token: scenario.whatsapp.tokens.first().cloned(),
            phone_number_id: scenario.whatsapp.phone_numbers.first().map(|number| number.id.clone()),
            telegram_token: scenario.telegram.tokens.first().cloned(),
        }
    }

    fn print(&self, url: &str, seed: u64, printer: Printer) -> anyhow::Result<()> {
        if printer.is_json() {
            let line = json!({
                "url": url,
                "seed": seed,
                "whatsapp": { "token": self.whatsapp_token, "phoneNumberId": self.phone_number_id },
                "telegram": { "token": self.telegram_token },
            });
            return printer.line(line.to_string());
        }
        let mut text = format!("the simulator listens on {url} (seed {seed}); point Vestnik here with\n\n");
        for (key, value) in [
            ("WHATSAPP__MAIN__BASE_URL", Some(url)),
            ("WHATSAPP__MAIN__TOKEN", self.whatsapp_token.as_deref()),
            ("WHATSAPP__MAIN__PHONE_NUMBER_ID", self.phone_number_id.as_deref()),
            ("TELEGRAM__MAIN__BASE_URL", Some(url)),
            ("TELEGRAM__MAIN__TOKEN", self.telegram_token.as_deref()),
        ] {
            if let Some(value) = value {
                text.push_str(&format!("export VESTNIK__{key}={value}\n"));
            }
        }
        text.push_str(&format!(
            "\nwhat was taken: {url}/_sim/taken   figures: {url}/_sim/stats   behaviour: {url}/_sim/scenario\n"
        ));
        printer.text(&text)
    }
}
