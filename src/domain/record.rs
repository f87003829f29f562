//! The CRM records that notifications are about: contacts, leads, deals, companies.
//!
//! A record is an id and free JSON. A few fields have a meaning here (addresses, locale, time zone, links to other
//! records): they are read once, when a record comes in, and kept in one form ever after, so that nobody behind it
//! parses a phone number again. Everything else is the CRM's own and stays as it came.

mod known;

use std::fmt;
use std::sync::Arc;

use phonenumber::country;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::known::parse_locale;
use self::known::{Known, as_text, depth};
use super::Channel;
use super::attempt::words;

words! {
    /// The four kinds of record. A manager is a contact.
    RecordKind {
        Contact = 1 "contact",
        Lead = 2 "lead",
        Deal = 3 "deal",
        Company = 4 "company",
    }
}

impl RecordKind {
    /// As the API's paths and the command line say it: `contacts`, `leads`, `deals`, `companies`.
    pub const fn plural(self) -> &'static str {
        match self {
            RecordKind::Contact => "contacts",
            RecordKind::Lead => "leads",
            RecordKind::Deal => "deals",
            RecordKind::Company => "companies",
        }
    }

    pub fn from_plural(text: &str) -> Option<Self> {
        RecordKind::ALL.iter().copied().find(|kind| kind.plural() == text)
    }

    /// The fields by which a record of this kind names others, each with the kind it names.
    pub const fn links(self) -> &'static [(&'static str, RecordKind)] {
        match self {
            RecordKind::Contact => &[("companyId", RecordKind::Company), ("managerId", RecordKind::Contact)],
            RecordKind::Lead | RecordKind::Deal => &[
                ("contactId", RecordKind::Contact),
                ("companyId", RecordKind::Company),
                ("managerId", RecordKind::Contact),
            ],
            RecordKind::Company => &[("managerId", RecordKind::Contact)],
        }
    }
}

/// A record's id, as the CRM has it: 1 to 200 bytes without control characters. A lead's is a whole number, written
/// in decimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(Arc<str>);

/// The text is not an id of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecordId {
    #[error("an id is 1 to {} bytes without control characters", RecordId::LONGEST_BYTES)]
    Text,
    #[error("a lead's id is a whole number")]
    Number,
}

impl RecordId {
    pub const LONGEST_BYTES: usize = 200;

    pub fn parse(kind: RecordKind, text: &str) -> Result<Self, InvalidRecordId> {
        let text = text.trim();
        if kind == RecordKind::Lead {
            return text.parse().map(RecordId::from_number).map_err(|_| InvalidRecordId::Number);
        }
        if text.is_empty() || text.len() > Self::LONGEST_BYTES || text.contains(char::is_control) {
            return Err(InvalidRecordId::Text);
        }
        Ok(RecordId(text.into()))
    }

    /// A lead's id.
    pub fn from_number(number: i64) -> Self {
        RecordId(number.to_string().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One record, read and checked.
#[derive(Clone, PartialEq)]
pub struct Record {
    pub kind: RecordKind,
    pub id: RecordId,
    /// All its fields but the id. A null says that the field is to go, and is in no record that is kept.
    fields: Map<String, Value>,
    /// What was left out of a record that somebody else keeps.
    refused: Vec<FieldProblem>,
}

/// What is wrong with one field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// Its name; empty for the record as a whole.
    pub field: String,
    pub detail: String,
}

impl FieldProblem {
    fn new(field: &str, detail: impl Into<String>) -> Self {
        FieldProblem { field: field.into(), detail: detail.into() }
    }
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.detail),
            field => write!(f, "{field}: {}", self.detail),
        }
    }
}

impl Record {
    /// A record's fields as JSON, in bytes.
    pub const LONGEST_BYTES: usize = 64 * 1024;
    const MOST_FIELDS: usize = 500;
    const LONGEST_NAME_BYTES: usize = 100;
    /// Records and lists within each other.
    const DEEPEST: usize = 16;

    /// Reads a record's fields. `region` is where phone numbers without a country code are from.
    ///
    /// Addresses, `locale`, `timezone` and links come out in their one form; an empty text there counts as none.
    pub fn parse(
        kind: RecordKind,
        id: RecordId,
        fields: Map<String, Value>,
        region: Option<country::Id>,
    ) -> Result<Self, Vec<FieldProblem>> {
        let (record, problems) = Self::checked(kind, id, fields, region);
        if problems.is_empty() { Ok(record) } else { Err(problems) }
    }

    /// Reads a record that somebody else keeps, and that cannot be sent back: what [`parse`](Self::parse) would refuse
    /// is left out, and [`refused`](Self::refused) says why.
    pub fn read_leniently(
        kind: RecordKind,
        id: RecordId,
        fields: Map<String, Value>,
        region: Option<country::Id>,
    ) -> Self {
        let (mut record, problems) = Self::checked(kind, id, fields, region);
        record.fields.retain(|name, _| is_name(name));
        for problem in &problems {
            match problem.field.as_str() {
                "" => record.fields.clear(),
                field => drop(record.fields.remove(field)),
            }
        }
        record.refused = problems;
        record.without_nulls()
    }

    fn checked(
        kind: RecordKind,
        id: RecordId,
        fields: Map<String, Value>,
        region: Option<country::Id>,
    ) -> (Self, Vec<FieldProblem>) {
        let mut record = Self::from_kept(kind, id, fields);
        let mut problems = record.check_bounds();
        match record.fields.remove("id") {
            None | Some(Value::Null) => {}
            Some(given) if as_text(&given).is_some_and(|given| given == record.id.as_str()) => {}
            Some(_) => problems.push(FieldProblem::new("id", format!("contradicts the record's id {}", record.id))),
        }
        let links = kind.links().iter().map(|(name, kind)| (*name, Known::Link(*kind)));
        let known = [
            ("phone", Known::Phone),
            ("email", Known::Email),
            ("telegramChatId", Known::Chat),
            ("locale", Known::Locale),
            ("timezone", Known::Timezone),
        ];
        for (name, known) in known.into_iter().chain(links) {
            let Some(given) = record.fields.get_mut(name) else { continue };
            match known.read(given, region) {
                Ok(value) => *given = value,
                Err(detail) => problems.push(FieldProblem::new(name, detail)),
            }
        }
        (record, problems)
    }

    /// A record that was parsed before, as it was kept.
    pub fn from_kept(kind: RecordKind, id: RecordId, fields: Map<String, Value>) -> Self {
        Record { kind, id, fields, refused: Vec::new() }
    }

    /// `newer` laid over this one, field by field; a null in it takes the field away.
    pub fn merged(mut self, newer: Record) -> Result<Self, FieldProblem> {
        self.fields.extend(newer.fields);
        let merged = self.without_nulls();
        merged.check_bounds().pop().map_or(Ok(merged), Err)
    }

    /// As it is kept.
    #[must_use]
    pub fn without_nulls(mut self) -> Self {
        self.fields.retain(|_, value| !value.is_null());
        self
    }

    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// Why a field is not there although its keeper gave one.
    pub fn refused(&self, field: &str) -> Option<&FieldProblem> {
        // A problem of the whole record left nothing of it.
        self.refused.iter().find(|problem| problem.field == field || problem.field.is_empty())
    }

    /// What a template sees: all fields, and the id.
    pub fn to_data(&self) -> Value {
        let mut data = self.fields.clone();
        let id = self.id.as_str();
        let id = match self.kind {
            RecordKind::Lead => id.parse::<i64>().map_or_else(|_| id.into(), Value::from),
            RecordKind::Contact | RecordKind::Deal | RecordKind::Company => id.into(),
        };
        data.insert("id".into(), id);
        Value::Object(data)
    }

    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field)?.as_str()
    }

    /// Where this channel reaches it: its phone, email or chat, in the form the channel takes.
    pub fn address(&self, channel: Channel) -> Option<String> {
        match channel {
            Channel::WhatsApp | Channel::Sms | Channel::Email => {
                self.text(Self::address_field(channel)).map(str::to_owned)
            }
            Channel::Telegram => self.fields.get(Self::address_field(channel)).and_then(as_text),
        }
    }

    /// The field that holds this channel's addresses.
    pub const fn address_field(channel: Channel) -> &'static str {
        match channel {
            Channel::WhatsApp | Channel::Sms => "phone",
            Channel::Email => "email",
            Channel::Telegram => "telegramChatId",
        }
    }

    /// The record of that kind which `field` names.
    pub fn link(&self, field: &str) -> Option<RecordId> {
        let (_, kind) = self.kind.links().iter().find(|(name, _)| *name == field)?;
        RecordId::parse(*kind, self.text(field)?).ok()
    }

    fn check_bounds(&self) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        if self.fields.len() > Self::MOST_FIELDS {
            let detail = format!("{} fields; at most {}", self.fields.len(), Self::MOST_FIELDS);
            problems.push(FieldProblem::new("", detail));
        }
        for (name, value) in &self.fields {
            if !is_name(name) {
                let shown: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
                let detail = format!("a name is 1 to {} bytes without control characters", Self::LONGEST_NAME_BYTES);
                problems.push(FieldProblem::new(&shown, detail));
            } else if depth(value) > Self::DEEPEST {
                problems.push(FieldProblem::new(name, format!("nested deeper than {}", Self::DEEPEST)));
            }
        }
        // Only what nests within bounds is walked by the printer, too.
        let bytes =
            if problems.is_empty() { serde_json::to_string(&self.fields).map_or(0, |json| json.len()) } else { 0 };
        if bytes > Self::LONGEST_BYTES {
            problems.push(FieldProblem::new("", format!("{bytes} bytes of JSON; at most {}", Self::LONGEST_BYTES)));
        }
        problems
    }
}

fn is_name(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= Record::LONGEST_NAME_BYTES && !text.contains(char::is_control)
}

/// Personal data is not for logs.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} fields)", self.kind, self.id, self.fields.len())
    }
}

#[cfg(test)]
mod tests {
    use phonenumber::country::Id::RU;
    use serde_json::json;

    use super::*;

    fn parse(kind: RecordKind, id: &str, fields: Value) -> Result<Record, Vec<String>> {
        let Value::Object(fields) = fields else { panic!("fields are an object") };
        let id = RecordId::parse(kind, id).expect("an id");
        Record::parse(kind, id, fields, Some(RU)).map_err(|all| all.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn known_fields_come_out_in_one_form() {
        let record = parse(
            RecordKind::Contact,
            "c1",
            json!({
                "id": "c1", "phone": "8 (999) 123-45-67", "email": "Anna@Example.COM", "telegramChatId": "-100123",
                "locale": "RU_ru", "timezone": "europe/moscow", "companyId": 7, "name": "Анна", "tags": ["vip"],
            }),
        );
        let record = record.expect("all is fine");
        let expected = json!({
            "phone": "+79991234567", "email": "Anna@example.com", "telegramChatId": -100_123, "locale": "ru-RU",
            "timezone": "Europe/Moscow", "companyId": "7", "name": "Анна", "tags": ["vip"],
        });
        assert_eq!(Value::Object(record.fields().clone()), expected);
        assert_eq!(record.address(Channel::Sms).as_deref(), Some("+79991234567"));
        assert_eq!(record.address(Channel::Telegram).as_deref(), Some("-100123"));
        assert_eq!(record.link("companyId").expect("a link").as_str(), "7");
        // What came out goes in again unchanged.
        let again = Record::parse(record.kind, record.id.clone(), record.fields().clone(), None);
        assert_eq!(again.expect("it is fine"), record);
    }

    #[test]
    fn every_problem_names_its_field() {
        let problems = parse(
            RecordKind::Lead,
            "42",
            json!({
                "id": 43, "phone": "12345", "email": "Анна <a@b.c>", "telegramChatId": "@channel", "locale": "russian",
                "timezone": "Moscow", "contactId": ["c1"], "a\nb": 1,
            }),
        );
        let problems = problems.expect_err("nearly all is wrong").join("\n");
        insta::assert_snapshot!(problems, @r"
        ab: a name is 1 to 100 bytes without control characters
        id: contradicts the record's id 42
        phone: not a valid phone number: give it with its country code, like +7 999 123-45-67
        email: not an email address: give the bare address, like anna@example.com
        telegramChatId: expected the numeric id of the person's chat
        locale: expected a language, like ru or en-GB
        timezone: expected a time zone of the IANA list, like Europe/Moscow
        contactId: expected a text or a number
        ");
    }

    #[test]
    fn hostile_records_are_refused() {
        let deep = (0..20).fold(json!(1), |inner, _| json!([inner]));
        let many: Map<_, _> = (0..501).map(|n| (format!("f{n}"), json!(n))).collect();
        for fields in [json!({ "a": deep }), json!({ "a": "x".repeat(70_000) }), Value::Object(many)] {
            assert!(parse(RecordKind::Deal, "d1", fields).is_err());
        }
        for id in ["", " ", "a\nb", &"x".repeat(201)] {
            assert!(RecordId::parse(RecordKind::Contact, id).is_err(), "{id:?} was taken");
        }
        assert!(RecordId::parse(RecordKind::Lead, "c1").is_err());
        assert_eq!(RecordId::parse(RecordKind::Lead, "042").expect("a number").as_str(), "42");
    }

    #[test]
    fn what_is_not_usable_is_left_out_and_says_why() {
        let read = |fields: Value| {
            let Value::Object(fields) = fields else { panic!("fields are an object") };
            let id = RecordId::parse(RecordKind::Contact, "c1").expect("an id");
            Record::read_leniently(RecordKind::Contact, id, fields, Some(RU))
        };
        let record = read(json!({ "phone": "none", "email": null, "name": "Анна", "a\nb": 1, "companyId": [1] }));
        assert_eq!(Value::Object(record.fields().clone()), json!({ "name": "Анна" }));
        assert_eq!(record.address(Channel::Sms), None);
        assert!(record.refused("phone").expect("it was given").detail.starts_with("not a valid phone number"));
        assert!(record.refused("companyId").is_some());
        assert_eq!(record.refused("email"), None);

        let record = read(json!({ "phone": "+79991234567", "note": "x".repeat(70_000) }));
        assert!(record.fields().is_empty());
        assert!(record.refused("phone").expect("it was given").detail.contains("bytes of JSON"));
    }

    #[test]
    fn merging_lays_over_and_takes_away() {
        let old = parse(RecordKind::Contact, "c1", json!({ "name": "Анна", "phone": "+79991234567", "age": 30 }));
        let new = parse(RecordKind::Contact, "c1", json!({ "name": "Anna", "age": null, "phone": "" }));
        let merged = old.expect("fine").merged(new.expect("fine")).expect("fits");
        assert_eq!(Value::Object(merged.fields().clone()), json!({ "name": "Anna" }));
    }
}
