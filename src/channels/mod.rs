//! Seam: how a message leaves.
//!
//! A [`Provider`] is one account at one provider. It turns one message into one [`Outcome`] that says what happened
//! and so what to do next; it decides from the provider's published tables (kept as data) and never acts on it:
//! retries, pauses and records are `delivery`'s.

pub mod accounts;
pub mod codes;
pub mod email;
mod endpoint;
pub mod gateway;
pub mod http_client;
pub mod outcomes;
mod public_address;
pub mod telegram;
pub mod telegram_codes;
mod tls;
pub mod twilio;
pub mod twilio_codes;
pub mod whatsapp;
pub mod whatsapp_codes;

use std::time::Duration;

use async_trait::async_trait;

pub use accounts::{Accounts, UnknownAccount};
pub use email::Email;
pub use endpoint::ConfigProblem;
pub use gateway::Gateway;
pub use http_client::HttpClient;
pub use telegram::Telegram;
pub use twilio::Twilio;
pub use whatsapp::WhatsApp;

use crate::domain::{AccountRef, Outcome, OutgoingMessage};

/// One account that messages leave from.
///
/// Promises: [`send`](Provider::send) ends within `time_limit`, never panics on what comes back, never follows a
/// redirect, never repeats a request by itself, and reads a bounded answer. Not cancel safe: dropping the future
/// leaves it unknown whether the request left, so whoever starts one lets it end.
#[async_trait]
pub trait Provider: Send + Sync {
    fn account(&self) -> &AccountRef;

    /// How many messages it can hand off at the same time; any number, unless it says otherwise.
    fn width(&self) -> Option<usize> {
        None
    }

    /// Hands one message to the provider. A refused connection is transient with `handed_off: false`; once a byte of
    /// the request was written, everything but a readable answer is ambiguous.
    async fn send(&self, message: &OutgoingMessage, time_limit: Duration) -> Outcome;

    /// Asks the provider whether the account works, without sending anything. For `vestnik doctor`.
    async fn check(&self, time_limit: Duration) -> Result<String, String>;
}
