//! Dead letters are found by what they have in common, and discarded once.

use std::time::Duration;

use vestnik::domain::{AccountId, Channel, Resolution, Status, TemplateId, TemplateVersion};
use vestnik::store::{NewNotification, UndecidedFilter};

use super::{all_letters, by, delivered_after_all, failed, ids, letters, number_accounts};
use crate::support::ledger::{TestLedger, promises};

promises!(
    causes_are_counted,
    lists_come_in_pages,
    every_filter_narrows,
    a_discarded_one_is_no_dead_letter,
    what_was_delivered_is_no_dead_letter,
);

/// Six of three causes, of two channels, one of them a minute later than the others. In the order they were accepted.
async fn some(ledger: &TestLedger) -> Vec<NewNotification> {
    number_accounts(ledger).await;
    let (batch, _) = ledger.batch(0);
    let other = TemplateId::parse("other").unwrap();
    let mut new = vec![
        failed(ledger, "recipient", "131026"),
        NewNotification { batch: Some(batch), ..failed(ledger, "recipient", "131026") },
        NewNotification { template: Some((other, TemplateVersion(2))), ..failed(ledger, "recipient", "131026") },
        failed(ledger, "template", "132000"),
        NewNotification {
            channel: Channel::Telegram,
            account: AccountId(2),
            recipient: "42".into(),
            ..failed(ledger, "recipient", "403")
        },
    ];
    ledger.accept(new.clone()).await;
    ledger.advance(Duration::from_secs(60)).await;
    let late = failed(ledger, "recipient", "131026");
    ledger.accept(vec![late.clone()]).await;
    new.push(late);
    new
}

async fn causes_are_counted(ledger: TestLedger) {
    let new = some(&ledger).await;
    let groups = ledger.store().dead_letter_causes(UndecidedFilter::default(), 100).await.unwrap();
    let first = &groups[0];
    assert_eq!((first.channel, &*first.account, &*first.cause), (Channel::WhatsApp, "main", "recipient"));
    assert_eq!((first.code.as_deref(), first.count), (Some("131026"), 3));
    assert_eq!(first.template.as_ref().map(TemplateId::as_str), Some("greeting"));
    assert_eq!((first.first_at, first.last_at), (new[0].created_at, new[5].created_at));
    assert_eq!(groups.iter().map(|group| group.count).collect::<Vec<_>>(), [3, 1, 1, 1]);
    let telegram = UndecidedFilter { channel: Some(Channel::Telegram), ..UndecidedFilter::default() };
    let groups = ledger.store().dead_letter_causes(telegram, 100).await.unwrap();
    assert_eq!(groups.iter().map(|group| (&*group.account, group.count)).collect::<Vec<_>>(), [("bot", 1)]);
    assert_eq!(ledger.store().dead_letter_causes(UndecidedFilter::default(), 2).await.unwrap().len(), 2);
}

async fn lists_come_in_pages(ledger: TestLedger) {
    let mut expected: Vec<_> = some(&ledger).await.iter().map(|new| new.id).collect();
    expected.reverse();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = ledger.store().dead_letters(UndecidedFilter::default(), after, 4).await.unwrap();
        found.extend(ids(page.items));
        after = found.last().copied();
        if !page.more {
            break;
        }
        assert_eq!(found.len(), 4);
    }
    assert_eq!(found, expected);
    let page = ledger.store().dead_letters(UndecidedFilter::default(), None, 1).await.unwrap();
    let letter = &page.items[0];
    assert_eq!((letter.error.code.as_str(), letter.error.detail.as_str()), ("131026", "what the provider said"));
    assert_eq!((letter.recipient.as_str(), letter.contact.as_deref()), ("+79991234567", Some("c1")));
}

async fn every_filter_narrows(ledger: TestLedger) {
    let new = some(&ledger).await;
    let all = UndecidedFilter::default;
    let late = new[5].created_at;
    for (filter, expected) in [
        (UndecidedFilter { channel: Some(Channel::Telegram), ..all() }, vec![4]),
        (UndecidedFilter { account: Some("main".into()), ..all() }, vec![5, 3, 2, 1, 0]),
        (UndecidedFilter { account: Some("nobody".into()), ..all() }, vec![]),
        (UndecidedFilter { cause: Some("template".into()), ..all() }, vec![3]),
        (UndecidedFilter { code: Some("403".into()), ..all() }, vec![4]),
        (UndecidedFilter { template: Some(TemplateId::parse("other").unwrap()), ..all() }, vec![2]),
        (UndecidedFilter { batch: new[1].batch, ..all() }, vec![1]),
        (UndecidedFilter { from: Some(late), ..all() }, vec![5]),
        (UndecidedFilter { until: Some(late), cause: Some("recipient".into()), ..all() }, vec![4, 2, 1, 0]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|place| new[place].id).collect();
        assert_eq!(letters(&ledger, filter.clone()).await, expected, "{filter:?}");
    }
}

async fn a_discarded_one_is_no_dead_letter(ledger: TestLedger) {
    let new = some(&ledger).await;
    let (first, second) = (new[0].id, new[1].id);
    let nobody = ledger.ids.notification();
    let store = ledger.store();
    let discarded =
        store.discard(vec![first, nobody, first], "wrong number".into(), by(&ledger, "key anna")).await.unwrap();
    assert_eq!(discarded, [first]);
    let again = store.discard(vec![second, first], "again".into(), by(&ledger, "key boris")).await.unwrap();
    assert_eq!(again, [second]);
    assert_eq!(all_letters(&ledger).await.len(), 4);
    let found = ledger.find(first).await;
    let resolved = found.resolved.unwrap();
    assert_eq!((found.status, resolved.how, resolved.replayed_as), (Status::Failed, Resolution::Discarded, None));
    assert_eq!((&*resolved.by, resolved.reason.as_deref()), ("key anna", Some("wrong number")));
    let report = store.verify().await.unwrap();
    assert_eq!((report.findings, report.failed, report.dead_letters), (vec![], 6, 4));
}

async fn what_was_delivered_is_no_dead_letter(ledger: TestLedger) {
    let id = some(&ledger).await[0].id;
    delivered_after_all(&ledger, id).await;
    assert!(!all_letters(&ledger).await.contains(&id));
    let groups = ledger.store().dead_letter_causes(UndecidedFilter::default(), 100).await.unwrap();
    assert_eq!(groups.iter().map(|group| group.count).sum::<u64>(), 5);
    assert!(ledger.store().discard(vec![id], "x".into(), by(&ledger, "local")).await.unwrap().is_empty());
    ledger.assert_balances().await;
}
