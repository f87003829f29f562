//! The two processes, the ways to ask them, and what the demo says.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::campaign::CampaignBalance;
use super::crash::Balance;
use super::process::{Process, Scratch, run};
use crate::cli::Printer;
use crate::cli::client::Client;
use crate::simulator::{telegram, twilio, whatsapp};

/// A person whose number does not exist on WhatsApp.
pub(super) const UNKNOWN_NUMBER: &str = "+79990000001";
/// A chat that Telegram says to leave alone for a while.
pub(super) const BUSY_CHAT: &str = "1002";
/// A chat whose first message is answered so late that the crash comes first.
pub(super) const SLOW_CHAT: &str = "1003";

/// Everything the demo runs on. Dropping it kills both processes and removes their folder.
pub(super) struct Stage {
    pub(super) printer: Printer,
    server: Option<Process>,
    simulator: Process,
    pub(super) api: Client,
    record: Client,
    // The last field: the processes in it go first.
    scratch: Scratch,
}

impl Stage {
    pub(super) async fn set(printer: Printer) -> anyhow::Result<Stage> {
        let scratch = Scratch::make()?;
        let scenario = json!({
            "whatsapp": {
                "latencyMs": { "min": 30, "p50": 60, "p99": 200 },
                "templates": { "order_ready": { "languages": ["ru", "en"], "bodyParameters": 3 } },
                "recipients": { UNKNOWN_NUMBER: { "error": 131_026 } },
            },
            "telegram": {
                "latencyMs": 40,
                "recipients": {
                    BUSY_CHAT: { "error": "retry_after:7", "times": 1 },
                    SLOW_CHAT: { "ok": true, "latencyMs": 30_000, "times": 1 },
                },
            },
        });
        std::fs::write(scratch.0.join("scenario.json"), scenario.to_string())?;
        let args = ["simulator", "--listen", "127.0.0.1:0", "--scenario", "scenario.json"];
        let simulator = Process::start(&scratch.0, &args, &[]).await?;
        let server = start_server(&scratch, &simulator).await?;
        let (api, record) = (client(&server), client(&simulator));
        let stage = Stage { printer, api, record, server: Some(server), simulator, scratch };
        stage.heading("Two processes start: a server with its ledger, and a simulator in place of the providers")?;
        stage.say(&format!("server     {}", stage.api.base()))?;
        stage.say(&format!("simulator  {}", stage.simulator.url))?;
        Ok(stage)
    }

    /// kill -9, and a new server on the same folder.
    pub(super) async fn kill_server(&mut self) -> anyhow::Result<u32> {
        let server = self.server.take().context("the server runs")?;
        let id = server.id()?;
        server.kill().await?;
        Ok(id)
    }

    pub(super) async fn restart_server(&mut self) -> anyhow::Result<()> {
        let server = start_server(&self.scratch, &self.simulator).await?;
        self.api = client(&server);
        self.server = Some(server);
        Ok(())
    }

    pub(super) fn data_dir(&self) -> std::path::PathBuf {
        self.scratch.0.join("data")
    }

    /// Writes a file into the folder that commands run in.
    pub(super) fn lay_out(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let path = self.scratch.0.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, content).with_context(|| format!("cannot write {name}"))
    }

    /// Runs a command as its user would, shows it with what it says, and wants this exit code.
    pub(super) async fn run(&self, args: &[&str], code: i32) -> anyhow::Result<String> {
        self.say(&format!("$ vestnik {}", args.join(" ")))?;
        let said = self.run_quietly(args, code).await?;
        self.say(&said)?;
        Ok(said)
    }

    pub(super) async fn run_quietly(&self, args: &[&str], code: i32) -> anyhow::Result<String> {
        let (said, ended) = run(&self.scratch.0, self.api.base(), args).await?;
        ensure!(ended == code, "vestnik {} ended with {ended}: {said}", args.join(" "));
        Ok(said)
    }

    /// One direct send and its answer, whatever it is.
    pub(super) async fn send(&self, body: &Value, key: Option<&str>) -> anyhow::Result<(StatusCode, Value)> {
        send(&self.api, body, key).await
    }

    /// How the providers behave from now on.
    pub(super) async fn set_scenario(&self, scenario: &Value) -> anyhow::Result<()> {
        self.record.put("/_sim/scenario", scenario).await.map(drop)
    }

    /// What the simulator took, oldest first, after the given number.
    pub(super) async fn taken(&self, after: u64) -> anyhow::Result<Vec<Value>> {
        let page = self.record.get(&format!("/_sim/taken?after={after}&limit=10000")).await?;
        Ok(page["items"].as_array().cloned().unwrap_or_default())
    }

    pub(super) async fn taken_count(&self) -> anyhow::Result<u64> {
        let stats = self.record.get("/_sim/stats").await?;
        stats["taken"].as_u64().context("the simulator counts what it takes")
    }

    /// A step's title, with a sentence of what it proves.
    pub(super) fn heading(&self, text: &str) -> anyhow::Result<()> {
        if self.printer.is_json() {
            return Ok(());
        }
        let is_terminal = std::io::stdout().is_terminal();
        let (bold, plain) = if is_terminal { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
        self.printer.text(&format!("\n{bold}== {text}{plain}\n"))
    }

    pub(super) fn say(&self, text: &str) -> anyhow::Result<()> {
        if self.printer.is_json() {
            return Ok(());
        }
        let indented: String = text.lines().map(|line| format!("{}\n", format!("   {line}").trim_end())).collect();
        self.printer.text(&indented)
    }

    pub(super) fn summary(&self, balance: &Balance, campaign: &CampaignBalance) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Summary<'a> {
            ok: bool,
            balance: &'a Balance,
            campaign: &'a CampaignBalance,
        }
        self.printer.either(&Summary { ok: true, balance, campaign }, || "\nAll was as promised.\n".to_owned())
    }

    pub(super) fn say_how_to_go_on(&self) -> anyhow::Result<()> {
        let (server, simulator) = (self.api.base(), &self.simulator.url);
        self.printer.text(&format!(
            "\nBoth go on running.\n\
             \x20 docs       {server}/docs\n\
             \x20 took       {simulator}/_sim/inbox\n\
             \x20 try        curl -s {server}/v1/notifications -H 'Content-Type: application/json' \\\n\
             \x20              -d '{{\"channel\": \"telegram\", \"recipient\": \"42\", \"text\": \"Привет\"}}'\n\
             \x20 or         VESTNIK_URL={server} vestnik notifications list\n\
             Ctrl-C stops both and removes their folder.\n"
        ))
    }

    /// Stops both as a supervisor would, and removes the folder.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        if let Some(server) = self.server.take() {
            server.stop().await.context("stopping the server")?;
        }
        self.simulator.stop().await.context("stopping the simulator")
    }
}

pub(super) async fn send(api: &Client, body: &Value, key: Option<&str>) -> anyhow::Result<(StatusCode, Value)> {
    let headers: Vec<_> = key.into_iter().map(|key| ("idempotency-key", key)).collect();
    let answer = api.exchange(Method::POST, "/v1/notifications", Some(body), &headers).await?;
    let body = serde_json::from_slice(&answer.body).context("the answer is not JSON")?;
    Ok((answer.status, body))
}

async fn start_server(scratch: &Scratch, simulator: &Process) -> anyhow::Result<Process> {
    let setting = |name: &'static str, value: &str| (name, value.to_owned());
    let smtp = simulator.greeting["smtp"]["address"].as_str().and_then(|address| address.parse().ok());
    let smtp: std::net::SocketAddr = smtp.context("the simulator takes mail")?;
    let settings = [
        setting("VESTNIK__LEDGER__DATA_DIR", &scratch.0.join("data").display().to_string()),
        setting("VESTNIK__LOG__LEVEL", "warn"),
        setting("VESTNIK__DELIVERY__DEFAULT_REGION", "RU"),
        setting("VESTNIK__WHATSAPP__MAIN__BASE_URL", &simulator.url),
        setting("VESTNIK__WHATSAPP__MAIN__TOKEN", whatsapp::DEFAULT_TOKEN),
        setting("VESTNIK__WHATSAPP__MAIN__PHONE_NUMBER_ID", whatsapp::DEFAULT_PHONE_NUMBER_ID),
        // A campaign that is over before somebody looks away.
        setting("VESTNIK__WHATSAPP__MAIN__LIMITS__PER_SECOND", "400"),
        setting("VESTNIK__WHATSAPP__MAIN__LIMITS__BURST", "100"),
        setting("VESTNIK__TELEGRAM__MAIN__BASE_URL", &simulator.url),
        setting("VESTNIK__TELEGRAM__MAIN__TOKEN", telegram::DEFAULT_TOKEN),
        setting("VESTNIK__SMS__MAIN__TWILIO__BASE_URL", &simulator.url),
        setting("VESTNIK__SMS__MAIN__TWILIO__ACCOUNT_SID", twilio::DEFAULT_ACCOUNT_SID),
        setting("VESTNIK__SMS__MAIN__TWILIO__AUTH_TOKEN", twilio::DEFAULT_TOKEN),
        setting("VESTNIK__SMS__MAIN__TWILIO__FROM", twilio::DEFAULT_SENDER),
        setting("VESTNIK__EMAIL__MAIN__HOST", &smtp.ip().to_string()),
        setting("VESTNIK__EMAIL__MAIN__PORT", &smtp.port().to_string()),
        setting("VESTNIK__EMAIL__MAIN__TLS", "none"),
        setting("VESTNIK__EMAIL__MAIN__FROM", "Север <news@example.com>"),
    ];
    Process::start(&scratch.0, &["serve", "--listen", "127.0.0.1:0"], &settings).await
}

fn client(process: &Process) -> Client {
    Client::at(&process.url, "by the demo", None)
}

/// Asks until the answer is there. The demo's own waits are all of this kind.
pub(super) async fn until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    const BETWEEN: Duration = Duration::from_millis(50);
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        if let Some(found) = ask().await? {
            return Ok(found);
        }
        if tokio::time::Instant::now() > deadline {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        tokio::time::sleep(BETWEEN).await;
    }
}
