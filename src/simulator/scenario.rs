//! How the providers behave: what they accept, how fast they are, what goes wrong and how often.
//!
//! A scenario is JSON, from a file or over HTTP. A field it does not know is refused with its path, as is a value
//! that makes no sense; what it leaves out stays at its default: everything works, at once.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::fault::FaultKind;
use super::latency::Latency;
use super::{telegram, whatsapp};

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Scenario {
    pub whatsapp: WhatsAppScenario,
    pub telegram: TelegramScenario,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct WhatsAppScenario {
    /// The bearer tokens that are let in.
    pub tokens: Vec<String>,
    /// The sending numbers that exist.
    pub phone_numbers: Vec<PhoneNumberScenario>,
    /// The approved templates, by name. None at all: any template is taken.
    pub templates: BTreeMap<String, TemplateScenario>,
    pub latency_ms: Latency,
    /// Refusals by chance.
    pub errors: Vec<ErrorShare>,
    pub rate_limits: RateLimits,
    /// What happens to messages for one recipient, by address.
    pub recipients: BTreeMap<String, Rule>,
    /// Faults by chance.
    pub faults: Vec<FaultShare>,
    /// What happens to the next messages, once each, in this order.
    pub next: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TelegramScenario {
    /// The bots that exist, as `<bot id>:<secret>`.
    pub tokens: Vec<String>,
    pub latency_ms: Latency,
    /// Refusals by chance.
    pub errors: Vec<ErrorShare>,
    pub rate_limits: RateLimits,
    /// What happens to messages for one chat, by its id or `@name`.
    pub recipients: BTreeMap<String, Rule>,
    /// Faults by chance.
    pub faults: Vec<FaultShare>,
    /// What happens to the next messages, once each, in this order.
    pub next: Vec<Rule>,
}

/// A sending number, and what a look at it shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct PhoneNumberScenario {
    pub id: String,
    pub display_phone_number: String,
    pub verified_name: String,
    pub quality_rating: String,
}

/// An approved template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TemplateScenario {
    /// The languages it is approved in, as `language.code` names them.
    pub languages: Vec<String>,
    pub header_parameters: usize,
    pub body_parameters: usize,
    /// What the answer says of it; `accepted` unless set.
    pub message_status: Option<String>,
}

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
    /// For `bad_gateway` only: whether the message was taken before the proxy failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<bool>,
}

/// The provider's own limits. Absent means none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RateLimits {
    /// Messages per second from one account (phone number or bot).
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
    /// For `bad_gateway` only: whether the message was taken before the proxy failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<bool>,
    /// How many messages it holds for, counted since the scenario was set; absent is all (in `next`: one).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// In place of the provider's latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<Latency>,
}

/// A provider's name for a refusal: Meta's number, or a word for one of Telegram's descriptions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ErrorCode(pub String);

impl Default for WhatsAppScenario {
    fn default() -> Self {
        WhatsAppScenario {
            tokens: vec![whatsapp::DEFAULT_TOKEN.to_owned()],
            phone_numbers: vec![PhoneNumberScenario::default()],
            templates: BTreeMap::new(),
            latency_ms: Latency::default(),
            errors: Vec::new(),
            rate_limits: RateLimits::default(),
            recipients: BTreeMap::new(),
            faults: Vec::new(),
            next: Vec::new(),
        }
    }
}

impl Default for TelegramScenario {
    fn default() -> Self {
        TelegramScenario {
            tokens: vec![telegram::DEFAULT_TOKEN.to_owned()],
            latency_ms: Latency::default(),
            errors: Vec::new(),
            rate_limits: RateLimits::default(),
            recipients: BTreeMap::new(),
            faults: Vec::new(),
            next: Vec::new(),
        }
    }
}

impl Default for PhoneNumberScenario {
    fn default() -> Self {
        PhoneNumberScenario {
            id: whatsapp::DEFAULT_PHONE_NUMBER_ID.to_owned(),
            display_phone_number: "+1 555-010-0001".to_owned(),
            verified_name: "Vestnik Simulator".to_owned(),
            quality_rating: "GREEN".to_owned(),
        }
    }
}

/// A scenario that cannot be played: where the mistake is, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {detail}")]
pub struct ScenarioError {
    /// As in `whatsapp.errors[0].code`.
    pub path: String,
    pub detail: String,
}

impl ScenarioError {
    pub(super) fn new(path: impl Into<String>, detail: impl Into<String>) -> Self {
        ScenarioError { path: path.into(), detail: detail.into() }
    }
}

impl Scenario {
    /// Reads a scenario and checks that it makes sense.
    pub fn parse(json: &[u8]) -> Result<Scenario, ScenarioError> {
        let scenario: Scenario = parse_json(json)?;
        scenario.checked()
    }

    /// The same scenario in the form that lookups expect (recipients as the provider writes them), or what is wrong.
    pub fn checked(mut self) -> Result<Scenario, ScenarioError> {
        self.whatsapp.checked()?;
        self.telegram.checked()?;
        Ok(self)
    }
}

impl WhatsAppScenario {
    pub(super) fn behaviour(&self) -> Behaviour<'_> {
        Behaviour {
            latency: &self.latency_ms,
            errors: &self.errors,
            rate_limits: &self.rate_limits,
            recipients: &self.recipients,
            faults: &self.faults,
        }
    }

    fn checked(&mut self) -> Result<(), ScenarioError> {
        let recipients = std::mem::take(&mut self.recipients);
        self.recipients = recipients.into_iter().map(|(to, rule)| (whatsapp::canonical_recipient(&to), rule)).collect();
        if self.recipients.contains_key("") {
            return Err(ScenarioError::new("whatsapp.recipients", "expected phone numbers"));
        }
        for rule in &mut self.next {
            rule.recipient = rule.recipient.as_deref().map(whatsapp::canonical_recipient);
        }
        self.behaviour().check("whatsapp", whatsapp::check_error_code)?;
        check_next(&self.next, "whatsapp.next", whatsapp::check_error_code)
    }
}

impl TelegramScenario {
    pub(super) fn behaviour(&self) -> Behaviour<'_> {
        Behaviour {
            latency: &self.latency_ms,
            errors: &self.errors,
            rate_limits: &self.rate_limits,
            recipients: &self.recipients,
            faults: &self.faults,
        }
    }

    fn checked(&mut self) -> Result<(), ScenarioError> {
        for (index, token) in self.tokens.iter().enumerate() {
            if telegram::bot_id(token).is_none() {
                let path = format!("telegram.tokens[{index}]");
                return Err(ScenarioError::new(path, "expected `<bot id>:<secret>` of digits, letters, `_` and `-`"));
            }
        }
        self.behaviour().check("telegram", telegram::check_error_code)?;
        check_next(&self.next, "telegram.next", telegram::check_error_code)
    }
}

/// What both providers have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behaviour<'a> {
    pub(super) latency: &'a Latency,
    pub(super) errors: &'a [ErrorShare],
    pub(super) rate_limits: &'a RateLimits,
    pub(super) recipients: &'a BTreeMap<String, Rule>,
    pub(super) faults: &'a [FaultShare],
}

/// Says whether a provider knows a code.
pub(super) type CheckErrorCode = fn(&ErrorCode) -> Result<(), String>;

impl Behaviour<'_> {
    fn check(&self, path: &str, known: CheckErrorCode) -> Result<(), ScenarioError> {
        self.latency.check().map_err(|detail| ScenarioError::new(format!("{path}.latencyMs"), detail))?;
        let mut total = 0.0;
        for (index, ErrorShare { code, share }) in self.errors.iter().enumerate() {
            known(code).map_err(|detail| ScenarioError::new(format!("{path}.errors[{index}].code"), detail))?;
            check_share(*share, || format!("{path}.errors[{index}].share"))?;
            total += share;
        }
        for (index, FaultShare { kind, share, taken }) in self.faults.iter().enumerate() {
            check_share(*share, || format!("{path}.faults[{index}].share"))?;
            check_taken(Some(*kind), *taken, || format!("{path}.faults[{index}].taken"))?;
            total += share;
        }
        /// Shares such as 0.1 are not exact in binary; ten of them must still fit.
        const ROUNDING: f64 = 1e-9;
        if total > 1.0 + ROUNDING {
            return Err(ScenarioError::new(path, "the shares of `errors` and `faults` add up to more than 1"));
        }
        self.rate_limits.check(&format!("{path}.rateLimits"))?;
        for (recipient, rule) in self.recipients {
            let path = format!("{path}.recipients.{recipient}");
            if rule.recipient.is_some() {
                return Err(ScenarioError::new(
                    format!("{path}.recipient"),
                    "only for `next`; the key is the recipient",
                ));
            }
            rule.check(&path, known)?;
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
    pub(super) fn check(&self, path: &str, known: CheckErrorCode) -> Result<(), ScenarioError> {
        if usize::from(self.error.is_some()) + usize::from(self.fault.is_some()) + usize::from(self.ok) != 1 {
            return Err(ScenarioError::new(path, "expected exactly one of `error`, `fault` and `\"ok\": true`"));
        }
        if let Some(code) = &self.error {
            known(code).map_err(|detail| ScenarioError::new(format!("{path}.error"), detail))?;
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

pub(super) fn check_next(rules: &[Rule], path: &str, known: CheckErrorCode) -> Result<(), ScenarioError> {
    rules.iter().enumerate().try_for_each(|(index, rule)| rule.check(&format!("{path}[{index}]"), known))
}

fn check_share(share: f64, path: impl FnOnce() -> String) -> Result<(), ScenarioError> {
    if (0.0..=1.0).contains(&share) { Ok(()) } else { Err(ScenarioError::new(path(), "expected a share from 0 to 1")) }
}

fn check_taken(
    fault: Option<FaultKind>,
    taken: Option<bool>,
    path: impl FnOnce() -> String,
) -> Result<(), ScenarioError> {
    if taken.is_some() && fault != Some(FaultKind::BadGateway) {
        return Err(ScenarioError::new(path(), "only for `bad_gateway`; every other fault says itself what was taken"));
    }
    Ok(())
}

/// Reads JSON and names the place of a mistake.
pub(super) fn parse_json<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, ScenarioError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| ScenarioError::new(error.path().to_string(), error.inner().to_string()))?;
    deserializer.end().map_err(|error| ScenarioError::new(".", error.to_string()))?;
    Ok(value)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(json: &str) -> ScenarioError {
        Scenario::parse(json.as_bytes()).expect_err(json)
    }

    #[test]
    fn nothing_set_is_everything_works() {
        let scenario = Scenario::parse(b"{}").expect("an empty scenario");
        assert_eq!(scenario, Scenario::default());
        let json = serde_json::to_vec(&scenario).expect("JSON");
        assert_eq!(Scenario::parse(&json).expect("its own JSON"), scenario);
    }

    #[test]
    fn a_mistake_is_named_with_its_path() {
        for (json, path) in [
            (r#"{"whatsap":{}}"#, "whatsap"),
            (r#"{"whatsapp":{"latencyMs":{"min":1,"p50":2}}}"#, "whatsapp.latencyMs"),
            (r#"{"whatsapp":{"latencyMs":-3}}"#, "whatsapp.latencyMs"),
            (r#"{"whatsapp":{"errors":[{"code":42,"share":0.1}]}}"#, "whatsapp.errors[0].code"),
            (r#"{"whatsapp":{"errors":[{"code":131026,"share":1.5}]}}"#, "whatsapp.errors[0].share"),
            (r#"{"telegram":{"errors":[{"code":"nope","share":0.1}]}}"#, "telegram.errors[0].code"),
            (r#"{"telegram":{"faults":[{"kind":"explode","share":0.1}]}}"#, "telegram.faults[0].kind"),
            (r#"{"telegram":{"faults":[{"kind":"hang","share":0.1,"taken":true}]}}"#, "telegram.faults[0].taken"),
            (r#"{"telegram":{"recipients":{"5":{"ok":true,"error":"blocked"}}}}"#, "telegram.recipients.5"),
            (r#"{"whatsapp":{"recipients":{"Anna":{"ok":true}}}}"#, "whatsapp.recipients"),
            (r#"{"telegram":{"rateLimits":{"perSecond":0}}}"#, "telegram.rateLimits.perSecond"),
            (r#"{"telegram":{"tokens":["x"]}}"#, "telegram.tokens[0]"),
            (r#"{"telegram":{"next":[{}]}}"#, "telegram.next[0]"),
            (
                r#"{"telegram":{"errors":[{"code":"blocked","share":0.7}],"faults":[{"kind":"hang","share":0.7}]}}"#,
                "telegram",
            ),
        ] {
            assert_eq!(mistake(json).path, path, "{json}");
        }
        assert!(mistake("{} x").detail.contains("trailing"));
    }

    #[test]
    fn recipients_are_kept_as_the_provider_writes_them() {
        let json = br#"{"whatsapp":{"recipients":{"+7 999 123-45-67":{"error":131026}}}}"#;
        let scenario = Scenario::parse(json).expect("a scenario");
        assert!(scenario.whatsapp.recipients.contains_key("79991234567"));
    }
}
