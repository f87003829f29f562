//! How the providers behave: what they accept, how fast they are, what goes wrong and how often.
//!
//! A scenario is JSON, from a file or over HTTP. A field it does not know is refused with its path, as is a value
//! that makes no sense; what it leaves out stays at its default: everything works, at once. It may change with time
//! ([`phases`]).

mod channels;
mod phases;
mod receipts;
mod rules;

use serde::{Deserialize, Serialize};

pub(super) use self::channels::canonical_recipient;
pub use self::channels::{
    EmailScenario, GatewayScenario, PhoneNumberScenario, SmsScenario, TelegramScenario, TemplateScenario,
    TwilioAccountScenario, WhatsAppScenario,
};
pub use self::phases::Phase;
pub(super) use self::phases::Timeline;
pub use self::receipts::ReceiptScenario;
pub(super) use self::rules::{Behaviour, Point};
pub use self::rules::{ErrorCode, ErrorShare, FaultShare, RateLimits, Rule};
use crate::domain::Channel;

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Scenario {
    /// What chance starts from; absent leaves it as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    pub whatsapp: WhatsAppScenario,
    pub telegram: TelegramScenario,
    pub sms: SmsScenario,
    pub email: EmailScenario,
    /// What is different later, by the time since the scenario was set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<Phase>,
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
        self.sms.checked()?;
        self.email.checked()?;
        phases::check(&self)?;
        Ok(self)
    }

    /// What waits for the next messages to one provider.
    pub(super) fn next(&self, channel: Channel) -> &[Rule] {
        match channel {
            Channel::WhatsApp => &self.whatsapp.next,
            Channel::Telegram => &self.telegram.next,
            Channel::Sms => &self.sms.next,
            Channel::Email => &self.email.next,
        }
    }

    pub(super) fn next_mut(&mut self, channel: Channel) -> &mut Vec<Rule> {
        match channel {
            Channel::WhatsApp => &mut self.whatsapp.next,
            Channel::Telegram => &mut self.telegram.next,
            Channel::Sms => &mut self.sms.next,
            Channel::Email => &mut self.email.next,
        }
    }
}

/// Reads JSON and names the place of a mistake.
pub(super) fn parse_json<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, ScenarioError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| ScenarioError::new(error.path().to_string(), error.inner().to_string()))?;
    deserializer.end().map_err(|error| ScenarioError::new(".", error.to_string()))?;
    Ok(value)
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
            (r#"{"telegram":{"faults":[{"kind":"drop_at_dot","share":0.1}]}}"#, "telegram.faults[0].kind"),
            (r#"{"telegram":{"next":[{"ok":true,"receipt":"read"}]}}"#, "telegram.next[0].receipt"),
            (r#"{"sms":{"accounts":[{"sid":"AC1"}]}}"#, "sms.accounts[0].sid"),
            (r#"{"sms":{"errors":[{"code":1,"share":0.1}]}}"#, "sms.errors[0].code"),
            (r#"{"sms":{"receipts":{"url":"http://x"}}}"#, "sms.receipts.url"),
            (r#"{"whatsapp":{"receipts":{"read":0.9,"delivered":0.5}}}"#, "whatsapp.receipts.read"),
            (r#"{"email":{"errors":[{"code":250,"share":0.1}]}}"#, "email.errors[0].code"),
            (r#"{"email":{"faults":[{"kind":"hang","share":0.1}]}}"#, "email.faults[0].kind"),
            (r#"{"email":{"next":[{"fault":"drop_at_mail","taken":true}]}}"#, "email.next[0].taken"),
            (r#"{"email":{"extensions":["ETRN"]}}"#, "email.extensions[0]"),
            (r#"{"phases":[{"afterMs":5,"sms":{"senders":5}}]}"#, "phases[0].sms.senders"),
            (r#"{"phases":[{"afterMs":5},{"afterMs":5}]}"#, "phases[1].afterMs"),
            (r#"{"phases":[{"afterMs":5,"sms":{"next":[]}}]}"#, "phases[0].sms.next"),
            (
                r#"{"telegram":{"errors":[{"code":"blocked","share":0.7}],"faults":[{"kind":"hang","share":0.7}]}}"#,
                "telegram",
            ),
        ] {
            assert_eq!(mistake(json).path, path, "{json}");
        }
        assert!(mistake("{} x").detail.contains("trailing"));
        let unknown = mistake(r#"{"sms":{"faults":[{"kind":"explode","share":0.1}]}}"#).detail;
        assert!(unknown.contains("rubbish_200, endless_body") && unknown.contains("<what>_at_<step>"), "{unknown}");
    }

    #[test]
    fn recipients_are_kept_as_the_provider_writes_them() {
        let json = br#"{"whatsapp":{"recipients":{"+7 999 123-45-67":{"error":131026}}}}"#;
        let scenario = Scenario::parse(json).expect("a scenario");
        assert!(scenario.whatsapp.recipients.contains_key("79991234567"));
    }
}
