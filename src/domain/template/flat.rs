//! A template on the wire and on disk: the main bodies beside the rest, in one object.
//!
//! Written out rather than flattened by serde, which could then refuse no unknown field and would forget where in the
//! body a mistake is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{EmailBody, TemplateBody, TemplateVariant, WhatsAppTemplate};
use crate::domain::Policy;

/// What its author writes. Every string with `{{ … }}` is a minijinja template over the notification's data.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FlatTemplate {
    /// For people: what it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// The language of the bodies beside it, like `ru` or `en-GB`; `ru` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    locale: Option<String>,
    /// Plain text, for WhatsApp, Telegram and SMS where they have nothing of their own below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Plain text for SMS only: short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sms_text: Option<String>,
    /// Free text for WhatsApp, with its `*bold*` and `_italic_`; marks inside values are only shown. WhatsApp takes free
    /// text within 24 hours after the person wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    whatsapp_text: Option<String>,
    /// An approved WhatsApp template, the only thing WhatsApp takes outside the 24-hour window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    whatsapp_template: Option<WhatsAppTemplate>,
    /// Telegram's HTML (`<b>`, `<i>`, `<a>`, …); values are escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    telegram_html: Option<String>,
    /// An e-mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<EmailBody>,
    /// The same in other languages: locales like `en` or `en-GB`, each with bodies of its own. A contact gets the
    /// nearest to its `locale` that has something for the channel.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    locales: BTreeMap<String, TemplateVariant>,
    /// What to do when it cannot be known whether a send arrived; a notification may say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<Policy>,
}

impl From<FlatTemplate> for TemplateBody {
    fn from(flat: FlatTemplate) -> Self {
        let FlatTemplate { description, locale, text, sms_text, whatsapp_text, .. } = flat;
        let FlatTemplate { whatsapp_template, telegram_html, email, locales, policy, .. } = flat;
        let main = TemplateVariant { text, sms_text, whatsapp_text, whatsapp_template, telegram_html, email };
        TemplateBody { description, policy, locale, main, locales }
    }
}

impl From<TemplateBody> for FlatTemplate {
    fn from(body: TemplateBody) -> Self {
        let TemplateBody { description, policy, locale, main, locales } = body;
        let TemplateVariant { text, sms_text, whatsapp_text, whatsapp_template, telegram_html, email } = main;
        FlatTemplate {
            description,
            locale,
            text,
            sms_text,
            whatsapp_text,
            whatsapp_template,
            telegram_html,
            email,
            locales,
            policy,
        }
    }
}

impl utoipa::PartialSchema for TemplateBody {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        FlatTemplate::schema()
    }
}

impl utoipa::ToSchema for TemplateBody {
    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>)>) {
        FlatTemplate::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_before_there_were_languages_reads_as_it_did() {
        let saved = r#"{"description":"d","text":"t","telegramHtml":"<b>t</b>","policy":"at_least_once",
            "whatsappTemplate":{"name":"n","language":"ru","body":["x"]}}"#;
        let body: TemplateBody = serde_json::from_str(saved).expect("it reads");
        assert_eq!((body.main.text.as_deref(), body.main.telegram_html.as_deref()), (Some("t"), Some("<b>t</b>")));
        assert_eq!((body.policy, body.locales.len()), (Some(Policy::AtLeastOnce), 0));
    }

    #[test]
    fn languages_survive_the_way_to_disk_and_back() {
        let json = r#"{"locale":"ru","text":"т","locales":{"en":{"smsText":"t","email":{"subject":"s","text":"e"}}}}"#;
        let body: TemplateBody = serde_json::from_str(json).expect("it reads");
        assert_eq!(serde_json::to_string(&body).expect("it writes"), json);
    }

    #[test]
    fn a_word_that_nobody_knows_is_refused_at_every_level() {
        for json in [
            r#"{"txt":"a"}"#,
            r#"{"locales":{"en":{"policy":"at_least_once"}}}"#,
            r#"{"locales":{"en":{"locales":{}}}}"#,
            r#"{"email":{"subject":"s","body":"b"}}"#,
        ] {
            let refused = serde_json::from_str::<TemplateBody>(json).expect_err(json).to_string();
            assert!(refused.starts_with("unknown field"), "{json}: {refused}");
        }
    }
}
