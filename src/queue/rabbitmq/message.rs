//! A bundle as an AMQP message, and back.
//!
//! The body is JSON that others can read, with references and no personal data: what an id stands for, the ledger knows.

use lapin::BasicProperties;
use lapin::types::ShortString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::topology::{DEAD_LETTERS, NOTIFICATIONS, RETRY};
use crate::domain::{AccountId, BatchId, Generation, NotificationId, Priority};
use crate::queue::foreign::LONGEST_BODY_BYTES;
use crate::queue::{Bundle, Lane, Task};
use crate::store::ChunkId;

const PERSISTENT: u8 = 2;
/// The property `type` of our own messages in lanes: it tells them from what others publish there.
const TASKS: &str = "vestnik.tasks";

/// One message on its way to an exchange.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) exchange: &'static str,
    pub(super) routing_key: &'static str,
    pub(super) body: Vec<u8>,
    pub(super) properties: BasicProperties,
}

/// What a message in a lane says. The lane itself is the queue's name.
#[derive(Deserialize, Serialize)]
struct Body {
    tasks: Vec<Reference>,
}

/// One task, as others may see it.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    id: Uuid,
    generation: i32,
    chunk: Uuid,
    account: i16,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<Uuid>,
    retry_count: i16,
}

impl Reference {
    fn of(task: &Task) -> Reference {
        Reference {
            id: task.id.0,
            generation: task.generation.0,
            chunk: task.chunk.0,
            account: task.account.0,
            batch: task.batch.map(|batch| batch.0),
            retry_count: task.retry_count,
        }
    }

    fn in_lane(self, lane: Lane) -> Task {
        Task {
            id: NotificationId(self.id),
            generation: Generation(self.generation),
            chunk: ChunkId(self.chunk),
            account: AccountId(self.account),
            batch: self.batch.map(BatchId),
            lane,
            retry_count: self.retry_count,
        }
    }
}

pub(super) fn of_bundle(bundle: &Bundle) -> Outgoing {
    let body = Body { tasks: bundle.tasks.iter().map(Reference::of).collect() };
    let properties = BasicProperties::default()
        .with_message_id(message_id(bundle))
        .with_type(TASKS.into())
        .with_delivery_mode(PERSISTENT)
        .with_priority(priority(bundle.lane.priority))
        .with_content_type("application/json".into())
        .with_app_id("vestnik".into());
    Outgoing {
        exchange: if bundle.is_retry { RETRY } else { NOTIFICATIONS },
        routing_key: bundle.lane.name(),
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

/// The tasks that a message of this lane stands for: at least one.
///
/// # Errors
/// When it is not one of ours, what is wrong with it.
pub(super) fn to_tasks(properties: &BasicProperties, body: &[u8], lane: Lane) -> Result<Vec<Task>, &'static str> {
    if properties.kind().as_ref().map(ShortString::as_str) != Some(TASKS) {
        return Err("its type is not vestnik.tasks");
    }
    if body.len() > LONGEST_BODY_BYTES {
        return Err("it is too large");
    }
    let body: Body = serde_json::from_slice(body).map_err(|_| "its body does not list tasks")?;
    let tasks: Vec<Task> = body.tasks.into_iter().map(|reference| reference.in_lane(lane)).collect();
    if tasks.is_empty() { Err("its list of tasks is empty") } else { Ok(tasks) }
}

/// `<id>:<generation>` of its first task, which no other hand-over has.
fn message_id(bundle: &Bundle) -> ShortString {
    bundle.tasks.first().map(|task| format!("{}:{}", task.id, task.generation.0)).unwrap_or_default().into()
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
    use super::*;
    use crate::domain::Channel;

    const LANE: Lane = Lane { channel: Channel::Email, priority: Priority::Low };

    fn task(number: u128) -> Task {
        Task {
            id: NotificationId(Uuid::from_u128(number)),
            generation: Generation(3),
            chunk: ChunkId(Uuid::from_u128(2)),
            account: AccountId(7),
            batch: Some(BatchId(Uuid::from_u128(4))),
            lane: LANE,
            retry_count: 0,
        }
    }

    fn only(tasks: &[Task]) -> Bundle {
        Bundle::all(tasks, tasks.len()).pop().expect("a bundle")
    }

    #[test]
    fn tasks_come_back_as_they_went() {
        for tasks in [vec![task(1), task(2)], vec![Task { batch: None, retry_count: 2, ..task(1) }]] {
            let message = of_bundle(&only(&tasks));
            assert_eq!(to_tasks(&message.properties, &message.body, LANE), Ok(tasks));
        }
    }

    #[test]
    fn others_find_references_and_no_address() {
        let message = of_bundle(&only(&[Task { retry_count: 5, ..task(1) }]));
        assert_eq!((message.exchange, message.routing_key), (RETRY, "email.send.low"));
        let id = message.properties.message_id().clone().expect("an id");
        assert_eq!(id.as_str(), "00000000-0000-0000-0000-000000000001:3");
        insta::assert_snapshot!(String::from_utf8(message.body).expect("text"), @r#"{"tasks":[{"id":"00000000-0000-0000-0000-000000000001","generation":3,"chunk":"00000000-0000-0000-0000-000000000002","account":7,"batch":"00000000-0000-0000-0000-000000000004","retryCount":5}]}"#);
    }

    #[test]
    fn what_is_not_ours_is_told_apart() {
        let ours = of_bundle(&only(&[task(1)]));
        for (properties, body, word) in [
            (BasicProperties::default(), &ours.body[..], "type"),
            (ours.properties.clone().with_type("other".into()), &ours.body, "type"),
            (ours.properties.clone(), b"junk", "does not list tasks"),
            (ours.properties.clone(), br#"{"tasks":[{"id":"x"}]}"#, "does not list tasks"),
            (ours.properties.clone(), br#"{"tasks":[]}"#, "empty"),
            (ours.properties.clone(), &[b' '; LONGEST_BODY_BYTES + 1], "too large"),
        ] {
            let said = to_tasks(&properties, body, LANE).expect_err("not ours");
            assert!(said.contains(word), "{said}");
        }
    }
}
