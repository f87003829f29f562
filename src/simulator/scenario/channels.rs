//! Each provider's part of a scenario.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rules::{Behaviour, ErrorShare, FaultShare, RateLimits, Rule, check_next};
use super::{ReceiptScenario, ScenarioError};
use crate::domain::Channel;
use crate::simulator::latency::Latency;
use crate::simulator::{smtp, telegram, twilio, whatsapp};

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
    pub receipts: ReceiptScenario,
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

/// Twilio, and a gateway in the manner of SMSC.ru, which take messages for the same recipients and behave alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SmsScenario {
    pub accounts: Vec<TwilioAccountScenario>,
    /// The numbers, names and messaging services that may send. None at all: any that is well formed.
    pub senders: Vec<String>,
    pub gateway: GatewayScenario,
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
    pub receipts: ReceiptScenario,
}

/// An account at Twilio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TwilioAccountScenario {
    pub sid: String,
    pub token: String,
    /// Secrets of API keys, by their sid.
    pub api_keys: BTreeMap<String, String>,
    pub friendly_name: String,
    /// As a look at the account shows it: `active`, `suspended` or `closed`. Only an active one sends.
    pub status: String,
}

/// What the SMSC.ru-like gateway lets in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct GatewayScenario {
    pub login: String,
    pub password: String,
    /// In place of login and password.
    pub api_key: String,
}

/// The mail server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct EmailScenario {
    pub host_name: String,
    /// What the answer to EHLO offers; see [`smtp::EXTENSIONS`].
    pub extensions: Vec<String>,
    /// The largest message.
    pub size_limit_bytes: usize,
    /// Passwords by user name.
    pub users: BTreeMap<String, String>,
    /// Nobody sends without having said who it is.
    pub require_auth: bool,
    /// Nothing goes before TLS is there, AUTH included.
    pub require_tls: bool,
    /// Before the banner.
    pub banner_latency_ms: Latency,
    /// Between a message's end and its reply.
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
            receipts: ReceiptScenario::default(),
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

impl Default for SmsScenario {
    fn default() -> Self {
        SmsScenario {
            accounts: vec![TwilioAccountScenario::default()],
            senders: Vec::new(),
            gateway: GatewayScenario::default(),
            latency_ms: Latency::default(),
            errors: Vec::new(),
            rate_limits: RateLimits::default(),
            recipients: BTreeMap::new(),
            faults: Vec::new(),
            next: Vec::new(),
            receipts: ReceiptScenario::default(),
        }
    }
}

impl Default for TwilioAccountScenario {
    fn default() -> Self {
        TwilioAccountScenario {
            sid: twilio::DEFAULT_ACCOUNT_SID.to_owned(),
            token: twilio::DEFAULT_TOKEN.to_owned(),
            api_keys: BTreeMap::new(),
            friendly_name: "Vestnik Simulator".to_owned(),
            status: "active".to_owned(),
        }
    }
}

impl Default for GatewayScenario {
    fn default() -> Self {
        GatewayScenario {
            login: "sim".to_owned(),
            password: "sim-password".to_owned(),
            api_key: "sim-api-key".to_owned(),
        }
    }
}

impl Default for EmailScenario {
    fn default() -> Self {
        EmailScenario {
            host_name: "simulator.test".to_owned(),
            extensions: smtp::EXTENSIONS.map(str::to_owned).to_vec(),
            size_limit_bytes: 25 * 1024 * 1024,
            users: BTreeMap::from([(smtp::DEFAULT_USER.to_owned(), smtp::DEFAULT_PASSWORD.to_owned())]),
            require_auth: false,
            require_tls: false,
            banner_latency_ms: Latency::default(),
            latency_ms: Latency::default(),
            errors: Vec::new(),
            rate_limits: RateLimits::default(),
            recipients: BTreeMap::new(),
            faults: Vec::new(),
            next: Vec::new(),
        }
    }
}

/// The fields that all providers have, under one name.
macro_rules! behaviour {
    ($scenario:ident, $receipts:expr) => {
        Behaviour {
            latency: &$scenario.latency_ms,
            errors: &$scenario.errors,
            rate_limits: &$scenario.rate_limits,
            recipients: &$scenario.recipients,
            faults: &$scenario.faults,
            receipts: $receipts,
        }
    };
}

impl WhatsAppScenario {
    pub(in crate::simulator) fn behaviour(&self) -> Behaviour<'_> {
        behaviour!(self, &self.receipts)
    }

    pub(super) fn checked(&mut self) -> Result<(), ScenarioError> {
        canonical(Channel::WhatsApp, &mut self.recipients, &mut self.next)?;
        self.behaviour().check("whatsapp", Channel::WhatsApp)?;
        check_next(&self.next, "whatsapp.next", Channel::WhatsApp)
    }
}

impl TelegramScenario {
    pub(in crate::simulator) fn behaviour(&self) -> Behaviour<'_> {
        behaviour!(self, &ReceiptScenario::NONE)
    }

    pub(super) fn checked(&mut self) -> Result<(), ScenarioError> {
        for (index, token) in self.tokens.iter().enumerate() {
            if telegram::bot_id(token).is_none() {
                let path = format!("telegram.tokens[{index}]");
                return Err(ScenarioError::new(path, "expected `<bot id>:<secret>` of digits, letters, `_` and `-`"));
            }
        }
        self.behaviour().check("telegram", Channel::Telegram)?;
        check_next(&self.next, "telegram.next", Channel::Telegram)
    }
}

impl SmsScenario {
    pub(in crate::simulator) fn behaviour(&self) -> Behaviour<'_> {
        behaviour!(self, &self.receipts)
    }

    pub(super) fn checked(&mut self) -> Result<(), ScenarioError> {
        for (index, account) in self.accounts.iter().enumerate() {
            if !twilio::is_sid(&account.sid, "AC") {
                let path = format!("sms.accounts[{index}].sid");
                return Err(ScenarioError::new(path, "expected `AC` and 32 hexadecimal digits"));
            }
        }
        canonical(Channel::Sms, &mut self.recipients, &mut self.next)?;
        self.behaviour().check("sms", Channel::Sms)?;
        check_next(&self.next, "sms.next", Channel::Sms)
    }
}

impl EmailScenario {
    pub(in crate::simulator) fn behaviour(&self) -> Behaviour<'_> {
        behaviour!(self, &ReceiptScenario::NONE)
    }

    pub(in crate::simulator) fn offers(&self, extension: &str) -> bool {
        self.extensions.iter().any(|offered| offered == extension)
    }

    pub(super) fn checked(&mut self) -> Result<(), ScenarioError> {
        for (index, extension) in self.extensions.iter_mut().enumerate() {
            extension.make_ascii_uppercase();
            if !smtp::EXTENSIONS.contains(&extension.as_str()) {
                let path = format!("email.extensions[{index}]");
                return Err(ScenarioError::new(path, format!("expected one of {}", smtp::EXTENSIONS.join(", "))));
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        if self.host_name.is_empty() || !self.host_name.chars().all(plain) {
            return Err(ScenarioError::new("email.hostName", "expected a host's name"));
        }
        let banner = self.banner_latency_ms.check();
        banner.map_err(|detail| ScenarioError::new("email.bannerLatencyMs", detail))?;
        canonical(Channel::Email, &mut self.recipients, &mut self.next)?;
        self.behaviour().check("email", Channel::Email)?;
        check_next(&self.next, "email.next", Channel::Email)
    }
}

/// A recipient in the form that the record and the rules name it.
pub(in crate::simulator) fn canonical_recipient(channel: Channel, recipient: &str) -> String {
    match channel {
        Channel::WhatsApp | Channel::Sms => whatsapp::canonical_recipient(recipient),
        Channel::Telegram => recipient.to_owned(),
        // A mailbox's own part may differ by case in theory; no provider's does.
        Channel::Email => recipient.trim().to_lowercase(),
    }
}

fn canonical(
    channel: Channel,
    recipients: &mut BTreeMap<String, Rule>,
    next: &mut [Rule],
) -> Result<(), ScenarioError> {
    let rules = std::mem::take(recipients);
    *recipients = rules.into_iter().map(|(to, rule)| (canonical_recipient(channel, &to), rule)).collect();
    if recipients.contains_key("") {
        return Err(ScenarioError::new(format!("{channel}.recipients"), "expected addresses"));
    }
    for rule in next {
        rule.recipient = rule.recipient.as_deref().map(|to| canonical_recipient(channel, to));
    }
    Ok(())
}
