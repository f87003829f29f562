//! The rendered message: what actually leaves.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::sms::SmsSize;
use super::template::{WhatsAppButtonKind, WhatsAppCategory};
use super::{Channel, NotificationId, Recipient};

/// One message on its way to one person.
#[derive(Clone, Debug)]
pub struct OutgoingMessage {
    /// Goes along as correlation where the provider carries one.
    pub id: NotificationId,
    pub recipient: Recipient,
    pub content: Content,
}

/// Rendered text in the form its channel takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Telegram's HTML subset, values already escaped.
    TelegramHtml(String),
    /// Parameters of a template approved by Meta.
    WhatsAppTemplate(RenderedWhatsAppTemplate),
    /// A subject with text, perhaps HTML, perhaps attachments.
    Email(EmailContent),
}

/// An email as its template rendered it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmailContent {
    /// One line.
    pub subject: String,
    /// Values already escaped.
    pub html: Option<String>,
    pub text: String,
    pub attachments: Vec<Attachment>,
}

/// A file that goes along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The name it is saved under.
    pub name: String,
    pub source: AttachmentSource,
}

/// Where an attachment's bytes come from.
#[derive(Clone, PartialEq, Eq)]
pub enum AttachmentSource {
    /// Fetched when the message is sent. May hold a secret in its query.
    Url(String),
    Inline {
        content_type: String,
        bytes: Arc<[u8]>,
    },
}

impl fmt::Debug for AttachmentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttachmentSource::Url(_) => f.write_str("Url(…)"),
            AttachmentSource::Inline { content_type, bytes } => write!(f, "Inline({content_type}, {})", bytes.len()),
        }
    }
}

/// An approved WhatsApp template with its parameters rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedWhatsAppTemplate {
    pub name: String,
    pub language: String,
    pub category: Option<WhatsAppCategory>,
    pub header: Vec<String>,
    pub body: Vec<String>,
    pub buttons: Vec<(u8, WhatsAppButtonKind, String)>,
}

impl Content {
    /// What it counts as where the provider counts and bills: an SMS as its parts, everything else as one.
    pub fn weight(&self, channel: Channel) -> u32 {
        match (channel, self) {
            (Channel::Sms, Content::Text(text)) => u32::try_from(SmsSize::of(text).parts).unwrap_or(u32::MAX).max(1),
            _ => 1,
        }
    }

    /// SHA-256 over every part that leaves, each with its length before it, so that no two messages share one.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let mut part = |text: &str| {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        match self {
            Content::Text(text) => {
                part("text");
                part(text);
            }
            Content::TelegramHtml(html) => {
                part("html");
                part(html);
            }
            Content::WhatsAppTemplate(template) => {
                part("whatsapp_template");
                part(&template.name);
                part(&template.language);
                for values in [&template.header, &template.body] {
                    part(&values.len().to_string());
                    values.iter().for_each(|value| part(value));
                }
                for (index, kind, value) in &template.buttons {
                    part(&format!("{index}:{kind:?}"));
                    part(value);
                }
            }
            Content::Email(email) => {
                part("email");
                part(&email.subject);
                part(&email.text);
                part(if email.html.is_some() { "html" } else { "" });
                part(email.html.as_deref().unwrap_or_default());
                for attachment in &email.attachments {
                    part(&attachment.name);
                    match &attachment.source {
                        AttachmentSource::Url(url) => {
                            part("url");
                            part(url);
                        }
                        AttachmentSource::Inline { content_type, bytes: content } => {
                            part("inline");
                            part(content_type);
                            part(&format!("{:x}", Sha256::digest(content)));
                        }
                    }
                }
            }
        }
        hasher.finalize().into()
    }

    /// The text a person would read, for display: an approved template shows its name and parameters, an email its
    /// subject and its plain text.
    pub fn display_text(&self) -> String {
        match self {
            Content::Text(text) | Content::TelegramHtml(text) => text.clone(),
            Content::WhatsAppTemplate(template) => {
                let values: Vec<_> = template.header.iter().chain(&template.body).map(String::as_str).collect();
                format!("[{} · {}] {}", template.name, template.language, values.join(" · "))
            }
            Content::Email(email) => format!("{}\n\n{}", email.subject, email.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sms_weighs_its_parts_and_all_else_one() {
        let text = Content::Text("я".repeat(135));
        assert_eq!(Channel::ALL.map(|channel| text.weight(channel)), [1, 1, 3, 1]);
        assert_eq!(Content::Text(String::new()).weight(Channel::Sms), 1);
    }

    #[test]
    fn moving_a_border_changes_the_hash() {
        let template = |body: &[&str]| {
            Content::WhatsAppTemplate(RenderedWhatsAppTemplate {
                name: "n".into(),
                language: "ru".into(),
                category: None,
                header: vec![],
                body: body.iter().map(|&value| value.into()).collect(),
                buttons: vec![],
            })
        };
        assert_ne!(template(&["ab", "c"]).hash(), template(&["a", "bc"]).hash());

        let email = |subject: &str, html: Option<&str>, text: &str, files: &[(&str, &str)]| {
            let attachment = |&(name, url): &(&str, &str)| Attachment {
                name: name.into(),
                source: AttachmentSource::Url(url.into()),
            };
            Content::Email(EmailContent {
                subject: subject.into(),
                html: html.map(Into::into),
                text: text.into(),
                attachments: files.iter().map(attachment).collect(),
            })
            .hash()
        };
        assert_ne!(email("ab", None, "c", &[]), email("a", None, "bc", &[]));
        assert_ne!(email("a", None, "b", &[]), email("a", Some(""), "b", &[]));
        assert_ne!(email("a", None, "b", &[("c", "d")]), email("a", None, "b", &[("cd", "")]));
    }
}
