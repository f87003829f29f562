//! One key, one acceptance.

use std::time::Duration;

use vestnik::domain::{Clock as _, SystemClock};
use vestnik::store::{Accept, Accepted, NewKey, NewNotification, StoreError, Urgency};

use crate::support::ledger::{TestLedger, promises};

promises!(
    of_many_at_once_one_is_stored_and_all_get_its_ids,
    a_repeated_key_writes_nothing_and_answers_with_the_first,
    another_scope_is_another_key,
    an_expired_key_may_be_used_again,
    expired_keys_are_forgotten_and_no_others,
    a_key_of_a_refused_call_stays_free,
    keys_in_any_order_never_block_each_other,
);

async fn of_many_at_once_one_is_stored_and_all_get_its_ids(ledger: TestLedger) {
    const CALLS: usize = 24;
    for round in 0..5 {
        let key = ledger.key(&format!("round {round}"));
        let calls = (0..CALLS).map(|n| {
            let (_, notifications) = ledger.batch(3);
            let urgency = if n % 2 == 0 { Urgency::Urgent } else { Urgency::Bulk };
            let accept = Accept { epoch: ledger.epoch, notifications, key: Some(key.clone()), urgency, unseen: false };
            async { (accept.clone(), ledger.store().accept(accept).await.unwrap()) }
        });
        let answers = futures::future::join_all(calls).await;
        let stored: Vec<_> = answers.iter().filter(|(_, answer)| *answer == Accepted::Stored).collect();
        assert_eq!(stored.len(), 1, "{} were stored", stored.len());
        let first = &stored[0].0.notifications;
        for (_, answer) in &answers {
            if let Accepted::Repeated(repeated) = answer {
                assert_eq!(repeated.ids, first.iter().map(|new| new.id).collect::<Vec<_>>());
                assert_eq!((repeated.batch, repeated.request_hash), (first[0].batch, key.request_hash));
            }
        }
    }
    assert_eq!(ledger.raw_count("notifications").await, 15);
    ledger.assert_balances().await;
}

async fn a_repeated_key_writes_nothing_and_answers_with_the_first(mut ledger: TestLedger) {
    let key = ledger.key("k");
    let first = ledger.notification(ledger.due_now());
    let accept = Accept { key: Some(key.clone()), ..ledger.accept_of(vec![first.clone()]) };
    assert_eq!(ledger.store().accept(accept).await.unwrap(), Accepted::Stored);
    ledger.reopen().await;
    // The hash of another request is the caller's to compare: the stored one comes back.
    let other = NewKey { request_hash: [9; 32], ..key.clone() };
    let again = Accept { key: Some(other), ..ledger.accept_of(vec![ledger.notification(ledger.due_now())]) };
    let Accepted::Repeated(repeated) = ledger.store().accept(again).await.unwrap() else {
        panic!("stored twice");
    };
    assert_eq!((repeated.ids.clone(), repeated.request_hash, repeated.batch), (vec![first.id], [7; 32], None));
    let found = ledger.store().stored_key(key.scope, key.key, ledger.now()).await.unwrap();
    assert_eq!(found, Some(repeated));
    assert_eq!(ledger.raw_count("notifications").await, 1);
    assert_eq!(ledger.store().totals().await.unwrap().accepted, 1);
}

async fn another_scope_is_another_key(ledger: TestLedger) {
    for scope in ["one", "two"] {
        let key = NewKey { scope: scope.into(), ..ledger.key("k") };
        let accept = Accept { key: Some(key), ..ledger.accept_of(vec![ledger.notification(ledger.due_now())]) };
        assert_eq!(ledger.store().accept(accept).await.unwrap(), Accepted::Stored);
    }
    assert_eq!(ledger.raw_count("idempotency").await, 2);
}

async fn an_expired_key_may_be_used_again(ledger: TestLedger) {
    let accept = |new: NewNotification| Accept { key: Some(ledger.key("k")), ..ledger.accept_of(vec![new]) };
    let first = accept(ledger.notification(ledger.due_now()));
    let expires_at = first.key.as_ref().unwrap().expires_at;
    assert_eq!(ledger.store().accept(first).await.unwrap(), Accepted::Stored);
    ledger.advance(Duration::from_secs(24 * 3600)).await;
    assert_eq!(ledger.now(), expires_at);
    let still = ledger.store().accept(accept(ledger.notification(ledger.due_now()))).await.unwrap();
    assert!(matches!(still, Accepted::Repeated(_)));
    ledger.advance(Duration::from_secs(1)).await;
    let (scope, key) = ("caller".to_owned(), "k".to_owned());
    assert_eq!(ledger.store().stored_key(scope.clone(), key.clone(), ledger.now()).await.unwrap(), None);
    let second = ledger.notification(ledger.due_now());
    assert_eq!(ledger.store().accept(accept(second.clone())).await.unwrap(), Accepted::Stored);
    let found = ledger.store().stored_key(scope, key, ledger.now()).await.unwrap().unwrap();
    assert_eq!(found.ids, [second.id]);
    assert_eq!(ledger.raw_count("notifications").await, 2);
    ledger.assert_balances().await;
}

async fn a_key_of_a_refused_call_stays_free(ledger: TestLedger) {
    let good = ledger.notification(ledger.due_now());
    let twice = Accept { key: Some(ledger.key("k")), ..ledger.accept_of(vec![good.clone(), good.clone()]) };
    let refused = ledger.store().accept(twice).await;
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    let accept = Accept { key: Some(ledger.key("k")), ..ledger.accept_of(vec![good]) };
    assert_eq!(ledger.store().accept(accept).await.unwrap(), Accepted::Stored);
}

/// Groups that claim the same keys in opposite orders (urgent and bulk, or two processes) do not block each other.
async fn keys_in_any_order_never_block_each_other(ledger: TestLedger) {
    const KEYS: usize = 40;
    for round in 0..5 {
        let accept = |n: usize, urgency| {
            let key = ledger.key(&format!("{round} {n}"));
            let notifications = vec![ledger.notification(ledger.due_now())];
            ledger.store().accept(Accept { epoch: ledger.epoch, notifications, key: Some(key), urgency, unseen: false })
        };
        let up = (0..KEYS).map(|n| accept(n, Urgency::Urgent));
        let down = (0..KEYS).rev().map(|n| accept(n, Urgency::Bulk));
        let answers = futures::future::join_all(up.chain(down)).await;
        let stored = answers.into_iter().filter(|answer| *answer.as_ref().unwrap() == Accepted::Stored).count();
        assert_eq!(stored, KEYS);
    }
    ledger.assert_balances().await;
}

async fn expired_keys_are_forgotten_and_no_others(ledger: TestLedger) {
    let now = SystemClock.now();
    for (key, expires_at) in [("old", now - Duration::from_secs(1)), ("young", now + Duration::from_secs(60))] {
        let key = NewKey { expires_at, ..ledger.key(key) };
        let accept = ledger.accept_of(vec![ledger.notification(ledger.due_now())]);
        ledger.store().accept(Accept { key: Some(key), ..accept }).await.unwrap();
    }
    assert_eq!(ledger.store().forget_expired_keys(now).await.unwrap(), 1);
    assert_eq!(ledger.store().forget_expired_keys(now).await.unwrap(), 0);
    assert_eq!(ledger.raw_count("idempotency").await, 1);
}
