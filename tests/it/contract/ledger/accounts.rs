//! What all processes know of accounts.

use std::time::Duration;

use futures::future::join_all;
use vestnik::domain::{AccountId, Clock as _, Epoch, OutcomeClass, Probe, SystemClock};
use vestnik::store::{AccountNews, AccountState, DayDemand, KnownDown, KnownPause};

use crate::support::ledger::{ACCOUNT, Engine, TestLedger, promises};

promises!(
    a_pause_is_seen_by_all_and_ends,
    of_two_pauses_the_longer_holds,
    pauses_of_recipients_are_kept_apart_and_forgotten,
    no_pause_is_longer_than_a_day,
    an_account_is_down_from_the_first_refusal_until_it_works,
    one_process_probes_at_a_time,
    a_probe_that_nobody_finishes_is_had_again,
    only_the_last_probe_s_refusal_counts,
    whoever_starts_may_probe_at_once,
    what_was_spent_counts_for_a_day_and_a_quarter,
    together_processes_are_granted_no_more_than_the_day,
    what_is_held_is_kept_and_what_is_given_back_can_be_had,
    a_lost_process_s_reserve_counts_for_its_day,
    what_has_no_limit_is_counted_too,
    what_left_before_parts_were_counted_counts_by_the_send,
);

const SECOND: Duration = Duration::from_secs(1);
const QUARTER: Duration = Duration::from_secs(15 * 60);
const OTHER: AccountId = AccountId(2);

async fn known(ledger: &TestLedger) -> AccountState {
    of(ledger, ACCOUNT).await
}

async fn of(ledger: &TestLedger, account: AccountId) -> AccountState {
    ledger.store().account_states(ledger.epoch).await.unwrap().remove(&account).unwrap_or_default()
}

async fn tell(ledger: &TestLedger, news: AccountNews) {
    ledger.store().tell_of_accounts(vec![(ACCOUNT, news)]).await.unwrap();
}

fn pause(recipient: Option<i64>, seconds: u32, strikes: u32) -> KnownPause {
    KnownPause { recipient, left: SECOND * seconds, strikes }
}

async fn goes_down(ledger: &TestLedger) {
    tell(ledger, AccountNews::Down { reason: "auth".into(), code: "190".into(), wait: SECOND * 5 }).await;
}

async fn probe(ledger: &TestLedger) -> Option<Probe> {
    ledger.store().claim_probe(ACCOUNT, SECOND * 5).await.unwrap()
}

fn demand(spent: u64, limit: u64, held: u64, want: u64) -> DayDemand {
    DayDemand { account: ACCOUNT, spent, limit: Some(limit), held, want }
}

async fn spend(ledger: &TestLedger, process: i64, demand: DayDemand) -> u64 {
    ledger.store().spend_day(Epoch(process), vec![demand]).await.unwrap()[0]
}

async fn a_pause_is_seen_by_all_and_ends(mut ledger: TestLedger) {
    assert_eq!(ledger.store().account_states(ledger.epoch).await.unwrap().len(), 0);
    tell(&ledger, AccountNews::Paused(pause(None, 30, 2))).await;
    ledger.advance(SECOND * 10).await;
    ledger.reopen().await;
    assert_eq!(known(&ledger).await.pauses, [pause(None, 20, 2)]);
    assert_eq!(of(&ledger, OTHER).await, AccountState::default());
    ledger.advance(SECOND * 20).await;
    assert_eq!(known(&ledger).await.pauses, []);
}

async fn of_two_pauses_the_longer_holds(ledger: TestLedger) {
    for (seconds, strikes) in [(30, 1), (60, 2), (10, 1)] {
        tell(&ledger, AccountNews::Paused(pause(None, seconds, strikes))).await;
    }
    assert_eq!(known(&ledger).await.pauses, [pause(None, 60, 2)]);
}

async fn pauses_of_recipients_are_kept_apart_and_forgotten(ledger: TestLedger) {
    for (recipient, seconds) in [(i64::MIN, 30), (7, 60), (7, 5)] {
        tell(&ledger, AccountNews::Paused(pause(Some(recipient), seconds, 1))).await;
    }
    assert_eq!(known(&ledger).await.pauses, [pause(Some(i64::MIN), 30, 1), pause(Some(7), 60, 1)]);
    ledger.advance(SECOND * 45).await;
    assert_eq!(known(&ledger).await.pauses, [pause(Some(7), 15, 1)]);
    tell(&ledger, AccountNews::Paused(pause(Some(8), 5, 1))).await;
    assert_eq!(ledger.raw_count("account_pauses").await, 2, "what is over is not kept");
}

async fn no_pause_is_longer_than_a_day(ledger: TestLedger) {
    tell(&ledger, AccountNews::Paused(KnownPause { recipient: None, left: SECOND * 1_000_000, strikes: 1 })).await;
    assert_eq!(known(&ledger).await.pauses, [pause(None, 86_400, 1)]);
}

async fn an_account_is_down_from_the_first_refusal_until_it_works(ledger: TestLedger) {
    let since = ledger.now();
    goes_down(&ledger).await;
    ledger.advance(SECOND).await;
    tell(&ledger, AccountNews::Down { reason: "billing".into(), code: "1".into(), wait: SECOND * 60 }).await;
    let down = KnownDown { since, reason: "auth".into(), code: "190".into(), wait: SECOND * 5, probe_in: SECOND * 4 };
    assert_eq!(known(&ledger).await.down, Some(down));
    tell(&ledger, AccountNews::Works).await;
    assert_eq!(known(&ledger).await.down, None);
    // Again down is down anew.
    goes_down(&ledger).await;
    assert_eq!(known(&ledger).await.down.unwrap().since, ledger.now());
}

async fn one_process_probes_at_a_time(ledger: TestLedger) {
    assert_eq!(probe(&ledger).await, None, "it works");
    goes_down(&ledger).await;
    assert_eq!(probe(&ledger).await, None, "too soon");
    ledger.advance(SECOND * 5).await;
    let probes = join_all((0..16).map(|_| probe(&ledger))).await;
    assert_eq!(probes.iter().flatten().count(), 1, "{probes:?}");
    tell(&ledger, AccountNews::Works).await;
    ledger.advance(SECOND * 60).await;
    assert_eq!(probe(&ledger).await, None);
}

async fn a_probe_that_nobody_finishes_is_had_again(ledger: TestLedger) {
    goes_down(&ledger).await;
    ledger.advance(SECOND * 5).await;
    assert_eq!(probe(&ledger).await, Some(Probe(1)));
    ledger.advance(SECOND * 4).await;
    assert_eq!(probe(&ledger).await, None);
    ledger.advance(SECOND).await;
    assert_eq!(probe(&ledger).await, Some(Probe(2)));
}

async fn only_the_last_probe_s_refusal_counts(ledger: TestLedger) {
    let still_down = |probe, wait| AccountNews::StillDown { probe, reason: "config".into(), code: "404".into(), wait };
    let since = ledger.now();
    goes_down(&ledger).await;
    ledger.advance(SECOND * 5).await;
    let frozen = probe(&ledger).await.unwrap();
    ledger.advance(SECOND * 5).await;
    let last = probe(&ledger).await.unwrap();
    tell(&ledger, still_down(frozen, SECOND * 60)).await;
    assert_eq!(known(&ledger).await.down.unwrap().wait, SECOND * 5);
    tell(&ledger, still_down(last, SECOND * 10)).await;
    let down = known(&ledger).await.down.unwrap();
    assert_eq!((down.since, down.wait, down.probe_in), (since, SECOND * 10, SECOND * 10));
    assert_eq!((down.reason.as_str(), down.code.as_str()), ("config", "404"));
    tell(&ledger, AccountNews::Works).await;
    tell(&ledger, still_down(last, SECOND * 10)).await;
    assert_eq!(known(&ledger).await.down, None, "a refusal of before closes nothing");
}

async fn whoever_starts_may_probe_at_once(ledger: TestLedger) {
    ledger.store().hasten_probes().await.unwrap();
    assert_eq!(known(&ledger).await, AccountState::default());
    goes_down(&ledger).await;
    ledger.store().hasten_probes().await.unwrap();
    assert_eq!(known(&ledger).await.down.unwrap().probe_in, Duration::ZERO);
    assert!(probe(&ledger).await.is_some());
}

async fn what_was_spent_counts_for_a_day_and_a_quarter(ledger: TestLedger) {
    for spent in [3, 4, 5] {
        spend(&ledger, 1, demand(spent, 100, 0, 0)).await;
        ledger.advance(QUARTER).await;
    }
    let spent = known(&ledger).await.spent;
    assert_eq!(spent.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [3, 4, 5]);
    // By then everything of its quarter of an hour is a day ago.
    let first = spent[0].1;
    assert!(first > QUARTER * 93 && first <= QUARTER * 94, "{first:?}");
    assert_eq!(spend(&ledger, 1, demand(0, 100, 0, 100)).await, 88);
    ledger.advance(first - Duration::from_micros(1)).await;
    assert_eq!(spend(&ledger, 1, demand(0, 100, 0, 100)).await, 88);
    ledger.advance(Duration::from_micros(1)).await;
    assert_eq!(spend(&ledger, 1, demand(0, 100, 0, 100)).await, 91);
    assert_eq!(known(&ledger).await.spent.len(), 2);
    ledger.advance(QUARTER * 10).await;
    spend(&ledger, 1, demand(1, 100, 0, 0)).await;
    assert_eq!(ledger.raw_count("account_spent").await, 1, "what counts no more is not kept");
}

async fn together_processes_are_granted_no_more_than_the_day(ledger: TestLedger) {
    let grants = join_all((0..16).map(|process| spend(&ledger, process, demand(1, 100, 0, 10)))).await;
    let (granted, spent) = (grants.iter().sum::<u64>(), 16);
    assert!(granted + spent <= 100 + 10, "{grants:?}");
    assert_eq!(spend(&ledger, 99, demand(0, 100, 0, 10)).await, 100_u64.saturating_sub(granted + spent).min(10));
    let state = ledger.store().account_states(Epoch(0)).await.unwrap().remove(&ACCOUNT).unwrap();
    assert_eq!(state.reserved, granted - grants[0] + 100_u64.saturating_sub(granted + spent).min(10));
    assert_eq!(of(&ledger, OTHER).await, AccountState::default());
}

async fn what_is_held_is_kept_and_what_is_given_back_can_be_had(ledger: TestLedger) {
    assert_eq!(spend(&ledger, 1, demand(0, 100, 0, 80)).await, 80);
    assert_eq!(spend(&ledger, 2, demand(0, 100, 0, 80)).await, 20);
    // The limit was lowered: what was granted is, and no more.
    assert_eq!(spend(&ledger, 1, demand(10, 50, 70, 70)).await, 70);
    assert_eq!(spend(&ledger, 2, demand(0, 50, 20, 60)).await, 20);
    assert_eq!(spend(&ledger, 1, demand(0, 100, 0, 0)).await, 0);
    assert_eq!(spend(&ledger, 2, demand(0, 100, 20, 100)).await, 90);
}

async fn a_lost_process_s_reserve_counts_for_its_day(ledger: TestLedger) {
    assert_eq!(spend(&ledger, 11, demand(0, 100, 0, 30)).await, 30);
    ledger.advance(QUARTER * 97 - SECOND).await;
    assert_eq!(spend(&ledger, 12, demand(0, 100, 0, 100)).await, 70);
    let living = ledger.begin_epoch().await;
    spend(&ledger, living.0, demand(0, 300, 0, 7)).await;
    let state = ledger.store().account_states(Epoch(12)).await.unwrap().remove(&ACCOUNT).unwrap();
    assert_eq!((state.reserved, state.reserved_by_living), (37, 7), "only who lives may give back");
    spend(&ledger, living.0, demand(0, 300, 0, 0)).await;
    ledger.advance(SECOND).await;
    assert_eq!(spend(&ledger, 12, demand(1, 100, 70, 100)).await, 99);
    assert_eq!(ledger.raw_count("account_reserves WHERE reserve > 0").await, 1);
}

async fn what_has_no_limit_is_counted_too(ledger: TestLedger) {
    let unlimited = DayDemand { limit: None, ..demand(9, 0, 0, 0) };
    let limited = DayDemand { account: OTHER, ..demand(2, 5, 0, 4) };
    let granted = ledger.store().spend_day(Epoch(1), vec![limited, unlimited]).await.unwrap();
    assert_eq!(granted, [3, 0], "in the order asked");
    assert_eq!(known(&ledger).await.spent[0].0, 9);
    // It has a limit from now on.
    assert_eq!(spend(&ledger, 1, demand(0, 10, 0, 5)).await, 1);
}

async fn what_left_before_parts_were_counted_counts_by_the_send(mut ledger: TestLedger) {
    for table in ["account_states", "account_pauses", "account_spent", "account_reserves"] {
        ledger.raw(&format!("DROP TABLE {table}")).await;
    }
    // And what came after it.
    for (table, column) in [("due", "with_batch"), ("notifications", "moved_to"), ("workers", "channels")] {
        ledger.raw(&format!("ALTER TABLE {table} DROP COLUMN {column}")).await;
    }
    ledger.raw("DELETE FROM schema_migrations WHERE version >= 7").await;
    let now = match ledger.engine {
        Engine::Sqlite => SystemClock.now(),
        Engine::Postgres => ledger.now(),
    };
    let hour = Duration::from_secs(3600);
    for (hours_ago, class) in [
        (1, OutcomeClass::Accepted),
        (1, OutcomeClass::Lost),
        (1, OutcomeClass::Throttled),
        (20, OutcomeClass::Ambiguous),
        (30, OutcomeClass::Accepted),
    ] {
        let at = now - hour * hours_ago;
        let millis = u128::try_from(at.as_millisecond()).unwrap();
        let id = uuid::Uuid::from_u128((millis << 80) | u128::from(class.code().unsigned_abs()));
        ledger
            .raw(&format!(
                "INSERT INTO attempts (notification_id, opened_at, closed_at, epoch, n, account, class, flagged, cause)
                 VALUES ({}, {micros}, {micros}, 1, 1, {}, {}, 0, 'x')",
                ledger.literal(id),
                ACCOUNT.0,
                class.code(),
                micros = at.as_microsecond()
            ))
            .await;
    }
    ledger.reopen().await;
    let spent: u64 =
        ledger.raw_column("SELECT spent AS c FROM account_spent").await.iter().map(|n| n.parse::<u64>().unwrap()).sum();
    assert_eq!(spent, 3);
}
