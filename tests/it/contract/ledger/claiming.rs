//! Whatever is handed out twice, late or to the dead: each attempt is opened once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use vestnik::domain::{Epoch, Generation, HoldReason, NotificationId, Status, SystemClock};
use vestnik::store::{
    Begin, Claim, Counts, LedgerOptions, NewNotification, Open, Record, Store, StoreError, TakeDue, TakeFrom, Urgency,
    connect,
};

use crate::support::ledger::{TestLedger, claims, ids_of, new_epoch, promises};
use crate::support::postgres::TestDatabase;

promises!(
    two_claimers_never_hold_the_same_row,
    a_claim_opens_the_attempt,
    a_copy_with_an_old_generation_takes_nothing,
    an_old_copy_beside_the_new_one_takes_nothing,
    a_copy_of_the_newest_takes_nothing,
    a_copy_of_what_waits_for_another_try_takes_nothing,
    claimed_are_answered_in_the_order_asked,
    a_lost_epoch_opens_and_takes_nothing,
    a_chunk_goes_with_the_last_that_is_opened,
    copies_count_no_chunk_down,
);

async fn two_claimers_never_hold_the_same_row(ledger: TestLedger) {
    hammer(&ledger, vec![(Arc::clone(ledger.store()), ledger.epoch)]).await;
}

/// Two stores on one PostgreSQL are two processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_never_hold_the_same_row() {
    let Some(ledger) = TestLedger::postgres().await else { return };
    let other = ledger.connect().await.unwrap();
    let epoch = other.begin_epoch(new_epoch("other")).await.unwrap();
    assert_ne!(epoch, ledger.epoch);
    hammer(&ledger, vec![(Arc::clone(ledger.store()), ledger.epoch), (other, epoch)]).await;
}

/// Several tasks per process take and open everything, twice over; every second one also tries what others hold.
async fn hammer(ledger: &TestLedger, processes: Vec<(Arc<dyn Store>, Epoch)>) {
    const ROWS: usize = 4_000;
    const TASKS: usize = 4;
    for _ in 0..40 {
        let (_, new) = ledger.batch(ROWS / 40);
        ledger.accept(new).await;
    }
    let seen_claims: Mutex<Vec<Claim>> = Mutex::default();
    let opened: Mutex<HashMap<NotificationId, usize>> = Mutex::default();
    let chunks: Mutex<HashSet<_>> = Mutex::default();
    let deadline = Instant::now() + Duration::from_secs(60);
    let worker = |store: Arc<dyn Store>, epoch: Epoch, copies: bool| {
        let (seen_claims, opened, chunks) = (&seen_claims, &opened, &chunks);
        async move {
            loop {
                let taken = ledger.take_some(store.as_ref(), epoch, 150).await;
                let mut asked = claims(&taken);
                for chunk in &taken {
                    assert!(chunks.lock().unwrap().insert(chunk.id), "chunk {:?} was handed out twice", chunk.id);
                }
                seen_claims.lock().unwrap().extend(&asked);
                if copies {
                    // A redelivered copy: what was handed to somebody, offered again.
                    asked.extend(seen_claims.lock().unwrap().iter().rev().take(300));
                }
                let open = Open { epoch, claims: asked, urgency: Urgency::Bulk };
                for attempt in store.open(open).await.unwrap() {
                    *opened.lock().unwrap().entry(attempt.id).or_default() += 1;
                }
                let count = opened.lock().unwrap().len();
                if count == ROWS {
                    return;
                }
                assert!(Instant::now() < deadline, "only {count} were opened");
                tokio::task::yield_now().await;
            }
        }
    };
    let tasks = processes
        .iter()
        .flat_map(|(store, epoch)| (0..TASKS).map(|task| worker(Arc::clone(store), *epoch, task % 2 == 1)));
    futures::future::join_all(tasks).await;
    let opened = opened.into_inner().unwrap();
    assert_eq!(opened.len(), ROWS);
    assert!(opened.values().all(|times| *times == 1), "some were opened twice");
    assert_eq!(ledger.raw_count("work WHERE state = 4 AND attempt = 1").await, ROWS);
    assert_eq!(ledger.raw_count("due").await, 0);
    ledger.assert_balances().await;
}

async fn a_claim_opens_the_attempt(ledger: TestLedger) {
    let new = ledger.notification(ledger.due_now());
    ledger.accept(vec![new.clone()]).await;
    let chunks = ledger.take().await;
    assert_eq!(ledger.status(new.id).await, Status::Queued);
    let opened = ledger.open(&chunks).await;
    assert_eq!((opened[0].id, opened[0].attempt, opened[0].retry_count, opened[0].resends), (new.id, 1, 0, 0));
    let found = ledger.find(new.id).await;
    assert_eq!((found.status, found.open), (Status::Sending, Some((opened[0].opened_at, ledger.epoch))));
    assert_eq!(ledger.raw_count("due").await, 0, "the drained chunk is gone");
    ledger.assert_balances().await;
}

/// Hands one notification over twice; the claim of the first time and of the second.
async fn handed_over_twice(ledger: &mut TestLedger) -> (NewNotification, Claim, Claim) {
    let new = ledger.notification(ledger.due_now());
    ledger.accept(vec![new.clone()]).await;
    let first = claims(&ledger.take().await)[0];
    ledger.crash().await;
    ledger.recover().await;
    let second = claims(&ledger.take().await)[0];
    assert!(first.generation < second.generation);
    (new, first, second)
}

async fn open_claims(ledger: &TestLedger, claims: Vec<Claim>) -> Vec<NotificationId> {
    let open = Open { epoch: ledger.epoch, claims, urgency: Urgency::Urgent };
    ledger.store().open(open).await.unwrap().iter().map(|opened| opened.id).collect()
}

async fn a_copy_with_an_old_generation_takes_nothing(mut ledger: TestLedger) {
    let (new, old, newest) = handed_over_twice(&mut ledger).await;
    let invented = Claim { generation: Generation(newest.generation.0 + 1), ..newest };
    let stranger = Claim { id: ledger.ids.notification(), ..newest };
    for copy in [old, invented, stranger] {
        assert!(open_claims(&ledger, vec![copy]).await.is_empty());
    }
    assert_eq!(open_claims(&ledger, vec![newest]).await, [new.id]);
}

async fn an_old_copy_beside_the_new_one_takes_nothing(mut ledger: TestLedger) {
    let (new, old, newest) = handed_over_twice(&mut ledger).await;
    // Asked for at the same time, they may share a commit.
    let calls = (0..20).map(|n| open_claims(&ledger, if n == 10 { vec![old, newest, newest] } else { vec![old] }));
    let answers = futures::future::join_all(calls).await;
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.len(), usize::from(n == 10), "call {n} was told that it holds {answer:?}");
    }
    assert_eq!(answers[10], [new.id]);
    ledger.assert_balances().await;
}

async fn a_copy_of_what_waits_for_another_try_takes_nothing(mut ledger: TestLedger) {
    let (_, new) = ledger.batch(2);
    ledger.accept(new.clone()).await;
    let chunks = ledger.take().await;
    let handed = claims(&chunks);
    let of_first: Vec<_> = handed.iter().copied().filter(|claim| claim.id == new[0].id).collect();
    assert_eq!(open_claims(&ledger, of_first.clone()).await, [new[0].id]);
    let again = ledger.again(Duration::from_secs(2), HoldReason::Retry, Counts::Retry);
    assert_eq!(ledger.record(vec![ledger.close_of(&new[0], 1, again)]).await, [true]);
    assert!(open_claims(&ledger, of_first).await.is_empty(), "it would be tried before its time");
    ledger.assert_balances().await;
    // Its chunk still brings the other, whoever had it in hand.
    ledger.crash().await;
    ledger.recover().await;
    ledger.assert_balances().await;
    let mut taken = ids_of(&ledger.take().await);
    taken.sort();
    assert_eq!(taken, [new[0].id, new[1].id]);
}

async fn a_copy_of_the_newest_takes_nothing(ledger: TestLedger) {
    let new = ledger.notification(ledger.due_now());
    ledger.accept(vec![new.clone()]).await;
    let claim = claims(&ledger.take().await)[0];
    let many = futures::future::join_all((0..20).map(|_| open_claims(&ledger, vec![claim]))).await;
    assert_eq!(many.concat(), [new.id]);
    ledger.record(vec![ledger.close_of(&new, 1, vestnik::store::Next::Sent)]).await;
    assert!(open_claims(&ledger, vec![claim]).await.is_empty(), "what was sent is not opened again");
}

async fn claimed_are_answered_in_the_order_asked(ledger: TestLedger) {
    let (_, new) = ledger.batch(50);
    ledger.accept(new).await;
    let mut asked = claims(&ledger.take().await);
    asked.reverse();
    asked.swap(3, 40);
    let expected: Vec<_> = asked.iter().map(|claim| claim.id).collect();
    assert_eq!(open_claims(&ledger, asked).await, expected);
}

/// Neither `open`, nor `accept` with an attempt or in hand, nor `take_due`; and `renew` says so.
async fn refuses_everything(ledger: &TestLedger, store: &dyn Store, lost: Epoch, claims: Vec<Claim>) {
    let is_lost = |what: &str, result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::EpochLost)), "{what}: {result:?}");
    };
    for claims in [claims, vec![]] {
        let open = Open { epoch: lost, claims, urgency: Urgency::Urgent };
        is_lost("open", store.open(open).await.map(drop));
    }
    let before = ledger.raw_count("notifications").await;
    for begin in [Begin::Open, Begin::Held] {
        let mut accept = ledger.accept_of(vec![ledger.notification(begin), ledger.notification(ledger.due_now())]);
        accept.epoch = lost;
        is_lost("accept", store.accept(accept).await.map(drop));
    }
    assert_eq!(ledger.raw_count("notifications").await, before);
    let from = vec![TakeFrom { stream: ledger.stream(), limit: 9 }];
    is_lost("take_due", store.take_due(TakeDue { epoch: lost, from, early: false }).await.map(drop));
    is_lost("renew", store.renew(lost).await);
    // Nothing is opened or held by accepting for later: that is anybody's.
    let mut accept = ledger.accept_of(vec![ledger.notification(ledger.due_now())]);
    accept.epoch = lost;
    store.accept(accept).await.unwrap();
}

async fn a_lost_epoch_opens_and_takes_nothing(mut ledger: TestLedger) {
    let (_, new) = ledger.batch(3);
    ledger.accept(new).await;
    let chunks = ledger.take().await;
    let lost = ledger.crash().await;
    refuses_everything(&ledger, ledger.store().as_ref(), lost, claims(&chunks)).await;
    ledger.recover().await;
    refuses_everything(&ledger, ledger.store().as_ref(), lost, claims(&chunks)).await;
    assert_eq!(ledger.raw_count("work WHERE state = 4").await, 0);
    ledger.store().renew(ledger.epoch).await.unwrap();
    ledger.assert_balances().await;
}

/// By the server's own clock, with a lease that really runs out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_ran_out_on_postgres_opens_nothing() {
    let Some(database) = TestDatabase::create().await else { return };
    let options = LedgerOptions {
        database_url: Some(database.url().into()),
        data_dir: "unused".into(),
        pool_size: 4,
        call_timeout: Duration::from_secs(20),
        sqlite_normal: false,
        lease: Duration::from_millis(1500),
    };
    let store = connect(&options, Arc::new(SystemClock)).await.unwrap();
    let Some(ledger) = TestLedger::postgres().await else { return };
    let epoch = store.begin_epoch(new_epoch("short")).await.unwrap();
    let open = |claims| Open { epoch, claims, urgency: Urgency::Urgent };
    store.renew(epoch).await.unwrap();
    store.open(open(vec![])).await.unwrap();
    let lost = async {
        loop {
            if let Err(error) = store.open(open(vec![])).await {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(20), lost).await.unwrap();
    assert!(matches!(error, StoreError::EpochLost), "{error:?}");
    assert!(matches!(store.renew(epoch).await, Err(StoreError::EpochLost)));
    let mut accept = ledger.accept_of(vec![ledger.notification(Begin::Open)]);
    accept.epoch = epoch;
    assert!(matches!(store.accept(accept).await, Err(StoreError::EpochLost)));
    // Records are still taken: nobody has settled the attempts.
    assert!(store.record(Record { epoch, closes: vec![], urgency: Urgency::Urgent }).await.unwrap().is_empty());
}

/// A chunk that one process handed over is opened by others: each counts, and the last takes it away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_is_counted_down_by_all_who_open_of_it() {
    let Some(ledger) = TestLedger::postgres().await else { return };
    let (_, new) = ledger.batch(200);
    ledger.accept(new).await;
    let other = ledger.begin_epoch().await;
    let chunks = ledger.take_as(other).await;
    let second = ledger.connect().await.unwrap();
    let all = claims(&chunks);
    let opens = all.chunks(7).enumerate().map(|(n, claims)| {
        let store = if n % 2 == 0 { ledger.store() } else { &second };
        store.open(Open { epoch: ledger.epoch, claims: claims.into(), urgency: Urgency::Bulk })
    });
    let opened: usize = futures::future::join_all(opens).await.into_iter().map(|opened| opened.unwrap().len()).sum();
    assert_eq!(opened, 200);
    ledger.assert_balances().await;
    assert_eq!(ledger.raw_count("due").await, 0);
}

/// A caller that goes away in the middle leaves no half of a change to the next user of its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_given_up_leaves_no_half_of_a_change() {
    let Some(ledger) = TestLedger::postgres().await else { return };
    for _ in 0..60 {
        let (_, new) = ledger.batch(3);
        ledger.accept(new).await;
    }
    let waiting = ledger.store().waiting().await.unwrap().streams;
    for (polls, waiting) in (1..=15).cycle().zip(&waiting[..45]) {
        let mut call = ledger.store().take_due(TakeDue {
            epoch: ledger.epoch,
            from: vec![TakeFrom { stream: waiting.stream, limit: 3 }],
            early: false,
        });
        let mut left = polls;
        // Given up wherever it waits the n-th time.
        std::future::poll_fn(|context| {
            left -= 1;
            match call.as_mut().poll(context) {
                Poll::Pending if left > 0 => Poll::Pending,
                Poll::Pending | Poll::Ready(_) => Poll::Ready(()),
            }
        })
        .await;
    }
    for _ in 0..20 {
        ledger.store().accounts(vec![]).await.unwrap();
    }
    let in_hand = ledger.raw_count("due WHERE handed_by IS NOT NULL").await;
    assert_eq!(ledger.raw_count("work WHERE state = 3").await, in_hand * 3);
    let idle = "pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'";
    assert_eq!(ledger.raw_count(idle).await, 0);
}

/// Plans are made while the tables are small, and kept while they grow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hot_path_scans_no_table_on_postgres() {
    let Some(mut ledger) = TestLedger::postgres().await else { return };
    for _ in 0..12 {
        let (_, new) = ledger.batch(500);
        ledger.accept(new.clone()).await;
        assert_eq!(ledger.open(&ledger.take().await).await.len(), 500);
        let closes = new.iter().map(|new| ledger.close_of(new, 1, vestnik::store::Next::Sent)).collect();
        assert_eq!(ledger.record(closes).await, [true; 500]);
    }
    // A process tells what it did when it ends.
    ledger.close();
    let deadline = Instant::now() + Duration::from_secs(20);
    while ledger.raw_count("pg_stat_user_tables WHERE relname = 'work' AND n_tup_upd >= 18000").await == 0 {
        assert!(Instant::now() < deadline, "PostgreSQL does not tell how often work was updated");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Making an index scans its table, too, when nothing is in it yet.
    let scanned = "SELECT relname || ' ' || seq_tup_read AS c FROM pg_stat_user_tables
                   WHERE relname IN ('work', 'notifications', 'attempts') AND seq_tup_read > 0";
    assert_eq!(ledger.raw_column(scanned).await, [""; 0]);
}

async fn a_chunk_goes_with_the_last_that_is_opened(ledger: TestLedger) {
    let (_, new) = ledger.batch(5);
    ledger.accept(new).await;
    let chunks = ledger.take().await;
    for (n, claim) in claims(&chunks).into_iter().enumerate() {
        assert_eq!(ledger.raw_column("SELECT outstanding AS c FROM due").await, [(5 - n).to_string()]);
        let open = Open { claims: vec![claim], ..ledger.open_of(&[]) };
        assert_eq!(ledger.store().open(open).await.unwrap().len(), 1);
    }
    assert_eq!(ledger.raw_count("due").await, 0);
    ledger.assert_balances().await;
}

async fn copies_count_no_chunk_down(mut ledger: TestLedger) {
    let (_, new) = ledger.batch(2);
    ledger.accept(new).await;
    let stale = ledger.take().await;
    ledger.crash().await;
    ledger.recover().await;
    let again = ledger.take().await;
    assert!(ledger.open(&stale).await.is_empty());
    let first = claims(&again)[0];
    for expected in [1, 0] {
        let open = Open { claims: vec![first], ..ledger.open_of(&[]) };
        assert_eq!(ledger.store().open(open).await.unwrap().len(), expected);
        assert_eq!(ledger.raw_column("SELECT outstanding AS c FROM due").await, ["1"]);
    }
    assert_eq!(ledger.open(&again).await.len(), 1);
    assert_eq!(ledger.raw_count("due").await, 0);
    ledger.assert_balances().await;
}
