//! The providers' stand-in: WhatsApp's Cloud API and Telegram's Bot API on one port, told apart by path.
//!
//! It checks a request as strictly as the real ones and refuses in their own shapes; it can be slow, refuse, limit
//! and break connections as a [`Scenario`] says, over HTTP too (`control`); and it keeps an append-only record of
//! what it took, which is what our own books are held against.
//!
//! Deterministic: chance is a hash of (seed, channel, recipient, how many-th message to that recipient), so the same
//! seed fails the same messages whatever the order they arrive in (`turns`).
//!
//! It belongs on a loopback address: it has no secrets to keep and asks for none.

mod answer;
mod chance;
mod connection;
mod control;
mod fault;
mod figures;
mod latency;
mod record;
mod request;
mod scenario;
mod stage;
pub mod telegram;
mod turns;
pub mod whatsapp;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::fault::{ENDLESS_BODY_BYTES, FaultKind, SLOW_HEADER_PAUSE};
pub use self::figures::ChannelFigures;
pub use self::latency::{Latency, LatencySpread};
use self::record::Record;
pub use self::record::{Taken, TakenQuery};
pub use self::scenario::{
    ErrorCode, ErrorShare, FaultShare, PhoneNumberScenario, RateLimits, Rule, Scenario, ScenarioError,
    TelegramScenario, TemplateScenario, WhatsAppScenario,
};
use self::stage::Stage;
use crate::domain::{Channel, Clock};

/// How to start a simulator.
#[derive(Clone)]
pub struct SimulatorOptions {
    /// Port 0 takes any free one.
    pub listen: SocketAddr,
    /// What chance starts from.
    pub seed: u64,
    pub scenario: Scenario,
    /// What the record's times and the rate limits go by. Latencies pass in real time.
    pub clock: Arc<dyn Clock>,
    /// Also append what is taken to this file, a line of JSON each.
    pub record_file: Option<PathBuf>,
}

/// A running simulator. Any number of them may run in one process. Dropping it stops it without waiting.
pub struct Simulator {
    addr: SocketAddr,
    stage: Arc<Stage>,
    stopping: CancellationToken,
    connections: TaskTracker,
    /// The record's file, if there is one: it is written to its end after the last connection is gone.
    file_writer: TaskTracker,
}

impl Simulator {
    /// Listens and serves from tasks of its own. A scenario that makes no sense is [`io::ErrorKind::InvalidInput`]
    /// around a [`ScenarioError`].
    pub async fn start(options: SimulatorOptions) -> io::Result<Simulator> {
        let scenario =
            options.scenario.checked().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let (connections, file_writer) = (TaskTracker::new(), TaskTracker::new());
        let record = match &options.record_file {
            Some(path) => Record::with_file(path, &file_writer)?,
            None => Record::default(),
        };
        let listener = TcpListener::bind(options.listen).await?;
        let addr = listener.local_addr()?;
        let stage = Arc::new(Stage::new(options.seed, scenario, options.clock, record));
        let stopping = CancellationToken::new();
        connections.spawn(accept(listener, Arc::clone(&stage), stopping.clone(), connections.clone()));
        Ok(Simulator { addr, stage, stopping, connections, file_writer })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL for either provider, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// All that was taken so far.
    pub fn taken(&self) -> Vec<Taken> {
        self.stage.record.page(&TakenQuery { limit: usize::MAX, ..TakenQuery::default() }).0
    }

    /// A page of the record, and the number to go on after; `None` when the end was reached.
    pub fn taken_page(&self, query: &TakenQuery) -> (Vec<Taken>, Option<u64>) {
        self.stage.record.page(query)
    }

    /// How many were taken so far.
    pub fn taken_count(&self) -> u64 {
        self.stage.record.len()
    }

    /// The figures of one provider; of one that is not here, zeros.
    pub fn figures(&self, channel: Channel) -> ChannelFigures {
        match channel {
            Channel::WhatsApp => self.stage.whatsapp().figures.snapshot(),
            Channel::Telegram => self.stage.telegram().figures.snapshot(),
            Channel::Sms | Channel::Email => ChannelFigures::default(),
        }
    }

    /// Replaces the scenario for all messages from now on. The record and each recipient's count go on; rules and
    /// limits start anew, and what was queued is replaced by the scenario's `next`.
    pub fn set_scenario(&self, scenario: Scenario) -> Result<(), ScenarioError> {
        self.stage.set_scenario(scenario.checked()?);
        Ok(())
    }

    /// As freshly started, with the scenario that is set and, if given, another seed.
    pub fn reset(&self, seed: Option<u64>) {
        self.stage.reset(seed);
    }

    /// Ends every connection where it is, and returns when all is quiet and the record's file is written.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.connections.close();
        self.connections.wait().await;
        self.stage.record.close_file();
        self.file_writer.close();
        self.file_writer.wait().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

async fn accept(listener: TcpListener, stage: Arc<Stage>, stopping: CancellationToken, connections: TaskTracker) {
    /// After a failed accept, usually for want of file descriptors: time for some to be given back.
    const PAUSE: Duration = Duration::from_millis(10);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (stage, stopping) = (Arc::clone(&stage), stopping.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = connection::serve(stream, &stage) => {}
                        () = stopping.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "the simulator could not accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
