//! Moving what waits to another time: a batch in one piece, whatever happens at the same time; on SQLite and PostgreSQL
//! alike.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use vestnik::domain::{BatchId, Channel, NotificationId, Priority, Status};
use vestnik::store::{AcceptBatch, Begin, NewBatch, NewNotification};

use crate::support::ledger::{ACCOUNT, TestLedger, ids_of, promises};

promises!(
    a_batch_is_moved_in_one_piece,
    of_several_moves_at_the_same_time_one_holds_for_all,
    only_a_batch_whose_time_has_not_come_is_moved,
    a_paused_batch_is_moved_and_stays_paused,
    what_is_paused_during_a_move_stays_paused,
    what_was_moved_by_itself_stays_at_its_own_time,
    moved_by_itself_to_the_time_of_its_batch_it_is_not_lost,
    the_time_that_holds_is_shown,
    what_runs_is_under_way_with_what_has_ended,
);

const HOUR: Duration = Duration::from_secs(3600);

/// A batch of so many that leaves in an hour.
async fn scheduled(ledger: &TestLedger, count: usize) -> (BatchId, Vec<NotificationId>) {
    let at = ledger.now() + HOUR;
    batch(ledger, count, Some(at)).await
}

async fn batch(ledger: &TestLedger, count: usize, at: Option<Timestamp>) -> (BatchId, Vec<NotificationId>) {
    let store = ledger.store();
    let new = NewBatch {
        id: ledger.ids.batch(),
        epoch: ledger.epoch,
        channel: Channel::WhatsApp,
        account: ACCOUNT,
        priority: Priority::Normal,
        template: None,
        scheduled_at: at,
        created_at: ledger.now(),
    };
    store.begin_batch(new.clone(), None).await.unwrap();
    let begin = at.map_or(ledger.due_now(), |at| Begin::Due { at, scheduled: true });
    let row = |_| NewNotification { batch: Some(new.id), scheduled_at: at, ..ledger.notification(begin.clone()) };
    let rows: Vec<_> = (0..count).map(row).collect();
    let waiting: Vec<_> = rows.iter().map(|row| row.id).collect();
    let accept = vestnik::store::Accept { unseen: true, ..ledger.accept_of(rows) };
    store.accept(accept).await.unwrap();
    let accept = AcceptBatch {
        id: new.id,
        epoch: ledger.epoch,
        account: ACCOUNT,
        priority: Priority::Normal,
        due_at: at.unwrap_or(ledger.now()),
        waiting: waiting.clone(),
        ended: BTreeMap::new(),
        duplicates: 0,
    };
    assert!(store.accept_batch(accept).await.unwrap());
    (new.id, waiting)
}

/// The times at which anything of a batch becomes due, and the batch's own.
async fn times(ledger: &TestLedger, batch: BatchId) -> (Vec<String>, Timestamp) {
    let id = ledger.literal(batch.0);
    let due = ledger.raw_column(&format!("SELECT DISTINCT due_at AS c FROM due WHERE batch_id = {id}")).await;
    (due, ledger.store().batch(batch).await.unwrap().unwrap().scheduled_at.unwrap())
}

/// Time passes, and a process that lives works on: its lease is shorter.
async fn pass(ledger: &mut TestLedger, by: Duration) {
    ledger.advance(by).await;
    ledger.epoch = ledger.begin_epoch().await;
}

fn micros(at: Timestamp) -> String {
    at.as_microsecond().to_string()
}

async fn moved(ledger: &TestLedger, batch: BatchId, at: Timestamp) -> bool {
    ledger.store().reschedule_batch(batch, at).await.unwrap()
}

async fn a_batch_is_moved_in_one_piece(mut ledger: TestLedger) {
    let (id, members) = scheduled(&ledger, 1_200).await;
    for at in [ledger.now() + HOUR * 5, ledger.now() + HOUR / 2] {
        assert!(moved(&ledger, id, at).await);
        assert_eq!(times(&ledger, id).await, (vec![micros(at)], at));
        ledger.assert_balances().await;
    }
    pass(&mut ledger, HOUR / 2 - Duration::from_secs(1)).await;
    assert!(ids_of(&ledger.take().await).is_empty(), "its time has not come");
    pass(&mut ledger, Duration::from_secs(1)).await;
    let mut taken = ids_of(&ledger.take().await);
    taken.sort_unstable();
    assert_eq!(taken, members, "all of it is due, earlier than it was accepted for");
    ledger.assert_balances().await;
}

async fn of_several_moves_at_the_same_time_one_holds_for_all(ledger: TestLedger) {
    let (id, _) = scheduled(&ledger, 3_000).await;
    for round in 1..=5 {
        let to = |n: u32| ledger.now() + HOUR * round + Duration::from_secs(n.into());
        let all = join_all((0..8).map(|n| moved(&ledger, id, to(n)))).await;
        assert_eq!(all, [true; 8]);
        let (due, at) = times(&ledger, id).await;
        assert_eq!(due, [micros(at)], "the batch was split");
        assert!((0..8).any(|n| to(n) == at));
    }
    ledger.assert_balances().await;
}

async fn only_a_batch_whose_time_has_not_come_is_moved(mut ledger: TestLedger) {
    let later = ledger.now() + HOUR * 9;
    let (at_once, _) = batch(&ledger, 3, None).await;
    assert!(!moved(&ledger, at_once, later).await, "it may have begun");
    assert!(!moved(&ledger, ledger.ids.batch(), later).await, "there is none");
    let (cancelled, _) = scheduled(&ledger, 3).await;
    ledger.store().cancel_batch(cancelled, ledger.now(), "key anna".into()).await.unwrap();
    assert!(!moved(&ledger, cancelled, later).await, "it was cancelled");
    let (due, members) = scheduled(&ledger, 700).await;
    let before = times(&ledger, due).await;
    pass(&mut ledger, HOUR).await;
    assert!(!moved(&ledger, due, later).await, "its time has come");
    assert_eq!(times(&ledger, due).await, before);
    let taken = ids_of(&ledger.take().await);
    assert!(members.iter().all(|member| taken.contains(member)));
    assert!(!moved(&ledger, due, later).await, "it has begun");
    ledger.assert_balances().await;
}

async fn a_paused_batch_is_moved_and_stays_paused(mut ledger: TestLedger) {
    let (id, members) = scheduled(&ledger, 3).await;
    let (store, paused_at) = (ledger.store().clone(), ledger.now());
    store.pause_batch(id, Some(paused_at)).await.unwrap();
    assert!(moved(&ledger, id, ledger.now() + HOUR / 2).await);
    assert_eq!(store.batch(id).await.unwrap().unwrap().paused_at, Some(paused_at));
    pass(&mut ledger, HOUR / 2).await;
    assert!(ids_of(&ledger.take().await).is_empty());
    store.pause_batch(id, None).await.unwrap();
    assert_eq!(ids_of(&ledger.take().await).len(), members.len());
}

async fn what_is_paused_during_a_move_stays_paused(ledger: TestLedger) {
    let (id, _) = scheduled(&ledger, 3_000).await;
    for round in 2..8 {
        let at = ledger.now() + HOUR * round;
        let pause = ledger.store().pause_batch(id, Some(ledger.now()));
        let (moved, paused) = tokio::join!(moved(&ledger, id, at), pause);
        assert!(moved && paused.unwrap());
        let found = ledger.store().batch(id).await.unwrap().unwrap();
        assert_eq!((found.paused_at, found.scheduled_at), (Some(ledger.now()), Some(at)));
        ledger.store().pause_batch(id, None).await.unwrap();
    }
}

async fn what_was_moved_by_itself_stays_at_its_own_time(mut ledger: TestLedger) {
    let (id, members) = scheduled(&ledger, 4).await;
    let store = ledger.store().clone();
    let [sooner, later] = [members[0], members[1]];
    assert!(store.reschedule(sooner, ledger.now() + HOUR / 4).await.unwrap());
    assert!(store.reschedule(later, ledger.now() + HOUR * 3).await.unwrap());
    assert!(moved(&ledger, id, ledger.now() + HOUR * 2).await);
    assert!(moved(&ledger, id, ledger.now() + HOUR / 2).await);
    ledger.assert_balances().await;
    pass(&mut ledger, HOUR / 4).await;
    assert_eq!(ids_of(&ledger.take().await), [sooner]);
    pass(&mut ledger, HOUR / 4).await;
    assert_eq!(ids_of(&ledger.take().await), members[2..]);
    ledger.assert_balances().await;
    pass(&mut ledger, HOUR * 3).await;
    assert_eq!(ids_of(&ledger.take().await), [later]);
    ledger.assert_balances().await;
}

/// Its chunk and its batch's are due at the same moment, and still two.
async fn moved_by_itself_to_the_time_of_its_batch_it_is_not_lost(mut ledger: TestLedger) {
    let (id, members) = scheduled(&ledger, 3).await;
    let own = ledger.now() + HOUR;
    assert!(ledger.store().reschedule(members[0], own).await.unwrap());
    assert!(moved(&ledger, id, ledger.now() + HOUR / 2).await);
    pass(&mut ledger, HOUR / 2).await;
    assert_eq!(ids_of(&ledger.take().await), members[1..]);
    ledger.assert_balances().await;
    pass(&mut ledger, HOUR / 2).await;
    assert_eq!(ids_of(&ledger.take().await), members[..1]);
    ledger.assert_balances().await;
}

async fn the_time_that_holds_is_shown(ledger: TestLedger) {
    let (id, members) = scheduled(&ledger, 2).await;
    let shown = async |id: NotificationId| {
        let found = ledger.find(id).await;
        assert_eq!((found.status, Some(found.due_at)), (Status::Scheduled, found.scheduled_at));
        found.due_at
    };
    assert_eq!(shown(members[0]).await, ledger.now() + HOUR);
    let (of_batch, own) = (ledger.now() + HOUR * 2, ledger.now() + HOUR * 3);
    assert!(moved(&ledger, id, of_batch).await);
    assert_eq!(shown(members[0]).await, of_batch);
    assert!(ledger.store().reschedule(members[0], own).await.unwrap());
    assert!(moved(&ledger, id, of_batch + HOUR * 4).await);
    assert_eq!((shown(members[0]).await, shown(members[1]).await), (own, of_batch + HOUR * 4));
    let alone = ledger.now() + HOUR;
    let alone =
        NewNotification { scheduled_at: Some(alone), ..ledger.notification(Begin::Due { at: alone, scheduled: true }) };
    ledger.accept(vec![alone.clone()]).await;
    assert!(ledger.store().reschedule(alone.id, own).await.unwrap());
    assert_eq!(shown(alone.id).await, own);
}

async fn under_way(ledger: &TestLedger) -> Vec<(BatchId, u64)> {
    ledger.store().under_way(ledger.now()).await.unwrap()
}

async fn what_runs_is_under_way_with_what_has_ended(mut ledger: TestLedger) {
    let (later, _) = scheduled(&ledger, 2).await;
    assert_eq!(under_way(&ledger).await, []);
    let (id, members) = batch(&ledger, 3, None).await;
    assert_eq!(under_way(&ledger).await, [(id, 0)]);
    let chunks = ledger.take_some(ledger.store().as_ref(), ledger.epoch, 1).await;
    let opened = ledger.open(&chunks).await;
    let rows = ledger.store().load(vec![opened[0].id]).await.unwrap();
    ledger.record(vec![ledger.close_of(&rows[0], 1, vestnik::store::Next::Sent)]).await;
    assert_eq!((members.len(), under_way(&ledger).await), (3, vec![(id, 1)]));
    ledger.store().pause_batch(id, Some(ledger.now())).await.unwrap();
    assert_eq!(under_way(&ledger).await, []);
    pass(&mut ledger, HOUR).await;
    assert_eq!(under_way(&ledger).await, [(later, 0)]);
}
