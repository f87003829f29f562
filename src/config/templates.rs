//! `[templates]`: how much one template may be, use and make.

use serde::{Deserialize, Serialize};

use crate::templates::Limits;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateSettings {
    pub fuel: u64,
    pub output_bytes: usize,
    pub source_bytes: usize,
}

impl From<&TemplateSettings> for Limits {
    fn from(settings: &TemplateSettings) -> Self {
        let TemplateSettings { fuel, output_bytes, source_bytes } = *settings;
        Limits { source_bytes, fuel, output_bytes }
    }
}
