//! `[log]`: what is written to stderr.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// A level, or a filter such as `info,vestnik::delivery=debug`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line, for whatever collects logs.
    Json,
}

impl TryFrom<String> for LogFormat {
    type Error = String;

    // serde's own message for a wrong name does not say which there are.
    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("expected text or json, got {name:?}")),
        }
    }
}
