//! What happens to messages, in words that all providers share: errors, faults, limits, rules; and their checks.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{ReceiptScenario, ScenarioError};
use crate::domain::Channel;
use crate::simulator::fault::FaultKind;
use crate::simulator::latency::Latency;
use crate::simulator::receipts::Fate;
use crate::simulator::smtp::{ScriptedReply, SmtpStage};
use crate::simulator::{telegram, twilio, whatsapp};

/// A refusal, and the share of all messages it meets (0 to 1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ErrorShare {
    pub code: ErrorCode,
    pub share: f64,
}

/// A fault, and the share of all messages it meets (0 to 1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FaultShare {
    pub kind: FaultKind,
    pub share: f64,
    /// For `bad_gateway` and what goes wrong at a mail's end: whether the message was taken all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<bool>,
}

/// The provider's own limits. Absent means none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RateLimits {
    /// Messages per second from one account (phone number, bot or mail user); of SMS, segments per sender.
    pub per_second: Option<f64>,
    /// How many an account may send at once after a quiet time; 1 unless set.
    pub burst: Option<u32>,
    /// Messages per second from one account to one recipient.
    pub per_recipient_per_second: Option<f64>,
    /// How many may go to one recipient at once; 1 unless set.
    pub per_recipient_burst: Option<u32>,
}

/// What happens to a message. Exactly one of `error`, `fault` and `ok` is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Rule {
    /// In `next` only: waits for a message to this recipient; absent is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultKind>,
    /// Taken, whatever chance and the limits say.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ok: bool,
    /// For `bad_gateway` and what goes wrong at a mail's end: whether the message was taken all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<bool>,
    /// How many messages it holds for, counted since the scenario was set; absent is all (in `next`: one).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// What its receipts will say, if it is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Fate>,
    /// In place of the provider's latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<Latency>,
}

/// A provider's name for a refusal: Meta's or Twilio's number, a word for one of Telegram's descriptions, or a mail
/// server's reply.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ErrorCode(pub String);

/// When it is decided what becomes of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simulator) enum Point {
    /// A mail client has connected; nothing is known of what it wants.
    Connection,
    /// A mail's sender is known and its recipients are not.
    Envelope,
    /// A message and its recipient are known.
    Message,
}

impl Point {
    fn of_stage(stage: SmtpStage) -> Point {
        match stage {
            SmtpStage::Banner | SmtpStage::Ehlo | SmtpStage::StartTls | SmtpStage::Auth => Point::Connection,
            SmtpStage::Mail => Point::Envelope,
            SmtpStage::Rcpt | SmtpStage::Data | SmtpStage::Dot => Point::Message,
        }
    }

    pub(in crate::simulator) fn of_fault(fault: FaultKind) -> Point {
        match fault {
            FaultKind::Smtp(fault) => Point::of_stage(fault.stage),
            _ => Point::Message,
        }
    }

    pub(in crate::simulator) fn of_error(channel: Channel, code: &ErrorCode) -> Point {
        match channel {
            Channel::Email => {
                ScriptedReply::parse(&code.0).map_or(Point::Message, |scripted| Point::of_stage(scripted.stage()))
            }
            Channel::WhatsApp | Channel::Telegram | Channel::Sms => Point::Message,
        }
    }
}

/// What all providers have in common.
#[derive(Clone, Copy, Debug)]
pub(in crate::simulator) struct Behaviour<'a> {
    pub(in crate::simulator) latency: &'a Latency,
    pub(in crate::simulator) errors: &'a [ErrorShare],
    pub(in crate::simulator) rate_limits: &'a RateLimits,
    pub(in crate::simulator) recipients: &'a BTreeMap<String, Rule>,
    pub(in crate::simulator) faults: &'a [FaultShare],
    pub(in crate::simulator) receipts: &'a ReceiptScenario,
}

impl Behaviour<'_> {
    pub(super) fn check(&self, path: &str, channel: Channel) -> Result<(), ScenarioError> {
        self.latency.check().map_err(|detail| ScenarioError::new(format!("{path}.latencyMs"), detail))?;
        let mut total = 0.0;
        for (index, ErrorShare { code, share }) in self.errors.iter().enumerate() {
            known(channel, code)
                .map_err(|detail| ScenarioError::new(format!("{path}.errors[{index}].code"), detail))?;
            check_share(*share, || format!("{path}.errors[{index}].share"))?;
            total += share;
        }
        for (index, FaultShare { kind, share, taken }) in self.faults.iter().enumerate() {
            check_kind(channel, *kind, || format!("{path}.faults[{index}].kind"))?;
            check_share(*share, || format!("{path}.faults[{index}].share"))?;
            check_taken(Some(*kind), *taken, || format!("{path}.faults[{index}].taken"))?;
            total += share;
        }
        /// Shares such as 0.1 are not exact in binary; ten of them must still fit.
        const ROUNDING: f64 = 1e-9;
        if total > 1.0 + ROUNDING {
            return Err(ScenarioError::new(path, "the shares of `errors` and `faults` add up to more than 1"));
        }
        self.receipts.check(&format!("{path}.receipts"), channel)?;
        self.rate_limits.check(&format!("{path}.rateLimits"))?;
        for (recipient, rule) in self.recipients {
            let path = format!("{path}.recipients.{recipient}");
            if rule.recipient.is_some() {
                return Err(ScenarioError::new(
                    format!("{path}.recipient"),
                    "only for `next`; the key is the recipient",
                ));
            }
            rule.check(&path, channel)?;
        }
        Ok(())
    }
}

impl RateLimits {
    fn check(&self, path: &str) -> Result<(), ScenarioError> {
        for (field, value) in [("perSecond", self.per_second), ("perRecipientPerSecond", self.per_recipient_per_second)]
        {
            if value.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
                return Err(ScenarioError::new(format!("{path}.{field}"), "expected a number above 0"));
            }
        }
        for (field, value) in [("burst", self.burst), ("perRecipientBurst", self.per_recipient_burst)] {
            if value == Some(0) {
                return Err(ScenarioError::new(format!("{path}.{field}"), "expected 1 or more"));
            }
        }
        Ok(())
    }
}

impl Rule {
    pub(in crate::simulator) fn check(&self, path: &str, channel: Channel) -> Result<(), ScenarioError> {
        if usize::from(self.error.is_some()) + usize::from(self.fault.is_some()) + usize::from(self.ok) != 1 {
            return Err(ScenarioError::new(path, "expected exactly one of `error`, `fault` and `\"ok\": true`"));
        }
        if let Some(code) = &self.error {
            known(channel, code).map_err(|detail| ScenarioError::new(format!("{path}.error"), detail))?;
        }
        if let Some(kind) = self.fault {
            check_kind(channel, kind, || format!("{path}.fault"))?;
        }
        if self.receipt.is_some() && !posts_receipts(channel) {
            return Err(ScenarioError::new(format!("{path}.receipt"), "this provider posts no receipts"));
        }
        check_taken(self.fault, self.taken, || format!("{path}.taken"))?;
        if self.times == Some(0) {
            return Err(ScenarioError::new(format!("{path}.times"), "expected 1 or more"));
        }
        if let Some(latency) = &self.latency_ms {
            latency.check().map_err(|detail| ScenarioError::new(format!("{path}.latencyMs"), detail))?;
        }
        Ok(())
    }
}

pub(in crate::simulator) fn check_next(rules: &[Rule], path: &str, channel: Channel) -> Result<(), ScenarioError> {
    rules.iter().enumerate().try_for_each(|(index, rule)| rule.check(&format!("{path}[{index}]"), channel))
}

fn check_share(share: f64, path: impl FnOnce() -> String) -> Result<(), ScenarioError> {
    if (0.0..=1.0).contains(&share) { Ok(()) } else { Err(ScenarioError::new(path(), "expected a share from 0 to 1")) }
}

fn check_taken(
    fault: Option<FaultKind>,
    taken: Option<bool>,
    path: impl FnOnce() -> String,
) -> Result<(), ScenarioError> {
    if taken.is_some() && !fault.is_some_and(FaultKind::takes_as_told) {
        let detail = "only for `bad_gateway` and faults `_at_dot`; every other says itself what was taken";
        return Err(ScenarioError::new(path(), detail));
    }
    Ok(())
}

fn check_kind(channel: Channel, kind: FaultKind, path: impl FnOnce() -> String) -> Result<(), ScenarioError> {
    match (channel, kind) {
        (Channel::Email, FaultKind::Smtp(_)) => Ok(()),
        (Channel::Email, _) => Err(ScenarioError::new(path(), "a mail server's faults are as in `drop_at_dot`")),
        (_, FaultKind::Smtp(_)) => Err(ScenarioError::new(path(), "only a mail server fails so")),
        (Channel::WhatsApp | Channel::Telegram | Channel::Sms, _) => Ok(()),
    }
}

/// Says whether a provider knows a code.
fn known(channel: Channel, code: &ErrorCode) -> Result<(), String> {
    match channel {
        Channel::WhatsApp => whatsapp::check_error_code(code),
        Channel::Telegram => telegram::check_error_code(code),
        Channel::Sms => twilio::check_error_code(code),
        Channel::Email => ScriptedReply::parse(&code.0).map(|_| ()),
    }
}

/// Telegram has no receipts, and a mail server's would be mails of its own.
pub(super) fn posts_receipts(channel: Channel) -> bool {
    matches!(channel, Channel::WhatsApp | Channel::Sms)
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrWord;

        impl Visitor<'_> for NumberOrWord {
            type Value = ErrorCode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an error code, as a number or a word")
            }

            fn visit_u64<E: de::Error>(self, code: u64) -> Result<ErrorCode, E> {
                Ok(ErrorCode(code.to_string()))
            }

            fn visit_str<E: de::Error>(self, code: &str) -> Result<ErrorCode, E> {
                Ok(ErrorCode(code.to_owned()))
            }
        }

        deserializer.deserialize_any(NumberOrWord)
    }
}

impl From<&str> for ErrorCode {
    fn from(code: &str) -> Self {
        ErrorCode(code.to_owned())
    }
}
