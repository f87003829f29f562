//! A notification's data as the engine sees it, and what the filters know beside it.

use std::sync::{Arc, LazyLock};

use minijinja::value::{Enumerator, Object};
use minijinja::{Error, ErrorKind, State, Value};
use serde_json::Value as Json;

use super::filters::Language;

/// What filters go by that is not theirs to choose.
#[derive(Debug, Default)]
pub(super) struct Rendering {
    /// None if the filters do not know it.
    pub(super) language: Option<Language>,
    /// The recipient's.
    pub(super) zone: Option<Arc<str>>,
}

impl Object for Rendering {}

/// Under which name it goes along. No template can write it, and data that has such a field loses it.
const RENDERING: &str = "\0rendering";

/// A record that is not there, which is the normal case for many: asking for a field of it is no error, so that `if` and
/// `default` work on the field, and printing the field names it. By itself it is as missing as any other value.
#[derive(Debug)]
struct NoRecord(&'static str);

impl Object for NoRecord {
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Empty
    }

    fn is_true(self: &Arc<Self>) -> bool {
        false
    }
}

/// The records that a message is about.
const RECORDS: [&str; 5] = ["contact", "lead", "deal", "company", "manager"];

pub(super) fn is_missing(value: &Value) -> bool {
    value.is_undefined() || value.downcast_object_ref::<NoRecord>().is_some()
}

/// What the engine says of an undefined value, of a record that is not there.
pub(super) fn there(value: &Value) -> Result<(), Error> {
    match value.downcast_object_ref::<NoRecord>() {
        Some(NoRecord(name)) => Err(Error::new(ErrorKind::UndefinedError, format!("`{name}` is undefined"))),
        None => Ok(()),
    }
}

/// The data of one message, with what the filters go by.
pub(super) fn root(data: &serde_json::Map<String, Json>, rendering: Rendering) -> Value {
    let fields = data.iter().filter(|(_, field)| !field.is_null());
    let fields = fields.map(|(name, field)| (Value::from(name.as_str()), to_value(field)));
    let absent = RECORDS.into_iter().filter(|name| data.get(*name).is_none_or(Json::is_null));
    let absent = absent.map(|name| (Value::from(name), Value::from_object(NoRecord(name))));
    Value::from_pairs(fields.chain(absent).chain([(Value::from(RENDERING), Value::from_object(rendering))]))
}

pub(super) fn rendering(state: &State<'_, '_>) -> Arc<Rendering> {
    static NONE: LazyLock<Arc<Rendering>> = LazyLock::new(Arc::default);
    let found = state.lookup(RENDERING).and_then(|value| value.downcast_object::<Rendering>());
    found.unwrap_or_else(|| NONE.clone())
}

/// Who reads a message: their language chooses the variant, and their time zone is that of its dates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reader<'a> {
    pub locale: Option<&'a str>,
    pub zone: Option<&'a str>,
}

impl<'a> Reader<'a> {
    /// What the data says of the record that is written to (`contact`, `manager`, …); where none is known, of the contact.
    /// What a contact does not say, its lead does.
    pub fn of(data: &'a Json, record: Option<&str>) -> Self {
        let said = |record: &str, field| data.get(record)?.get(field)?.as_str().filter(|text| !text.is_empty());
        let record = record.unwrap_or("contact");
        let lead = |field| said("lead", field).filter(|_| record == "contact");
        Reader {
            locale: said(record, "locale").or_else(|| lead("locale")),
            zone: said(record, "timezone").or_else(|| lead("timezone")),
        }
    }
}

/// Takes over a JSON value. A null counts as missing, so that no customer reads "Dear None": it is left out of an object
/// and undefined in a list, and `default` and `if` treat it as such. Recurses as deep as the data, which `serde_json`
/// bounds when it parses.
pub(super) fn to_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::UNDEFINED,
        Json::Bool(truth) => Value::from(*truth),
        Json::Number(number) => to_number(number),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(to_value).collect(),
        Json::Object(fields) => Value::from_pairs(
            fields
                .iter()
                .filter(|(_, field)| !field.is_null())
                .map(|(name, field)| (Value::from(name.as_str()), to_value(field))),
        ),
    }
}

fn to_number(number: &serde_json::Number) -> Value {
    if let Some(whole) = number.as_i64() {
        Value::from(whole)
    } else if let Some(whole) = number.as_u64() {
        Value::from(whole)
    } else {
        Value::from(number.as_f64().unwrap_or(f64::NAN))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_contact_reads_as_its_lead_does() {
        let data = json!({
            "contact": { "locale": "", "timezone": "Asia/Almaty" }, "lead": { "locale": "en", "timezone": "UTC" },
            "manager": { "locale": "ru" },
        });
        let contact = Reader { locale: Some("en"), zone: Some("Asia/Almaty") };
        assert_eq!((Reader::of(&data, None), Reader::of(&data, Some("contact"))), (contact, contact));
        assert_eq!(Reader::of(&data, Some("manager")), Reader { locale: Some("ru"), zone: None });
        assert_eq!(Reader::of(&data, Some("lead")), Reader { locale: Some("en"), zone: Some("UTC") });
    }
}
