//! `[templates]`: how much one template may be, use and make.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateSettings {
    pub fuel: u64,
    pub output_bytes: usize,
    pub source_bytes: usize,
}
