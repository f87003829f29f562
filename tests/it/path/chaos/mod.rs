//! Campaigns while the service is killed again and again and the provider fails as providers do: counted from what the
//! provider took, nothing is lost and nothing is doubled unseen. `make chaos` is the long form.
//!
//! Here the whole service is one process. `everything` kills each part of one that is spread out; `broken` shows that
//! what counts would see a worker that loses or doubles.

mod broken;
mod everything;

use std::collections::HashSet;

use serde_json::{Value, json};

use super::books::disagreements;
use super::crashes::{moment, seed};
use super::on_both_ledgers;
use super::server::{Answer, Client, tell};
use super::world::{QUICK, World};
use crate::support::eventually::{LONG, eventually};

on_both_ledgers!(campaigns_killed_again_and_again, a_batch_that_was_tampered_with_is_seen);

/// Sends of one account that are in the works at once, by default: what a kill can leave uncertain.
const IN_FLIGHT: usize = 256;
/// Of each campaign.
const RECIPIENTS: u64 = 400;

/// How often something is killed: `VESTNIK_TEST_KILLS`, or `few`, for which every run of the tests has time.
#[expect(clippy::disallowed_methods, reason = "how long a run is comes from the environment")]
fn kills(few: u64) -> u64 {
    std::env::var("VESTNIK_TEST_KILLS").map_or(few, |kills| kills.parse().unwrap())
}

/// The providers fail as providers do, some of the time.
fn faulty_providers(world: &World, seed: u64, latency: &Value) {
    world.scenario(json!({ "seed": seed % 1000, "whatsapp": {
        "latencyMs": latency,
        "errors": [{ "code": 131000, "share": 0.05 }, { "code": 131026, "share": 0.02 }],
        "faults": [{ "kind": "bad_gateway", "share": 0.005, "taken": true }],
    } }));
}

/// A campaign of its own for every round.
fn campaign_body(round: u64, recipients: u64) -> Value {
    let to: Vec<Value> = (0..recipients).map(|n| json!({ "recipient": format!("+7999{round:03}{n:04}") })).collect();
    json!({ "channel": "whatsapp", "text": "Sale!", "recipients": to })
}

/// The batch, and what its caller was told of each message.
fn accepted(answer: &Answer) -> (String, Vec<Value>) {
    let answer = answer.json();
    let told = answer["messageIds"].as_array().unwrap().iter().map(|id| json!({ "id": id, "status": "pending" }));
    (answer["batchId"].as_str().unwrap().to_owned(), told.collect())
}

async fn campaign(client: &Client, round: u64) -> (String, Vec<Value>) {
    let answer = client.post("/v1/notifications/bulk", &campaign_body(round, RECIPIENTS)).await;
    assert_eq!(answer.status, 202, "{}", answer.json());
    accepted(&answer)
}

/// Waits until `left` of a batch are on their way, and no more.
async fn left(client: &Client, batch: &str, left: u64) -> Value {
    eventually(2 * LONG, &format!("{left} of the batch are left"), async || {
        let answer = client.get(&format!("/v1/batches/{batch}")).await;
        // Something may just have come back.
        (answer.status == 200).then(|| answer.json()).filter(|found| found["inFlight"] == left)
    })
    .await
}

/// Waits for the end of all campaigns, none of which has lost a message. Returns the ledger.
async fn all_over(client: &Client, batches: &[String], recipients: u64) -> Vec<Value> {
    for batch in batches {
        let found = left(client, batch, 0).await;
        let settled: u64 = found["settled"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!(settled, recipients, "{found:#}");
    }
    client.ledger().await
}

/// Sends that were cut off by the end of their process.
fn cut_off(ledger: &[Value]) -> usize {
    let attempts = ledger.iter().flat_map(|found| found["attempts"].as_array().unwrap());
    attempts.filter(|attempt| attempt["outcome"] == "lost").count()
}

async fn campaigns_killed_again_and_again(world: World) {
    let (seed, kills) = (seed(), kills(2));
    faulty_providers(&world, seed, &json!({ "min": 2, "p50": 20, "p99": 200 }));
    let (mut batches, mut answers) = (Vec::new(), Vec::new());
    let mut server = world.server(QUICK).await;
    for round in 0..kills {
        let (batch, told) = campaign(&server.client(), round).await;
        batches.push(batch);
        answers.extend(told);
        moment(&world, seed, round, RECIPIENTS).await;
        server.kill().await;
        server = world.server(QUICK).await;
    }
    let ledger = all_over(&server, &batches, RECIPIENTS).await;
    let report = world.assert_books(&server, &answers).await;
    assert_at_most_once(&world, &ledger, kills, IN_FLIGHT);
    tell_figures(&world, &format!("killed the server {kills} times"), &report, &ledger);
    server.stop().await;
}

/// No more is uncertain than a kill can have cut off, and the provider has nothing twice.
fn assert_at_most_once(world: &World, ledger: &[Value], kills: u64, in_flight: usize) {
    let (lost, most) = (cut_off(ledger), usize::try_from(kills).unwrap() * in_flight);
    assert!(lost <= most, "{lost} sends were interrupted, and no more than {most} can have been");
    let taken = world.simulator.taken();
    let distinct: HashSet<_> = taken.iter().map(|message| &message.our_id).collect();
    assert_eq!(taken.len(), distinct.len(), "at most once, and the provider has some of them twice");
}

/// How it went, when all that is counted was found right.
fn tell_figures(world: &World, killed: &str, report: &Value, ledger: &[Value]) {
    let of = |status: &str| report[status].as_i64().unwrap();
    tell(&format!(
        "{killed}; accepted {}, sent {}, failed {}, uncertain {} ({} cut off), taken {}, lost 0, doubled 0",
        of("accepted"),
        of("sent"),
        of("failed"),
        of("uncertain"),
        cut_off(ledger),
        world.simulator.taken_count(),
    ));
}

/// The checker itself: what a broken server would leave behind is found.
async fn a_batch_that_was_tampered_with_is_seen(world: World) {
    let server = world.server(&[]).await;
    let (batch, told) = campaign(&server.client(), 0).await;
    left(&server, &batch, 0).await;
    let (ledger, taken) = (server.ledger().await, world.simulator.taken());
    assert_eq!(disagreements(&ledger, &taken, &told), Vec::<String>::new());
    let found = |ledger: &[Value], taken: &[_]| disagreements(ledger, taken, &told).join("\n");

    assert!(found(&ledger, &taken[1..]).contains("LOST"), "called sent, and never taken");
    assert!(found(&ledger[1..], &taken).contains("LOST"), "accepted, and not in the ledger");
    let twice = [&taken[..], &taken[..1]].concat();
    assert!(found(&ledger, &twice).contains("SILENT DUPLICATE"), "taken twice, and recorded once");
    let mut unrecorded = ledger.clone();
    unrecorded[0]["attempts"] = json!([]);
    assert!(found(&unrecorded, &taken).contains("does not follow from its attempts"), "sent without an attempt");
    let mut unknown = ledger.clone();
    unknown[0]["status"] = json!("failed");
    assert!(found(&unknown, &taken).contains("does not follow from its attempts"), "called failed, and taken");
    server.stop().await;
}
