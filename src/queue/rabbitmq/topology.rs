//! Every exchange, queue and binding we use, and how they come about.
//!
//! Exchanges have no arguments and lanes only their type: with more, a foreign program that declares the same name
//! plainly would be refused (and we, when a setting changes). What has to be tuned is tuned by policies
//! (`assets/rabbitmq/definitions.json`), which change what exists. Each look is on a channel of its own: a refusal
//! closes the channel.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ErrorKind, ExchangeKind};
use tokio::time::timeout;

use super::connection::{CALL_LIMIT, trouble, within};
use super::options::Options;
use crate::config::queue::QueueType;
use crate::domain::Channel;
use crate::queue::{Lane, QueueError};

pub(super) const NOTIFICATIONS: &str = "notifications";
pub(super) const RETRY: &str = "notifications.retry";
pub(super) const UNROUTED: &str = "notifications.unrouted";
pub(super) const DEAD_LETTERS: &str = "notification.dlq";
pub(super) const QUARANTINE: &str = "notifications.quarantine";
/// Holds one message that names this life of the broker's queues.
pub(super) const INCARNATION: &str = "notifications.incarnation";
/// Where a `NestJS` client publishes to when it knows one queue only.
pub(super) const INGRESS: &str = "notifications";

pub(super) const DOING: &str = "looking at exchanges and queues";
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;

/// What was looked at, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub items: Vec<Item>,
}

/// One exchange, queue or binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// `queue whatsapp.send`
    pub name: String,
    pub found: Found,
    /// Nothing works without it.
    pub needed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    There,
    /// It was missing, and we made it.
    Made,
    /// It is there with other arguments, and is used as it is; in the broker's words.
    Differs(String),
    /// It is missing, and was not made; why.
    Missing(String),
}

impl Report {
    /// What is missing and needed, with why; `None` when all is there.
    pub fn lacks(&self) -> Option<String> {
        let lacking: Vec<_> = self.missing().filter(|(item, _)| item.needed).collect();
        let (first, why) = lacking.first()?;
        let others = lacking.len() - 1;
        let more = if others == 0 { String::new() } else { format!(" (and {others} more)") };
        Some(format!("{} is missing{more}: {why}", first.name))
    }

    /// What is missing, needed or not.
    pub fn missing(&self) -> impl Iterator<Item = (&Item, &str)> {
        self.items.iter().filter_map(|item| match &item.found {
            Found::Missing(why) => Some((item, why.as_str())),
            Found::There | Found::Made | Found::Differs(_) => None,
        })
    }

    /// What is not as we would have made it, in the broker's words.
    pub fn differences(&self) -> impl Iterator<Item = (&str, &str)> {
        self.items.iter().filter_map(|item| match &item.found {
            Found::Differs(text) => Some((item.name.as_str(), text.as_str())),
            Found::There | Found::Made | Found::Missing(_) => None,
        })
    }

    /// Whether a lane was not there when we looked: what it had held is lost.
    pub fn lanes_were_missing(&self) -> bool {
        let lane = |item: &Item| item.name.strip_prefix("queue ").and_then(Lane::from_name).is_some();
        self.items.iter().any(|item| matches!(item.found, Found::Made | Found::Missing(_)) && lane(item))
    }
}

struct QueueSpec {
    name: &'static str,
    queue_type: Option<&'static str>,
    /// Exchange and routing key.
    bindings: Vec<(&'static str, &'static str)>,
    needed: bool,
}

fn exchanges() -> [(&'static str, ExchangeKind, bool); 3] {
    [
        (NOTIFICATIONS, ExchangeKind::Topic, true),
        (RETRY, ExchangeKind::Topic, true),
        (UNROUTED, ExchangeKind::Fanout, false),
    ]
}

fn queues(queue_type: QueueType) -> Vec<QueueSpec> {
    // A classic queue is declared without a word, so that a foreign `{durable: true}` is the same.
    let queue_type = match queue_type {
        QueueType::Quorum => Some("quorum"),
        QueueType::Classic => None,
    };
    let lane = |lane: Lane| {
        let name = lane.name();
        QueueSpec { name, queue_type, bindings: vec![(NOTIFICATIONS, name), (RETRY, name)], needed: true }
    };
    let mut queues: Vec<_> = Channel::ALL.into_iter().flat_map(Lane::of).map(lane).collect();
    queues.extend([
        QueueSpec { name: DEAD_LETTERS, queue_type, bindings: vec![(NOTIFICATIONS, DEAD_LETTERS)], needed: false },
        // Under its own name, too: whoever may publish to `notifications` only has to reach it.
        QueueSpec {
            name: QUARANTINE,
            queue_type,
            bindings: vec![(UNROUTED, ""), (NOTIFICATIONS, QUARANTINE)],
            needed: false,
        },
        QueueSpec { name: INGRESS, queue_type: None, bindings: Vec::new(), needed: false },
        // Said to be classic: looking at the marker is a delivery, and a quorum queue drops what it delivered often.
        QueueSpec {
            name: INCARNATION,
            queue_type: Some("classic"),
            bindings: vec![(NOTIFICATIONS, INCARNATION)],
            needed: false,
        },
    ]);
    queues
}

/// Looks for everything, and makes what is missing where the options and the broker allow it. `thorough` also compares
/// what is there with what we would make, and binds again.
pub(super) async fn bring_about(
    connection: &Connection,
    options: &Options,
    thorough: bool,
) -> Result<Report, QueueError> {
    let mut report = Report::default();
    let thorough = thorough && options.declare;
    for (name, kind, needed) in exchanges() {
        let found = found(connection, &Thing::Exchange(name, kind), options.declare, thorough).await?;
        report.items.push(Item { name: format!("exchange {name}"), found, needed });
    }
    for QueueSpec { name, queue_type, bindings, needed } in queues(options.queue_type) {
        let found = found(connection, &Thing::Queue(name, queue_type), options.declare, thorough).await?;
        let bind = found == Found::Made || (thorough && !matches!(found, Found::Missing(_)));
        report.items.push(Item { name: format!("queue {name}"), found, needed });
        for (exchange, key) in bindings.into_iter().filter(|_| bind) {
            if let Err(refusal) = bind_once(connection, name, exchange, key).await? {
                // An operator may have bound it; if not, what we publish comes back, and says so.
                let name = format!("binding of {name} to {exchange}");
                report.items.push(Item { name, found: Found::Differs(refusal.text), needed: false });
            }
        }
    }
    Ok(report)
}

/// What can be declared.
enum Thing {
    Exchange(&'static str, ExchangeKind),
    Queue(&'static str, Option<&'static str>),
}

impl Thing {
    /// `passive` only looks.
    async fn declare(&self, connection: &Connection, passive: bool) -> Result<Result<(), Refusal>, QueueError> {
        let channel = open(connection).await?;
        let mut arguments = FieldTable::default();
        match self {
            Thing::Exchange(name, kind) => {
                let options = ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
                tried(channel.exchange_declare((*name).into(), kind.clone(), options, arguments)).await
            }
            Thing::Queue(name, queue_type) => {
                let options = QueueDeclareOptions { passive, durable: true, ..QueueDeclareOptions::default() };
                if let Some(queue_type) = *queue_type {
                    arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue_type.into()));
                }
                let declared = tried(channel.queue_declare((*name).into(), options, arguments)).await?;
                Ok(declared.map(drop))
            }
        }
    }
}

/// What the broker would not do.
struct Refusal {
    code: u16,
    text: String,
}

async fn bind_once(
    connection: &Connection,
    queue: &'static str,
    exchange: &str,
    key: &str,
) -> Result<Result<(), Refusal>, QueueError> {
    let channel = open(connection).await?;
    let options = QueueBindOptions::default();
    tried(channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default())).await
}

async fn found(connection: &Connection, thing: &Thing, may_make: bool, thorough: bool) -> Result<Found, QueueError> {
    match thing.declare(connection, true).await? {
        Ok(()) if !thorough => Ok(Found::There),
        Ok(()) => match thing.declare(connection, false).await? {
            Err(refusal) if refusal.code == PRECONDITION_FAILED => Ok(Found::Differs(refusal.text)),
            // Without the right to declare we cannot compare.
            Ok(()) | Err(_) => Ok(Found::There),
        },
        Err(refusal) if refusal.code != NOT_FOUND => Ok(Found::Missing(refusal.text)),
        Err(_) if !may_make => Ok(Found::Missing("it was not made (queue.declare is false)".into())),
        Err(_) => match thing.declare(connection, false).await? {
            Ok(()) => Ok(Found::Made),
            Err(refusal) if refusal.code == ACCESS_REFUSED => {
                Ok(Found::Missing(format!("we may not make it ({})", refusal.text)))
            }
            Err(refusal) => Ok(Found::Missing(refusal.text)),
        },
    }
}

async fn open(connection: &Connection) -> Result<lapin::Channel, QueueError> {
    within(CALL_LIMIT, DOING, connection.create_channel()).await
}

/// A refusal is an answer; anything else is trouble with the connection.
async fn tried<T>(call: impl Future<Output = lapin::Result<T>>) -> Result<Result<T, Refusal>, QueueError> {
    let Ok(answer) = timeout(CALL_LIMIT, call).await else {
        return Err(QueueError { doing: DOING, reason: format!("no answer within {} s", CALL_LIMIT.as_secs()) });
    };
    match answer {
        Ok(answer) => Ok(Ok(answer)),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(refusal) if error.is_amqp_soft_error() => {
                Ok(Err(Refusal { code: refusal.get_id(), text: refusal.get_message().to_string() }))
            }
            _ => Err(trouble(DOING, &error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, found: Found, needed: bool) -> Item {
        Item { name: name.into(), found, needed }
    }

    #[test]
    fn a_report_says_what_is_lacking_and_whether_lanes_were_lost() {
        let mut report = Report::default();
        report.items.push(item("queue notification.dlq", Found::Missing("x".into()), false));
        report.items.push(item("queue sms.send", Found::There, true));
        assert_eq!(report.lacks(), None);
        assert!(!report.lanes_were_missing());
        report.items.push(item("queue sms.send.low", Found::Made, true));
        assert!(report.lanes_were_missing());
        report.items.push(item("queue email.send", Found::Missing("no right".into()), true));
        report.items.push(item("queue email.send.low", Found::Missing("no right".into()), true));
        assert_eq!(report.lacks().as_deref(), Some("queue email.send is missing (and 1 more): no right"));
    }
}
