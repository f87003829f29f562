//! A value is text, whatever it holds and wherever it stands.

use proptest::prelude::*;
use scraper::{Html, Node};
use serde_json::json;

use super::{email, made, sent_email};
use crate::domain::template::{TemplateVariant, WhatsAppTemplate};
use crate::domain::{Channel, Content};

const PAGE: &str = "<!DOCTYPE html><html><head><title>{{ v }}</title><style>p { color: red }</style></head><body>\
    <p class=\"a {{ v }}\" title='{{ v }}'>{{ v }}<b>x{{ v }}</b></p>\
    <table>{% for i in [1, 2] %}<tr {% if v %}title=\"{{ v }}\"{% endif %}><td>{{ v }}</td></tr>{% endfor %}</table>\
    <a href=\"https://x/{{ v }}\">{{ v | e }}</a><textarea>{{ v }}</textarea>\
    {% set kept %}{{ v }}{% endset %}<i title=\"{{ kept }}\">{{ kept }}</i></body></html>";

/// Elements with the names of their attributes, in their order, and all text.
fn read(html: &str) -> (Vec<String>, String) {
    let page = Html::parse_document(html);
    let mut structure = Vec::new();
    let mut text = String::new();
    for node in page.tree.nodes() {
        match node.value() {
            Node::Element(element) => {
                let mut names: Vec<&str> = element.attrs().map(|(name, _)| name).collect();
                names.sort_unstable();
                structure.push(format!("{}[{}]", element.name(), names.join(" ")));
            }
            Node::Text(piece) => text.push_str(piece),
            Node::Comment(_) | Node::ProcessingInstruction(_) => structure.push("comment".to_owned()),
            _ => {}
        }
    }
    (structure, text)
}

fn breaks_lines(text: &str) -> bool {
    text.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
}

/// What tries hardest.
fn any_value() -> impl Strategy<Value = String> {
    let piece = proptest::sample::select(vec![
        "<b>",
        "</b>",
        "</td></tr></table>",
        "<script>alert(1)</script>",
        "\"",
        "'",
        "\" onclick=\"x",
        "' onclick='x",
        "<!--",
        "-->",
        "</title>",
        "</textarea>",
        "</style>",
        "<",
        ">",
        "&",
        "&lt;",
        "&#60;",
        "&quot",
        "{{ 7*7 }}",
        "{% if x %}",
        "{#",
        "\r\n",
        "\n",
        "\u{0}",
        "\u{1}",
        "\u{b}",
        "\u{2028}",
        "\u{f0000}",
        "*",
        "_",
        "~",
        "`",
        "[",
        "]",
        "(",
        "javascript:",
        "\n> ",
        "\n1. ",
        "\n- ",
        " https://x/",
        "a",
        "я",
        "😀",
        " ",
        "]]>",
    ]);
    prop_oneof![proptest::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat()), "\\PC{1,40}"]
        .prop_map(|value| format!("v{value}"))
}

proptest! {
    #[test]
    fn a_value_makes_no_element_of_a_page(value in any_value()) {
        let structure = |value: &str| {
            let (_, html, text) = sent_email(&email("s", Some(PAGE), None), &json!({ "v": value })).expect("renders");
            (read(&html), text)
        };
        let ((harmless, _), _) = structure("v");
        let ((hostile, shown), text) = structure(&value);
        prop_assert_eq!(hostile, harmless);
        let expected = crate::templates::without_controls(value);
        // A parser drops the first newline of a textarea only; the paragraph shows all.
        prop_assert!(shown.contains(&expected), "{shown:?} lacks {expected:?}");
        prop_assert!(!text.contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
    }

    #[test]
    fn a_value_makes_no_element_at_telegram(value in any_value()) {
        let source = "<b>{{ v }}</b> <a href=\"https://x/{{ v }}\">{{ v }}</a> <code class=\"language-{{ v }}\">{{ v }}</code>";
        let structure = |value: &str| match super::telegram(source, &json!({ "v": value })) {
            Ok(html) => read(&html).0,
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(structure(&value), structure("v"));
    }

    #[test]
    fn a_value_makes_no_header(value in any_value()) {
        let (subject, ..) = sent_email(&email("Заказ {{ v }}", None, Some("t")), &json!({ "v": &value })).expect("renders");
        prop_assert!(!breaks_lines(&subject), "{subject:?}");
        let expected = crate::templates::output::on_one_line(&format!("Заказ {}", value.replace(char::is_control, " ")));
        prop_assert_eq!(subject, expected, "the value itself, and no code ran");
    }

    #[test]
    fn a_value_makes_no_line_of_a_parameter(value in any_value()) {
        let approved = WhatsAppTemplate {
            name: "n".into(),
            language: "ru".into(),
            header: vec!["{{ v[:5] }}".into()],
            body: vec!["{{ v }}".into()],
            ..WhatsAppTemplate::default()
        };
        let body = TemplateVariant { whatsapp_template: Some(approved), ..TemplateVariant::default() }.into();
        let Content::WhatsAppTemplate(made) = made(&body, Channel::WhatsApp, &json!({ "v": value })).expect("renders") else {
            panic!("not approved");
        };
        for parameter in made.header.iter().chain(&made.body) {
            prop_assert!(!breaks_lines(parameter));
            prop_assert!(!parameter.contains("    "), "{parameter:?}");
        }
    }

    /// The author's marks stay marks; the values' are only shown.
    #[test]
    fn a_value_formats_nothing_at_whatsapp(value in any_value()) {
        for variant in [
            TemplateVariant { whatsapp_text: Some("*Заказ* {{ v }} _!_".into()), ..TemplateVariant::default() },
            TemplateVariant { text: Some("*Заказ* {{ v }} _!_".into()), ..TemplateVariant::default() },
        ] {
            let Ok(Content::Text(text)) = made(&variant.into(), Channel::WhatsApp, &json!({ "v": &value })) else {
                panic!("no text");
            };
            let inside = text.strip_prefix("*Заказ* ").and_then(|text| text.strip_suffix(" _!_")).expect("the author's own");
            let decoded = |text: &str| {
                let text = text.replace('\u{2060}', "").replace("%2A", "*").replace("%5F", "_");
                text.replace("%7E", "~").replace("%60", "`")
            };
            prop_assert_eq!(decoded(inside), decoded(&crate::templates::without_controls(value.clone())));
            for line in inside.split(['\n', '\u{2028}', '\u{2029}']).skip(1).map(str::trim_start) {
                prop_assert!(!line.starts_with('>') && !line.starts_with("- ") && !line.starts_with("1. "), "{inside:?}");
            }
            let letters: Vec<char> = inside.chars().collect();
            for at in (0..letters.len()).filter(|&at| "*_~`".contains(letters[at])) {
                let beside = [letters.get(at.wrapping_sub(1)), letters.get(at + 1)];
                let is_fine = |c: Option<&&char>| c.is_some_and(|&&c| c == '\u{2060}' || c.is_alphanumeric());
                prop_assert!(beside.iter().all(|c| is_fine(c.as_ref())), "{inside:?}");
            }
        }
    }

    #[test]
    fn an_sms_shows_the_value_and_no_more(value in any_value()) {
        let made = made(&super::text("a {{ v }}"), Channel::Sms, &json!({ "v": &value }));
        prop_assert_eq!(made, Ok(Content::Text(format!("a {}", crate::templates::without_controls(value)))));
    }
}
