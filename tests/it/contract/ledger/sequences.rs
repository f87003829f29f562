//! Whatever is asked in whatever order: only legal moves, and the books balance after it.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vestnik::domain::{Channel, HoldReason, NotificationId, Policy, Status};
use vestnik::store::{Begin, Close, Counts, HandedChunk, NewNotification, Next, Opened};

use crate::support::ledger::{Engine, LEASE, TestLedger, claims};

#[derive(Clone, Copy, Debug)]
enum Op {
    Accept {
        kind: u8,
        count: usize,
        policy: Policy,
        channel: Channel,
    },
    Take,
    /// The newest hand-over, all or half of it, or an old one again.
    Open {
        all: bool,
        old: bool,
    },
    /// Closes up to `count` of what is open, or what was closed before.
    Record {
        next: u8,
        count: usize,
        stale: bool,
    },
    Advance(u64),
    Crash,
    CleanEnd,
    Recover,
}

fn op() -> impl Strategy<Value = Op> {
    let policy = prop_oneof![Just(Policy::AtMostOnce), Just(Policy::AtLeastOnce)];
    let channel = prop_oneof![Just(Channel::WhatsApp), Just(Channel::Telegram)];
    prop_oneof![
        3 => (0..6_u8, 1..4_usize, policy, channel)
            .prop_map(|(kind, count, policy, channel)| Op::Accept { kind, count, policy, channel }),
        4 => Just(Op::Take),
        4 => (any::<bool>(), proptest::bool::weighted(0.2)).prop_map(|(all, old)| Op::Open { all, old }),
        5 => (0..7_u8, 1..4_usize, proptest::bool::weighted(0.2))
            .prop_map(|(next, count, stale)| Op::Record { next, count, stale }),
        2 => (0..10_u64).prop_map(Op::Advance),
        1 => Just(Op::Crash),
        1 => Just(Op::CleanEnd),
        1 => Just(Op::Recover),
    ]
}

/// What a careful process knows beside the ledger.
#[derive(Default)]
struct World {
    accepted: Vec<NewNotification>,
    in_hand: Vec<HandedChunk>,
    old: Vec<HandedChunk>,
    open: Vec<(NotificationId, i16, i16)>,
    closed: Vec<Close>,
}

async fn run(ledger: &mut TestLedger, ops: &[Op]) {
    let mut world = World::default();
    for op in ops {
        step(ledger, &mut world, *op).await;
    }
    ledger.assert_balances().await;
    // Nothing is stuck: after the end of this process all that waits is handed out in its time.
    crash(ledger, &mut world).await;
    ledger.recover().await;
    ledger.assert_balances().await;
    ledger.advance(LEASE / 2 + Duration::from_secs(600)).await;
    ledger.epoch = ledger.begin_epoch().await;
    ledger.recover().await;
    let mut waiting = Vec::new();
    for new in &world.accepted {
        if ledger.status(new.id).await.in_flight() {
            waiting.push(new.id);
        }
    }
    let mut taken = crate::support::ledger::ids_of(&ledger.take().await);
    taken.sort();
    waiting.sort();
    assert_eq!(taken, waiting);
}

async fn crash(ledger: &mut TestLedger, world: &mut World) {
    ledger.crash().await;
    world.old.append(&mut world.in_hand);
    world.open.clear();
}

async fn step(ledger: &mut TestLedger, world: &mut World, op: Op) {
    match op {
        Op::Accept { kind, count, policy, channel } => {
            let begin = match kind {
                0 => Begin::Open,
                1 => Begin::Held,
                2 => Begin::Due { at: ledger.now() + Duration::from_secs(5), scheduled: true },
                3 => Begin::OnHold { until: ledger.now() + Duration::from_secs(3), hold: HoldReason::ChannelDown },
                4 => Begin::Ended {
                    status: if count > 1 { Status::Failed } else { Status::Suppressed },
                    cause: "template",
                    error: vestnik::domain::ProviderError::default(),
                },
                _ => ledger.due_now(),
            };
            let (batch, _) = ledger.batch(0);
            let new = |_| NewNotification {
                batch: (count > 2).then_some(batch),
                policy,
                channel,
                ..ledger.notification(begin.clone())
            };
            let new: Vec<_> = (0..count).map(new).collect();
            ledger.accept(new.clone()).await;
            if kind == 0 {
                world.open.extend(new.iter().map(|new| (new.id, 1, 0)));
            }
            world.accepted.extend(new);
        }
        Op::Take => {
            let taken = ledger.take().await;
            world.in_hand.extend(taken);
        }
        Op::Open { all, old } => {
            let chunks: Vec<_> = if old {
                world.old.last().cloned().into_iter().collect()
            } else {
                world.in_hand.last().cloned().into_iter().collect()
            };
            let mut open = ledger.open_of(&chunks);
            if !all {
                open.claims.truncate(open.claims.len() / 2);
            }
            if !old && all && !chunks.is_empty() {
                world.old.extend(world.in_hand.pop());
            }
            let asked = claims(&chunks).len();
            let opened: Vec<Opened> = ledger.store().open(open).await.unwrap();
            assert!(opened.len() <= asked);
            world.open.extend(opened.iter().map(|opened| (opened.id, opened.attempt, opened.resends)));
        }
        Op::Record { next, count, stale } => record(ledger, world, next, count, stale).await,
        Op::Advance(seconds) => {
            ledger.advance(Duration::from_secs(seconds)).await;
            if ledger.store().renew(ledger.epoch).await.is_err() {
                crash(ledger, world).await;
            }
        }
        Op::Crash => crash(ledger, world).await,
        Op::CleanEnd => {
            ledger.store().end_epoch(ledger.epoch).await.unwrap();
            ledger.reopen().await;
            ledger.epoch = ledger.begin_epoch().await;
            world.old.append(&mut world.in_hand);
            world.open.clear();
        }
        Op::Recover => {
            ledger.recover().await;
        }
    }
}

async fn record(ledger: &TestLedger, world: &mut World, next: u8, count: usize, stale: bool) {
    if stale {
        let again: Vec<_> = world.closed.iter().rev().take(count).cloned().collect();
        let expected = vec![false; again.len()];
        assert_eq!(ledger.record(again).await, expected);
        return;
    }
    let mut closes = Vec::new();
    for _ in 0..count.min(world.open.len()) {
        let (id, attempt, resends) = world.open.remove(0);
        let new = world.accepted.iter().find(|new| new.id == id).expect("it was accepted");
        let next = match next {
            0 => Next::Failed,
            1 => Next::Reopen { opened_at: ledger.now() },
            2 => ledger.again(Duration::from_secs(2), HoldReason::Retry, Counts::Retry),
            3 => ledger.again(Duration::from_secs(1), HoldReason::RateLimit, Counts::Nothing),
            4 => vestnik::store::after_unknown(new.policy, resends, new.channel, ledger.now(), Duration::from_secs(3)),
            _ => Next::Sent,
        };
        if let Next::Reopen { .. } = next {
            world.open.push((id, attempt + 1, resends));
        }
        let is_resend = matches!(next, Next::Again { counts: Counts::Resend, .. });
        closes.push(Close { flagged: is_resend || resends > 0, ..ledger.close_of(new, attempt, next) });
    }
    let expected = vec![true; closes.len()];
    assert_eq!(ledger.record(closes.clone()).await, expected);
    world.closed.extend(closes);
}

/// Every state a row begins in and every change of it, written down by the database itself.
async fn watch(ledger: &TestLedger) {
    let table = "CREATE TABLE moves (was INTEGER, became INTEGER);";
    let triggers = match ledger.engine {
        Engine::Sqlite => {
            "CREATE TRIGGER began AFTER INSERT ON work BEGIN INSERT INTO moves VALUES (NULL, NEW.state); END;
             CREATE TRIGGER moved AFTER UPDATE ON work WHEN NEW.state <> OLD.state
                 BEGIN INSERT INTO moves VALUES (OLD.state, NEW.state); END;
             CREATE TRIGGER vanished AFTER DELETE ON work BEGIN INSERT INTO moves VALUES (OLD.state, 99); END;"
        }
        Engine::Postgres => {
            "CREATE FUNCTION began() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO moves VALUES (NULL, NEW.state); RETURN NULL; END $$;
             CREATE FUNCTION moved() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO moves VALUES (OLD.state, NEW.state); RETURN NULL; END $$;
             CREATE FUNCTION vanished() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO moves VALUES (OLD.state, 99); RETURN NULL; END $$;
             CREATE TRIGGER began AFTER INSERT ON work FOR EACH ROW EXECUTE FUNCTION began();
             CREATE TRIGGER moved AFTER UPDATE ON work FOR EACH ROW WHEN (NEW.state <> OLD.state)
                 EXECUTE FUNCTION moved();
             CREATE TRIGGER vanished AFTER DELETE ON work FOR EACH ROW EXECUTE FUNCTION vanished();"
        }
    };
    ledger.raw(&format!("{table} {triggers}")).await;
}

async fn assert_legal(ledger: &TestLedger) {
    let moves = ledger.raw_column("SELECT DISTINCT coalesce(CAST(was AS TEXT), '') || '>' || became AS c FROM moves");
    let status = |text: &str| Status::from_code(text.parse().unwrap()).expect("a status");
    for line in moves.await {
        let (was, became) = line.split_once('>').unwrap();
        let became = status(became);
        let is_legal = if was.is_empty() { became.may_begin() } else { status(was).may_become(became) };
        assert!(is_legal, "{was} became {became}");
    }
}

/// `PROPTEST_CASES` makes it look longer.
fn any_sequence_is_legal(make: impl AsyncFn() -> Option<TestLedger>, cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = Config { cases, max_shrink_iters: 60, failure_persistence: None, ..Config::default() };
    let sequences = proptest::collection::vec(op(), 1..50);
    TestRunner::new(config)
        .run(&sequences, |ops| {
            runtime.block_on(async {
                let Some(mut ledger) = make().await else { return };
                watch(&ledger).await;
                run(&mut ledger, &ops).await;
                assert_legal(&ledger).await;
            });
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_sequence_on_sqlite_is_legal() {
    any_sequence_is_legal(async || Some(TestLedger::sqlite().await), 24);
}

#[test]
fn any_sequence_on_postgres_is_legal() {
    any_sequence_is_legal(async || TestLedger::postgres().await, 4);
}

/// Of a chunk that a lost process had in hand one was opened, lost and to be sent again: it may come with its old chunk,
/// whose time was earlier than its own.
const OPENED_FROM_THE_HAND_OF_A_LOST_PROCESS: [Op; 8] = [
    Op::Accept { kind: 2, count: 2, policy: Policy::AtLeastOnce, channel: Channel::Telegram },
    Op::Advance(5),
    Op::Take,
    Op::Crash,
    Op::Open { all: false, old: true },
    Op::Crash,
    Op::Recover,
    Op::Take,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_with_an_earlier_chunk_balances_on_sqlite() {
    run(&mut TestLedger::sqlite().await, &OPENED_FROM_THE_HAND_OF_A_LOST_PROCESS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_with_an_earlier_chunk_balances_on_postgres() {
    let Some(mut ledger) = TestLedger::postgres().await else { return };
    run(&mut ledger, &OPENED_FROM_THE_HAND_OF_A_LOST_PROCESS).await;
}
