//! A running `vestnik worker`.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

use super::server::tell_log;
use super::world::World;
use crate::support::eventually::LONG;

/// Killed on drop.
pub(super) struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    pub(super) async fn start(world: &World, settings: &[(&str, &str)]) -> Worker {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let log = world.dir.path().join(format!("worker-{}.log", STARTED.fetch_add(1, Ordering::Relaxed)));
        let mut command = world.command(settings);
        command.args(["worker", "--json"]).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let worker = Worker { child, log };
        let greeting = tokio::time::timeout(LONG, lines.next_line()).await.expect("it starts in time").unwrap();
        let greeting: Value = serde_json::from_str(&greeting.expect("it starts")).unwrap();
        assert_eq!(greeting["queue"], "rabbitmq");
        worker
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().expect("it runs").try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// `kill -9`, and gone when this returns.
    pub(super) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Stops it as a service manager does.
    pub(super) async fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = tokio::time::timeout(LONG, self.child.wait()).await.expect("it ends in time").unwrap();
        assert!(status.success(), "{status}");
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tell_log("a worker", &self.log());
        }
    }
}
