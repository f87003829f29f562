//! `[sms.<account>]`: an SMS account, at Twilio (`.twilio`) or at any gateway with an HTTP interface (`.http`).
//!
//! Both are accounts of one channel, so they share their names: `main` is the one meant when none is named.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::limits::LimitSettings;
use super::secret::{masked_map, masked_option};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmsSettings {
    /// Where times without a zone are read: `Europe/Moscow`.
    #[serde(default)]
    pub timezone: Option<String>,
    /// Giving up on a connection that does not come about, in ms.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// Giving up on an answer, connect included, in ms. The send is then uncertain.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Counted in parts. By default one a second, as Twilio grants a long code.
    #[serde(default = "default_limits")]
    pub limits: LimitSettings,
    /// Either this …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twilio: Option<TwilioSettings>,
    /// … or this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<GatewaySettings>,
}

/// `[sms.<account>.twilio]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TwilioSettings {
    /// `AC…`, from the console's first page.
    pub account_sid: String,
    /// The account's own secret …
    #[serde(default, serialize_with = "masked_option")]
    pub auth_token: Option<SecretString>,
    /// … or an API key, `SK…`, which can be withdrawn alone, …
    #[serde(default)]
    pub api_key: Option<String>,
    /// … with its secret.
    #[serde(default, serialize_with = "masked_option")]
    pub api_key_secret: Option<SecretString>,
    /// The sender: a number, a short code or a name …
    #[serde(default)]
    pub from: Option<String>,
    /// … or a Messaging Service, `MG…`, that chooses one.
    #[serde(default)]
    pub messaging_service_sid: Option<String>,
    /// Lets Twilio write curly quotes and the like plainly, where that makes a message shorter.
    #[serde(default)]
    pub smart_encoded: bool,
    /// Where Twilio is: the simulator may stand there.
    #[serde(default = "default_twilio_base_url")]
    pub base_url: String,
}

/// `[sms.<account>.http]`: what is asked of the gateway. Texts hold `{placeholders}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySettings {
    #[serde(default)]
    pub method: GatewayMethod,
    /// May hold `{from}` and `{secrets.<name>}`.
    pub url: String,
    /// What `{from}` stands for.
    #[serde(default)]
    pub from: Option<String>,
    /// What `{secrets.<name>}` stands for; each also as `<name>_file`.
    #[serde(default, serialize_with = "masked_map")]
    pub secrets: BTreeMap<String, SecretString>,
    /// May hold `{id}`, `{from}` and `{secrets.<name>}`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Put behind the URL.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// The body as a form …
    #[serde(default)]
    pub form: BTreeMap<String, String>,
    /// … or as JSON, with placeholders in its texts.
    #[serde(default)]
    pub json: Option<String>,
    /// Asked by `vestnik doctor`, with GET; sends nothing.
    #[serde(default)]
    pub check_url: Option<String>,
    pub answer: AnswerSettings,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE", try_from = "String")]
pub enum GatewayMethod {
    #[default]
    Post,
    Get,
}

/// `[sms.<account>.http.answer]`: how the answer is read. Places are JSON pointers (RFC 6901) and may hold placeholders.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerSettings {
    /// Where the gateway's id of the message is. Without one there it was not accepted.
    pub id: String,
    /// Where a code may be: the first place that has one counts.
    #[serde(default)]
    pub error_code: Vec<String>,
    /// Codes that are no errors.
    #[serde(default)]
    pub accepted_codes: Vec<String>,
    /// Statuses that can say yes; empty means any 2xx.
    #[serde(default)]
    pub accepted_status: Vec<u16>,
    /// What codes mean, in words: `permanent recipient`, `throttled account 60`, ….
    #[serde(default)]
    pub codes: BTreeMap<String, String>,
}

impl TryFrom<String> for GatewayMethod {
    type Error = String;

    // serde's own message for a wrong name does not say which there are.
    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "POST" => Ok(GatewayMethod::Post),
            "GET" => Ok(GatewayMethod::Get),
            _ => Err(format!("expected POST or GET, got {name:?}")),
        }
    }
}

fn default_connect_timeout_ms() -> u64 {
    3_000
}

fn default_timeout_ms() -> u64 {
    15_000
}

fn default_limits() -> LimitSettings {
    LimitSettings { per_second: 1.0, burst: 1, ..LimitSettings::default() }
}

fn default_twilio_base_url() -> String {
    "https://api.twilio.com".into()
}
