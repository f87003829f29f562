//! Notifications that other programs publish to the broker: what is read of them, and who takes them.
//!
//! Two forms are understood: the envelope of a `NestJS` client (`pattern` and `data`) and a bare `QueuedNotification`.
//! Nothing in them is trusted: figures are clamped, the id is the sender's and not ours, and what cannot be read is
//! poison with a reason.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::Lane;
use crate::domain::{Channel, NotificationId, Priority, RecordIds};

/// Attachments go by reference; what is longer is no notification.
pub const LONGEST_BODY_BYTES: usize = 256 * 1024;
/// Of records and of the notification itself; the same as over HTTP.
const LONGEST_ID_BYTES: usize = 200;
const MOST_RETRIES: i64 = 10;
const USUAL_RETRIES: i64 = 3;

/// Takes what others published into the ledger.
#[async_trait]
pub trait Ingress: Send + Sync + 'static {
    /// Accepts them durably: one result for each, in order. Only then are they acknowledged; after a crash in between
    /// they come again, marked as [`redelivered`](ForeignNotification::redelivered).
    async fn accept(&self, notifications: Vec<ForeignNotification>) -> Vec<Result<Accepted, Refused>>;

    /// Keeps what could not be read, durably; after an error all of it comes again.
    async fn quarantine(&self, poison: Vec<Poison>) -> Result<(), Unavailable>;
}

/// One notification as somebody else wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignNotification {
    /// The queue it came by.
    pub source: String,
    /// The sender's own id for it, if it has one: the same id from the same source is the same notification.
    pub external_id: Option<String>,
    /// The broker may have given it to us before.
    pub redelivered: bool,
    /// SHA-256 of the body: with `redelivered`, what tells a repetition from a second equal message without an id.
    pub body_hash: [u8; 32],
    pub channel: Channel,
    pub template_id: Option<String>,
    /// As given, unchecked; `None` leaves it to the contact.
    pub recipient: Option<String>,
    pub records: RecordIds,
    pub priority: Priority,
    pub scheduled_at: Option<Timestamp>,
    /// From 0 to 10.
    pub retry_count: i16,
    /// From 0 to 10.
    pub max_retries: i16,
    pub metadata: Option<Map<String, Value>>,
}

/// It is in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub id: NotificationId,
}

/// Why one was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It never will be: it goes to quarantine with this reason, which the sender is told if it waits for an answer.
    Wrong { reason: String },
    /// Not now: it comes again.
    Unavailable(Unavailable),
}

/// The ledger cannot be written to just now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not available: {reason}")]
pub struct Unavailable {
    pub reason: String,
}

/// What could not be read or delivered, as far as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Poison {
    /// A code like `invalid_json`, perhaps with more after a colon.
    pub reason: String,
    /// The queue it was in.
    pub source: String,
    pub content_type: Option<String>,
    /// The beginning of it.
    pub body: Vec<u8>,
    /// Of the whole.
    pub body_size: u64,
}

impl std::fmt::Debug for Poison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The body may hold anything, addresses too.
        write!(f, "Poison({} from {}, {} bytes)", self.reason, self.source, self.body_size)
    }
}

/// A message's body with what its properties say.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    pub body: &'a [u8],
    /// The queue it came by.
    pub source: &'a str,
    pub message_id: Option<&'a str>,
    pub redelivered: bool,
}

/// Why a body is no notification: a code, and for people where it is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("too_large: {0} bytes, and more than {LONGEST_BODY_BYTES} are not read")]
    TooLarge(usize),
    #[error("invalid_json")]
    InvalidJson,
    #[error("unknown_shape")]
    UnknownShape,
    #[error("unknown_pattern")]
    UnknownPattern,
    #[error("unknown_channel")]
    UnknownChannel,
    /// Where, without what stands there: it may be an address.
    #[error("invalid_schema: {0}")]
    InvalidSchema(String),
}

/// The fields of the request's interface. Others are passed over: senders add their own.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Queued {
    id: Option<String>,
    channel: Option<String>,
    template_id: Option<String>,
    recipient: Option<String>,
    #[serde(default)]
    context: Option<Context>,
    priority: Option<Word>,
    scheduled_at: Option<Timestamp>,
    retry_count: Option<i64>,
    max_retries: Option<i64>,
    metadata: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    contact_id: Option<String>,
    lead_id: Option<i64>,
    deal_id: Option<String>,
    company_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    High,
    Normal,
    Low,
}

/// Reads a body: size, then JSON, then its form, then its fields.
pub fn read(raw: Raw<'_>) -> Result<ForeignNotification, Unreadable> {
    if raw.body.len() > LONGEST_BODY_BYTES {
        return Err(Unreadable::TooLarge(raw.body.len()));
    }
    let value: Value = serde_json::from_slice(raw.body).map_err(|_| Unreadable::InvalidJson)?;
    let Value::Object(mut object) = value else { return Err(Unreadable::InvalidJson) };
    // Before any look at `id`: both forms have one, and in an envelope it is the reply's.
    let (pattern, data) = if object.contains_key("pattern") && object.contains_key("data") {
        let lane = pattern(&object["pattern"]).ok_or(Unreadable::UnknownPattern)?;
        (Some(lane), object.remove("data").unwrap_or_default())
    } else if object.contains_key("channel") {
        (None, Value::Object(object))
    } else {
        return Err(Unreadable::UnknownShape);
    };
    // The path only: serde quotes what it did not expect.
    let queued: Queued = serde_path_to_error::deserialize(data)
        .map_err(|error| Unreadable::InvalidSchema(format!("at `{}`", error.path())))?;
    let said = queued.channel.as_deref().and_then(|channel| channel.parse::<Channel>().ok());
    let named = pattern.or_else(|| Lane::from_name(raw.source)).map(|lane| lane.channel);
    let channel = said.or(named).ok_or(Unreadable::UnknownChannel)?;
    if named.is_some_and(|named| named != channel) {
        tracing::warn!(queue = raw.source, %channel, "a message names another channel than its pattern or queue");
    }
    let records = queued.context.map_or_else(RecordIds::default, |context| RecordIds {
        contact_id: context.contact_id,
        lead_id: context.lead_id,
        deal_id: context.deal_id,
        company_id: context.company_id,
    });
    let ids = [
        ("id", &queued.id),
        ("context.contactId", &records.contact_id),
        ("context.dealId", &records.deal_id),
        ("context.companyId", &records.company_id),
    ];
    let is_id = |id: &String| id.len() <= LONGEST_ID_BYTES && !id.contains(char::is_control);
    if let Some((place, _)) = ids.iter().find(|(_, id)| id.as_ref().is_some_and(|id| !is_id(id))) {
        return Err(Unreadable::InvalidSchema(format!("at `{place}`")));
    }
    let filled = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let retries = |given: Option<i64>, usual: i64| {
        // Clamped, so it fits.
        i16::try_from(given.unwrap_or(usual).clamp(0, MOST_RETRIES)).unwrap_or_default()
    };
    Ok(ForeignNotification {
        source: raw.source.to_owned(),
        external_id: filled(queued.id).or_else(|| filled(raw.message_id.map(str::to_owned))),
        redelivered: raw.redelivered,
        body_hash: Sha256::digest(raw.body).into(),
        channel,
        template_id: filled(queued.template_id),
        recipient: filled(queued.recipient),
        records,
        priority: match queued.priority {
            Some(Word::High) => Priority::High,
            Some(Word::Normal) | None => Priority::Normal,
            Some(Word::Low) => Priority::Low,
        },
        scheduled_at: queued.scheduled_at,
        retry_count: retries(queued.retry_count, 0),
        max_retries: retries(queued.max_retries, USUAL_RETRIES),
        metadata: queued.metadata,
    })
}

/// A string, or an object with a string `cmd`; either names a lane.
fn pattern(pattern: &Value) -> Option<Lane> {
    let name = pattern.as_str().or_else(|| pattern.get("cmd")?.as_str())?;
    Lane::from_name(name)
}

#[cfg(test)]
mod tests;
