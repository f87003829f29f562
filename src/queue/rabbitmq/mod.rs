//! The queue between machines: RabbitMQ, by lapin.
//!
//! Two connections, kept up each for itself: a broker short of memory stops reading from those who publish, and
//! acknowledgements must not be stuck behind. `topology` is what has to exist, `incarnation` notices when it was lost,
//! `publisher` hands over, `consumer` takes, `settle` acknowledges. Nothing in a broker is the only record of anything.

mod basket;
mod connection;
mod consumer;
mod incarnation;
mod intake;
mod message;
mod options;
mod probe;
mod publisher;
mod quarantine;
mod reader;
mod settle;
mod tls;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::connection::{Health, Link};
use self::incarnation::Keeper;
use self::intake::Intake;
use self::publisher::Publisher;
use self::reader::{Reader, Reads};
use super::foreign::Ingress;
use super::{Ack, Bundle, Condition, Consumer, LaneDepth, Queue, QueueError};
use crate::domain::{Channel, Clock, NotificationId};

pub use options::{Options, OptionsError};
pub use probe::{Broker, declare, look};
pub use settle::Share;
pub use topology::{Found, Item, Report};

const PUBLISHING: &str = "publishing";
const CONSUMING: &str = "consuming";
/// All steps of an end have limits of their own; this is for the sum of each half.
const CLOSE_LIMIT: Duration = Duration::from_secs(20);
/// For the last acknowledgements to be worked on; what is still in somebody's hand is not waited for.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);

/// Lanes on a broker that all processes share.
pub struct RabbitMq {
    publishing: Link,
    publisher: Arc<Publisher>,
    keeper: Arc<Keeper>,
    health: Health,
    parts: consumer::Parts,
    tasks: TaskTracker,
    /// Ends the consumers, and after them the connections.
    stop_consumers: CancellationToken,
    stop_links: CancellationToken,
    _on_drop: [DropGuard; 2],
}

impl RabbitMq {
    /// Begins to connect and returns at once: [`condition`](Queue::condition) says when the broker is there.
    /// `ingress` takes what others publish, and what is in quarantine; without one, others are not listened to.
    pub fn start(options: Options, clock: Arc<dyn Clock>, ingress: Option<Arc<dyn Ingress>>) -> RabbitMq {
        let options = Arc::new(options);
        let tasks = TaskTracker::new();
        let (stop_consumers, stop_links) = (CancellationToken::new(), CancellationToken::new());
        let keeper = Arc::new(Keeper::new(Arc::clone(&options)));
        let health = Health::of(&[PUBLISHING, CONSUMING]);
        let link = |name| {
            let (options, keeper) = (Arc::clone(&options), Arc::clone(&keeper));
            Link::keep(name, options, keeper, health.clone(), &tasks, stop_links.clone())
        };
        let (publishing, consuming) = (link(PUBLISHING), link(CONSUMING));
        let publisher = Arc::new(Publisher::new(publishing.clone(), Arc::clone(&keeper)));
        let parts = consumer::Parts {
            link: consuming,
            keeper: Arc::clone(&keeper),
            intake: Arc::new(Intake { ingress: ingress.clone(), publisher: Arc::clone(&publisher), clock }),
            feeders: TaskTracker::new(),
            settlers: TaskTracker::new(),
        };
        if let Some(ingress) = ingress {
            for reads in [Reads::Ingress(Arc::clone(&parts.intake)), Reads::Quarantine(ingress)] {
                let (link, keeper) = (parts.link.clone(), Arc::clone(&keeper));
                parts.feeders.spawn(Reader { link, keeper, reads, stop: stop_consumers.clone() }.run());
            }
        }
        let on_drop = [stop_consumers.clone().drop_guard(), stop_links.clone().drop_guard()];
        RabbitMq { publishing, publisher, keeper, health, parts, tasks, stop_consumers, stop_links, _on_drop: on_drop }
    }
}

#[async_trait]
impl Queue for RabbitMq {
    fn kind(&self) -> &'static str {
        "rabbitmq"
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn publish(&self, bundles: Vec<Bundle>) -> Result<(), QueueError> {
        let messages: Vec<_> = bundles.iter().map(message::of_bundle).collect();
        self.publisher.publish(&messages).await
    }

    async fn tell_failed(&self, copies: &[(NotificationId, Vec<u8>)]) -> Result<(), QueueError> {
        let copies: Vec<_> = copies.iter().map(|(id, body)| message::of_failed(*id, body)).collect();
        self.publisher.publish(&copies).await
    }

    async fn consume(&self, channel: Channel, prefetch: u16) -> Result<Box<dyn Consumer>, QueueError> {
        let stop = self.stop_consumers.child_token();
        Ok(Box::new(consumer::start(self.parts.clone(), channel, prefetch, stop)))
    }

    async fn ack(&self, acks: Vec<Ack>) {
        for ack in acks {
            match ack {
                Ack::RabbitMq(share) => share.done(),
                Ack::Nothing => {}
            }
        }
    }

    async fn depths(&self) -> Result<Vec<LaneDepth>, QueueError> {
        let live = self.publishing.now("counting what waits")?;
        probe::depths(&live.connection).await
    }

    fn condition(&self) -> watch::Receiver<Condition> {
        self.health.watch()
    }

    fn losses(&self) -> watch::Receiver<u64> {
        self.keeper.losses()
    }

    async fn close(&self) {
        self.stop_consumers.cancel();
        self.parts.feeders.close();
        let _ = tokio::time::timeout(CLOSE_LIMIT, self.parts.feeders.wait()).await;
        self.parts.settlers.close();
        let _ = tokio::time::timeout(SETTLE_LIMIT, self.parts.settlers.wait()).await;
        self.stop_links.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(CLOSE_LIMIT, self.tasks.wait()).await;
    }
}
