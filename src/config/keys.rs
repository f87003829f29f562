//! `[keys]`: how the first API key comes about.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::secret::masked_option;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// A key with all rights. Also as `VESTNIK_BOOTSTRAP_KEY`.
    #[serde(default, serialize_with = "masked_option")]
    pub bootstrap_key: Option<SecretString>,
}
