//! E-mails: what leaves for a body, and what stops one.

use serde_json::json;

use super::{email, engine, made, sent_email};
use crate::domain::Channel;
use crate::domain::template::TemplateBody;
use crate::templates::RenderError;

#[test]
fn a_text_is_made_where_there_is_only_html() {
    let page = "<style>h1 { color: #333 }</style><h1>Здравствуйте, {{ name }}!</h1>\n\
                {% if rows %}<table>{% for row in rows %}<tr><td>{{ row.title }}</td><td>{{ row.sum | money }}</td></tr>{% endfor %}</table>{% endif %}\n\
                <p><a href=\"{{ url }}\">Оплатить</a></p>";
    let data = json!({
        "name": "Анна & Ко <x>", "url": "https://pay.example/1?a=1&b=2",
        "rows": [{ "title": "Чай", "sum": 100 }, { "title": "Кофе", "sum": "250,50" }],
    });
    let (subject, html, text) = sent_email(&email("Заказ {{ name }}", Some(page), None), &data).expect("renders");
    insta::assert_snapshot!(format!("{subject}\n=====\n{html}\n=====\n{text}"));
}

#[test]
fn the_author_may_write_the_text_or_only_it() {
    let data = json!({ "n": "<1>" });
    let both = sent_email(&email("s", Some("<p>{{ n }}</p>"), Some("т {{ n }}")), &data).expect("renders");
    assert_eq!(both, ("s".into(), "<p>&lt;1&gt;</p>".into(), "т <1>".into()));
    assert_eq!(sent_email(&email("s", None, Some("{{ n }}")), &data).expect("renders").2, "<1>");
    let only_text = super::text("t");
    assert_eq!(made(&only_text, Channel::Email, &data), Err(RenderError::NoBody { channel: Channel::Email }));
    assert!(engine().check(&email("s", None, None)).is_err());
    assert!(serde_json::from_str::<TemplateBody>(r#"{"email":{"text":"t"}}"#).is_err(), "a subject is needed");
}

#[test]
fn a_subject_is_one_short_line() {
    let subject = |source: &str, value: &str| sent_email(&email(source, None, Some("t")), &json!({ "x": value }));
    let sent = |source: &str, value: &str| subject(source, value).expect("renders").0;
    assert_eq!(sent("Заказ\n {{ x }}\n", "1\r\nBcc: a@b.c"), "Заказ 1 Bcc: a@b.c");
    assert_eq!(sent("{{ x }}", "a\u{0}b\u{85}c\u{2028}d\te"), "a b c d e");
    assert!(matches!(subject("{{ x }}", "\r\n"), Err(RenderError::Empty { .. })));
    assert!(subject("{{ x }}", &"я".repeat(499)).is_ok());
    assert!(matches!(subject("{{ x }}", &"я".repeat(500)), Err(RenderError::TooLong { limit: 998, length: 1000, .. })));
}

#[test]
fn an_address_from_data_leads_where_addresses_may() {
    let link =
        |url: &str| sent_email(&email("s", Some("<p>a</p>\n<a href='{{ url }}'>b</a>"), None), &json!({ "url": url }));
    for fine in ["https://x.ru/?a=1&b='2'", "HTTP://x", "mailto:a@b.c", "tel:+79991234567", " https://x", "#top"] {
        assert!(link(fine).is_ok(), "{fine}");
    }
    for bad in [
        "javascript:alert(1)",
        "JaVaScRiPt:x",
        "\u{1}javascript:x",
        "java\nscript:x",
        "data:text/html,x",
        "x.ru",
        "//x.ru",
        "/x",
        "",
    ] {
        let error = link(bad).expect_err(bad);
        let place = error.place().expect("a place");
        assert_eq!((place.part.as_str(), place.line, place.column), ("/email/html", 2, 10), "{bad}: {error}");
    }
    let long = format!("<b>'&amp;{}", "я".repeat(100));
    let said = link(&long).expect_err("no address").to_string();
    assert!(said.starts_with(&format!("`<b>'&amp;{}` is no address", "я".repeat(51))), "{said}");
    let pieces = "{% for u in urls %}<a href=\"{% if u %}{{ u }}{% endif %}\">{{ u }}</a>{% endfor %}";
    let several = |urls| made(&super::html(pieces), Channel::Telegram, &json!({ "urls": urls }));
    assert!(several(["https://a", "tg://b"]).is_ok());
    insta::assert_snapshot!(several(["https://a", "javascript:b"]).expect_err("the second"), @"`javascript:b` is no address for a link: it has to begin with https://, http://, mailto:, tel:, sms:, tg://, viber://, whatsapp://, cid:, # (/telegramHtml, line 1, column 29)");
}

#[test]
fn errors_point_into_what_the_author_wrote() {
    let page = "<style>td { padding: 0; color: red }</style>\n<table>\n<tr><td>x</td><td>Цена {{ deal.price }}</td></tr></table>";
    let error = sent_email(&email("s", Some(page), None), &json!({ "deal": {} })).expect_err("missing");
    insta::assert_snapshot!(error, @"`deal.price` is missing (/email/html, line 3, column 27)");
    // Styles before it move nothing, and neither does what the text leaves out.
    let page = "<p>a</p>\n<p>{{ a }}</p><p>{{ n | money }}</p>";
    let error = sent_email(&email("s", Some(page), None), &json!({ "a": 1, "n": "много" })).expect_err("no amount");
    assert_eq!(error.place().map(|place| (place.line, place.column)), Some((2, 25)), "{error}");
}

#[test]
fn what_the_text_says_is_not_escaped_and_no_code() {
    let page = "<p>{{ x }} &lbrace;{ y }} &lbrace;% if &amp;</p>";
    let (_, html, text) = sent_email(&email("s", Some(page), None), &json!({ "x": "<&>{{ 7*7 }}" })).expect("renders");
    assert_eq!(text, "<&>{{ 7*7 }} {{ y }} {% if &");
    assert_eq!(html, "<p>&lt;&amp;&gt;{{ 7*7 }} &lbrace;{ y }} &lbrace;% if &amp;</p>");
}

#[test]
fn a_page_that_grew_with_its_styles_is_refused_when_saved() {
    let page = format!("<style>p {{ color: red; padding: 0 0 0 0; margin: 1px }}</style>{}", "<p>x</p>".repeat(2_000));
    let problems = engine().check(&email("s", Some(&page), None)).expect_err("too long");
    insta::assert_snapshot!(problems, @"/email/html, line 1, column 1: with its styles in its tags it is 114062 bytes long; at most 65536");
}
