//! A text given with the call, which no template made.

use super::limits::{SMS_CHARS, TELEGRAM_TEXT_UTF16, WHATSAPP_TEXT_CHARS};
use super::output::{is_blank, utf16_units, without_controls};
use super::{Engine, RenderError};
use crate::domain::{Channel, Content};

impl Engine {
    /// What leaves for a given text: itself, without control characters, within its channel's limit.
    pub fn given(&self, channel: Channel, text: &str) -> Result<Content, RenderError> {
        const PART: &str = "/text";
        let limit_bytes = self.limits().output_bytes;
        if text.len() > limit_bytes {
            return Err(RenderError::TooBig { part: PART.into(), limit_bytes });
        }
        let text = without_controls(text.to_owned());
        if is_blank(&text) {
            return Err(RenderError::Empty { part: PART.into() });
        }
        let (length, limit) = match channel {
            Channel::WhatsApp => (text.chars().count(), WHATSAPP_TEXT_CHARS),
            Channel::Telegram => (utf16_units(&text), TELEGRAM_TEXT_UTF16),
            Channel::Sms => (text.chars().count(), SMS_CHARS),
            Channel::Email => (0, 0),
        };
        if length > limit {
            return Err(RenderError::TooLong { part: PART.into(), channel, limit, length });
        }
        Ok(Content::Text(text))
    }
}
