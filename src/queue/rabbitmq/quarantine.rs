//! What cannot be read is kept whole enough to be looked at, and out of the way.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::message::Delivery as Message;
use lapin::types::{AMQPValue, FieldTable};
use serde::{Deserialize, Serialize};

use super::message::Outgoing;
use super::topology::{NOTIFICATIONS, QUARANTINE};
use crate::queue::foreign::Poison;

/// Enough to see what it was; the whole may be anything.
const KEPT_BYTES: usize = 64 * 1024;
const PERSISTENT: u8 = 2;

/// A message of the quarantine as it is kept: what we wrapped, or what the broker put there itself.
pub(super) fn unwrap(message: &Message) -> Poison {
    let ours = message.properties.app_id().as_ref().is_some_and(|id| id.as_str() == "vestnik");
    let wrapped = ours.then(|| serde_json::from_slice::<Unwrapped>(&message.data).ok()).flatten();
    let decoded = wrapped.and_then(|wrapped| Some((BASE64_STANDARD.decode(&wrapped.body_base64).ok()?, wrapped)));
    if let Some((body, wrapped)) = decoded {
        let Unwrapped { error, source_queue, content_type, body_size, body_base64: _ } = wrapped;
        return Poison { reason: error, source: source_queue, content_type, body, body_size };
    }
    let headers = message.properties.headers().as_ref().map(FieldTable::inner);
    let header = |name: &str| match headers.and_then(|headers| headers.get(name)) {
        Some(AMQPValue::LongString(text)) => Some(text.to_string()),
        _ => None,
    };
    // A message that no queue was bound for comes without a word.
    let reason = header("x-first-death-reason").unwrap_or_else(|| "unrouted".into());
    poison(message, &header("x-first-death-queue").unwrap_or_else(|| message.routing_key.to_string()), reason)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Unwrapped {
    error: String,
    source_queue: String,
    content_type: Option<String>,
    body_base64: String,
    body_size: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wrapped<'a> {
    error: &'a str,
    failed_at: Timestamp,
    source_queue: &'a str,
    content_type: Option<&'a str>,
    body_base64: String,
    body_size: u64,
}

/// What is kept of a message that cannot be taken.
pub(super) fn poison(message: &Message, source: &str, reason: String) -> Poison {
    Poison {
        reason,
        source: source.into(),
        content_type: message.properties.content_type().as_ref().map(ToString::to_string),
        body: message.data[..message.data.len().min(KEPT_BYTES)].to_vec(),
        body_size: message.data.len() as u64,
    }
}

/// For the quarantine's queue, from where whoever has the ledger reads it.
pub(super) fn wrap(poison: &Poison, now: Timestamp) -> Outgoing {
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_app_id("vestnik".into());
    let wrapped = Wrapped {
        error: &poison.reason,
        failed_at: now,
        source_queue: &poison.source,
        content_type: poison.content_type.as_deref(),
        body_base64: BASE64_STANDARD.encode(&poison.body),
        body_size: poison.body_size,
    };
    Outgoing {
        exchange: NOTIFICATIONS,
        routing_key: QUARANTINE,
        // Text and numbers: nothing in it can fail.
        body: serde_json::to_vec(&wrapped).unwrap_or_default(),
        properties,
    }
}
