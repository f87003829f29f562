//! A task as an AMQP message, and back.
//!
//! The body is a `QueuedNotification` that others can read, with references and no personal data. What we need back
//! stands in the message id and in a header: no body is parsed on the way.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::Serialize;

use super::topology::{DEAD_LETTERS, NOTIFICATIONS, RETRY};
use crate::domain::{AccountId, BatchId, Generation, NotificationId, Priority};
use crate::queue::{Lane, Task};
use crate::store::ChunkId;

const PERSISTENT: u8 = 2;
/// What the design's message names when nobody chose.
const USUAL_RETRIES: i16 = 3;

/// `<chunk>:<account>:<retry count>`, and `:<batch>` if it is in one. One header costs everybody less than four. Not
/// `x-…`: headers exchanges pass over such names.
const TASK: &str = "vestnik-task";

/// One message on its way to an exchange.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) exchange: &'static str,
    pub(super) routing_key: &'static str,
    pub(super) body: Vec<u8>,
    pub(super) properties: BasicProperties,
}

/// The fields that `QueuedNotification` must have, and no address: the ledger holds it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    id: NotificationId,
    channel: &'static str,
    recipient: &'static str,
    context: BTreeMap<(), ()>,
    priority: &'static str,
    retry_count: i16,
    max_retries: i16,
}

pub(super) fn of_task(task: &Task) -> Outgoing {
    let body = Body {
        id: task.id,
        channel: task.lane.channel.as_str(),
        recipient: "",
        context: BTreeMap::new(),
        priority: task.lane.priority.as_str(),
        retry_count: task.retry_count,
        max_retries: USUAL_RETRIES.max(task.retry_count),
    };
    let mut headers = FieldTable::default();
    headers.insert(TASK.into(), AMQPValue::LongString(header(task).into()));
    let properties = BasicProperties::default()
        .with_message_id(message_id(task))
        .with_delivery_mode(PERSISTENT)
        .with_priority(priority(task.lane.priority))
        .with_content_type("application/json".into())
        .with_app_id("vestnik".into())
        .with_headers(headers);
    Outgoing {
        exchange: if task.retry_count > 0 { RETRY } else { NOTIFICATIONS },
        routing_key: task.lane.name(),
        // Plain text and numbers: nothing in it can fail.
        body: serde_json::to_vec(&body).unwrap_or_default(),
        properties,
    }
}

/// The copy of one that failed for good.
pub(super) fn of_failed(id: NotificationId, body: &[u8]) -> Outgoing {
    let properties = BasicProperties::default()
        .with_message_id(id.to_string().into())
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_app_id("vestnik".into());
    Outgoing { exchange: NOTIFICATIONS, routing_key: DEAD_LETTERS, body: body.to_vec(), properties }
}

/// The task that a message of this lane stands for.
///
/// # Errors
/// When it is not one of ours, what is wrong with it.
pub(super) fn to_task(properties: &BasicProperties, lane: Lane) -> Result<Task, &'static str> {
    let message_id = properties.message_id().as_ref().map(ShortString::as_str).ok_or("it has no message id")?;
    let (id, generation) = message_id.split_once(':').ok_or("its message id is not <id>:<generation>")?;
    let id = id.parse().map(NotificationId).map_err(|_| "its message id does not begin with an id")?;
    let generation = generation.parse().map(Generation).map_err(|_| "its message id does not end with a number")?;
    let headers = properties.headers().as_ref().map(FieldTable::inner).ok_or("it has no headers")?;
    let Some(AMQPValue::LongString(header)) = headers.get(TASK) else { return Err("it has no header vestnik-task") };
    let header = std::str::from_utf8(header.as_bytes()).ok();
    let (chunk, account, retry_count, batch) =
        header.and_then(of_header).ok_or("its header vestnik-task is not <chunk>:<account>:<retry count>[:<batch>]")?;
    Ok(Task { id, generation, chunk, account, batch, lane, retry_count })
}

fn header(task: &Task) -> String {
    let (chunk, account, retry_count) = (task.chunk.0, task.account.0, task.retry_count);
    let batch = task.batch.map(|batch| format!(":{}", batch.0)).unwrap_or_default();
    format!("{chunk}:{account}:{retry_count}{batch}")
}

fn of_header(text: &str) -> Option<(ChunkId, AccountId, i16, Option<BatchId>)> {
    let mut parts = text.split(':');
    let chunk = ChunkId(parts.next()?.parse().ok()?);
    let account = AccountId(parts.next()?.parse().ok()?);
    let retry_count = parts.next()?.parse().ok()?;
    let batch = parts.next().map(|id| id.parse().map(BatchId)).transpose().ok()?;
    parts.next().is_none().then_some((chunk, account, retry_count, batch))
}

fn message_id(task: &Task) -> ShortString {
    format!("{}:{}", task.id, task.generation.0).into()
}

/// Where queues know two classes only, 5 and above is the upper one.
const fn priority(priority: Priority) -> u8 {
    match priority {
        Priority::High => 8,
        Priority::Normal => 4,
        Priority::Low => 1,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::Channel;

    fn task() -> Task {
        Task {
            id: NotificationId(Uuid::from_u128(1)),
            generation: Generation(3),
            chunk: ChunkId(Uuid::from_u128(2)),
            account: AccountId(7),
            batch: Some(BatchId(Uuid::from_u128(4))),
            lane: Lane { channel: Channel::Email, priority: Priority::Low },
            retry_count: 0,
        }
    }

    #[test]
    fn a_task_comes_back_as_it_went() {
        for task in [task(), Task { batch: None, retry_count: 2, ..task() }] {
            let message = of_task(&task);
            assert_eq!(to_task(&message.properties, task.lane), Ok(task));
        }
    }

    #[test]
    fn others_find_a_notification_without_an_address() {
        let message = of_task(&Task { retry_count: 5, ..task() });
        assert_eq!((message.exchange, message.routing_key), (RETRY, "email.send.low"));
        insta::assert_snapshot!(String::from_utf8(message.body).expect("text"), @r#"{"id":"00000000-0000-0000-0000-000000000001","channel":"email","recipient":"","context":{},"priority":"low","retryCount":5,"maxRetries":5}"#);
    }

    #[test]
    fn what_is_not_ours_is_told_apart() {
        let ours = of_task(&task()).properties;
        let with_header = |text: &str| {
            let mut headers = FieldTable::default();
            headers.insert(TASK.into(), AMQPValue::LongString(text.into()));
            ours.clone().with_headers(headers)
        };
        for (foreign, word) in [
            (BasicProperties::default(), "no message id"),
            (ours.clone().with_message_id("x".into()), "<id>:<generation>"),
            (ours.clone().with_message_id("x:1".into()), "begin with an id"),
            (ours.clone().with_message_id(format!("{}:x", Uuid::nil()).into()), "end with a number"),
            (ours.clone().with_headers(FieldTable::default()), "no header vestnik-task"),
            (with_header("x:7:0"), "<chunk>"),
            (with_header(&format!("{}:7:0:{0}:1", Uuid::nil())), "<chunk>"),
        ] {
            let said = to_task(&foreign, task().lane).expect_err("not ours");
            assert!(said.contains(word), "{said}");
        }
    }
}
