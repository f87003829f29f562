//! What one process learns of an account, all of them know: a throttle, an outage, what the day has left.

use serde_json::{Value, json};

use super::on_both_ledgers;
use super::server::{Client, Server, whatsapp, with};
use super::world::{QUICK, World};
use crate::support::eventually::{LONG, eventually};

on_both_ledgers!(
    an_account_that_was_down_is_tried_at_once_after_a_restart,
    a_pause_outlives_its_process,
    a_provider_that_takes_and_never_answers_is_down,
);

const WHATSAPP: &str = "+79991234567";

async fn account(client: &Client, channel: &str) -> Value {
    let queues = client.get("/v1/queues").await.ok();
    let accounts = queues["accounts"].as_array().unwrap();
    accounts.iter().find(|account| account["channel"] == channel).unwrap().clone()
}

async fn paused_for(client: &Client, channel: &str, reason: &str) {
    eventually(LONG, "it is known that the account rests", async || {
        (account(client, channel).await["pausedFor"] == reason).then_some(())
    })
    .await;
}

async fn accept(client: &Client, body: &Value) -> String {
    let answer = client.post("/v1/notifications/bulk", body).await;
    assert_eq!(answer.status, 202, "{}", answer.json());
    answer.json()["batchId"].as_str().unwrap().to_owned()
}

async fn finished(client: &Client, batch: &str) -> Value {
    eventually(2 * LONG, "the batch is over", async || {
        let batch = client.get(&format!("/v1/batches/{batch}")).await.ok();
        (batch["inFlight"] == 0).then(|| batch["settled"].clone())
    })
    .await
}

fn bulk(channel: &str, text: &str, count: usize) -> Value {
    let recipients: Vec<_> = (0..count).map(|n| json!({ "recipient": format!("+7999{n:07}") })).collect();
    json!({ "channel": channel, "text": text, "recipients": recipients })
}

/// Answers requests and sends nothing of the queue.
async fn api_only(world: &World) -> Server {
    Server::start_with(world, QUICK, Some("127.0.0.1:0"), &["--roles", "api"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttle_seen_by_one_process_holds_the_others() {
    let Some(world) = World::postgres().await else { return };
    let (one, other, api) = (world.server(QUICK).await, world.server(QUICK).await, api_only(&world).await);
    let before = other.send(&whatsapp(WHATSAPP)).await.ok();
    assert_eq!(before["status"], "sent");
    world.scenario(json!({ "whatsapp": { "next": [{ "error": 80007 }] } }));
    let throttled = one.send(&whatsapp(WHATSAPP)).await.ok();
    assert_eq!(throttled["error"]["class"], "throttled", "{throttled:#}");
    let requests = world.simulator.figures(vestnik::domain::Channel::WhatsApp).requests;
    let mut answers = vec![before, throttled];
    for process in [&other, &api] {
        paused_for(process, "whatsapp", "throttled").await;
        let held = process.send(&with(whatsapp(WHATSAPP), json!({ "deadlineMs": 500 }))).await.ok();
        assert_eq!(held["error"]["code"], "local_limit", "{held:#}");
        assert!(held["retryAfter"].as_f64().unwrap() > 1.0, "{held:#}");
        answers.push(held);
    }
    let batch = accept(&other, &bulk("whatsapp", "Sale!", 5)).await;
    eventually(LONG, "what is queued waits in the ledger", async || {
        let batch = other.get(&format!("/v1/batches/{batch}")).await.ok();
        (batch["inFlight"] == 5).then_some(())
    })
    .await;
    let asked = world.simulator.figures(vestnik::domain::Channel::WhatsApp).requests;
    assert_eq!(asked, requests, "nobody asked the provider again");
    one.post(&format!("/v1/batches/{batch}/cancel"), &json!({})).await.ok();
    finished(&one, &batch).await;
    world.assert_books(&one, &answers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_without_workers_knows_which_account_is_down() {
    let Some(world) = World::postgres().await else { return };
    world.scenario(json!({ "whatsapp": { "errors": [{ "code": 190, "share": 1.0 }] } }));
    let (worker, api) = (world.server(QUICK).await, api_only(&world).await);
    let batch = accept(&api, &bulk("whatsapp", "Sale!", 20)).await;
    let down = eventually(LONG, "the outage is known where nothing is sent from", async || {
        let account = account(&api, "whatsapp").await;
        account["down"].is_object().then(|| account["down"].clone())
    })
    .await;
    assert_eq!((&down["reason"], &down["code"]), (&json!("auth"), &json!("190")));
    let ready = api.get("/health/ready").await.ok();
    assert_eq!(
        (&ready["accountsDown"][0]["account"], &ready["accountsDown"][0]["code"]),
        (&json!("whatsapp.main"), &json!("190"))
    );
    let figures = String::from_utf8(api.get("/metrics").await.body.to_vec()).unwrap();
    assert!(figures.contains("vestnik_account_down{account=\"whatsapp.main\"} 1"), "{figures}");

    // One that somebody waits for is told at once, unless it is the probe.
    let refused = eventually(LONG, "a direct send is refused at once", async || {
        let answer = api.send(&whatsapp(WHATSAPP)).await.ok();
        (answer["error"]["class"] == "channel_down").then_some(answer)
    })
    .await;
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["retryable"]),
        (&json!("190"), &json!(true)),
        "{refused:#}"
    );
    assert!(refused["retryAfter"].as_f64().unwrap() > 0.0, "{refused:#}");
    assert_eq!(refused["attempts"], json!([]));

    world.scenario(json!({}));
    assert_eq!(finished(&api, &batch).await, json!({ "sent": 20 }));
    eventually(LONG, "its return is known, too", async || {
        (account(&api, "whatsapp").await["down"].is_null() && account(&worker, "whatsapp").await["down"].is_null())
            .then_some(())
    })
    .await;
    let sent = api.send(&whatsapp(WHATSAPP)).await.ok();
    assert_eq!(sent["status"], "sent", "{sent:#}");
    world.assert_books(&api, &[refused, sent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_s_limit_holds_over_processes_and_restarts_in_parts() {
    const LIMIT: usize = 20;
    /// Two parts.
    const TEXT: &str =
        "Ваш заказ готов и ждёт вас в пункте выдачи на Невском проспекте, дом 1, каждый день с десяти до восьми.";
    let Some(world) = World::postgres().await else { return };
    let settings = [QUICK, &[("VESTNIK__SMS__MAIN__LIMITS__PER_DAY", "20")]].concat();
    let (one, doomed) = (world.server(&settings).await, world.server(&settings).await);
    let batch = accept(&one, &bulk("sms", TEXT, 3 * LIMIT)).await;
    eventually(LONG, "the day is used up", async || (world.simulator.taken_count() >= LIMIT as u64 / 2).then_some(()))
        .await;
    for process in [&one, &doomed] {
        paused_for(process, "sms", "day_limit").await;
    }
    doomed.kill().await;
    one.stop().await;
    let next = world.server(&settings).await;
    paused_for(&next, "sms", "day_limit").await;
    let body = json!({ "channel": "sms", "recipient": WHATSAPP, "text": "One part", "deadlineMs": 500 });
    let held = next.send(&body).await.ok();
    assert_eq!(held["error"]["code"], "local_limit", "{held:#}");
    assert_eq!(world.simulator.taken_count(), LIMIT as u64 / 2, "the day has twenty parts, and all are used");
    next.post(&format!("/v1/batches/{batch}/cancel"), &json!({})).await.ok();
    assert_eq!(finished(&next, &batch).await["sent"], LIMIT / 2);
    world.assert_books(&next, &[held]).await;
}

async fn an_account_that_was_down_is_tried_at_once_after_a_restart(world: World) {
    world.scenario(json!({ "whatsapp": { "errors": [{ "code": 190, "share": 1.0 }] } }));
    let server = world.server(&[]).await;
    let down = server.send(&whatsapp(WHATSAPP)).await.ok();
    assert_eq!(down["error"]["class"], "auth", "{down:#}");
    server.stop().await;
    world.scenario(json!({}));
    let server = world.server(&[]).await;
    assert_eq!(account(&server, "whatsapp").await["down"]["code"], "190", "nobody has tried it yet");
    let sent = server.send(&whatsapp(WHATSAPP)).await.ok();
    assert_eq!(sent["status"], "sent", "{sent:#}");
    assert_eq!(account(&server, "whatsapp").await["down"], Value::Null);
    world.assert_books(&server, &[down, sent]).await;
}

async fn a_pause_outlives_its_process(world: World) {
    let server = world.server(&[]).await;
    world.scenario(json!({ "whatsapp": { "next": [{ "error": 80007 }] } }));
    let throttled = server.send(&whatsapp(WHATSAPP)).await.ok();
    assert_eq!(throttled["error"]["class"], "throttled", "{throttled:#}");
    paused_for(&server, "whatsapp", "throttled").await;
    server.stop().await;
    let server = world.server(&[]).await;
    assert_eq!(account(&server, "whatsapp").await["pausedFor"], "throttled");
    world.assert_books(&server, &[throttled]).await;
}

/// Each of its sends may have happened: more are not tried.
async fn a_provider_that_takes_and_never_answers_is_down(world: World) {
    world.scenario(json!({ "whatsapp": { "faults": [{ "kind": "hang", "share": 1.0 }] } }));
    let impatient = [
        ("VESTNIK__WHATSAPP__MAIN__TIMEOUT_MS", "500"),
        ("VESTNIK__WHATSAPP__MAIN__CONNECT_TIMEOUT_MS", "400"),
        ("VESTNIK__DELIVERY__CONCURRENCY", "4"),
    ];
    let server = world.server(&impatient).await;
    let batch = accept(&server, &bulk("whatsapp", "Sale!", 60)).await;
    eventually(LONG, "the account is down", async || {
        let ready = server.get("/health/ready").await.json();
        (ready["accountsDown"][0]["account"] == "whatsapp.main").then_some(())
    })
    .await;
    world.scenario(json!({}));
    let settled = finished(&server, &batch).await;
    let count = |status: &str| settled[status].as_u64().unwrap_or(0);
    assert_eq!(count("sent") + count("uncertain"), 60, "{settled}");
    // Ten in a row, those beside the tenth, and a probe.
    assert!(count("uncertain") <= 20, "{settled}");
    world.assert_books(&server, &[]).await;
}
