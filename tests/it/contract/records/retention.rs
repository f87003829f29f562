//! What is old goes, first what is personal and then the rest; counts stay and the books balance at every step.

use std::time::Duration;

use jiff::Timestamp;
use vestnik::domain::{HoldReason, ProviderError, Status};
use vestnik::store::{
    Accept, Accepted, Begin, Cleared, Close, Counts, ERASED, NewNotification, Next, VerifyReport, YOUNGEST_REMOVED,
};

use super::dump::tables_with;
use crate::support::ledger::{TestLedger, promises};

promises!(
    old_personal_data_goes_and_the_rest_stays,
    what_was_not_settled_is_come_back_to,
    old_notifications_go_and_their_counts_stay,
    removing_cut_off_anywhere_goes_on,
    what_a_key_answers_with_is_kept,
    nothing_of_the_last_day_is_removed,
    those_who_remove_at_once_count_once,
);

const DAY: Duration = Duration::from_secs(24 * 3600);
const TRACES: &[&str] = &["9991234567", "Ann", "wamid", "131026x"];

struct World {
    settled: Vec<NewNotification>,
    waiting: NewNotification,
    retried: NewNotification,
    uncertain: NewNotification,
    sending: NewNotification,
}

/// A batch with one of each outcome, some without a batch, and some that are not settled.
async fn world(ledger: &TestLedger) -> World {
    let (batch, of_batch) = ledger.batch(5);
    ledger.accept(of_batch.clone()).await;
    ledger.open(&ledger.take().await).await;
    let again = ledger.again(DAY * 90, HoldReason::Retry, Counts::Retry);
    let nexts = [Next::Sent, Next::Failed, Next::Uncertain, again];
    let close = |new, next| Close { error: Some(ProviderError::new("1", "131026x")), ..ledger.close_of(new, 1, next) };
    let closes = of_batch.iter().zip(nexts).map(|(new, next)| close(new, next)).collect();
    assert_eq!(ledger.record(closes).await, [true; 4]);
    let (id, now) = (ledger.literal(batch.0), ledger.now().as_microsecond());
    ledger
        .raw(&format!("INSERT INTO batches (id, state, channel, accepted, created_at) VALUES ({id}, 2, 1, 5, {now})"))
        .await;
    let ended = |status| Begin::Ended { status, cause: "opted_out", error: ProviderError::new("x", "y") };
    let alone = [
        ledger.notification(ended(Status::Suppressed)),
        ledger.notification(ended(Status::Failed)),
        ledger.notification(Begin::Due { at: ledger.now() + DAY * 90, scheduled: true }),
    ];
    ledger.accept(alone.clone().into()).await;
    let [suppressed, failed, waiting] = alone;
    let [sent, failed_in_batch, uncertain, retried, sending]: [NewNotification; 5] = of_batch.try_into().unwrap();
    World { settled: vec![sent, failed_in_batch, suppressed, failed], waiting, retried, uncertain, sending }
}

async fn purge(ledger: &TestLedger, before: Timestamp) -> u64 {
    let mut changed = 0;
    loop {
        let cleared = ledger.store().purge_personal_data(before, 2).await.unwrap();
        ledger.assert_balances().await;
        changed += cleared.notifications;
        if !cleared.more {
            return changed;
        }
    }
}

async fn remove_step(ledger: &TestLedger, before: Timestamp) -> Cleared {
    let cleared = ledger.store().remove_old(before, ledger.now(), 3).await.unwrap();
    ledger.assert_balances().await;
    cleared
}

async fn remove(ledger: &TestLedger, before: Timestamp) -> u64 {
    let mut removed = 0;
    loop {
        let cleared = remove_step(ledger, before).await;
        removed += cleared.notifications;
        if !cleared.more {
            return removed;
        }
    }
}

async fn report(ledger: &TestLedger) -> VerifyReport {
    ledger.store().verify().await.unwrap()
}

async fn end_sending(ledger: &TestLedger, world: &World) {
    assert_eq!(ledger.record(vec![ledger.close_of(&world.sending, 1, Next::Sent)]).await, [true]);
}

async fn old_personal_data_goes_and_the_rest_stays(ledger: TestLedger) {
    let world = world(&ledger).await;
    ledger.advance(DAY * 10).await;
    let young = ledger.notification(ledger.due_now());
    ledger.accept(vec![young.clone()]).await;
    let before = report(&ledger).await;
    assert_eq!(purge(&ledger, ledger.now() - DAY * 11).await, 0);
    assert_eq!(purge(&ledger, ledger.now() - DAY * 5).await, 4);
    assert_eq!(purge(&ledger, ledger.now() - DAY * 5).await, 0, "once");
    for new in &world.settled {
        let found = ledger.find(new.id).await;
        assert_eq!((found.recipient.as_str(), found.data), (ERASED, None));
    }
    for new in [&world.waiting, &world.retried, &world.uncertain, &world.sending, &young] {
        assert_eq!(ledger.find(new.id).await.recipient, new.recipient);
    }
    assert_eq!(report(&ledger).await, before);
}

async fn what_was_not_settled_is_come_back_to(mut ledger: TestLedger) {
    let world = world(&ledger).await;
    ledger.advance(DAY * 10).await;
    let before = ledger.now() - DAY;
    assert_eq!((purge(&ledger, before).await, remove(&ledger, before).await), (4, 4));
    end_sending(&ledger, &world).await;
    ledger.reopen().await;
    assert_eq!((purge(&ledger, before).await, remove(&ledger, before).await), (1, 1));
    assert_eq!((purge(&ledger, before).await, remove(&ledger, before).await), (0, 0));
    // The rest settles long after it was passed over.
    ledger.advance(DAY * 90).await;
    ledger.epoch = ledger.begin_epoch().await;
    let opened = ledger.open(&ledger.take().await).await;
    assert_eq!(opened.len(), 2);
    let closes = vec![
        ledger.close_of(&world.waiting, 1, Next::Sent),
        Close { flagged: true, ..ledger.close_of(&world.retried, 2, Next::Sent) },
    ];
    assert_eq!(ledger.record(closes).await, [true; 2]);
    assert_eq!((purge(&ledger, before).await, remove(&ledger, before).await), (2, 2));
    assert_eq!(ledger.raw_count("retention_later").await, 2, "the uncertain one, for either step");
    assert_eq!(tables_with(&ledger, TRACES).await.len(), 2, "its own address and attempt");
}

async fn old_notifications_go_and_their_counts_stay(ledger: TestLedger) {
    let world = world(&ledger).await;
    end_sending(&ledger, &world).await;
    ledger.advance(DAY * 10).await;
    let (before, totals) = (report(&ledger).await, ledger.store().totals().await.unwrap());
    assert_eq!(remove(&ledger, ledger.now() - DAY * 2).await, 5);
    for (table, left) in [("notifications", 3), ("work", 3), ("attempts", 2), ("events", 0), ("failed", 0)] {
        assert_eq!(ledger.raw_count(table).await, left, "{table}");
    }
    let after = report(&ledger).await;
    assert_eq!(after, VerifyReport { dead_letters: 0, ..before });
    assert_eq!((after.accepted, after.sent, after.failed, after.uncertain), (8, 2, 2, 1));
    assert_eq!(ledger.store().totals().await.unwrap(), totals);
    // A count that is changed behind our back is found.
    ledger.raw("UPDATE removed SET n = n + 1 WHERE status = 5").await;
    let found: Vec<_> = report(&ledger).await.findings.iter().map(|finding| finding.invariant).collect();
    assert_eq!(found, ["batch_is_whole", "counters_are_true"]);
}

async fn removing_cut_off_anywhere_goes_on(mut ledger: TestLedger) {
    let world = world(&ledger).await;
    end_sending(&ledger, &world).await;
    ledger.advance(DAY * 10).await;
    let (_, of_batch) = ledger.batch(250);
    let ended = |new: NewNotification| {
        let error = ProviderError::new("x", "y");
        NewNotification { begin: Begin::Ended { status: Status::Failed, cause: "template", error }, ..new }
    };
    ledger.accept(of_batch.into_iter().map(ended).collect()).await;
    ledger.advance(DAY * 10).await;
    let before = report(&ledger).await;
    let mut removed = 0;
    loop {
        let cleared = ledger.store().remove_old(ledger.now() - DAY * 2, ledger.now(), 1000).await.unwrap();
        removed += cleared.notifications;
        ledger.reopen().await;
        ledger.assert_balances().await;
        if !cleared.more {
            break;
        }
    }
    assert_eq!(removed, 255);
    assert_eq!(report(&ledger).await, VerifyReport { dead_letters: 0, ..before });
}

async fn what_a_key_answers_with_is_kept(ledger: TestLedger) {
    let ended = Begin::Ended { status: Status::Suppressed, cause: "opted_out", error: ProviderError::new("x", "y") };
    let keyed = ledger.notification(ended);
    let mut key = ledger.key("k");
    key.expires_at = ledger.now() + DAY * 7;
    let accept = || Accept { key: Some(key.clone()), ..ledger.accept_of(vec![keyed.clone()]) };
    ledger.store().accept(accept()).await.unwrap();
    ledger.advance(DAY * 6).await;
    assert_eq!(remove(&ledger, ledger.now() - DAY * 2).await, 0);
    assert!(matches!(ledger.store().accept(accept()).await.unwrap(), Accepted::Repeated(_)));
    ledger.advance(DAY * 2).await;
    assert_eq!(remove(&ledger, ledger.now() - DAY * 2).await, 1);
    assert_eq!(ledger.raw_count("idempotency").await, 0);
}

async fn nothing_of_the_last_day_is_removed(ledger: TestLedger) {
    world(&ledger).await;
    ledger.advance(YOUNGEST_REMOVED - Duration::from_secs(60)).await;
    assert_eq!(remove(&ledger, ledger.now() + DAY).await, 0);
    ledger.advance(Duration::from_secs(200)).await;
    assert_eq!(remove(&ledger, ledger.now() + DAY).await, 4);
    assert_eq!(remove(&ledger, Timestamp::MIN).await, 0);
    assert_eq!(purge(&ledger, Timestamp::MAX).await, 0);
}

async fn those_who_remove_at_once_count_once(ledger: TestLedger) {
    let (_, of_batch) = ledger.batch(450);
    let error = ProviderError::new("x", "y");
    let begin = Begin::Ended { status: Status::Suppressed, cause: "opted_out", error };
    let ended = of_batch.into_iter().map(|new| NewNotification { begin: begin.clone(), ..new }).collect();
    ledger.accept(ended).await;
    ledger.advance(DAY * 10).await;
    let remover = || async {
        let mut removed = 0;
        loop {
            let now = ledger.now();
            let cleared = ledger.store().remove_old(now - DAY * 2, now, 70).await.unwrap();
            removed += cleared.notifications;
            if !cleared.more {
                return removed;
            }
        }
    };
    let (a, b, c) = tokio::join!(remover(), remover(), remover());
    assert_eq!(a + b + c, 450);
    assert_eq!(ledger.raw_count("work").await, 0);
    ledger.assert_balances().await;
}
