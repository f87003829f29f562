//! Campaigns while the server is killed again and again and the provider fails as providers do: counted from what the
//! provider took, nothing is lost and nothing is doubled unseen. `make chaos` is the long form.

use serde_json::{Value, json};

use super::books::disagreements;
use super::crashes::{kill_at_random, seed};
use super::on_both_ledgers;
use super::server::Client;
use super::world::{QUICK, World};
use crate::support::eventually::{LONG, eventually};

on_both_ledgers!(campaigns_killed_again_and_again, a_batch_that_was_tampered_with_is_seen);

/// Sends of one account that are in the works at once, by default: what a kill can leave uncertain.
const IN_FLIGHT: usize = 256;
/// Of each campaign.
const RECIPIENTS: u64 = 400;

/// How often the server is killed: `VESTNIK_TEST_KILLS`, or so often that every run of the tests has time for it.
#[expect(clippy::disallowed_methods, reason = "how long a run is comes from the environment")]
fn kills() -> u64 {
    std::env::var("VESTNIK_TEST_KILLS").map_or(2, |kills| kills.parse().unwrap())
}

/// A campaign of its own for every round. The batch, and what its caller was told of each message.
async fn campaign(client: &Client, round: u64) -> (String, Vec<Value>) {
    let to: Vec<Value> = (0..RECIPIENTS).map(|n| json!({ "recipient": format!("+7999{round:03}{n:04}") })).collect();
    let body = json!({ "channel": "whatsapp", "text": "Sale!", "recipients": to });
    let answer = client.post("/v1/notifications/bulk", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.json());
    let answer = answer.json();
    let told = answer["messageIds"].as_array().unwrap().iter().map(|id| json!({ "id": id, "status": "pending" }));
    (answer["batchId"].as_str().unwrap().to_owned(), told.collect())
}

async fn finished(client: &Client, batch: &str) -> Value {
    eventually(LONG, "the batch is over", async || {
        let found = client.get(&format!("/v1/batches/{batch}")).await.ok();
        (found["inFlight"] == 0).then_some(found)
    })
    .await
}

async fn campaigns_killed_again_and_again(world: World) {
    let (seed, kills) = (seed(), kills());
    world.scenario(json!({ "seed": seed % 1000, "whatsapp": {
        "latencyMs": { "min": 2, "p50": 20, "p99": 200 },
        "errors": [{ "code": 131000, "share": 0.05 }, { "code": 131026, "share": 0.02 }],
        "faults": [{ "kind": "bad_gateway", "share": 0.005, "taken": true }],
    } }));
    let (mut batches, mut answers) = (Vec::new(), Vec::new());
    let mut server = world.server(QUICK).await;
    for round in 0..kills {
        let (batch, told) = campaign(&server.client(), round).await;
        batches.push(batch);
        answers.extend(told);
        kill_at_random(&world, server, seed, round, RECIPIENTS).await;
        server = world.server(QUICK).await;
    }
    for batch in &batches {
        let found = finished(&server.client(), batch).await;
        let settled: u64 = found["settled"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!(settled, RECIPIENTS, "{found:#}");
    }
    let ledger = server.ledger().await;
    let attempts = ledger.iter().flat_map(|found| found["attempts"].as_array().unwrap());
    let lost = attempts.filter(|attempt| attempt["outcome"] == "lost").count();
    let most = usize::try_from(kills).unwrap() * IN_FLIGHT;
    assert!(lost <= most, "{lost} sends were interrupted, and no more than {most} can have been");
    world.assert_books(&server, &answers).await;
    server.stop().await;
}

/// The checker itself: what a broken server would leave behind is found.
async fn a_batch_that_was_tampered_with_is_seen(world: World) {
    let server = world.server(&[]).await;
    let (batch, told) = campaign(&server.client(), 0).await;
    finished(&server.client(), &batch).await;
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
