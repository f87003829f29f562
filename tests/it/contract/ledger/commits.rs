//! A commit that failed accepted nothing; one whose answer was lost is repeated and accepts once.

use std::sync::Arc;

use secrecy::SecretString;
use vestnik::domain::Status;
use vestnik::store::{Accept, Accepted, Begin, NewNotification, Next, Store, StoreError, Urgency, connect};

use crate::support::ledger::{Engine, TestLedger, chain, promises};
use crate::support::proxy::{Cut, Proxy};

promises!(
    a_commit_that_failed_accepted_nothing,
    a_commit_that_failed_opened_nothing,
    a_commit_that_failed_closed_nothing,
    a_doomed_change_and_its_neighbour,
);

/// From now on every commit fails that inserted a row with `when` into `table`.
async fn doom(ledger: &TestLedger, table: &str, when: &str) {
    let tables = "CREATE TABLE doom_parent (id INTEGER PRIMARY KEY);
        CREATE TABLE doom (id INTEGER REFERENCES doom_parent (id) DEFERRABLE INITIALLY DEFERRED);";
    let trigger = match ledger.engine {
        Engine::Sqlite => {
            format!("CREATE TRIGGER doomed AFTER INSERT ON {table} WHEN {when} BEGIN INSERT INTO doom VALUES (1); END")
        }
        Engine::Postgres => format!(
            "CREATE FUNCTION doomed() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO doom VALUES (1); RETURN NULL; END $$;
             CREATE TRIGGER doomed AFTER INSERT ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION doomed()"
        ),
    };
    ledger.raw(&format!("{tables} {trigger};")).await;
}

async fn lift_doom(ledger: &TestLedger) {
    let trigger = match ledger.engine {
        Engine::Sqlite => "DROP TRIGGER doomed;",
        Engine::Postgres => "DROP FUNCTION doomed() CASCADE;",
    };
    ledger.raw(&format!("{trigger} DROP TABLE doom; DROP TABLE doom_parent;")).await;
}

async fn a_commit_that_failed_accepted_nothing(ledger: TestLedger) {
    doom(&ledger, "notifications", "NEW.external_id = 'doomed'").await;
    for (begin, key) in [(ledger.due_now(), None), (Begin::Open, Some(ledger.key("k"))), (Begin::Held, None)] {
        let new = NewNotification { external_id: Some("doomed".into()), ..ledger.notification(begin) };
        let accept = Accept { key, ..ledger.accept_of(vec![new.clone()]) };
        let refused = ledger.store().accept(accept).await;
        let error = refused.expect_err("its commit failed");
        assert!(chain(&error).to_lowercase().contains("foreign key"), "{}", chain(&error));
        assert!(ledger.store().notifications(vec![new.id]).await.unwrap().is_empty());
    }
    for table in ["notifications", "work", "due", "counters", "opens", "idempotency", "events"] {
        assert_eq!(ledger.raw_count(table).await, 0, "rows in {table}");
    }
    lift_doom(&ledger).await;
    let new = NewNotification { external_id: Some("doomed".into()), ..ledger.notification(Begin::Open) };
    let accept = Accept { key: Some(ledger.key("k")), ..ledger.accept_of(vec![new.clone()]) };
    assert_eq!(ledger.store().accept(accept).await.unwrap(), Accepted::Stored);
    assert_eq!(ledger.record(vec![ledger.close_of(&new, 1, Next::Sent)]).await, [true]);
    assert_eq!(ledger.raw_count("opens").await, 0);
    ledger.assert_balances().await;
}

async fn a_commit_that_failed_opened_nothing(ledger: TestLedger) {
    let (_, new) = ledger.batch(3);
    ledger.accept(new.clone()).await;
    let chunks = ledger.take().await;
    doom(&ledger, "opens", "NEW.epoch > 0").await;
    let refused = ledger.store().open(ledger.open_of(&chunks)).await;
    assert!(refused.is_err(), "{refused:?}");
    lift_doom(&ledger).await;
    assert_eq!(ledger.raw_count("work WHERE state = 3").await, 3);
    ledger.assert_balances().await;
    assert_eq!(ledger.open(&chunks).await.len(), 3);
    let closes = new.iter().map(|new| ledger.close_of(new, 1, Next::Sent)).collect();
    assert_eq!(ledger.record(closes).await, [true; 3]);
    assert_eq!(ledger.raw_count("opens").await, 0);
    ledger.assert_balances().await;
}

async fn a_commit_that_failed_closed_nothing(ledger: TestLedger) {
    let new: Vec<_> = (0..3).map(|_| ledger.notification(Begin::Open)).collect();
    ledger.accept(new.clone()).await;
    let closes: Vec<_> = new.iter().map(|new| ledger.close_of(new, 1, Next::Sent)).collect();
    doom(&ledger, "attempts", "NEW.n > 0").await;
    let record = vestnik::store::Record { epoch: ledger.epoch, closes: closes.clone(), urgency: Urgency::Urgent };
    assert!(ledger.store().record(record).await.is_err());
    lift_doom(&ledger).await;
    assert_eq!(ledger.raw_count("work WHERE state = 4").await, 3);
    assert_eq!(ledger.raw_count("opens").await, 1);
    ledger.assert_balances().await;
    assert_eq!(ledger.record(closes).await, [true; 3]);
    assert_eq!(ledger.raw_count("opens").await, 0, "the set is drained all the same");
    ledger.assert_balances().await;
}

/// Changes that are asked for at once may share a commit. PostgreSQL's is tried again one by one; SQLite's fails as
/// one, and says so to all.
async fn a_doomed_change_and_its_neighbour(ledger: TestLedger) {
    doom(&ledger, "notifications", "NEW.external_id = 'doomed'").await;
    for _ in 0..5 {
        let new: Vec<_> = (0..6)
            .map(|n| NewNotification {
                external_id: Some(if n == 3 { "doomed" } else { "fine" }.into()),
                ..ledger.notification(Begin::Open)
            })
            .collect();
        let calls = new.iter().map(|new| {
            let accept = Accept { urgency: Urgency::Urgent, ..ledger.accept_of(vec![new.clone()]) };
            ledger.store().accept(accept)
        });
        let answers = futures::future::join_all(calls).await;
        for (n, (new, answer)) in new.iter().zip(answers).enumerate() {
            let is_there = !ledger.store().notifications(vec![new.id]).await.unwrap().is_empty();
            assert_eq!(is_there, answer.is_ok(), "an answer and the ledger differ: {answer:?}");
            if n == 3 {
                assert!(answer.is_err());
            } else if ledger.engine == Engine::Postgres {
                answer.expect("a neighbour is not harmed");
            }
        }
    }
    lift_doom(&ledger).await;
    let open = ledger.store().list(vestnik::store::ListFilter::default(), 100).await.unwrap().items;
    assert!(open.iter().all(|found| found.status == Status::Sending));
    ledger.assert_balances().await;
}

async fn through_proxy() -> Option<(TestLedger, Arc<dyn Store>, Proxy)> {
    let ledger = TestLedger::postgres().await?;
    let database = ledger.database.as_ref().expect("it is on PostgreSQL");
    let proxy = Proxy::start(database.server()).await;
    let mut options = ledger.options.clone();
    options.database_url = Some(SecretString::from(database.url_at(proxy.address)));
    let store = connect(&options, ledger.clock.clone()).await.unwrap();
    Some((ledger, store, proxy))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_accepts_once_when_repeated() {
    let Some((ledger, store, proxy)) = through_proxy().await else { return };
    for begin in [ledger.due_now(), Begin::Open] {
        let key = ledger.key(&format!("{begin:?}"));
        let new = ledger.notification(begin);
        let accept = Accept { key: Some(key), ..ledger.accept_of(vec![new.clone()]) };
        proxy.arm(Cut::AfterCommit);
        let lost = store.accept(accept.clone()).await;
        assert!(matches!(lost, Err(StoreError::Unavailable { .. })), "{lost:?}");
        assert!(proxy.has_cut());
        // Asked again, with new ids, as a caller does that knows nothing.
        let retry = Accept { notifications: vec![ledger.notification(ledger.due_now())], ..accept };
        let Accepted::Repeated(stored) = store.accept(retry.clone()).await.unwrap() else {
            panic!("it was accepted twice");
        };
        assert_eq!(stored.ids, [new.id]);
        assert!(store.notifications(vec![retry.notifications[0].id]).await.unwrap().is_empty());
    }
    assert_eq!(ledger.raw_count("notifications").await, 2);
    ledger.assert_balances().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_cut_before_the_commit_accepts_nothing_and_the_retry_accepts() {
    let Some((ledger, store, proxy)) = through_proxy().await else { return };
    let new = ledger.notification(ledger.due_now());
    let accept = Accept { key: Some(ledger.key("k")), ..ledger.accept_of(vec![new.clone()]) };
    proxy.arm(Cut::BeforeCommit);
    let cut = store.accept(accept.clone()).await;
    assert!(matches!(cut, Err(StoreError::Unavailable { .. })), "{cut:?}");
    assert!(proxy.has_cut());
    assert_eq!(ledger.raw_count("notifications").await, 0);
    assert_eq!(store.accept(accept).await.unwrap(), Accepted::Stored);
    assert_eq!(ledger.take_and_open().await.id, new.id);
    ledger.assert_balances().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_whose_answer_was_lost_closes_once_when_repeated() {
    let Some((ledger, store, proxy)) = through_proxy().await else { return };
    let new = ledger.notification(Begin::Open);
    store.accept(ledger.accept_of(vec![new.clone()])).await.unwrap();
    let closes = vec![ledger.close_of(&new, 1, Next::Sent)];
    let record = vestnik::store::Record { epoch: ledger.epoch, closes, urgency: Urgency::Bulk };
    proxy.arm(Cut::BeforeCommit);
    assert!(store.record(record.clone()).await.is_err());
    proxy.arm(Cut::AfterCommit);
    assert!(store.record(record.clone()).await.is_err());
    assert_eq!(store.record(record).await.unwrap(), [false], "it was closed already");
    let found = ledger.find(new.id).await;
    assert_eq!((found.status, found.attempts.len()), (Status::Sent, 1));
    ledger.assert_balances().await;
}

/// Nobody but the ledger knows that it is open, and nobody would ever close it: the ledger is asked again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_opened_unheard_is_in_the_hand_of_who_opened_it() {
    let Some((ledger, store, proxy)) = through_proxy().await else { return };
    let (_, new) = ledger.batch(3);
    store.accept(ledger.accept_of(new.clone())).await.unwrap();
    let chunks = ledger.take().await;
    proxy.arm(Cut::AfterStatement);
    let opened = store.open(ledger.open_of(&chunks)).await.unwrap();
    assert!(proxy.has_cut());
    let numbers: Vec<_> = opened.iter().map(|opened| (opened.id, opened.attempt)).collect();
    assert_eq!(numbers, new.iter().map(|new| (new.id, 1)).collect::<Vec<_>>());
    assert!(store.open(ledger.open_of(&chunks)).await.unwrap().is_empty(), "it is claimed once");
    let closes = new.iter().map(|new| ledger.close_of(new, 1, Next::Sent)).collect();
    let record = vestnik::store::Record { epoch: ledger.epoch, closes, urgency: Urgency::Bulk };
    assert_eq!(store.record(record).await.unwrap(), [true; 3]);
    assert_eq!(ledger.raw_count("opens").await, 0);
    ledger.assert_balances().await;
}

/// What a living process accepted with an open attempt, without hearing of it, is in nobody's hands until that process
/// ends or closes it: nothing is lost and nothing is sent twice, but it waits that long. What it only took is found when what was handed over is counted anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_opened_or_taken_unheard_waits_for_the_end_of_the_process() {
    let Some((mut ledger, store, proxy)) = through_proxy().await else { return };
    let [open, due] = [Begin::Open, ledger.due_now()].map(|begin| ledger.notification(begin));
    proxy.arm(Cut::AfterCommit);
    store.accept(ledger.accept_of(vec![open.clone()])).await.unwrap_err();
    store.accept(ledger.accept_of(vec![due.clone()])).await.unwrap();
    proxy.arm(Cut::AfterCommit);
    let from = vec![vestnik::store::TakeFrom { stream: ledger.stream(), limit: 1 }];
    let take = vestnik::store::TakeDue { epoch: ledger.epoch, from, early: false };
    store.take_due(take.clone()).await.unwrap_err();
    assert!(store.take_due(take).await.unwrap().is_empty());
    assert_eq!(ledger.status(open.id).await, Status::Sending);
    assert_eq!(ledger.status(due.id).await, Status::Queued);
    ledger.assert_balances().await;
    drop(store);
    ledger.crash().await;
    let recovered = ledger.recover().await;
    assert_eq!((recovered.uncertain, recovered.due_again), (1, 1));
    ledger.assert_balances().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_an_accept_nobody_waits_for_is_repeated_once() {
    let ledger = TestLedger::sqlite().await;
    let mut kept = Vec::new();
    for n in 0..20 {
        let new = ledger.notification(ledger.due_now());
        kept.push(new.id);
        let accept = Accept { key: Some(ledger.key(&n.to_string())), ..ledger.accept_of(vec![new]) };
        {
            let mut call = ledger.store().accept(accept.clone());
            // The job is queued with the first poll; then the caller goes away.
            assert!(futures::poll!(&mut call).is_pending());
        }
        let retry = Accept { notifications: vec![ledger.notification(ledger.due_now())], ..accept };
        let Accepted::Repeated(stored) = ledger.store().accept(retry).await.unwrap() else {
            panic!("it was accepted twice");
        };
        assert_eq!(stored.ids, [kept[n]]);
    }
    assert_eq!(ledger.raw_count("notifications").await, 20);
    ledger.assert_balances().await;
}
