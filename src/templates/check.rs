//! Before a template is saved: everything that can be said about it without data.

use std::collections::BTreeSet;

use super::engine::{Engine, Part, parts};
use super::position::{place, place_of_error};
use super::{Place, TemplateProblem, TemplateProblems, grammar};
use crate::domain::template::{TemplateBody, WhatsAppTemplate};

/// A template that can be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Every variable that some part may read, sorted: `contact.name`, `deal.amount`.
    pub variables: Vec<String>,
}

impl Engine {
    /// Finds all that is wrong with a template, or which variables it reads. A variable that is only tested or has a
    /// default is among them, so that an editor can offer it.
    pub fn check(&self, body: &TemplateBody) -> Result<Checked, TemplateProblems> {
        let parts = parts(body);
        let mut problems = Vec::new();
        let mut variables = BTreeSet::new();

        if body.text.is_none() && body.telegram_html.is_none() && body.whatsapp_template.is_none() {
            problems.push(at_start("", "give at least one of text, telegramHtml and whatsappTemplate"));
        }
        let source_bytes: usize = parts.iter().map(|part| part.source.len()).sum();
        let limit_bytes = self.limits().source_bytes;
        if source_bytes > limit_bytes {
            problems.push(at_start("", format!("the template is {source_bytes} bytes long; at most {limit_bytes}")));
            return Err(TemplateProblems(problems));
        }
        if let Some(template) = &body.whatsapp_template {
            check_approved(template, &mut problems);
        }
        for part in &parts {
            match self.variables_of(part) {
                Ok(found) => variables.extend(found),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            Ok(Checked { variables: variables.into_iter().collect() })
        } else {
            Err(TemplateProblems(problems))
        }
    }

    fn variables_of(&self, part: &Part<'_>) -> Result<impl IntoIterator<Item = String> + use<>, TemplateProblem> {
        if part.source.trim().is_empty() {
            return Err(at_start(&part.pointer, "is empty"));
        }
        if let Some(objection) = grammar::objection(part.source) {
            let place = place(&part.pointer, part.source, objection.offset);
            return Err(TemplateProblem { place, message: objection.message });
        }
        match self.language().template_from_named_str(&part.pointer, part.source) {
            Ok(template) => Ok(template.undeclared_variables(true)),
            Err(error) => Err(TemplateProblem {
                place: place_of_error(&part.pointer, part.source, &error),
                message: message_of(&error),
            }),
        }
    }
}

/// What the engine says, without its own idea of the place.
pub(super) fn message_of(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

fn at_start(part: &str, message: impl Into<String>) -> TemplateProblem {
    TemplateProblem { place: Place { part: part.into(), line: 1, column: 1 }, message: message.into() }
}

/// Meta's own rules for what its manager shows as name and language.
fn check_approved(template: &WhatsAppTemplate, problems: &mut Vec<TemplateProblem>) {
    const LONGEST_NAME: usize = 512;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if template.name.is_empty() || template.name.len() > LONGEST_NAME || !template.name.chars().all(plain) {
        problems.push(at_start(
            "/whatsappTemplate/name",
            "an approved template's name is 1 to 512 of `a-z 0-9 _`, as the WhatsApp manager shows it",
        ));
    }
    if !is_language(&template.language) {
        problems.push(at_start("/whatsappTemplate/language", "a language code is like `ru` or `en_US`"));
    }
    let mut places = BTreeSet::new();
    for (at, button) in template.buttons.iter().enumerate() {
        if !places.insert(button.index) {
            let message = format!("there is another button with index {}", button.index);
            problems.push(at_start(&format!("/whatsappTemplate/buttons/{at}/index"), message));
        }
    }
}

fn is_language(code: &str) -> bool {
    let (language, region) = code.split_once('_').map_or((code, None), |(language, region)| (language, Some(region)));
    let language_fits = (2..=3).contains(&language.len()) && language.chars().all(|c| c.is_ascii_lowercase());
    language_fits && region.is_none_or(|r| (2..=4).contains(&r.len()) && r.chars().all(|c| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::template::{WhatsAppButton, WhatsAppButtonKind};
    use crate::templates::Limits;

    fn text(source: &str) -> TemplateBody {
        TemplateBody { text: Some(source.into()), ..TemplateBody::default() }
    }

    fn check(body: &TemplateBody) -> Result<Vec<String>, Vec<String>> {
        let checked = Engine::new(Limits::default()).check(body);
        checked
            .map(|checked| checked.variables)
            .map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn variables_of_all_parts_are_listed_once_and_sorted() {
        let body = TemplateBody {
            text: Some("{{ contact.name }} {% if deal.amount %}{{ deal.amount }}{% endif %}".into()),
            telegram_html: Some("<b>{{ contact.name }}</b>{% for row in rows %}{{ row.x }}{% endfor %}".into()),
            whatsapp_template: Some(WhatsAppTemplate {
                name: "new_lead".into(),
                language: "ru".into(),
                header: vec!["{{ lead.id }}".into()],
                body: vec!["{{ contact.name | default('?') }}".into()],
                buttons: vec![WhatsAppButton { index: 0, kind: WhatsAppButtonKind::Url, value: "{{ slug }}".into() }],
                ..WhatsAppTemplate::default()
            }),
            ..TemplateBody::default()
        };
        assert_eq!(check(&body).expect("fine"), ["contact.name", "deal.amount", "lead.id", "rows", "slug"]);
    }

    #[test]
    fn every_problem_says_where() {
        let button = |index| WhatsAppButton { index, kind: WhatsAppButtonKind::Url, value: "x".into() };
        let body = TemplateBody {
            text: Some("Привет,\n  {{ name ".into()),
            telegram_html: Some("<b>{{ name | nofilter }}</b>".into()),
            whatsapp_template: Some(WhatsAppTemplate {
                name: "New Lead".into(),
                language: "russian".into(),
                body: vec!["ok".into(), "{% if x %}".into(), " ".into()],
                buttons: vec![button(1), button(1)],
                ..WhatsAppTemplate::default()
            }),
            ..TemplateBody::default()
        };
        let problems = check(&body).expect_err("broken").join("\n");
        insta::assert_snapshot!(problems, @r"
        /whatsappTemplate/name, line 1, column 1: an approved template's name is 1 to 512 of `a-z 0-9 _`, as the WhatsApp manager shows it
        /whatsappTemplate/language, line 1, column 1: a language code is like `ru` or `en_US`
        /whatsappTemplate/buttons/1/index, line 1, column 1: there is another button with index 1
        /text, line 2, column 6: unexpected end of input, expected end of variable block
        /telegramHtml, line 1, column 14: there is no filter `nofilter`
        /whatsappTemplate/body/1, line 1, column 9: unexpected end of input, expected end of block
        /whatsappTemplate/body/2, line 1, column 1: is empty
        ");
    }

    #[test]
    fn nothing_to_send_is_a_problem() {
        insta::assert_snapshot!(check(&TemplateBody::default()).expect_err("empty").join("\n"), @"template: give at least one of text, telegramHtml and whatsappTemplate");
    }

    #[test]
    fn too_long_a_source_is_not_even_read() {
        let problems = check(&text(&"x".repeat(70_000))).expect_err("too long");
        insta::assert_snapshot!(problems.join("\n"), @"template: the template is 70000 bytes long; at most 65536");
    }
}
