//! Settings: compiled defaults, then `vestnik.toml`, then the environment, then flags.
//!
//! Everything is read once, at start. An unknown, unreadable or contradictory setting stops the start and is named with
//! its full path; nothing is accepted and ignored. A secret is a [`SecretString`](secrecy::SecretString), may come from a
//! file, and is printed nowhere.

pub mod delivery;
pub mod email;
pub mod http;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod log;
pub mod queue;
pub mod records;
pub mod retention;
pub mod sms;
pub mod telegram;
pub mod templates;
pub mod whatsapp;

mod check;
mod effective;
mod error;
mod load;
mod secret;

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::domain::{AccountRef, Channel};

pub use error::ConfigError;
pub use load::Sources;

/// All settings of one process, checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub http: http::HttpSettings,
    pub ledger: ledger::LedgerSettings,
    pub delivery: delivery::DeliverySettings,
    pub templates: templates::TemplateSettings,
    pub log: log::LogSettings,
    pub retention: retention::RetentionSettings,
    #[serde(default)]
    pub keys: keys::KeySettings,
    pub queue: queue::QueueSettings,
    #[serde(default)]
    pub records: records::RecordSettings,
    /// By account name.
    #[serde(default)]
    pub whatsapp: BTreeMap<String, whatsapp::WhatsAppSettings>,
    /// By account name.
    #[serde(default)]
    pub telegram: BTreeMap<String, telegram::TelegramSettings>,
    /// By account name.
    #[serde(default)]
    pub sms: BTreeMap<String, sms::SmsSettings>,
    /// By account name.
    #[serde(default)]
    pub email: BTreeMap<String, email::EmailSettings>,
    /// Which layer each setting that is not a default came from, by its path.
    #[serde(skip)]
    origins: BTreeMap<String, String>,
}

impl Settings {
    /// Who said what is not a default: a setting's path, and the file, variable or flag.
    pub fn origins(&self) -> &BTreeMap<String, String> {
        &self.origins
    }

    /// The time zones of the accounts that have one.
    pub fn time_zones(&self) -> impl Iterator<Item = (AccountRef, TimeZone)> {
        let whatsapp = self.whatsapp.iter().map(|(name, one)| (Channel::WhatsApp, name, &one.timezone));
        let telegram = self.telegram.iter().map(|(name, one)| (Channel::Telegram, name, &one.timezone));
        let sms = self.sms.iter().map(|(name, one)| (Channel::Sms, name, &one.timezone));
        let email = self.email.iter().map(|(name, one)| (Channel::Email, name, &one.timezone));
        whatsapp.chain(telegram).chain(sms).chain(email).filter_map(|(channel, name, zone)| {
            let zone = TimeZone::get(zone.as_deref()?).ok()?;
            Some((AccountRef { channel, name: name.as_str().into() }, zone))
        })
    }
}

#[cfg(test)]
mod tests;
