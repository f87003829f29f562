//! Seam: what carries work that is due now from the relay to the workers.
//!
//! A queue is a convenience and never the truth: it may repeat, reorder and lose, and what it holds is a reference
//! that the ledger explains. The relay hands over with a new generation each time; a worker claims (id, generation)
//! in the ledger, so a copy finds nothing to take, and what was lost is handed over again. Every wait is the ledger's;
//! nothing waits in here but for a worker.

pub mod bundle;
pub mod embedded;
pub mod foreign;
pub mod lane;
pub mod rabbitmq;

mod turns;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

pub use bundle::Bundle;
pub use embedded::Embedded;
pub use foreign::Ingress;
pub use lane::Lane;
pub use turns::Turns;

use crate::config::queue::QueueSettings;
use crate::domain::{AccountId, BatchId, Channel, Clock, Generation, NotificationId};
use crate::store::ChunkId;

/// One notification, handed over once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    pub id: NotificationId,
    pub generation: Generation,
    /// The chunk it was handed over with.
    pub chunk: ChunkId,
    pub account: AccountId,
    pub batch: Option<BatchId>,
    pub lane: Lane,
    /// How often it was tried again already; above 0 it goes through the exchange for retries.
    pub retry_count: i16,
}

/// A task in a worker's hand. Until it is settled the queue will bring it again, to this worker or another.
#[derive(Debug)]
pub struct Delivery {
    pub task: Task,
    pub ack: Ack,
}

/// Settles one delivery; made by the queue that delivered it.
#[derive(Debug)]
pub enum Ack {
    /// The embedded queue forgets what it delivers.
    Nothing,
    /// Dropped, its bundle goes back to the broker when the others of it are settled or dropped, too.
    RabbitMq(rabbitmq::Share),
}

/// How a queue is just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Up,
    /// It answers and takes nothing (a broker's memory or disk alarm).
    Blocked {
        reason: String,
    },
    /// It does not answer; it is being tried again.
    Down {
        reason: String,
    },
}

/// What a queue knows of one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneDepth {
    pub lane: Lane,
    /// Ready to be taken, counted in what the queue counts: tasks, or a broker's messages with a bundle in each. What
    /// workers hold is not in it.
    pub ready: u64,
    pub consumers: u64,
}

/// Why something was not done; whatever it was, doing it again later is right.
#[derive(Debug, thiserror::Error)]
#[error("the queue is not available ({doing}): {reason}")]
pub struct QueueError {
    pub doing: &'static str,
    pub reason: String,
}

/// Carries tasks from the relay to workers.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// `embedded` or `rabbitmq`, for people.
    fn kind(&self) -> &'static str;

    /// Whether workers in other processes take from it too, and what it holds outlives this process.
    fn is_shared(&self) -> bool;

    /// Hands over. After `Ok` the queue holds all of it. After an error it may hold some: hand all of it over again, in
    /// a new generation.
    async fn publish(&self, bundles: Vec<Bundle>) -> Result<(), QueueError>;

    /// Tells others of notifications that failed for good, each by its id with a JSON body, where others can listen.
    async fn tell_failed(&self, copies: &[(NotificationId, Vec<u8>)]) -> Result<(), QueueError>;

    /// Begins to take what is handed over for a channel, all its lanes. `prefetch` bounds how many bundles are in this
    /// process's hand unsettled, where the queue can know. It goes on by itself after any outage.
    async fn consume(&self, channel: Channel, prefetch: u16) -> Result<Box<dyn Consumer>, QueueError>;

    /// Settles deliveries: the ledger knows what comes of them now. Never fails: what could not be settled is
    /// delivered again, as a copy.
    async fn ack(&self, acks: Vec<Ack>);

    /// What waits in the lanes. Asked for seldom.
    async fn depths(&self) -> Result<Vec<LaneDepth>, QueueError>;

    /// How it is just now, to be watched.
    fn condition(&self) -> watch::Receiver<Condition>;

    /// Counts the times the queue was found to have lost what it held: what was handed over has to be handed over again.
    fn losses(&self) -> watch::Receiver<u64>;

    /// Ends all connections; what is not settled is delivered again elsewhere.
    async fn close(&self);
}

/// The queue that the settings ask for: RabbitMQ where they name one, else the one within this process.
///
/// A broker that is not there yet is no error; [`Queue::condition`] says so. `ingress` takes what others publish to it;
/// without one they are not listened to, and what they put into lanes goes to quarantine.
///
/// # Errors
/// When the settings cannot be used.
pub fn connect(
    settings: &QueueSettings,
    clock: Arc<dyn Clock>,
    ingress: Option<Arc<dyn Ingress>>,
) -> Result<Arc<dyn Queue>, rabbitmq::OptionsError> {
    Ok(match settings.rabbitmq_url {
        Some(_) => Arc::new(rabbitmq::RabbitMq::start(rabbitmq::Options::read(settings)?, clock, ingress)),
        None => Arc::new(Embedded::new()),
    })
}

/// Tasks of one channel as they come.
#[async_trait]
pub trait Consumer: Send {
    /// Waits for a task, then takes up to `max` of what is at hand: high before normal before low, a tenth of the
    /// places going to each lower lane where something waits there. `None` when it was stopped and is empty, or when the
    /// queue is closed. Giving up the wait loses nothing.
    async fn next(&mut self, max: usize) -> Option<Vec<Delivery>>;

    /// Takes nothing more; what was delivered and not yet taken from here goes back to the queue.
    async fn stop(&mut self);
}
