//! The real program: the simulator and the service as processes, and commands that ask them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_vestnik");

/// A process that says its URL in its first line; killed when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) url: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        let mut child = command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut greeting = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut greeting).unwrap();
        let greeting: Value = serde_json::from_str(&greeting).unwrap();
        Running { child, url: greeting["url"].as_str().unwrap().to_owned() }
    }

    /// SIGTERM, and whether it ended well.
    pub(crate) fn stop(mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with settings in it, a simulator they point at, and perhaps a server.
pub(crate) struct Stand {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) server: Option<Running>,
    simulator: Running,
}

impl Stand {
    pub(crate) fn without_server() -> Stand {
        let dir = tempfile::tempdir().unwrap();
        let mut command = program(dir.path());
        command.args(["simulator", "--listen", "127.0.0.1:0"]);
        let simulator = Running::start(command);
        let url = &simulator.url;
        let settings = format!(
            "[whatsapp.main]\nbase_url = \"{url}\"\ntoken = \"sim-token\"\nphone_number_id = \"100000000000001\"\n\
             [telegram.main]\nbase_url = \"{url}\"\ntoken = \"1000001:sim-token\"\n\
             [ledger]\ndata_dir = \"{}\"\n",
            dir.path().join("data").display()
        );
        std::fs::write(dir.path().join("vestnik.toml"), settings).unwrap();
        Stand { dir, server: None, simulator }
    }

    pub(crate) fn start() -> Stand {
        let mut stand = Stand::without_server();
        stand.serve(&[]);
        stand
    }

    pub(crate) fn serve(&mut self, environment: &[(&str, &str)]) {
        let mut command = program(self.dir.path());
        command.args(["serve", "--listen", "127.0.0.1:0"]).envs(environment.iter().copied());
        self.server = Some(Running::start(command));
    }

    /// What everything that was started said its URL is, as one word each.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = text.replace(&self.dir.path().display().to_string(), "DIR").replace(&self.simulator.url, "SIM");
        if let Some(server) = &self.server {
            text = text.replace(&server.url, "URL");
        }
        redact_ids_and_times(&text)
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        self.run_with(args, &[], "")
    }

    pub(crate) fn run_with(&self, args: &[&str], environment: &[(&str, &str)], input: &str) -> Ended {
        let mut command = program(self.dir.path());
        command.args(args).envs(environment.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that does not read its input may be gone.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Ended::of(&child.wait_with_output().unwrap())
    }
}

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    fn of(output: &Output) -> Ended {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Ended { code: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The program in a folder, with no settings of the machine that runs the tests.
pub(crate) fn program(dir: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.current_dir(dir);
    for (name, _) in std::env::vars_os() {
        let ours = name.to_string_lossy();
        if ours.starts_with("VESTNIK_") || ours == "DATABASE_URL" || ours == "RABBITMQ_URL" {
            command.env_remove(&name);
        }
    }
    command
}

/// Words that are ids or times become `ID` and `TIME`.
fn redact_ids_and_times(text: &str) -> String {
    let redact = |word: &str| match word {
        word if word.parse::<uuid::Uuid>().is_ok() => "ID".to_owned(),
        word if word.starts_with("wamid.") => "WAMID".to_owned(),
        word if word.ends_with('Z') && word.parse::<jiff::Timestamp>().is_ok() => "TIME".to_owned(),
        word => word.to_owned(),
    };
    let line = |line: &str| line.split(' ').map(redact).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
