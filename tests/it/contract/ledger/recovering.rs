//! What a lost process left is settled: never lost, never sent twice unseen.

use std::collections::HashMap;
use std::time::Duration;

use vestnik::domain::{Channel, HoldReason, NotificationId, OutcomeClass, Policy, Status};
use vestnik::store::{Begin, Close, NewEpoch, NewNotification, Next, Recovered};

use crate::support::eventually::{LONG, eventually};
use crate::support::ledger::{LEASE, RESEND_GRACE, SEND_DEADLINE, TestLedger, claims, ids_of, new_epoch, promises};
use crate::support::postgres::connect;

promises!(
    what_a_lost_process_had_open_becomes_uncertain,
    at_least_once_is_sent_again_once,
    where_no_receipt_can_come_it_is_sent_again_at_once,
    what_a_lost_process_had_in_hand_is_due_again,
    what_was_partly_opened_is_settled_each_for_itself,
    a_late_record_counts_until_it_is_settled,
    open_attempts_wait_for_the_send_deadline,
    recovering_twice_changes_nothing,
    a_clean_end_gives_back_what_was_in_hand,
    nobody_recovers_himself,
    processes_that_live_are_counted_by_what_they_send_by,
);

/// The server's own limits do not reach a session of which it awaits rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_froze_amid_a_write_holds_nobody_up() {
    let Some(mut ledger) = TestLedger::postgres().await else { return };
    let (_, new) = ledger.batch(3);
    ledger.accept(new).await;
    ledger.open(&ledger.take().await).await;
    let url = ledger.database.as_ref().unwrap().url();
    let frozen = connect(&url).await.unwrap();
    frozen
        .batch_execute("SET application_name = 'vestnik'; BEGIN; UPDATE work SET hold = hold WHERE state = 4")
        .await
        .unwrap();
    let rows = frozen.copy_in::<_, bytes::Bytes>("COPY accounts FROM STDIN").await.unwrap();
    ledger.options.call_timeout = Duration::from_secs(1);
    ledger.crash().await;
    let recovered =
        eventually(LONG, "what it had open is settled", async || ledger.try_recover_as(ledger.epoch).await.ok()).await;
    assert_eq!(recovered.uncertain, 3);
    drop(rows);
    assert!(frozen.batch_execute("COMMIT").await.is_err(), "its session is over");
    ledger.assert_balances().await;
}

async fn what_a_lost_process_had_open_becomes_uncertain(mut ledger: TestLedger) {
    let (_, new) = ledger.batch(20);
    ledger.accept(new.clone()).await;
    let chunks = ledger.take().await;
    ledger.open(&chunks).await;
    let direct = ledger.notification(Begin::Open);
    ledger.accept(vec![direct.clone()]).await;
    let closed = vec![ledger.close_of(&new[0], 1, Next::Sent)];
    assert_eq!(ledger.record(closed).await, [true]);
    let lost = ledger.crash().await;
    ledger.assert_balances().await;
    let recovered = ledger.recover().await;
    assert_eq!(recovered, Recovered { epochs: vec![lost], uncertain: 20, to_resend: 0, due_again: 0 });
    assert_eq!(ledger.status(new[0].id).await, Status::Sent);
    for id in new[1..].iter().map(|new| new.id).chain([direct.id]) {
        let found = ledger.find(id).await;
        assert_eq!((found.status, found.attempts[0].class), (Status::Uncertain, OutcomeClass::Lost));
        assert_eq!((found.attempts[0].epoch, found.attempts.len()), (lost, 1));
    }
    assert!(ledger.take().await.is_empty(), "nothing is sent again by itself");
    assert_eq!((ledger.raw_count("opens").await, ledger.raw_count("workers").await), (0, 1));
    ledger.assert_balances().await;
}

/// Opens one at-least-once notification and dies.
async fn dies_with_one_open(ledger: &mut TestLedger, channel: Channel) -> NewNotification {
    let new = NewNotification { channel, policy: Policy::AtLeastOnce, ..ledger.notification(ledger.due_now()) };
    ledger.accept(vec![new.clone()]).await;
    ledger.take_and_open().await;
    ledger.crash().await;
    let recovered = ledger.recover().await;
    assert_eq!((recovered.uncertain, recovered.to_resend), (0, 1));
    let found = ledger.find(new.id).await;
    assert_eq!((found.status, found.hold), (Status::Pending, Some(HoldReason::Resend)));
    assert!(found.attempts[0].flagged, "both attempts are flagged");
    ledger.assert_balances().await;
    new
}

async fn at_least_once_is_sent_again_once(mut ledger: TestLedger) {
    let new = dies_with_one_open(&mut ledger, Channel::WhatsApp).await;
    ledger.advance(RESEND_GRACE - Duration::from_millis(1)).await;
    // The lease of the process may have run out meanwhile.
    ledger.epoch = ledger.begin_epoch().await;
    assert!(ledger.take().await.is_empty(), "a receipt may still come");
    ledger.advance(Duration::from_millis(101)).await;
    let opened = ledger.take_and_open().await;
    assert_eq!((opened.id, opened.attempt, opened.resends, opened.retry_count), (new.id, 2, 1, 0));
    // The second send is cut off, too: that was the one resend.
    ledger.crash().await;
    let recovered = ledger.recover().await;
    assert_eq!((recovered.uncertain, recovered.to_resend), (1, 0));
    let found = ledger.find(new.id).await;
    assert_eq!(found.status, Status::Uncertain);
    assert!(found.attempts.len() == 2 && found.attempts.iter().all(|attempt| attempt.flagged));
    ledger.assert_balances().await;
}

async fn where_no_receipt_can_come_it_is_sent_again_at_once(mut ledger: TestLedger) {
    let new = dies_with_one_open(&mut ledger, Channel::Telegram).await;
    ledger.advance(Duration::from_millis(100)).await;
    let opened = ledger.take_and_open().await;
    assert_eq!((opened.id, opened.attempt, opened.resends), (new.id, 2, 1));
    let sent = Close { flagged: true, ..ledger.close_of(&new, 2, Next::Sent) };
    assert_eq!(ledger.record(vec![sent]).await, [true]);
    ledger.assert_balances().await;
}

async fn what_a_lost_process_had_in_hand_is_due_again(mut ledger: TestLedger) {
    let (_, queued) = ledger.batch(600);
    let held = ledger.notification(Begin::Held);
    ledger.accept(queued.clone()).await;
    ledger.accept(vec![held.clone()]).await;
    let old = ledger.take().await;
    assert_eq!(ids_of(&old).len(), 600);
    assert!(ledger.take().await.is_empty(), "what is in hand, held included, is nobody else's");
    ledger.crash().await;
    let recovered = ledger.recover().await;
    assert_eq!((recovered.due_again, recovered.uncertain), (601, 0));
    ledger.assert_balances().await;
    let mut expected: Vec<NotificationId> = queued.iter().map(|new| new.id).chain([held.id]).collect();
    let again = ledger.take().await;
    let mut found = ids_of(&again);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert!(ledger.open(&old).await.is_empty(), "the old hand-over is a copy now");
    assert_eq!(ledger.open(&again).await.len(), 601);
    ledger.assert_balances().await;
}

async fn what_was_partly_opened_is_settled_each_for_itself(mut ledger: TestLedger) {
    let (_, new) = ledger.batch(4);
    ledger.accept(new.clone()).await;
    let chunks = ledger.take().await;
    let mut open = ledger.open_of(&chunks);
    open.claims.truncate(3);
    ledger.store().open(open).await.unwrap();
    let again = ledger.again(Duration::from_secs(3600), HoldReason::Retry, vestnik::store::Counts::Retry);
    let closes = vec![ledger.close_of(&new[0], 1, Next::Sent), ledger.close_of(&new[1], 1, again)];
    assert_eq!(ledger.record(closes).await, [true, true]);
    ledger.crash().await;
    assert_eq!(ledger.recover().await.uncertain, 1);
    ledger.assert_balances().await;
    assert_eq!(ids_of(&ledger.take().await), [new[3].id], "only what nobody opened, and not what waits for later");
    let statuses = [Status::Sent, Status::Pending, Status::Uncertain, Status::Queued];
    for (new, status) in new.iter().zip(statuses) {
        assert_eq!(ledger.status(new.id).await, status);
    }
    ledger.advance(Duration::from_secs(3600)).await;
    ledger.epoch = ledger.begin_epoch().await;
    assert_eq!(ids_of(&ledger.take().await), [new[1].id]);
    ledger.assert_balances().await;
}

async fn a_late_record_counts_until_it_is_settled(mut ledger: TestLedger) {
    let [early, late] = [(); 2].map(|()| ledger.notification(Begin::Open));
    ledger.accept(vec![early.clone(), late.clone()]).await;
    let lost = ledger.crash().await;
    let sent = |new| vec![ledger.close_of(new, 1, Next::Sent)];
    assert_eq!(ledger.record_as(lost, sent(&early)).await, [true]);
    assert_eq!(ledger.recover().await.uncertain, 1);
    assert_eq!(ledger.record_as(lost, sent(&late)).await, [false]);
    assert_eq!(ledger.status(early.id).await, Status::Sent);
    assert_eq!(ledger.status(late.id).await, Status::Uncertain);
    ledger.assert_balances().await;
}

async fn open_attempts_wait_for_the_send_deadline(mut ledger: TestLedger) {
    let new = ledger.notification(Begin::Open);
    ledger.accept(vec![new.clone()]).await;
    if ledger.engine == crate::support::ledger::Engine::Sqlite {
        // The lock file says at once that the process is dead, and with it whatever it was sending.
        ledger.reopen().await;
        ledger.epoch = ledger.begin_epoch().await;
        ledger.advance(Duration::from_millis(1)).await;
    } else {
        let other = ledger.connect().await.unwrap();
        ledger.advance(LEASE).await;
        let recoverer = other.begin_epoch(new_epoch("other")).await.unwrap();
        assert!(ledger.recover_as(recoverer).await.is_empty(), "its lease has not run out");
        ledger.advance(SEND_DEADLINE).await;
        other.renew(recoverer).await.unwrap_err();
        let recoverer = other.begin_epoch(new_epoch("other")).await.unwrap();
        let recovered = ledger.recover_as(recoverer).await;
        assert!(recovered.is_empty(), "the send may still be on its way: {recovered:?}");
        assert_eq!(ledger.status(new.id).await, Status::Sending);
        ledger.advance(Duration::from_millis(1)).await;
        ledger.epoch = recoverer;
    }
    assert_eq!(ledger.recover().await.uncertain, 1);
    assert_eq!(ledger.status(new.id).await, Status::Uncertain);
}

async fn recovering_twice_changes_nothing(mut ledger: TestLedger) {
    let (_, new) = ledger.batch(30);
    ledger.accept(new).await;
    let open = Begin::Open;
    ledger.accept(vec![ledger.notification(open)]).await;
    ledger.take().await;
    ledger.crash().await;
    let (first, second) = tokio::join!(ledger.recover(), ledger.recover());
    assert_eq!(first.uncertain + second.uncertain, 1);
    assert!(ledger.recover().await.is_empty());
    assert_eq!(ids_of(&ledger.take().await).len(), 30);
    ledger.assert_balances().await;
}

async fn a_clean_end_gives_back_what_was_in_hand(mut ledger: TestLedger) {
    let (_, new) = ledger.batch(5);
    ledger.accept(new.clone()).await;
    let held = ledger.notification(Begin::Held);
    ledger.accept(vec![held]).await;
    let chunks = ledger.take().await;
    let mut open = ledger.open_of(&chunks);
    open.claims.truncate(1);
    ledger.store().open(open).await.unwrap();
    ledger.record(vec![ledger.close_of(&new[0], 1, Next::Sent)]).await;
    ledger.store().end_epoch(ledger.epoch).await.unwrap();
    assert_eq!(ledger.raw_count("workers").await, 0, "nobody needs to wait for a lease");
    let late = ledger.store().open(ledger.open_of(&chunks)).await;
    assert!(matches!(late, Err(vestnik::store::StoreError::EpochLost)));
    ledger.assert_balances().await;
    ledger.reopen().await;
    ledger.epoch = ledger.begin_epoch().await;
    assert!(ledger.recover().await.is_empty());
    let again = ledger.take().await;
    assert_eq!(claims(&again).len(), 5, "four of the batch and the held one");
    ledger.assert_balances().await;
}

async fn nobody_recovers_himself(ledger: TestLedger) {
    ledger.accept(vec![ledger.notification(Begin::Open)]).await;
    ledger.advance(LEASE + SEND_DEADLINE + Duration::from_secs(1)).await;
    assert!(ledger.recover().await.is_empty());
    assert_eq!(ledger.raw_count("work WHERE state = 4").await, 1);
}

async fn processes_that_live_are_counted_by_what_they_send_by(mut ledger: TestLedger) {
    let all = |count: u32| Channel::ALL.into_iter().map(|channel| (channel, count)).collect::<HashMap<_, _>>();
    assert_eq!(ledger.store().senders().await.unwrap(), all(1));
    ledger.crash().await;
    assert_eq!(ledger.store().senders().await.unwrap(), all(1), "the dead one counts no more");
    ledger.store().end_epoch(ledger.epoch).await.unwrap();
    assert_eq!(ledger.store().senders().await.unwrap(), HashMap::new());
    let some = NewEpoch { channels: [Channel::Sms, Channel::Email].into(), ..new_epoch("worker") };
    ledger.store().begin_epoch(some).await.unwrap();
    assert_eq!(ledger.store().senders().await.unwrap(), HashMap::from([(Channel::Sms, 1), (Channel::Email, 1)]));
}
