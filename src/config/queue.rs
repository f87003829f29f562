//! `[queue]`: what carries work between processes.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::secret::masked_option;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    /// Also as `RABBITMQ_URL`. Nothing reads it yet; see [`Settings::notices`](super::Settings::notices).
    #[serde(default, serialize_with = "masked_option")]
    pub rabbitmq_url: Option<SecretString>,
}
