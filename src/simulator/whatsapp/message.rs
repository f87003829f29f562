//! Checks a message body as Meta does, in Meta's order and words.

use serde_json::{Map, Value};

use super::errors::Refusal;
use crate::simulator::record::Message;
use crate::simulator::scenario::{TemplateScenario, WhatsAppScenario};

const TEXT_LIMIT_CHARS: usize = 4096;
const OUR_ID_LIMIT_CHARS: usize = 512;
const BODY_PARAMETER_LIMIT_CHARS: usize = 1024;
const HEADER_PARAMETER_LIMIT_CHARS: usize = 60;

/// A message that Meta would take, and what its answer echoes.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) message: Message,
    /// `to` as it came.
    pub(super) input: String,
    /// What the answer says of the template; `None` for a text.
    pub(super) message_status: Option<String>,
}

/// `body` is `None` where the content type was not JSON: Meta then sees no parameters at all.
pub(super) fn check(account: &str, body: Option<&[u8]>, scenario: &WhatsAppScenario) -> Result<Checked, Refusal> {
    let parsed: Option<Value> = body.and_then(|body| serde_json::from_slice(body).ok());
    let Some(Value::Object(fields)) = parsed else {
        return Err(Refusal::graph(100, "(#100) The parameter messaging_product is required."));
    };
    match fields.get("messaging_product") {
        None => return Err(Refusal::graph(100, "(#100) The parameter messaging_product is required.")),
        Some(Value::String(product)) if product == "whatsapp" => {}
        Some(other) => {
            let message = format!("(#100) Param messaging_product must be one of {{WHATSAPP}} - got {other}.");
            return Err(Refusal::graph(100, message));
        }
    }
    if let Some(kind) = fields.get("recipient_type")
        && kind != "individual"
    {
        return Err(Refusal::new(131009, "Parameter 'recipient_type' must be 'individual'"));
    }
    let (input, recipient) = recipient(&fields)?;
    let our_id = our_id(&fields)?;
    let mut message = Message { account: account.to_owned(), recipient, our_id, ..Message::default() };
    let mut message_status = None;
    // Without a type Meta takes the message for a text.
    match fields.get("type").map(Value::as_str) {
        None | Some(Some("text")) => message.text = Some(text(&fields)?),
        Some(Some("template")) => {
            let template = object(&fields, "template")?;
            message_status = Some(check_template(template, scenario)?);
            message.details = Some(Value::Object(template.clone()).to_string());
        }
        Some(Some(
            "audio" | "contacts" | "document" | "image" | "interactive" | "location" | "reaction" | "sticker" | "video",
        )) => return Err(Refusal::new(131051, "This stand-in takes messages of type text and template only")),
        Some(other) => {
            let got = other.unwrap_or("something that is no string");
            let message = format!(
                "(#100) Param type must be one of {{AUDIO, CONTACTS, DOCUMENT, IMAGE, INTERACTIVE, LOCATION, REACTION, \
                 STICKER, TEMPLATE, TEXT, VIDEO}} - got \"{got}\"."
            );
            return Err(Refusal::graph(100, message));
        }
    }
    Ok(Checked { message, input, message_status })
}

/// `to` as it came, and as digits.
fn recipient(fields: &Map<String, Value>) -> Result<(String, String), Refusal> {
    let input = match fields.get("to") {
        None => return Err(Refusal::graph(100, "(#100) The parameter to is required.")),
        Some(Value::String(to)) => to.clone(),
        Some(Value::Number(to)) => to.to_string(),
        Some(_) => return Err(Refusal::graph(100, "(#100) Param to must be a string.")),
    };
    let digits = input.strip_prefix('+').unwrap_or(&input);
    // E.164: at most 15 digits; nothing shorter than 7 is a whole international number.
    if !(7..=15).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::new(131009, "Parameter 'to' is not a valid WhatsApp phone number"));
    }
    let digits = digits.to_owned();
    Ok((input, digits))
}

fn our_id(fields: &Map<String, Value>) -> Result<Option<String>, Refusal> {
    match fields.get("biz_opaque_callback_data") {
        None => Ok(None),
        Some(Value::String(id)) if id.chars().count() <= OUR_ID_LIMIT_CHARS => Ok(Some(id.clone())),
        Some(Value::String(_)) => {
            Err(Refusal::graph(100, "(#100) Param biz_opaque_callback_data must be at most 512 characters long."))
        }
        Some(_) => Err(Refusal::graph(100, "(#100) Param biz_opaque_callback_data must be a string.")),
    }
}

fn text(fields: &Map<String, Value>) -> Result<String, Refusal> {
    let text = object(fields, "text")?;
    expect_keys(text, "text", &["body", "preview_url"])?;
    if text.get("preview_url").is_some_and(|preview| !preview.is_boolean()) {
        return Err(Refusal::graph(100, "(#100) Param text['preview_url'] must be a boolean."));
    }
    match text.get("body") {
        None => Err(Refusal::graph(100, "(#100) The parameter text['body'] is required.")),
        Some(Value::String(body)) if body.trim().is_empty() => {
            Err(Refusal::graph(100, "(#100) Param text['body'] must be a non-empty string."))
        }
        Some(Value::String(body)) if body.chars().count() > TEXT_LIMIT_CHARS => {
            Err(Refusal::graph(100, "(#100) Param text['body'] must be at most 4096 characters long."))
        }
        Some(Value::String(body)) => Ok(body.clone()),
        Some(_) => Err(Refusal::graph(100, "(#100) Param text['body'] must be a string.")),
    }
}

/// Returns what the answer says of the template.
fn check_template(template: &Map<String, Value>, scenario: &WhatsAppScenario) -> Result<String, Refusal> {
    expect_keys(template, "template", &["name", "namespace", "language", "components"])?;
    let name = string(template, "template", "name")?;
    let language = match template.get("language") {
        Some(Value::Object(language)) => language,
        Some(_) => return Err(Refusal::graph(100, "(#100) Param template['language'] must be a JSON object.")),
        None => return Err(Refusal::graph(100, "(#100) The parameter template['language'] is required.")),
    };
    expect_keys(language, "template['language']", &["code", "policy"])?;
    let code = string(language, "template['language']", "code")?;
    if language.get("policy").is_some_and(|policy| policy != "deterministic") {
        return Err(Refusal::new(131009, "Parameter template['language']['policy'] must be 'deterministic'"));
    }
    let components = match template.get("components") {
        None => &[][..],
        Some(Value::Array(components)) => components,
        Some(_) => return Err(Refusal::graph(100, "(#100) Param template['components'] must be an array.")),
    };
    let mut counts = Counts::default();
    for (index, component) in components.iter().enumerate() {
        counts.add(index, component)?;
    }
    if scenario.templates.is_empty() {
        return Ok("accepted".to_owned());
    }
    let declared = scenario.templates.get(name).filter(|declared| declared.languages.iter().any(|known| known == code));
    let Some(declared) = declared else {
        return Err(Refusal::new(132001, format!("template name ({name}) does not exist in {code}")));
    };
    counts.compare(declared)?;
    Ok(declared.message_status.clone().unwrap_or_else(|| "accepted".to_owned()))
}

/// How many parameters a template message brings.
#[derive(Debug, Default)]
struct Counts {
    header: usize,
    body: usize,
}

impl Counts {
    fn add(&mut self, index: usize, component: &Value) -> Result<(), Refusal> {
        let path = format!("template['components'][{index}]");
        let Value::Object(component) = component else {
            return Err(Refusal::graph(100, format!("(#100) Param {path} must be a JSON object.")));
        };
        expect_keys(component, &path, &["type", "sub_type", "index", "parameters", "cards"])?;
        let kind = string(component, &path, "type")?.to_ascii_lowercase();
        let parameters = match component.get("parameters") {
            None => &[][..],
            Some(Value::Array(parameters)) => parameters,
            Some(_) => return Err(Refusal::graph(100, format!("(#100) Param {path}['parameters'] must be an array."))),
        };
        match kind.as_str() {
            "header" => {
                self.header += parameters.len();
                check_parameters(parameters, &path, HEADER_PARAMETER_LIMIT_CHARS)
            }
            "body" => {
                self.body += parameters.len();
                check_parameters(parameters, &path, BODY_PARAMETER_LIMIT_CHARS)
            }
            "button" => {
                check_button(component, &path)?;
                check_parameters(parameters, &path, BODY_PARAMETER_LIMIT_CHARS)
            }
            // Forms we neither send nor know well enough to judge.
            "carousel" | "limited_time_offer" | "order_status" => Ok(()),
            other => Err(Refusal::graph(
                100,
                format!("(#100) Param {path}['type'] must be one of {{HEADER, BODY, BUTTON}} - got \"{other}\"."),
            )),
        }
    }

    fn compare(&self, declared: &TemplateScenario) -> Result<(), Refusal> {
        for (part, given, expected) in
            [("header", self.header, declared.header_parameters), ("body", self.body, declared.body_parameters)]
        {
            if given != expected {
                let details = format!(
                    "{part}: number of localizable_params ({given}) does not match the expected number of params \
                     ({expected})"
                );
                return Err(Refusal::new(132000, details));
            }
        }
        Ok(())
    }
}

fn check_button(button: &Map<String, Value>, path: &str) -> Result<(), Refusal> {
    let sub_type = string(button, path, "sub_type")?.to_ascii_lowercase();
    if !matches!(sub_type.as_str(), "quick_reply" | "url" | "copy_code" | "flow" | "catalog" | "mpm" | "voice_call") {
        return Err(Refusal::new(131009, format!("Parameter {path}['sub_type'] is not valid")));
    }
    let index = match button.get("index") {
        Some(Value::String(index)) => index.parse().ok(),
        Some(index) => index.as_u64(),
        None => return Err(Refusal::new(131008, format!("Parameter {path}['index'] is mandatory for buttons"))),
    };
    if index.is_none_or(|index| index > 9) {
        return Err(Refusal::new(131009, format!("Parameter {path}['index'] must be from 0 to 9")));
    }
    Ok(())
}

fn check_parameters(parameters: &[Value], path: &str, limit: usize) -> Result<(), Refusal> {
    let mut named = 0;
    for (index, parameter) in parameters.iter().enumerate() {
        let path = format!("{path}['parameters'][{index}]");
        let Value::Object(parameter) = parameter else {
            return Err(Refusal::graph(100, format!("(#100) Param {path} must be a JSON object.")));
        };
        if parameter.contains_key("parameter_name") {
            string(parameter, &path, "parameter_name")?;
            named += 1;
        }
        check_parameter(parameter, &path, limit)?;
    }
    if named != 0 && named != parameters.len() {
        return Err(Refusal::new(132012, "A template's parameters are either all named or all positional"));
    }
    Ok(())
}

fn check_parameter(parameter: &Map<String, Value>, path: &str, limit: usize) -> Result<(), Refusal> {
    let kind = string(parameter, path, "type")?.to_ascii_lowercase();
    match kind.as_str() {
        "text" => {
            let text = string(parameter, path, "text")?;
            if text.contains(['\n', '\r', '\t']) || text.contains("     ") {
                let details = "Param text cannot have new-line/tab characters or more than 4 consecutive spaces";
                return Err(Refusal::new(132018, details));
            }
            if text.chars().count() > limit {
                return Err(Refusal::new(132005, format!("{path}: the text is longer than {limit} characters")));
            }
            Ok(())
        }
        "payload" => string(parameter, path, "payload").map(|_| ()),
        "coupon_code" => string(parameter, path, "coupon_code").map(|_| ()),
        "image" | "document" | "video" => {
            let media = nested(parameter, path, &kind)?;
            if media.contains_key("id") == media.contains_key("link") {
                return Err(Refusal::new(131008, format!("{path}['{kind}'] needs exactly one of id and link")));
            }
            Ok(())
        }
        "currency" | "date_time" => {
            let value = nested(parameter, path, &kind)?;
            string(value, &format!("{path}['{kind}']"), "fallback_value").map(|_| ())
        }
        "action" | "location" => nested(parameter, path, &kind).map(|_| ()),
        other => Err(Refusal::new(132012, format!("{path}: a parameter cannot be of type {other}"))),
    }
}

/// The object that carries the message, named like its type.
fn object<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a Map<String, Value>, Refusal> {
    match fields.get(name) {
        Some(Value::Object(object)) => Ok(object),
        Some(_) => Err(Refusal::graph(100, format!("(#100) Param {name} must be a JSON object."))),
        None => Err(Refusal::new(131008, format!("Parameter '{name}' is mandatory for type '{name}'"))),
    }
}

fn nested<'a>(fields: &'a Map<String, Value>, path: &str, name: &str) -> Result<&'a Map<String, Value>, Refusal> {
    match fields.get(name) {
        Some(Value::Object(object)) => Ok(object),
        Some(_) | None => Err(Refusal::new(131008, format!("Parameter {path}['{name}'] is missing"))),
    }
}

fn string<'a>(fields: &'a Map<String, Value>, path: &str, name: &str) -> Result<&'a str, Refusal> {
    match fields.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(Value::String(_)) | None => {
            Err(Refusal::new(131008, format!("Parameter {path}['{name}'] is missing or empty")))
        }
        Some(_) => Err(Refusal::graph(100, format!("(#100) Param {path}['{name}'] must be a string."))),
    }
}

fn expect_keys(fields: &Map<String, Value>, path: &str, known: &[&str]) -> Result<(), Refusal> {
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(Refusal::graph(100, format!("(#100) Unexpected key \"{key}\" on param \"{path}\"."))),
        None => Ok(()),
    }
}
