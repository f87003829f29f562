//! 4a. What a notification is about: its records and its own data, and who reads it.

use super::{Delivery, Refusal};
use crate::domain::{Channel, RecordIds};
use crate::records::{Loaded, NoAddress, RecordSet, SourceError};

impl Delivery {
    /// The records of many notifications, and those that they link to: at most one query per kind and step.
    pub(super) async fn records_of(&self, ids: &[RecordIds]) -> Result<Loaded, SourceError> {
        self.context.load(ids).await
    }
}

/// Where it goes: to the address given, else to that of its records.
pub(super) fn address(given: Option<&str>, channel: Channel, records: &RecordSet) -> Result<String, Refusal> {
    match given.filter(|given| !given.trim().is_empty()) {
        Some(given) => Ok(given.to_owned()),
        None => records.address(channel).map_err(|error| {
            let pointer = if error == NoAddress::Nobody { "/recipient" } else { "/context" };
            Refusal::new(pointer, "address", error.to_string())
        }),
    }
}

/// Says of a missing variable when the record is missing that would have it.
pub(super) fn explain(mut refusal: Refusal, records: &RecordSet) -> Refusal {
    let root = refusal.variable.as_deref().and_then(|variable| variable.split('.').next());
    let missing = records.missing.iter().find(|missing| Some(missing.role.as_str()) == root);
    if let Some(missing) = missing {
        refusal.detail = format!("{}: {missing}", refusal.detail);
    }
    refusal
}
