//! A notification's data as the engine sees it, and what the filters know beside it.

use std::sync::{Arc, LazyLock};

use minijinja::value::Object;
use minijinja::{State, Value};
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

/// The data of one message, with what the filters go by.
pub(super) fn root(data: &serde_json::Map<String, Json>, rendering: Rendering) -> Value {
    let fields = data.iter().filter(|(_, field)| !field.is_null());
    let fields = fields.map(|(name, field)| (Value::from(name.as_str()), to_value(field)));
    Value::from_pairs(fields.chain([(Value::from(RENDERING), Value::from_object(rendering))]))
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
    /// What the data says of the record that is written to (`contact`, `manager`, …). Where none is known, the contact's
    /// language, else the lead's.
    pub fn of(data: &'a Json, record: Option<&str>) -> Self {
        let said = |record: &str, field| data.get(record)?.get(field)?.as_str().filter(|text| !text.is_empty());
        match record {
            Some(record) => Reader { locale: said(record, "locale"), zone: said(record, "timezone") },
            None => Reader {
                locale: said("contact", "locale").or_else(|| said("lead", "locale")),
                zone: said("contact", "timezone").or_else(|| said("lead", "timezone")),
            },
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
