//! Exchanges, queues, rights and policies on a real broker.

use std::sync::Arc;

use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use vestnik::config::queue::{QueueSettings, QueueType};
use vestnik::domain::{Channel, Priority, SystemClock};
use vestnik::queue::rabbitmq::{Found, Options, declare, look};
use vestnik::queue::{self, Condition};

use super::stand::{Stand, hand_over, ids, on, settings, take, tasks, until};
use crate::support::eventually::{LONG, eventually};
use crate::support::process::program;
use crate::support::rabbitmq::{self, Shared, Vhost};

const DEFINITIONS: &str = include_str!("../../../../assets/rabbitmq/definitions.json");

async fn vhost() -> Option<Vhost<Shared>> {
    Some(Vhost::on(rabbitmq::shared().await?).await)
}

fn options(url: String) -> Options {
    Options::read(&settings(Some(url))).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn declaring_twice_makes_once() {
    let Some(vhost) = vhost().await else { return };
    let options = options(vhost.url());
    let seen = look(&options).await.unwrap();
    assert!(seen.product.as_ref().is_some_and(|product| product.starts_with("RabbitMQ ")), "{:?}", seen.product);
    assert_eq!(seen.topology.missing().count(), 19, "looking makes nothing");
    let first = declare(&options).await.unwrap();
    assert!(first.items.iter().all(|item| item.found == Found::Made), "{first:?}");
    let second = declare(&options).await.unwrap();
    assert!(second.items.iter().all(|item| item.found == Found::There), "{second:?}");
    assert_eq!(look(&options).await.unwrap().topology.missing().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_with_other_arguments_is_used_and_said() {
    let Some(vhost) = vhost().await else { return };
    let classic = QueueSettings { queue_type: QueueType::Classic, ..settings(Some(vhost.url())) };
    declare(&Options::read(&classic).unwrap()).await.unwrap();
    let report = declare(&options(vhost.url())).await.unwrap();
    let differences: Vec<_> = report.differences().collect();
    assert_eq!(differences.len(), 14, "{differences:?}");
    assert!(differences[0].1.contains("inequivalent arg 'x-queue-type' for queue"), "{differences:?}");
    let queue = on(&vhost).await;
    hand_over(&*queue, tasks(0..3, Priority::Low)).await.unwrap();
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_queue_is_waited_for_where_it_may_not_be_made() {
    let Some(vhost) = vhost().await else { return };
    let only_looks = QueueSettings { declare: false, ..settings(Some(vhost.url())) };
    let queue = queue::connect(&only_looks, Arc::new(SystemClock), None).unwrap();
    let lacking = |now: &Condition| matches!(now, Condition::Down { reason } if reason.contains("exchange notifications is missing") && reason.contains("queue.declare"));
    let said = tokio::time::timeout(LONG, queue.condition().wait_for(lacking)).await.is_ok();
    assert!(said, "{:?}", *queue.condition().borrow());
    declare(&options(vhost.url())).await.unwrap();
    until(&*queue, Condition::Up).await;
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_not_ours_goes_to_quarantine() {
    let Some(stand) = Stand::quorum().await else { return };
    let vhost = stand.vhost.as_ref().unwrap();
    let connection = Connection::connect(&vhost.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    drop(channel.basic_publish("".into(), "sms.send".into(), options, b"junk", properties).await.unwrap());
    hand_over(&*stand.queue, tasks(0..1, Priority::Normal)).await.unwrap();
    let mut consumer = stand.queue.consume(Channel::Sms, 10).await.unwrap();
    assert_eq!(ids(&take(&mut *consumer, 1).await), [0].into());
    consumer.stop().await;
    // A quorum queue tells its counts some seconds later.
    eventually(LONG, "it is in quarantine", async || {
        let counts = vhost.broker.ctl(&["-p", &vhost.name, "list_queues", "name", "messages"]).await;
        counts.contains("notifications.quarantine\t1").then_some(())
    })
    .await;
    stand.queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_says_how_the_broker_is() {
    let Some(vhost) = vhost().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let doctor = |url: String, declare: &'static str| {
        let mut command = program(dir.path());
        command.args(["doctor", "--json"]).env("RABBITMQ_URL", url).env("VESTNIK__QUEUE__DECLARE", declare);
        async move {
            let output = tokio::process::Command::from(command).output().await.unwrap();
            let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let checks = said["checks"].as_array().unwrap();
            let check = checks.iter().find(|check| check["check"] == "rabbitmq").unwrap();
            (check["ok"].as_bool().unwrap(), check["seen"].as_str().unwrap().to_owned())
        }
    };
    let (ok, seen) = doctor(vhost.url(), "true").await;
    assert!(ok && seen.starts_with("RabbitMQ ") && seen.contains("19 exchanges and queues"), "{seen}");
    let (ok, seen) = doctor(vhost.url(), "false").await;
    assert!(!ok && seen.contains("are missing"), "{seen}");
    declare(&options(vhost.url())).await.unwrap();
    let (ok, seen) = doctor(vhost.url(), "false").await;
    assert!(ok && seen.contains("is there"), "{seen}");
    let (ok, seen) = doctor(vhost.url_of("guest", "topsecret"), "true").await;
    assert!(!ok && seen.contains("virtual host") && !seen.contains("topsecret"), "{seen}");
}

/// The users and policies of the definitions, in a virtual host of their own; loaded, they are told apart by theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_definitions_load_and_their_rights_are_enough() {
    let Some(broker) = rabbitmq::alone().await else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), DEFINITIONS).unwrap();
    broker.ctl(&["import_definitions", file.path().to_str().unwrap()]).await;
    let vhost = Vhost { broker, name: "vestnik".into() };
    // The file brings no password that anybody could log in with.
    for user in ["vestnik-setup", "vestnik"] {
        vhost.broker.ctl(&["change_password", user, "for-this-test"]).await;
    }
    let setup = options(vhost.url_of("vestnik-setup", "for-this-test"));
    let report = declare(&setup).await.unwrap();
    assert!(report.items.iter().all(|item| item.found == Found::Made), "{report:?}");

    let url = vhost.url_of("vestnik", "for-this-test");
    let queue = queue::connect(&settings(Some(url)), Arc::new(SystemClock), None).unwrap();
    until(&*queue, Condition::Up).await;
    hand_over(&*queue, tasks(0..10, Priority::High)).await.unwrap();
    let mut consumer = queue.consume(Channel::Sms, 100).await.unwrap();
    assert_eq!(take(&mut *consumer, 10).await.len(), 10);
    assert_eq!(*queue.losses().borrow(), 1, "the marker can be read and written with these rights");
    queue.depths().await.unwrap();
    queue.close().await;

    let policies = vhost.broker.ctl(&["list_queues", "-p", "vestnik", "name", "policy"]).await;
    for queue in ["sms.send\tvestnik-lanes", "email.send.high\tvestnik-lanes", "notification.dlq\tvestnik-dead-letters"]
    {
        assert!(policies.contains(queue), "{policies}");
    }
    vhost.broker.ctl(&["delete_vhost", "vestnik"]).await;
}
