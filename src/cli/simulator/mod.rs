//! `vestnik simulator`: the providers' stand-in as a process of its own, and a look into one that runs.

mod inbox;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Printer;
use crate::simulator::{KEPT, Scenario, Simulator, SimulatorOptions, SmtpOptions, twilio};

/// Answers as WhatsApp, Telegram, Twilio and a mail server do, for tests, rehearsals and measurements. Nothing is sent
/// to anyone.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SimulatorArgs {
    #[command(subcommand)]
    pub command: Option<SimulatorCommand>,
    #[command(flatten)]
    pub start: StartArgs,
}

#[derive(Debug, clap::Subcommand)]
pub enum SimulatorCommand {
    Inbox(inbox::InboxArgs),
}

#[derive(Debug, clap::Args)]
pub struct StartArgs {
    /// Where to listen for HTTP; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    pub listen: SocketAddr,
    /// Where to take mail, with STARTTLS [default: 127.0.0.1:8025, or any free port if --listen has port 0].
    #[arg(long, value_name = "ADDRESS")]
    pub smtp_listen: Option<SocketAddr>,
    /// Where to take mail with TLS from the start.
    #[arg(long, value_name = "ADDRESS")]
    pub smtps_listen: Option<SocketAddr>,
    /// Write the certificate that mail clients must trust to this file; it is a new one at each start.
    #[arg(long, value_name = "FILE.pem")]
    pub smtp_ca: Option<PathBuf>,
    /// Take no mail.
    #[arg(long, conflicts_with_all = ["smtp_listen", "smtps_listen", "smtp_ca"])]
    pub no_smtp: bool,
    /// What chance starts from: the same seed fails the same messages [default: the scenario's, or 1].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How the providers behave; without it everything works, at once.
    #[arg(long, value_name = "FILE.json")]
    pub scenario: Option<PathBuf>,
    /// Also append every message that was taken to this file, a line of JSON each.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// How many messages to remember; the oldest make room.
    #[arg(long, value_name = "N", default_value_t = KEPT)]
    pub keep: usize,
    /// Listen on an address that others can reach: whoever can, reads the record and changes the scenario.
    #[arg(long)]
    pub allow_remote: bool,
}

impl StartArgs {
    fn smtp(&self) -> Option<SmtpOptions> {
        const USUAL_PORT: u16 = 8025;
        let port = if self.listen.port() == 0 { 0 } else { USUAL_PORT };
        let usual = SocketAddr::from(([127, 0, 0, 1], port));
        (!self.no_smtp).then(|| SmtpOptions {
            listen: self.smtp_listen.unwrap_or(usual),
            tls_listen: self.smtps_listen,
            ca_file: self.smtp_ca.clone(),
        })
    }

    fn check_addresses(&self) -> anyhow::Result<()> {
        let addresses = [Some(self.listen), self.smtp_listen, self.smtps_listen];
        match addresses.into_iter().flatten().find(|address| !address.ip().is_loopback()) {
            Some(address) if !self.allow_remote => bail!(
                "{address} can be reached by others, and the simulator asks nobody who they are\nhint: listen on \
                 127.0.0.1, or add --allow-remote if that is meant"
            ),
            Some(_) | None => Ok(()),
        }
    }
}

/// Runs until SIGINT or SIGTERM; `inbox` asks one that runs.
pub async fn run(args: SimulatorArgs, printer: Printer) -> anyhow::Result<()> {
    match args.command {
        Some(SimulatorCommand::Inbox(args)) => inbox::run(args, printer).await,
        None => start(args.start, printer).await,
    }
}

async fn start(args: StartArgs, printer: Printer) -> anyhow::Result<()> {
    args.check_addresses()?;
    let mut scenario = match &args.scenario {
        Some(path) => {
            let json = std::fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
            Scenario::parse(&json).with_context(|| format!("{} is no scenario", path.display()))?
        }
        None => Scenario::default(),
    };
    scenario.seed = args.seed.or(scenario.seed).or(Some(1));
    // Asked for before anything listens, so that no signal in between goes astray.
    let mut interrupt = signal(SignalKind::interrupt()).context("could not listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("could not listen for SIGTERM")?;
    let greeting = Greeting::of(&scenario);
    let options = SimulatorOptions {
        listen: args.listen,
        scenario,
        smtp: args.smtp(),
        record_file: args.record,
        keep: args.keep,
        ..SimulatorOptions::default()
    };
    let simulator = Simulator::start(options).await.with_context(|| {
        "could not start the simulator\nhint: --listen and --smtp-listen take other addresses, --no-smtp needs one less"
    })?;
    greeting.print(&simulator, printer)?;
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
    seed: u64,
    whatsapp_token: Option<String>,
    phone_number_id: Option<String>,
    telegram_token: Option<String>,
    twilio: Option<(String, String)>,
    email: Option<(String, String)>,
}

impl Greeting {
    fn of(scenario: &Scenario) -> Self {
        Greeting {
            seed: scenario.seed.unwrap_or_default(),
            whatsapp_token: scenario.whatsapp.tokens.first().cloned(),
            phone_number_id: scenario.whatsapp.phone_numbers.first().map(|number| number.id.clone()),
            telegram_token: scenario.telegram.tokens.first().cloned(),
            twilio: scenario.sms.accounts.first().map(|account| (account.sid.clone(), account.token.clone())),
            email: scenario.email.users.iter().next().map(|(user, password)| (user.clone(), password.clone())),
        }
    }

    fn print(&self, simulator: &Simulator, printer: Printer) -> anyhow::Result<()> {
        let (url, seed) = (simulator.url(), self.seed);
        if printer.is_json() {
            let line = json!({
                "url": url,
                "seed": seed,
                "whatsapp": { "token": self.whatsapp_token, "phoneNumberId": self.phone_number_id },
                "telegram": { "token": self.telegram_token },
                "twilio": self.twilio.as_ref().map(|(sid, token)| json!({ "accountSid": sid, "token": token })),
                "smtp": simulator.smtp_addr().map(|address| json!({
                    "address": address, "tlsAddress": simulator.smtps_addr(),
                    "user": self.email.as_ref().map(|(user, _)| user),
                    "password": self.email.as_ref().map(|(_, password)| password),
                })),
            });
            return printer.line(line.to_string());
        }
        let mut text = format!("the simulator listens on {url} (seed {seed}); point Vestnik here with\n\n");
        for (key, value) in [
            ("WHATSAPP__MAIN__BASE_URL", Some(url.as_str())),
            ("WHATSAPP__MAIN__TOKEN", self.whatsapp_token.as_deref()),
            ("WHATSAPP__MAIN__PHONE_NUMBER_ID", self.phone_number_id.as_deref()),
            ("TELEGRAM__MAIN__BASE_URL", Some(url.as_str())),
            ("TELEGRAM__MAIN__TOKEN", self.telegram_token.as_deref()),
            ("SMS__MAIN__TWILIO__BASE_URL", Some(url.as_str())),
            ("SMS__MAIN__TWILIO__ACCOUNT_SID", self.twilio.as_ref().map(|(sid, _)| sid.as_str())),
            ("SMS__MAIN__TWILIO__AUTH_TOKEN", self.twilio.as_ref().map(|(_, token)| token.as_str())),
            ("SMS__MAIN__TWILIO__FROM", Some(twilio::DEFAULT_SENDER)),
        ] {
            if let Some(value) = value {
                text.push_str(&format!("export VESTNIK__{key}={value}\n"));
            }
        }
        if let Some(address) = simulator.smtp_addr() {
            let (host, port) = (address.ip(), address.port());
            for (key, value) in [
                ("HOST", host.to_string()),
                ("PORT", port.to_string()),
                ("TLS", "none".to_owned()),
                ("FROM", "news@example.com".to_owned()),
            ] {
                text.push_str(&format!("export VESTNIK__EMAIL__MAIN__{key}={value}\n"));
            }
        }
        if let Some(address) = simulator.smtp_addr() {
            text.push_str(&format!("\nSMTP: {address}"));
            if let Some(address) = simulator.smtps_addr() {
                text.push_str(&format!(", with TLS from the start {address}"));
            }
            if let Some((user, password)) = &self.email {
                text.push_str(&format!("; user {user}, password {password}, or none"));
            }
            text.push('\n');
        }
        text.push_str(&format!(
            "\nwhat was taken: {url}/_sim/inbox   figures: {url}/_sim/stats   behaviour: {url}/_sim/scenario\n"
        ));
        printer.text(&text)
    }
}
