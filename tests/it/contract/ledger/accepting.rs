//! Accepted means: on disk, all of it, as it was asked.

use std::time::Duration;

use vestnik::domain::{Generation, HoldReason, Mode, Policy, Priority, ProviderError, RecordIds, Status};
use vestnik::store::{Accept, Begin, NewNotification, StoreError, Urgency};

use crate::support::ledger::{TestLedger, ids_of, promises};

promises!(
    what_was_accepted_is_there_after_a_restart,
    every_field_comes_back_as_it_was_given,
    accept_stores_all_or_nothing,
    many_accepts_at_once_are_all_stored,
    a_direct_send_is_accepted_open,
    what_ended_at_accept_says_why,
    what_is_held_up_at_accept_comes_in_its_time,
    accepting_nothing_is_fine,
);

async fn what_was_accepted_is_there_after_a_restart(mut ledger: TestLedger) {
    let (_, new) = ledger.batch(700);
    let ids: Vec<_> = new.iter().map(|new| new.id).collect();
    ledger.accept(new).await;
    ledger.reopen().await;
    let found = ledger.store().notifications(ids.clone()).await.unwrap();
    assert_eq!(found.iter().map(|found| found.id).collect::<Vec<_>>(), ids);
    assert!(found.iter().all(|found| found.status == Status::Pending));
    ledger.assert_balances().await;
}

async fn every_field_comes_back_as_it_was_given(ledger: TestLedger) {
    // One alone, and among many: they are written in different ways.
    for others in [0, 100] {
        let (_, mut batch) = ledger.batch(others);
        let new = full(&ledger);
        batch.push(new.clone());
        ledger.accept(batch).await;
        comes_back(&ledger, new).await;
    }
}

/// Nothing is left out.
fn full(ledger: &TestLedger) -> NewNotification {
    NewNotification {
        batch: Some(ledger.ids.batch()),
        text: Some("Ёлка 🎄 'quoted' \"twice\"\n".into()),
        template: None,
        records: RecordIds {
            contact_id: Some("c-1".into()),
            lead_id: Some(i64::MAX),
            deal_id: Some("d-1".into()),
            company_id: Some("co-1".into()),
        },
        data: Some(r#"{"a":"$1 ?2"}"#.into()),
        metadata: Some(r#"{"m":1}"#.into()),
        external_id: Some("ext".into()),
        priority: Priority::Low,
        policy: Policy::AtLeastOnce,
        mode: Mode::Sync,
        max_retries: 7,
        scheduled_at: Some(ledger.now()),
        not_after: Some(ledger.now()),
        ..ledger.notification(Begin::Due { at: ledger.now(), scheduled: true })
    }
}

async fn comes_back(ledger: &TestLedger, new: NewNotification) {
    let found = ledger.find(new.id).await;
    assert_eq!(found.batch, new.batch);
    assert_eq!((found.channel, found.account), (new.channel, new.account));
    assert_eq!((found.template, found.text), (new.template, new.text));
    assert_eq!((found.recipient, found.records), (new.recipient, new.records));
    assert_eq!((found.data, found.metadata, found.external_id), (new.data, new.metadata, new.external_id));
    assert_eq!((found.priority, found.policy, found.mode), (new.priority, new.policy, new.mode));
    assert_eq!(found.max_retries, new.max_retries);
    assert_eq!((found.scheduled_at, found.not_after), (new.scheduled_at, new.not_after));
    assert_eq!((found.created_at, found.due_at), (new.created_at, ledger.now()));
    assert_eq!(found.status, Status::Scheduled);
    assert!(found.attempts.is_empty() && found.failure.is_none() && found.open.is_none() && found.hold.is_none());
}

async fn accept_stores_all_or_nothing(ledger: TestLedger) {
    // Few and many are written in different ways.
    for count in [3, 700] {
        let (_, mut new) = ledger.batch(count);
        new[count - 1].id = new[0].id;
        let ids: Vec<_> = new.iter().map(|new| new.id).collect();
        let refused = ledger.store().accept(ledger.accept_of(new)).await;
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
        assert!(ledger.store().notifications(ids).await.unwrap().is_empty());
    }
    for table in ["notifications", "work", "due", "counters", "opens"] {
        assert_eq!(ledger.raw_count(table).await, 0, "rows in {table}");
    }
    let one = ledger.notification(ledger.due_now());
    ledger.accept(vec![one]).await;
    ledger.assert_balances().await;
}

async fn many_accepts_at_once_are_all_stored(ledger: TestLedger) {
    let calls = (0..60).map(|n| {
        let begin = if n % 2 == 0 { Begin::Open } else { ledger.due_now() };
        let urgency = if n % 3 == 0 { Urgency::Bulk } else { Urgency::Urgent };
        let notifications = vec![ledger.notification(begin)];
        ledger.store().accept(Accept { epoch: ledger.epoch, notifications, key: None, urgency, unseen: false })
    });
    for answer in futures::future::join_all(calls).await {
        answer.unwrap();
    }
    let totals = ledger.store().totals().await.unwrap();
    assert_eq!((totals.accepted, totals.in_flight()), (60, 60));
    assert_eq!(ledger.raw_count("work WHERE state = 4").await, 30);
    ledger.assert_balances().await;
}

async fn a_direct_send_is_accepted_open(ledger: TestLedger) {
    let new = ledger.notification(Begin::Open);
    ledger.accept(vec![new.clone()]).await;
    let found = ledger.find(new.id).await;
    assert_eq!((found.status, found.attempt), (Status::Sending, 1));
    assert_eq!(found.open, Some((ledger.now(), ledger.epoch)));
    assert!(ledger.take().await.is_empty(), "nobody else gets it");
    ledger.assert_balances().await;
}

async fn what_ended_at_accept_says_why(ledger: TestLedger) {
    let error = ProviderError::new("missing", "no value for `name`");
    let ended = |status, cause| Begin::Ended { status, cause, error: error.clone() };
    let failed = ledger.notification(ended(Status::Failed, "template"));
    let suppressed = ledger.notification(ended(Status::Suppressed, "opted_out"));
    let expired = ledger.notification(ended(Status::Expired, "expired"));
    ledger.accept(vec![failed.clone(), suppressed.clone(), expired.clone()]).await;
    assert_eq!(ledger.find(failed.id).await.failure, Some(("template".into(), error)));
    let found = ledger.find(suppressed.id).await;
    assert_eq!((found.status, found.failure.unwrap().0.as_str()), (Status::Suppressed, "opted_out"));
    assert_eq!(ledger.status(expired.id).await, Status::Expired);
    assert!(ledger.take().await.is_empty());
    let totals = ledger.store().totals().await.unwrap();
    assert_eq!((totals.accepted, totals.in_flight(), totals.of(Status::Failed)), (3, 0, 1));
    ledger.assert_balances().await;
}

async fn what_is_held_up_at_accept_comes_in_its_time(ledger: TestLedger) {
    // Few and many are written in different ways.
    for count in [1, 100] {
        let begin = Begin::OnHold { until: ledger.now() + Duration::from_secs(5), hold: HoldReason::ChannelDown };
        let held: Vec<_> = (0..count).map(|_| ledger.notification(begin.clone())).collect();
        ledger.accept(held.clone()).await;
        let found = ledger.find(held[count - 1].id).await;
        assert_eq!((found.status, found.hold), (Status::Pending, Some(HoldReason::ChannelDown)));
        assert_eq!((found.due_at, found.attempt), (ledger.now() + Duration::from_secs(5), 0));
        assert_eq!(found.generation, Generation(0));
        assert!(ledger.take().await.is_empty(), "it is not due");
        ledger.assert_balances().await;
        ledger.advance(Duration::from_secs(6)).await;
        assert_eq!(ids_of(&ledger.take().await).len(), count);
        let taken = ledger.find(held[0].id).await;
        assert_eq!((taken.status, taken.hold, taken.generation), (Status::Queued, None, Generation(1)));
        ledger.assert_balances().await;
    }
}

async fn accepting_nothing_is_fine(ledger: TestLedger) {
    ledger.accept(vec![]).await;
    ledger.assert_balances().await;
}
