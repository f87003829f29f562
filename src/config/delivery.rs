//! `[delivery]`: how a notification travels.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverySettings {
    /// How long a direct send may take altogether.
    pub direct_deadline_ms: u64,
    /// `auto` sends directly up to so many recipients.
    pub auto_threshold: usize,
    /// Direct sends at the same time.
    pub direct_concurrency: usize,
    /// Queued sends of one account at the same time, in each process.
    pub concurrency: usize,
    /// A worker process that was silent for this long counts as gone.
    pub lease_ms: u64,
    /// Giving up on one send, which is then uncertain.
    pub send_deadline_ms: u64,
    /// `at_least_once` waits this long for a receipt before it sends again.
    pub resend_grace_ms: u64,
    /// Where a phone number without a country code is taken to be from: `RU`, `DE`, ….
    #[serde(default)]
    pub default_region: Option<String>,
}

impl DeliverySettings {
    /// [`default_region`](Self::default_region) as phone numbers are read with it; settings that were loaded hold a
    /// known one or none.
    pub fn region(&self) -> Option<phonenumber::country::Id> {
        self.default_region.as_deref()?.parse().ok()
    }
}
