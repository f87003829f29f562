//! Rendering: picks what the channel uses, fills it in, and holds it to the limits.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value};
use serde_json::Value as Json;

use super::check::message_of;
use super::data::to_value;
use super::output::{BoundedWriter, is_blank, on_one_line, print, telegram_html_units, utf16_units, without_controls};
use super::position::{missing_variable, place, place_of_error};
use super::{Limits, RenderError, TemplateProblem, TemplateProblems, filters, grammar, limits};
use crate::domain::message::RenderedWhatsAppTemplate;
use crate::domain::template::{Template, TemplateBody, WhatsAppTemplate};
use crate::domain::{Channel, Content, TemplateId, TemplateVersion};

const TEXT: &str = "/text";
const TELEGRAM_HTML: &str = "/telegramHtml";

/// Checks and renders templates. One for the whole process, shared.
pub struct Engine {
    limits: Limits,
    /// Without templates; a clone of it shares everything else.
    language: Environment<'static>,
    // Read at every message, written once per template version: readers take no lock.
    compiled: ArcSwap<Cache>,
}

impl Engine {
    pub fn new(limits: Limits) -> Self {
        Engine { limits, language: language(&limits), compiled: ArcSwap::default() }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn language(&self) -> &Environment<'static> {
        &self.language
    }

    /// Makes what `channel` sends: WhatsApp takes the approved template, Telegram its HTML, and both the text where
    /// there is none; the others take the text. `data` is an object, and a null in it counts as missing.
    pub fn render(&self, template: &Template, channel: Channel, data: &Json) -> Result<Content, RenderError> {
        let compiled = self.compiled(template)?;
        self.fill_in(&template.body, &compiled, channel, data)
    }

    /// The same for a template that is not saved: nothing of it is kept.
    pub fn preview(&self, body: &TemplateBody, channel: Channel, data: &Json) -> Result<Content, RenderError> {
        let compiled = self.compile(body)?;
        self.fill_in(body, &compiled, channel, data)
    }

    fn compiled(&self, template: &Template) -> Result<Arc<Environment<'static>>, RenderError> {
        let key = (template.id.clone(), template.version);
        if let Some(entry) = self.compiled.load().entries.get(&key) {
            return Ok(entry.compiled.clone());
        }
        let compiled = Arc::new(self.compile(&template.body)?);
        self.compiled.rcu(|cache| cache.with(key.clone(), compiled.clone()));
        Ok(compiled)
    }

    fn compile(&self, body: &TemplateBody) -> Result<Environment<'static>, RenderError> {
        let broken = |problem| RenderError::Broken(TemplateProblems(vec![problem]));
        let mut compiled = self.language.clone();
        for part in parts(body) {
            // A saved template was checked, but perhaps by an earlier release.
            if let Some(objection) = grammar::objection(part.source) {
                let place = place(&part.pointer, part.source, objection.offset);
                return Err(broken(TemplateProblem { place, message: objection.message }));
            }
            if let Err(error) = compiled.add_template_owned(part.pointer.clone(), part.source.to_owned()) {
                let place = place_of_error(&part.pointer, part.source, &error);
                return Err(broken(TemplateProblem { place, message: message_of(&error) }));
            }
        }
        Ok(compiled)
    }

    fn fill_in(
        &self,
        body: &TemplateBody,
        compiled: &Environment<'static>,
        channel: Channel,
        data: &Json,
    ) -> Result<Content, RenderError> {
        if !data.is_object() {
            return Err(RenderError::NotAnObject);
        }
        let part = |pointer: &str| self.render_part(compiled, pointer, to_value(data));
        let within = |part: &str, length: usize, limit: usize| {
            if length > limit {
                return Err(RenderError::TooLong { part: part.into(), channel, limit, length });
            }
            Ok(())
        };
        match channel {
            Channel::WhatsApp if let Some(template) = &body.whatsapp_template => {
                self.fill_in_approved(template, compiled, &to_value(data)).map(Content::WhatsAppTemplate)
            }
            Channel::Telegram if body.telegram_html.is_some() => {
                let html = part(TELEGRAM_HTML)?;
                within(TELEGRAM_HTML, telegram_html_units(&html), limits::TELEGRAM_TEXT_UTF16)?;
                Ok(Content::TelegramHtml(html))
            }
            _ if body.text.is_some() => {
                let text = part(TEXT)?;
                match channel {
                    Channel::WhatsApp => within(TEXT, text.chars().count(), limits::WHATSAPP_TEXT_CHARS)?,
                    Channel::Telegram => within(TEXT, utf16_units(&text), limits::TELEGRAM_TEXT_UTF16)?,
                    Channel::Sms | Channel::Email => {}
                }
                Ok(Content::Text(text))
            }
            _ => Err(RenderError::NoBody { channel }),
        }
    }

    fn fill_in_approved(
        &self,
        template: &WhatsAppTemplate,
        compiled: &Environment<'static>,
        data: &Value,
    ) -> Result<RenderedWhatsAppTemplate, RenderError> {
        let parameter = |pointer: String, limit: usize| {
            let value = on_one_line(&self.render_part(compiled, &pointer, data.clone())?);
            let length = value.chars().count();
            if length > limit {
                return Err(RenderError::TooLong { part: pointer, channel: Channel::WhatsApp, limit, length });
            }
            Ok(value)
        };
        let header = (0..template.header.len())
            .map(|at| parameter(header_pointer(at), limits::WHATSAPP_HEADER_CHARS))
            .collect::<Result<_, _>>()?;
        let body = (0..template.body.len())
            .map(|at| parameter(body_pointer(at), limits::WHATSAPP_PARAMETER_CHARS))
            .collect::<Result<_, _>>()?;
        let buttons = template
            .buttons
            .iter()
            .enumerate()
            .map(|(at, button)| Ok((button.index, button.kind, parameter(button_pointer(at), usize::MAX)?)))
            .collect::<Result<_, RenderError>>()?;
        Ok(RenderedWhatsAppTemplate {
            name: template.name.clone(),
            language: template.language.clone(),
            category: template.category,
            header,
            body,
            buttons,
        })
    }

    fn render_part(&self, compiled: &Environment<'static>, part: &str, data: Value) -> Result<String, RenderError> {
        let template = compiled.get_template(part).map_err(|error| self.explain(part, "", &error, false))?;
        let mut writer = BoundedWriter::new(self.limits.output_bytes);
        let rendered = template.render_captured_to(data, &mut writer).map(drop);
        rendered.map_err(|error| self.explain(part, template.source(), &error, writer.overflowed))?;
        let text = String::from_utf8(writer.bytes).expect("the engine writes whole strings only");
        let text = without_controls(text);
        if is_blank(&text) {
            return Err(RenderError::Empty { part: part.into() });
        }
        Ok(text)
    }

    fn explain(&self, part: &str, source: &str, error: &minijinja::Error, overflowed: bool) -> RenderError {
        if overflowed {
            return RenderError::TooBig { part: part.into(), limit_bytes: self.limits.output_bytes };
        }
        let place = place_of_error(part, source, error);
        if error.kind() == ErrorKind::OutOfFuel {
            return RenderError::TooMuchWork { fuel: self.limits.fuel, place };
        }
        match missing_variable(source, error) {
            Some(variable) => RenderError::Missing { variable, place },
            None => RenderError::Failed { message: message_of(error), place },
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The language of `grammar`, with its limits, and no template yet.
fn language(limits: &Limits) -> Environment<'static> {
    let mut language = Environment::new();
    language.set_fuel(Some(limits.fuel));
    language.set_recursion_limit(limits::RECURSION);
    language.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    // Keeps where an undefined value came from, which is how an error names the variable.
    language.set_debug(true);
    language.set_formatter(print);
    language.set_auto_escape_callback(|part| match part {
        TELEGRAM_HTML => AutoEscape::Html,
        _ => AutoEscape::None,
    });
    for name in ["range", "dict", "debug", "namespace"] {
        language.remove_global(name);
    }
    // `map('safe')` names a filter in a string, where `grammar` does not see it.
    for name in ["attr", "batch", "chain", "groupby", "indent", "pprint", "safe", "slice", "zip"] {
        language.remove_filter(name);
    }
    // These turn what they test into text.
    for name in ["endingwith", "lower", "startingwith", "upper"] {
        language.remove_test(name);
    }
    filters::install(&mut language);
    language
}

/// One expression-bearing string of a template.
pub(super) struct Part<'a> {
    /// JSON pointer into the body.
    pub(super) pointer: String,
    pub(super) source: &'a str,
}

pub(super) fn parts(body: &TemplateBody) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut add = |pointer: String, source| parts.push(Part { pointer, source });
    if let Some(text) = &body.text {
        add(TEXT.into(), text.as_str());
    }
    if let Some(html) = &body.telegram_html {
        add(TELEGRAM_HTML.into(), html);
    }
    if let Some(template) = &body.whatsapp_template {
        template.header.iter().enumerate().for_each(|(at, value)| add(header_pointer(at), value));
        template.body.iter().enumerate().for_each(|(at, value)| add(body_pointer(at), value));
        template.buttons.iter().enumerate().for_each(|(at, button)| add(button_pointer(at), &button.value));
    }
    parts
}

fn header_pointer(at: usize) -> String {
    format!("/whatsappTemplate/header/{at}")
}

fn body_pointer(at: usize) -> String {
    format!("/whatsappTemplate/body/{at}")
}

fn button_pointer(at: usize) -> String {
    format!("/whatsappTemplate/buttons/{at}/value")
}

/// Compiled templates by version.
#[derive(Default)]
struct Cache {
    entries: HashMap<(TemplateId, TemplateVersion), Entry>,
    compiled_ever: u64,
}

struct Entry {
    compiled: Arc<Environment<'static>>,
    /// Counts compilations: the lowest was compiled longest ago.
    number: u64,
}

impl Cache {
    /// A copy with one more. Copying is fine: it happens once per template version, and entries are pointers.
    fn with(&self, key: (TemplateId, TemplateVersion), compiled: Arc<Environment<'static>>) -> Cache {
        let copy = |entry: &Entry| Entry { compiled: entry.compiled.clone(), number: entry.number };
        let mut entries: HashMap<_, _> = self.entries.iter().map(|(key, entry)| (key.clone(), copy(entry))).collect();
        let compiled_ever = self.compiled_ever + 1;
        entries.insert(key, Entry { compiled, number: compiled_ever });
        if entries.len() > limits::COMPILED_TEMPLATES {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.number).map(|(key, _)| key.clone());
            oldest.and_then(|key| entries.remove(&key));
        }
        Cache { entries, compiled_ever }
    }
}

#[cfg(test)]
mod tests;
