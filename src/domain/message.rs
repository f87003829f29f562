//! The rendered message: what actually leaves.

use sha2::{Digest, Sha256};

use super::template::{WhatsAppButtonKind, WhatsAppCategory};
use super::{NotificationId, Recipient};

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
    /// An e-mail. The subject is one line, and values in the HTML are already escaped.
    Email { subject: String, html: Option<String>, text: String },
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
            Content::Email { subject, html, text } => {
                part("email");
                part(subject);
                part(text);
                html.iter().for_each(|html| part(html));
            }
        }
        hasher.finalize().into()
    }

    /// The text a person would read, for display: an approved template shows its name and parameters, an e-mail its
    /// subject and its plain text.
    pub fn display_text(&self) -> String {
        match self {
            Content::Text(text) | Content::TelegramHtml(text) => text.clone(),
            Content::WhatsAppTemplate(template) => {
                let values: Vec<_> = template.header.iter().chain(&template.body).map(String::as_str).collect();
                format!("[{} · {}] {}", template.name, template.language, values.join(" · "))
            }
            Content::Email { subject, text, .. } => format!("{subject}\n\n{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

        let email = |subject: &str, html: Option<&str>, text: &str| {
            Content::Email { subject: subject.into(), html: html.map(Into::into), text: text.into() }.hash()
        };
        assert_ne!(email("ab", None, "c"), email("a", None, "bc"));
        assert_ne!(email("a", None, "b"), email("a", Some(""), "b"));
    }
}
