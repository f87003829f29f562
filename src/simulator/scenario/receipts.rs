//! What becomes of messages that were taken, and how their senders hear of it.

use serde::{Deserialize, Serialize};

use super::rules::posts_receipts;
use super::{ErrorCode, ScenarioError};
use crate::domain::Channel;
use crate::simulator::latency::Latency;
use crate::simulator::{twilio, whatsapp};

/// The receipts of one provider. Shares are of all messages that were taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ReceiptScenario {
    /// WhatsApp only: where webhooks go; without it none are posted. Twilio's go where each message says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// WhatsApp only: what webhooks are signed with. Twilio signs with its account's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_secret: Option<String>,
    /// Reach the person's device; absent is all that neither fail nor fall silent. What is left stays sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivered: Option<f64>,
    /// Are read, too; part of `delivered`.
    pub read: f64,
    pub failed: f64,
    /// What those that fail say: Meta's number or Twilio's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_code: Option<ErrorCode>,
    /// Nothing is ever heard of them.
    pub never: f64,
    /// From the taking to `sent`.
    pub sent_after_ms: Latency,
    /// From `sent` to `delivered` or the failure.
    pub delivered_after_ms: Latency,
    /// From `delivered` to `read`.
    pub read_after_ms: Latency,
    /// Have each of their receipts posted twice.
    pub doubled: f64,
    /// Have their receipts posted in the wrong order.
    pub shuffled: f64,
    /// How often a receipt that is not answered with 2xx is posted again.
    pub retries: u32,
    /// Until it is posted again; doubles each time.
    pub retry_after_ms: u64,
}

impl ReceiptScenario {
    /// Everything is delivered, soon.
    pub(in crate::simulator) const NONE: ReceiptScenario = ReceiptScenario {
        url: None,
        app_secret: None,
        delivered: None,
        read: 0.0,
        failed: 0.0,
        failed_code: None,
        never: 0.0,
        sent_after_ms: Latency::Fixed(20.0),
        delivered_after_ms: Latency::Fixed(200.0),
        read_after_ms: Latency::Fixed(1000.0),
        doubled: 0.0,
        shuffled: 0.0,
        retries: 5,
        retry_after_ms: 1000,
    };

    pub(in crate::simulator) fn delivered_share(&self) -> f64 {
        self.delivered.unwrap_or(1.0 - self.failed - self.never)
    }

    pub(super) fn check(&self, path: &str, channel: Channel) -> Result<(), ScenarioError> {
        let mistake = |field: &str, detail: &str| Err(ScenarioError::new(format!("{path}.{field}"), detail));
        if !posts_receipts(channel) {
            return Ok(());
        }
        if channel != Channel::WhatsApp && (self.url.is_some() || self.app_secret.is_some()) {
            let field = if self.url.is_some() { "url" } else { "appSecret" };
            return mistake(field, "only WhatsApp's; Twilio posts to each message's StatusCallback");
        }
        if let Some(url) = &self.url {
            let uri = url.parse::<hyper::Uri>().ok();
            if !uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()) {
                return mistake("url", "expected http://HOST… or https://HOST…");
            }
        }
        for (field, share) in [
            ("delivered", self.delivered_share()),
            ("read", self.read),
            ("failed", self.failed),
            ("never", self.never),
            ("doubled", self.doubled),
            ("shuffled", self.shuffled),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return mistake(field, "expected a share from 0 to 1");
            }
        }
        if self.read > self.delivered_share() {
            return mistake("read", "what is read is part of what is delivered, and cannot be more");
        }
        // Shares such as 0.1 are not exact in binary.
        if self.delivered_share() + self.failed + self.never > 1.0 + 1e-9 {
            return mistake("delivered", "`delivered`, `failed` and `never` add up to more than 1");
        }
        for (field, latency) in [
            ("sentAfterMs", self.sent_after_ms),
            ("deliveredAfterMs", self.delivered_after_ms),
            ("readAfterMs", self.read_after_ms),
        ] {
            latency.check().map_err(|detail| ScenarioError::new(format!("{path}.{field}"), detail))?;
        }
        if let Some(code) = &self.failed_code {
            let known = match channel {
                Channel::Sms => twilio::check_failed_code(code),
                Channel::WhatsApp | Channel::Telegram | Channel::Email => whatsapp::check_error_code(code),
            };
            known.map_err(|detail| ScenarioError::new(format!("{path}.failedCode"), detail))?;
        }
        Ok(())
    }
}

impl Default for ReceiptScenario {
    fn default() -> Self {
        ReceiptScenario::NONE
    }
}
