//! What will work, but perhaps not as its author meant it.

use std::collections::{BTreeMap, BTreeSet};

use super::compiled::locale_key;
use super::parts::{Part, at_start};
use super::position::place;
use super::uses::{uses, written};
use super::{Place, TemplateProblem};
use crate::domain::Channel;
use crate::domain::template::{TemplateBody, WhatsAppTemplate};

/// Everything that can be said without data and without records.
pub(super) fn of(body: &TemplateBody) -> Vec<TemplateProblem> {
    let mut warnings = Vec::new();
    for (_, pointer, variant) in body.variants() {
        if let Some(template) = &variant.whatsapp_template {
            wrong_counts(&format!("{pointer}/whatsappTemplate"), template, &mut warnings);
        }
    }
    different_counts(body, &mut warnings);
    missing_channels(body, &mut warnings);
    warnings
}

/// The approved text asks for so many parameters, and Meta refuses any other number of them.
fn wrong_counts(at: &str, template: &WhatsAppTemplate, warnings: &mut Vec<TemplateProblem>) {
    let parts = [("header", &template.header_text, &template.header), ("body", &template.body_text, &template.body)];
    for (name, text, values) in parts {
        let Some(text) = text else { continue };
        let (asked, given) = (placeholders(text).len(), values.len());
        if asked != given {
            let message =
                format!("the approved text takes {asked} parameters, and {given} are given: WhatsApp refuses it");
            warnings.push(at_start(&format!("{at}/{name}"), message));
        }
    }
}

/// The names between double braces, each once, numbers in their order.
pub(super) fn placeholders(text: &str) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for piece in text.split("{{").skip(1) {
        let name = piece.split_once("}}").map(|(name, _)| name.trim());
        if let Some(name) = name.filter(|name| !name.is_empty())
            && !found.contains(&name)
        {
            found.push(name);
        }
    }
    if found.iter().all(|name| name.parse::<u32>().is_ok()) {
        found.sort_by_key(|name| name.parse::<u32>().unwrap_or_default());
    }
    found
}

/// One approved name in several languages takes the same parameters in each.
fn different_counts(body: &TemplateBody, warnings: &mut Vec<TemplateProblem>) {
    let mut first: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for (_, pointer, variant) in body.variants() {
        let Some(template) = &variant.whatsapp_template else { continue };
        let counts = [template.header.len(), template.body.len(), template.buttons.len()];
        let known = first.entry(&template.name).or_insert(counts);
        if *known != counts {
            let say = |[header, body, buttons]: [usize; 3]| format!("{header} + {body} + {buttons}");
            let message = format!(
                "`{}` takes {} parameters (header + body + buttons) in another variant, and {} here",
                template.name,
                say(*known),
                say(counts)
            );
            warnings.push(at_start(&format!("{pointer}/whatsappTemplate"), message));
        }
    }
}

/// A language that some channel lacks: its people get another one there.
fn missing_channels(body: &TemplateBody, warnings: &mut Vec<TemplateProblem>) {
    for (locale, pointer, variant) in body.variants().skip(1) {
        let key = locale.map(locale_key).unwrap_or_default();
        let instead = |channel| {
            let mut shorter = key.as_str();
            while let Some((rest, _)) = shorter.rsplit_once('-') {
                let found = body.variants().find(|(other, _, other_variant)| {
                    other.is_some_and(|other| locale_key(other) == rest) && other_variant.serves(channel)
                });
                if let Some((other, ..)) = found {
                    return other.map(|other| format!("`{other}`"));
                }
                shorter = rest;
            }
            let main = || body.locale.as_ref().map_or("the main".to_owned(), |locale| format!("`{locale}`"));
            body.main.serves(channel).then(main)
        };
        for channel in Channel::ALL.into_iter().filter(|&channel| !variant.serves(channel)) {
            if let Some(instead) = instead(channel) {
                let message = format!("there is nothing for {channel} here: its people get {instead} variant");
                warnings.push(at_start(&pointer, message));
            }
        }
    }
}

/// Kinds of records as variables name them, and whose fields each has.
const KINDS: &[(&str, &str)] =
    &[("contact", "contact"), ("lead", "lead"), ("deal", "deal"), ("company", "company"), ("manager", "contact")];

/// A field of a record that a template reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldUse {
    /// As variables name it.
    pub record: String,
    pub field: String,
    /// Of the first use.
    pub place: Place,
}

/// Every field of a record among the variables that the parts read, once. A record's name that a loop gave to something
/// else is none.
pub(super) fn fields(parts: &[Part<'_>], variables: &[String]) -> Vec<FieldUse> {
    let is_read = |record: &str| variables.iter().any(|read| read.split('.').next() == Some(record));
    let mut fields: Vec<FieldUse> = Vec::new();
    for part in parts {
        for found in uses(part.source) {
            let [record, field, ..] = found.path.as_slice() else { continue };
            if KINDS.iter().any(|(name, _)| name == record)
                && is_read(record)
                && !fields.iter().any(|known| known.record == *record && known.field == *field)
            {
                let place = place(&part.pointer, part.source, found.offset);
                fields.push(FieldUse { record: record.clone(), field: field.clone(), place });
            }
        }
    }
    fields
}

/// Fields that no record has.
///
/// `known` names the fields that records of a kind (`contact`, `lead`, `deal`, `company`) have. A kind without any is one without records yet, about which nothing can be said.
pub fn unknown_fields(fields: &[FieldUse], known: &dyn Fn(&str) -> BTreeSet<String>) -> Vec<TemplateProblem> {
    let mut fields_of: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut warnings = Vec::new();
    for FieldUse { record, field, place } in fields {
        let Some(&(_, kind)) = KINDS.iter().find(|(name, _)| name == record) else { continue };
        let known = fields_of.entry(kind).or_insert_with(|| known(kind));
        if known.is_empty() || known.contains(field) {
            continue;
        }
        let near = known.iter().map(|known| (distance(known, field), known)).min();
        let hint = match near {
            Some((distance, known)) if distance <= 2 && distance * 2 < field.chars().count() => {
                format!(": is `{}` meant?", written(&[record, known]))
            }
            _ => String::new(),
        };
        let message = format!("no {kind} has a field `{field}` (`{}`){hint}", written(&[record, field]));
        warnings.push(TemplateProblem { place: place.clone(), message });
    }
    warnings
}

/// Letters to add, drop or change (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    /// Longer than the names of fields.
    const LONGEST: usize = 64;
    let other: Vec<char> = other.chars().take(LONGEST).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (n, a) in one.chars().take(LONGEST).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], n + 1);
        for (m, &b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[m + 1];
            row[m + 1] = changed.min(row[m] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::template::TemplateVariant;
    use crate::templates::{Engine, Limits};

    fn warned(json: &str) -> Vec<String> {
        let body: TemplateBody = serde_json::from_str(json).expect("a template");
        of(&body).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn parameters_are_counted_in_the_approved_text() {
        assert_eq!(placeholders("{{2}} {{1}} {{ 2 }} {{10}} {{}} {{"), ["1", "2", "10"]);
        let approved = |body: &str| {
            format!(
                r#"{{"whatsappTemplate":{{"name":"n","language":"ru","headerText":"Заказ","bodyText":"{{{{1}}}} и {{{{2}}}}","body":{body}}}}}"#
            )
        };
        assert!(warned(&approved(r#"["a","b"]"#)).is_empty());
        insta::assert_snapshot!(warned(&approved(r#"["a"]"#)).join("\n"), @"/whatsappTemplate/body, line 1, column 1: the approved text takes 2 parameters, and 1 are given: WhatsApp refuses it");
    }

    #[test]
    fn languages_are_compared() {
        let warnings = warned(
            r#"{"locale":"ru","text":"т","email":{"subject":"т","text":"т"},
                "whatsappTemplate":{"name":"n","language":"ru","body":["a"]},
                "locales":{"en":{"text":"t","whatsappTemplate":{"name":"n","language":"en","body":["a","b"]}},
                           "en-GB":{"email":{"subject":"t","text":"t"}}}}"#,
        );
        insta::assert_snapshot!(warnings.join("\n"), @r"
        /locales/en/whatsappTemplate, line 1, column 1: `n` takes 0 + 1 + 0 parameters (header + body + buttons) in another variant, and 0 + 2 + 0 here
        /locales/en, line 1, column 1: there is nothing for email here: its people get `ru` variant
        /locales/en-GB, line 1, column 1: there is nothing for whatsapp here: its people get `en` variant
        /locales/en-GB, line 1, column 1: there is nothing for telegram here: its people get `en` variant
        /locales/en-GB, line 1, column 1: there is nothing for sms here: its people get `en` variant
        ");
    }

    #[test]
    fn fields_that_no_record_has_are_named() {
        let known = |kind: &str| match kind {
            "contact" => ["name", "phone", "id", "Горд"].map(str::to_owned).into(),
            "deal" => ["amount".to_owned()].into(),
            "company" => ["name".to_owned()].into(),
            _ => BTreeSet::new(),
        };
        let source = "{{ contact.name }}\n{{ contact.nme }} {{ manager['fullName'] | upper }} {{ deal }} {{ deal.amount }} {{ lead.x }}{{ code.y }}\n\
                      {{ contact[\"Город\"] }} {{ contact.nme }} {{ contact.x }}{% for company in deals %}{{ company.z }}{% endfor %}";
        let body = TemplateVariant { text: Some(source.into()), ..TemplateVariant::default() }.into();
        let checked = Engine::new(Limits::default()).check(&body).expect("can be saved");
        let found = unknown_fields(&checked.fields, &known);
        insta::assert_snapshot!(found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"), @r#"
        /text, line 2, column 4: no contact has a field `nme` (`contact.nme`): is `contact.name` meant?
        /text, line 2, column 22: no contact has a field `fullName` (`manager.fullName`)
        /text, line 3, column 4: no contact has a field `Город` (`contact["Город"]`): is `contact["Горд"]` meant?
        /text, line 3, column 45: no contact has a field `x` (`contact.x`)
        "#);
    }
}
