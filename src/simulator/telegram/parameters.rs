//! A method's parameters, from wherever Telegram takes them: query, form or JSON.

use std::collections::HashMap;

use serde_json::Value;

use crate::simulator::request::{Request, form_pairs};

/// Every value as text, as the Bot API server sees it: numbers are written out, objects are JSON.
#[derive(Debug, Default)]
pub(super) struct Parameters(HashMap<String, String>);

impl Parameters {
    /// `Err` is Telegram's description.
    pub(super) fn read(request: &Request) -> Result<Parameters, &'static str> {
        let mut parameters: HashMap<String, String> = form_pairs(request.query()).collect();
        if request.body.is_empty() {
            return Ok(Parameters(parameters));
        }
        if request.content_type_is("application/json") {
            let Ok(Value::Object(fields)) = serde_json::from_slice(&request.body) else {
                return Err("Bad Request: can't parse JSON object");
            };
            for (name, value) in fields {
                let text = match value {
                    Value::Null => continue,
                    Value::String(text) => text,
                    Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
                };
                parameters.insert(name, text);
            }
        } else if request.content_type_is("application/x-www-form-urlencoded") {
            let Ok(body) = std::str::from_utf8(&request.body) else {
                return Err("Bad Request: strings must be encoded in UTF-8");
            };
            parameters.extend(form_pairs(body));
        } else if request.content_type_is("multipart/form-data") {
            return Err("Bad Request: this stand-in takes JSON and urlencoded forms, no multipart");
        }
        // A body of any other type is passed over, as Telegram does.
        Ok(Parameters(parameters))
    }

    /// A parameter's text; empty where it is absent, which Telegram does not tell apart.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}
