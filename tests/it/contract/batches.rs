//! Bulk calls: nobody sees a batch before all of it is there, and a key is one batch; on SQLite and PostgreSQL alike.

use std::collections::BTreeMap;

use vestnik::domain::{BatchId, Channel, NotificationId, Priority, ProviderError, Status};
use vestnik::store::{
    Accept, AcceptBatch, Accepted, BatchBegun, Begin, HeldBatch, ListFilter, NewBatch, NewKey, NewNotification, Next,
    UndecidedFilter,
};

use crate::support::ledger::{ACCOUNT, TestLedger, ids_of, promises};

promises!(
    a_key_is_one_batch,
    a_key_whose_batch_was_abandoned_is_taken_over,
    nothing_is_seen_before_it_is_accepted,
    what_is_accepted_is_seen_at_once_and_once,
    what_was_abandoned_is_removed_in_steps_and_its_key_is_free,
    the_batches_of_living_processes_are_not_abandoned,
    paused_it_waits_and_resumed_it_goes_on,
    cancelled_it_is_to_be_ended_and_nothing_else,
    progress_follows_what_ends,
    batches_are_listed_newest_first,
);

fn new_batch(ledger: &TestLedger) -> NewBatch {
    NewBatch {
        id: ledger.ids.batch(),
        epoch: ledger.epoch,
        channel: Channel::WhatsApp,
        account: ACCOUNT,
        priority: Priority::Normal,
        template: None,
        scheduled_at: None,
        created_at: ledger.now(),
    }
}

async fn begin(ledger: &TestLedger, key: Option<NewKey>) -> (NewBatch, BatchBegun) {
    let new = new_batch(ledger);
    let begun = ledger.store().begin_batch(new.clone(), key).await.unwrap();
    (new, begun)
}

/// Rows of a batch that is being accepted: so many that wait, and one that failed.
async fn write(ledger: &TestLedger, batch: BatchId, waiting: usize) -> Vec<NewNotification> {
    let of_batch = |begin| NewNotification { batch: Some(batch), ..ledger.notification(begin) };
    let mut rows: Vec<_> = (0..waiting).map(|_| of_batch(ledger.due_now())).collect();
    let error = ProviderError::new("address", "there is none");
    rows.push(of_batch(Begin::Ended { status: Status::Failed, cause: "recipient", error }));
    let accept = Accept { unseen: true, ..ledger.accept_of(rows.clone()) };
    assert_eq!(ledger.store().accept(accept).await.unwrap(), Accepted::Stored);
    rows
}

fn accept_of(ledger: &TestLedger, batch: &NewBatch, rows: &[NewNotification]) -> AcceptBatch {
    let waits = |new: &&NewNotification| matches!(new.begin, Begin::Due { .. });
    let waiting: Vec<NotificationId> = rows.iter().filter(waits).map(|new| new.id).collect();
    let ended = BTreeMap::from([(Status::Failed, (rows.len() - waiting.len()) as u64)]);
    AcceptBatch {
        id: batch.id,
        epoch: batch.epoch,
        account: batch.account,
        priority: batch.priority,
        due_at: ledger.now(),
        waiting,
        ended,
        duplicates: 2,
    }
}

/// A batch of so many that wait, and one that failed.
async fn accepted(ledger: &TestLedger, waiting: usize) -> (BatchId, Vec<NewNotification>) {
    let (new, _) = begin(ledger, None).await;
    let rows = write(ledger, new.id, waiting).await;
    assert!(ledger.store().accept_batch(accept_of(ledger, &new, &rows)).await.unwrap());
    (new.id, rows)
}

async fn dropped(ledger: &TestLedger, limit: u32) -> u64 {
    ledger.store().drop_abandoned(None, limit).await.unwrap()
}

async fn a_key_is_one_batch(ledger: TestLedger) {
    let (first, begun) = begin(&ledger, Some(ledger.key("k"))).await;
    assert_eq!(begun, BatchBegun::Begun);
    assert_eq!(begin(&ledger, Some(ledger.key("k"))).await.1, BatchBegun::Running);
    let other = NewKey { request_hash: [8; 32], ..ledger.key("k") };
    assert_eq!(begin(&ledger, Some(other.clone())).await.1, BatchBegun::KeyReused);
    let elsewhere = NewKey { scope: "another caller".into(), ..ledger.key("k") };
    assert_eq!(begin(&ledger, Some(elsewhere)).await.1, BatchBegun::Begun);

    let rows = write(&ledger, first.id, 3).await;
    assert!(ledger.store().accept_batch(accept_of(&ledger, &first, &rows)).await.unwrap());
    assert_eq!(begin(&ledger, Some(ledger.key("k"))).await.1, BatchBegun::Repeated(first.id));
    assert_eq!(begin(&ledger, Some(other)).await.1, BatchBegun::KeyReused);
    // Key and batch were written together or not at all: those who were told otherwise left no batch behind.
    assert_eq!(ledger.raw_count("batches").await, 2);
    let members: Vec<_> = rows.iter().map(|new| new.id).collect();
    assert_eq!(ledger.store().batch_members(first.id).await.unwrap(), members);
    assert_eq!(ledger.store().failed_at_accept(first.id).await.unwrap(), 1);
}

async fn a_key_whose_batch_was_abandoned_is_taken_over(mut ledger: TestLedger) {
    let (first, _) = begin(&ledger, Some(ledger.key("k"))).await;
    write(&ledger, first.id, 3).await;
    ledger.crash().await;
    ledger.recover().await;
    let other = NewKey { request_hash: [8; 32], ..ledger.key("k") };
    assert_eq!(begin(&ledger, Some(other)).await.1, BatchBegun::KeyReused);
    let (second, begun) = begin(&ledger, Some(ledger.key("k"))).await;
    assert_eq!(begun, BatchBegun::Begun);
    let rows = write(&ledger, second.id, 3).await;
    assert!(ledger.store().accept_batch(accept_of(&ledger, &second, &rows)).await.unwrap());
    // Removing what is left of the first does not take the key, which is the second's now.
    while dropped(&ledger, 10).await > 0 {}
    assert_eq!(begin(&ledger, Some(ledger.key("k"))).await.1, BatchBegun::Repeated(second.id));
    assert_eq!(ledger.raw_count("notifications").await, rows.len());
    ledger.assert_balances().await;
}

async fn nothing_is_seen_before_it_is_accepted(ledger: TestLedger) {
    let (new, _) = begin(&ledger, None).await;
    let rows = write(&ledger, new.id, 3).await;
    let store = ledger.store();
    assert!(store.list(ListFilter::default(), 10).await.unwrap().items.is_empty());
    assert!(
        store.list(ListFilter { batch: Some(new.id), ..ListFilter::default() }, 10).await.unwrap().items.is_empty()
    );
    assert!(store.notifications(rows.iter().map(|new| new.id).collect()).await.unwrap().is_empty());
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.accepted, totals.of(Status::Failed)), (0, 0));
    assert!(store.dead_letters(UndecidedFilter::default(), None, 10).await.unwrap().items.is_empty());
    assert!(store.dead_letter_causes(UndecidedFilter::default(), 10).await.unwrap().is_empty());
    assert!(store.dead_letter_counts().await.unwrap().is_empty());
    assert!(store.waiting().await.unwrap().streams.is_empty());
    assert!(store.backlog(ledger.now()).await.unwrap().is_empty());
    assert!(store.batch(new.id).await.unwrap().is_none());
    assert!(store.batches(None, 10).await.unwrap().items.is_empty());
    assert!(ids_of(&ledger.take().await).is_empty());
    let report = store.verify().await.unwrap();
    assert_eq!((report.findings, report.accepted, report.failed, report.dead_letters), (vec![], 0, 0, 0));
}

async fn what_is_accepted_is_seen_at_once_and_once(ledger: TestLedger) {
    let (new, _) = begin(&ledger, None).await;
    let rows = write(&ledger, new.id, 1_200).await;
    let accept = accept_of(&ledger, &new, &rows);
    assert!(ledger.store().accept_batch(accept.clone()).await.unwrap());
    assert!(!ledger.store().accept_batch(accept).await.unwrap(), "it was shown twice");

    let found = ledger.store().batch(new.id).await.unwrap().unwrap();
    assert_eq!((found.accepted, found.duplicates, found.in_flight()), (1_201, 2, 1_200));
    assert_eq!(found.settled, BTreeMap::from([(Status::Failed, 1)]));
    let totals = ledger.store().totals().await.unwrap();
    assert_eq!((totals.accepted, totals.in_flight()), (1_201, 1_200));
    let backlog = ledger.store().backlog(ledger.now()).await.unwrap();
    assert_eq!((backlog.len(), backlog[0].due, backlog[0].oldest_due), (1, 1_200, Some(ledger.now())));
    let letters = ledger.store().dead_letters(UndecidedFilter::default(), None, 10).await.unwrap().items;
    assert_eq!(letters.iter().map(|letter| letter.id).collect::<Vec<_>>(), [rows[1_200].id]);
    assert_eq!(ledger.store().dead_letter_counts().await.unwrap(), [(ACCOUNT, 1)]);
    let report = ledger.store().verify().await.unwrap();
    assert_eq!((report.findings, report.accepted, report.failed, report.dead_letters), (vec![], 1_201, 1, 1));
    let mut taken = ids_of(&ledger.take().await);
    taken.sort_unstable();
    assert_eq!(taken, rows[..1_200].iter().map(|new| new.id).collect::<Vec<_>>());
}

async fn what_was_abandoned_is_removed_in_steps_and_its_key_is_free(mut ledger: TestLedger) {
    let (new, _) = begin(&ledger, Some(ledger.key("k"))).await;
    write(&ledger, new.id, 24).await;
    ledger.crash().await;
    ledger.recover().await;
    for expected in [15, 5] {
        assert_eq!(dropped(&ledger, 10).await, 10);
        for table in ["notifications", "work"] {
            assert_eq!(ledger.raw_count(table).await, expected, "{table}");
        }
        ledger.assert_balances().await;
    }
    assert_eq!((dropped(&ledger, 10).await, dropped(&ledger, 10).await), (5, 0));
    for table in ["notifications", "work", "failed", "events", "batches", "idempotency"] {
        assert_eq!(ledger.raw_count(table).await, 0, "{table}");
    }
    let gone = accept_of(&ledger, &new, &[]);
    assert!(!ledger.store().accept_batch(gone).await.unwrap(), "what is gone cannot be accepted");
    let other = NewKey { request_hash: [8; 32], ..ledger.key("k") };
    assert_eq!(begin(&ledger, Some(other)).await.1, BatchBegun::Begun);
    ledger.assert_balances().await;
}

async fn the_batches_of_living_processes_are_not_abandoned(ledger: TestLedger) {
    let (running, _) = begin(&ledger, None).await;
    write(&ledger, running.id, 3).await;
    let (accepted, _) = accepted(&ledger, 3).await;
    assert_eq!(dropped(&ledger, 10).await, 0);
    // Unless it is named: by the process that could not go on. What was accepted stays in any case.
    assert_eq!(ledger.store().drop_abandoned(Some(accepted), 10).await.unwrap(), 0);
    assert_eq!(ledger.store().drop_abandoned(Some(running.id), 10).await.unwrap(), 4);
    assert_eq!(ledger.raw_count("notifications").await, 4);
    assert_eq!(ledger.raw_count("batches").await, 1);
    ledger.assert_balances().await;
}

async fn paused_it_waits_and_resumed_it_goes_on(ledger: TestLedger) {
    let (id, _) = accepted(&ledger, 3).await;
    let store = ledger.store();
    assert!(store.pause_batch(id, Some(ledger.now())).await.unwrap());
    assert!(!store.pause_batch(id, Some(ledger.now())).await.unwrap(), "it was paused already");
    assert_eq!(store.batch(id).await.unwrap().unwrap().paused_at, Some(ledger.now()));
    let waiting = store.waiting().await.unwrap();
    assert_eq!(waiting.held, [HeldBatch { batch: id, is_cancelled: false }]);
    assert!(waiting.streams.is_empty() && waiting.cancelled.is_empty());
    let backlog = store.backlog(ledger.now()).await.unwrap()[0];
    assert_eq!((backlog.held, backlog.due, backlog.oldest_due), (3, 0, None));
    assert!(store.pause_batch(id, None).await.unwrap());
    assert!(!store.pause_batch(id, None).await.unwrap(), "it was not paused");
    assert_eq!(ids_of(&ledger.take().await).len(), 3);
    let nobody = ledger.ids.batch();
    assert!(!store.pause_batch(nobody, Some(ledger.now())).await.unwrap());
}

async fn cancelled_it_is_to_be_ended_and_nothing_else(ledger: TestLedger) {
    let (id, _) = accepted(&ledger, 3).await;
    let store = ledger.store();
    assert!(store.cancel_batch(id, ledger.now(), "key anna".into()).await.unwrap());
    assert!(!store.cancel_batch(id, ledger.now(), "key boris".into()).await.unwrap());
    assert!(!store.pause_batch(id, Some(ledger.now())).await.unwrap(), "a cancelled one is not paused");
    let found = store.batch(id).await.unwrap().unwrap();
    assert_eq!((found.cancelled_at, found.cancelled_by.as_deref()), (Some(ledger.now()), Some("key anna")));
    let waiting = store.waiting().await.unwrap();
    assert!(waiting.streams.is_empty());
    assert_eq!(
        waiting.cancelled.iter().map(|stream| (stream.stream.batch, stream.count)).collect::<Vec<_>>(),
        [(Some(id), 3)]
    );
    assert!(!store.cancel_batch(ledger.ids.batch(), ledger.now(), "key anna".into()).await.unwrap());
    ledger.assert_balances().await;
}

async fn progress_follows_what_ends(ledger: TestLedger) {
    let (id, rows) = accepted(&ledger, 3).await;
    ledger.open(&ledger.take().await).await;
    let next = [Next::Sent, Next::Failed, Next::Uncertain];
    let closes = rows.iter().zip(next).map(|(new, next)| ledger.close_of(new, 1, next)).collect();
    assert_eq!(ledger.record(closes).await, [true; 3]);
    let found = ledger.store().batch(id).await.unwrap().unwrap();
    let settled = [(Status::Sent, 1), (Status::Failed, 2), (Status::Uncertain, 1)];
    assert_eq!((found.settled.clone(), found.in_flight()), (BTreeMap::from(settled), 0));
    // What failed since is no part of the first answer.
    assert_eq!(ledger.store().failed_at_accept(id).await.unwrap(), 1);
    ledger.assert_balances().await;
}

async fn batches_are_listed_newest_first(ledger: TestLedger) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(accepted(&ledger, 1).await.0);
    }
    ids.reverse();
    let page = ledger.store().batches(None, 2).await.unwrap();
    assert_eq!((page.items.iter().map(|batch| batch.id).collect::<Vec<_>>(), page.more), (ids[..2].to_vec(), true));
    let page = ledger.store().batches(Some(ids[1]), 2).await.unwrap();
    assert_eq!((page.items.iter().map(|batch| batch.id).collect::<Vec<_>>(), page.more), (ids[2..].to_vec(), false));
}
