//! What a template holds. Rendering is `templates`' business.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Policy, TemplateId, TemplateVersion};

/// One immutable version of a template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pub id: TemplateId,
    pub version: TemplateVersion,
    pub body: Arc<TemplateBody>,
}

/// What its author writes. Every string with `{{ … }}` is a minijinja template over the notification's data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemplateBody {
    /// For people: what it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Plain text, for every channel that has nothing of its own below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Telegram's HTML (`<b>`, `<i>`, `<a>`, …); values are escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telegram_html: Option<String>,
    /// An approved WhatsApp template, the only thing WhatsApp takes outside the 24-hour window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whatsapp_template: Option<WhatsAppTemplate>,
    /// What to do when it cannot be known whether a send arrived; a notification may say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
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
    /// Values of the header's `{{1}}`, `{{2}}`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub header: Vec<String>,
    /// Values of the body's `{{1}}`, `{{2}}`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub body: Vec<String>,
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
