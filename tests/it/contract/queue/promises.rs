//! One suite over all queues.
#![expect(clippy::disallowed_methods, reason = "a test waits for its own tasks")]

use std::pin::pin;
use std::sync::Arc;

use vestnik::domain::{Channel, Generation, Priority};
use vestnik::queue::{Bundle, Lane, Task};

use super::stand::{Stand, count, hand_over, ids, ready, settle, take, task, tasks};
use crate::support::eventually::LONG;

macro_rules! over_all_queues {
    ($($promise:ident),+ $(,)?) => {
        over_all_queues!(@ embedded $($promise)+);
        over_all_queues!(@ quorum $($promise)+);
        over_all_queues!(@ classic $($promise)+);
    };
    (@ $queue:ident $($promise:ident)+) => {
        mod $queue {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    let Some(stand) = super::Stand::$queue().await else { return };
                    super::$promise(&stand).await;
                    stand.queue.close().await;
                }
            )+
        }
    };
}

over_all_queues!(
    all_that_is_handed_over_comes,
    many_batches_come_whole,
    urgent_goes_first_and_lower_lanes_get_their_share,
    no_more_than_asked_for_is_given,
    what_is_settled_does_not_come_again,
    settling_out_of_order_settles_all,
    what_is_not_settled_comes_again_where_it_is_shared,
    two_hand_overs_are_two_deliveries,
    bundles_come_as_tasks,
    a_bundle_comes_again_until_all_of_it_is_settled,
    what_arrives_while_a_consumer_stops_goes_back,
    channels_do_not_mix,
    a_stopped_consumer_leaves_the_rest,
    a_waiting_consumer_is_woken,
    a_wait_that_is_given_up_loses_nothing,
    two_consumers_share_and_never_both_have_one,
    depths_are_those_of_the_lanes,
    nothing_is_lost_while_nothing_happens,
    a_closed_queue_takes_and_gives_nothing,
);

async fn all_that_is_handed_over_comes(stand: &Stand) {
    let sent: Vec<Task> = [Priority::High, Priority::Normal, Priority::Low]
        .into_iter()
        .zip(0..)
        .flat_map(|(priority, number)| {
            let first = task(number, priority);
            [first, Task { retry_count: 2, batch: None, generation: Generation(7), ..task(number + 10, priority) }]
        })
        .collect();
    hand_over(&*stand.queue, sent.clone()).await.unwrap();
    let mut consumer = stand.queue.consume(Channel::Sms, 100).await.unwrap();
    let mut taken: Vec<Task> = Vec::new();
    while taken.len() < sent.len() {
        let deliveries = take(&mut *consumer, 1).await;
        taken.extend(deliveries.iter().map(|delivery| delivery.task));
        settle(&*stand.queue, deliveries).await;
    }
    taken.sort_by_key(|task| task.id);
    let mut expected = sent;
    expected.sort_by_key(|task| task.id);
    assert_eq!(taken, expected);
}

async fn many_batches_come_whole(stand: &Stand) {
    let count = 1_800;
    hand_over(&*stand.queue, tasks(0..count, Priority::Low)).await.unwrap();
    let mut consumer = stand.queue.consume(Channel::Sms, 200).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < usize::try_from(count).unwrap() {
        let deliveries = take(&mut *consumer, 1).await;
        seen.extend(ids(&deliveries));
        settle(&*stand.queue, deliveries).await;
    }
}

async fn urgent_goes_first_and_lower_lanes_get_their_share(stand: &Stand) {
    for (priority, first) in [(Priority::Low, 0), (Priority::Normal, 1000), (Priority::High, 2000)] {
        hand_over(&*stand.queue, tasks(first..first + 600, priority)).await.unwrap();
    }
    let mut consumer = stand.queue.consume(Channel::Sms, 100).await.unwrap();
    let mut counts = [0; 3];
    while counts[0] < 600 {
        let deliveries = tokio::time::timeout(LONG, consumer.next(10)).await.unwrap().unwrap();
        for (sum, priority) in counts.iter_mut().zip([Priority::High, Priority::Normal, Priority::Low]) {
            *sum += count(&deliveries, priority);
        }
        settle(&*stand.queue, deliveries).await;
    }
    // A tenth each is 75; a broker that is slow to bring more leaves room for what is at hand.
    assert!(counts[1] >= 50 && counts[2] >= 50, "a lower lane stood still: {counts:?}");
    assert!(counts[1] < 590 && counts[2] < 300, "bulk was as fast as what is urgent: {counts:?}");
}

async fn no_more_than_asked_for_is_given(stand: &Stand) {
    hand_over(&*stand.queue, tasks(0..50, Priority::High)).await.unwrap();
    let mut consumer = stand.queue.consume(Channel::Sms, 100).await.unwrap();
    let mut taken = 0;
    while taken < 50 {
        let deliveries = tokio::time::timeout(LONG, consumer.next(7)).await.unwrap().unwrap();
        assert!((1..=7).contains(&deliveries.len()), "{}", deliveries.len());
        taken += deliveries.len();
        settle(&*stand.queue, deliveries).await;
    }
}

async fn what_is_settled_does_not_come_again(stand: &Stand) {
    hand_over(&*stand.queue, tasks(0..20, Priority::Normal)).await.unwrap();
    let mut first = stand.queue.consume(Channel::Sms, 100).await.unwrap();
    let deliveries = take(&mut *first, 20).await;
    settle(&*stand.queue, deliveries).await;
    first.stop().await;
    hand_over(&*stand.queue, vec![task(99, Priority::Low)]).await.unwrap();
    let mut second = stand.queue.consume(Channel::Sms, 100).await.unwrap();
    assert_eq!(ids(&take(&mut *second, 1).await), [99].into());
    ready(&*stand.queue, [0, 0, 0]).await;
}

async fn settling_out_of_order_settles_all(stand: &Stand) {
    hand_over(&*stand.queue, tasks(0..40, Priority::Normal)).await.unwrap();
    let mut consumer = stand.queue.consume(Channel::Sms, 100).await.unwrap();
    let mut deliveries = Vec::new();
    // In the hand at the same time are 30 at most: the lane's share of 100.
    while deliveries.len() < 30 {
        deliveries.extend(take(&mut *consumer, 30 - deliveries.len()).await);
    }
    let (even, odd): (Vec<_>, Vec<_>) =
        deliveries.into_iter().partition(|delivery| delivery.task.id.0.as_u128() % 2 == 0);
    settle(&*stand.queue, odd).await;
    for delivery in even.into_iter().rev() {
        settle(&*stand.queue, vec![delivery]).await;
    }
    let rest = take(&mut *consumer, 10).await;
    settle(&*stand.queue, rest).await;
    consumer.stop().await;
    ready(&*stand.queue, [0, 0, 0]).await;
}

async fn what_is_not_settled_comes_again_where_it_is_shared(stand: &Stand) {
    hand_over(&*stand.queue, tasks(0..3, Priority::High)).await.unwrap();
    let mut first = stand.queue.consume(Channel::Sms, 100).await.unwrap();
    let mut deliveries = take(&mut *first, 3).await;
    let last = deliveries.pop().unwrap();
    settle(&*stand.queue, vec![last]).await;
    first.stop().await;
    // A worker's own end: what it had is nobody's any more.
    drop(deliveries);
    let mut second = stand.queue.consume(Channel::Sms, 100).await.unwrap();
    if stand.queue.is_shared() {
        assert_eq!(ids(&take(&mut *second, 2).await).len(), 2);
    } else {
        // What the process forgets, the ledger hands over again.
        hand_over(&*stand.queue, vec![task(9, Priority::Low)]).await.unwrap();
        assert_eq!(ids(&take(&mut *second, 1).await), [9].into());
    }
}

async fn two_hand_overs_are_two_deliveries(stand: &Stand) {
    let first = task(1, Priority::Normal);
    hand_over(&*stand.queue, vec![first]).await.unwrap();
    hand_over(&*stand.queue, vec![Task { generation: Generation(2), ..first }, first]).await.unwrap();
    let mut consumer = stand.queue.consume(Channel::Sms, 100).await.unwrap();
    let generations: Vec<_> = take(&mut *consumer, 3).await.iter().map(|delivery| delivery.task.generation.0).collect();
    assert_eq!(generations, [1, 2, 1], "in order, and none left out");
}

async fn bundles_come_as_tasks(stand: &Stand) {
    let mixed = [tasks(0..70, Priority::Low), tasks(70..71, Priority::High)].concat();
    stand.queue.publish(Bundle::all(&mixed, 32)).await.unwrap();
    let mut consumer = stand.queue.consume(Channel::Sms, 100).await.unwrap();
    let deliveries = take(&mut *consumer, 71).await;
    let mut taken: Vec<Task> = deliveries.iter().map(|delivery| delivery.task).collect();
    taken.sort_by_key(|task| task.id);
    assert_eq!(taken, mixed);
    settle(&*stand.queue, deliveries).await;
    consumer.stop().await;
    ready(&*stand.queue, [0, 0, 0]).await;
}

async fn a_bundle_comes_again_until_all_of_it_is_settled(stand: &Stand) {
    if !stand.queue.is_shared() {
        return;
    }
    stand.queue.publish(Bundle::all(&tasks(0..20, Priority::Normal), 10)).await.unwrap();
    let mut consumer = stand.queue.consume(Channel::Sms, 100).await.unwrap();
    let mut deliveries = take(&mut *consumer, 20).await;
    deliveries.sort_by_key(|delivery| delivery.task.id);
    // One of the second bundle is given back; the first is settled whole, in two steps and in any order.
    let dropped = deliveries.pop().unwrap();
    let rest = deliveries.split_off(4);
    settle(&*stand.queue, rest).await;
    settle(&*stand.queue, deliveries).await;
    drop(dropped);
    let again = take(&mut *consumer, 10).await;
    assert_eq!(ids(&again), (10..20).collect());
    settle(&*stand.queue, again).await;
    consumer.stop().await;
    ready(&*stand.queue, [0, 0, 0]).await;
}

async fn what_arrives_while_a_consumer_stops_goes_back(stand: &Stand) {
    const COUNT: u128 = 4_000;
    if !stand.queue.is_shared() {
        return;
    }
    stand.queue.publish(Bundle::all(&tasks(0..COUNT, Priority::High), 2)).await.unwrap();
    for _ in 0..5 {
        let mut stopped = stand.queue.consume(Channel::Sms, 4_000).await.unwrap();
        // More is on its way.
        drop(take(&mut *stopped, 1).await);
        stopped.stop().await;
    }
    let mut consumer = stand.queue.consume(Channel::Sms, 4_000).await.unwrap();
    let deliveries = take(&mut *consumer, COUNT as usize).await;
    assert_eq!(ids(&deliveries), (0..COUNT).collect());
    settle(&*stand.queue, deliveries).await;
}

async fn channels_do_not_mix(stand: &Stand) {
    let email = |number| Task {
        lane: Lane { channel: Channel::Email, priority: Priority::High },
        ..task(number, Priority::High)
    };
    hand_over(&*stand.queue, vec![email(1), task(2, Priority::Low), email(3)]).await.unwrap();
    let mut sms = stand.queue.consume(Channel::Sms, 10).await.unwrap();
    assert_eq!(ids(&take(&mut *sms, 1).await), [2].into());
    let mut emails = stand.queue.consume(Channel::Email, 10).await.unwrap();
    assert_eq!(ids(&take(&mut *emails, 2).await), [1, 3].into());
}

async fn a_stopped_consumer_leaves_the_rest(stand: &Stand) {
    hand_over(&*stand.queue, tasks(0..50, Priority::High)).await.unwrap();
    let mut first = stand.queue.consume(Channel::Sms, 100).await.unwrap();
    let deliveries = take(&mut *first, 10).await;
    first.stop().await;
    assert!(first.next(1).await.is_none());
    // What it has in hand can still be settled.
    settle(&*stand.queue, deliveries).await;
    ready(&*stand.queue, [40, 0, 0]).await;
    let mut second = stand.queue.consume(Channel::Sms, 100).await.unwrap();
    let rest = take(&mut *second, 40).await;
    assert_eq!(ids(&rest), (10..50).collect());
}

async fn a_waiting_consumer_is_woken(stand: &Stand) {
    let mut consumer = stand.queue.consume(Channel::Sms, 10).await.unwrap();
    for number in 0..20 {
        let mut wait = pin!(consumer.next(1));
        assert!(futures::poll!(wait.as_mut()).is_pending());
        hand_over(&*stand.queue, vec![task(number, Priority::Low)]).await.unwrap();
        let deliveries = tokio::time::timeout(LONG, wait).await.expect("it is woken").unwrap();
        assert_eq!(ids(&deliveries), [number].into());
        settle(&*stand.queue, deliveries).await;
    }
}

async fn a_wait_that_is_given_up_loses_nothing(stand: &Stand) {
    let mut consumer = stand.queue.consume(Channel::Sms, 10).await.unwrap();
    for number in 0..20 {
        {
            let mut wait = pin!(consumer.next(1));
            assert!(futures::poll!(wait.as_mut()).is_pending());
        }
        hand_over(&*stand.queue, vec![task(number, Priority::High)]).await.unwrap();
        let deliveries = take(&mut *consumer, 1).await;
        assert_eq!(ids(&deliveries), [number].into());
        settle(&*stand.queue, deliveries).await;
    }
}

async fn two_consumers_share_and_never_both_have_one(stand: &Stand) {
    let total = 400;
    hand_over(&*stand.queue, tasks(0..total, Priority::Normal)).await.unwrap();
    let (sender, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let workers = [(); 2].map(|()| {
        let (queue, sender) = (Arc::clone(&stand.queue), sender.clone());
        tokio::spawn(async move {
            let mut consumer = queue.consume(Channel::Sms, 20).await.unwrap();
            while let Some(deliveries) = consumer.next(5).await {
                ids(&deliveries).into_iter().for_each(|id| sender.send(id).unwrap());
                settle(&*queue, deliveries).await;
            }
        })
    });
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < usize::try_from(total).unwrap() {
        let id = tokio::time::timeout(LONG, taken.recv()).await.expect("all come").unwrap();
        assert!(seen.insert(id), "{id} was given twice, and nothing had happened");
    }
    stand.queue.close().await;
    for worker in workers {
        worker.await.unwrap();
    }
}

async fn depths_are_those_of_the_lanes(stand: &Stand) {
    for (priority, count) in [(Priority::High, 1), (Priority::Normal, 2), (Priority::Low, 3)] {
        hand_over(&*stand.queue, tasks(0..count, priority)).await.unwrap();
    }
    ready(&*stand.queue, [1, 2, 3]).await;
    let depths = stand.queue.depths().await.unwrap();
    assert_eq!(depths.len(), 12);
    assert!(depths.iter().all(|depth| depth.consumers == 0), "{depths:?}");
    let mut consumer = stand.queue.consume(Channel::Sms, 100).await.unwrap();
    let deliveries = take(&mut *consumer, 6).await;
    ready(&*stand.queue, [0, 0, 0]).await;
    let depths = stand.queue.depths().await.unwrap();
    let with_consumers: Vec<_> = depths.iter().filter(|depth| depth.consumers == 1).map(|depth| depth.lane).collect();
    assert_eq!(with_consumers, Lane::of(Channel::Sms));
    settle(&*stand.queue, deliveries).await;
}

async fn nothing_is_lost_while_nothing_happens(stand: &Stand) {
    // A broker that is new to us may have lost what we do not know of.
    let at_first = u64::from(stand.queue.is_shared());
    hand_over(&*stand.queue, tasks(0..10, Priority::Low)).await.unwrap();
    assert_eq!(*stand.queue.losses().borrow(), at_first);
    if let Some(vhost) = &stand.vhost {
        let other = super::stand::on(vhost).await;
        assert_eq!(*other.losses().borrow(), 0, "it holds what was handed over");
        other.close().await;
    }
}

async fn a_closed_queue_takes_and_gives_nothing(stand: &Stand) {
    let mut consumer = stand.queue.consume(Channel::Sms, 10).await.unwrap();
    stand.queue.close().await;
    assert!(hand_over(&*stand.queue, vec![task(1, Priority::High)]).await.is_err());
    assert!(tokio::time::timeout(LONG, consumer.next(1)).await.unwrap().is_none());
    consumer.stop().await;
}
