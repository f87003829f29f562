//! What counts has to see a worker that is broken. The program cannot be asked to be: here somebody else does behind its
//! back what a broken worker would do, with the same rows and messages, and the real program goes on from there.

use lapin::options::BasicGetOptions;
use lapin::{Connection, ConnectionProperties};
use serde_json::{Value, json};

use super::{RECIPIENTS, campaign, campaign_body, left};
use crate::path::books::disagreements;
use crate::path::server::{Server, with};
use crate::path::worker::Worker;
use crate::path::world::World;
use crate::support::eventually::{LONG, eventually};
use crate::support::postgres::connect;
use crate::support::rabbitmq::{self, Vhost};

/// Notifications that fall to the broken worker.
const BROKEN: u64 = 5;

/// The invariants that `vestnik verify` finds broken.
async fn verify(world: &World) -> Vec<String> {
    let output = world.run(&["verify", "--json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.success(), report["findings"].as_array().unwrap().is_empty(), "{report:#}");
    let findings = report["findings"].as_array().unwrap().iter();
    findings.map(|finding| finding["invariant"].as_str().unwrap().to_owned()).collect()
}

/// It gives back what it has already handed off, as one would that sends first and claims later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_gives_back_what_it_sent_is_seen() {
    const GIVE_BACK: &str = "WITH given AS (
            UPDATE work SET state = 2, epoch = NULL, opened_at = NULL
            WHERE id IN (SELECT id FROM work WHERE state = 4 LIMIT 5) RETURNING id, account)
        INSERT INTO due (id, due_at, account, priority, batch_id, ids, outstanding)
        SELECT gen_random_uuid(), 0, g.account, n.priority, n.batch_id, array_agg(g.id), count(*)
        FROM given g JOIN notifications n ON n.id = g.id GROUP BY g.account, n.priority, n.batch_id";
    let Some(world) = World::postgres().await else { return };
    // So slow that all are on their way when it happens.
    world.scenario(json!({ "whatsapp": { "latencyMs": 3000 } }));
    let server = world.server(&[]).await;
    let (batch, told) = campaign(&server, 0).await;
    let ledger = connect(&world.database.as_ref().unwrap().url()).await.unwrap();
    eventually(LONG, "many are on their way", async || (world.simulator.taken_count() >= 100).then_some(())).await;
    ledger.batch_execute(GIVE_BACK).await.unwrap();
    let over = left(&server, &batch, 0).await;
    assert_eq!(over["settled"], json!({ "sent": told.len() }), "it looks as if all were well");
    let wrong = disagreements(&server.ledger().await, &world.simulator.taken(), &told);
    let doubled = wrong.iter().filter(|wrong| wrong.starts_with("SILENT DUPLICATE: taken 2"));
    assert_eq!(doubled.count() as u64, BROKEN, "{wrong:#?}");
    assert_eq!(verify(&world).await, ["attempts_are_counted"]);
    server.stop().await;
}

/// It acknowledges and counts as begun what it never opens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_acknowledges_what_it_does_not_send_is_seen() {
    let Some(world) = World::postgres().await else { return };
    let Some(broker) = rabbitmq::shared().await else { return };
    let vhost = Vhost::on(broker).await;
    let url = vhost.url();
    let settings = [("RABBITMQ_URL", url.as_str())];
    let server = Server::start_with(&world, &settings, Some("127.0.0.1:0"), &["--roles", "api,relay"]).await;
    let answer =
        server.post("/v1/notifications/bulk", &with(campaign_body(0, RECIPIENTS), json!({ "priority": "low" }))).await;
    let (batch, told) = super::accepted(&answer);
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let mut swallowed = swallow(&connection).await;
    swallowed.extend(swallow(&connection).await);
    let missing = u64::try_from(swallowed.len()).unwrap();
    let count_down = format!(
        "UPDATE due SET outstanding = outstanding - (SELECT count(*) FROM unnest(ids) id WHERE id = ANY('{{{}}}'))
         WHERE handed_by IS NOT NULL",
        swallowed.join(",")
    );
    let ledger = connect(&world.database.as_ref().unwrap().url()).await.unwrap();
    ledger.batch_execute(&count_down).await.unwrap();
    let worker = Worker::start(&world, &settings).await;
    left(&server, &batch, missing).await;
    assert_eq!(verify(&world).await, ["waiting_will_be_found"]);
    let wrong = disagreements(&server.ledger().await, &world.simulator.taken(), &told);
    assert!(wrong.iter().all(|wrong| wrong.starts_with("LOST: accepted, and queued for ever")), "{wrong:#?}");
    assert_eq!(wrong.len() as u64, missing, "{wrong:#?}");
    worker.stop().await;
    server.stop().await;
}

/// The ids in a message that is no more.
async fn swallow(connection: &Connection) -> Vec<String> {
    let message = eventually(LONG, "it is handed over", async || {
        // While there is no such queue, each question ends its channel.
        let channel = connection.create_channel().await.unwrap();
        channel.basic_get("whatsapp.send.low".into(), BasicGetOptions { no_ack: true }).await.ok()?
    })
    .await;
    let body: Value = serde_json::from_slice(&message.data).unwrap();
    body["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect()
}
