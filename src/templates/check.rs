//! Before a template is saved: everything that can be said about it without data.

use std::collections::BTreeSet;

use super::compiled::locale_key;
use super::engine::Engine;
use super::filters::{IN_A_LANGUAGE, Language};
use super::grammar::Objection;
use super::html::Html;
use super::parts::{EMAIL_ATTACHMENTS, Form, Part, at_start, parts};
use super::position::place;
use super::warnings::{self, FieldUse};
use super::{TemplateProblem, TemplateProblems, attachments};
use crate::domain::Channel;
use crate::domain::template::{TemplateBody, TemplateVariant, WhatsAppTemplate};

/// A template that can be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Every variable that some part may read, sorted: `contact.name`, `deal.amount`.
    pub variables: Vec<String>,
    /// Every field of a record among them, and where it is first.
    pub fields: Vec<FieldUse>,
    /// What will work, but perhaps not as it was meant.
    pub warnings: Vec<TemplateProblem>,
}

impl Engine {
    /// Finds all that is wrong with a template, or which variables it reads. A variable that is only tested or has a
    /// default is among them, so that an editor can offer it.
    pub fn check(&self, body: &TemplateBody) -> Result<Checked, TemplateProblems> {
        let parts = parts(body);
        let mut problems = Vec::new();

        if !body.variants().any(|(_, _, variant)| Channel::ALL.into_iter().any(|channel| variant.serves(channel))) {
            let message = "give at least one of text, smsText, whatsappText, whatsappTemplate, telegramHtml and email";
            problems.push(at_start("", message));
        }
        let source_bytes: usize = parts.iter().map(|part| part.source.len()).sum();
        let limit_bytes = self.limits().source_bytes;
        if source_bytes > limit_bytes {
            problems.push(at_start("", format!("the template is {source_bytes} bytes long; at most {limit_bytes}")));
            return Err(TemplateProblems(problems));
        }
        check_locales(body, &mut problems);
        for (locale, pointer, variant) in body.variants() {
            check_variant(&pointer, variant, &mut problems);
            check_language(locale, &pointer, &parts, &mut problems);
        }
        let wants_text = |part: &Part<'_>| part.form == Form::EmailHtml;
        problems.extend(parts.iter().filter_map(|part| self.ready(part, wants_text(part)).err()));
        problems.extend(self.unfit(&parts));
        if !problems.is_empty() {
            return Err(TemplateProblems(problems));
        }
        let variables = self.variables(body);
        let fields = warnings::fields(&parts, &variables);
        Ok(Checked { variables, fields, warnings: warnings::of(body) })
    }

    /// What Telegram would refuse of its HTML, and what nobody would read in an email's. Looked at before a template is
    /// saved and not when it is sent: what was saved once may still go through.
    pub(super) fn unfit(&self, parts: &[Part<'_>]) -> Vec<TemplateProblem> {
        /// Of one part. Who made so many mistakes made them all at once.
        const MOST: usize = 100;
        let mut problems = Vec::new();
        for part in parts {
            let unfit = match part.form {
                Form::TelegramHtml => Html::unfit_for_telegram,
                Form::EmailHtml => Html::stray_signs,
                Form::Plain | Form::WhatsApp => continue,
            };
            if self.ready(part, false).is_err() {
                continue;
            }
            let Ok(html) = Html::parse(part.source) else { continue };
            problems.extend(unfit(&html).into_iter().take(MOST).map(|Objection { offset, message }| TemplateProblem {
                place: place(&part.pointer, part.source, offset),
                message,
            }));
        }
        problems
    }

    /// Every variable that some part may read; of a part that is broken, none.
    pub fn variables(&self, body: &TemplateBody) -> Vec<String> {
        let mut variables = BTreeSet::new();
        for part in parts(body) {
            if let Ok(template) = self.language().template_from_named_str(&part.pointer, part.source) {
                variables.extend(template.undeclared_variables(true));
            }
        }
        variables.into_iter().collect()
    }
}

fn check_locales(body: &TemplateBody, problems: &mut Vec<TemplateProblem>) {
    let mut seen = BTreeSet::new();
    for (locale, pointer, _) in body.variants() {
        let Some(locale) = locale else { continue };
        let pointer = if pointer.is_empty() { "/locale".into() } else { pointer };
        if !is_locale(locale) {
            problems.push(at_start(&pointer, "a locale is like `ru` or `en-GB`"));
        } else if !seen.insert(locale_key(locale)) {
            problems.push(at_start(&pointer, format!("there is another variant for `{locale}`")));
        }
    }
}

fn is_locale(locale: &str) -> bool {
    let mut subtags = locale.split(['-', '_']);
    let language = subtags.next().unwrap_or_default();
    let is_subtag = |tag: &str| (1..=8).contains(&tag.len()) && tag.chars().all(|c| c.is_ascii_alphanumeric());
    (2..=3).contains(&language.len()) && language.chars().all(|c| c.is_ascii_alphabetic()) && subtags.all(is_subtag)
}

fn check_variant(at: &str, variant: &TemplateVariant, problems: &mut Vec<TemplateProblem>) {
    if !at.is_empty() && !Channel::ALL.into_iter().any(|channel| variant.serves(channel)) {
        problems.push(at_start(at, "there is nothing to send in this variant"));
    }
    if let Some(template) = &variant.whatsapp_template {
        check_approved(&format!("{at}/whatsappTemplate"), template, problems);
    }
    if let Some(email) = &variant.email
        && email.html.is_none()
        && email.text.is_none()
    {
        problems.push(at_start(&format!("{at}/email"), "give at least one of html and text"));
    }
    if let Some(email) = &variant.email {
        attachments::check(&format!("{at}{EMAIL_ATTACHMENTS}"), email, problems);
    }
}

/// Filters that speak a language can only be used where they know it.
fn check_language(locale: Option<&str>, at: &str, parts: &[Part<'_>], problems: &mut Vec<TemplateProblem>) {
    let Some(locale) = locale.filter(|locale| Language::of_locale(locale).is_none()) else { return };
    let is_here = |part: &&Part<'_>| match part.pointer.strip_prefix(at) {
        Some(rest) => !at.is_empty() || !rest.starts_with("/locales/"),
        None => false,
    };
    for part in parts.iter().filter(is_here) {
        if let Some((offset, name)) =
            super::grammar::filters_used(part.source).find(|(_, name)| IN_A_LANGUAGE.contains(name))
        {
            problems.push(TemplateProblem {
                place: place(&part.pointer, part.source, offset),
                message: format!("`{name}` knows the languages ru and en, and this variant is for `{locale}`"),
            });
        }
    }
}

/// Meta's own rules for what its manager shows as name and language.
fn check_approved(at: &str, template: &WhatsAppTemplate, problems: &mut Vec<TemplateProblem>) {
    const LONGEST_NAME: usize = 512;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if template.name.is_empty() || template.name.len() > LONGEST_NAME || !template.name.chars().all(plain) {
        problems.push(at_start(
            &format!("{at}/name"),
            "an approved template's name is 1 to 512 of `a-z 0-9 _`, as the WhatsApp manager shows it",
        ));
    }
    if !is_language(&template.language) {
        problems.push(at_start(&format!("{at}/language"), "a language code is like `ru` or `en_US`"));
    }
    let mut places = BTreeSet::new();
    for (n, button) in template.buttons.iter().enumerate() {
        if !places.insert(button.index) {
            let message = format!("there is another button with index {}", button.index);
            problems.push(at_start(&format!("{at}/buttons/{n}/index"), message));
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
        TemplateVariant { text: Some(source.into()), ..TemplateVariant::default() }.into()
    }

    fn check(body: &TemplateBody) -> Result<Vec<String>, Vec<String>> {
        let checked = Engine::new(Limits::default()).check(body);
        checked
            .map(|checked| checked.variables)
            .map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn variables_of_all_parts_are_listed_once_and_sorted() {
        let body = TemplateVariant {
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
            ..TemplateVariant::default()
        }
        .into();
        assert_eq!(check(&body).expect("fine"), ["contact.name", "deal.amount", "lead.id", "rows", "slug"]);
    }

    #[test]
    fn every_problem_says_where() {
        let button = |index| WhatsAppButton { index, kind: WhatsAppButtonKind::Url, value: "x".into() };
        let body = TemplateVariant {
            text: Some("Привет,\n  {{ name ".into()),
            telegram_html: Some("<b>{{ name | nofilter }}</b>".into()),
            whatsapp_template: Some(WhatsAppTemplate {
                name: "New Lead".into(),
                language: "russian".into(),
                body: vec!["ok".into(), "{% if x %}".into(), " ".into()],
                buttons: vec![button(1), button(1)],
                ..WhatsAppTemplate::default()
            }),
            ..TemplateVariant::default()
        }
        .into();
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
        insta::assert_snapshot!(check(&TemplateBody::default()).expect_err("empty").join("\n"), @"template: give at least one of text, smsText, whatsappText, whatsappTemplate, telegramHtml and email");
    }

    #[test]
    fn too_long_a_source_is_not_even_read() {
        let problems = check(&text(&"x".repeat(70_000))).expect_err("too long");
        insta::assert_snapshot!(problems.join("\n"), @"template: the template is 70000 bytes long; at most 65536");
    }
}
