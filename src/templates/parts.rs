//! The strings of a template that hold code: where each is, and what it becomes.

use super::html::{Html, Link, Prepared, SourceMap};
use super::position::{place, place_of_error};
use super::{Engine, Place, TemplateProblem, grammar};
use crate::domain::template::{TemplateBody, TemplateVariant};

/// What a part is rendered as, and so how values are kept from meaning anything in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    /// WhatsApp's free text: marks inside values are only shown.
    WhatsApp,
    TelegramHtml,
    EmailHtml,
}

impl Form {
    /// Ends the name of the compiled part, by which the engine knows the form.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Form::Plain => "",
            Form::WhatsApp => ".whatsapp",
            Form::TelegramHtml | Form::EmailHtml => ".html",
        }
    }
}

/// One string of a template.
pub(super) struct Part<'a> {
    /// JSON pointer into the body.
    pub(super) pointer: String,
    pub(super) source: &'a str,
    pub(super) form: Form,
}

/// Every part of every variant, in the order of the body.
pub(super) fn parts(body: &TemplateBody) -> Vec<Part<'_>> {
    body.variants().flat_map(|(_, pointer, variant)| parts_of(&pointer, variant)).collect()
}

fn parts_of<'a>(at: &str, variant: &'a TemplateVariant) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let mut add = |pointer: String, source: &'a str, form| {
        parts.push(Part { pointer: format!("{at}{pointer}"), source, form });
    };
    let TemplateVariant { text, sms_text, whatsapp_text, whatsapp_template, telegram_html, email } = variant;
    let texts = [
        (TEXT, text, Form::Plain),
        (SMS_TEXT, sms_text, Form::Plain),
        (WHATSAPP_TEXT, whatsapp_text, Form::WhatsApp),
        (TELEGRAM_HTML, telegram_html, Form::TelegramHtml),
    ];
    for (pointer, source, form) in texts {
        if let Some(source) = source {
            add(pointer.into(), source, form);
        }
    }
    if let Some(template) = whatsapp_template {
        let mut line = |pointer, source| add(pointer, source, Form::Plain);
        template.header.iter().enumerate().for_each(|(at, value)| line(header_pointer(at), value));
        template.body.iter().enumerate().for_each(|(at, value)| line(body_pointer(at), value));
        template.buttons.iter().enumerate().for_each(|(at, button)| line(button_pointer(at), &button.value));
    }
    if let Some(email) = email {
        add(EMAIL_SUBJECT.into(), &email.subject, Form::Plain);
        if let Some(html) = &email.html {
            add(EMAIL_HTML.into(), html, Form::EmailHtml);
        }
        if let Some(text) = &email.text {
            add(EMAIL_TEXT.into(), text, Form::Plain);
        }
        for (n, attachment) in email.attachments.iter().enumerate() {
            add(attachment_pointer(n, "name"), &attachment.name, Form::Plain);
            if let Some(url) = &attachment.url {
                add(attachment_pointer(n, "url"), url, Form::Plain);
            }
        }
    }
    parts
}

pub(super) const TEXT: &str = "/text";
pub(super) const SMS_TEXT: &str = "/smsText";
pub(super) const WHATSAPP_TEXT: &str = "/whatsappText";
pub(super) const TELEGRAM_HTML: &str = "/telegramHtml";
pub(super) const EMAIL_SUBJECT: &str = "/email/subject";
pub(super) const EMAIL_HTML: &str = "/email/html";
pub(super) const EMAIL_TEXT: &str = "/email/text";

pub(super) const EMAIL_ATTACHMENTS: &str = "/email/attachments";

pub(super) fn attachment_pointer(at: usize, field: &str) -> String {
    format!("{EMAIL_ATTACHMENTS}/{at}/{field}")
}

pub(super) fn header_pointer(at: usize) -> String {
    format!("/whatsappTemplate/header/{at}")
}

pub(super) fn body_pointer(at: usize) -> String {
    format!("/whatsappTemplate/body/{at}")
}

pub(super) fn button_pointer(at: usize) -> String {
    format!("/whatsappTemplate/buttons/{at}/value")
}

/// A part that may be rendered.
pub(super) struct ReadyPart {
    pub(super) source: String,
    /// None if the source is the author's own, letter by letter.
    pub(super) map: Option<SourceMap>,
    pub(super) links: Vec<Link>,
    /// The source of an e-mail's text, made from this HTML.
    pub(super) text: Option<(String, SourceMap)>,
}

impl Engine {
    /// All that is done to a part before the engine compiles it, and its first mistake if it has one.
    pub(super) fn ready(&self, part: &Part<'_>, wants_text: bool) -> Result<ReadyPart, TemplateProblem> {
        let at_offset = |offset, message| TemplateProblem { place: place(&part.pointer, part.source, offset), message };
        let no = |message| at_start(&part.pointer, message);
        if part.source.trim().is_empty() {
            return Err(no("is empty".into()));
        }
        if let Some(objection) = grammar::objection(part.source) {
            return Err(at_offset(objection.offset, objection.message));
        }
        self.language().template_from_named_str(&part.pointer, part.source).map_err(|error| TemplateProblem {
            place: place_of_error(&part.pointer, part.source, &error),
            message: message_of(&error),
        })?;
        if matches!(part.form, Form::Plain | Form::WhatsApp) {
            let source = part.source.to_owned();
            return Ok(ReadyPart { source, map: None, links: Vec::new(), text: None });
        }
        let html = Html::parse(part.source).map_err(|objection| at_offset(objection.offset, objection.message))?;
        let Prepared { source, map, links } = match part.form {
            Form::EmailHtml => html.styled().map_err(no)?,
            _ => html.marked(),
        };
        let limit_bytes = self.limits().output_bytes;
        if source.len() > limit_bytes {
            let length = source.len();
            return Err(no(format!("with its styles in its tags it is {length} bytes long; at most {limit_bytes}")));
        }
        let text = if wants_text { Some(html.text().map_err(no)?) } else { None };
        Ok(ReadyPart { source, map: Some(map), links, text })
    }
}

/// What the engine says, without its own idea of the place.
pub(super) fn message_of(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

pub(super) fn at_start(part: &str, message: impl Into<String>) -> TemplateProblem {
    TemplateProblem { place: Place { part: part.into(), line: 1, column: 1 }, message: message.into() }
}
