//! Processes of this very program, which never outlive the one that started them, and their folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Longer than a start on a slow disk; a process that says nothing until then never will.
const START_TIME: Duration = Duration::from_secs(20);
/// Longer than it takes to settle what the demo leaves running, which is nothing.
const STOP_TIME: Duration = Duration::from_secs(20);

/// A simulator or a server. Dropping it kills it.
pub(super) struct Process {
    child: Child,
    pub(super) url: String,
    /// The line it said when it listened.
    pub(super) greeting: Value,
}

impl Process {
    /// Starts `vestnik <args>` with these settings and none of the caller's, and waits for its URL.
    pub(super) async fn start(dir: &Path, args: &[&str], settings: &[(&str, String)]) -> anyhow::Result<Process> {
        let name = args.first().copied().unwrap_or_default();
        let log = File::options().create(true).append(true).open(dir.join(format!("{name}.log")))?;
        let mut command = program(dir, args)?;
        command.arg("--json").envs(settings.iter().map(|(name, value)| (*name, value)));
        command.stdout(Stdio::piped()).stderr(log);
        // Ctrl-C reaches the whole group of the terminal; the demo alone decides when these two stop.
        command.process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot start vestnik {name}"))?;
        let out = child.stdout.take().context("its output is piped")?;
        let mut greeting = String::new();
        let read = tokio::time::timeout(START_TIME, BufReader::new(out).read_line(&mut greeting)).await;
        let greeting: Value = match read {
            Ok(Ok(_)) => serde_json::from_str(&greeting).unwrap_or_default(),
            Ok(Err(_)) | Err(_) => Value::Null,
        };
        let url = greeting["url"].as_str();
        let url = url.ok_or_else(|| anyhow!("vestnik {name} did not start: {}", last_words(dir, name)))?.to_owned();
        Ok(Process { child, url, greeting })
    }

    pub(super) fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("the process ended by itself")
    }

    /// SIGKILL: no chance to write, close or say anything.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("could not kill the server")
    }

    /// SIGTERM, and the time to settle.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.id()?)?).context("a process has an id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let ended = tokio::time::timeout(STOP_TIME, self.child.wait()).await;
        let status = ended.context("it did not stop in time, and was killed")??;
        ensure!(status.success(), "it did not stop cleanly: {status}");
        Ok(())
    }
}

/// `vestnik <args>` in this folder, with none of the caller's settings.
fn program(dir: &Path, args: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot tell where this program is")?);
    command.args(args).current_dir(dir).stdin(Stdio::null()).kill_on_drop(true);
    for (variable, _) in std::env::vars_os() {
        let text = variable.to_string_lossy();
        if text.starts_with("VESTNIK_") || text == "DATABASE_URL" || text == "RABBITMQ_URL" {
            command.env_remove(&variable);
        }
    }
    Ok(command)
}

/// Runs a command of this program against a server to its end: what it said, and its exit code.
pub(super) async fn run(dir: &Path, server: &str, args: &[&str]) -> anyhow::Result<(String, i32)> {
    let mut command = program(dir, args)?;
    command.env("VESTNIK_URL", server);
    let output = tokio::time::timeout(START_TIME, command.output()).await;
    let output = output.with_context(|| format!("vestnik {} did not end in time", args.join(" ")))??;
    let said = [output.stdout, output.stderr].concat();
    Ok((String::from_utf8_lossy(&said).into_owned(), output.status.code().unwrap_or(-1)))
}

/// The end of a process's log: its folder is about to go.
fn last_words(dir: &Path, name: &str) -> String {
    let log = std::fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default();
    log.lines().last().unwrap_or("it said nothing").to_owned()
}

/// A folder of the demo's own, removed when dropped.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn make() -> anyhow::Result<Scratch> {
        use std::os::unix::fs::DirBuilderExt as _;
        // The random part keeps others from putting a folder there first; nothing of theirs is used in any case.
        let random = getrandom::u64().map_err(|error| anyhow!("no random numbers: {error}"))?;
        let dir = std::env::temp_dir().join(format!("vestnik-demo-{}-{random:016x}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&dir);
        made.with_context(|| format!("cannot make {}\nhint: TMPDIR names another place", dir.display()))?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
