//! A queue to hold promises against, and tasks to put into it.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use uuid::Uuid;
use vestnik::config::queue::{QueueSettings, QueueType};
use vestnik::domain::{AccountId, BatchId, Channel, Generation, NotificationId, Priority, SystemClock};
use vestnik::queue::{self, Bundle, Condition, Consumer, Delivery, Lane, Queue, QueueError, Task};
use vestnik::store::ChunkId;

use crate::support::eventually::{LONG, eventually};
use crate::support::rabbitmq::{self, Broker, Shared, Vhost};

/// A queue, and what it stands on.
pub(super) struct Stand {
    pub(super) queue: Arc<dyn Queue>,
    pub(super) vhost: Option<Vhost<Shared>>,
}

impl Stand {
    pub(super) async fn embedded() -> Option<Stand> {
        Some(Stand { queue: queue::connect(&settings(None), Arc::new(SystemClock), None).unwrap(), vhost: None })
    }

    pub(super) async fn quorum() -> Option<Stand> {
        Stand::on_broker(QueueType::Quorum).await
    }

    pub(super) async fn classic() -> Option<Stand> {
        Stand::on_broker(QueueType::Classic).await
    }

    async fn on_broker(queue_type: QueueType) -> Option<Stand> {
        let vhost = Vhost::on(rabbitmq::shared().await?).await;
        let settings = QueueSettings { queue_type, ..settings(Some(vhost.url())) };
        Some(Stand { queue: connected(&settings).await, vhost: Some(vhost) })
    }
}

pub(super) fn settings(url: Option<String>) -> QueueSettings {
    QueueSettings {
        rabbitmq_url: url.map(Into::into),
        queue_type: QueueType::Quorum,
        declare: true,
        ca_file: None,
        heartbeat_seconds: 15,
    }
}

pub(super) async fn on<B: Deref<Target = Broker>>(vhost: &Vhost<B>) -> Arc<dyn Queue> {
    connected(&settings(Some(vhost.url()))).await
}

pub(super) async fn connected(settings: &QueueSettings) -> Arc<dyn Queue> {
    let queue = queue::connect(settings, Arc::new(SystemClock), None).unwrap();
    until(&*queue, Condition::Up).await;
    queue
}

pub(super) async fn until(queue: &dyn Queue, condition: Condition) {
    let mut now = queue.condition();
    let waited = tokio::time::timeout(LONG, now.wait_for(|now| *now == condition)).await.map(|seen| seen.is_ok());
    assert_eq!(waited, Ok(true), "not {condition:?}, but {:?}", *queue.condition().borrow());
}

pub(super) fn task(number: u128, priority: Priority) -> Task {
    Task {
        id: NotificationId(Uuid::from_u128(number)),
        generation: Generation(1),
        chunk: ChunkId(Uuid::from_u128(number / 100)),
        account: AccountId(3),
        batch: number.is_multiple_of(2).then(|| BatchId(Uuid::from_u128(5))),
        lane: Lane { channel: Channel::Sms, priority },
        retry_count: 0,
    }
}

pub(super) fn tasks(numbers: std::ops::Range<u128>, priority: Priority) -> Vec<Task> {
    numbers.map(|number| task(number, priority)).collect()
}

/// Hands over, each by itself.
pub(super) async fn hand_over(queue: &dyn Queue, tasks: Vec<Task>) -> Result<(), QueueError> {
    queue.publish(Bundle::all(&tasks, 1)).await
}

/// Takes so many, in as many steps as it needs, and settles none.
pub(super) async fn take(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = tokio::time::timeout(LONG, consumer.next(count - taken.len())).await;
        taken.extend(next.unwrap_or_else(|_| panic!("only {} of {count} came", taken.len())).expect("not stopped"));
    }
    taken
}

pub(super) async fn settle(queue: &dyn Queue, deliveries: Vec<Delivery>) {
    queue.ack(deliveries.into_iter().map(|delivery| delivery.ack).collect()).await;
}

pub(super) fn ids(deliveries: &[Delivery]) -> BTreeSet<u128> {
    deliveries.iter().map(|delivery| delivery.task.id.0.as_u128()).collect()
}

pub(super) fn count(deliveries: &[Delivery], priority: Priority) -> usize {
    deliveries.iter().filter(|delivery| delivery.task.lane.priority == priority).count()
}

/// Waits until so many are ready in the lanes of these tests.
pub(super) async fn ready(queue: &dyn Queue, wanted: [u64; 3]) {
    let mut seen = Vec::new();
    let lanes = Lane::of(Channel::Sms);
    let waited = tokio::time::timeout(
        LONG,
        eventually(2 * LONG, "the lanes hold what they should", async || {
            let depths = queue.depths().await.ok()?;
            let of = |lane: &Lane| depths.iter().find(|depth| depth.lane == *lane).map(|depth| depth.ready);
            seen = lanes.iter().filter_map(of).collect();
            (seen == wanted).then_some(())
        }),
    )
    .await;
    assert!(waited.is_ok(), "ready: {seen:?}, and not {wanted:?}");
}
