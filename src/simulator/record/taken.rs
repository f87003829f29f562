//! What the record tells of a message that was taken, and what is told to it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::Channel;
use crate::simulator::receipts::Fate;

/// One message that a provider took responsibility for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// Its place in the record, from 1.
    pub n: u64,
    pub channel: Channel,
    /// The sender: a phone number id, a bot's id, Twilio's account, a mail user. Never a token.
    pub account: String,
    pub recipient: String,
    /// What the person reads; `None` for a WhatsApp template, whose text only Meta knows, and for a mail without a
    /// text part.
    pub text: Option<String>,
    /// An email's, decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// An email's, decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// The text as it was sent, where markup made it differ from `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// The `template` object of a WhatsApp template message, as it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sms: Option<TakenSms>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<TakenEmail>,
    /// The sender's own id: `biz_opaque_callback_data`, a mail's `Message-ID`, the gateway's `id`; Telegram and Twilio
    /// carry none.
    pub our_id: Option<String>,
    /// What the answer names the message; for Telegram `<chat id>:<message id>`.
    pub provider_message_id: String,
    /// How far its receipts will go, where the provider posts any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Fate>,
    pub at: Timestamp,
}

/// What only an SMS has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TakenSms {
    /// `twilio` or `smsc`.
    pub provider: String,
    /// As they came.
    pub to: String,
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messaging_service_sid: Option<String>,
    /// `GSM-7` or `UCS-2`.
    pub encoding: String,
    pub segments: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_callback: Option<String>,
}

/// What only an email has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TakenEmail {
    /// The envelope's sender; empty for a bounce.
    pub from: String,
    /// What the client called itself.
    pub client: String,
    pub tls: bool,
    pub size_bytes: usize,
    /// Who its `From` says it is from, decoded: `Name <address>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// In their order, unfolded, otherwise as they came.
    pub headers: Vec<(String, String)>,
    pub attachments: Vec<TakenAttachment>,
}

/// A file that came with an email.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TakenAttachment {
    /// Decoded; empty where none is given.
    pub name: String,
    pub content_type: String,
    /// Decoded.
    pub size_bytes: usize,
}

/// A message about to be recorded.
#[derive(Clone, Debug, Default)]
pub(in crate::simulator) struct Message {
    pub(in crate::simulator) account: String,
    pub(in crate::simulator) recipient: String,
    pub(in crate::simulator) text: Option<String>,
    pub(in crate::simulator) subject: Option<String>,
    pub(in crate::simulator) html: Option<String>,
    pub(in crate::simulator) raw: Option<String>,
    /// What only its channel has, as JSON: the `template`, [`TakenSms`] or [`TakenEmail`].
    pub(in crate::simulator) details: Option<String>,
    pub(in crate::simulator) our_id: Option<String>,
}

/// What a reader of the record wants to see.
#[derive(Clone, Debug, Default)]
pub struct TakenQuery {
    /// Entries after this number only.
    pub after: u64,
    pub limit: usize,
    pub channel: Option<Channel>,
    pub recipient: Option<String>,
    /// Entries with this in their recipient, subject, text, HTML or template, in large or small letters.
    pub search: Option<String>,
}
