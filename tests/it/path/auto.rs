//! `POST /v1/notifications/auto`: several at once, each with its own end.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::on_both_ledgers;
use super::server::Client;
use super::world::World;

on_both_ledgers!(
    each_recipient_has_its_own_end_in_order,
    recipients_are_sent_to_in_parallel,
    more_than_the_threshold_go_through_the_queue,
    what_exceeds_the_budget_waits_its_turn,
    what_is_wrong_for_all_is_refused_as_a_whole,
);

fn to(recipients: &[&str]) -> Value {
    let recipients: Vec<_> = recipients.iter().map(|recipient| json!({ "recipient": recipient })).collect();
    json!({ "channel": "whatsapp", "text": "Your order is ready", "recipients": recipients })
}

fn phones(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("+7999000{n:04}")).collect()
}

async fn auto(client: &Client, body: &Value) -> Vec<Value> {
    let mut answer = client.post("/v1/notifications/auto", body).await.ok();
    assert_eq!(answer["mode"], "sync");
    let Value::Array(results) = answer["results"].take() else { panic!("results are a list") };
    results
}

fn statuses(results: &[Value]) -> Vec<&str> {
    results.iter().map(|result| result["status"].as_str().unwrap()).collect()
}

async fn each_recipient_has_its_own_end_in_order(world: World) {
    let rules = json!({ "+79990000001": { "error": 131026 }, "+79990000003": { "fault": "rubbish_200" } });
    world.scenario(json!({ "whatsapp": { "recipients": rules } }));
    let server = world.server(&[]).await;
    let given = ["+79990000000", "12", "+79990000001", "+79990000003", "+7 999 000-00-02"];
    let results = auto(&server, &to(&given)).await;
    assert_eq!(statuses(&results), ["sent", "failed", "failed", "uncertain", "sent"]);
    let shown = ["+79990000000", "12", "+79990000001", "+79990000003", "+79990000002"];
    for (result, recipient) in results.iter().zip(shown) {
        assert_eq!(result["recipient"], recipient, "in order, each with its address");
        assert_eq!(&server.find(&result["id"]).await, result);
    }
    assert_eq!(results[1]["error"]["class"], "recipient");
    assert_eq!(results[1]["error"]["code"], "address");
    assert_eq!(results[2]["error"]["code"], "131026");
    assert_eq!(world.simulator.taken_count(), 3);
    world.assert_books(&server, &results).await;
}

async fn recipients_are_sent_to_in_parallel(world: World) {
    const LATENCY_MS: u64 = 2000;
    world.scenario(json!({ "whatsapp": { "latencyMs": LATENCY_MS } }));
    let server = world.server(&[]).await;
    let phones = phones(10);
    let phones: Vec<_> = phones.iter().map(String::as_str).collect();
    let results = auto(&server, &to(&phones)).await;
    assert_eq!(statuses(&results), ["sent"; 10]);
    // The last was taken before the first was answered: all were on their way at the same time.
    let times: Vec<_> = world.simulator.taken().iter().map(|taken| taken.at).collect();
    let between = times.iter().max().unwrap().duration_since(*times.iter().min().unwrap());
    assert!(between.as_millis() < i128::from(LATENCY_MS), "{between:?}");
    world.assert_books(&server, &results).await;
}

async fn more_than_the_threshold_go_through_the_queue(world: World) {
    let server = world.server(&[("VESTNIK__DELIVERY__AUTO_THRESHOLD", "3")]).await;
    let phones = phones(4);
    let phones: Vec<_> = phones.iter().map(String::as_str).collect();
    let problem = server.post("/v1/notifications/auto", &to(&[])).await.problem(422);
    assert_eq!(problem["errors"][0]["pointer"], "/recipients");
    let results = auto(&server, &to(&phones[..3])).await;
    assert_eq!(statuses(&results), ["sent"; 3]);
    let many = server.post("/v1/notifications/auto", &to(&phones)).await;
    assert_eq!((many.status, &many.json()["mode"]), (202, &serde_json::json!("async")));
    server.settled().await;
    assert_eq!(world.simulator.taken_count(), 7);
    world.assert_books(&server, &results).await;
}

async fn what_exceeds_the_budget_waits_its_turn(world: World) {
    let server = world
        .server(&[
            ("VESTNIK__WHATSAPP__MAIN__LIMITS__PER_SECOND", "5"),
            ("VESTNIK__WHATSAPP__MAIN__LIMITS__BURST", "3"),
        ])
        .await;
    let phones = phones(8);
    let phones: Vec<_> = phones.iter().map(String::as_str).collect();
    let begun = Instant::now();
    let results = auto(&server, &to(&phones)).await;
    assert_eq!(statuses(&results), ["sent"; 8]);
    // Five more than the burst, at five a second.
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    for result in &results {
        assert_eq!(&server.find(&result["id"]).await, result);
        assert_eq!(result["attempts"].as_array().unwrap().len(), 1, "waiting costs no attempt: {result:#}");
    }
    world.assert_books(&server, &results).await;
}

async fn what_is_wrong_for_all_is_refused_as_a_whole(world: World) {
    let server = world.server(&[]).await;
    let mut body = to(&["+79990000000"]);
    body["account"] = json!("other");
    assert_eq!(server.post("/v1/notifications/auto", &body).await.problem(422)["errors"][0]["pointer"], "/account");
    let report = world.assert_books(&server, &[]).await;
    assert_eq!(report["accepted"], 0);
}
