//! `[ledger]`: where everything is remembered.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::secret::masked_option;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerSettings {
    /// The embedded ledger's folder.
    pub data_dir: PathBuf,
    /// PostgreSQL instead of the embedded ledger. Also as `DATABASE_URL`.
    #[serde(default, serialize_with = "masked_option")]
    pub database_url: Option<SecretString>,
    /// Connections to PostgreSQL.
    pub pool_size: usize,
    /// Giving up on the ledger within one call.
    pub call_timeout_ms: u64,
    pub synchronous: Synchronous,
}

/// When SQLite waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE", try_from = "String")]
pub enum Synchronous {
    /// At every commit: accepted survives a power cut.
    Full,
    /// At checkpoints: a power cut may take the last commits, a crash of the process none.
    Normal,
}

impl Synchronous {
    pub fn is_normal(self) -> bool {
        self == Synchronous::Normal
    }
}

impl TryFrom<String> for Synchronous {
    type Error = String;

    // serde's own message for a wrong name does not say which there are.
    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "FULL" => Ok(Synchronous::Full),
            "NORMAL" => Ok(Synchronous::Normal),
            _ => Err(format!("expected FULL or NORMAL, got {name:?}")),
        }
    }
}
