//! A template filled in for looking at it: what each channel would send, how long it is, and what the data lacks.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::compiled::Compiled;
use super::data::Reader;
use super::output::{telegram_html_text, utf16_units};
use super::{Engine, RenderError, TemplateProblems, limits};
use crate::domain::message::RenderedWhatsAppTemplate;
use crate::domain::sms::SmsSize;
use crate::domain::template::{TemplateBody, WhatsAppTemplate};
use crate::domain::{Channel, Content};

/// What would leave, on every channel that the template serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    pub channels: Vec<ChannelPreview>,
    /// Variables without which some channel sends nothing.
    pub missing: Vec<String>,
    /// Variables that the data lacks and the template does without: they have a default, or an `if` asks for them.
    pub unset: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelPreview {
    pub channel: Channel,
    /// Of the variant used; none if that is the main one and has no locale.
    pub locale: Option<String>,
    /// Subject, HTML and plain text of an e-mail are in it.
    pub content: Result<Content, RenderError>,
    /// What a person reads: without tags, and for an approved WhatsApp template with the parameters in its text, if the
    /// template says how that goes.
    pub text: Option<String>,
    /// Of an e-mail, its subject's.
    pub length: Option<Length>,
    /// What an SMS is billed as.
    pub sms: Option<SmsSize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    pub length: usize,
    pub limit: usize,
    pub unit: LengthUnit,
}

/// What a channel counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthUnit {
    Characters,
    Utf16Units,
    Bytes,
}

impl LengthUnit {
    pub const fn as_str(self) -> &'static str {
        match self {
            LengthUnit::Characters => "characters",
            LengthUnit::Utf16Units => "utf16_units",
            LengthUnit::Bytes => "bytes",
        }
    }
}

/// A template cannot miss more than this many values; it only bounds a search.
const MISSING: usize = 100;

impl Engine {
    /// Fills in a template that need not be saved; nothing of it is kept.
    pub fn preview(&self, body: &TemplateBody, data: &Json, reader: Reader<'_>) -> Result<Preview, RenderError> {
        let broken = |problem| RenderError::Broken(TemplateProblems(vec![problem]));
        let compiled = self.compile(body).map_err(broken)?;
        if !data.is_object() {
            return Err(RenderError::NotAnObject);
        }
        let serves = |&channel: &Channel| body.variants().any(|(_, _, variant)| variant.serves(channel));
        let variables = self.variables(body);
        let mut missing = BTreeSet::new();
        let mut channels = Vec::new();
        for channel in Channel::ALL.into_iter().filter(serves) {
            channels.push(self.preview_channel(body, &compiled, channel, data, reader));
            self.find_missing(&compiled, channel, data, reader, &variables, &mut missing);
        }
        let lacks = |variable: &String| !missing.contains(variable) && find(data, variable).is_none();
        let unset = variables.into_iter().filter(lacks).collect();
        Ok(Preview { channels, missing: missing.into_iter().collect(), unset })
    }

    fn preview_channel(
        &self,
        body: &TemplateBody,
        compiled: &Compiled,
        channel: Channel,
        data: &Json,
        reader: Reader<'_>,
    ) -> ChannelPreview {
        match self.fill_in(compiled, channel, data, reader) {
            Ok(filled) => {
                let of_locale = body.variants().find(|(locale, ..)| *locale == filled.locale);
                let approved = of_locale.and_then(|(_, _, variant)| variant.whatsapp_template.as_ref());
                let text = text_of(&filled.content, approved);
                ChannelPreview {
                    channel,
                    locale: filled.locale.map(str::to_owned),
                    length: Some(length_of(channel, &filled.content, &text)),
                    sms: (channel == Channel::Sms).then(|| SmsSize::of(&text)),
                    text: Some(text),
                    content: Ok(filled.content),
                }
            }
            Err(error) => {
                let variant = compiled.choose(reader.locale, channel);
                let locale = variant.and_then(|variant| variant.locale.clone());
                ChannelPreview { channel, locale, content: Err(error), text: None, length: None, sms: None }
            }
        }
    }

    /// Renders with a stand-in for each value that was missing, until none is.
    fn find_missing(
        &self,
        compiled: &Compiled,
        channel: Channel,
        data: &Json,
        reader: Reader<'_>,
        variables: &[String],
        missing: &mut BTreeSet<String>,
    ) {
        let mut data = data.clone();
        let mut records = Vec::new();
        for _ in 0..MISSING {
            let Err(RenderError::Missing { variable, .. }) = self.fill_in(compiled, channel, &data, reader) else {
                break;
            };
            // Of a record that is missing as a whole, its fields are what a person can give.
            let is_record = variables.iter().any(|known| is_within(known, &variable));
            let stand_in = if is_record { Map::new().into() } else { 1.into() };
            let is_filled = fill(&mut data, &variable, stand_in);
            if is_record {
                records.push(variable);
            } else {
                missing.insert(variable);
            }
            if !is_filled {
                break;
            }
        }
        records.retain(|record| !missing.iter().any(|found| is_within(found, record)));
        missing.extend(records);
    }
}

fn is_within(variable: &str, record: &str) -> bool {
    variable.strip_prefix(record).is_some_and(|rest| rest.starts_with('.'))
}

/// What stands at a path like `contact.name`.
fn find<'a>(data: &'a Json, variable: &str) -> Option<&'a Json> {
    variable.split('.').try_fold(data, |at, field| at.get(field)).filter(|found| !found.is_null())
}

/// Puts something there: of values a number, which nearly every filter can work with. False if it cannot be put there.
fn fill(data: &mut Json, variable: &str, stand_in: Json) -> bool {
    let is_name = |field: &str| !field.is_empty() && field.chars().all(|c| c.is_alphanumeric() || c == '_');
    let mut fields = variable.split('.').peekable();
    let mut at = data;
    while let Some(field) = fields.next().filter(|field| is_name(field)) {
        let Some(object) = at.as_object_mut() else { return false };
        let entry = object.entry(field).or_insert(Json::Null);
        if fields.peek().is_none() {
            let was_missing = entry.is_null();
            *entry = stand_in;
            return was_missing;
        }
        if entry.is_null() {
            *entry = Map::new().into();
        }
        at = entry;
    }
    false
}

fn text_of(content: &Content, approved: Option<&WhatsAppTemplate>) -> String {
    match (content, approved) {
        (Content::TelegramHtml(html), _) => telegram_html_text(html),
        (Content::Email(email), _) => email.text.clone(),
        (Content::WhatsAppTemplate(rendered), Some(approved)) => approved_text(rendered, approved),
        _ => content.display_text(),
    }
}

/// The approved text with its parameters in it, as far as the template has it.
fn approved_text(rendered: &RenderedWhatsAppTemplate, approved: &WhatsAppTemplate) -> String {
    let Some(body) = &approved.body_text else {
        return Content::WhatsAppTemplate(rendered.clone()).display_text();
    };
    let header = approved.header_text.as_ref().map(|text| with_parameters(text, &rendered.header));
    let body = with_parameters(body, &rendered.body);
    header.map_or(body.clone(), |header| format!("{header}\n\n{body}"))
}

/// In one go, so that a value that looks like a placeholder stays a value.
fn with_parameters(text: &str, values: &[String]) -> String {
    let names = super::warnings::placeholders(text);
    let mut pieces = text.split("{{");
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let value = piece.split_once("}}").and_then(|(name, rest)| {
            let at = names.iter().position(|known| *known == name.trim())?;
            Some((values.get(at)?, rest))
        });
        match value {
            Some((value, rest)) => {
                filled.push_str(value);
                filled.push_str(rest);
            }
            None => {
                filled.push_str("{{");
                filled.push_str(piece);
            }
        }
    }
    filled
}

fn length_of(channel: Channel, content: &Content, text: &str) -> Length {
    let characters = |limit| Length { length: text.chars().count(), limit, unit: LengthUnit::Characters };
    match (channel, content) {
        (_, Content::Email(email)) => {
            Length { length: email.subject.len(), limit: limits::SUBJECT_BYTES, unit: LengthUnit::Bytes }
        }
        (_, Content::WhatsAppTemplate(_)) => characters(limits::WHATSAPP_PARAMETER_CHARS),
        (Channel::Telegram, _) => {
            Length { length: utf16_units(text), limit: limits::TELEGRAM_TEXT_UTF16, unit: LengthUnit::Utf16Units }
        }
        (Channel::Sms | Channel::Email, _) => characters(limits::SMS_CHARS),
        (Channel::WhatsApp, _) => characters(limits::WHATSAPP_TEXT_CHARS),
    }
}

#[cfg(test)]
mod tests;
