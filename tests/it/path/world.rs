//! What surrounds the service in one test: a ledger, the providers' stand-in, and the settings that name both.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use vestnik::domain::Channel;
use vestnik::simulator::{Scenario, Simulator, SimulatorOptions, SmtpOptions, smtp, telegram, twilio, whatsapp};

use super::books;
use super::server::{Client, Server};
use crate::support::postgres::TestDatabase;

pub(super) struct World {
    pub(super) simulator: Simulator,
    pub(super) database: Option<TestDatabase>,
    pub(super) dir: TempDir,
    /// Those that have an account; all of them unless a test says otherwise.
    pub(super) channels: &'static [Channel],
}

/// A lost process is settled within seconds, and yet a busy machine takes no living one for lost.
pub(super) const QUICK: &[(&str, &str)] = &[
    ("VESTNIK__DELIVERY__LEASE_MS", "4000"),
    ("VESTNIK__DELIVERY__SEND_DEADLINE_MS", "3000"),
    ("VESTNIK__DELIVERY__RESEND_GRACE_MS", "300"),
];

impl World {
    pub(super) async fn sqlite() -> Self {
        Self::new(None).await
    }

    /// `None` only where skipping was allowed.
    pub(super) async fn postgres() -> Option<Self> {
        Some(Self::new(Some(TestDatabase::create().await?)).await)
    }

    /// On a server of the test's own, which has to outlive it.
    pub(super) async fn on(database: TestDatabase) -> Self {
        Self::new(Some(database)).await
    }

    async fn new(database: Option<TestDatabase>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let smtp = SmtpOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            tls_listen: None,
            ca_file: Some(dir.path().join("smtp-ca.pem")),
        };
        let options = SimulatorOptions { smtp: Some(smtp), ..SimulatorOptions::default() };
        let simulator = Simulator::start(options).await.unwrap();
        World { simulator, database, dir, channels: &Channel::ALL }
    }

    /// How the providers behave from now on; JSON, as in docs/simulator.md.
    pub(super) fn scenario(&self, scenario: Value) {
        self.simulator.set_scenario(Scenario::parse(scenario.to_string().as_bytes()).unwrap()).unwrap();
    }

    /// A server with rates that hold nothing up, unless `settings` say otherwise.
    pub(super) async fn server(&self, settings: &[(&str, &str)]) -> Server {
        Server::start(self, settings).await
    }

    /// The program with the settings of this world, not yet started.
    pub(super) fn command(&self, settings: &[(&str, &str)]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_vestnik"));
        command.env_clear().current_dir(self.dir.path()).stdin(Stdio::null()).kill_on_drop(true);
        command.env("VESTNIK__LEDGER__DATA_DIR", self.data_dir());
        if let Some(database) = &self.database {
            command.env("DATABASE_URL", database.url());
        }
        for channel in self.channels {
            command.envs(self.account(*channel));
            let prefix = format!("VESTNIK__{}__MAIN__LIMITS__", channel.as_str().to_uppercase());
            command.envs(["PER_SECOND", "BURST"].map(|limit| (format!("{prefix}{limit}"), "10000")));
        }
        command.envs(settings.iter().copied());
        command
    }

    /// The settings of an account of the simulator's.
    fn account(&self, channel: Channel) -> Vec<(&'static str, String)> {
        let text = str::to_owned;
        match channel {
            Channel::WhatsApp => vec![
                ("VESTNIK__WHATSAPP__MAIN__PHONE_NUMBER_ID", text(whatsapp::DEFAULT_PHONE_NUMBER_ID)),
                ("VESTNIK__WHATSAPP__MAIN__TOKEN", text(whatsapp::DEFAULT_TOKEN)),
                ("VESTNIK__WHATSAPP__MAIN__BASE_URL", self.simulator.url()),
            ],
            Channel::Telegram => vec![
                ("VESTNIK__TELEGRAM__MAIN__TOKEN", text(telegram::DEFAULT_TOKEN)),
                ("VESTNIK__TELEGRAM__MAIN__BASE_URL", self.simulator.url()),
            ],
            Channel::Sms => vec![
                ("VESTNIK__SMS__MAIN__TWILIO__BASE_URL", self.simulator.url()),
                ("VESTNIK__SMS__MAIN__TWILIO__ACCOUNT_SID", text(twilio::DEFAULT_ACCOUNT_SID)),
                ("VESTNIK__SMS__MAIN__TWILIO__AUTH_TOKEN", text(twilio::DEFAULT_TOKEN)),
                ("VESTNIK__SMS__MAIN__TWILIO__FROM", text(twilio::DEFAULT_SENDER)),
            ],
            // Encrypted by STARTTLS, which is the default.
            Channel::Email => vec![
                ("VESTNIK__EMAIL__MAIN__HOST", text("localhost")),
                ("VESTNIK__EMAIL__MAIN__PORT", self.simulator.smtp_addr().unwrap().port().to_string()),
                ("VESTNIK__EMAIL__MAIN__CA_FILE", self.dir.path().join("smtp-ca.pem").display().to_string()),
                ("VESTNIK__EMAIL__MAIN__USERNAME", text(smtp::DEFAULT_USER)),
                ("VESTNIK__EMAIL__MAIN__PASSWORD", text(smtp::DEFAULT_PASSWORD)),
                ("VESTNIK__EMAIL__MAIN__FROM", text("Север <news@example.com>")),
            ],
        }
    }

    /// Runs the program to its end.
    pub(super) async fn run(&self, arguments: &[&str]) -> Output {
        self.command(&[]).args(arguments).output().await.unwrap()
    }

    /// The same, which has to end well, with `--json`.
    pub(super) async fn run_json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat()).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A key of the API with these scopes: its id, and itself.
    pub(super) async fn new_key(&self, name: &str, scopes: &str) -> (String, String) {
        let made = self.run_json(&["keys", "create", name, "--scopes", scopes]).await;
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        (text("id"), text("key"))
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `vestnik verify` finds nothing, and what the providers took is what the ledger says, given that callers were
    /// answered `answers`. Everything has been settled. Returns the report.
    pub(super) async fn assert_books(&self, server: &Client, answers: &[Value]) -> Value {
        let output = self.run(&["verify", "--json"]).await;
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("verify said: {}", String::from_utf8_lossy(&output.stderr)));
        assert!(output.status.success(), "the books do not balance: {report:#}");
        assert_eq!(report["inFlight"], 0, "something is not settled: {report:#}");
        let ledger = server.ledger().await;
        assert_eq!(report["accepted"], ledger.len(), "the API does not show what the ledger holds");
        let wrong = books::disagreements(&ledger, &self.simulator.taken(), answers);
        let name = self.database.as_ref().map_or("the embedded ledger", TestDatabase::name);
        assert!(wrong.is_empty(), "{name} and the providers disagree:\n{}", wrong.join("\n"));
        report
    }
}
