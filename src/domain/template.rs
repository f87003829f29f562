//! What a template holds. Rendering is `templates`' business.

mod flat;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::flat::FlatTemplate;
use super::{Channel, Policy, TemplateId, TemplateVersion};

/// One immutable version of a template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pub id: TemplateId,
    pub version: TemplateVersion,
    pub body: Arc<TemplateBody>,
}

/// What its author writes: the bodies in one language, and perhaps in more.
///
/// On the wire the main bodies stand beside `description`, as they did when there was one language only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "FlatTemplate", into = "FlatTemplate")]
pub struct TemplateBody {
    /// For people: what it is for.
    pub description: Option<String>,
    /// What to do when it cannot be known whether a send arrived; a notification may say otherwise.
    pub policy: Option<Policy>,
    /// The language of `main`, like `ru` or `en-GB`.
    pub locale: Option<String>,
    /// What everyone gets for whom there is nothing better below.
    pub main: TemplateVariant,
    /// The same in other languages, by locale.
    pub locales: BTreeMap<String, TemplateVariant>,
}

impl TemplateBody {
    /// Every variant with its own locale and the pointer to it: the main one first, its pointer empty.
    pub fn variants(&self) -> impl Iterator<Item = (Option<&str>, String, &TemplateVariant)> {
        let main = (self.locale.as_deref(), String::new(), &self.main);
        let others = self.locales.iter().map(|(locale, variant)| {
            (Some(locale.as_str()), format!("/locales/{}", locale.replace('~', "~0").replace('/', "~1")), variant)
        });
        std::iter::once(main).chain(others)
    }
}

impl From<TemplateVariant> for TemplateBody {
    fn from(main: TemplateVariant) -> Self {
        TemplateBody { main, ..TemplateBody::default() }
    }
}

/// The bodies of one language. Every string with `{{ … }}` is a minijinja template over the notification's data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemplateVariant {
    /// Plain text, for WhatsApp, Telegram and SMS where they have nothing of their own below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Plain text for SMS only: short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sms_text: Option<String>,
    /// Free text for WhatsApp, with its `*bold*` and `_italic_`; marks inside values are only shown. WhatsApp takes free
    /// text within 24 hours after the person wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whatsapp_text: Option<String>,
    /// An approved WhatsApp template, the only thing WhatsApp takes outside the 24-hour window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whatsapp_template: Option<WhatsAppTemplate>,
    /// Telegram's HTML (`<b>`, `<i>`, `<a>`, …); values are escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telegram_html: Option<String>,
    /// An e-mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<EmailBody>,
}

impl TemplateVariant {
    /// Whether there is anything that `channel` could send.
    pub fn serves(&self, channel: Channel) -> bool {
        match channel {
            Channel::WhatsApp => {
                self.whatsapp_template.is_some() || self.whatsapp_text.is_some() || self.text.is_some()
            }
            Channel::Telegram => self.telegram_html.is_some() || self.text.is_some(),
            Channel::Sms => self.sms_text.is_some() || self.text.is_some(),
            Channel::Email => self.email.is_some(),
        }
    }
}

/// An e-mail: a subject, and HTML, text or both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmailBody {
    /// One line.
    pub subject: String,
    /// HTML; values are escaped, and the rules of its `<style>` are written into its tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// Plain text; made from the HTML if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Files that go along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<AttachmentBody>,
}

/// A file that goes along: either `url`, or `contentType` and `contentBase64`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttachmentBody {
    /// The name it is saved under; a template like the other strings.
    pub name: String,
    /// Fetched when the message is sent; a template, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Of a file given here, like `application/pdf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The file itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
}

/// A template approved by Meta, with our expressions for its parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WhatsAppTemplate {
    /// Its name in the WhatsApp manager.
    pub name: String,
    /// Its language code there: `ru`, `en_US`.
    pub language: String,
    /// `marketing`, `utility` or `authentication`, as approved. An opt-out from marketing stops only the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<WhatsAppCategory>,
    /// Values of the header's `{{1}}`, `{{2}}`, … in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub header: Vec<String>,
    /// Values of the body's `{{1}}`, `{{2}}`, … in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub body: Vec<String>,
    /// The header's approved text as the manager shows it, `{{1}}` and all: to count its parameters, and for previews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_text: Option<String>,
    /// The body's approved text, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_text: Option<String>,
    /// One per button that takes a parameter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buttons: Vec<WhatsAppButton>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhatsAppCategory {
    Marketing,
    Utility,
    Authentication,
}

/// A button of an approved template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WhatsAppButton {
    /// Its place, from 0.
    pub index: u8,
    pub kind: WhatsAppButtonKind,
    /// The URL's suffix, or the quick reply's payload.
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhatsAppButtonKind {
    Url,
    QuickReply,
}
