//! The fields of a record that have a meaning here, and the one form each is kept in.

use phonenumber::country;
use serde_json::Value;

use super::{RecordId, RecordKind};
use crate::domain::{ChatId, EmailAddress, PhoneNumber, RecipientError};

/// A field with a meaning.
pub(super) enum Known {
    Phone,
    Email,
    Chat,
    Locale,
    Timezone,
    Link(RecordKind),
}

impl Known {
    /// The one form of what was given; null for none.
    pub(super) fn read(&self, given: &Value, region: Option<country::Id>) -> Result<Value, String> {
        let text = match given {
            Value::Null => return Ok(Value::Null),
            given => as_text(given).ok_or("expected a text or a number")?,
        };
        let text = text.trim();
        if text.is_empty() {
            return Ok(Value::Null);
        }
        let words = |error: RecipientError| error.to_string();
        Ok(match self {
            Known::Phone => PhoneNumber::parse(text, region).map_err(words)?.as_str().into(),
            Known::Email => EmailAddress::parse(text).map_err(words)?.as_str().into(),
            Known::Chat => match ChatId::parse(text).map_err(words)? {
                ChatId::Numeric(id) => id.into(),
                // A public channel is nobody's own chat.
                ChatId::Name(_) => return Err("expected the numeric id of the person's chat".into()),
            },
            Known::Locale => parse_locale(text).ok_or("expected a language, like ru or en-GB")?.into(),
            Known::Timezone => match jiff::tz::TimeZone::get(text) {
                Ok(zone) => zone.iana_name().unwrap_or(text).into(),
                Err(_) => return Err("expected a time zone of the IANA list, like Europe/Moscow".into()),
            },
            Known::Link(kind) => RecordId::parse(*kind, text).map_err(|error| error.to_string())?.as_str().into(),
        })
    }
}

/// A language tag in its usual form (RFC 5646): `ru`, `en-GB`, `sr-Latn-RS`. `_` is read as `-`.
pub fn parse_locale(text: &str) -> Option<String> {
    let text = text.trim().replace('_', "-");
    let mut subtags = text.split('-');
    let language = subtags.next().filter(|tag| (2..=3).contains(&tag.len()))?;
    if text.len() > 35 || !language.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return None;
    }
    let mut locale = language.to_ascii_lowercase();
    for subtag in subtags {
        if !(1..=8).contains(&subtag.len()) || !subtag.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        locale.push('-');
        match subtag.len() {
            2 => locale.push_str(&subtag.to_ascii_uppercase()),
            4 if subtag.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
                locale.push_str(&subtag[..1].to_ascii_uppercase());
                locale.push_str(&subtag[1..].to_ascii_lowercase());
            }
            _ => locale.push_str(&subtag.to_ascii_lowercase()),
        }
    }
    Some(locale)
}

pub(super) fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// How deep values nest. `serde_json` bounds it when it parses, so that this may recurse.
pub(super) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
