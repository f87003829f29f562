//! The providers' stand-in: WhatsApp's Cloud API, Telegram's Bot API, Twilio and an SMS gateway on one port, told apart
//! by path, and a mail server on a port of its own.
//!
//! It checks a request as strictly as the real ones and refuses in their own shapes; it can be slow, refuse, limit
//! and break connections as a [`Scenario`] says, over HTTP too (`control`); it posts receipts (`receipts`); and it keeps
//! an append-only record of what it took, which is what our own books are held against and what people look at
//! (`inbox`).
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
mod gateway;
mod inbox;
mod latency;
mod receipts;
mod record;
mod request;
mod scenario;
pub mod smtp;
mod stage;
pub mod telegram;
mod turns;
pub mod twilio;
pub mod whatsapp;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::fault::{ENDLESS_BODY_BYTES, FaultKind, SLOW_HEADER_PAUSE};
pub use self::figures::ChannelFigures;
pub use self::latency::{Latency, LatencySpread};
pub use self::receipts::{Fate, ReceiptFigures};
use self::record::Record;
pub use self::record::{KEPT, Taken, TakenAttachment, TakenEmail, TakenQuery, TakenSms};
pub use self::scenario::{
    EmailScenario, ErrorCode, ErrorShare, FaultShare, GatewayScenario, Phase, PhoneNumberScenario, RateLimits,
    ReceiptScenario, Rule, Scenario, ScenarioError, SmsScenario, TelegramScenario, TemplateScenario,
    TwilioAccountScenario, WhatsAppScenario,
};
pub use self::smtp::SmtpOptions;
use self::smtp::SmtpServer;
use self::stage::Stage;
use crate::domain::{Channel, Clock, SystemClock};

/// How to start a simulator.
#[derive(Clone)]
pub struct SimulatorOptions {
    /// Port 0 takes any free one.
    pub listen: SocketAddr,
    /// What chance starts from, unless the scenario says.
    pub seed: u64,
    pub scenario: Scenario,
    /// What the record's times, the rate limits and a scenario's phases go by. Latencies pass in real time.
    pub clock: Arc<dyn Clock>,
    /// Also append what is taken to this file, a line of JSON each.
    pub record_file: Option<PathBuf>,
    /// How many messages memory keeps; the oldest make room.
    pub keep: usize,
    /// Where mail is taken; `None` takes none.
    pub smtp: Option<SmtpOptions>,
}

/// Any free loopback port, no mail, and everything works.
impl Default for SimulatorOptions {
    fn default() -> Self {
        SimulatorOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            seed: 1,
            scenario: Scenario::default(),
            clock: Arc::new(SystemClock),
            record_file: None,
            keep: KEPT,
            smtp: None,
        }
    }
}

/// A running simulator. Any number of them may run in one process. Dropping it stops it without waiting.
pub struct Simulator {
    addr: SocketAddr,
    smtp: Option<SmtpServer>,
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
        let mut record = Record::new(options.keep);
        if let Some(path) = &options.record_file {
            record = record.with_file(path, &file_writer)?;
        }
        let listener = listen(options.listen).await?;
        let addr = listener.local_addr()?;
        let clock = Arc::clone(&options.clock);
        let stage = Arc::new(Stage::new(options.seed, scenario, options.clock, record));
        let stopping = CancellationToken::new();
        let smtp = match &options.smtp {
            Some(smtp) => Some(SmtpServer::start(smtp, &stage, &stopping, &connections).await?),
            None => None,
        };
        let serve = {
            let stage = Arc::clone(&stage);
            move |stream| {
                let stage = Arc::clone(&stage);
                async move { connection::serve(stream, &stage).await }
            }
        };
        connections.spawn(accept(listener, serve, stopping.clone(), connections.clone()));
        let receipts = Arc::clone(&stage.receipts);
        connections.spawn(receipts.run(clock, stopping.clone(), connections.clone()));
        Ok(Simulator { addr, smtp, stage, stopping, connections, file_writer })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where mail is taken.
    pub fn smtp_addr(&self) -> Option<SocketAddr> {
        self.smtp.as_ref().map(|smtp| smtp.addr)
    }

    /// Where mail is taken with TLS from the start.
    pub fn smtps_addr(&self) -> Option<SocketAddr> {
        self.smtp.as_ref().and_then(|smtp| smtp.tls_addr)
    }

    /// The certificate that a mail client must trust.
    pub fn smtp_ca_pem(&self) -> Option<&str> {
        self.smtp.as_ref().map(|smtp| smtp.ca_pem.as_str())
    }

    /// The base URL for any provider, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// All that was taken so far and is kept.
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

    /// The figures of one provider.
    pub fn figures(&self, channel: Channel) -> ChannelFigures {
        self.stage.stand(channel).figures.snapshot()
    }

    /// What became of receipts.
    pub fn receipt_figures(&self) -> ReceiptFigures {
        self.stage.receipts.figures()
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

/// The failure says which address it was.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| io::Error::new(error.kind(), format!("could not listen on {address}: {error}")))
}

/// Serves each connection in a task of its own, until it is stopped.
async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
    stopping: CancellationToken,
    connections: TaskTracker,
) {
    /// After a failed accept, usually for want of file descriptors: time for some to be given back.
    const PAUSE: Duration = Duration::from_millis(10);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (served, stopping) = (serve(stream), stopping.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = served => {}
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
