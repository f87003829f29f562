//! A broker that is reached by TLS, with a certificate that a private authority signed.

use serde_json::{Value, json};

use super::server::{Server, telegram, with};
use super::world::World;
use crate::support::eventually::{LONG, eventually};
use crate::support::rabbitmq::{self, Vhost};

/// How the queue is, once it is so.
async fn queue(server: &Server, condition: &str, reason: &str) -> Value {
    eventually(LONG, &format!("the queue is {condition}"), async || {
        let queue = server.get("/health/ready").await.ok()["queue"].take();
        let is_it = queue["condition"] == condition && queue["reason"].as_str().unwrap_or_default().contains(reason);
        is_it.then_some(queue)
    })
    .await
}

/// Accepted while nobody vouches for the broker, sent once somebody does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_accepted_waits_until_the_broker_is_trusted() {
    let world = World::sqlite().await;
    let Some(broker) = rabbitmq::shared().await else { return };
    let vhost = Vhost::on(broker).await;
    let url = vhost.tls_url("localhost");
    let server = world.server(&[("RABBITMQ_URL", &url)]).await;
    let down = queue(&server, "down", "the issuer of its certificate is unknown").await;
    let accepted = server.send(&with(telegram("42"), json!({ "mode": "async" }))).await;
    assert_eq!(accepted.status, 202, "{}", accepted.json());
    let id = accepted.json()["id"].clone();
    assert_ne!(server.find(&id).await["status"], "sent");
    for said in [down.to_string(), server.log()] {
        assert!(said.contains("the issuer of its certificate is unknown"), "{said}");
        assert!(!said.contains("guest"), "a secret shows: {said}");
    }
    server.stop().await;

    let ca = vhost.broker.ca_file().display().to_string();
    let server = world.server(&[("RABBITMQ_URL", &url), ("VESTNIK__QUEUE__CA_FILE", &ca)]).await;
    queue(&server, "up", "").await;
    server.settled().await;
    assert_eq!(server.find(&id).await["status"], "sent");
    world.assert_books(&server, &[]).await;
    server.stop().await;
}
