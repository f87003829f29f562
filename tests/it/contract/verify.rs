//! Books that balance say so; and for every kind of mistake there is damage that `verify` finds.

use std::collections::BTreeSet;
use std::time::Duration;

use uuid::Uuid;
use vestnik::domain::{Channel, HoldReason, Policy, ProviderError, Status};
use vestnik::store::verify::invariants;
use vestnik::store::{Accept, Begin, Close, Counts, NewNotification, Next};

use crate::support::ledger::{TestLedger, promises};

promises!(
    a_healthy_ledger_balances,
    finds_accepted_is_there,
    finds_batch_is_whole,
    finds_state_follows_attempts,
    finds_attempts_are_counted,
    finds_open_attempts_are_held,
    finds_no_silent_duplicate,
    finds_answers_are_kept,
    finds_counters_are_true,
    finds_dead_letters_are_the_failed,
    finds_replayed_once,
    finds_uncertain_are_listed,
    finds_waiting_will_be_found,
    finds_the_sum,
);

#[test]
fn every_invariant_has_its_damage() {
    let source = include_str!("verify.rs");
    for name in invariants() {
        assert!(source.contains(&format!("    finds_{name},\n")), "no damage that breaks {name}");
    }
}

/// One of each kind, by id.
struct Healthy {
    batch: Uuid,
    sent: Uuid,
    failed: Uuid,
    ended: Uuid,
    suppressed: Uuid,
    uncertain: Uuid,
    lost: Uuid,
    retried: Uuid,
    resent: Uuid,
    pending: Uuid,
    scheduled: Uuid,
    queued: Uuid,
    held: Uuid,
    open: Uuid,
    reopened: Uuid,
    keyed: Uuid,
    nobody: Uuid,
    epoch: i64,
}

/// Everything that may be in a ledger, made through the API.
async fn healthy(ledger: &mut TestLedger) -> Healthy {
    let lost = ledger.notification(Begin::Open);
    let resent =
        NewNotification { policy: Policy::AtLeastOnce, channel: Channel::Telegram, ..ledger.notification(Begin::Open) };
    ledger.accept(vec![lost.clone(), resent.clone()]).await;
    ledger.crash().await;
    assert_eq!(ledger.recover().await.uncertain, 1);
    ledger.advance(Duration::from_millis(100)).await;
    ledger.take_and_open().await;
    ledger.record(vec![Close { flagged: true, ..ledger.close_of(&resent, 2, Next::Sent) }]).await;

    let (batch, of_batch) = ledger.batch(4);
    ledger.accept(of_batch.clone()).await;
    ledger.open(&ledger.take().await).await;
    let again = ledger.again(Duration::from_secs(5), HoldReason::Retry, Counts::Retry);
    let nexts = [Next::Sent, Next::Failed, Next::Uncertain, again];
    let closes = of_batch.iter().zip(nexts).map(|(new, next)| ledger.close_of(new, 1, next)).collect();
    assert_eq!(ledger.record(closes).await, [true; 4]);
    // The row of a batch is written by what takes bulk calls, above the ledger's hot path.
    let (id, now) = (ledger.literal(batch.0), ledger.now().as_microsecond());
    ledger
        .raw(&format!("INSERT INTO batches (id, state, channel, accepted, created_at) VALUES ({id}, 2, 1, 4, {now})"))
        .await;

    let queued = ledger.notification(ledger.due_now());
    ledger.accept(vec![queued.clone()]).await;
    assert_eq!(ledger.take().await.len(), 1);
    let error = ProviderError::new("missing", "no value");
    let ended = |status, cause| Begin::Ended { status, cause, error: error.clone() };
    let soon = ledger.now() + Duration::from_secs(3600);
    let new = [
        ledger.notification(ended(Status::Failed, "template")),
        ledger.notification(ended(Status::Suppressed, "opted_out")),
        ledger.notification(ledger.due_now()),
        ledger.notification(Begin::Due { at: soon, scheduled: true }),
        ledger.notification(Begin::Held),
        ledger.notification(Begin::Open),
        ledger.notification(Begin::Open),
    ];
    ledger.accept(new.clone().into()).await;
    let reopen = Next::Reopen { opened_at: ledger.now() };
    assert_eq!(ledger.record(vec![ledger.close_of(&new[6], 1, reopen)]).await, [true]);
    let keyed = ledger.notification(ledger.due_now());
    let accept = Accept { key: Some(ledger.key("k")), ..ledger.accept_of(vec![keyed.clone()]) };
    ledger.store().accept(accept).await.unwrap();
    let [ended, suppressed, pending, scheduled, held, open, reopened] = new.map(|new| new.id.0);
    let [sent, failed, uncertain, retried]: [Uuid; 4] =
        of_batch.iter().map(|new| new.id.0).collect::<Vec<_>>().try_into().unwrap();
    Healthy {
        batch: batch.0,
        sent,
        failed,
        ended,
        suppressed,
        uncertain,
        lost: lost.id.0,
        retried,
        resent: resent.id.0,
        pending,
        scheduled,
        queued: queued.id.0,
        held,
        open,
        reopened,
        keyed: keyed.id.0,
        nobody: ledger.ids.next(),
        epoch: ledger.epoch.0,
    }
}

async fn a_healthy_ledger_balances(mut ledger: TestLedger) {
    healthy(&mut ledger).await;
    let report = ledger.store().verify().await.unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.checked, invariants().count());
    assert_eq!((report.accepted, report.in_flight), (15, 8));
    assert_eq!((report.sent, report.failed, report.uncertain, report.suppressed), (2, 2, 2, 1));
    assert_eq!((report.dead_letters, report.delivered, report.read), (2, 0, 0));
}

/// Damage, what mends it, and the record that has to be named.
struct Damage {
    sql: String,
    mend: String,
    names: Uuid,
}

/// Does each damage alone, and expects that invariant, naming that record; mended, the books balance again.
async fn finds(mut ledger: TestLedger, invariant: &str, damage: impl Fn(&TestLedger, &Healthy) -> Vec<Damage>) {
    let healthy = healthy(&mut ledger).await;
    for Damage { sql, mend, names } in damage(&ledger, &healthy) {
        ledger.raw(&sql).await;
        let report = ledger.store().verify().await.unwrap();
        let found = report.findings.iter().find(|finding| finding.invariant == invariant);
        let found = found.unwrap_or_else(|| panic!("{sql}\nwas not found: {:#?}", report.findings));
        assert!(!report.balances());
        assert_eq!((found.count, &found.examples), (1, &vec![names.to_string()]), "{sql}");
        ledger.raw(&mend).await;
        ledger.assert_balances().await;
    }
}

/// Sets a column of one work row, and back.
fn work(ledger: &TestLedger, id: Uuid, set: &str, back: &str) -> Damage {
    let at = format!("WHERE id = {}", ledger.literal(id));
    Damage { sql: format!("UPDATE work SET {set} {at}"), mend: format!("UPDATE work SET {back} {at}"), names: id }
}

/// Takes some rows away, and puts them back.
fn without(table: &str, filter: &str, names: Uuid) -> Damage {
    Damage {
        sql: format!("CREATE TABLE away AS SELECT * FROM {table} WHERE {filter}; DELETE FROM {table} WHERE {filter};"),
        mend: format!("INSERT INTO {table} SELECT * FROM away; DROP TABLE away;"),
        names,
    }
}

async fn finds_accepted_is_there(ledger: TestLedger) {
    finds(ledger, "accepted_is_there", |ledger, ok| {
        let id = |id| format!("id = {}", ledger.literal(id));
        vec![without("work", &id(ok.pending), ok.pending), without("notifications", &id(ok.sent), ok.sent)]
    })
    .await;
}

async fn finds_batch_is_whole(ledger: TestLedger) {
    finds(ledger, "batch_is_whole", |ledger, ok| {
        let of_sent = format!("id = {}", ledger.literal(ok.sent));
        vec![
            Damage {
                sql: "UPDATE batches SET accepted = 5".into(),
                mend: "UPDATE batches SET accepted = 4".into(),
                names: ok.batch,
            },
            Damage { names: ok.batch, ..without("notifications", &of_sent, ok.sent) },
        ]
    })
    .await;
}

async fn finds_state_follows_attempts(ledger: TestLedger) {
    finds(ledger, "state_follows_attempts", |ledger, ok| {
        let class = |id, class: i16, was: i16| {
            let at = format!("WHERE notification_id = {}", ledger.literal(id));
            Damage {
                sql: format!("UPDATE attempts SET class = {class} {at}"),
                mend: format!("UPDATE attempts SET class = {was} {at}"),
                names: id,
            }
        };
        vec![
            work(ledger, ok.pending, "state = 5", "state = 2"),
            work(ledger, ok.pending, "state = 11", "state = 2"),
            work(ledger, ok.pending, "state = 99", "state = 2"),
            work(ledger, ok.sent, "state = 2", "state = 5"),
            work(ledger, ok.sent, "state = 9", "state = 5"),
            work(ledger, ok.suppressed, "state = 2", "state = 10"),
            work(ledger, ok.retried, "state = 1", "state = 2"),
            class(ok.sent, 3, 1),
            class(ok.uncertain, 1, 6),
            class(ok.failed, 1, 2),
            without("events", &format!("notification_id = {}", ledger.literal(ok.suppressed)), ok.suppressed),
        ]
    })
    .await;
}

async fn finds_attempts_are_counted(ledger: TestLedger) {
    finds(ledger, "attempts_are_counted", |ledger, ok| {
        let of = |id| format!("notification_id = {}", ledger.literal(id));
        let moved = |id, to, n: i16| Damage {
            sql: format!("UPDATE attempts SET notification_id = {} WHERE {} AND n = {n}", ledger.literal(to), of(id)),
            mend: format!("UPDATE attempts SET notification_id = {} WHERE {}", ledger.literal(id), of(to)),
            names: to,
        };
        vec![
            without("attempts", &of(ok.sent), ok.sent),
            without("attempts", &format!("{} AND n = 1", of(ok.resent)), ok.resent),
            // Its own attempt is missing, too: so work's number goes down with it.
            Damage {
                sql: format!(
                    "{}; {}",
                    moved(ok.retried, ok.nobody, 1).sql,
                    work(ledger, ok.retried, "attempt = 0, retry_count = 0", "").sql
                ),
                mend: format!(
                    "{}; {}",
                    moved(ok.retried, ok.nobody, 1).mend,
                    work(ledger, ok.retried, "", "attempt = 1, retry_count = 1").mend
                ),
                names: ok.nobody,
            },
            work(ledger, ok.sent, "attempt = 2", "attempt = 1"),
            work(ledger, ok.open, "attempt = 2", "attempt = 1"),
            work(ledger, ok.retried, "retry_count = 2", "retry_count = 1"),
            Damage {
                sql: format!("UPDATE attempts SET n = 0 WHERE {} AND n = 1", of(ok.resent)),
                mend: format!("UPDATE attempts SET n = 1 WHERE {} AND n = 0", of(ok.resent)),
                names: ok.resent,
            },
        ]
    })
    .await;
}

async fn finds_open_attempts_are_held(ledger: TestLedger) {
    finds(ledger, "open_attempts_are_held", |ledger, ok| {
        vec![
            work(ledger, ok.open, "epoch = 999", &format!("epoch = {}", ok.epoch)),
            work(ledger, ok.open, "epoch = NULL", &format!("epoch = {}", ok.epoch)),
            work(ledger, ok.reopened, "opened_at = NULL", "opened_at = 1"),
            work(ledger, ok.sent, "epoch = 1", "epoch = NULL"),
            work(ledger, ok.sent, "opened_at = 1", "opened_at = NULL"),
        ]
    })
    .await;
}

async fn finds_no_silent_duplicate(ledger: TestLedger) {
    finds(ledger, "no_silent_duplicate", |ledger, ok| {
        let at = |n| format!("WHERE notification_id = {} AND n = {n}", ledger.literal(ok.resent));
        let unflag = |n| Damage {
            sql: format!("UPDATE attempts SET flagged = 0 {}", at(n)),
            mend: format!("UPDATE attempts SET flagged = 1 {}", at(n)),
            names: ok.resent,
        };
        vec![unflag(1), unflag(2)]
    })
    .await;
}

async fn finds_answers_are_kept(ledger: TestLedger) {
    finds(ledger, "answers_are_kept", |ledger, ok| {
        let list = |ids: &[Uuid]| format!("UPDATE idempotency SET ids = {}", ledger.list_literal(ids));
        vec![
            Damage { sql: list(&[ok.keyed, ok.nobody]), mend: list(&[ok.keyed]), names: ok.nobody },
            without("notifications", &format!("id = {}", ledger.literal(ok.keyed)), ok.keyed),
        ]
    })
    .await;
}

async fn finds_counters_are_true(ledger: TestLedger) {
    finds(ledger, "counters_are_true", |ledger, ok| {
        let counter = |batch, status: i16, slot: &str| {
            format!("batch_id = {} AND status = {status} AND slot = {slot}", ledger.literal(batch))
        };
        let change = |filter: &str, names| Damage {
            sql: format!("UPDATE counters SET n = n + 1 WHERE {filter}"),
            mend: format!("UPDATE counters SET n = n - 1 WHERE {filter}"),
            names,
        };
        vec![
            change(&counter(ok.batch, 5, "2"), ok.batch),
            change(&counter(ok.batch, 0, "1"), ok.batch),
            change(&counter(Uuid::nil(), 10, "1"), Uuid::nil()),
            without("counters", &counter(ok.batch, 8, "2"), ok.batch),
            Damage {
                sql: format!("INSERT INTO counters VALUES ({}, 1, 0, 12, 1)", ledger.literal(ok.nobody)),
                mend: format!("DELETE FROM counters WHERE batch_id = {}", ledger.literal(ok.nobody)),
                names: ok.nobody,
            },
        ]
    })
    .await;
}

async fn finds_dead_letters_are_the_failed(ledger: TestLedger) {
    finds(ledger, "dead_letters_are_the_failed", |ledger, ok| {
        let of = |id| format!("id = {}", ledger.literal(id));
        let add = |id| Damage {
            sql: format!(
                "INSERT INTO failed (id, failed_at, account, cause) VALUES ({}, 1, 1, 'x')",
                ledger.literal(id)
            ),
            mend: format!("DELETE FROM failed WHERE {}", of(id)),
            names: id,
        };
        let resolve = |set: &str, id| Damage {
            sql: format!("UPDATE failed SET {set} WHERE {}", of(id)),
            mend: format!(
                "UPDATE failed SET resolved_at = NULL, resolution = NULL, replayed_as = NULL WHERE {}",
                of(id)
            ),
            names: id,
        };
        let nobody = ledger.literal(ok.nobody);
        vec![
            without("failed", &of(ok.failed), ok.failed),
            without("failed", &of(ok.ended), ok.ended),
            add(ok.sent),
            add(ok.pending),
            add(ok.nobody),
            resolve("resolved_at = 1", ok.failed),
            resolve("resolution = 1", ok.failed),
            resolve("resolved_at = 1, resolution = 1", ok.failed),
            resolve(&format!("resolved_at = 1, resolution = 2, replayed_as = {}", ledger.literal(ok.sent)), ok.failed),
            resolve(&format!("resolved_at = 1, resolution = 1, replayed_as = {nobody}"), ok.failed),
        ]
    })
    .await;
}

async fn finds_replayed_once(ledger: TestLedger) {
    finds(ledger, "replayed_once", |ledger, ok| {
        let replayed = |ids: &[Uuid], replay, names| {
            let ids: Vec<_> = ids.iter().map(|id| ledger.literal(*id)).collect();
            let (at, replay) = (format!("WHERE id IN ({})", ids.join(", ")), ledger.literal(replay));
            Damage {
                sql: format!("UPDATE failed SET resolved_at = 1, resolution = 1, replayed_as = {replay} {at}"),
                mend: format!("UPDATE failed SET resolved_at = NULL, resolution = NULL, replayed_as = NULL {at}"),
                names,
            }
        };
        vec![replayed(&[ok.failed], ok.resent, ok.failed), replayed(&[ok.failed, ok.ended], ok.sent, ok.sent)]
    })
    .await;
}

async fn finds_uncertain_are_listed(ledger: TestLedger) {
    finds(ledger, "uncertain_are_listed", |ledger, ok| {
        let of = |id| format!("id = {}", ledger.literal(id));
        let add = |id| Damage {
            sql: format!(
                "INSERT INTO uncertain (id, since, account, attempt, cause) VALUES ({}, 1, 1, 1, 'x')",
                ledger.literal(id)
            ),
            mend: format!("DELETE FROM uncertain WHERE {}", of(id)),
            names: id,
        };
        vec![
            without("uncertain", &of(ok.uncertain), ok.uncertain),
            without("uncertain", &of(ok.lost), ok.lost),
            add(ok.sent),
            add(ok.nobody),
        ]
    })
    .await;
}

async fn finds_waiting_will_be_found(ledger: TestLedger) {
    finds(ledger, "waiting_will_be_found", |ledger, ok| {
        let list = |id| ledger.list_literal(&[id]);
        let chunk = |set: &str, back: &str, id| Damage {
            sql: format!("UPDATE due SET {set} WHERE ids = {}", list(id)),
            mend: format!("UPDATE due SET {back} WHERE ids = {}", list(id)),
            names: id,
        };
        let later = ledger.now().as_microsecond() + 10_000_000;
        let mine = format!("handed_by = {}", ok.epoch);
        vec![
            without("due", &format!("ids = {}", list(ok.scheduled)), ok.scheduled),
            without("due", &format!("ids = {}", list(ok.retried)), ok.retried),
            without("due", &format!("ids = {}", list(ok.queued)), ok.queued),
            // In the hand of nobody who would ever give it back.
            chunk("handed_by = 999", &mine, ok.held),
            chunk("handed_by = 999", "handed_by = NULL", ok.pending),
            // Queued already: handing the chunk out would pass it over.
            chunk("handed_by = NULL", &mine, ok.queued),
            // The chunk comes too early and is gone when the time has come.
            work(
                ledger,
                ok.pending,
                &format!("due_at = {later}"),
                &format!("due_at = {}", ledger.now().as_microsecond()),
            ),
            // The chunk names somebody else.
            Damage {
                sql: format!("UPDATE due SET ids = {} WHERE ids = {}", list(ok.nobody), list(ok.scheduled)),
                mend: format!("UPDATE due SET ids = {} WHERE ids = {}", list(ok.scheduled), list(ok.nobody)),
                names: ok.scheduled,
            },
            Damage {
                sql: format!(
                    "UPDATE opens SET ids = {} WHERE ids = {}",
                    list(ok.reopened),
                    ledger.list_literal(&[ok.open, ok.reopened])
                ),
                mend: format!(
                    "UPDATE opens SET ids = {} WHERE ids = {}",
                    ledger.list_literal(&[ok.open, ok.reopened]),
                    list(ok.reopened)
                ),
                names: ok.open,
            },
        ]
    })
    .await;
}

async fn finds_the_sum(mut ledger: TestLedger) {
    let healthy = healthy(&mut ledger).await;
    let without = without("work", &format!("id = {}", ledger.literal(healthy.sent)), healthy.sent);
    ledger.raw(&without.sql).await;
    let report = ledger.store().verify().await.unwrap();
    let found = report.findings.iter().find(|finding| finding.invariant == "the_sum").expect("it does not add up");
    assert_eq!((found.count, &found.examples[..]), (1, &["accepted 15, found 14".to_owned()][..]));
    let names: BTreeSet<_> = report.findings.iter().map(|finding| finding.invariant).collect();
    assert!(names.contains("accepted_is_there"), "and it is said which one: {names:?}");
    ledger.raw(&without.mend).await;
    // A number that is no status is in no column of the sum.
    ledger.raw(&work(&ledger, healthy.sent, "state = 99", "").sql).await;
    let report = ledger.store().verify().await.unwrap();
    assert!(report.findings.iter().any(|finding| finding.invariant == "the_sum"), "{:#?}", report.findings);
}
