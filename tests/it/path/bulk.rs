//! Through the queue: batches, times to leave at, pauses, and what is killed in the middle.

use std::time::Duration;

use jiff::{Timestamp, TimestampRound, Unit};
use serde_json::{Value, json};
use tokio::time::Instant;
use vestnik::domain::{Clock as _, SystemClock};

use super::on_both_ledgers;
use super::server::{Client, with};
use super::world::{QUICK, World};
use crate::support::eventually::{LONG, eventually};

on_both_ledgers!(
    a_batch_is_accepted_and_sent,
    many_become_a_batch_and_the_address_given_is_kept,
    the_same_key_is_the_same_batch,
    a_paused_batch_stands_still_and_goes_on_where_it_stopped,
    a_cancelled_batch_ends_and_nothing_more_of_it_leaves,
    what_is_scheduled_waits_can_be_moved_and_cancelled,
    a_batch_is_moved_to_another_time,
    what_was_due_during_a_downtime_leaves_late,
    what_fails_for_now_is_tried_again_and_what_fails_for_good_is_a_dead_letter,
    an_account_that_is_down_holds_its_messages_and_resumes,
    killed_in_the_middle_of_a_batch,
);

/// So much later than now, in whole milliseconds: the ledger keeps no more than microseconds.
fn after(wait: Duration) -> Timestamp {
    (SystemClock.now() + wait).round(TimestampRound::new().smallest(Unit::Millisecond)).unwrap()
}

fn recipients(count: usize) -> Vec<Value> {
    (0..count).map(|n| json!({ "recipient": format!("+7999{n:07}") })).collect()
}

fn bulk(count: usize) -> Value {
    json!({ "channel": "whatsapp", "text": "Sale!", "recipients": recipients(count) })
}

async fn accept(client: &Client, body: &Value) -> Value {
    let answer = client.post("/v1/notifications/bulk", body).await;
    assert_eq!(answer.status, 202, "{}", answer.json());
    answer.json()
}

async fn batch(client: &Client, id: &Value) -> Value {
    client.get(&format!("/v1/batches/{}", id.as_str().unwrap())).await.ok()
}

async fn command(client: &Client, id: &Value, command: &str) -> Value {
    client.post(&format!("/v1/batches/{}/{command}", id.as_str().unwrap()), &json!({})).await.ok()
}

async fn finished(client: &Client, id: &Value) -> Value {
    eventually(LONG, "the batch is over", async || {
        let batch = batch(client, id).await;
        (batch["inFlight"] == 0).then_some(batch)
    })
    .await
}

async fn a_batch_is_accepted_and_sent(world: World) {
    let server = world.server(&[]).await;
    let mut body = bulk(1_200);
    let given = body["recipients"].as_array_mut().unwrap();
    given.push(given[7].clone());
    given.push(json!({ "recipient": "+7 (999) 000-00-08" }));
    given.push(json!({ "contactId": "nobody" }));
    let client = server.client();
    let accepted = accept(&client, &with(body, json!({ "data": { "a": 1 }, "priority": "low" }))).await;
    assert_eq!((&accepted["accepted"], &accepted["failed"]), (&json!(1_201), &json!(1)));
    assert_eq!(accepted["duplicates"], 2);
    let ids = accepted["messageIds"].as_array().unwrap();
    assert_eq!(ids.len(), 1_201);
    let batch = finished(&client, &accepted["batchId"]).await;
    assert_eq!(batch["settled"], json!({ "sent": 1_200, "failed": 1 }));
    assert_eq!((&batch["state"], &batch["accepted"]), (&json!("finished"), &json!(1_201)));
    assert_eq!(world.simulator.taken_count(), 1_200);
    let failed = client.find(&ids[1_200]).await;
    assert_eq!((&failed["status"], &failed["error"]["class"]), (&json!("failed"), &json!("recipient")));
    let listed = client.get("/v1/batches").await.ok();
    assert_eq!(listed["items"][0]["id"], accepted["batchId"]);
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn many_become_a_batch_and_the_address_given_is_kept(world: World) {
    let server = world.server(&[]).await;
    let client = server.client();
    let contact = json!({ "name": "Ann", "phone": "+79995550000" });
    assert_eq!(client.put("/v1/contacts/c1", &contact).await.status, 201);
    let given: Vec<_> =
        (0..11).map(|n| json!({ "phoneNumber": format!("+7999111000{n}"), "contactId": "c1" })).take(10).collect();
    let body = |recipients: Vec<Value>| json!({ "channel": "whatsapp", "text": "Hello", "recipients": recipients });
    let few = client.post("/v1/notifications/auto", &body(given.clone())).await;
    assert_eq!((few.status, &few.json()["mode"]), (200, &json!("sync")));
    let mut more = given;
    more.push(json!({ "contactId": "c1" }));
    let many = client.post("/v1/notifications/auto", &body(more)).await;
    assert_eq!((many.status, &many.json()["mode"]), (202, &json!("async")));
    let many = many.json();
    finished(&client, &many["batchId"]).await;
    let ids = many["messageIds"].as_array().unwrap();
    assert_eq!(client.find(&ids[3]).await["recipient"], "+79991110003");
    assert_eq!(client.find(&ids[10]).await["recipient"], "+79995550000");
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn the_same_key_is_the_same_batch(world: World) {
    let server = world.server(&[]).await;
    let client = server.client();
    let keyed = async |body: &Value| {
        client.try_post("/v1/notifications/bulk", &[("idempotency-key", "sale-1")], body).await.unwrap()
    };
    let first = keyed(&bulk(300)).await;
    let second = keyed(&bulk(300)).await;
    assert_eq!((first.status, second.status), (202, 202));
    assert_eq!(first.json(), second.json());
    keyed(&bulk(301)).await.problem(422);
    finished(&client, &first.json()["batchId"]).await;
    assert_eq!(world.simulator.taken_count(), 300);
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

/// Rates that let a batch last for a while.
const SLOWLY: &[(&str, &str)] =
    &[("VESTNIK__WHATSAPP__MAIN__LIMITS__PER_SECOND", "100"), ("VESTNIK__WHATSAPP__MAIN__LIMITS__BURST", "20")];

/// Until nothing new was taken for two seconds: what was on its way when something was stopped has left. Returns the
/// count.
async fn standing_still(world: &World) -> u64 {
    let (mut seen, mut since) = (world.simulator.taken_count(), Instant::now());
    eventually(LONG, "nothing leaves any more", async || {
        let now = world.simulator.taken_count();
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(2)).then_some(seen)
    })
    .await
}

async fn a_paused_batch_stands_still_and_goes_on_where_it_stopped(world: World) {
    let server = world.server(SLOWLY).await;
    let client = server.client();
    let accepted = accept(&client, &bulk(600)).await;
    let id = &accepted["batchId"];
    eventually(LONG, "it has begun", async || (world.simulator.taken_count() > 50).then_some(())).await;
    let paused_at = Instant::now();
    assert_eq!(command(&client, id, "pause").await["state"], "paused");
    let stopped = standing_still(&world).await;
    let took = paused_at.elapsed().as_secs();
    assert!(stopped < 600, "it went on to its end: {stopped}, after {took} s");
    // Others are not held up.
    let other = accept(
        &client,
        &json!({ "channel": "whatsapp", "text": "Hi", "recipients": [{ "recipient": "+79990001122" }] }),
    )
    .await;
    finished(&client, &other["batchId"]).await;
    assert_eq!(world.simulator.taken_count(), stopped + 1);
    assert_eq!(command(&client, id, "resume").await["state"], "running");
    assert_eq!(finished(&client, id).await["settled"], json!({ "sent": 600 }));
    assert_eq!(world.simulator.taken_count(), 601);
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn a_cancelled_batch_ends_and_nothing_more_of_it_leaves(world: World) {
    let server = world.server(SLOWLY).await;
    let client = server.client();
    let accepted = accept(&client, &bulk(1_500)).await;
    let id = &accepted["batchId"];
    eventually(LONG, "it has begun", async || (world.simulator.taken_count() > 50).then_some(())).await;
    command(&client, id, "cancel").await;
    let batch = finished(&client, id).await;
    assert_eq!(batch["state"], "cancelled");
    let sent = batch["settled"]["sent"].as_u64().unwrap();
    assert_eq!(sent + batch["settled"]["cancelled"].as_u64().unwrap(), 1_500);
    assert_eq!(world.simulator.taken_count(), sent);
    let resume = client.post(&format!("/v1/batches/{}/resume", id.as_str().unwrap()), &json!({})).await;
    resume.problem(409);
    // One that has begun is not moved.
    let move_to = json!({ "scheduledAt": after(Duration::from_secs(60)).to_string() });
    client.patch(&format!("/v1/batches/{}", id.as_str().unwrap()), &move_to).await.problem(409);
    // One that waits for its time ends at once.
    let at = after(Duration::from_secs(3600));
    let later = accept(&client, &with(bulk(700), json!({ "scheduled": at.to_string() }))).await;
    assert_eq!(self::batch(&client, &later["batchId"]).await["state"], "scheduled");
    command(&client, &later["batchId"], "cancel").await;
    assert_eq!(finished(&client, &later["batchId"]).await["settled"], json!({ "cancelled": 700 }));
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn what_is_scheduled_waits_can_be_moved_and_cancelled(world: World) {
    let server = world.server(&[]).await;
    let client = server.client();
    let far = after(Duration::from_secs(7200)).to_string();
    let one = |to: &str| {
        let body = json!({ "channel": "whatsapp", "text": "Hello", "recipient": to, "scheduledAt": far });
        let client = client.clone();
        async move {
            let answer = client.post("/v1/notifications", &body).await;
            assert_eq!(answer.status, 202);
            answer.json()
        }
    };
    let (moved, cancelled) = (one("+79990000001").await, one("+79990000002").await);
    assert_eq!(
        (&moved["status"], &moved["dueAt"], &moved["mode"]),
        (&json!("scheduled"), &json!(far), &json!("async"))
    );
    let soon = after(Duration::from_secs(1)).to_string();
    let path = |found: &Value, rest: &str| format!("/v1/notifications/{}{rest}", found["id"].as_str().unwrap());
    let answer = client.patch(&path(&moved, ""), &json!({ "scheduledAt": soon })).await.ok();
    assert_eq!(answer["dueAt"], soon);
    assert_eq!(client.post(&path(&cancelled, "/cancel"), &json!({})).await.ok()["status"], "cancelled");
    let sent = eventually(LONG, "it was sent", async || {
        let found = client.find(&moved["id"]).await;
        (found["status"] == "sent").then_some(found)
    })
    .await;
    let opened: Timestamp = sent["attempts"][0]["openedAt"].as_str().unwrap().parse().unwrap();
    assert!(opened >= soon.parse().unwrap(), "it left too early: {sent:#}");
    client.patch(&path(&moved, ""), &json!({ "scheduledAt": far })).await.problem(409);
    client.post(&path(&cancelled, "/cancel"), &json!({})).await.problem(409);
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn a_batch_is_moved_to_another_time(world: World) {
    let server = world.server(&[]).await;
    let client = server.client();
    let later = json!({ "scheduled": after(Duration::from_secs(3600)).to_string() });
    let accepted = accept(&client, &with(bulk(900), later)).await;
    let id = &accepted["batchId"];
    let soon = after(Duration::from_millis(2500));
    let path = format!("/v1/batches/{}", id.as_str().unwrap());
    let moved = client.patch(&path, &json!({ "scheduledAt": soon.to_string() })).await.ok();
    assert_eq!((&moved["state"], &moved["scheduledAt"]), (&json!("scheduled"), &json!(soon.to_string())));
    assert_eq!(world.simulator.taken_count(), 0);
    assert_eq!(finished(&client, id).await["settled"], json!({ "sent": 900 }));
    for found in client.ledger().await {
        let opened: Timestamp = found["attempts"][0]["openedAt"].as_str().unwrap().parse().unwrap();
        assert!(opened >= soon, "it left too early: {found:#}");
    }
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

/// What became due while nobody was there leaves late, and says so.
async fn what_was_due_during_a_downtime_leaves_late(world: World) {
    let server = world.server(QUICK).await;
    let at = after(Duration::from_millis(1500));
    let body =
        json!({ "channel": "whatsapp", "text": "Hello", "recipient": "+79990000001", "scheduledAt": at.to_string() });
    let accepted = server.client().post("/v1/notifications", &body).await.json();
    server.kill().await;
    eventually(LONG, "its time has passed", async || (SystemClock.now() > at + Duration::from_secs(1)).then_some(()))
        .await;
    let server = world.server(QUICK).await;
    let sent = eventually(LONG, "it was sent", async || {
        let found = server.client().find(&accepted["id"]).await;
        (found["status"] == "sent").then_some(found)
    })
    .await;
    assert!(sent["lateMs"].as_u64().unwrap() >= 1_000, "{sent:#}");
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn what_fails_for_now_is_tried_again_and_what_fails_for_good_is_a_dead_letter(world: World) {
    world.scenario(json!({ "seed": 7, "whatsapp": { "errors": [
        { "code": 131000, "share": 0.2 }, { "code": 131026, "share": 0.1 },
    ] } }));
    let server = world.server(&[]).await;
    let client = server.client();
    let accepted = accept(&client, &with(bulk(400), json!({ "maxRetries": 6 }))).await;
    let batch = finished(&client, &accepted["batchId"]).await;
    let count = |status: &str| batch["settled"][status].as_u64().unwrap_or(0);
    assert!(count("failed") > 10 && count("sent") > 300, "{batch:#}");
    assert_eq!(count("failed") + count("sent") + count("uncertain"), 400);
    let ledger = client.ledger().await;
    let tried_again = ledger.iter().filter(|found| found["attempts"].as_array().unwrap().len() > 1).count();
    assert!(tried_again > 20, "{tried_again} were tried again");
    let causes = client.get("/v1/dead-letters/causes").await.ok();
    let dead: u64 = causes["items"].as_array().unwrap().iter().map(|cause| cause["count"].as_u64().unwrap()).sum();
    assert_eq!(dead, count("failed"));
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn an_account_that_is_down_holds_its_messages_and_resumes(world: World) {
    world.scenario(json!({ "whatsapp": { "errors": [{ "code": 190, "share": 1.0 }] } }));
    let server = world.server(&[]).await;
    let client = server.client();
    let accepted = accept(&client, &bulk(700)).await;
    eventually(LONG, "it is seen that the account is down", async || {
        let page = client.get("/v1/notifications?status=pending&limit=500").await.ok();
        let held =
            page["items"].as_array().unwrap().iter().filter(|found| found["holdReason"] == "channel_down").count();
        (held > 0).then_some(())
    })
    .await;
    world.scenario(json!({}));
    assert_eq!(finished(&client, &accepted["batchId"]).await["settled"], json!({ "sent": 700 }));
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn killed_in_the_middle_of_a_batch(world: World) {
    world.scenario(json!({ "whatsapp": { "latencyMs": { "min": 2, "p50": 20, "p99": 100 } } }));
    let server = world.server(QUICK).await;
    let accepted = accept(&server.client(), &bulk(3_000)).await;
    let mut server = server;
    for round in 1..=3 {
        let wanted = round * 600;
        eventually(LONG, "it is under way", async || (world.simulator.taken_count() >= wanted).then_some(())).await;
        server.kill().await;
        server = world.server(QUICK).await;
    }
    let batch = finished(&server.client(), &accepted["batchId"]).await;
    let count = |status: &str| batch["settled"][status].as_u64().unwrap_or(0);
    assert_eq!(count("sent") + count("uncertain"), 3_000, "{batch:#}");
    assert!(count("uncertain") <= 3 * 256, "more are uncertain than were on their way: {batch:#}");
    world.assert_books(&server, &[]).await;
    server.stop().await;
}
