//! Money, time, plurals and phones, in both languages.

use serde_json::json;

use super::made;
use crate::domain::template::{TemplateBody, TemplateVariant};
use crate::domain::{Channel, Content};
use crate::templates::RenderError;

/// Rendered in a locale, for a contact in Moscow.
fn shown(locale: &str, source: &str) -> Result<String, RenderError> {
    let variant = TemplateVariant { text: Some(source.into()), ..TemplateVariant::default() };
    let body = TemplateBody { locale: Some(locale.into()), main: variant, ..TemplateBody::default() };
    let data = json!({
        "contact": { "timezone": "Europe/Moscow", "phone": "+79991234567" },
        "deal": { "amount": 150_000.5, "text": "1 234,50", "whole": 150_000, "closed": "2026-01-07T21:30:00Z" },
        "list": [1], "nothing": null,
    });
    match made(&body, Channel::Sms, &data)? {
        Content::Text(text) => Ok(text.replace('\u{a0}', "·")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_language_has_its_own_forms() {
    for (source, russian, english) in [
        ("deal.amount | money", "150·000,50·₽", "RUB·150,000.50"),
        ("deal.whole | money", "150·000·₽", "RUB·150,000"),
        ("deal.text | money('USD')", "1·234,50·$", "$1,234.50"),
        ("'1234.50' | money(currency='EUR')", "1·234,50·€", "€1,234.50"),
        ("5 | money('usd', decimals=2)", "5,00·$", "$5.00"),
        ("1234.56 | money('RUB', decimals=0)", "1·235·₽", "RUB·1,235"),
        ("-0.5 | money('GBP')", "-0,50·£", "-£0.50"),
        ("999 | money('JPY')", "999·¥", "¥999"),
        ("0 | money", "0·₽", "RUB·0"),
        ("123456789.1 | money", "123·456·789,10·₽", "RUB·123,456,789.10"),
        ("'2026-01-07' | date", "7 января 2026", "January 7, 2026"),
        ("'2026-01-07' | date('short')", "07.01.2026", "1/7/2026"),
        ("deal.closed | date", "8 января 2026", "January 8, 2026"),
        ("deal.closed | date(zone='UTC')", "7 января 2026", "January 7, 2026"),
        ("deal.closed | time", "00:30", "12:30 AM"),
        ("deal.closed | time(zone='Asia/Almaty')", "02:30", "2:30 AM"),
        ("deal.closed | datetime", "8 января 2026, 00:30", "January 8, 2026, 12:30 AM"),
        ("deal.closed | datetime('short')", "08.01.2026, 00:30", "1/8/2026, 12:30 AM"),
        ("1767821400 | datetime(zone='UTC')", "7 января 2026, 21:30", "January 7, 2026, 9:30 PM"),
        ("'1767821400' | date", "8 января 2026", "January 8, 2026"),
        ("'2026-01-07T10:00:00' | time", "10:00", "10:00 AM"),
        ("'2026-01-07 13:05' | time", "13:05", "1:05 PM"),
        ("'07.01.2026' | date", "7 января 2026", "January 7, 2026"),
        ("'7.1.2026 12:30' | datetime", "7 января 2026, 12:30", "January 7, 2026, 12:30 PM"),
        ("'07.01.2026 12:30:05' | date('short')", "07.01.2026", "1/7/2026"),
        ("'12:30' | time", "12:30", "12:30 PM"),
        ("'9:05:59' | time", "09:05", "9:05 AM"),
        ("'2026-05-09' | date('%A, %-d %B %y %%')", "суббота, 9 мая 26 %", "Saturday, 9 May 26 %"),
        ("deal.closed | datetime('%d.%m.%Y %H:%M')", "08.01.2026 00:30", "08.01.2026 00:30"),
        ("contact.phone | phone", "+7 999 123-45-67", "+7 999 123-45-67"),
        ("'79991234567' | phone", "+7 999 123-45-67", "+7 999 123-45-67"),
        ("'8 (999) 123-45-67' | phone('RU')", "+7 999 123-45-67", "+7 999 123-45-67"),
        ("'доб. 101' | phone", "доб. 101", "доб. 101"),
        ("12345 | phone", "12345", "12345"),
        ("nothing | default(0) | money", "0·₽", "RUB·0"),
    ] {
        let source = format!("{{{{ {source} }}}}");
        assert_eq!(shown("ru", &source).as_deref(), Ok(russian), "{source}");
        assert_eq!(shown("en", &source).as_deref(), Ok(english), "{source}");
    }
    assert_eq!(shown("en-GB", "{{ deal.closed | datetime }}").as_deref(), Ok("8 January 2026, 00:30"));
    assert_eq!(shown("en-GB", "{{ deal.closed | date('short') }}").as_deref(), Ok("08/01/2026"));
}

#[test]
fn plurals_follow_the_number() {
    let forms = |locale: &str, number: &str| {
        let forms = if locale == "ru" { "'заявка', 'заявки', 'заявок'" } else { "'lead', 'leads'" };
        shown(locale, &format!("{{{{ {number} | plural({forms}) }}}}")).expect(number)
    };
    for (form, numbers) in [
        ("заявка", &["1", "21", "101", "'1'", "-1", "1001", "1.0", "10000000001"][..]),
        ("заявки", &["2", "3", "4", "22", "104", "1.5", "'2,5'", "5.1"][..]),
        ("заявок", &["0", "5", "11", "12", "14", "111", "20", "100", "10000000011"][..]),
    ] {
        numbers.iter().for_each(|number| assert_eq!(forms("ru", number), form, "{number}"));
    }
    for (form, numbers) in [("lead", &["1", "-1", "'1'"][..]), ("leads", &["0", "2", "11", "21", "1.5"][..])] {
        numbers.iter().for_each(|number| assert_eq!(forms("en", number), form, "{number}"));
    }
}

#[test]
fn what_cannot_be_done_is_said_with_its_place() {
    let sources = [
        "{{ 1 | money('XYZ') }}",
        "{{ '1,234' | money }}",
        "{{ 'много' | money }}",
        "{{ list | money }}",
        "{{ 'завтра' | date }}",
        "{{ 1767821400000 | date }}",
        "{{ '2026-01-07' | time }}",
        "{{ 1 | date('medium') }}",
        "{{ 1 | date('%10Y') }}",
        "{{ 1 | date(zone='Moscow') }}",
        "{{ 1 | date(timezone='UTC') }}",
        "{{ 5 | plural('a', 'b') }}",
        "{{ 'пять' | plural('a', 'b', 'c') }}",
        "{{ '1' | phone('XX') }}",
    ];
    let said = sources.map(|source| format!("{source}\n    {}", shown("ru", source).expect_err(source)));
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_missing_value_is_named_whatever_it_was_for() {
    for filter in ["money", "date", "time", "datetime", "phone", "plural('a','b','c')"] {
        let error = shown("ru", &format!("Сумма\n {{{{ deal.nothing | {filter} }}}}")).expect_err(filter);
        assert_eq!(error.variable(), Some("deal.nothing"), "{filter}: {error}");
        assert_eq!(error.place().map(|place| place.line), Some(2));
    }
    for source in
        ["{{ 1 | money(zzz) }}", "{{ 1 | date(zone=zzz) }}", "{{ 1 | plural(zzz, 'b', 'c') }}", "{{ 1 | phone(zzz) }}"]
    {
        assert_eq!(shown("ru", source).expect_err(source).variable(), Some("zzz"), "{source}");
    }
}
