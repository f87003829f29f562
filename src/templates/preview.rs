//! A template filled in for looking at it: what each channel would send, how long it is, and what the data lacks.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use self::missing::{Given, find};
use super::compiled::Compiled;
use super::data::Reader;
use super::output::{telegram_html_text, utf16_units};
use super::parts::parts;
use super::{Engine, RenderError, TemplateProblems, approved_text, limits};
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

impl Engine {
    /// Fills in a template that need not be saved; nothing of it is kept.
    pub fn preview(&self, body: &TemplateBody, data: &Json, reader: Reader<'_>) -> Result<Preview, RenderError> {
        let broken = |problem| RenderError::Broken(TemplateProblems(vec![problem]));
        let compiled = self.compile(body).map_err(broken)?;
        if let Some(problem) = self.unfit(&parts(body)).into_iter().next() {
            return Err(broken(problem));
        }
        if !data.is_object() {
            return Err(RenderError::NotAnObject);
        }
        let serves = |&channel: &Channel| body.variants().any(|(_, _, variant)| variant.serves(channel));
        let variables = self.variables(body);
        let mut missing = BTreeSet::new();
        let mut channels = Vec::new();
        let given = Given { compiled: &compiled, data, reader, variables: &variables };
        for channel in Channel::ALL.into_iter().filter(serves) {
            channels.push(self.preview_channel(body, &compiled, channel, data, reader));
            self.find_missing(&given, channel, &mut missing);
        }
        let lacks = |variable: &String| !missing::names(&missing, variable) && find(data, variable).is_none();
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
                    length: Some(length_of(channel, &filled.content, &text, approved)),
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
}

fn text_of(content: &Content, approved: Option<&WhatsAppTemplate>) -> String {
    match (content, approved) {
        (Content::TelegramHtml(html), _) => telegram_html_text(html),
        (Content::Email(email), _) => email.text.clone(),
        (Content::WhatsAppTemplate(rendered), Some(approved)) => approved_text::whole(rendered, approved),
        _ => content.display_text(),
    }
}

fn length_of(channel: Channel, content: &Content, text: &str, approved: Option<&WhatsAppTemplate>) -> Length {
    let characters = |text: &str, limit| Length { length: text.chars().count(), limit, unit: LengthUnit::Characters };
    match (channel, content) {
        (_, Content::Email(email)) => {
            Length { length: email.subject.len(), limit: limits::SUBJECT_BYTES, unit: LengthUnit::Bytes }
        }
        (_, Content::WhatsAppTemplate(rendered)) => {
            let body = approved.and_then(|approved| approved_text::body(rendered, approved));
            characters(body.as_deref().unwrap_or(text), limits::WHATSAPP_BODY_CHARS)
        }
        (Channel::Telegram, _) => {
            Length { length: utf16_units(text), limit: limits::TELEGRAM_TEXT_UTF16, unit: LengthUnit::Utf16Units }
        }
        (Channel::Sms | Channel::Email, _) => characters(text, limits::SMS_CHARS),
        (Channel::WhatsApp, _) => characters(text, limits::WHATSAPP_TEXT_CHARS),
    }
}

mod missing;
#[cfg(test)]
mod tests;
