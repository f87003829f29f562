//! 4a. What a notification is about: its records and its own data, and who reads it.

use serde_json::{Map, Value};

use super::{Delivery, DirectError, Refusal};
use crate::domain::template::TemplateBody;
use crate::domain::{Channel, Recipient, RecipientError, Record, RecordIds};
use crate::records::{Loaded, NoAddress, RecordSet, Role, SourceError};
use crate::templates::{Preview, Reader};

/// A template filled in and not sent.
pub struct Tried {
    pub preview: Preview,
    /// What it was filled with, beside the given data.
    pub records: RecordSet,
    given: Map<String, Value>,
    region: Option<phonenumber::country::Id>,
}

impl Tried {
    /// Where it would go without a recipient.
    pub fn recipient(&self, channel: Channel) -> Result<Recipient, Refusal> {
        recipient(None, channel, &self.records, &self.given, self.region)
    }
}

impl Delivery {
    /// The records of many notifications, and those that they link to: at most one query per kind and step.
    pub(super) async fn records_of(&self, ids: &[RecordIds]) -> Result<Loaded, SourceError> {
        self.context.load(ids).await
    }

    /// Fills a template in for looking at it. `locale` stands for the reader's.
    pub async fn try_out(
        &self,
        body: &TemplateBody,
        ids: &RecordIds,
        data: &Map<String, Value>,
        locale: Option<&str>,
    ) -> Result<Tried, DirectError> {
        let records = self.records_of(std::slice::from_ref(ids)).await?.of(ids);
        let given = data.clone();
        let data = Value::Object(records.data(&given));
        let of = records.addressee().ok().map(Role::as_str);
        let preview = self.renderer.preview(body.clone(), data, of, locale.map(str::to_owned)).await;
        let preview = preview.map_err(|error| DirectError::Refused(vec![Refusal::of_rendering(&error)]))?;
        Ok(Tried { preview, records, given, region: self.options.default_region })
    }
}

/// Where it goes: to the address given, else to that of its records, over which the call's own `data` lies. `region` is
/// where a phone number that was given without a country code is from.
pub(super) fn recipient(
    given: Option<&str>,
    channel: Channel,
    records: &RecordSet,
    data: &Map<String, Value>,
    region: Option<phonenumber::country::Id>,
) -> Result<Recipient, Refusal> {
    let refused = |error: RecipientError| Refusal::new("/recipient", "address", error.to_string());
    if let Some(given) = given.filter(|given| !given.trim().is_empty()) {
        return Recipient::parse(channel, given, region).map_err(refused);
    }
    let field = Record::address_field(channel);
    for role in Role::ADDRESSEES {
        match data.get(role.as_str()).and_then(|record| record.get(field)) {
            Some(Value::String(text)) if !text.trim().is_empty() => {
                return Recipient::parse(channel, text, region).map_err(refused);
            }
            Some(Value::Number(number)) => {
                return Recipient::parse(channel, &number.to_string(), region).map_err(refused);
            }
            _ if records.names(role) => break,
            _ => {}
        }
    }
    let address = records.address(channel).map_err(|error| {
        let pointer = if error == NoAddress::Nobody { "/recipient" } else { "/context" };
        Refusal::new(pointer, "address", error.to_string())
    })?;
    Recipient::kept(channel, &address).map_err(refused)
}

/// Who reads what goes to `recipient`.
pub(super) fn reader<'a>(recipient: &str, channel: Channel, records: &RecordSet, data: &'a Value) -> Reader<'a> {
    Reader::of(data, records.reader(channel, recipient).map(Role::as_str))
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
