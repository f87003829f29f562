//! Encrypted connections to a broker whose certificate a private authority signed.

use std::path::Path;
use std::sync::Arc;

use vestnik::config::queue::QueueSettings;
use vestnik::domain::{Channel, Priority, SystemClock};
use vestnik::queue::rabbitmq::{Options, look};
use vestnik::queue::{self, Condition};

use super::stand::{connected, hand_over, ids, settings, settle, take, tasks};
use crate::support::eventually::LONG;
use crate::support::rabbitmq::{self, Shared, Vhost};

async fn vhost() -> Option<Vhost<Shared>> {
    Some(Vhost::on(rabbitmq::shared().await?).await)
}

fn trusting(url: String, ca: &Path) -> QueueSettings {
    QueueSettings { ca_file: Some(ca.to_owned()), ..settings(Some(url)) }
}

/// Why there is no connection, once one was tried.
async fn refusal(settings: &QueueSettings) -> String {
    let queue = queue::connect(settings, Arc::new(SystemClock), None).unwrap();
    let tried = |now: &Condition| matches!(now, Condition::Down { reason } if reason != "not connected yet");
    let mut condition = queue.condition();
    let seen = tokio::time::timeout(LONG, condition.wait_for(tried)).await.expect("it is tried").unwrap().clone();
    queue.close().await;
    let Condition::Down { reason } = seen else { panic!("{seen:?}") };
    assert!(!reason.contains("guest") && !reason.contains("heartbeat"), "{reason}");
    // An end of the client's own patience would say so.
    assert!(!reason.contains("no answer"), "{reason}");
    reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_a_certificate_of_a_private_authority_is_used() {
    let Some(vhost) = vhost().await else { return };
    let settings = trusting(vhost.tls_url("localhost"), vhost.broker.ca_file());
    let queue = connected(&settings).await;
    let mut consumer = queue.consume(Channel::Sms, 100).await.unwrap();
    hand_over(&*queue, tasks(0..25, Priority::Normal)).await.unwrap();
    let taken = take(&mut *consumer, 25).await;
    assert_eq!(ids(&taken), (0..25).collect());
    settle(&*queue, taken).await;
    let connections = vhost.broker.ctl(&["list_connections", "ssl", "vhost"]).await;
    let ours: Vec<_> = connections.lines().filter(|line| line.contains(&vhost.name)).collect();
    assert!(ours.len() == 2 && ours.iter().all(|line| line.starts_with("true")), "{connections}");
    queue.close().await;
    assert_eq!(look(&Options::read(&settings).unwrap()).await.unwrap().topology.missing().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_issuer_is_the_reason_for_no_connection() {
    let Some(vhost) = vhost().await else { return };
    let settings = settings(Some(vhost.tls_url("localhost")));
    let reason = refusal(&settings).await;
    assert!(
        reason.contains("the issuer of its certificate is unknown") && reason.contains("queue.ca_file"),
        "{reason}"
    );
    let doctor = look(&Options::read(&settings).unwrap()).await.unwrap_err().to_string();
    assert!(doctor.contains("the issuer of its certificate is unknown"), "{doctor}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_another_host_is_refused() {
    let Some(vhost) = vhost().await else { return };
    let reason = refusal(&trusting(vhost.tls_url("127.0.0.1"), vhost.broker.ca_file())).await;
    assert!(reason.contains("certificate not valid for name \"127.0.0.1\""), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_connection_to_a_tls_port_ends_soon() {
    let Some(vhost) = vhost().await else { return };
    refusal(&settings(Some(vhost.plain_url_to_the_tls_port()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_connection_to_a_plain_port_ends_with_the_reason() {
    let Some(vhost) = vhost().await else { return };
    let reason = refusal(&trusting(vhost.tls_url_to_the_plain_port(), vhost.broker.ca_file())).await;
    assert!(reason.contains("no TLS is spoken") && reason.contains("5671"), "{reason}");
}
