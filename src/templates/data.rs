//! A notification's data as the engine sees it.

use minijinja::Value;
use serde_json::Value as Json;

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
