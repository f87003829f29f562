//! What is due is handed out: not before its time, most urgent first, in chunks.

use std::time::Duration;

use vestnik::domain::{AccountId, HoldReason, Priority, Status};
use vestnik::store::{Begin, NewNotification, Open, Postpone, TakeDue, Urgency};

use crate::support::ledger::{LEASE, TestLedger, ids_of, promises};

promises!(
    scheduled_rows_wait_for_their_time,
    the_most_urgent_comes_first_and_within_it_the_oldest,
    only_the_account_asked_for,
    chunks_hold_five_hundred,
    no_more_chunks_than_asked,
    what_no_longer_waits_or_waits_for_later_is_passed_over,
    every_hand_over_is_a_new_generation,
    what_is_postponed_waits_for_its_new_time,
    what_is_given_back_is_due_at_once,
);

async fn scheduled_rows_wait_for_their_time(ledger: TestLedger) {
    let wait = LEASE / 2;
    let new = ledger.notification(Begin::Due { at: ledger.now() + wait, scheduled: true });
    ledger.accept(vec![new.clone()]).await;
    assert_eq!(ledger.status(new.id).await, Status::Scheduled);
    ledger.advance(wait - Duration::from_micros(1)).await;
    assert!(ledger.take().await.is_empty());
    ledger.advance(Duration::from_micros(1)).await;
    let chunks = ledger.take().await;
    assert_eq!(ids_of(&chunks), [new.id]);
    assert_eq!((chunks[0].due_at, chunks[0].account, chunks[0].batch), (ledger.now(), new.account, None));
    assert_eq!(ledger.status(new.id).await, Status::Queued);
    ledger.assert_balances().await;
}

async fn the_most_urgent_comes_first_and_within_it_the_oldest(ledger: TestLedger) {
    let mut expected = Vec::new();
    for (priority, seconds) in
        [(Priority::Low, 0), (Priority::Normal, 2), (Priority::High, 3), (Priority::Normal, 1), (Priority::High, 4)]
    {
        let begin = Begin::Due { at: ledger.now() + Duration::from_secs(seconds), scheduled: false };
        let new = NewNotification { priority, ..ledger.notification(begin) };
        expected.push((priority, seconds, new.id));
        ledger.accept(vec![new]).await;
    }
    expected.sort();
    ledger.advance(Duration::from_secs(5)).await;
    let expected: Vec<_> = expected.into_iter().map(|(_, _, id)| id).collect();
    let take = |chunks| ledger.store().take_due(TakeDue { epoch: ledger.epoch, account: None, chunks });
    assert_eq!(ids_of(&take(1).await.unwrap()), expected[..1]);
    assert_eq!(ids_of(&take(3).await.unwrap()), expected[1..4]);
    assert_eq!(ids_of(&take(3).await.unwrap()), expected[4..]);
}

async fn only_the_account_asked_for(ledger: TestLedger) {
    let of = |account| NewNotification { account: AccountId(account), ..ledger.notification(ledger.due_now()) };
    let [first, second] = [of(1), of(2)];
    ledger.accept(vec![first.clone(), second.clone()]).await;
    let take = |account| {
        let take = TakeDue { epoch: ledger.epoch, account: Some(AccountId(account)), chunks: 10 };
        async { ledger.store().take_due(take).await.unwrap() }
    };
    assert!(take(3).await.is_empty());
    assert_eq!(ids_of(&take(2).await), [second.id]);
    assert!(take(2).await.is_empty());
    assert_eq!(ids_of(&take(1).await), [first.id]);
}

async fn chunks_hold_five_hundred(ledger: TestLedger) {
    let (batch, new) = ledger.batch(1_203);
    let expected: Vec<_> = new.iter().map(|new| new.id).collect();
    ledger.accept(new).await;
    let chunks = ledger.take().await;
    let mut sizes: Vec<_> = chunks.iter().map(|chunk| chunk.handed.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [203, 500, 500]);
    assert!(chunks.iter().all(|chunk| chunk.batch == Some(batch)));
    let mut found = ids_of(&chunks);
    found.sort();
    assert_eq!(found, expected);
}

async fn no_more_chunks_than_asked(ledger: TestLedger) {
    for _ in 0..5 {
        let (_, new) = ledger.batch(2);
        ledger.accept(new).await;
    }
    let take = |chunks| ledger.store().take_due(TakeDue { epoch: ledger.epoch, account: None, chunks });
    let sizes = [take(2).await, take(0).await, take(2).await, take(2).await].map(|taken| taken.unwrap().len());
    assert_eq!(sizes, [2, 0, 2, 1]);
}

async fn what_no_longer_waits_or_waits_for_later_is_passed_over(ledger: TestLedger) {
    let (_, new) = ledger.batch(4);
    ledger.accept(new.clone()).await;
    let later = (ledger.now() + Duration::from_secs(60)).as_microsecond();
    let id = |n: usize| ledger.literal(new[n].id.0);
    // Cancelled, and put off: what the path of one notification does, done by hand.
    ledger.raw(&format!("UPDATE work SET state = 11 WHERE id = {}", id(0))).await;
    ledger.raw(&format!("UPDATE work SET state = 1, due_at = {later} WHERE id = {}", id(2))).await;
    let chunks = ledger.take().await;
    assert_eq!(ids_of(&chunks), [new[1].id, new[3].id]);
    assert_eq!(ledger.open(&chunks).await.len(), 2);
    assert_eq!(ledger.status(new[0].id).await, Status::Cancelled);
    assert_eq!(ledger.status(new[2].id).await, Status::Scheduled);
}

async fn every_hand_over_is_a_new_generation(mut ledger: TestLedger) {
    ledger.accept(vec![ledger.notification(ledger.due_now())]).await;
    let mut last = 0;
    for _ in 0..3 {
        let generation = ledger.take().await[0].handed[0].generation.0;
        assert!(generation > last);
        last = generation;
        ledger.crash().await;
        ledger.recover().await;
    }
}

async fn what_is_postponed_waits_for_its_new_time(ledger: TestLedger) {
    let new = ledger.notification(ledger.due_now());
    ledger.accept(vec![new.clone()]).await;
    let chunks = ledger.take().await;
    let wait = LEASE / 2;
    let postpone = Postpone {
        handed: chunks[0].handed[0],
        account: new.account,
        priority: new.priority,
        batch: None,
        due_at: ledger.now() + wait,
        hold: HoldReason::RateLimit,
    };
    assert!(ledger.store().postpone(postpone).await.unwrap());
    // It is not in hand any more, neither to be put off nor to be opened.
    assert!(!ledger.store().postpone(postpone).await.unwrap());
    let drained = vec![chunks[0].id];
    let open = Open { epoch: ledger.epoch, claims: Vec::new(), drained, urgency: Urgency::Bulk };
    ledger.store().open(open).await.unwrap();
    let found = ledger.find(new.id).await;
    assert_eq!((found.status, found.hold), (Status::Pending, Some(HoldReason::RateLimit)));
    assert!(ledger.take().await.is_empty());
    ledger.assert_balances().await;
    ledger.advance(wait).await;
    assert_eq!(ids_of(&ledger.take().await), [new.id]);
}

async fn what_is_given_back_is_due_at_once(ledger: TestLedger) {
    let new = ledger.notification(ledger.due_now());
    ledger.accept(vec![new.clone()]).await;
    let first = ledger.take().await;
    assert_eq!(ledger.store().give_back(ledger.epoch, first[0].id).await.unwrap(), 1);
    assert_eq!(ledger.store().give_back(ledger.epoch, first[0].id).await.unwrap(), 0);
    let second = ledger.take().await;
    assert_eq!(ids_of(&second), [new.id]);
    assert!(second[0].handed[0].generation > first[0].handed[0].generation);
    assert!(ledger.open(&first).await.is_empty(), "a copy was opened");
    assert_eq!(ledger.open(&second).await.len(), 1);
    ledger.assert_balances().await;
}
