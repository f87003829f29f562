//! What rendering promises, and what hostile templates may not do.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::template::{TemplateBody, TemplateVariant, WhatsAppButton, WhatsAppButtonKind, WhatsAppTemplate};
use crate::domain::{TemplateId, TemplateVersion};
use crate::templates::output::{is_blank, telegram_html_units, utf16_units, without_controls};
use crate::templates::tests::{engine, html, made, rendered, telegram, text};

#[test]
fn the_channel_decides_what_is_used() {
    let body = TemplateVariant {
        text: Some("text {{ n }}".into()),
        telegram_html: Some("<b>{{ n }}</b>".into()),
        whatsapp_template: Some(WhatsAppTemplate {
            name: "new_lead".into(),
            language: "ru".into(),
            header: vec!["{{ n }}".into()],
            body: vec!["строка\n\tдва     {{ n }}".into()],
            buttons: vec![WhatsAppButton { index: 1, kind: WhatsAppButtonKind::Url, value: "lead/{{ n }}".into() }],
            ..WhatsAppTemplate::default()
        }),
        ..TemplateVariant::default()
    }
    .into();
    let data = json!({ "n": 7 });
    let render = |body: &TemplateBody, channel| made(body, channel, &data);
    assert_eq!(render(&body, Channel::Telegram), Ok(Content::TelegramHtml("<b>7</b>".into())));
    assert_eq!(render(&body, Channel::Sms), Ok(Content::Text("text 7".into())));
    let Ok(Content::WhatsAppTemplate(approved)) = render(&body, Channel::WhatsApp) else { panic!("not approved") };
    assert_eq!((approved.header, approved.body), (vec!["7".to_owned()], vec!["строка два 7".to_owned()]));
    assert_eq!(approved.buttons, vec![(1, WhatsAppButtonKind::Url, "lead/7".to_owned())]);

    assert_eq!(render(&text("t"), Channel::WhatsApp), Ok(Content::Text("t".into())));
    assert_eq!(render(&text("t"), Channel::Telegram), Ok(Content::Text("t".into())));
    assert_eq!(render(&html("t"), Channel::Email), Err(RenderError::NoBody { channel: Channel::Email }));
    assert_eq!(made(&text("t"), Channel::Sms, &json!([1])), Err(RenderError::NotAnObject), "data is an object");
}

#[test]
fn a_missing_value_is_named_with_its_place() {
    let data = json!({ "deal": { "title": "x", "sum": null }, "items": [1, null], "nothing": null });
    for (source, variable, line, column) in [
        ("Сделка {{ deal.amount }}", "deal.amount", 1, 11),
        ("a\n  {{ deal.amount | upper }}", "deal.amount", 2, 20),
        ("{{ lead.owner.name }}", "lead.owner", 1, 4),
        ("{{ manager.name }}", "manager.name", 1, 4),
        ("{{ manager.name | upper }}", "manager.name", 1, 19),
        ("{{ manager }}", "manager", 1, 4),
        ("{{ company | upper }}", "company", 1, 14),
        ("{{ company | money }}", "company", 1, 14),
        ("{{ deal.a.b }}", "deal.a", 1, 4),
        ("{{ items[7] }}", "items[7]", 1, 4),
        ("{{ items[1] }}", "items[1]", 1, 4),
        ("{% for row in rows %}{{ row }}{% endfor %}", "rows", 1, 15),
        ("{% set a = zzz %}\n{{ a }}", "zzz", 2, 4),
        ("{{ 1 + deal.amount }}", "deal.amount", 1, 4),
        ("{{ 'x' + deal.amount }}", "deal.amount", 1, 4),
        ("{{ nothing }}", "nothing", 1, 4),
        ("{{ deal.sum }}", "deal.sum", 1, 4),
        ("{{ deal['the sum'] }}", "deal['the sum']", 1, 4),
    ] {
        let error = rendered(source, &data).expect_err(source);
        let place = error.place().cloned().expect("has a place");
        assert_eq!(
            (error.variable(), place.part.as_str(), place.line, place.column),
            (Some(variable), "/text", line, column),
            "{source}: {error}"
        );
    }
}

#[test]
fn a_missing_value_may_be_tested_and_defaulted() {
    let data = json!({ "deal": {}, "nothing": null, "lead": null });
    for (source, expected) in [
        ("{% if name %}x{% else %}y{% endif %}", "y"),
        ("{% if deal.amount %}x{% else %}y{% endif %}", "y"),
        ("{{ name | default('друг') }}", "друг"),
        ("{{ nothing | default('друг') }}", "друг"),
        ("a{{ name if name }}", "a"),
        ("{% if nothing is defined %}x{% else %}y{% endif %}", "y"),
        ("{{ manager.name | default('—') }}", "—"),
        ("{{ manager | default('—') }}{{ company | d('!') }}", "—!"),
        ("{% if manager.name %}x{% else %}y{% endif %}", "y"),
        ("{% if not lead.phone %}x{% else %}y{% endif %}", "x"),
        ("{% if manager %}x{% elif manager is undefined %}y{% endif %}", "y"),
        ("{% if manager is defined %}x{% elif contact is not defined %}y{% endif %}", "y"),
        ("y{% for field in company %}x{% endfor %}", "y"),
    ] {
        assert_eq!(rendered(source, &data).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn values_print_as_people_write_them() {
    let data = json!({ "t": true, "n": 150_000, "f": 0.5, "list": [1, 2], "deal": { "a": 1 } });
    assert_eq!(
        rendered("{{ t }} {{ n }} {{ f }} {{ list | join(', ') }}", &data).as_deref(),
        Ok("true 150000 0.5 1, 2")
    );
    insta::assert_snapshot!(rendered("{{ deal }}", &data).expect_err("a record"), @"a map is no text: use `| join(', ')`, a loop, or one of its fields (/text, line 1, column 4)");
    insta::assert_snapshot!(rendered("x\n {{ n / 0 }}", &data).expect_err("by zero"), @"unable to calculate 150000 / 0 (/text, line 2, column 5)");
}

#[test]
fn a_value_is_never_code() {
    for value in ["{{ 7*7 }}", "{% if x %}", "{# no #}", "${7*7}", "{{ name }}"] {
        let data = json!({ "name": value });
        assert_eq!(rendered("{{ name }}", &data).as_deref(), Ok(value));
        assert_eq!(rendered("{% set x = name %}{{ x + '' }}", &data).as_deref(), Ok(value));
    }
}

#[test]
fn nothing_switches_escaping_off() {
    let data = json!({ "name": "<b>&\"'", "names": ["<b>", "\"'"] });
    let escaped = "&lt;b&gt;&amp;&quot;&#39;";
    for source in [
        "{{ name }}",
        "{{ name | e }}",
        "{{ '' + name }}",
        "{{ name | default('x') }}",
        "{% set x %}{{ name }}{% endset %}{{ x }}",
        "{{ name | replace('zz', '<i>') }}",
        "{{ ([''] | first) + name }}",
        "{% set x %}{{ name }}{% endset %}{{ x | replace('&lt;', '<') }}",
        "{% set x %}{{ name }}{% endset %}{{ x | replace('&', name) }}",
        "{% set x %}{{ name }}{% endset %}{{ x + name }}{{ name + x }}",
        "{% set x %}{{ name }}{% endset %}{{ '%s' | format(name) }}{{ x | format(name) }}",
        "{% set x %}%s{% endset %}{{ x | format(name) }}",
        "{% set x %},{% endset %}{{ [1, 2] | join(x) }}{{ names | join(x) }}",
        "{% set x %}{{ name }}{% endset %}{{ x | split(';') | join('<') }}",
        "{% set x %}{{ name }}{% endset %}{% for y in x | lines %}{{ y + name }}{% endfor %}",
        "{% set x %}{{ name }}{% endset %}{{ x | trim('&lt;') }}{{ x | title }}{{ x | upper }}{{ x * 2 }}{{ x | reverse }}",
    ] {
        let html = telegram(source, &data).expect(source);
        assert!(!html.contains('<') && !html.contains("\"'"), "{source}: {html}");
    }
    assert_eq!(telegram("{{ name }}", &data).as_deref(), Ok(escaped));
    for source in [
        "{{ name | safe }}",
        "{{ [name] | map('safe') | join }}",
        "{% autoescape false %}{{ name }}{% endautoescape %}",
    ] {
        assert!(telegram(source, &data).is_err(), "{source} passed");
    }
    assert!(matches!(
        telegram("{{ names | map('safe') | join }}", &json!({ "names": ["<b>"] })),
        Err(RenderError::Failed { .. })
    ));
}

/// Reads Telegram's HTML back: the text, and the tags in it.
fn read_back(html: &str) -> (String, Vec<String>) {
    let (mut text, mut tags, mut rest) = (String::new(), Vec::new(), html);
    while let Some(c) = rest.chars().next() {
        if c == '<' {
            let end = rest.find('>').expect("a tag ends");
            tags.push(rest[1..end].to_owned());
            rest = &rest[end + 1..];
        } else if c == '&' {
            let end = rest.find(';').expect("an entity ends");
            text.push_str(match &rest[1..end] {
                "lt" => "<",
                "gt" => ">",
                "amp" => "&",
                "quot" => "\"",
                "#39" => "'",
                other => panic!("entity {other}"),
            });
            rest = &rest[end + 1..];
        } else {
            text.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    (text, tags)
}

proptest! {
    /// Whatever a contact is called, Telegram shows exactly that, in bold, and nothing else happens.
    #[test]
    fn a_name_in_html_reads_back_as_itself(name in "(\\PC|[<>&;\"'/{}%#]){1,60}") {
        prop_assume!(!is_blank(&name));
        let expected = without_controls(name.clone());
        let html = telegram("<b>{{ name }}</b>", &json!({ "name": name })).expect("renders");
        prop_assert_eq!(telegram_html_units(&html), utf16_units(&expected));
        prop_assert_eq!(read_back(&html), (expected, vec!["b".to_owned(), "/b".to_owned()]));
    }

    /// No source and no data make the engine panic, and what it refuses before saving it refuses when rendering.
    #[test]
    fn any_source_ends(pieces in proptest::collection::vec(proptest::sample::select(vec![
        "{{ ", " }}", "{% ", " %}", "if ", "else", "elif ", "endif", "for x in ", "endfor", "set x = ", "x", "y.z", "[", "]",
        "(", ")", "'a'", "1", "-", "not ", "|upper", "|join", "|map('list')", "*", "+", ",", ":", "{", "}", "текст ", "{#", "#}",
        "|default(1)", " in ", " is defined", ".x", "**", "|sort", "|items", "loop.cycle(", "|format(", "%s", "|replace(",
    ]), 0..40)) {
        let source = pieces.concat();
        let checked = engine().check(&text(&source));
        let made = rendered(&source, &json!({ "x": [1, "два", { "x": [3] }], "y": { "z": "v" } }));
        prop_assert!(checked.is_ok() || made.is_err());
        prop_assert_eq!(matches!(made, Err(RenderError::Broken(_))), checked.is_err());
    }
}

#[test]
fn too_long_for_the_channel_says_by_how_much() {
    let too_long = |channel, limit, length| {
        Err(RenderError::TooLong {
            part: if channel == Channel::Telegram { "/telegramHtml" } else { "/text" }.into(),
            channel,
            limit,
            length,
        })
    };
    let whatsapp = |source: &str| made(&text(source), Channel::WhatsApp, &json!({}));
    assert!(whatsapp("{{ 'ы' * 4096 }}").is_ok());
    assert_eq!(whatsapp("{{ 'ы' * 4097 }}"), too_long(Channel::WhatsApp, 4096, 4097));
    assert!(rendered("{{ 'ы' * 1600 }}", &json!({})).is_ok());
    assert_eq!(made(&text("{{ 'ы' * 1601 }}"), Channel::Sms, &json!({})), too_long(Channel::Sms, 1600, 1601));
    let approved = |letters: usize| {
        let json = r#"{"whatsappTemplate":{"name":"n","language":"ru","bodyText":"{{1}} и {{2}}","body":["{{ x }}","{{ x }}"]}}"#;
        let body = serde_json::from_str(json).expect("a template");
        made(&body, Channel::WhatsApp, &json!({ "x": "ы".repeat(letters) }))
    };
    assert!(approved(510).is_ok());
    let part = "/whatsappTemplate/body".to_owned();
    let error = RenderError::TooLong { part, channel: Channel::WhatsApp, limit: 1024, length: 1025 };
    assert_eq!(approved(511), Err(error));
    let telegram = |source: &str| made(&html(source), Channel::Telegram, &json!({}));
    assert!(telegram("<b>{{ '<' * 4096 }}</b>").is_ok(), "entities count as what they stand for");
    assert_eq!(telegram("{{ '😀' * 2049 }}"), too_long(Channel::Telegram, 4096, 4098));
    assert!(matches!(rendered("{{ 'x' * 70000 }}", &json!({})), Err(RenderError::TooBig { limit_bytes: 65536, .. })));
    assert!(matches!(rendered(" {{ '\u{0}' }}\n", &json!({})), Err(RenderError::Empty { .. })));
}

#[test]
fn compiled_versions_are_kept_and_bounded() {
    let engine = engine();
    let template = |version: i32| Template {
        id: TemplateId::parse("t").expect("a name"),
        version: TemplateVersion(version),
        body: Arc::new(text(&format!("v{version}"))),
    };
    for version in 1..=1_100 {
        let made = engine.render(&template(version), Channel::Sms, &json!({}), Reader::default());
        assert_eq!(made, Ok(Content::Text(format!("v{version}"))));
    }
    let cache = engine.compiled.load();
    assert_eq!(cache.len(), limits::COMPILED_TEMPLATES);
    let kept = |version| cache.get(&(template(0).id, TemplateVersion(version))).is_some();
    assert!(kept(1_100) && !kept(1), "the oldest goes first");
}
