//! `[retention]`: how long notifications keep what is personal, and how long they stay at all.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionSettings {
    /// Settled notifications lose address, text and data after so many days; 0 keeps them.
    pub personal_data_days: u32,
    /// Settled notifications go altogether after so many days, and their counts stay; 0 keeps them.
    pub notifications_days: u32,
}

impl RetentionSettings {
    /// What was accepted before then loses what is personal.
    pub fn personal_before(&self, now: Timestamp) -> Option<Timestamp> {
        days_before(now, self.personal_data_days)
    }

    /// What was accepted before then goes.
    pub fn remove_before(&self, now: Timestamp) -> Option<Timestamp> {
        days_before(now, self.notifications_days)
    }
}

fn days_before(now: Timestamp, days: u32) -> Option<Timestamp> {
    if days == 0 {
        return None;
    }
    now.checked_sub(SignedDuration::from_hours(i64::from(days) * 24)).ok()
}
