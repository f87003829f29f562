//! A RabbitMQ of our own, which tests may kill, freeze and wipe: one for the whole run, with a virtual host for each
//! test. It ends with this process, however that ends.
#![expect(
    clippy::disallowed_methods,
    reason = "what to start and whether skipping is allowed come from the environment, as in CI"
)]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::certificates::Certificates;
use super::eventually::eventually;
use super::ports::free_port;

/// It starts in some 6 s, and in more on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(90);
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

static BROKER: OnceCell<Result<RwLock<Broker>, String>> = OnceCell::const_new();

/// A broker that others use at the same time: nothing may be done to it.
pub(crate) type Shared = RwLockReadGuard<'static, Broker>;
/// A broker that nobody else uses meanwhile.
pub(crate) type Alone = RwLockWriteGuard<'static, Broker>;

/// `None` only when skipping was allowed.
pub(crate) async fn shared() -> Option<Shared> {
    Some(broker().await?.read().await)
}

/// `None` only when skipping was allowed.
pub(crate) async fn alone() -> Option<Alone> {
    Some(broker().await?.write().await)
}

async fn broker() -> Option<&'static RwLock<Broker>> {
    match BROKER.get_or_init(async || Broker::start().await.map(RwLock::new)).await {
        Ok(broker) => Some(broker),
        Err(reason) if std::env::var("VESTNIK_TEST_ALLOW_SKIP").is_ok_and(|value| value == "1") => {
            eprintln!("SKIPPED: no RabbitMQ to start ({reason}), and VESTNIK_TEST_ALLOW_SKIP=1");
            None
        }
        Err(reason) => panic!(
            "no RabbitMQ to start: {reason}. Install Debian's package rabbitmq-server (`scripts/test-services.sh --amqp \
             run …` does), or set VESTNIK_TEST_ALLOW_SKIP=1"
        ),
    }
}

pub(crate) struct Broker {
    dir: PathBuf,
    programs: PathBuf,
    node: String,
    port: u16,
    tls_port: u16,
    certificates: Certificates,
    dist_port: u16,
    running: Mutex<Option<Running>>,
}

/// A shell that waits beside the broker: it kills it when this process says so, or is no more.
struct Running {
    shell: Child,
    /// Of the broker's group.
    group: Pid,
}

/// One virtual host on it.
pub(crate) struct Vhost<B: Deref<Target = Broker>> {
    pub(crate) broker: B,
    pub(crate) name: String,
}

impl<B: Deref<Target = Broker>> Vhost<B> {
    pub(crate) async fn on(broker: B) -> Self {
        let name = format!("test_{:016x}", getrandom::u64().unwrap());
        broker.make_vhost(&name).await;
        Vhost { broker, name }
    }

    pub(crate) fn url(&self) -> String {
        self.url_of("guest", "guest")
    }

    pub(crate) fn url_of(&self, user: &str, password: &str) -> String {
        self.url_at("amqp", user, password, "127.0.0.1", self.broker.port)
    }

    /// To the port for encrypted connections; the broker's certificate is for `localhost`.
    pub(crate) fn tls_url(&self, host: &str) -> String {
        self.url_at("amqps", "guest", "guest", host, self.broker.tls_port)
    }

    /// An encrypted connection where none is served.
    pub(crate) fn tls_url_to_the_plain_port(&self) -> String {
        self.url_at("amqps", "guest", "guest", "127.0.0.1", self.broker.port)
    }

    /// A plain connection where only encrypted ones are served.
    pub(crate) fn plain_url_to_the_tls_port(&self) -> String {
        self.url_at("amqp", "guest", "guest", "127.0.0.1", self.broker.tls_port)
    }

    fn url_at(&self, scheme: &str, user: &str, password: &str, host: &str, port: u16) -> String {
        format!("{scheme}://{user}:{password}@{host}:{port}/{}?heartbeat=5", self.name)
    }
}

impl Broker {
    async fn start() -> Result<Broker, String> {
        let programs = programs()?;
        let dir = tempfile::Builder::new().prefix("vestnik-rabbitmq-").tempdir().map_err(|error| error.to_string())?;
        let node = format!("vestnik_it_{}@localhost", std::process::id());
        // The shell beside the broker removes it.
        let dir = dir.keep();
        let broker = Broker {
            certificates: Certificates::make(&dir),
            dir,
            programs,
            node,
            port: free_port(),
            tls_port: free_port(),
            dist_port: free_port(),
            running: Mutex::default(),
        };
        // The limits are those of a small machine's tests: memory enough for all of them, and whatever disk there is.
        let settings = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nlisteners.ssl.1 = 127.0.0.1:{}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\nvm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 20MB\n",
            broker.port,
            broker.tls_port,
            broker.certificates.certificate.display(),
            broker.certificates.key.display(),
        );
        std::fs::write(broker.dir.join("rabbitmq.conf"), settings).map_err(|error| error.to_string())?;
        std::fs::write(broker.dir.join("plugins"), "[].").map_err(|error| error.to_string())?;
        broker.run().await;
        Ok(broker)
    }

    /// Starts it, after a start has been followed by a stop or a kill, and waits until it answers.
    pub(crate) async fn run(&self) {
        // Dying processes still write: what they write to is removed once they are gone.
        let beside = "setsid \"$0\" >\"$1/output\" 2>&1 </dev/null & echo $!; read -r word
            kill -s KILL -- -$! 2>/dev/null; wait
            for _ in 1 2 3 4 5 6 7 8 9; do kill -s 0 -- -$! 2>/dev/null || break; sleep 0.2; done
            [ \"$word\" = keep ] || rm -rf -- \"$1\"";
        let mut command = Command::new("sh");
        command.args(["-c", beside]).arg(self.programs.join("rabbitmq-server")).arg(&self.dir);
        self.settings(&mut command);
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut group = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut group).unwrap();
        let group = Pid::from_raw(group.trim().parse().unwrap()).unwrap();
        *self.running.lock().unwrap() = Some(Running { shell, group });
        eventually(START_LIMIT, "the broker answers", async || self.answers().await.then_some(())).await;
        // It listens before all of it is there.
        self.ctl(&["await_startup"]).await;
    }

    /// Whether it opens a talk: its first frame is a method, whose first byte is 1.
    async fn answers(&self) -> bool {
        let talk = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
            stream.read_u8().await
        };
        matches!(tokio::time::timeout(ANSWER_LIMIT, talk).await, Ok(Ok(1)))
    }

    /// A PEM file of the certificate that vouches for the broker's own.
    pub(crate) fn ca_file(&self) -> &Path {
        &self.certificates.ca
    }

    /// `kill -9`.
    pub(crate) fn kill(&self) {
        let mut running = self.running.lock().unwrap().take().unwrap();
        kill_process_group(running.group, Signal::KILL).unwrap();
        writeln!(running.shell.stdin.take().unwrap(), "keep").unwrap();
        running.shell.wait().unwrap();
    }

    /// An orderly stop.
    pub(crate) async fn stop(&self) {
        self.ctl(&["stop"]).await;
        let mut running = self.running.lock().unwrap().take().unwrap();
        writeln!(running.shell.stdin.take().unwrap(), "keep").unwrap();
        running.shell.wait().unwrap();
    }

    pub(crate) fn freeze(&self) {
        kill_process_group(self.running.lock().unwrap().as_ref().unwrap().group, Signal::STOP).unwrap();
    }

    pub(crate) fn thaw(&self) {
        kill_process_group(self.running.lock().unwrap().as_ref().unwrap().group, Signal::CONT).unwrap();
    }

    pub(crate) async fn make_vhost(&self, name: &str) {
        self.ctl(&["add_vhost", name]).await;
        self.ctl(&["set_permissions", "-p", name, "guest", ".*", ".*", ".*"]).await;
    }

    /// Deletes every queue of a virtual host.
    pub(crate) async fn delete_queues(&self, vhost: &str) {
        let program = format!(
            "[rabbit_amqqueue:delete(Q, false, false, <<\"test\">>) || Q <- rabbit_amqqueue:list(<<\"{vhost}\">>)], ok."
        );
        self.ctl(&["eval", &program]).await;
    }

    /// `rabbitmqctl` with these arguments; what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub(crate) async fn ctl(&self, args: &[&str]) -> String {
        let mut command = Command::new(self.programs.join("rabbitmqctl"));
        command.arg("-q").args(args);
        self.settings(&mut command);
        let output = tokio::process::Command::from(command).output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "rabbitmqctl {args:?}: {} {}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// A node of its own in every respect: nothing is shared with a broker of the machine but epmd, which stays.
    fn settings(&self, command: &mut Command) {
        let inside = |name: &str| self.dir.join(name);
        command
            // What it writes when it crashes lands where it runs.
            .current_dir(&self.dir)
            .env("HOME", &self.dir)
            .env("RABBITMQ_NODENAME", &self.node)
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_CONFIG_FILE", inside("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", inside("plugins"))
            .env("RABBITMQ_MNESIA_BASE", inside("mnesia"))
            .env("RABBITMQ_LOG_BASE", inside("log"))
            .env("RABBITMQ_PID_FILE", inside("pid"))
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1");
    }
}

/// The folder of `rabbitmq-server` and `rabbitmqctl`: that of `VESTNIK_TEST_RABBITMQ_SERVER`, or Debian's. Its wrapper
/// demands root or rabbitmq; the scripts behind it do not.
fn programs() -> Result<PathBuf, String> {
    if let Some(server) = std::env::var_os("VESTNIK_TEST_RABBITMQ_SERVER") {
        let folder = Path::new(&server).parent().map(Path::to_owned);
        return folder
            .filter(|_| Path::exists(server.as_ref()))
            .ok_or_else(|| format!("there is no {}", server.display()));
    }
    const FOLDER: &str = "/usr/lib/rabbitmq/lib";
    let versions = std::fs::read_dir(FOLDER).into_iter().flatten();
    let mut folders: Vec<_> = versions.filter_map(|entry| Some(entry.ok()?.path().join("sbin"))).collect();
    folders.retain(|folder: &PathBuf| Path::exists(&folder.join("rabbitmq-server")));
    folders.sort();
    folders.pop().ok_or_else(|| format!("there is no rabbitmq-server in {FOLDER}"))
}
