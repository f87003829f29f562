//! Every example of the guide comes out as the guide says.

use serde_json::json;

use super::super::Reader;
use super::{Json, engine, made};
use crate::domain::template::{TemplateBody, TemplateVariant};
use crate::domain::{Channel, Content};

const GUIDE: &str = include_str!("../../../docs/templates.md");

/// Rows of the tables whose first cell is template code, in code quotes.
fn examples() -> Vec<Vec<String>> {
    let cell = |cell: &str| cell.replace('\u{0}', "|").trim().trim_matches('`').to_owned();
    let rows = GUIDE.lines().filter(|line| line.starts_with("| `") && (line.contains("{{ ") || line.contains("{% ")));
    rows.map(|row| row.replace("\\|", "\u{0}").trim_matches('|').split('|').map(cell).collect()).collect()
}

fn shown(locale: &str, source: &str, data: &Json) -> String {
    let main = TemplateVariant { text: Some(source.to_owned()), ..TemplateVariant::default() };
    let body = TemplateBody { locale: Some(locale.to_owned()), main, ..TemplateBody::default() };
    match made(&body, Channel::Sms, data) {
        // A page shows a space that does not break as a space.
        Ok(Content::Text(text)) => text.replace('\u{a0}', " ").trim().to_owned(),
        other => panic!("{source}: {other:?}"),
    }
}

#[test]
fn the_tables_tell_the_truth() {
    let mut seen = 0;
    for example in examples() {
        let cells: Vec<&str> = example.iter().map(String::as_str).collect();
        match *cells.as_slice() {
            [source, data, out] if data.starts_with('{') => {
                let data = serde_json::from_str(data).expect(data);
                assert_eq!(shown("ru", source, &data), out, "{source}");
            }
            [source, russian, english] => {
                assert_eq!(shown("ru", source, &json!({})), russian, "{source}");
                assert_eq!(shown("en", source, &json!({})), english, "{source}");
            }
            [source, out] => assert_eq!(shown("ru", source, &json!({})), out, "{source}"),
            ref other => panic!("what is this row? {other:?}"),
        }
        seen += 1;
    }
    assert!(seen > 15, "the guide's tables were not found");
}

#[test]
fn the_template_in_it_can_be_saved_and_sent() {
    let start = GUIDE.find("```json\n").expect("an example") + "```json\n".len();
    let end = start + GUIDE[start..].find("```").expect("it ends");
    let body: TemplateBody = serde_json::from_str(&GUIDE[start..end]).expect("it reads");
    let checked = engine().check(&body).expect("it can be saved");
    assert_eq!(checked.variables, ["contact.name", "deal.amount"]);
    let data = json!({ "contact": { "name": "Анна" }, "deal": { "amount": 150_000 } });
    let preview = engine().preview(&body, &data, Reader::of(&data, None)).expect("it renders");
    assert_eq!(preview.channels.len(), 4);
    assert!(preview.channels.iter().all(|channel| channel.content.is_ok()), "{preview:?}");
}

#[test]
fn the_errors_in_it_are_the_errors() {
    let said = |source: &str, data: Json| {
        let body = TemplateVariant { text: Some(source.to_owned()), ..TemplateVariant::default() }.into();
        made(&body, Channel::WhatsApp, &data).expect_err(source).to_string()
    };
    for error in [
        said("Сделка {{ deal.amount }}", json!({ "deal": {} })),
        said("{{x|money}}", json!({ "x": "много" })),
        said("{{ 'x' * 4097 }}", json!({})),
    ] {
        assert!(GUIDE.contains(&error), "the guide does not say: {error}");
    }
}

#[test]
fn the_filters_in_it_are_the_filters() {
    let line = GUIDE.lines().find(|line| line.starts_with("Of the language's own filters")).expect("the list");
    let mut named: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
    named.extend(["money", "date", "time", "datetime", "phone", "plural"]);
    named.sort_unstable();
    assert_eq!(named, crate::templates::grammar::FILTERS);
}
