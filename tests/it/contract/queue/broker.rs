//! A broker that ends, freezes, runs short of memory or loses what it had: what it confirmed comes, unless it was wiped,
//! which is counted; and all goes on by itself.
#![expect(clippy::disallowed_methods, reason = "a test waits for its own tasks")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;
use vestnik::domain::{Channel, Priority};
use vestnik::queue::{Condition, Queue};

use super::stand::{hand_over, ids, on, settle, take, task, tasks, until};
use crate::support::eventually::{LONG, eventually};
use crate::support::rabbitmq::{self, Alone, Vhost};

/// Hands over and takes all the time, and remembers what was confirmed and what came.
struct Traffic {
    queue: Arc<dyn Queue>,
    confirmed: Arc<Mutex<BTreeSet<u128>>>,
    seen: Arc<Mutex<BTreeSet<u128>>>,
    enough: Arc<AtomicBool>,
    publisher: JoinHandle<()>,
    worker: JoinHandle<()>,
}

impl Traffic {
    async fn on(queue: &Arc<dyn Queue>) -> Traffic {
        let (confirmed, seen) = (Arc::<Mutex<BTreeSet<u128>>>::default(), Arc::<Mutex<BTreeSet<u128>>>::default());
        let enough = Arc::new(AtomicBool::new(false));
        let publisher = {
            let (queue, confirmed, enough) = (Arc::clone(queue), Arc::clone(&confirmed), Arc::clone(&enough));
            tokio::spawn(async move {
                let mut first = 0;
                while !enough.load(Ordering::Relaxed) {
                    let priority =
                        [Priority::High, Priority::Normal, Priority::Low][usize::try_from(first / 100 % 3).unwrap()];
                    if hand_over(&*queue, tasks(first..first + 100, priority)).await.is_ok() {
                        confirmed.lock().unwrap().extend(first..first + 100);
                    } else {
                        // A relay, too, looks before it tries again.
                        let up = async { queue.condition().wait_for(|now| *now == Condition::Up).await.map(drop) };
                        let _ = tokio::time::timeout(std::time::Duration::from_millis(100), up).await;
                        tokio::task::yield_now().await;
                    }
                    first += 100;
                }
            })
        };
        let worker = {
            let (queue, seen) = (Arc::clone(queue), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut consumer = queue.consume(Channel::Sms, 100).await.unwrap();
                while let Some(deliveries) = consumer.next(50).await {
                    seen.lock().unwrap().extend(ids(&deliveries));
                    settle(&*queue, deliveries).await;
                }
            })
        };
        let traffic = Traffic { queue: Arc::clone(queue), confirmed, seen, enough, publisher, worker };
        traffic.flows("at first").await;
        traffic
    }

    /// Waits until some hundreds more were confirmed and came.
    async fn flows(&self, when: &str) {
        let (confirmed, seen) = (self.confirmed.lock().unwrap().len(), self.seen.lock().unwrap().len());
        eventually(LONG, &format!("more is taken and comes {when}"), async || {
            let flows =
                self.confirmed.lock().unwrap().len() > confirmed + 300 && self.seen.lock().unwrap().len() > seen + 300;
            flows.then_some(())
        })
        .await;
    }

    /// Ends, and holds that everything confirmed came.
    async fn nothing_confirmed_is_missing(self) {
        self.enough.store(true, Ordering::Relaxed);
        self.publisher.await.unwrap();
        let confirmed = self.confirmed.lock().unwrap().clone();
        let mut missing = confirmed.len();
        let seen = &self.seen;
        let waited = tokio::time::timeout(
            LONG,
            eventually(2 * LONG, "everything confirmed came", async || {
                missing = confirmed.difference(&seen.lock().unwrap()).count();
                (missing == 0).then_some(())
            }),
        )
        .await;
        assert!(waited.is_ok(), "{missing} of {} confirmed tasks did not come", confirmed.len());
        self.queue.close().await;
        self.worker.await.unwrap();
    }
}

async fn alone() -> Option<Vhost<Alone>> {
    Some(Vhost::on(rabbitmq::alone().await?).await)
}

async fn losses(queue: &dyn Queue, wanted: u64) {
    let mut losses = queue.losses();
    let waited = tokio::time::timeout(LONG, losses.wait_for(|losses| *losses >= wanted)).await.is_ok();
    assert!(waited, "{} losses were counted, and {wanted} happened", *queue.losses().borrow());
}

fn is_down(condition: &Condition) -> bool {
    matches!(condition, Condition::Down { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_stop_loses_nothing_and_all_goes_on() {
    let Some(vhost) = alone().await else { return };
    let queue = on(&vhost).await;
    let traffic = Traffic::on(&queue).await;
    vhost.broker.stop().await;
    assert!(tokio::time::timeout(LONG, queue.condition().wait_for(is_down)).await.is_ok(), "the stop goes unnoticed");
    assert!(hand_over(&*queue, vec![task(1, Priority::High)]).await.is_err());
    vhost.broker.run().await;
    until(&*queue, Condition::Up).await;
    traffic.flows("after the stop").await;
    assert_eq!(*queue.losses().borrow(), 1, "only that of the new broker");
    traffic.nothing_confirmed_is_missing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_nothing_and_all_goes_on() {
    let Some(vhost) = alone().await else { return };
    let queue = on(&vhost).await;
    let traffic = Traffic::on(&queue).await;
    for _ in 0..2 {
        vhost.broker.kill();
        vhost.broker.run().await;
        traffic.flows("after the kill").await;
    }
    assert_eq!(*queue.losses().borrow(), 1, "only that of the new broker");
    traffic.nothing_confirmed_is_missing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_is_noticed_and_found_again() {
    let Some(vhost) = alone().await else { return };
    let queue = on(&vhost).await;
    let traffic = Traffic::on(&queue).await;
    vhost.broker.freeze();
    let noticed = tokio::time::timeout(LONG, queue.condition().wait_for(is_down)).await.is_ok();
    vhost.broker.thaw();
    assert!(noticed, "a broker that is silent for twice its heartbeat is taken for a living one");
    traffic.flows("after the freeze").await;
    assert_eq!(*queue.losses().borrow(), 1, "only that of the new broker");
    traffic.nothing_confirmed_is_missing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_short_of_memory_blocks_and_takes_again() {
    let Some(vhost) = alone().await else { return };
    let queue = on(&vhost).await;
    let traffic = Traffic::on(&queue).await;
    vhost.broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1"]).await;
    let blocked = |now: &Condition| matches!(now, Condition::Blocked { reason } if reason.contains("memory"));
    let noticed = tokio::time::timeout(LONG, queue.condition().wait_for(blocked)).await.is_ok();
    let refused = hand_over(&*queue, vec![task(1, Priority::High)]).await.err().map(|error| error.to_string());
    vhost.broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1GB"]).await;
    assert!(noticed, "the alarm goes unnoticed: {:?}", *queue.condition().borrow());
    assert!(refused.as_ref().is_some_and(|said| said.contains("memory")), "{refused:?}");
    until(&*queue, Condition::Up).await;
    traffic.flows("after the alarm").await;
    traffic.nothing_confirmed_is_missing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_deleted_is_made_again_and_counted() {
    let Some(vhost) = alone().await else { return };
    let queue = on(&vhost).await;
    let mut consumer = queue.consume(Channel::Sms, 100).await.unwrap();
    hand_over(&*queue, tasks(0..5, Priority::Normal)).await.unwrap();
    let before = take(&mut *consumer, 5).await;
    settle(&*queue, before).await;
    vhost.broker.ctl(&["-p", &vhost.name, "delete_queue", "sms.send"]).await;
    losses(&*queue, 2).await;
    eventually(LONG, "the queue takes again", async || hand_over(&*queue, vec![task(7, Priority::Normal)]).await.ok())
        .await;
    assert!(ids(&take(&mut *consumer, 1).await).contains(&7), "and its consumer goes on");
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_broker_is_noticed_by_everyone_who_knew_it() {
    let Some(vhost) = alone().await else { return };
    let (first, second) = (on(&vhost).await, on(&vhost).await);
    assert_eq!((*first.losses().borrow(), *second.losses().borrow()), (1, 0));
    hand_over(&*first, tasks(0..50, Priority::Low)).await.unwrap();
    vhost.broker.ctl(&["stop_app"]).await;
    vhost.broker.ctl(&["reset"]).await;
    vhost.broker.ctl(&["start_app"]).await;
    vhost.broker.make_vhost(&vhost.name).await;
    losses(&*first, 2).await;
    losses(&*second, 1).await;
    let traffic = Traffic::on(&first).await;
    traffic.nothing_confirmed_is_missing().await;
    second.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_that_are_deleted_while_nobody_consumes_are_found_by_what_comes_back() {
    let Some(vhost) = alone().await else { return };
    let queue = on(&vhost).await;
    hand_over(&*queue, tasks(0..50, Priority::Low)).await.unwrap();
    vhost.broker.delete_queues(&vhost.name).await;
    let said = hand_over(&*queue, tasks(50..60, Priority::High)).await.unwrap_err().to_string();
    assert!(said.contains("came back") && said.contains("sms.send.high"), "{said}");
    losses(&*queue, 2).await;
    hand_over(&*queue, tasks(60..70, Priority::High)).await.unwrap();
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_unroutable_lane_does_not_pass_among_a_batch() {
    let Some(vhost) = alone().await else { return };
    let queue = on(&vhost).await;
    vhost.broker.ctl(&["-p", &vhost.name, "delete_queue", "sms.send.low"]).await;
    let mut batch = tasks(0..400, Priority::High);
    batch.insert(200, task(1000, Priority::Low));
    let said = hand_over(&*queue, batch).await.unwrap_err().to_string();
    assert!(said.contains("1 of 401 came back") && said.contains("sms.send.low"), "{said}");
    queue.close().await;
}
