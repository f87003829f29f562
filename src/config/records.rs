//! `[records.sql]`: CRM records that are kept in a database elsewhere.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::secret::masked;
use crate::domain::RecordKind;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<SqlSettings>,
}

/// A kind with a query is read there; the others are kept in the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlSettings {
    /// The CRM's PostgreSQL. A user that may only read is enough.
    #[serde(serialize_with = "masked")]
    pub url: SecretString,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    /// Giving up on one read, in ms.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Connections at most.
    #[serde(default = "default_pool_size")]
    pub pool_size: usize,
}

impl SqlSettings {
    /// The kinds that have a query.
    pub fn queries(&self) -> impl Iterator<Item = (RecordKind, &str)> {
        RecordKind::ALL.iter().filter_map(|kind| {
            let query = match kind {
                RecordKind::Contact => &self.contact,
                RecordKind::Lead => &self.lead,
                RecordKind::Deal => &self.deal,
                RecordKind::Company => &self.company,
            };
            Some((*kind, query.as_deref()?))
        })
    }
}

fn default_timeout_ms() -> u64 {
    2_000
}

fn default_pool_size() -> usize {
    4
}
