//! What nobody knows is settled by a person, once, and the books follow.

use std::time::Duration;

use vestnik::domain::{
    Channel, NotificationId, OutcomeClass, RecordId, RecordKind, Status, TemplateId, TemplateVersion, Verdict,
};
use vestnik::store::{Begin, ErasureStep, NewNotification, Settlement, UndecidedFilter};

use super::{all_letters, by, ids, number_accounts, sorted, uncertain};
use crate::support::ledger::{TestLedger, promises};

promises!(
    a_verdict_moves_it_and_the_counters,
    a_failed_one_is_a_dead_letter,
    two_verdicts_at_once_are_one_each,
    every_filter_narrows,
    a_clock_that_is_behind_changes_no_order,
    what_a_person_wrote_goes_with_the_one_it_is_about,
);

fn settlement(ledger: &TestLedger, verdict: Verdict) -> Settlement {
    Settlement { verdict, reason: "the provider's list has it".into(), decision: by(ledger, "key anna") }
}

async fn settle(ledger: &TestLedger, ids: Vec<NotificationId>, verdict: Verdict) -> Vec<NotificationId> {
    ledger.store().settle_uncertain(ids, settlement(ledger, verdict)).await.unwrap()
}

async fn all_uncertain(ledger: &TestLedger) -> Vec<NotificationId> {
    ids(ledger.store().uncertain(UndecidedFilter::default(), None, 1000).await.unwrap().items)
}

async fn a_verdict_moves_it_and_the_counters(ledger: TestLedger) {
    number_accounts(&ledger).await;
    let (batch, _) = ledger.batch(0);
    let of_batch = |_| NewNotification { batch: Some(batch), ..ledger.notification(Begin::Open) };
    let mut new: Vec<_> = (0..3).map(of_batch).collect();
    new.push(ledger.notification(Begin::Open));
    let sent = ledger.notification(Begin::Ended {
        status: Status::Suppressed,
        cause: "opted_out",
        error: vestnik::domain::ProviderError::default(),
    });
    ledger.accept(vec![sent.clone()]).await;
    let given = uncertain(&ledger, new).await;
    ledger.advance(Duration::from_secs(3600)).await;
    assert_eq!(settle(&ledger, vec![given[0], given[1], given[3], sent.id], Verdict::Sent).await.len(), 3);
    assert!(settle(&ledger, vec![given[0]], Verdict::Failed).await.is_empty(), "it is settled");
    let found = ledger.find(given[0]).await;
    let settled = found.settled.unwrap();
    assert_eq!((found.status, found.failure), (Status::Sent, None));
    assert_eq!((&*settled.by, &*settled.reason), ("key anna", "the provider's list has it"));
    assert_eq!(settled.at, ledger.now());
    assert_eq!(found.attempts[0].class, OutcomeClass::Ambiguous, "what was seen stays");
    assert_eq!(all_uncertain(&ledger).await, [given[2]]);
    let totals = ledger.store().totals().await.unwrap();
    assert_eq!((totals.of(Status::Sent), totals.of(Status::Uncertain), totals.in_flight()), (3, 1, 0));
    let report = ledger.store().verify().await.unwrap();
    assert_eq!((report.findings, report.sent, report.uncertain, report.suppressed), (vec![], 3, 1, 1));
}

async fn a_failed_one_is_a_dead_letter(ledger: TestLedger) {
    number_accounts(&ledger).await;
    let given = uncertain(&ledger, vec![ledger.notification(Begin::Open)]).await;
    ledger.advance(Duration::from_secs(60)).await;
    assert_eq!(settle(&ledger, given.clone(), Verdict::Failed).await, given);
    let page = ledger.store().dead_letters(UndecidedFilter::default(), None, 10).await.unwrap();
    let letter = &page.items[0];
    assert_eq!((letter.id, letter.at, &*letter.cause), (given[0], ledger.now(), "ambiguous"));
    assert_eq!(
        (letter.error.code.as_str(), letter.template.as_ref().map(TemplateId::as_str)),
        ("131026", Some("greeting"))
    );
    let found = ledger.find(given[0]).await;
    assert_eq!((found.status, found.settled.unwrap().by.as_str()), (Status::Failed, "key anna"));
    assert!(all_uncertain(&ledger).await.is_empty());
    let report = ledger.store().verify().await.unwrap();
    assert_eq!((report.findings, report.failed, report.dead_letters), (vec![], 1, 1));
}

async fn two_verdicts_at_once_are_one_each(ledger: TestLedger) {
    const MANY: usize = 120;
    let new = (0..MANY).map(|_| ledger.notification(Begin::Open)).collect();
    let given = uncertain(&ledger, new).await;
    let mut backwards = given.clone();
    backwards.reverse();
    let (sent, failed, again) = tokio::join!(
        settle(&ledger, given.clone(), Verdict::Sent),
        settle(&ledger, backwards, Verdict::Failed),
        settle(&ledger, given.clone(), Verdict::Sent)
    );
    assert_eq!(sent.len() + failed.len() + again.len(), MANY);
    assert_eq!(sorted(all_letters(&ledger).await), sorted(failed.clone()));
    assert_eq!(ledger.raw_count("events").await, MANY);
    assert_eq!(ledger.raw_count("uncertain").await, 0);
    let report = ledger.store().verify().await.unwrap();
    assert_eq!(
        (report.findings, report.sent, report.failed),
        (vec![], (MANY - failed.len()) as i64, failed.len() as i64)
    );
}

async fn every_filter_narrows(ledger: TestLedger) {
    number_accounts(&ledger).await;
    let (batch, _) = ledger.batch(0);
    let other = Some((TemplateId::parse("other").unwrap(), TemplateVersion(1)));
    let new = vec![
        NewNotification { batch: Some(batch), ..ledger.notification(Begin::Open) },
        NewNotification { template: other, ..ledger.notification(Begin::Open) },
    ];
    let mut given = uncertain(&ledger, new).await;
    ledger.advance(Duration::from_secs(10)).await;
    let late = ledger.now();
    given.extend(uncertain(&ledger, vec![ledger.notification(Begin::Open)]).await);
    let all = UndecidedFilter::default;
    for (filter, expected) in [
        (all(), vec![2, 1, 0]),
        (UndecidedFilter { channel: Some(Channel::Telegram), ..all() }, vec![]),
        (UndecidedFilter { account: Some("main".into()), ..all() }, vec![2, 1, 0]),
        (UndecidedFilter { cause: Some("ambiguous".into()), code: Some("131026".into()), ..all() }, vec![2, 1, 0]),
        (UndecidedFilter { cause: Some("lost".into()), ..all() }, vec![]),
        (UndecidedFilter { template: Some(TemplateId::parse("other").unwrap()), ..all() }, vec![1]),
        (UndecidedFilter { batch: Some(batch), ..all() }, vec![0]),
        (UndecidedFilter { from: Some(late), ..all() }, vec![2]),
        (UndecidedFilter { until: Some(late), ..all() }, vec![1, 0]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|place| given[place]).collect();
        let page = ledger.store().uncertain(filter.clone(), None, 10).await.unwrap();
        assert_eq!(ids(page.items), expected, "{filter:?}");
    }
    let page = ledger.store().uncertain(all(), Some(given[2]), 1).await.unwrap();
    assert_eq!((ids(page.items), page.more), (vec![given[1]], true));
}

async fn a_clock_that_is_behind_changes_no_order(ledger: TestLedger) {
    let given = uncertain(&ledger, vec![ledger.notification(Begin::Open)]).await;
    let mut behind = settlement(&ledger, Verdict::Sent);
    behind.decision.at = ledger.now() - Duration::from_secs(5);
    assert_eq!(ledger.store().settle_uncertain(given.clone(), behind).await.unwrap(), given);
    assert_eq!(ledger.find(given[0]).await.settled.unwrap().at, ledger.now());
    ledger.assert_balances().await;
}

async fn what_a_person_wrote_goes_with_the_one_it_is_about(ledger: TestLedger) {
    let given = uncertain(&ledger, vec![ledger.notification(Begin::Open)]).await;
    settle(&ledger, given.clone(), Verdict::Failed).await;
    let reason = "Anna says that it never came";
    ledger.store().discard(given.clone(), reason.into(), by(&ledger, "key boris")).await.unwrap();
    let contact = RecordId::parse(RecordKind::Contact, "c1").unwrap();
    ledger.store().request_erasure(RecordKind::Contact, contact, ledger.now()).await.unwrap();
    while ledger.store().erase_some(10, ledger.now()).await.unwrap() == ErasureStep::Went {}
    let found = ledger.find(given[0]).await;
    let (resolved, settled) = (found.resolved.unwrap(), found.settled.unwrap());
    assert_eq!((&*resolved.by, resolved.reason), ("key boris", None));
    assert_eq!((&*settled.by, &*settled.reason), ("key anna", "erased"));
    ledger.assert_balances().await;
}
