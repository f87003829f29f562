//! A PostgreSQL server of one test's own, which it may kill: durable as Vestnik demands, on a port of its own. It ends
//! with this process, however that ends.
#![expect(clippy::disallowed_methods, reason = "whether skipping is allowed comes from the environment, as in CI")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::eventually::eventually;
use super::ports::free_port;
use super::postgres::connect;

/// It starts within a second; after a kill it repairs itself, and a loaded machine takes its time over both.
const START_LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct PostgresServer {
    dir: PathBuf,
    programs: PathBuf,
    /// PostgreSQL refuses to be root: whom it runs as, where we are.
    account: Option<Account>,
    port: u16,
    running: Option<Running>,
}

/// An account of this machine.
struct Account {
    name: &'static str,
    group: String,
}

/// A shell that waits beside the server: it stops it when this process says so, or is no more.
struct Running {
    shell: Child,
    /// Of the server's group; the processes that serve its clients have groups of their own.
    group: Pid,
}

impl PostgresServer {
    /// `None` only when skipping was allowed.
    ///
    /// # Panics
    /// When there is none to start: a promise that was not checked is not kept.
    pub(crate) async fn start() -> Option<PostgresServer> {
        match Self::set_up() {
            Ok(mut server) => {
                server.run().await;
                Some(server)
            }
            Err(reason) if std::env::var("VESTNIK_TEST_ALLOW_SKIP").is_ok_and(|value| value == "1") => {
                eprintln!("SKIPPED: no PostgreSQL to start ({reason}), and VESTNIK_TEST_ALLOW_SKIP=1");
                None
            }
            Err(reason) => panic!(
                "no PostgreSQL to start: {reason}. Install Debian's package postgresql (`scripts/test-services.sh \
                 --amqp run …` does), or set VESTNIK_TEST_ALLOW_SKIP=1"
            ),
        }
    }

    fn set_up() -> Result<PostgresServer, String> {
        let programs = programs().ok_or("there is no initdb on PATH or in /usr/lib/postgresql/*/bin")?;
        let dir = tempfile::Builder::new().prefix("vestnik-postgres-").tempdir().map_err(|error| error.to_string())?;
        let account = rustix::process::geteuid().is_root().then(Account::find).transpose()?;
        // The shell beside the server removes it; until then we do.
        let mut server =
            PostgresServer { dir: dir.path().to_owned(), programs, account, port: free_port(), running: None };
        if let Some(account) = &server.account {
            said_by(Command::new("chown").arg(account.name).arg(&server.dir))?;
        }
        said_by(
            server
                .as_account("initdb")
                .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
                .arg(server.data()),
        )?;
        server.dir = dir.keep();
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts it, after a start has been followed by a kill, and waits until it answers.
    pub(crate) async fn run(&mut self) {
        // It is stopped in immediate mode: nothing in it is worth an orderly end.
        let beside = "dir=$1; shift; setsid \"$@\" >>\"$dir/output\" 2>&1 </dev/null & echo $!; read -r word
            [ \"$word\" = killed ] || kill -s QUIT -- -$! 2>/dev/null; wait
            [ \"$word\" = killed ] && exit
            for _ in 1 2 3 4 5 6 7 8 9; do kill -s 0 -- -$! 2>/dev/null || break; sleep 0.2; done
            rm -rf -- \"$dir\"";
        let mut command = Command::new("sh");
        command.args(["-c", beside, "sh"]).arg(&self.dir).current_dir(&self.dir);
        let server = self.as_account("postgres");
        command.arg(server.get_program()).args(server.get_args());
        command.arg("-D").arg(self.data()).arg("-k").arg(&self.dir).args(["-p", &self.port.to_string()]);
        for setting in ["fsync=on", "synchronous_commit=on", "full_page_writes=on", "listen_addresses=127.0.0.1"] {
            command.args(["-c", setting]);
        }
        command.args(["-c", "shared_buffers=32MB"]);
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut group = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut group).unwrap();
        let group = Pid::from_raw(group.trim().parse().unwrap()).unwrap();
        self.running = Some(Running { shell, group });
        eventually(START_LIMIT, "PostgreSQL answers", async || connect(&self.url()).await.ok()).await;
    }

    /// `kill -9` of the server and of all its processes, which are gone when this returns.
    pub(crate) async fn kill(&mut self) {
        let mut running = self.running.take().unwrap();
        let pid = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let pid: i32 = pid.lines().next().unwrap().trim().parse().unwrap();
        // One that stands still makes no more of them.
        kill_process_group(running.group, Signal::STOP).unwrap();
        let children = children(pid);
        kill_process_group(running.group, Signal::KILL).unwrap();
        for child in &children {
            // One that has ended meanwhile is no loss.
            let _ = kill_process(Pid::from_raw(*child).unwrap(), Signal::KILL);
        }
        writeln!(running.shell.stdin.take().unwrap(), "killed").unwrap();
        running.shell.wait().unwrap();
        // While one of them holds on to the shared memory, no new server starts.
        eventually(START_LIMIT, "PostgreSQL's processes are gone", async || {
            children.iter().all(|child| stat(*child).is_none_or(|(state, _)| state == 'Z')).then_some(())
        })
        .await;
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// One of PostgreSQL's programs, as an account that it takes.
    fn as_account(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match &self.account {
            Some(Account { name, group }) => {
                // It leaves nothing between the shell and the server: what is killed is collected by its parent.
                let mut command = Command::new("setpriv");
                command.args(["--reuid", name, "--regid", group, "--clear-groups"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir(&self.dir);
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        match self.running.take() {
            Some(mut running) => {
                // The end of its input has the shell stop the server and tidy up.
                drop(running.shell.stdin.take());
                let _ = running.shell.wait();
            }
            None => drop(std::fs::remove_dir_all(&self.dir)),
        }
    }
}

/// Where PostgreSQL's programs are: PATH first, then Debian's folders, the newest version first.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("initdb")).find(|initdb| initdb.exists());
    // A link on PATH may stand alone: the others are beside the real one.
    if let Some(folder) = on_path.and_then(|initdb| Some(initdb.canonicalize().ok()?.parent()?.to_owned())) {
        return Some(folder);
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let version = |folder: &PathBuf| -> Option<u32> { folder.parent()?.file_name()?.to_str()?.parse().ok() };
    folders.filter(|folder| Path::exists(&folder.join("initdb"))).max_by_key(version)
}

fn children(of: i32) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(_, parent)| parent == of)).collect()
}

/// A process's state and its parent (proc(5)).
fn stat(pid: i32) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name, which may hold anything, is in brackets.
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

impl Account {
    fn find() -> Result<Account, String> {
        let known = |name| Ok(Account { name, group: said_by(Command::new("id").args(["-g", name]))? });
        known("postgres").or_else(|_: String| known("nobody"))
    }
}

fn said_by(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{command:?}: {}: {}", output.status, text(&output.stderr))),
    }
}
