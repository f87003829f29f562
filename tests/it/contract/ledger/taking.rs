//! What is due is handed out: not before its time, most urgent first, in chunks.

use std::time::Duration;

use vestnik::domain::{AccountId, HoldReason, Priority, Status};
use vestnik::store::{Begin, NewNotification, Open, Postpone, Settle, Stream, TakeDue, TakeFrom, WaitingStream};

use crate::support::ledger::{ACCOUNT, LEASE, TestLedger, claims, ids_of, promises};

promises!(
    scheduled_rows_wait_for_their_time,
    the_most_urgent_comes_first_and_within_it_the_oldest,
    only_the_streams_asked_for,
    chunks_hold_five_hundred,
    no_more_than_asked_and_a_chunk_is_parted,
    what_waits_and_what_is_in_hand_is_told_by_stream,
    of_paused_and_cancelled_batches_nothing_waits,
    what_is_to_be_ended_need_not_be_due,
    what_no_longer_waits_or_waits_for_later_is_passed_over,
    every_hand_over_is_a_new_generation,
    what_is_postponed_waits_for_its_new_time,
    many_are_put_off_and_ended_at_once,
    what_is_given_back_is_due_at_once,
    what_was_handed_over_is_counted_anew,
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
    assert_eq!(ids_of(&ledger.take().await), expected);
}

async fn only_the_streams_asked_for(ledger: TestLedger) {
    let of = |account| NewNotification { account: AccountId(account), ..ledger.notification(ledger.due_now()) };
    let [first, second] = [of(1), of(2)];
    let (batch, in_batch) = ledger.batch(1);
    ledger.accept(vec![first.clone(), second.clone(), in_batch[0].clone()]).await;
    let take = |account, batch| {
        let stream = Stream { account: AccountId(account), batch, ..ledger.stream() };
        let from = vec![TakeFrom { stream, limit: 10 }];
        let take = TakeDue { epoch: ledger.epoch, from, early: false };
        async { ledger.store().take_due(take).await.unwrap() }
    };
    assert!(take(3, None).await.is_empty());
    assert!(take(2, Some(batch)).await.is_empty());
    assert_eq!(ids_of(&take(2, None).await), [second.id]);
    assert!(take(2, None).await.is_empty());
    assert_eq!(ids_of(&take(1, None).await), [first.id]);
    assert_eq!(ids_of(&take(1, Some(batch)).await), [in_batch[0].id]);
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

async fn no_more_than_asked_and_a_chunk_is_parted(ledger: TestLedger) {
    let (_, new) = ledger.batch(1_100);
    let expected: Vec<_> = new.iter().map(|new| new.id).collect();
    ledger.accept(new).await;
    let mut found = Vec::new();
    for (limit, sizes) in [(30, vec![30]), (600, vec![470, 130]), (0, vec![]), (1_000, vec![370, 100])] {
        let chunks = ledger.take_some(ledger.store().as_ref(), ledger.epoch, limit).await;
        assert_eq!(chunks.iter().map(|chunk| chunk.handed.len()).collect::<Vec<_>>(), sizes, "of {limit}");
        found.extend(ids_of(&chunks));
        ledger.assert_balances().await;
        assert_eq!(ledger.open(&chunks).await.len(), sizes.iter().sum::<usize>());
        ledger.assert_balances().await;
    }
    assert_eq!(found, expected, "in the order they were accepted");
    assert_eq!(ledger.raw_count("due").await, 0);
}

async fn what_waits_and_what_is_in_hand_is_told_by_stream(ledger: TestLedger) {
    let soon = ledger.now() + Duration::from_secs(60);
    let (batch, new) = ledger.batch(600);
    ledger.accept(new).await;
    let later = ledger.notification(Begin::Due { at: soon, scheduled: true });
    ledger.accept(vec![NewNotification { priority: Priority::High, ..later }]).await;
    let waiting = ledger.store().waiting().await.unwrap();
    let high = Stream { priority: Priority::High, ..ledger.stream() };
    let normal = Stream { batch: Some(batch), ..ledger.stream() };
    assert_eq!(
        waiting.streams,
        [
            WaitingStream { stream: high, due_at: soon, count: 1 },
            WaitingStream { stream: normal, due_at: ledger.now(), count: 600 },
        ]
    );
    assert!(waiting.handed.is_empty());
    let chunks = ledger.take_some(ledger.store().as_ref(), ledger.epoch, 550).await;
    ledger.store().open(Open { claims: claims(&chunks)[..510].into(), ..ledger.open_of(&[]) }).await.unwrap();
    let waiting = ledger.store().waiting().await.unwrap();
    assert_eq!(waiting.streams.iter().map(|stream| stream.count).collect::<Vec<_>>(), [1, 50]);
    let handed = waiting.handed[0];
    assert_eq!((handed.by, handed.account, handed.priority), (ledger.epoch, ACCOUNT, Priority::Normal));
    assert_eq!((waiting.handed.len(), handed.count, handed.since), (1, 40, ledger.now()));
}

async fn of_paused_and_cancelled_batches_nothing_waits(ledger: TestLedger) {
    let mut batches = Vec::new();
    for state in ["NULL, NULL", "5, NULL", "NULL, 5", "5, 5"] {
        let (batch, new) = ledger.batch(3);
        ledger.accept(new).await;
        let (id, now) = (ledger.literal(batch.0), ledger.now().as_microsecond());
        ledger
            .raw(&format!(
                "INSERT INTO batches (id, state, channel, accepted, created_at, paused_at, cancelled_at)
                 VALUES ({id}, 2, 1, 3, {now}, {state})"
            ))
            .await;
        batches.push(batch);
    }
    let waiting = ledger.store().waiting().await.unwrap();
    let of = |streams: &[WaitingStream]| {
        let mut found: Vec<_> = streams.iter().filter_map(|waiting| waiting.stream.batch).collect();
        found.sort();
        found
    };
    assert_eq!(of(&waiting.streams), batches[..1]);
    assert_eq!(of(&waiting.cancelled), batches[2..]);
    let mut held: Vec<_> = waiting.held.iter().map(|held| (held.batch, held.is_cancelled)).collect();
    held.sort();
    assert_eq!(held, [(batches[1], false), (batches[2], true), (batches[3], true)]);
    ledger.assert_balances().await;
}

async fn what_is_to_be_ended_need_not_be_due(ledger: TestLedger) {
    let begin = Begin::Due { at: ledger.now() + Duration::from_secs(3600), scheduled: true };
    let new = ledger.notification(begin);
    ledger.accept(vec![new.clone()]).await;
    let take = |early| {
        let from = vec![TakeFrom { stream: ledger.stream(), limit: 10 }];
        ledger.store().take_due(TakeDue { epoch: ledger.epoch, from, early })
    };
    assert!(take(false).await.unwrap().is_empty());
    assert_eq!(ids_of(&take(true).await.unwrap()), [new.id]);
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
        claim: claims(&chunks)[0],
        account: new.account,
        priority: new.priority,
        batch: None,
        due_at: ledger.now() + wait,
        hold: HoldReason::RateLimit,
    };
    assert_eq!(ledger.store().postpone(vec![postpone]).await.unwrap(), [true]);
    // It is not in hand any more, neither to be put off nor to be opened.
    assert_eq!(ledger.store().postpone(vec![postpone]).await.unwrap(), [false]);
    let found = ledger.find(new.id).await;
    assert_eq!((found.status, found.hold), (Status::Pending, Some(HoldReason::RateLimit)));
    assert!(ledger.take().await.is_empty());
    ledger.assert_balances().await;
    // What comes due within the same tenth of a second comes together.
    ledger.advance(wait + Duration::from_millis(100)).await;
    assert_eq!(ids_of(&ledger.take().await), [new.id]);
}

async fn what_is_given_back_is_due_at_once(ledger: TestLedger) {
    let new = ledger.notification(ledger.due_now());
    ledger.accept(vec![new.clone()]).await;
    let first = ledger.take().await;
    assert_eq!(ledger.store().give_back(first[0].id).await.unwrap(), 1);
    assert_eq!(ledger.store().give_back(first[0].id).await.unwrap(), 0);
    let second = ledger.take().await;
    assert_eq!(ids_of(&second), [new.id]);
    assert!(second[0].handed[0].generation > first[0].handed[0].generation);
    assert!(ledger.open(&first).await.is_empty(), "a copy was opened");
    assert_eq!(ledger.open(&second).await.len(), 1);
    ledger.assert_balances().await;
}

async fn many_are_put_off_and_ended_at_once(ledger: TestLedger) {
    let (batch, new) = ledger.batch(300);
    ledger.accept(new.clone()).await;
    let chunks = ledger.take().await;
    let claims = claims(&chunks);
    let put_off = |claim| Postpone {
        claim,
        account: ACCOUNT,
        priority: Priority::Normal,
        batch: Some(batch),
        due_at: ledger.now() + Duration::from_secs(1),
        hold: HoldReason::RateLimit,
    };
    let end = |n: usize, status| Settle {
        epoch: ledger.epoch,
        id: new[n].id,
        batch: Some(batch),
        chunk: Some(chunks[0].id),
        status,
        at: ledger.now(),
        actor: "worker".into(),
        reason: "test".into(),
    };
    let postponed = ledger.store().postpone(claims[..100].iter().copied().map(put_off).collect()).await.unwrap();
    assert_eq!(postponed, [true; 100]);
    assert_eq!(ledger.raw_column("SELECT outstanding AS c FROM due WHERE handed_by IS NOT NULL").await, ["200"]);
    // The first of them waits on, and can be ended as well.
    let settles = (99..299).map(|n| end(n, Status::Expired)).chain([end(299, Status::Cancelled)]).collect();
    assert_eq!(ledger.store().settle(settles).await.unwrap(), [true; 201]);
    assert_eq!(ledger.store().settle(vec![end(299, Status::Expired)]).await.unwrap(), [false]);
    assert_eq!(ledger.raw_count("due WHERE handed_by IS NOT NULL").await, 0);
    ledger.assert_balances().await;
    ledger.advance(Duration::from_secs(2)).await;
    assert_eq!(ids_of(&ledger.take().await).len(), 99);
    ledger.assert_balances().await;
}

async fn what_was_handed_over_is_counted_anew(ledger: TestLedger) {
    let (batch, new) = ledger.batch(4);
    ledger.accept(new.clone()).await;
    let held = ledger.notification(Begin::Held);
    ledger.accept(vec![held]).await;
    let chunks = ledger.take().await;
    let end = |n: usize| Settle {
        epoch: ledger.epoch,
        id: new[n].id,
        batch: Some(batch),
        chunk: None,
        status: Status::Cancelled,
        at: ledger.now(),
        actor: "somebody".into(),
        reason: "test".into(),
    };
    assert_eq!(ledger.store().settle(vec![end(0), end(1)]).await.unwrap(), [true, true]);
    let outstanding = || ledger.raw_column("SELECT outstanding AS c FROM due WHERE batch_id IS NOT NULL");
    assert_eq!(outstanding().await, ["4"], "whoever ended them had nothing in hand");
    assert!(ledger.store().recount(ledger.now(), None).await.unwrap().is_empty(), "it was handed over just now");
    ledger.advance(Duration::from_secs(1)).await;
    let stranger = vestnik::domain::Epoch(ledger.epoch.0 + 1);
    assert!(ledger.store().recount(ledger.now(), Some(stranger)).await.unwrap().is_empty());
    let long = ledger.store().recount(ledger.now(), Some(ledger.epoch)).await.unwrap();
    assert_eq!(long.iter().map(|one| one.chunk).collect::<Vec<_>>(), [chunks[0].id]);
    assert_eq!(outstanding().await, ["2"]);
    ledger.store().settle(vec![end(2), end(3)]).await.unwrap();
    assert!(ledger.store().recount(ledger.now(), None).await.unwrap().is_empty());
    assert_eq!(outstanding().await, [""; 0]);
    assert_eq!(ledger.raw_count("due").await, 1, "what a direct call holds stays in its hand");
    ledger.assert_balances().await;
}
