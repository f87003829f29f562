//! An attempt is closed once, by who holds it, and what follows is written with it.

use std::time::Duration;

use vestnik::domain::{Channel, Epoch, HoldReason, OutcomeClass, Status};
use vestnik::store::{Begin, Close, Counts, Next, StoreError, SuppressionScope};

use crate::support::ledger::{TestLedger, promises};

promises!(
    what_was_sent_is_recorded_with_its_attempt,
    a_second_close_is_refused,
    two_closes_in_one_record_close_once,
    a_close_by_a_wrong_epoch_or_attempt_is_refused,
    a_close_of_what_is_not_open_is_noticed,
    answers_come_in_the_order_asked,
    reopen_opens_the_next_attempt_in_the_same_commit,
    a_retry_waits_until_its_time,
    a_throttle_costs_no_retry,
    a_resend_is_counted_apart,
    a_failure_is_a_dead_letter,
    an_ambiguous_end_is_listed_as_uncertain,
    an_opt_out_is_remembered,
    a_bad_record_leaves_the_attempt_open,
);

async fn what_was_sent_is_recorded_with_its_attempt(ledger: TestLedger) {
    let new = ledger.notification(ledger.due_now());
    ledger.accept(vec![new.clone()]).await;
    let opened = ledger.take_and_open().await;
    ledger.advance(Duration::from_secs(1)).await;
    let close = Close { opened_at: opened.opened_at, ..ledger.close_of(&new, 1, Next::Sent) };
    assert_eq!(ledger.record(vec![close.clone()]).await, [true]);
    let found = ledger.find(new.id).await;
    assert_eq!((found.status, found.open, found.attempt), (Status::Sent, None, 1));
    let attempt = &found.attempts[0];
    assert_eq!((attempt.n, attempt.account, attempt.epoch), (1, new.account, ledger.epoch));
    assert_eq!((attempt.class, attempt.cause.as_str()), (OutcomeClass::Accepted, "accepted"));
    assert_eq!(attempt.provider_message_id, close.provider_message_id);
    assert_eq!((attempt.opened_at, attempt.closed_at), (opened.opened_at, ledger.now()));
    assert_eq!(attempt.template_version, new.template.map(|(_, version)| version));
    assert_eq!((attempt.text_hash, attempt.flagged, &attempt.error), (Some([3; 32]), false, &None));
    assert_eq!(ledger.store().totals().await.unwrap().of(Status::Sent), 1);
    assert_eq!(ledger.raw_count("opens").await, 0, "nothing is open any more");
    ledger.assert_balances().await;
}

async fn a_second_close_is_refused(ledger: TestLedger) {
    let new = ledger.notification(Begin::Open);
    ledger.accept(vec![new.clone()]).await;
    assert_eq!(ledger.record(vec![ledger.close_of(&new, 1, Next::Sent)]).await, [true]);
    for next in [Next::Sent, Next::Failed, Next::Reopen { opened_at: ledger.now() }] {
        assert_eq!(ledger.record(vec![ledger.close_of(&new, 1, next)]).await, [false]);
    }
    assert_eq!(ledger.find(new.id).await.attempts.len(), 1);
    assert_eq!(ledger.status(new.id).await, Status::Sent);
    ledger.assert_balances().await;
}

async fn two_closes_in_one_record_close_once(ledger: TestLedger) {
    let new = ledger.notification(Begin::Open);
    let other = ledger.notification(Begin::Open);
    ledger.accept(vec![new.clone(), other.clone()]).await;
    let sent = ledger.close_of(&new, 1, Next::Sent);
    let closes = vec![sent.clone(), sent.clone(), ledger.close_of(&other, 1, Next::Sent)];
    assert_eq!(ledger.record(closes).await, [true, false, true]);
    ledger.assert_balances().await;
    // And in records that share a commit.
    let new = ledger.notification(Begin::Open);
    ledger.accept(vec![new.clone()]).await;
    let calls = (0..10).map(|_| ledger.record(vec![ledger.close_of(&new, 1, Next::Sent)]));
    let closed = futures::future::join_all(calls).await.concat();
    assert_eq!(closed.iter().filter(|closed| **closed).count(), 1);
    ledger.assert_balances().await;
}

async fn a_close_by_a_wrong_epoch_or_attempt_is_refused(ledger: TestLedger) {
    let new = ledger.notification(Begin::Open);
    ledger.accept(vec![new.clone()]).await;
    let stranger = Epoch(ledger.epoch.0 + 1);
    // At the same time as the right one, they may share a commit.
    let sent = |attempt| vec![ledger.close_of(&new, attempt, Next::Sent)];
    let (wrong_epoch, too_high, zero, right) = tokio::join!(
        ledger.record_as(stranger, sent(1)),
        ledger.record(sent(2)),
        ledger.record(sent(0)),
        ledger.record(sent(1)),
    );
    assert_eq!((wrong_epoch, too_high, zero, right), (vec![false], vec![false], vec![false], vec![true]));
    let attempts = ledger.find(new.id).await.attempts;
    assert_eq!((attempts.len(), attempts[0].epoch), (1, ledger.epoch));
    ledger.assert_balances().await;
}

async fn a_close_of_what_is_not_open_is_noticed(ledger: TestLedger) {
    let waiting = ledger.notification(ledger.due_now());
    let unknown = ledger.notification(ledger.due_now());
    ledger.accept(vec![waiting.clone()]).await;
    let closes = vec![ledger.close_of(&waiting, 1, Next::Sent), ledger.close_of(&unknown, 1, Next::Sent)];
    assert_eq!(ledger.record(closes).await, [false, false]);
    assert_eq!(ledger.record(vec![]).await, [false; 0]);
    assert_eq!(ledger.raw_count("attempts").await, 0);
    ledger.assert_balances().await;
}

async fn answers_come_in_the_order_asked(ledger: TestLedger) {
    let new: Vec<_> = (0..30).map(|_| ledger.notification(Begin::Open)).collect();
    ledger.accept(new.clone()).await;
    let closes = new.iter().rev().enumerate();
    let closes = closes.map(|(n, new)| ledger.close_of(new, if n % 3 == 0 { 2 } else { 1 }, Next::Sent)).collect();
    let expected: Vec<_> = (0..30).map(|n| n % 3 != 0).collect();
    assert_eq!(ledger.record(closes).await, expected);
    assert_eq!(ledger.raw_count("opens").await, 1, "the set stays until its last attempt is closed");
    let rest: Vec<_> = new.iter().rev().step_by(3).map(|new| ledger.close_of(new, 1, Next::Sent)).collect();
    assert_eq!(ledger.record(rest).await, [true; 10]);
    assert_eq!(ledger.raw_count("opens").await, 0);
}

async fn reopen_opens_the_next_attempt_in_the_same_commit(ledger: TestLedger) {
    let new = ledger.notification(Begin::Open);
    ledger.accept(vec![new.clone()]).await;
    ledger.advance(Duration::from_secs(1)).await;
    let reopen = Next::Reopen { opened_at: ledger.now() };
    assert_eq!(ledger.record(vec![ledger.close_of(&new, 1, reopen)]).await, [true]);
    let found = ledger.find(new.id).await;
    assert_eq!((found.status, found.attempt, found.retry_count), (Status::Sending, 2, 1));
    assert_eq!(found.open, Some((ledger.now(), ledger.epoch)));
    assert_eq!(ledger.raw_count("opens").await, 1);
    assert_eq!(ledger.store().totals().await.unwrap().in_flight(), 1);
    ledger.assert_balances().await;
    assert_eq!(ledger.record(vec![ledger.close_of(&new, 1, Next::Sent)]).await, [false]);
    assert_eq!(ledger.record(vec![ledger.close_of(&new, 2, Next::Sent)]).await, [true]);
    assert_eq!(ledger.raw_count("opens").await, 0);
    ledger.assert_balances().await;
}

/// Closes the open attempt with `next` and opens it again when it is due, and not before.
async fn waits_and_opens_again(ledger: &TestLedger, hold: HoldReason, counts: Counts) -> (i16, i16) {
    let new = ledger.notification(ledger.due_now());
    ledger.accept(vec![new.clone()]).await;
    ledger.take_and_open().await;
    let wait = Duration::from_secs(4);
    let again = ledger.again(wait, hold, counts);
    let due_at = ledger.now() + wait;
    assert_eq!(ledger.record(vec![ledger.close_of(&new, 1, again)]).await, [true]);
    let found = ledger.find(new.id).await;
    assert_eq!((found.status, found.hold, found.due_at), (Status::Pending, Some(hold), due_at));
    ledger.assert_balances().await;
    ledger.advance(wait - Duration::from_millis(1)).await;
    assert!(ledger.take().await.is_empty(), "before its time");
    // Tries that come due at almost the same time share a chunk, so it may be a moment later.
    ledger.advance(Duration::from_millis(101)).await;
    let opened = ledger.take_and_open().await;
    assert_eq!((opened.id, opened.attempt), (new.id, 2));
    assert_eq!(ledger.find(new.id).await.hold, None);
    ledger.assert_balances().await;
    assert_eq!(ledger.record(vec![ledger.close_of(&new, 2, Next::Sent)]).await, [true]);
    (opened.retry_count, opened.resends)
}

async fn a_retry_waits_until_its_time(ledger: TestLedger) {
    assert_eq!(waits_and_opens_again(&ledger, HoldReason::Retry, Counts::Retry).await, (1, 0));
}

async fn a_throttle_costs_no_retry(ledger: TestLedger) {
    assert_eq!(waits_and_opens_again(&ledger, HoldReason::RateLimit, Counts::Nothing).await, (0, 0));
}

async fn a_resend_is_counted_apart(ledger: TestLedger) {
    let new = ledger.notification(ledger.due_now());
    ledger.accept(vec![new.clone()]).await;
    ledger.take_and_open().await;
    let again = ledger.again(Duration::ZERO, HoldReason::Resend, Counts::Resend);
    ledger.record(vec![Close { flagged: true, ..ledger.close_of(&new, 1, again) }]).await;
    ledger.advance(Duration::from_millis(100)).await;
    let opened = ledger.take_and_open().await;
    assert_eq!((opened.retry_count, opened.resends), (0, 1));
    ledger.record(vec![Close { flagged: true, ..ledger.close_of(&new, 2, Next::Sent) }]).await;
    assert!(ledger.find(new.id).await.attempts.iter().all(|attempt| attempt.flagged));
    ledger.assert_balances().await;
}

async fn a_failure_is_a_dead_letter(ledger: TestLedger) {
    let new = ledger.notification(Begin::Open);
    ledger.accept(vec![new.clone()]).await;
    let close = ledger.close_of(&new, 1, Next::Failed);
    assert_eq!(ledger.record(vec![close.clone()]).await, [true]);
    let found = ledger.find(new.id).await;
    assert_eq!((found.status, found.failure), (Status::Failed, Some(("recipient".into(), close.error.unwrap()))));
    let report = ledger.store().verify().await.unwrap();
    assert_eq!((report.failed, report.dead_letters), (1, 1));
    ledger.assert_balances().await;
}

async fn an_ambiguous_end_is_listed_as_uncertain(ledger: TestLedger) {
    let new = ledger.notification(Begin::Open);
    ledger.accept(vec![new.clone()]).await;
    assert_eq!(ledger.record(vec![ledger.close_of(&new, 1, Next::Uncertain)]).await, [true]);
    assert_eq!(ledger.status(new.id).await, Status::Uncertain);
    let listed = ledger.raw_count("uncertain WHERE attempt = 1 AND cause = 'ambiguous'").await;
    assert_eq!(listed, 1);
    assert!(ledger.take().await.is_empty(), "it is not sent again");
    assert_eq!(ledger.store().verify().await.unwrap().uncertain, 1);
    ledger.assert_balances().await;
}

async fn an_opt_out_is_remembered(ledger: TestLedger) {
    let new = ledger.notification(Begin::Open);
    let other = ledger.notification(Begin::Open);
    ledger.accept(vec![new.clone(), other.clone()]).await;
    let opted_out = |new| Close { suppress: Some(SuppressionScope::All), ..ledger.close_of(new, 1, Next::Failed) };
    assert_eq!(ledger.record(vec![opted_out(&new), opted_out(&other)]).await, [true, true]);
    let address = new.recipient.clone();
    let found = ledger.store().suppressed(Channel::WhatsApp, vec![address.clone(), "+70000000000".into()]).await;
    assert_eq!(found.unwrap(), [(address.clone(), SuppressionScope::All)]);
    assert!(ledger.store().suppressed(Channel::Sms, vec![address]).await.unwrap().is_empty());
}

async fn a_bad_record_leaves_the_attempt_open(ledger: TestLedger) {
    let [good, bad] = [(); 2].map(|()| ledger.notification(Begin::Open));
    ledger.accept(vec![good.clone(), bad.clone()]).await;
    ledger.raw(&format!("INSERT INTO uncertain VALUES ({}, 0, NULL, 1, 1, 'x')", ledger.literal(bad.id.0))).await;
    // The list of uncertain ones has it already: a bug, to be refused, and no neighbour may suffer.
    let record = |new, next| vestnik::store::Record {
        epoch: ledger.epoch,
        closes: vec![ledger.close_of(new, 1, next)],
        urgency: vestnik::store::Urgency::Urgent,
    };
    let (refused, closed) = tokio::join!(
        ledger.store().record(record(&bad, Next::Uncertain)),
        ledger.store().record(record(&good, Next::Sent)),
    );
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    assert_eq!(closed.unwrap(), [true]);
    assert_eq!(ledger.status(bad.id).await, Status::Sending);
    ledger.raw("DELETE FROM uncertain").await;
    ledger.assert_balances().await;
    assert_eq!(ledger.record(vec![ledger.close_of(&bad, 1, Next::Uncertain)]).await, [true]);
    assert_eq!(ledger.raw_count("opens").await, 0);
    ledger.assert_balances().await;
}
