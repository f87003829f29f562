//! Which variant a person gets.

use serde_json::json;

use super::{engine, made};
use crate::domain::template::TemplateBody;
use crate::domain::{Channel, Content};

fn body() -> TemplateBody {
    serde_json::from_str(
        r#"{"locale":"ru","text":"ru","telegramHtml":"<b>ru</b>","smsText":"ru sms","email":{"subject":"ru","text":"ru"},
            "whatsappText":"*ru*",
            "locales":{"en":{"text":"en"},"en_GB":{"smsText":"gb sms"},"de":{"email":{"subject":"de","html":"<p>de"}}}}"#,
    )
    .expect("a template")
}

#[test]
fn the_nearest_locale_that_has_something_for_the_channel() {
    for (locale, channel, text) in [
        ("ru", Channel::Telegram, "<b>ru</b>"),
        ("en", Channel::Telegram, "en"),
        ("EN", Channel::Sms, "en"),
        ("en-GB", Channel::Sms, "gb sms"),
        ("en_gb", Channel::Sms, "gb sms"),
        ("en-gb-oxendict", Channel::Sms, "gb sms"),
        ("en-GB", Channel::Telegram, "en"),
        ("en-US", Channel::WhatsApp, "en"),
        ("ru-KZ", Channel::WhatsApp, "*ru*"),
        ("fr", Channel::Sms, "ru sms"),
        ("-", Channel::Sms, "ru sms"),
        ("", Channel::Sms, "ru sms"),
        ("en", Channel::Email, "ru\n\nru"),
        ("de-AT", Channel::Email, "de\n\nde"),
        ("de", Channel::Sms, "ru sms"),
    ] {
        let sent = made(&body(), channel, &json!({ "contact": { "locale": locale } }));
        assert_eq!(sent.map(|content| content.display_text()).as_deref(), Ok(text), "{locale} {channel}");
    }
}

#[test]
fn the_contact_decides_then_the_lead_then_the_template() {
    let sms = |data| made(&body(), Channel::Sms, &data);
    assert_eq!(sms(json!({ "contact": {}, "lead": { "locale": "en" } })), Ok(Content::Text("en".into())));
    assert_eq!(
        sms(json!({ "contact": { "locale": "ru" }, "lead": { "locale": "en" } })),
        Ok(Content::Text("ru sms".into()))
    );
    for odd in [json!({ "contact": { "locale": 7 } }), json!({ "contact": "x" }), json!({ "locale": "en" })] {
        assert_eq!(sms(odd), Ok(Content::Text("ru sms".into())));
    }
    let long = json!({ "contact": { "locale": "en-".repeat(10_000) } });
    assert_eq!(sms(long), Ok(Content::Text("ru sms".into())));
}

#[test]
fn nothing_anywhere_is_said() {
    let body: TemplateBody = serde_json::from_str(r#"{"telegramHtml":"x"}"#).expect("a template");
    assert!(made(&body, Channel::Sms, &json!({})).is_err());
}

#[test]
fn mistakes_are_found_in_every_language() {
    let body: TemplateBody = serde_json::from_str(
        r#"{"locale":"ru","text":"x","locales":{
            "english":{"text":"x"}, "RU":{"text":"x"}, "en":{"email":{"subject":"{{ ","text":"x"}}, "fr":{},
            "kk":{"text":"a\n {{ x | money }}"},
            "en-GB":{"email":{"subject":"s","html":"<a href={{ x }}>"},"whatsappTemplate":{"name":"N","language":"en"}}}}"#,
    )
    .expect("a template");
    let problems = engine().check(&body).expect_err("broken").0;
    insta::assert_snapshot!(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
}

/// Data has no say in the language, whatever it is called.
#[test]
fn the_language_is_the_variants() {
    let body: TemplateBody = serde_json::from_str(
        r#"{"locale":"ru","smsText":"{{ 5 | plural('лид','лида','лидов') }}","locales":{"en":{"smsText":"{% set rendering = 1 %}{{ 5 | plural('lead','leads') }}"}}}"#,
    )
    .expect("a template");
    let data = |locale: &str| json!({ "contact": { "locale": locale }, "\u{0}rendering": { "language": "ru" } });
    assert_eq!(made(&body, Channel::Sms, &data("en")), Ok(Content::Text("leads".into())));
    assert_eq!(made(&body, Channel::Sms, &data("ru")), Ok(Content::Text("лидов".into())));
}
