//! What cannot be read is kept whole enough to be looked at, and out of the way.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::message::Delivery as Message;
use lapin::types::ShortString;
use serde::Serialize;

use super::message::Outgoing;
use super::topology::{NOTIFICATIONS, QUARANTINE};

/// Enough to see what it was; the whole may be anything.
const KEPT_BYTES: usize = 64 * 1024;
const PERSISTENT: u8 = 2;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wrapped<'a> {
    error: &'a str,
    failed_at: Timestamp,
    source_queue: &'a str,
    content_type: Option<&'a str>,
    body_base64: String,
    body_size: usize,
}

pub(super) fn wrap(message: &Message, source_queue: &str, error: &str, now: Timestamp) -> Outgoing {
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_app_id("vestnik".into());
    let wrapped = Wrapped {
        error,
        failed_at: now,
        source_queue,
        content_type: message.properties.content_type().as_ref().map(ShortString::as_str),
        body_base64: BASE64_STANDARD.encode(&message.data[..message.data.len().min(KEPT_BYTES)]),
        body_size: message.data.len(),
    };
    Outgoing {
        exchange: NOTIFICATIONS,
        routing_key: QUARANTINE,
        // Text and numbers: nothing in it can fail.
        body: serde_json::to_vec(&wrapped).unwrap_or_default(),
        properties,
    }
}
