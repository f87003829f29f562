//! Three services on one PostgreSQL ledger share campaigns, whether a broker stands between them or not, while one is
//! killed and two are stopped under way.

use serde_json::{Value, json};

use super::server::{Client, Server};
use super::world::World;
use crate::support::eventually::{LONG, eventually};
use crate::support::rabbitmq::{self, Vhost};

const CAMPAIGN: u64 = 2_000;
/// Between them, a campaign lasts for some five seconds. A lease is longer than a busy machine's database is silent:
/// only the killed one may count as lost.
const SETTINGS: [(&str, &str); 4] = [
    ("VESTNIK__WHATSAPP__MAIN__LIMITS__PER_SECOND", "400"),
    ("VESTNIK__WHATSAPP__MAIN__LIMITS__BURST", "50"),
    ("VESTNIK__DELIVERY__LEASE_MS", "12000"),
    ("VESTNIK__DELIVERY__SEND_DEADLINE_MS", "3000"),
];
/// What one process has on its way at most (`delivery.concurrency`).
const AT_ONCE: u64 = 256;

async fn campaign(client: &Client, text: &str) -> Value {
    let recipients: Vec<_> = (0..CAMPAIGN).map(|n| json!({ "recipient": format!("+7999{n:07}") })).collect();
    let body = json!({ "channel": "whatsapp", "text": text, "recipients": recipients });
    let answer = client.post("/v1/notifications/bulk", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.json());
    answer.json()["batchId"].clone()
}

async fn settled(client: &Client, id: &Value) -> Value {
    let path = format!("/v1/batches/{}", id.as_str().unwrap());
    eventually(2 * LONG, "the campaign is over", async || {
        let batch = client.get(&path).await.ok();
        (batch["inFlight"] == 0).then(|| batch["settled"].clone())
    })
    .await
}

/// Sends that this process has begun in this life.
async fn attempts(server: &Client) -> u64 {
    let figures = server.get("/metrics").await;
    let text = String::from_utf8_lossy(&figures.body).into_owned();
    let lines = text.lines().filter(|line| line.starts_with("vestnik_attempts_total"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Waits until the providers have `at_least` and each of these has had a part in it since now.
async fn at_work(world: &World, at_least: u64, servers: &[&Server]) {
    let mut before = Vec::new();
    for server in servers {
        before.push(attempts(server).await);
    }
    eventually(LONG, "the campaign is under way, and all work on it", async || {
        for (server, before) in servers.iter().zip(&before) {
            if attempts(server).await == *before {
                return None;
            }
        }
        (world.simulator.taken_count() >= at_least).then_some(())
    })
    .await;
}

async fn shared_campaigns(world: &World, settings: &[(&str, &str)]) {
    world.scenario(json!({ "whatsapp": { "latencyMs": { "min": 5, "p50": 60, "p99": 300 } } }));
    let settings = [&SETTINGS, settings].concat();
    // All of them before a campaign begins: however slowly one starts, it has its part.
    let (one, other, doomed) =
        (world.server(&settings).await, world.server(&settings).await, world.server(&settings).await);

    let first = campaign(&one, "Killed").await;
    at_work(world, 400, &[&one, &other, &doomed]).await;
    doomed.kill().await;
    let first = settled(&one, &first).await;
    let count = |status: &str| first[status].as_u64().unwrap_or(0);
    assert_eq!(count("sent") + count("uncertain"), CAMPAIGN, "{first}");
    assert!(count("uncertain") <= AT_ONCE, "more are uncertain than one had on its way: {first}");

    let third = world.server(&settings).await;
    let begun = world.simulator.taken_count();
    let second = campaign(&other, "Stopped").await;
    at_work(world, begun + 300, &[&one, &other, &third]).await;
    one.stop().await;
    at_work(world, begun + 600, &[]).await;
    other.stop().await;
    // In an orderly end nothing becomes uncertain. What it gives back another may give back for it.
    assert_eq!(settled(&third, &second).await, json!({ "sent": CAMPAIGN }));
    let log = third.log();
    let lost: Vec<_> = log.lines().filter(|line| line.contains("settled what a lost process left")).collect();
    assert!(lost.iter().all(|line| line.contains("uncertain=0 to_resend=0")), "{lost:?}");
    world.assert_books(&third, &[]).await;
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_share_campaigns_without_a_broker() {
    let Some(world) = World::postgres().await else { return };
    shared_campaigns(&world, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_share_campaigns_through_a_broker() {
    let Some(world) = World::postgres().await else { return };
    let Some(broker) = rabbitmq::shared().await else { return };
    let vhost = Vhost::on(broker).await;
    shared_campaigns(&world, &[("RABBITMQ_URL", &vhost.url())]).await;
}
