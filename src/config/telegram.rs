//! `[telegram.<account>]`: a bot on the Telegram Bot API.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::limits::LimitSettings;
use super::secret::masked;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelegramSettings {
    /// The bot's token, from @BotFather.
    #[serde(serialize_with = "masked")]
    pub token: SecretString,
    /// Where the Bot API is: a server of your own or the simulator may stand there.
    #[serde(default = "default_base_url")]
    pub base_url: String,
    /// Where times without a zone are read: `Europe/Moscow`.
    #[serde(default)]
    pub timezone: Option<String>,
    /// Giving up on a connection that does not come about, in ms.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// Giving up on an answer, connect included, in ms. The send is then uncertain.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// By default 30 messages a second, as Telegram advises.
    #[serde(default)]
    pub limits: LimitSettings,
}

fn default_base_url() -> String {
    "https://api.telegram.org".into()
}

fn default_connect_timeout_ms() -> u64 {
    3_000
}

fn default_timeout_ms() -> u64 {
    15_000
}
