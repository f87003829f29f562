//! The budget of one provider account.

use serde::{Deserialize, Serialize};

/// How fast an account may send. Part of every `[<channel>.<account>]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Messages per second; may be a fraction (`0.5` is one every two seconds).
    pub per_second: f64,
    /// How many may leave at once after a quiet time.
    pub burst: u32,
    /// Messages within any 24 hours; absent means no such limit.
    pub per_day: Option<u64>,
    /// The share of `per_second` (0 to 1) that only direct sends may use.
    pub direct_share: f64,
}

impl Default for LimitSettings {
    fn default() -> Self {
        LimitSettings { per_second: 30.0, burst: 30, per_day: None, direct_share: 0.2 }
    }
}
