//! The four ways a message can leave.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A way to reach a person. The wire names are those of the request: `whatsapp`, `telegram`, `sms`, `email`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    WhatsApp,
    Telegram,
    Sms,
    Email,
}

impl Channel {
    pub const ALL: [Channel; 4] = [Channel::WhatsApp, Channel::Telegram, Channel::Sms, Channel::Email];

    pub const fn as_str(self) -> &'static str {
        match self {
            Channel::WhatsApp => "whatsapp",
            Channel::Telegram => "telegram",
            Channel::Sms => "sms",
            Channel::Email => "email",
        }
    }

    /// The number the ledger keeps. Never renumber: rows on disk carry it.
    pub const fn code(self) -> i16 {
        match self {
            Channel::WhatsApp => 1,
            Channel::Telegram => 2,
            Channel::Sms => 3,
            Channel::Email => 4,
        }
    }

    pub fn from_code(code: i16) -> Option<Channel> {
        Channel::ALL.into_iter().find(|channel| channel.code() == code)
    }

    /// Whether the provider reports what became of a message later. Telegram's Bot API never does
    /// (core.telegram.org/bots/api), so nothing can settle an uncertain send there but a person.
    pub const fn has_receipts(self) -> bool {
        !matches!(self, Channel::Telegram)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not one of the four channel names.
#[derive(Debug, thiserror::Error)]
#[error("unknown channel `{0}`: expected whatsapp, telegram, sms or email")]
pub struct UnknownChannel(String);

impl FromStr for Channel {
    type Err = UnknownChannel;

    fn from_str(text: &str) -> Result<Self, UnknownChannel> {
        Channel::ALL
            .into_iter()
            .find(|channel| channel.as_str() == text)
            .ok_or_else(|| UnknownChannel(text.chars().take(40).collect()))
    }
}
