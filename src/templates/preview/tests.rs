//! What a preview shows.

use serde_json::json;

use super::*;
use crate::domain::sms::SmsEncoding;
use crate::templates::Limits;

fn preview(json: &str, data: &Json, locale: Option<&str>) -> Preview {
    let body = serde_json::from_str(json).expect("a template");
    let of_data = Reader::of(data, None);
    let reader = Reader { locale: locale.or(of_data.locale), ..of_data };
    Engine::new(Limits::default()).preview(&body, data, reader).expect("a preview")
}

const BODY: &str = r#"{"locale":"ru","text":"Привет, {{ contact.name }}! {{ promo | default('нет') }}{% if vip %} VIP{% endif %}",
    "telegramHtml":"<b>{{ contact.name }}</b> &lt;3","email":{"subject":"Сделка {{ deal.title }}","html":"<p>{{ deal.amount | money }} {{ deal.closed | date }}</p>"},
    "whatsappTemplate":{"name":"n","language":"ru","headerText":"Заказ","bodyText":"{{1}}, ваш заказ {{ 2 }} для {{1}}","body":["{{ contact.name }}","{{ deal.title }}"]},
    "locales":{"en":{"text":"Hi {{ contact.name }}"}}}"#;

#[test]
fn every_channel_is_shown_as_it_is_read_and_measured() {
    let data =
        json!({ "contact": { "name": "<Ян> {{1}}" }, "deal": { "title": "T", "amount": 5, "closed": "2026-01-07" } });
    let shown = preview(BODY, &data, None);
    let of = |channel| shown.channels.iter().find(|preview| preview.channel == channel).expect("is there");
    let whatsapp = of(Channel::WhatsApp);
    assert_eq!(whatsapp.text.as_deref(), Some("Заказ\n\n<Ян> {{1}}, ваш заказ T для <Ян> {{1}}"));
    let telegram = of(Channel::Telegram);
    assert_eq!((telegram.text.as_deref(), telegram.locale.as_deref()), (Some("<Ян> {{1}} <3"), Some("ru")));
    assert_eq!(telegram.length, Some(Length { length: 13, limit: 4096, unit: LengthUnit::Utf16Units }));
    let sms = of(Channel::Sms).sms.as_ref().expect("an SMS");
    assert_eq!((sms.encoding, sms.parts), (SmsEncoding::Ucs2, 1));
    let email = of(Channel::Email);
    assert!(matches!(&email.content, Ok(Content::Email(email)) if email.subject == "Сделка T"));
    assert_eq!(email.text.as_deref(), Some("5\u{a0}₽ 7 января 2026"));
    assert!(shown.missing.is_empty());
    assert_eq!(shown.unset, ["promo", "vip"]);
}

#[test]
fn all_that_is_missing_is_named_at_once() {
    let shown = preview(BODY, &json!({ "deal": { "title": null } }), None);
    assert_eq!(shown.missing, ["contact.name", "deal.amount", "deal.closed", "deal.title"]);
    assert_eq!(shown.unset, ["promo", "vip"]);
    assert!(shown.channels.iter().all(|preview| preview.content.is_err() && preview.locale.as_deref() == Some("ru")));
}

#[test]
fn a_value_of_any_kind_can_stand_in() {
    let source = r#"{"text":"{{ deal.amount | money(deal.currency) }} {{ day | time(zone=zone) }} {% for x in rows %}{{ x }}{% endfor %}{{ last }}",
        "telegramHtml":"<a href=\"{{ url }}\">x</a>","email":{"subject":"{{ contact['Город'] }}","text":"{{ after }}"}}"#;
    let shown = preview(source, &json!({}), None);
    let missing = ["after", "contact['Город']", "day", "deal.amount", "deal.currency", "last", "rows", "url", "zone"];
    assert_eq!((shown.missing, shown.unset), (missing.map(str::to_owned).into(), vec![]));
}

#[test]
fn what_was_not_looked_at_is_not_called_unset() {
    let source =
        r#"{"text":"{{ sum | money }} {{ contact.name }} {{ promo | default('нет') }}{% if vip %} VIP{% endif %}"}"#;
    let shown = preview(source, &json!({ "sum": "много" }), None);
    assert_eq!(
        (shown.missing, shown.unset),
        (vec!["contact.name".to_owned()], vec!["promo".to_owned(), "vip".to_owned()])
    );
}

#[test]
fn a_record_that_is_not_there_lacks_its_fields() {
    let source = r#"{"text":"{{ manager.name }} {{ manager.phone | default('—') }}{% if lead.name %}!{% endif %}"}"#;
    let shown = preview(source, &json!({ "lead": null }), None);
    assert_eq!(shown.missing, ["manager.name"]);
    assert_eq!(shown.unset, ["lead.name", "manager.phone"]);
}

#[test]
fn what_telegram_refuses_is_no_preview() {
    let body = serde_json::from_str(r#"{"telegramHtml":"<p>x</p>"}"#).expect("a template");
    let engine = Engine::new(Limits::default());
    assert!(matches!(engine.preview(&body, &json!({}), Reader::default()), Err(RenderError::Broken(_))));
    assert!(engine.check(&body).expect_err("no").to_string().starts_with("/telegramHtml, line 1, column 1: "));
}

#[test]
fn another_language_can_be_asked_for() {
    let data = json!({ "contact": { "name": "Jan", "locale": "ru" } });
    let shown = preview(BODY, &data, Some("en-US"));
    let sms = shown.channels.iter().find(|preview| preview.channel == Channel::Sms).expect("an SMS");
    assert_eq!((sms.text.as_deref(), sms.locale.as_deref()), (Some("Hi Jan"), Some("en")));
    let broken = serde_json::from_str(r#"{"text":"{{ "}"#).expect("a template");
    let engine = Engine::new(Limits::default());
    assert!(matches!(engine.preview(&broken, &json!({}), Reader::default()), Err(RenderError::Broken(_))));
}
