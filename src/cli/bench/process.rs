//! What is measured, in processes of its own.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// This very program as another process; killed if it is dropped.
pub(super) struct Process {
    child: Child,
    command: &'static str,
    pub(super) url: String,
    /// The line it said when it listened.
    pub(super) greeting: Value,
}

impl Process {
    /// Starts it and waits until it listens.
    pub(super) async fn start(
        command: &'static str,
        args: &[&str],
        settings: &BTreeMap<&str, &str>,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot tell where this program is")?;
        let mut child = Command::new(program)
            .arg(command)
            .arg("--json")
            .args(args)
            // What is measured is what its settings say, whatever the bench's own environment names.
            .env_remove("DATABASE_URL")
            .env_remove("RABBITMQ_URL")
            .envs(settings)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start vestnik {command}"))?;
        let out = child.stdout.take().context("its output is piped")?;
        let mut greeting = String::new();
        BufReader::new(out).read_line(&mut greeting).await?;
        let greeting: Value =
            serde_json::from_str(&greeting).with_context(|| format!("vestnik {command} did not start"))?;
        let url = greeting["url"].as_str().with_context(|| format!("vestnik {command} told no URL"))?.to_owned();
        Ok(Process { child, command, url, greeting })
    }

    pub(super) fn is_simulator(&self) -> bool {
        self.command == "simulator"
    }

    pub(super) fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("the process ended")
    }

    /// Stops it as a supervisor would.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.id()?)?).context("a process has an id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.child.wait().await?;
        Ok(())
    }
}
