//! The queue of one process: twelve lanes in memory.
//!
//! It holds references only, and the relay keeps only a window in here, so that what a crash takes is little and the
//! ledger hands it over again. It forgets what it delivers; the worker's own permits bound what is in hand.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use super::turns::Turns;
use super::{Ack, Bundle, Condition, Consumer, Delivery, Lane, LaneDepth, Queue, QueueError, Task};
use crate::domain::{Channel, NotificationId, Priority};

/// Lanes that all consumers of this process share.
#[derive(Debug)]
pub struct Embedded {
    lanes: Arc<[ChannelLanes; Channel::ALL.len()]>,
    condition: watch::Sender<Condition>,
    losses: watch::Sender<u64>,
}

/// The three lanes of one channel.
#[derive(Debug, Default)]
struct ChannelLanes {
    // Held to move a few tasks, never over an await.
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Most urgent first.
    lanes: [VecDeque<Task>; 3],
    turns: Turns,
    consumers: u64,
    closed: bool,
}

impl Embedded {
    pub fn new() -> Self {
        Embedded { lanes: Arc::default(), condition: watch::Sender::new(Condition::Up), losses: watch::Sender::new(0) }
    }
}

impl Default for Embedded {
    fn default() -> Self {
        Embedded::new()
    }
}

impl ChannelLanes {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take(&mut self, max: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        while taken.len() < max {
            let Some(lane) = self.turns.next(self.lanes.each_ref().map(|lane| !lane.is_empty())) else { break };
            taken.extend(self.lanes[lane].pop_front().map(|task| Delivery { task, ack: Ack::Nothing }));
        }
        taken
    }
}

#[async_trait]
impl Queue for Embedded {
    fn kind(&self) -> &'static str {
        "embedded"
    }

    fn is_shared(&self) -> bool {
        false
    }

    async fn publish(&self, bundles: Vec<Bundle>) -> Result<(), QueueError> {
        let mut touched = [false; Channel::ALL.len()];
        for Bundle { lane, tasks, .. } in bundles {
            let channel = channel_index(lane.channel);
            let mut waiting = self.lanes[channel].waiting();
            if waiting.closed {
                return Err(QueueError { doing: "handing over", reason: "it is closed".into() });
            }
            waiting.lanes[priority_index(lane.priority)].extend(tasks);
            touched[channel] = true;
        }
        for (lanes, _) in self.lanes.iter().zip(touched).filter(|(_, touched)| *touched) {
            // All of them: one may have room for a part only, and another is to have the rest.
            lanes.changed.notify_waiters();
        }
        Ok(())
    }

    async fn tell_failed(&self, _copies: &[(NotificationId, Vec<u8>)]) -> Result<(), QueueError> {
        Ok(())
    }

    async fn consume(&self, channel: Channel, _prefetch: u16) -> Result<Box<dyn Consumer>, QueueError> {
        let lanes = Arc::clone(&self.lanes);
        lanes[channel_index(channel)].waiting().consumers += 1;
        Ok(Box::new(EmbeddedConsumer { lanes, channel: channel_index(channel), stopped: false }))
    }

    async fn ack(&self, _acks: Vec<Ack>) {}

    async fn depths(&self) -> Result<Vec<LaneDepth>, QueueError> {
        Ok(Channel::ALL
            .into_iter()
            .flat_map(|channel| {
                let waiting = self.lanes[channel_index(channel)].waiting();
                Lane::of(channel).map(|lane| LaneDepth {
                    lane,
                    ready: waiting.lanes[priority_index(lane.priority)].len() as u64,
                    consumers: waiting.consumers,
                })
            })
            .collect())
    }

    fn condition(&self) -> watch::Receiver<Condition> {
        self.condition.subscribe()
    }

    fn losses(&self) -> watch::Receiver<u64> {
        self.losses.subscribe()
    }

    async fn close(&self) {
        for lanes in self.lanes.iter() {
            lanes.waiting().closed = true;
            lanes.changed.notify_waiters();
        }
    }
}

struct EmbeddedConsumer {
    lanes: Arc<[ChannelLanes; Channel::ALL.len()]>,
    channel: usize,
    stopped: bool,
}

impl EmbeddedConsumer {
    fn leave(&mut self) {
        if !std::mem::replace(&mut self.stopped, true) {
            self.lanes[self.channel].waiting().consumers -= 1;
        }
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn next(&mut self, max: usize) -> Option<Vec<Delivery>> {
        let lanes = &self.lanes[self.channel];
        loop {
            // Listening begins before the look, so that what comes between the look and the wait is not missed.
            let mut changed = pin!(lanes.changed.notified());
            changed.as_mut().enable();
            {
                let mut waiting = lanes.waiting();
                if self.stopped || waiting.closed {
                    return None;
                }
                let taken = waiting.take(max);
                if !taken.is_empty() || max == 0 {
                    return Some(taken);
                }
            }
            changed.await;
        }
    }

    async fn stop(&mut self) {
        self.leave();
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        self.leave();
    }
}

fn channel_index(channel: Channel) -> usize {
    match channel {
        Channel::WhatsApp => 0,
        Channel::Telegram => 1,
        Channel::Sms => 2,
        Channel::Email => 3,
    }
}

fn priority_index(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::domain::{AccountId, Generation, NotificationId};
    use crate::store::ChunkId;

    fn task(number: u128, priority: Priority) -> Task {
        Task {
            id: NotificationId(Uuid::from_u128(number)),
            generation: Generation(1),
            chunk: ChunkId(Uuid::from_u128(9)),
            account: AccountId(1),
            batch: None,
            lane: Lane { channel: Channel::Sms, priority },
            retry_count: 0,
        }
    }

    fn tasks(numbers: std::ops::Range<u128>, priority: Priority) -> Vec<Bundle> {
        Bundle::all(&numbers.map(|number| task(number, priority)).collect::<Vec<_>>(), 2)
    }

    fn count(deliveries: &[Delivery], priority: Priority) -> usize {
        deliveries.iter().filter(|delivery| delivery.task.lane.priority == priority).count()
    }

    #[tokio::test]
    async fn high_goes_first_and_the_lower_lanes_get_their_tenths() {
        let queue = Embedded::new();
        for priority in [Priority::Low, Priority::Normal, Priority::High] {
            queue.publish(tasks(0..100, priority)).await.expect("handed over");
        }
        let mut consumer = queue.consume(Channel::Sms, 1).await.expect("a consumer");
        let taken = consumer.next(100).await.expect("tasks");
        let counts = [Priority::High, Priority::Normal, Priority::Low].map(|priority| count(&taken, priority));
        assert_eq!(counts, [80, 10, 10]);
        assert_eq!(taken[0].task, task(0, Priority::High));
        // Within a lane they keep their order.
        assert_eq!(consumer.next(1).await.expect("one")[0].task, task(80, Priority::High));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_up_is_lost_between_many_consumers() {
        const TASKS: u128 = 20_000;
        let queue = Arc::new(Embedded::new());
        let (seen, mut taken) = tokio::sync::mpsc::unbounded_channel();
        let tracker = tokio_util::task::TaskTracker::new();
        for max in 1..5 {
            let mut consumer = queue.consume(Channel::Sms, 1).await.expect("a consumer");
            let seen = seen.clone();
            tracker.spawn(async move {
                while let Some(deliveries) = consumer.next(max).await {
                    deliveries.iter().for_each(|delivery| seen.send(delivery.task.id).expect("counted"));
                }
            });
        }
        for number in 0..TASKS {
            queue.publish(tasks(number..number + 1, Priority::Normal)).await.expect("handed over");
            if number % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let all = async {
            let mut ids = std::collections::HashSet::new();
            while ids.len() < TASKS as usize {
                assert!(ids.insert(taken.recv().await.expect("a task")), "taken twice");
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("each task is taken");
        queue.close().await;
        tracker.close();
        tokio::time::timeout(Duration::from_secs(30), tracker.wait()).await.expect("consumers end with the queue");
    }

    #[tokio::test]
    async fn a_stopped_consumer_leaves_what_it_did_not_take() {
        let queue = Embedded::new();
        let mut first = queue.consume(Channel::Sms, 1).await.expect("a consumer");
        queue.publish(tasks(0..3, Priority::Low)).await.expect("handed over");
        assert_eq!(first.next(1).await.expect("one").len(), 1);
        first.stop().await;
        assert!(first.next(1).await.is_none());
        let mut second = queue.consume(Channel::Sms, 1).await.expect("a consumer");
        assert_eq!(second.next(10).await.expect("the rest").len(), 2);
        drop(second);
        let depths = queue.depths().await.expect("depths");
        assert!(depths.iter().all(|depth| depth.consumers == 0 && depth.ready == 0), "{depths:?}");
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_takes_nothing() {
        let queue = Embedded::new();
        let mut consumer = queue.consume(Channel::Sms, 1).await.expect("a consumer");
        {
            let mut wait = pin!(consumer.next(1));
            assert!(futures::poll!(wait.as_mut()).is_pending());
            queue.publish(tasks(1..2, Priority::High)).await.expect("handed over");
        }
        assert_eq!(consumer.next(1).await.expect("it is still there").len(), 1);
    }

    #[tokio::test]
    async fn a_closed_queue_takes_and_gives_nothing() {
        let queue = Embedded::new();
        let mut consumer = queue.consume(Channel::Sms, 1).await.expect("a consumer");
        queue.close().await;
        assert!(consumer.next(1).await.is_none());
        assert!(queue.publish(tasks(1..2, Priority::High)).await.is_err());
    }
}
