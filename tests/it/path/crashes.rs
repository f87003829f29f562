//! The heart of the promises: killed at any moment, nothing accepted is lost and nothing is doubled unseen.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::on_both_ledgers;
use super::server::{Client, Server, telegram, tell, whatsapp, with};
use super::world::{QUICK, World};
use crate::support::eventually::{LONG, eventually};

on_both_ledgers!(killed_in_a_burst_again_and_again, killed_while_it_settles_what_was_left);

/// Where chance starts from: `VESTNIK_TEST_SEED`, or any number. Shown with a test that fails.
#[expect(clippy::disallowed_methods, reason = "a seed to repeat a run with comes from the environment")]
pub(super) fn seed() -> u64 {
    let given = std::env::var("VESTNIK_TEST_SEED").ok();
    let seed = given.map_or_else(|| getrandom::u64().unwrap(), |seed| seed.parse().unwrap());
    tell(&format!("VESTNIK_TEST_SEED={seed}"));
    seed
}

/// The `n`-th number below `limit` of a seed (SplitMix64).
pub(super) fn throw(seed: u64, n: u64, limit: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % limit
}

/// Direct sends to all recipients of a round, `at_once` at the same time, on both channels and with both policies.
pub(super) struct Burst {
    running: JoinSet<Vec<Value>>,
}

impl Burst {
    pub(super) fn start(clients: &[Client], round: u64, count: u64, at_once: u64) -> Burst {
        let mut running = JoinSet::new();
        for lane in 0..at_once {
            let mine: Vec<_> = (0..count).filter(|n| n % at_once == lane).map(|n| body(round, n)).collect();
            let client = clients[usize::try_from(lane).unwrap() % clients.len()].clone();
            running.spawn(async move {
                let mut answers = Vec::new();
                for body in mine {
                    // Gone, away, or without its lease: then no promise was made.
                    match client.try_post("/v1/notifications", &[], &body).await {
                        Ok(answer) if matches!(answer.status, 200 | 202) => answers.push(answer.json()),
                        Ok(_) | Err(_) => {}
                    }
                }
                answers
            });
        }
        Burst { running }
    }

    /// What callers were told.
    pub(super) async fn answers(self) -> Vec<Value> {
        self.running.join_all().await.into_iter().flatten().collect()
    }
}

fn body(round: u64, n: u64) -> Value {
    let policy = if n % 4 < 2 { "at_most_once" } else { "at_least_once" };
    let to = if n.is_multiple_of(2) {
        whatsapp(&format!("+7999{round:03}{n:04}"))
    } else {
        telegram(&format!("{round}{n:05}"))
    };
    with(to, json!({ "policy": policy, "externalId": format!("{round}-{n}") }))
}

/// Answers take long enough for many sends to be on their way at any moment.
pub(super) fn slow_providers(world: &World) {
    let slow = json!({ "latencyMs": { "min": 5, "p50": 120, "p99": 600 } });
    world.scenario(json!({ "whatsapp": slow.clone(), "telegram": slow }));
}

/// Waits until the providers have taken a number of messages that the seed says, and a little longer.
pub(super) async fn moment(world: &World, seed: u64, round: u64, count: u64) {
    let wanted = world.simulator.taken_count() + 1 + throw(seed, 2 * round, count * 3 / 4);
    let later = Duration::from_micros(throw(seed, 2 * round + 1, 30_000));
    eventually(LONG, "the providers have enough", async || (world.simulator.taken_count() >= wanted).then_some(()))
        .await;
    pass(later).await;
}

/// Lets a while pass that chance chose: nothing can be asked whether it is over.
pub(super) async fn pass(time: Duration) {
    let then = Instant::now() + time;
    eventually(LONG, "the moment has come", async || (Instant::now() >= then).then_some(())).await;
}

async fn kill_at_random(world: &World, server: Server, seed: u64, round: u64, count: u64) {
    moment(world, seed, round, count).await;
    server.kill().await;
}

/// Every interrupted send is uncertain, or was sent once more with both attempts flagged; no other is touched.
pub(super) fn assert_interrupted_are_right(ledger: &[Value]) -> usize {
    let mut interrupted = 0;
    for found in ledger {
        let attempts = found["attempts"].as_array().unwrap();
        let lost = attempts.iter().filter(|attempt| attempt["outcome"] == "lost").count();
        let flagged = attempts.iter().filter(|attempt| attempt["flagged"] == true).count();
        if lost == 0 {
            assert_eq!((&found["status"], attempts.len(), flagged), (&json!("sent"), 1, 0), "{found:#}");
            continue;
        }
        interrupted += 1;
        match found["policy"].as_str().unwrap() {
            "at_most_once" => {
                assert_eq!((&found["status"], attempts.len(), flagged), (&json!("uncertain"), 1, 0), "{found:#}");
            }
            _ => {
                assert_eq!((attempts.len(), flagged), (2, 2), "sent once more, and both are shown: {found:#}");
                // The second one, too, may have been interrupted, or have found no answer in time.
                let is_unknown = lost == 2 || attempts[1]["outcome"] == "ambiguous";
                let status = if is_unknown { "uncertain" } else { "sent" };
                assert_eq!(found["status"], status, "{found:#}");
            }
        }
    }
    interrupted
}

async fn killed_in_a_burst_again_and_again(world: World) {
    const ROUNDS: u64 = 3;
    const COUNT: u64 = 200;
    let seed = seed();
    slow_providers(&world);
    let mut answers = Vec::new();
    for round in 0..ROUNDS {
        let server = world.server(QUICK).await;
        let burst = Burst::start(&[server.client()], round, COUNT, 40);
        kill_at_random(&world, server, seed, round, COUNT).await;
        answers.extend(burst.answers().await);
    }
    let server = world.server(QUICK).await;
    server.settled().await;
    let interrupted = assert_interrupted_are_right(&server.ledger().await);
    assert!(interrupted > 0, "no send was interrupted: the test has shown nothing");
    // It goes on as if nothing had been.
    let after = Burst::start(&[server.client()], ROUNDS, 20, 10).answers().await;
    assert_eq!(after.len(), 20);
    answers.extend(after);
    world.assert_books(&server, &answers).await;
    server.stop().await;
}

async fn killed_while_it_settles_what_was_left(world: World) {
    let seed = seed();
    slow_providers(&world);
    let server = world.server(QUICK).await;
    let burst = Burst::start(&[server.client()], 0, 200, 100);
    kill_at_random(&world, server, seed, 0, 100).await;
    let mut answers = burst.answers().await;
    // Each life begins to settle, and to send again, and is killed in the middle of it.
    for round in 1..=3 {
        let before = world.simulator.taken_count();
        let server = world.server(QUICK).await;
        let burst = Burst::start(&[server.client()], round, 40, 40);
        let wanted = before + 1 + throw(seed, 100 + round, 40);
        eventually(LONG, "it has begun", async || (world.simulator.taken_count() >= wanted).then_some(())).await;
        server.kill().await;
        answers.extend(burst.answers().await);
    }
    let server = world.server(QUICK).await;
    server.settled().await;
    assert!(assert_interrupted_are_right(&server.ledger().await) > 0);
    world.assert_books(&server, &answers).await;
}
