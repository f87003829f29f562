//! What other programs publish to the broker: taken once it is in the ledger, answered, or kept as poison.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use uuid::Uuid;
use vestnik::domain::{Channel, NotificationId, SystemClock};
use vestnik::queue::foreign::{Accepted, ForeignNotification, Ingress, Poison, Refused, Unavailable};
use vestnik::queue::{self, Condition, Queue};

use super::stand::{settings, until};
use crate::support::eventually::{LONG, eventually};
use crate::support::rabbitmq::{self, Shared, Vhost};

const EMITTED: &str = include_str!("../../../../src/queue/foreign/fixtures/nest_emit.json");
const SENT: &str = include_str!("../../../../src/queue/foreign/fixtures/nest_send.json");

/// A ledger that remembers what it was given, and may be away.
#[derive(Default)]
struct Book {
    taken: Mutex<Vec<ForeignNotification>>,
    poison: Mutex<Vec<Poison>>,
    /// Refuses so many calls first.
    away: Mutex<u32>,
}

impl Book {
    fn is_away(&self) -> bool {
        let mut away = self.away.lock().unwrap();
        let is_away = *away > 0;
        *away = away.saturating_sub(1);
        is_away
    }
}

#[async_trait]
impl Ingress for Book {
    async fn accept(&self, notifications: Vec<ForeignNotification>) -> Vec<Result<Accepted, Refused>> {
        if self.is_away() {
            let away = Unavailable { reason: "away".into() };
            return notifications.iter().map(|_| Err(Refused::Unavailable(away.clone()))).collect();
        }
        let accept = |notification: ForeignNotification| {
            if notification.template_id.as_deref() == Some("unknown") {
                return Err(Refused::Wrong { reason: "there is no such template".into() });
            }
            self.taken.lock().unwrap().push(notification);
            Ok(Accepted { id: NotificationId(Uuid::from_u128(77)) })
        };
        notifications.into_iter().map(accept).collect()
    }

    async fn quarantine(&self, poison: Vec<Poison>) -> Result<(), Unavailable> {
        if self.is_away() {
            return Err(Unavailable { reason: "away".into() });
        }
        self.poison.lock().unwrap().extend(poison);
        Ok(())
    }
}

struct Stand {
    queue: Arc<dyn Queue>,
    book: Arc<Book>,
    sender: Sender,
    _vhost: Vhost<Shared>,
}

/// Another program.
struct Sender {
    _connection: Connection,
    channel: lapin::Channel,
}

impl Stand {
    async fn start() -> Option<Stand> {
        let vhost = Vhost::on(rabbitmq::shared().await?).await;
        let book = Arc::new(Book::default());
        let ingress: Arc<dyn Ingress> = Arc::<Book>::clone(&book);
        let queue = queue::connect(&settings(Some(vhost.url())), Arc::new(SystemClock), Some(ingress)).unwrap();
        until(&*queue, Condition::Up).await;
        let connection = Connection::connect(&vhost.url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Some(Stand { queue, book, sender: Sender { _connection: connection, channel }, _vhost: vhost })
    }

    /// Waits until so many were taken, and so many kept as poison.
    async fn holds(&self, taken: usize, poison: usize) {
        let what = format!("{taken} are taken and {poison} kept");
        eventually(LONG, &what, async || {
            let now = (self.book.taken.lock().unwrap().len(), self.book.poison.lock().unwrap().len());
            (now == (taken, poison)).then_some(())
        })
        .await;
    }
}

impl Sender {
    async fn publish(&self, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publish = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties);
        let confirmation = publish.await.unwrap().await.unwrap();
        assert!(confirmation.is_ack() && confirmation.take_message().is_none(), "{key} is not there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_nest_client_emits_is_taken() {
    let Some(stand) = Stand::start().await else { return };
    // As it does: to the default exchange, transient, with no properties.
    stand.sender.publish("", "notifications", EMITTED.as_bytes(), BasicProperties::default()).await;
    stand.holds(1, 0).await;
    let taken = stand.book.taken.lock().unwrap()[0].clone();
    assert_eq!((taken.channel, taken.source.as_str()), (Channel::WhatsApp, "notifications"));
    assert!(!taken.redelivered);
    stand.queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_waits_is_answered() {
    let Some(stand) = Stand::start().await else { return };
    let replies = "amq.rabbitmq.reply-to";
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consuming = stand.sender.channel.basic_consume(replies.into(), "".into(), options, FieldTable::default());
    let mut answers = consuming.await.unwrap();
    let unknown = SENT.replace("\"t1\"", "\"unknown\"");
    for (number, body) in [SENT, &unknown, "{\"pattern\":\"pigeon.send\",\"data\":{}}"].iter().enumerate() {
        let properties =
            BasicProperties::default().with_reply_to(replies.into()).with_correlation_id(format!("c{number}").into());
        stand.sender.publish("", "notifications", body.as_bytes(), properties).await;
        let answer = tokio::time::timeout(LONG, answers.next()).await.expect("an answer").unwrap().unwrap();
        assert_eq!(answer.properties.correlation_id().as_ref().unwrap().as_str(), format!("c{number}"));
        let said: serde_json::Value = serde_json::from_slice(&answer.data).unwrap();
        assert_eq!(said["isDisposed"], true);
        match number {
            0 => assert_eq!(said["response"]["messageId"], Uuid::from_u128(77).to_string()),
            1 => assert_eq!(said["err"]["message"], "there is no such template"),
            _ => assert_eq!(said["err"]["message"], "unknown_pattern"),
        }
    }
    stand.holds(1, 2).await;
    stand.queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_is_kept_once_and_stops_nothing() {
    let Some(stand) = Stand::start().await else { return };
    let long = vec![b'x'; 1024 * 1024];
    for body in [&b"junk"[..], b"", &[0xff, 0xfe], &long, b"{}"] {
        stand.sender.publish("", "notifications", body, BasicProperties::default()).await;
    }
    stand.sender.publish("", "notifications", EMITTED.as_bytes(), BasicProperties::default()).await;
    stand.holds(1, 5).await;
    let mut kept: Vec<_> =
        stand.book.poison.lock().unwrap().iter().map(|poison| (poison.reason.clone(), poison.body_size)).collect();
    kept.sort_by_key(|(_, size)| *size);
    let codes: Vec<_> = kept.iter().map(|(reason, size)| (reason.split(':').next().unwrap(), *size)).collect();
    let json = "invalid_json";
    assert_eq!(codes[0], (json, 0));
    assert_eq!(codes[3..], [(json, 4), ("too_large", 1024 * 1024)]);
    assert!(codes[1..3].contains(&(json, 2)) && codes[1..3].contains(&("unknown_shape", 2)), "{codes:?}");
    assert!(stand.book.poison.lock().unwrap().iter().any(|poison| poison.body == b"junk"));
    stand.queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_ledger_cannot_take_now_comes_again() {
    let Some(stand) = Stand::start().await else { return };
    *stand.book.away.lock().unwrap() = 2;
    stand.sender.publish("", "notifications", EMITTED.as_bytes(), BasicProperties::default()).await;
    stand.holds(1, 0).await;
    assert!(stand.book.taken.lock().unwrap()[0].redelivered);
    *stand.book.away.lock().unwrap() = 2;
    stand.sender.publish("", "notifications.quarantine", b"from the broker", BasicProperties::default()).await;
    stand.holds(1, 1).await;
    stand.queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_put_into_a_lane_is_taken_like_the_rest() {
    let Some(stand) = Stand::start().await else { return };
    let mut consumer = stand.queue.consume(Channel::Telegram, 10).await.unwrap();
    let bare = br#"{"channel":"telegram","recipient":"42","id":"7"}"#;
    stand.sender.publish("notifications", "telegram.send.high", bare, BasicProperties::default()).await;
    stand.sender.publish("notifications", "telegram.send", b"junk", BasicProperties::default()).await;
    stand.holds(1, 1).await;
    let taken = stand.book.taken.lock().unwrap()[0].clone();
    assert_eq!((taken.source.as_str(), taken.external_id.as_deref()), ("telegram.send.high", Some("7")));
    // No task came of it: the relay will hand it over.
    assert!(tokio::time::timeout(Duration::from_millis(1), consumer.next(1)).await.is_err());
    consumer.stop().await;
    stand.queue.close().await;
}
