//! Through RabbitMQ: the same promises, with workers, broker and machines that die.

use std::time::Duration;

use futures::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::server::{Client, Server, whatsapp, with};
use super::worker::Worker;
use super::world::{QUICK, World};
use crate::support::eventually::{LONG, eventually};
use crate::support::postgres::connect;
use crate::support::rabbitmq::{self, Vhost};

/// Settings with a broker's address.
fn on<'a>(url: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut settings = QUICK.to_vec();
    settings.push(("RABBITMQ_URL", url));
    settings.extend(more);
    settings
}

/// Only accepts: what is due waits for others.
async fn without_work(world: &World, settings: &[(&str, &str)], roles: &str) -> Server {
    Server::start_with(world, settings, Some("127.0.0.1:0"), &["--roles", roles]).await
}

fn bulk(count: usize) -> Value {
    let recipients: Vec<_> = (0..count).map(|n| json!({ "recipient": format!("+7999{n:07}") })).collect();
    json!({ "channel": "whatsapp", "text": "Sale!", "recipients": recipients })
}

async fn accept(client: &Client, body: &Value) -> Value {
    let answer = client.post("/v1/notifications/bulk", body).await;
    assert_eq!(answer.status, 202, "{}", answer.json());
    answer.json()["batchId"].clone()
}

async fn batch(client: &Client, id: &Value) -> Value {
    client.get(&format!("/v1/batches/{}", id.as_str().unwrap())).await.ok()
}

async fn finished(client: &Client, id: &Value) -> Value {
    eventually(2 * LONG, "the batch is over", async || {
        let batch = batch(client, id).await;
        (batch["inFlight"] == 0).then_some(batch)
    })
    .await
}

fn count(batch: &Value, status: &str) -> u64 {
    batch["settled"][status].as_u64().unwrap_or(0)
}

async fn taken(world: &World, at_least: u64) {
    eventually(LONG, "it is under way", async || (world.simulator.taken_count() >= at_least).then_some(())).await;
}

async fn through_the_broker(world: World) {
    let Some(broker) = rabbitmq::shared().await else { return };
    let vhost = Vhost::on(broker).await;
    let url = vhost.url();
    world.scenario(
        json!({ "whatsapp": { "errors": [{ "code": 131026, "share": 0.05 }, { "code": 131000, "share": 0.05 }] } }),
    );
    let server = world.server(&on(&url, &[])).await;
    let client = server.client();
    let id = accept(&client, &with(bulk(1_500), json!({ "maxRetries": 8 }))).await;
    let batch = finished(&client, &id).await;
    assert!(count(&batch, "failed") > 20 && count(&batch, "sent") > 1_300, "{batch:#}");
    // Whoever listens is told of what failed.
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut copies =
        channel.basic_consume("notification.dlq".into(), "test".into(), options, FieldTable::default()).await.unwrap();
    for _ in 0..count(&batch, "failed") {
        let copy = tokio::time::timeout(LONG, copies.next()).await.expect("a copy for each").unwrap().unwrap();
        let copy: Value = serde_json::from_slice(&copy.data).unwrap();
        assert_eq!((&copy["channel"], &copy["maxRetries"]), (&json!("whatsapp"), &json!(8)));
        assert!(copy["error"].as_str().unwrap().contains("131026") && copy["failedAt"].is_string(), "{copy}");
    }
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_goes_through_the_broker_from_the_embedded_ledger() {
    through_the_broker(World::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_goes_through_the_broker_from_postgres() {
    let Some(world) = World::postgres().await else { return };
    through_the_broker(world).await;
}

/// What a direct send did not get through goes on over the broker, wherever its worker is.
async fn left_to_the_broker(world: &World, client: &Client) {
    world.scenario(json!({ "whatsapp": { "recipients": { "+79990000001": { "error": 131016, "times": 1 } } } }));
    let body = with(whatsapp("+79990000001"), json!({ "onFailure": "queue", "priority": "high" }));
    let answer = client.send(&body).await;
    assert_eq!((answer.status, &answer.json()["holdReason"]), (202, &json!("retry")), "{:#}", answer.json());
    let sent = eventually(LONG, "it was sent", async || {
        let found = client.find(&answer.json()["id"]).await;
        (found["status"] == "sent").then_some(found)
    })
    .await;
    assert_eq!(sent["attempts"].as_array().unwrap().len(), 2, "{sent:#}");
    assert_eq!(world.simulator.taken_count(), 1);
    world.assert_books(client, &[answer.json()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_send_is_left_to_the_broker_from_the_embedded_ledger() {
    let world = World::sqlite().await;
    let Some(broker) = rabbitmq::shared().await else { return };
    let vhost = Vhost::on(broker).await;
    let server = world.server(&on(&vhost.url(), &[])).await;
    left_to_the_broker(&world, &server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_send_is_left_to_another_process() {
    let Some(world) = World::postgres().await else { return };
    let Some(broker) = rabbitmq::shared().await else { return };
    let vhost = Vhost::on(broker).await;
    let url = vhost.url();
    let settings = on(&url, &[]);
    let server = without_work(&world, &settings, "api,relay").await;
    let worker = Worker::start(&world, &settings).await;
    left_to_the_broker(&world, &server).await;
    worker.stop().await;
    server.stop().await;
}

/// One process accepts, others work, and are killed and stopped under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_share_the_work_come_and_go() {
    let Some(world) = World::postgres().await else { return };
    let Some(broker) = rabbitmq::shared().await else { return };
    let vhost = Vhost::on(broker).await;
    let url = vhost.url();
    world.scenario(json!({ "whatsapp": { "latencyMs": { "min": 5, "p50": 40, "p99": 200 } } }));
    let settings = on(&url, &[]);
    let server = without_work(&world, &settings, "api,relay").await;
    let client = server.client();
    let (first, second) = tokio::join!(Worker::start(&world, &settings), Worker::start(&world, &settings));
    let id = accept(&client, &bulk(4_000)).await;
    taken(&world, 500).await;
    first.kill().await;
    taken(&world, 1_500).await;
    second.stop().await;
    let third = Worker::start(&world, &settings).await;
    let batch = finished(&client, &id).await;
    assert_eq!(count(&batch, "sent") + count(&batch, "uncertain"), 4_000, "{batch:#}");
    assert!(count(&batch, "uncertain") <= 256, "more are uncertain than one worker had on its way: {batch:#}");
    third.stop().await;
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

/// A worker may be given an earlier hand-over together with the last: that one is the one that counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_hand_over_takes_nothing_from_the_last() {
    const COUNT: usize = 60;
    const LANE: &str = "whatsapp.send.low";
    let Some(world) = World::postgres().await else { return };
    let Some(broker) = rabbitmq::shared().await else { return };
    let vhost = Vhost::on(broker).await;
    let url = vhost.url();
    let settings = on(&url, &[]);
    let server = without_work(&world, &settings, "api,relay").await;
    let client = server.client();
    let id = accept(&client, &with(bulk(COUNT), json!({ "priority": "low" }))).await;
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let mut seen = 0;
    while seen < COUNT {
        let (channel, message) = eventually(LONG, "it is handed over", async || {
            // While there is no such queue, each question ends its channel.
            let channel = connection.create_channel().await.unwrap();
            let got = channel.basic_get(LANE.into(), BasicGetOptions { no_ack: true }).await.ok()??;
            Some((channel, got))
        })
        .await;
        let last = String::from_utf8(message.data.clone()).unwrap();
        let (earlier, of_last) = (last.replace("\"generation\":1", "\"generation\":0"), last.matches("\"id\"").count());
        assert_ne!(earlier, last);
        seen += of_last;
        for body in [earlier, last] {
            let (options, properties) = (BasicPublishOptions::default(), message.properties.clone());
            drop(channel.basic_publish("".into(), LANE.into(), options, body.as_bytes(), properties).await.unwrap());
        }
    }
    let worker = Worker::start(&world, &settings).await;
    let batch = finished(&client, &id).await;
    assert_eq!(count(&batch, "sent"), COUNT as u64, "{batch:#}");
    let ledger = connect(&world.database.as_ref().unwrap().url()).await.unwrap();
    let handed = ledger.query_one("SELECT max(generation) FROM work", &[]).await.unwrap();
    assert_eq!(handed.get::<_, i32>(0), 1, "some had to be handed over again");
    worker.stop().await;
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

/// Frozen for longer than its lease and the deadline of a send: others go on, and what was open is uncertain; nothing
/// that others have taken up leaves from it when it wakes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_worker_sends_nothing_twice() {
    let Some(world) = World::postgres().await else { return };
    let Some(broker) = rabbitmq::shared().await else { return };
    let vhost = Vhost::on(broker).await;
    let url = vhost.url();
    world.scenario(json!({ "whatsapp": { "latencyMs": { "min": 5, "p50": 50, "p99": 200 } } }));
    let settings = on(&url, &[]);
    let server = without_work(&world, &settings, "api,relay").await;
    let client = server.client();
    let frozen = Worker::start(&world, &settings).await;
    let id = accept(&client, &bulk(3_000)).await;
    taken(&world, 300).await;
    frozen.signal(Signal::STOP);
    let other = Worker::start(&world, &settings).await;
    let batch = finished(&client, &id).await;
    assert_eq!(count(&batch, "sent") + count(&batch, "uncertain"), 3_000, "{batch:#}");
    let before = world.simulator.taken_count();
    frozen.signal(Signal::CONT);
    // It works again: what comes now may be its own.
    let more = accept(&client, &with(bulk(200), json!({ "text": "More" }))).await;
    finished(&client, &more).await;
    let late = world.simulator.taken_count() - before;
    // One that was frozen between its last look at the lease and its first byte still leaves: it is uncertain by then.
    assert!((200..=200 + count(&batch, "uncertain")).contains(&late), "{late} left, and 200 were asked for: {batch:#}");
    frozen.stop().await;
    other.stop().await;
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

/// Killed, away while more is accepted, and emptied: nothing is lost, and it goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_dies_and_forgets_loses_nothing() {
    let Some(world) = World::postgres().await else { return };
    let Some(broker) = rabbitmq::alone().await else { return };
    let vhost = Vhost::on(broker).await;
    let url = vhost.url();
    let slowly =
        [("VESTNIK__WHATSAPP__MAIN__LIMITS__PER_SECOND", "500"), ("VESTNIK__WHATSAPP__MAIN__LIMITS__BURST", "100")];
    let server = world.server(&on(&url, &slowly)).await;
    let client = server.client();
    let first = accept(&client, &bulk(3_000)).await;
    taken(&world, 300).await;
    vhost.broker.kill();
    let asked = Instant::now();
    let second = accept(&client, &with(bulk(500), json!({ "text": "Meanwhile" }))).await;
    assert!(asked.elapsed() < Duration::from_secs(10), "a broker that is away slows accepting");
    vhost.broker.run().await;
    taken(&world, 800).await;
    vhost.broker.delete_queues(&vhost.name).await;
    for id in [first, second] {
        let batch = finished(&client, &id).await;
        assert_eq!(batch["settled"]["sent"], batch["accepted"], "{batch:#}");
    }
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

/// Published by a `NestJS` client, and by nobody's client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_publish_is_sent_answered_or_kept() {
    const SENT: &[u8] = include_bytes!("../../../src/queue/foreign/fixtures/nest_send.json");
    let world = World::sqlite().await;
    let Some(broker) = rabbitmq::shared().await else { return };
    let vhost = Vhost::on(broker).await;
    let url = vhost.url();
    let server = world.server(&on(&url, &[])).await;
    let client = server.client();
    let template = json!({ "text": "Order {{ contact.name }}" });
    client.put("/v1/templates/t1", &template).await.ok();
    assert_eq!(client.put("/v1/contacts/c1", &json!({ "name": "Ann" })).await.status, 201);
    eventually(LONG, "the queues are there", async || {
        (client.get("/health/ready").await.json()["queue"]["condition"] == "up").then_some(())
    })
    .await;
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let replies = "amq.rabbitmq.reply-to";
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut answers = channel.basic_consume(replies.into(), "".into(), options, FieldTable::default()).await.unwrap();
    let publish = async |body: &[u8], properties: BasicProperties| {
        let options = BasicPublishOptions::default();
        let published = channel.basic_publish("".into(), "notifications".into(), options, body, properties);
        drop(published.await.unwrap());
    };
    let asking = || BasicProperties::default().with_reply_to(replies.into()).with_correlation_id("c1".into());
    let mut ask = async |body: &[u8]| {
        publish(body, asking()).await;
        let answer = tokio::time::timeout(LONG, answers.next()).await.expect("an answer").unwrap().unwrap();
        serde_json::from_slice::<Value>(&answer.data).unwrap()
    };
    let answer = ask(SENT).await;
    assert_eq!((&answer["response"]["success"], &answer["isDisposed"]), (&json!(true), &json!(true)), "{answer}");
    let id = answer["response"]["messageId"].clone();
    let sent = eventually(LONG, "it was sent", async || {
        let found = client.find(&id).await;
        (found["status"] == "sent").then_some(found)
    })
    .await;
    assert_eq!(
        (&sent["mode"], &sent["priority"], &sent["recipient"]),
        (&json!("async"), &json!("high"), &json!("+79990000001"))
    );
    // The sender's own id is known: the same again is the same.
    let named = String::from_utf8(SENT.to_vec()).unwrap().replace("\"data\":{", "\"data\":{\"id\":\"order-7\",");
    let (one, two) = (ask(named.as_bytes()).await, ask(named.as_bytes()).await);
    assert_eq!(one["response"]["messageId"], two["response"]["messageId"]);
    assert_ne!(one["response"]["messageId"], id);
    // No template of that name, no address, and no notification at all.
    let unknown = String::from_utf8(SENT.to_vec()).unwrap().replace("\"t1\"", "\"t2\"");
    assert!(ask(unknown.as_bytes()).await["err"]["message"].as_str().unwrap().contains("t2"));
    publish(b"not a notification", BasicProperties::default()).await;
    let kept = eventually(LONG, "it is in quarantine", async || {
        let page = client.get("/v1/quarantine").await.ok();
        (page["items"].as_array().unwrap().len() == 2).then(|| page["items"].clone())
    })
    .await;
    let junk = kept.as_array().unwrap().iter().find(|one| one["reason"] == "invalid_json").expect("it is named");
    assert_eq!((&junk["body"], &junk["times"]), (&json!("not a notification"), &json!(1)));
    assert_eq!(client.delete(&format!("/v1/quarantine/{}", junk["id"].as_str().unwrap())).await.status, 204);
    server.settled().await;
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

/// With no right to make queues, and one missing that is not needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_is_kept_where_no_queue_for_it_is() {
    let world = World::sqlite().await;
    let Some(broker) = rabbitmq::shared().await else { return };
    let vhost = Vhost::on(broker).await;
    let url = vhost.url();
    let made = world.command(&on(&url, &[])).arg("migrate").output().await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_delete("notifications.quarantine".into(), QueueDeleteOptions::default()).await.unwrap();
    let server = world.server(&on(&url, &[("VESTNIK__QUEUE__DECLARE", "false")])).await;
    let client = server.client();
    for queue in ["whatsapp.send", "notifications"] {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let body = b"not a notification of +79991234567";
        drop(channel.basic_publish("".into(), queue.into(), options, body, properties).await.unwrap());
    }
    eventually(LONG, "both are in quarantine", async || {
        let page = client.get("/v1/quarantine").await.ok();
        (page["items"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    // The lane is not disturbed.
    let id = accept(&client, &bulk(50)).await;
    assert_eq!(count(&finished(&client, &id).await, "sent"), 50);
    assert!(!server.log().contains("+7999"), "{}", server.log());
    assert!(!server.log().contains("taking from RabbitMQ was interrupted"), "{}", server.log());
    world.assert_books(&server, &[]).await;
    server.stop().await;
}
