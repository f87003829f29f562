//! A dead letter is replayed once, whoever asks, and its replay is all that it was.

use std::collections::HashSet;
use std::time::Duration;

use futures::future::join_all;
use vestnik::domain::{
    Mode, NotificationId, Priority, RecordId, RecordIds, RecordKind, Resolution, Status, TemplateId, TemplateVersion,
};
use vestnik::store::{ErasureStep, NewNotification, Next, Replay};

use super::{all_letters, by, delivered_after_all, failed, number_accounts, sorted};
use crate::support::ledger::{ACCOUNT, TestLedger, ids_of, promises};

promises!(
    a_replay_is_all_that_its_dead_letter_was,
    it_may_go_elsewhere_and_say_something_else,
    it_waits_for_its_time,
    it_may_fail_and_be_replayed_in_turn,
    operators_at_the_same_time_replay_each_once,
    replaying_and_discarding_at_once_does_one_of_them,
    what_is_no_dead_letter_is_not_replayed,
    who_is_being_erased_is_not_copied,
    old_ones_and_their_replays_are_removed_in_order,
);

fn replay(ledger: &TestLedger, dead: NotificationId) -> Replay {
    Replay {
        dead,
        new: ledger.ids.notification(),
        account: ACCOUNT,
        priority: Priority::Normal,
        due_at: ledger.now(),
        recipient: None,
        template: None,
    }
}

async fn replay_all(ledger: &TestLedger, replays: Vec<Replay>) -> Vec<NotificationId> {
    ledger.store().replay(replays, by(ledger, "key anna")).await.unwrap()
}

async fn a_replay_is_all_that_its_dead_letter_was(ledger: TestLedger) {
    number_accounts(&ledger).await;
    let (batch, _) = ledger.batch(0);
    let dead = NewNotification {
        batch: Some(batch),
        template: None,
        text: Some("Здравствуйте".into()),
        records: RecordIds {
            contact_id: Some("c1".into()),
            lead_id: Some(7),
            deal_id: Some("d1".into()),
            company_id: Some("co1".into()),
        },
        metadata: Some(r#"{"order":7}"#.into()),
        external_id: Some("order-7".into()),
        priority: Priority::High,
        max_retries: 5,
        mode: Mode::Sync,
        ..failed(&ledger, "recipient", "131026")
    };
    ledger.accept(vec![dead.clone()]).await;
    ledger.advance(Duration::from_secs(5)).await;
    let asked = Replay { priority: Priority::High, ..replay(&ledger, dead.id) };
    assert_eq!(replay_all(&ledger, vec![asked.clone()]).await, [dead.id]);

    let (old, new) = (ledger.find(dead.id).await, ledger.find(asked.new).await);
    let resolved = old.resolved.clone().unwrap();
    assert_eq!((old.status, resolved.how, resolved.replayed_as), (Status::Failed, Resolution::Replayed, Some(new.id)));
    assert_eq!((&*resolved.by, resolved.at), ("key anna", ledger.now()));
    let kept = |of: &vestnik::store::FoundNotification| {
        (
            (of.channel, of.account, of.template.clone(), of.text.clone(), of.recipient.clone(), of.records.clone()),
            (of.data.clone(), of.metadata.clone(), of.external_id.clone(), of.priority, of.policy, of.max_retries),
        )
    };
    assert_eq!(kept(&new), kept(&old));
    assert_eq!((new.status, new.mode, new.batch, new.attempt), (Status::Pending, Mode::Async, None, 0));
    assert_eq!((new.created_at, new.due_at), (ledger.now(), ledger.now()));
    ledger.assert_balances().await;

    let opened = ledger.take_and_open().await;
    assert_eq!((opened.id, opened.attempt), (new.id, 1));
    let sent = NewNotification { id: new.id, batch: None, ..dead };
    assert_eq!(ledger.record(vec![ledger.close_of(&sent, 1, Next::Sent)]).await, [true]);
    let report = ledger.store().verify().await.unwrap();
    assert_eq!((report.findings, report.accepted, report.sent), (vec![], 2, 1));
    assert_eq!((report.failed, report.dead_letters, report.in_flight), (1, 0, 0));
}

async fn it_may_go_elsewhere_and_say_something_else(ledger: TestLedger) {
    let text = NewNotification { template: None, text: Some("x".into()), ..failed(&ledger, "recipient", "1") };
    let template = failed(&ledger, "template", "2");
    ledger.accept(vec![text.clone(), template.clone()]).await;
    let mended = (TemplateId::parse("mended").unwrap(), TemplateVersion(3));
    let elsewhere = Replay { recipient: Some("+79990000000".into()), ..replay(&ledger, template.id) };
    let otherwise = Replay { template: Some(mended.clone()), ..replay(&ledger, text.id) };
    assert_eq!(replay_all(&ledger, vec![elsewhere.clone(), otherwise.clone()]).await.len(), 2);
    let (elsewhere, otherwise) = (ledger.find(elsewhere.new).await, ledger.find(otherwise.new).await);
    assert_eq!((elsewhere.recipient.as_str(), elsewhere.template), ("+79990000000", template.template));
    assert_eq!((otherwise.recipient.as_str(), otherwise.template), ("+79991234567", Some(mended)));
    assert_eq!(otherwise.text, None);
    ledger.assert_balances().await;
}

async fn it_waits_for_its_time(ledger: TestLedger) {
    let dead: Vec<_> = (0..6).map(|_| failed(&ledger, "transient", "500")).collect();
    ledger.accept(dead.clone()).await;
    let later = |place: usize, dead: &NewNotification| Replay {
        due_at: ledger.now() + Duration::from_secs(place as u64 / 2),
        ..replay(&ledger, dead.id)
    };
    let replays: Vec<_> = dead.iter().enumerate().map(|(place, dead)| later(place, dead)).collect();
    assert_eq!(replay_all(&ledger, replays.clone()).await.len(), 6);
    ledger.assert_balances().await;
    for pair in replays.chunks(2) {
        let due = ids_of(&ledger.take().await);
        assert_eq!(sorted(due), pair.iter().map(|replay| replay.new).collect::<Vec<_>>());
        ledger.advance(Duration::from_secs(1)).await;
    }
}

async fn it_may_fail_and_be_replayed_in_turn(ledger: TestLedger) {
    let mut dead = failed(&ledger, "recipient", "131026");
    ledger.accept(vec![dead.clone()]).await;
    for _ in 0..3 {
        let again = replay(&ledger, dead.id);
        assert_eq!(replay_all(&ledger, vec![again.clone()]).await, [dead.id]);
        assert!(all_letters(&ledger).await.is_empty());
        ledger.take_and_open().await;
        dead.id = again.new;
        assert_eq!(ledger.record(vec![ledger.close_of(&dead, 1, Next::Failed)]).await, [true]);
        assert_eq!(all_letters(&ledger).await, [dead.id]);
        ledger.assert_balances().await;
    }
}

/// More than two commits' worth, so that the steps of the four mix.
const MANY: usize = 120;

async fn operators_at_the_same_time_replay_each_once(ledger: TestLedger) {
    let dead: Vec<_> = (0..MANY).map(|_| failed(&ledger, "recipient", "131026")).collect();
    ledger.accept(dead.clone()).await;
    let of_one = |backwards: bool| {
        let mut replays: Vec<_> = dead.iter().map(|dead| replay(&ledger, dead.id)).collect();
        if backwards {
            replays.reverse();
        }
        replay_all(&ledger, replays)
    };
    let done = join_all([false, true, false, true].map(of_one)).await;
    let ours: HashSet<_> = done.iter().flatten().collect();
    assert_eq!((done.iter().map(Vec::len).sum::<usize>(), ours.len()), (MANY, MANY), "each by one of them");
    assert!(all_letters(&ledger).await.is_empty());
    let due: HashSet<_> = ids_of(&ledger.take().await).into_iter().collect();
    assert_eq!(due.len(), MANY);
    for dead in &dead {
        let new = ledger.find(dead.id).await.resolved.unwrap().replayed_as.unwrap();
        assert!(due.contains(&new));
    }
    let report = ledger.store().verify().await.unwrap();
    assert_eq!((report.findings, report.accepted), (vec![], 2 * MANY as i64));
}

async fn replaying_and_discarding_at_once_does_one_of_them(ledger: TestLedger) {
    let dead: Vec<_> = (0..MANY).map(|_| failed(&ledger, "recipient", "131026")).collect();
    ledger.accept(dead.clone()).await;
    let ids = dead.iter().map(|dead| dead.id).collect();
    let replays = dead.iter().map(|dead| replay(&ledger, dead.id)).collect();
    let (replayed, discarded) = tokio::join!(
        replay_all(&ledger, replays),
        ledger.store().discard(ids, "no longer needed".into(), by(&ledger, "key boris"))
    );
    let discarded = discarded.unwrap();
    assert_eq!(replayed.len() + discarded.len(), MANY);
    assert_eq!(ids_of(&ledger.take().await).len(), replayed.len());
    for id in discarded {
        assert_eq!(ledger.find(id).await.resolved.unwrap().how, Resolution::Discarded);
    }
    ledger.assert_balances().await;
}

async fn what_is_no_dead_letter_is_not_replayed(ledger: TestLedger) {
    let (dead, waiting) = (failed(&ledger, "recipient", "1"), ledger.notification(ledger.due_now()));
    ledger.accept(vec![dead.clone(), waiting.clone()]).await;
    delivered_after_all(&ledger, dead.id).await;
    let asked = [dead.id, waiting.id, ledger.ids.notification()].map(|id| replay(&ledger, id));
    assert!(replay_all(&ledger, asked.into()).await.is_empty());
    assert_eq!(ledger.raw_count("notifications").await, 2);
    assert_eq!(ids_of(&ledger.take().await), [waiting.id]);
    ledger.assert_balances().await;
}

async fn who_is_being_erased_is_not_copied(ledger: TestLedger) {
    let (anna, boris) = (failed(&ledger, "recipient", "1"), failed(&ledger, "recipient", "1"));
    let boris = NewNotification {
        recipient: "+79990000000".into(),
        records: RecordIds { contact_id: Some("c2".into()), ..RecordIds::default() },
        ..boris
    };
    ledger.accept(vec![anna.clone(), boris.clone()]).await;
    let contact = RecordId::parse(RecordKind::Contact, "c1").unwrap();
    ledger.store().request_erasure(RecordKind::Contact, contact, ledger.now()).await.unwrap();
    let asked = || [anna.id, boris.id].map(|id| replay(&ledger, id)).into();
    assert_eq!(replay_all(&ledger, asked()).await, [boris.id], "the erasure has not come to her yet");
    while ledger.store().erase_some(10, ledger.now()).await.unwrap() == ErasureStep::Went {}
    assert!(replay_all(&ledger, asked()).await.is_empty(), "there is nothing left to send");
    assert_eq!(ledger.raw_count("notifications WHERE recipient = '+79991234567'").await, 0);
    ledger.assert_balances().await;
}

async fn old_ones_and_their_replays_are_removed_in_order(mut ledger: TestLedger) {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let dead = failed(&ledger, "recipient", "1");
    ledger.accept(vec![dead.clone()]).await;
    ledger.advance(DAY).await;
    ledger.epoch = ledger.begin_epoch().await;
    let again = replay(&ledger, dead.id);
    replay_all(&ledger, vec![again.clone()]).await;
    ledger.take_and_open().await;
    let sent = NewNotification { id: again.new, ..dead.clone() };
    ledger.record(vec![ledger.close_of(&sent, 1, Next::Sent)]).await;
    for expected in [1, 0] {
        ledger.advance(2 * DAY).await;
        let before = ledger.now() - if expected == 1 { 2 * DAY + DAY / 2 } else { DAY + DAY / 2 };
        while ledger.store().remove_old(before, ledger.now(), 100).await.unwrap().more {}
        assert_eq!(ledger.raw_count("notifications").await, expected);
        ledger.assert_balances().await;
    }
}
