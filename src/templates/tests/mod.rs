//! What the engine promises, a file per promise; and what these tests share.

mod attachments;
mod email;
mod escaping;
mod filters;
mod guide;

mod hostile;
mod languages;

use serde_json::Value as Json;

use super::{Engine, Limits, Reader, RenderError, TemplateProblems};
use crate::domain::template::{EmailBody, TemplateBody, TemplateVariant};
use crate::domain::{Channel, Content};

pub(super) fn engine() -> Engine {
    Engine::new(Limits::default())
}

pub(super) fn text(source: &str) -> TemplateBody {
    TemplateVariant { text: Some(source.into()), ..TemplateVariant::default() }.into()
}

pub(super) fn html(source: &str) -> TemplateBody {
    TemplateVariant { telegram_html: Some(source.into()), ..TemplateVariant::default() }.into()
}

pub(super) fn made(body: &TemplateBody, channel: Channel, data: &Json) -> Result<Content, RenderError> {
    let engine = engine();
    let compiled = engine.compile(body).map_err(|problem| RenderError::Broken(TemplateProblems(vec![problem])))?;
    engine.fill_in(&compiled, channel, data, Reader::of(data, None)).map(|filled| filled.content)
}

pub(super) fn rendered(source: &str, data: &Json) -> Result<String, RenderError> {
    match made(&text(source), Channel::Sms, data)? {
        Content::Text(text) => Ok(text),
        other => panic!("{other:?}"),
    }
}

pub(super) fn telegram(source: &str, data: &Json) -> Result<String, RenderError> {
    match made(&html(source), Channel::Telegram, data)? {
        Content::TelegramHtml(html) => Ok(html),
        other => panic!("{other:?}"),
    }
}

pub(super) fn email(subject: &str, html: Option<&str>, text: Option<&str>) -> TemplateBody {
    let (subject, html, text) = (subject.into(), html.map(Into::into), text.map(Into::into));
    let email = EmailBody { subject, html, text, ..EmailBody::default() };
    TemplateVariant { email: Some(email), ..TemplateVariant::default() }.into()
}

/// Subject, HTML and text of an e-mail.
pub(super) fn sent_email(body: &TemplateBody, data: &Json) -> Result<(String, String, String), RenderError> {
    match made(body, Channel::Email, data)? {
        Content::Email(email) => Ok((email.subject, email.html.unwrap_or_default(), email.text)),
        other => panic!("{other:?}"),
    }
}
