//! One connection to the broker, kept up.
//!
//! The client's own recovery is off: it gives up after a while, and after orderly stops of the broker consumers of it
//! did not always come back. Here whatever is wrong with a connection (an error, a silence, a time limit) drops it
//! whole, and a new one is made after a pause. Every await on the client has a time limit: against a frozen broker it
//! would not end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use lapin::{Connection, ConnectionProperties, ErrorKind, Event};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::incarnation::Keeper;
use super::options::Options;
use super::tls;
use crate::domain::reconnect::{self, LONGEST_PAUSE};
use crate::queue::{Condition, QueueError};

/// TCP, TLS and the handshake together; the client's own limit covers TCP only.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// One question and its answer.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(10);
/// An orderly end is a courtesy.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// How often a connection is looked at that says nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A connection that is made anew whenever it breaks, until it is told to stop.
#[derive(Clone, Debug)]
pub(super) struct Link {
    state: watch::Receiver<State>,
}

#[derive(Clone, Debug)]
enum State {
    Up(Arc<Live>),
    Down { reason: String },
}

/// One connection while it lasts.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) connection: Connection,
    /// Why the broker takes nothing on it just now.
    pub(super) blocked: watch::Sender<Option<String>>,
    over: CancellationToken,
}

impl Live {
    /// Has the connection dropped: something took too long or came back wrong.
    pub(super) fn give_up(&self, error: &QueueError) {
        tracing::debug!(error = %error, "the connection to RabbitMQ is given up");
        self.over.cancel();
    }

    /// Waits until it is dropped.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }
}

impl Link {
    /// Begins to connect. `name` is what the broker's pages show.
    pub(super) fn keep(
        name: &'static str,
        options: Arc<Options>,
        keeper: Arc<Keeper>,
        health: Health,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Link {
        let (sender, state) = watch::channel(State::Down { reason: "not connected yet".into() });
        tasks.spawn(Supervisor { name, options, keeper, health, state: sender, stop }.run());
        Link { state }
    }

    /// The connection, if there is one.
    pub(super) fn now(&self, doing: &'static str) -> Result<Arc<Live>, QueueError> {
        match &*self.state.borrow() {
            State::Up(live) => Ok(Arc::clone(live)),
            State::Down { reason } => Err(QueueError { doing, reason: reason.clone() }),
        }
    }

    /// Waits for a connection; `None` when there will be none any more.
    pub(super) async fn live(&mut self) -> Option<Arc<Live>> {
        let up = self.state.wait_for(|state| matches!(state, State::Up(_))).await.ok()?;
        match &*up {
            State::Up(live) => Some(Arc::clone(live)),
            State::Down { .. } => None,
        }
    }
}

struct Supervisor {
    name: &'static str,
    options: Arc<Options>,
    keeper: Arc<Keeper>,
    health: Health,
    state: watch::Sender<State>,
    stop: CancellationToken,
}

impl Supervisor {
    async fn run(self) {
        let mut pauses = reconnect::pauses();
        loop {
            let opened = tokio::select! {
                () = self.stop.cancelled() => break,
                opened = self.open() => opened,
            };
            let reason = match opened {
                Ok((live, events)) => {
                    pauses = reconnect::pauses();
                    tracing::info!(connection = self.name, "connected to RabbitMQ");
                    self.state.send_replace(State::Up(Arc::clone(&live)));
                    // Whoever waited for this may use the connection at once.
                    self.health.set(self.name, Condition::Up);
                    let ended = tokio::select! {
                        () = self.stop.cancelled() => None,
                        () = live.over() => Some("it did not do as asked".to_owned()),
                        reason = self.watch(&live, events) => Some(reason),
                    };
                    live.over.cancel();
                    let reason = ended.clone().unwrap_or_else(|| "closed".into());
                    self.state.send_replace(State::Down { reason });
                    let _ = timeout(CLOSE_LIMIT, live.connection.close(200, "bye".into())).await;
                    let Some(reason) = ended else { break };
                    reason
                }
                Err(error) => error.to_string(),
            };
            tracing::warn!(connection = self.name, %reason, "no connection to RabbitMQ: trying again");
            self.health.set(self.name, Condition::Down { reason: reason.clone() });
            self.state.send_replace(State::Down { reason });
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            if timeout(pause, self.stop.cancelled()).await.is_ok() {
                break;
            }
        }
        self.state.send_replace(State::Down { reason: "the queue is closed".into() });
    }

    /// Connects, and sees that what we need is there.
    async fn open(&self) -> Result<(Arc<Live>, BoxStream<'static, Event>), QueueError> {
        let connection = connect(&self.options, self.name).await?;
        // The client keeps events only for those who listen already.
        let events = connection.events_listener().boxed();
        self.keeper.ensure(&connection).await?;
        let live = Live { connection, blocked: watch::Sender::new(None), over: CancellationToken::new() };
        Ok((Arc::new(live), events))
    }

    /// Returns when the connection is no more, with the reason.
    async fn watch(&self, live: &Live, mut events: BoxStream<'static, Event>) -> String {
        loop {
            match timeout(LOOK_EVERY, events.next()).await {
                Ok(Some(Event::ConnectionBlocked(reason))) => {
                    tracing::warn!(connection = self.name, %reason, "RabbitMQ takes nothing");
                    self.health.set(self.name, Condition::Blocked { reason: reason.clone() });
                    live.blocked.send_replace(Some(reason));
                }
                Ok(Some(Event::ConnectionUnblocked)) => {
                    tracing::info!(connection = self.name, "RabbitMQ takes again");
                    self.health.set(self.name, Condition::Up);
                    live.blocked.send_replace(None);
                }
                Ok(Some(Event::Error(error))) if !live.connection.status().connected() => return said(&error),
                Ok(None) => return "the connection ended".into(),
                // A channel's error is its user's; other events change nothing.
                Ok(Some(_)) | Err(_) if live.connection.status().connected() => {}
                Ok(Some(_)) | Err(_) => return "the connection was lost".into(),
            }
        }
    }
}

/// One connection, as long as it lasts.
pub(super) async fn connect(options: &Options, name: &str) -> Result<Connection, QueueError> {
    const DOING: &str = "connecting to RabbitMQ";
    let properties = ConnectionProperties::default().with_connection_name(format!("vestnik {name}").into());
    let runtime = lapin::runtime::default_runtime().map_err(|error| trouble(DOING, &error))?;
    let connecting = Connection::connect_uri_with_config(options.uri.clone(), properties, options.tls(), runtime);
    within(CONNECT_LIMIT, DOING, connecting)
        .await
        .map_err(|error| QueueError { reason: format!("{} at {}", error.reason, options.place()), ..error })
}

/// Waits for an answer of the client, and not for ever.
pub(super) async fn within<T>(
    limit: Duration,
    doing: &'static str,
    call: impl Future<Output = lapin::Result<T>>,
) -> Result<T, QueueError> {
    match timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(trouble(doing, &error)),
        Err(_) => Err(QueueError { doing, reason: format!("no answer within {} s", limit.as_secs()) }),
    }
}

pub(super) fn trouble(doing: &'static str, error: &lapin::Error) -> QueueError {
    QueueError { doing, reason: said(error) }
}

/// The broker's own words where there are some.
fn said(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        ErrorKind::IOError(cause) => tls::refusal(cause).unwrap_or_else(|| error.to_string()),
        _ => error.to_string(),
    }
}

/// How the broker is, put together from the connections.
#[derive(Clone, Debug)]
pub(super) struct Health {
    // Held to change an entry, never over an await.
    links: Arc<Mutex<Vec<(&'static str, Condition)>>>,
    condition: watch::Sender<Condition>,
}

impl Health {
    /// Of these connections, none of which is up yet.
    pub(super) fn of(names: &[&'static str]) -> Health {
        let down = Condition::Down { reason: "not connected yet".into() };
        Health {
            links: Arc::new(Mutex::new(names.iter().map(|name| (*name, down.clone())).collect())),
            condition: watch::Sender::new(down),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Condition> {
        self.condition.subscribe()
    }

    fn set(&self, name: &'static str, condition: Condition) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        for link in links.iter_mut().filter(|link| link.0 == name) {
            link.1 = condition.clone();
        }
        let badness = |condition: &Condition| match condition {
            Condition::Up => 0,
            Condition::Blocked { .. } => 1,
            Condition::Down { .. } => 2,
        };
        let worst = links.iter().map(|(_, condition)| condition).max_by_key(|condition| badness(condition));
        if let Some(worst) = worst {
            self.condition.send_if_modified(|now| {
                let changed = now != worst;
                now.clone_from(worst);
                changed
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_connection_says_how_the_broker_is() {
        let health = Health::of(&["a", "b"]);
        let now = health.watch();
        let down = Condition::Down { reason: "gone".into() };
        let blocked = Condition::Blocked { reason: "memory".into() };
        health.set("a", Condition::Up);
        assert!(matches!(&*now.borrow(), Condition::Down { .. }), "b is not connected yet");
        health.set("b", Condition::Up);
        assert_eq!(*now.borrow(), Condition::Up);
        health.set("a", blocked.clone());
        assert_eq!(*now.borrow(), blocked);
        health.set("b", down.clone());
        assert_eq!(*now.borrow(), down);
    }
}
