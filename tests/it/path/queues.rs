//! What people who watch are told: what waits and where, how fast it goes, and who cannot send.

use serde_json::{Value, json};

use super::on_both_ledgers;
use super::server::{Client, with};
use super::world::World;
use crate::support::eventually::{LONG, eventually};

on_both_ledgers!(
    everything_that_waits_is_counted_where_it_is,
    what_is_tried_again_is_counted_while_it_waits,
    an_account_that_is_down_is_named_until_it_sends_again,
);

fn bulk(count: usize) -> Value {
    let recipients: Vec<_> = (0..count).map(|n| json!({ "recipient": format!("+7999{n:07}") })).collect();
    json!({ "channel": "whatsapp", "text": "Sale!", "recipients": recipients })
}

async fn accept(client: &Client, body: &Value) -> String {
    let answer = client.post("/v1/notifications/bulk", body).await;
    assert_eq!(answer.status, 202, "{}", answer.json());
    answer.json()["batchId"].as_str().unwrap().to_owned()
}

async fn finished(client: &Client, id: &str) {
    eventually(LONG, "the batch is over", async || {
        (client.get(&format!("/v1/batches/{id}")).await.ok()["inFlight"] == 0).then_some(())
    })
    .await;
}

async fn lane(client: &Client, name: &str) -> Value {
    let queues = client.get("/v1/queues").await.ok();
    queues["lanes"].as_array().unwrap().iter().find(|lane| lane["name"] == name).unwrap().clone()
}

async fn account(client: &Client) -> Value {
    let queues = client.get("/v1/queues").await.ok();
    let accounts = queues["accounts"].as_array().unwrap();
    accounts.iter().find(|account| account["channel"] == "whatsapp").unwrap().clone()
}

/// The figure of this name and labels.
async fn figure(client: &Client, name: &str) -> f64 {
    let figures = client.get("/metrics").await;
    let text = String::from_utf8(figures.body.to_vec()).unwrap();
    let value =
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in:\n{text}"));
    value.trim().parse().unwrap()
}

async fn everything_that_waits_is_counted_where_it_is(world: World) {
    let server = world.server(&[]).await;
    let client = server.client();
    let queues = client.get("/v1/queues").await.ok();
    assert_eq!(queues["queue"], json!({ "kind": "embedded", "condition": "up", "depthsFrom": "process" }));
    let nothing = json!({ "due": 0, "later": 0, "retrying": 0, "paused": 0 });
    for lane in queues["lanes"].as_array().unwrap() {
        assert_eq!(
            (&lane["waiting"], &lane["handedOver"], &lane["ready"]),
            (&nothing, &json!(0), &json!(0)),
            "{lane:#}"
        );
        assert_eq!(lane["consumers"], 1, "{lane:#}");
    }
    assert_eq!(account(&client).await["allowedPerSecond"], 10_000.0);

    let far = json!({ "scheduledAt": "2099-01-07T10:00:00Z", "priority": "low" });
    let scheduled = accept(&client, &with(bulk(700), far.clone())).await;
    let paused = accept(&client, &with(bulk(30), far)).await;
    client.post(&format!("/v1/batches/{paused}/pause"), &json!({})).await.ok();
    let waiting = json!({ "due": 0, "later": 700, "retrying": 0, "paused": 30 });
    assert_eq!(lane(&client, "whatsapp.send.low").await["waiting"], waiting);
    assert_eq!(lane(&client, "whatsapp.send").await["waiting"], nothing);

    let mut body = bulk(50);
    body["recipients"].as_array_mut().unwrap().push(json!({ "contactId": "nobody" }));
    let sent = accept(&client, &body).await;
    finished(&client, &sent).await;
    eventually(LONG, "it is told how much left", async || {
        (account(&client).await["sentPerSecond"].as_f64().unwrap() > 0.0).then_some(())
    })
    .await;
    assert_eq!(account(&client).await["deadLetters"], 1);

    let ready = client.get("/health/ready").await.ok();
    assert_eq!((&ready["backlog"], &ready["accountsDown"]), (&json!({ "due": 0, "later": 700 }), &json!([])));
    assert_eq!((&ready["queue"]["kind"], &ready["queue"]["condition"]), (&json!("embedded"), &json!("up")));
    let later = r#"vestnik_queue_waiting{channel="whatsapp",lane="low",state="later"}"#;
    assert_eq!(figure(&client, later).await, 700.0);
    assert_eq!(figure(&client, r#"vestnik_queue_waiting{channel="whatsapp",lane="low",state="paused"}"#).await, 30.0);
    assert_eq!(figure(&client, "vestnik_queue_oldest_due_seconds").await, 0.0);

    for batch in [&scheduled, &paused] {
        client.post(&format!("/v1/batches/{batch}/cancel"), &json!({})).await.ok();
        finished(&client, batch).await;
    }
    assert_eq!(lane(&client, "whatsapp.send.low").await["waiting"], nothing);
    assert_eq!(figure(&client, later).await, 0.0);
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn what_is_tried_again_is_counted_while_it_waits(world: World) {
    world.scenario(json!({ "whatsapp": { "errors": [{ "code": 131000, "share": 1.0 }] } }));
    let server = world.server(&[]).await;
    let client = server.client();
    let batch = accept(&client, &with(bulk(5), json!({ "maxRetries": 10 }))).await;
    eventually(LONG, "retries wait", async || {
        (lane(&client, "whatsapp.send").await["waiting"]["retrying"] == 5).then_some(())
    })
    .await;
    world.scenario(json!({}));
    finished(&client, &batch).await;
    assert_eq!(lane(&client, "whatsapp.send").await["waiting"]["retrying"], 0);
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn an_account_that_is_down_is_named_until_it_sends_again(world: World) {
    world.scenario(json!({ "whatsapp": { "errors": [{ "code": 190, "share": 1.0 }] } }));
    let server = world.server(&[]).await;
    let client = server.client();
    let batch = accept(&client, &bulk(20)).await;
    let down = eventually(LONG, "it is seen that the account is down", async || {
        let account = account(&client).await;
        account["down"].is_object().then_some(account)
    })
    .await;
    assert_eq!(down["down"]["code"], "190");
    assert!(down["down"]["since"].is_string() && down["down"]["reason"].is_string(), "{down:#}");
    let ready = client.get("/health/ready").await;
    assert_eq!(ready.status, 200, "accepting goes on");
    let named = &ready.json()["accountsDown"][0];
    assert_eq!((&named["account"], &named["code"]), (&json!("whatsapp.main"), &json!("190")));
    assert_eq!(figure(&client, r#"vestnik_account_down{account="whatsapp.main"}"#).await, 1.0);
    world.scenario(json!({}));
    finished(&client, &batch).await;
    assert_eq!(account(&client).await["down"], Value::Null);
    assert_eq!(client.get("/health/ready").await.ok()["accountsDown"], json!([]));
    assert_eq!(figure(&client, r#"vestnik_account_down{account="whatsapp.main"}"#).await, 0.0);
    world.assert_books(&server, &[]).await;
    server.stop().await;
}
