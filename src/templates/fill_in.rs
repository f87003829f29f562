//! Rendering: takes the variant and the parts that a channel uses, fills them in, and holds them to the limits.

use std::sync::Arc;

use minijinja::{ErrorKind, Value};
use serde_json::Value as Json;

use super::attachments::{AttachmentPart, AttachmentParts, is_url};
use super::compiled::{ApprovedParts, Compiled, CompiledPart, EmailParts};
use super::data::{Reader, Rendering, root};
use super::html::{beginnings, check_links};
use super::output::{
    BoundedWriter, is_blank, on_one_line, telegram_html_units, utf16_units, without_controls, without_gaps,
};
use super::parts::message_of;
use super::position::{missing_variable, offset_of_error, place};
use super::{Engine, Place, RenderError, approved_text, limits};
use crate::domain::message::RenderedWhatsAppTemplate;
use crate::domain::{Attachment, AttachmentSource, Channel, Content, EmailContent};

/// What was made, and of which variant.
pub(super) struct Filled<'a> {
    pub(super) content: Content,
    pub(super) locale: Option<&'a str>,
}

/// The parts of one variant and the data for them.
struct Filling<'a> {
    engine: &'a Engine,
    compiled: &'a Compiled,
    channel: Channel,
    root: Value,
}

impl Engine {
    pub(super) fn fill_in<'a>(
        &self,
        compiled: &'a Compiled,
        channel: Channel,
        data: &Json,
        reader: Reader<'_>,
    ) -> Result<Filled<'a>, RenderError> {
        let Some(fields) = data.as_object() else { return Err(RenderError::NotAnObject) };
        let variant = compiled.choose(reader.locale, channel);
        let variant = variant.ok_or(RenderError::NoBody { channel })?;
        let rendering = Rendering { language: variant.language, zone: reader.zone.map(Into::into) };
        let filling = Filling { engine: self, compiled, channel, root: root(fields, rendering) };
        let text = |part: &Option<CompiledPart>| match part {
            Some(part) => filling.text(part),
            None => Err(RenderError::NoBody { channel }),
        };
        let content = match channel {
            Channel::WhatsApp => match (&variant.whatsapp_template, &variant.whatsapp_text) {
                (Some(template), _) => filling.approved(template)?,
                (None, Some(own)) => filling.text(own)?,
                (None, None) => text(&variant.text_for_whatsapp)?,
            },
            Channel::Telegram => match &variant.telegram_html {
                Some(html) => filling.telegram_html(html)?,
                None => text(&variant.text)?,
            },
            Channel::Sms => text(if variant.sms_text.is_some() { &variant.sms_text } else { &variant.text })?,
            Channel::Email => match &variant.email {
                Some(email) => filling.email(email)?,
                None => return Err(RenderError::NoBody { channel }),
            },
        };
        Ok(Filled { content, locale: variant.locale.as_deref() })
    }
}

impl Filling<'_> {
    fn text(&self, part: &CompiledPart) -> Result<Content, RenderError> {
        let text = self.part(part)?;
        match self.channel {
            Channel::WhatsApp => self.within(part, text.chars().count(), limits::WHATSAPP_TEXT_CHARS)?,
            Channel::Telegram => self.within(part, utf16_units(&text), limits::TELEGRAM_TEXT_UTF16)?,
            Channel::Sms => self.within(part, text.chars().count(), limits::SMS_CHARS)?,
            Channel::Email => {}
        }
        Ok(Content::Text(text))
    }

    fn telegram_html(&self, part: &CompiledPart) -> Result<Content, RenderError> {
        let html = self.part(part)?;
        self.within(part, telegram_html_units(&html), limits::TELEGRAM_TEXT_UTF16)?;
        Ok(Content::TelegramHtml(html))
    }

    fn approved(&self, approved: &ApprovedParts) -> Result<Content, RenderError> {
        let line = |part: &CompiledPart, limit| {
            let line = on_one_line(&self.part(part)?);
            self.within(part, line.chars().count(), limit)?;
            Ok(line)
        };
        let lines = |parts: &[CompiledPart], limit| {
            parts.iter().map(|part| line(part, limit)).collect::<Result<_, RenderError>>()
        };
        let template = &approved.template;
        let buttons = template.buttons.iter().zip(&approved.buttons);
        let buttons = buttons.map(|(button, part)| Ok((button.index, button.kind, line(part, usize::MAX)?)));
        let rendered = RenderedWhatsAppTemplate {
            name: template.name.clone(),
            language: template.language.clone(),
            category: template.category,
            header: lines(&approved.header, limits::WHATSAPP_HEADER_CHARS)?,
            body: lines(&approved.body, limits::WHATSAPP_BODY_CHARS)?,
            buttons: buttons.collect::<Result<_, RenderError>>()?,
        };
        // One text of the author's and Meta's own; without a parameter it is as long as Meta let it be.
        if let (Some(body), Some(first)) = (approved_text::body(&rendered, template), approved.body.first()) {
            let part = first.pointer.trim_end_matches("/0").to_owned();
            let (limit, length) = (limits::WHATSAPP_BODY_CHARS, body.chars().count());
            if length > limit {
                return Err(RenderError::TooLong { part, channel: self.channel, limit, length });
            }
        }
        Ok(Content::WhatsAppTemplate(rendered))
    }

    fn email(&self, email: &EmailParts) -> Result<Content, RenderError> {
        // A line break in a header begins the next header.
        let subject = self.raw(&email.subject)?.replace(char::is_control, " ");
        let subject = on_one_line(&subject);
        if subject.is_empty() {
            return Err(RenderError::Empty { part: email.subject.pointer.clone() });
        }
        self.within(&email.subject, subject.len(), limits::SUBJECT_BYTES)?;
        let html = email.html.as_ref().map(|html| self.part(html)).transpose()?;
        let text = self.part(&email.text)?;
        let attachments = email.attachments.iter().map(|parts| self.attachment(parts)).collect::<Result<_, _>>()?;
        Ok(Content::Email(EmailContent { subject, html, text, attachments }))
    }

    fn attachment(&self, parts: &AttachmentParts) -> Result<Attachment, RenderError> {
        let name = on_one_line(&self.raw(&parts.name)?.replace(char::is_control, " "));
        if name.is_empty() {
            return Err(RenderError::Empty { part: parts.name.pointer.clone() });
        }
        let source = match &parts.source {
            AttachmentPart::Inline { content_type, bytes } => {
                AttachmentSource::Inline { content_type: content_type.clone(), bytes: Arc::clone(bytes) }
            }
            AttachmentPart::Url(part) => {
                let url = self.raw(part)?.trim().to_owned();
                if !is_url(&url) {
                    let message = "the URL of an attachment has to begin with http:// or https://, all in ASCII".into();
                    return Err(RenderError::Failed { message, place: self.origin(part, "", |_| 0) });
                }
                AttachmentSource::Url(url)
            }
        };
        Ok(Attachment { name, source })
    }

    fn within(&self, part: &CompiledPart, length: usize, limit: usize) -> Result<(), RenderError> {
        if length > limit {
            return Err(RenderError::TooLong { part: part.pointer.clone(), channel: self.channel, limit, length });
        }
        Ok(())
    }

    fn part(&self, part: &CompiledPart) -> Result<String, RenderError> {
        let text = check_links(self.raw(part)?, &part.links).map_err(|link| RenderError::Failed {
            message: format!("`{}` is no address for a link: it has to begin with {}", link.address, beginnings()),
            place: self.origin(part, "", |_| link.offset),
        })?;
        let text = without_controls(text);
        let text = if part.is_derived { without_gaps(&text) } else { text };
        if is_blank(&text) {
            return Err(RenderError::Empty { part: part.pointer.clone() });
        }
        Ok(text)
    }

    /// As the engine wrote it.
    fn raw(&self, part: &CompiledPart) -> Result<String, RenderError> {
        let template = self.compiled.environment.get_template(&part.name);
        let template = template.map_err(|error| self.explain(part, "", &error, false))?;
        let mut writer = BoundedWriter::new(self.engine.limits().output_bytes);
        let rendered = template.render_captured_to(self.root.clone(), &mut writer).map(drop);
        rendered.map_err(|error| self.explain(part, template.source(), &error, writer.overflowed))?;
        Ok(String::from_utf8(writer.bytes).expect("the engine writes whole strings only"))
    }

    fn explain(&self, part: &CompiledPart, source: &str, error: &minijinja::Error, overflowed: bool) -> RenderError {
        let limits = self.engine.limits();
        if overflowed {
            return RenderError::TooBig { part: part.pointer.clone(), limit_bytes: limits.output_bytes };
        }
        let place = self.origin(part, source, |map| {
            let offset = offset_of_error(source, error);
            map.map_or(offset, |map| map.original(offset))
        });
        if error.kind() == ErrorKind::OutOfFuel {
            return RenderError::TooMuchWork { fuel: limits.fuel, place };
        }
        match missing_variable(source, error) {
            Some(variable) => RenderError::Missing { variable, place },
            None => RenderError::Failed { message: message_of(error), place },
        }
    }

    /// A place in what the author wrote.
    fn origin(
        &self,
        part: &CompiledPart,
        source: &str,
        offset: impl Fn(Option<&super::html::SourceMap>) -> usize,
    ) -> Place {
        match &part.origin {
            Some((original, map)) => place(&part.pointer, original, offset(Some(map))),
            None => place(&part.pointer, source, offset(None)),
        }
    }
}
