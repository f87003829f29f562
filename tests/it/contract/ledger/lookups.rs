//! Reading: by id, lists with filters and cursors, totals.

use std::time::Duration;

use vestnik::domain::{Channel, NotificationId, RecordIds, Status};
use vestnik::store::{Begin, ListFilter, NewNotification, Next};

use crate::support::ledger::{TestLedger, promises};

promises!(
    many_are_read_in_the_order_asked,
    lists_are_newest_first_and_paged_without_gaps,
    lists_are_narrowed,
    totals_follow_what_happens,
    the_database_answers,
);

async fn many_are_read_in_the_order_asked(ledger: TestLedger) {
    let (_, new) = ledger.batch(1_100);
    let mut asked: Vec<_> = new.iter().map(|new| new.id).rev().collect();
    ledger.accept(new).await;
    let expected = asked.clone();
    asked.insert(600, ledger.ids.notification());
    let found = ledger.store().notifications(asked).await.unwrap();
    assert_eq!(found.iter().map(|found| found.id).collect::<Vec<_>>(), expected);
    assert!(ledger.store().notifications(vec![]).await.unwrap().is_empty());
}

async fn list_all(ledger: &TestLedger, filter: ListFilter, limit: u32) -> Vec<NotificationId> {
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = ledger.store().list(ListFilter { after, ..filter.clone() }, limit).await.unwrap();
        listed.extend(page.items.iter().map(|found| found.id));
        after = page.items.last().map(|found| found.id);
        if !page.more {
            return listed;
        }
        assert_eq!(page.items.len(), limit as usize);
    }
}

async fn lists_are_newest_first_and_paged_without_gaps(ledger: TestLedger) {
    let mut expected = Vec::new();
    for _ in 0..3 {
        let (_, new) = ledger.batch(7);
        expected.extend(new.iter().map(|new| new.id));
        ledger.accept(new).await;
        ledger.advance(Duration::from_millis(3)).await;
    }
    expected.reverse();
    for limit in [1, 5, 7, 20, 21, 100] {
        assert_eq!(list_all(&ledger, ListFilter::default(), limit).await, expected, "by {limit}");
    }
}

async fn lists_are_narrowed(ledger: TestLedger) {
    let start = ledger.now();
    let sent = ledger.notification(Begin::Open);
    ledger.accept(vec![sent.clone()]).await;
    ledger.record(vec![ledger.close_of(&sent, 1, Next::Sent)]).await;
    ledger.advance(Duration::from_secs(1)).await;
    let middle = ledger.now();
    let (batch, of_batch) = ledger.batch(2);
    ledger.accept(of_batch.clone()).await;
    ledger.advance(Duration::from_secs(1)).await;
    let end = ledger.now();
    let records = RecordIds { contact_id: Some("other".into()), ..RecordIds::default() };
    let telegram = NewNotification { channel: Channel::Telegram, records, ..ledger.notification(ledger.due_now()) };
    ledger.accept(vec![telegram.clone()]).await;
    let of_batch = vec![of_batch[1].id, of_batch[0].id];
    let (of_batch, none) = (of_batch.as_slice(), ListFilter::default());
    let cases: Vec<(ListFilter, Vec<NotificationId>)> = vec![
        (ListFilter { channel: Some(Channel::Telegram), ..none.clone() }, vec![telegram.id]),
        (ListFilter { status: Some(Status::Sent), ..none.clone() }, vec![sent.id]),
        (ListFilter { batch: Some(batch), ..none.clone() }, of_batch.into()),
        (ListFilter { contact: Some("other".into()), ..none.clone() }, vec![telegram.id]),
        (ListFilter { from: Some(end), ..none.clone() }, vec![telegram.id]),
        (ListFilter { from: Some(start), until: Some(middle), ..none.clone() }, vec![sent.id]),
        (ListFilter { from: Some(middle), until: Some(end), ..none.clone() }, of_batch.into()),
        (ListFilter { until: Some(start), ..none.clone() }, vec![]),
        (ListFilter { batch: Some(batch), status: Some(Status::Sent), ..none.clone() }, vec![]),
        (ListFilter { batch: Some(batch), contact: Some("c1".into()), from: Some(middle), ..none }, of_batch.into()),
    ];
    for (filter, expected) in cases {
        assert_eq!(list_all(&ledger, filter.clone(), 1).await, expected, "{filter:?}");
    }
}

async fn totals_follow_what_happens(ledger: TestLedger) {
    let new: Vec<_> = (0..6).map(|_| ledger.notification(Begin::Open)).collect();
    ledger.accept(new.clone()).await;
    let nexts = [
        Next::Sent,
        Next::Sent,
        Next::Failed,
        Next::Uncertain,
        Next::Reopen { opened_at: ledger.now() },
        ledger.again(Duration::ZERO, vestnik::domain::HoldReason::Retry, vestnik::store::Counts::Retry),
    ];
    let closes = new.iter().zip(nexts).map(|(new, next)| ledger.close_of(new, 1, next)).collect();
    assert_eq!(ledger.record(closes).await, [true; 6]);
    let totals = ledger.store().totals().await.unwrap();
    assert_eq!((totals.accepted, totals.in_flight()), (6, 2));
    for (status, count) in [(Status::Sent, 2), (Status::Failed, 1), (Status::Uncertain, 1), (Status::Pending, 0)] {
        assert_eq!(totals.of(status), count, "{status}");
    }
    let report = ledger.store().verify().await.unwrap();
    assert_eq!((report.accepted, report.sent, report.in_flight, report.dead_letters), (6, 2, 2, 1));
}

async fn the_database_answers(ledger: TestLedger) {
    ledger.store().ping().await.unwrap();
    assert_eq!(ledger.store().engine(), format!("{:?}", ledger.engine).to_lowercase());
}
