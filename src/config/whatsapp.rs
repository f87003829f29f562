//! `[whatsapp.<account>]`: a number on the WhatsApp Cloud API.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::limits::LimitSettings;
use super::secret::masked;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhatsAppSettings {
    /// The sending number's id (digits), from the app's WhatsApp page.
    pub phone_number_id: String,
    /// A system user's token.
    #[serde(serialize_with = "masked")]
    pub token: SecretString,
    /// Where the Graph API is: a proxy or the simulator may stand there.
    #[serde(default = "default_base_url")]
    pub base_url: String,
    /// The Graph API's version segment.
    #[serde(default = "default_api_version")]
    pub api_version: String,
    /// Where times without a zone are read: `Europe/Moscow`.
    #[serde(default)]
    pub timezone: Option<String>,
    /// Giving up on a connection that does not come about, in ms.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// Giving up on an answer, connect included, in ms. The send is then uncertain.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// By default 80 messages a second, as Meta grants a new number.
    #[serde(default = "default_limits")]
    pub limits: LimitSettings,
}

fn default_base_url() -> String {
    "https://graph.facebook.com".into()
}

fn default_api_version() -> String {
    "v23.0".into()
}

fn default_connect_timeout_ms() -> u64 {
    3_000
}

fn default_timeout_ms() -> u64 {
    15_000
}

fn default_limits() -> LimitSettings {
    LimitSettings { per_second: 80.0, burst: 80, ..LimitSettings::default() }
}
