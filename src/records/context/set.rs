//! The records of one notification: what a template is given, and where a notification without a recipient goes.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::domain::{Channel, Record, RecordIds, RecordKind};

/// What a record is to a notification, and its name in templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Deal,
    Lead,
    Contact,
    Company,
    /// The contact who is responsible.
    Manager,
}

impl Role {
    /// Each after those that may name it.
    pub const ALL: [Role; 5] = [Role::Deal, Role::Lead, Role::Contact, Role::Company, Role::Manager];

    /// Who may be written to where no recipient is given, the first who is in play.
    pub const ADDRESSEES: [Role; 3] = [Role::Contact, Role::Lead, Role::Company];

    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Deal => "deal",
            Role::Lead => "lead",
            Role::Contact => "contact",
            Role::Company => "company",
            Role::Manager => "manager",
        }
    }

    pub const fn kind(self) -> RecordKind {
        match self {
            Role::Deal => RecordKind::Deal,
            Role::Lead => RecordKind::Lead,
            Role::Contact | Role::Manager => RecordKind::Contact,
            Role::Company => RecordKind::Company,
        }
    }

    /// The id that the notification itself gives.
    pub(super) fn given(self, ids: &RecordIds) -> Option<String> {
        match self {
            Role::Deal => ids.deal_id.clone(),
            Role::Lead => ids.lead_id.map(|id| id.to_string()),
            Role::Contact => ids.contact_id.clone(),
            Role::Company => ids.company_id.clone(),
            Role::Manager => None,
        }
    }

    /// The field that names it, and the roles that may have it, nearest first.
    const fn namers(self) -> (&'static str, &'static [Role]) {
        match self {
            Role::Deal | Role::Lead => ("", &[]),
            Role::Contact => ("contactId", &[Role::Deal, Role::Lead]),
            Role::Company => ("companyId", &[Role::Deal, Role::Lead, Role::Contact]),
            Role::Manager => ("managerId", &[Role::Deal, Role::Lead, Role::Contact, Role::Company]),
        }
    }
}

/// A record that was named and is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {} {id}{}", .role.kind(), if *.role == Role::Manager { ", the manager" } else { "" })]
pub struct Missing {
    pub role: Role,
    pub id: String,
}

/// Why records give no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    #[error("there is neither a recipient nor a contact, lead or company to take one from")]
    Nobody,
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error("{kind} {id} has no {field}")]
    Lacking { kind: RecordKind, id: String, field: &'static str },
    /// Its keeper gave one.
    #[error("{kind} {id}'s {field} is not usable: {detail}")]
    Unusable { kind: RecordKind, id: String, field: &'static str, detail: String },
}

/// What one notification sees.
#[derive(Clone, Debug, Default)]
pub struct RecordSet {
    pub contact: Option<Arc<Record>>,
    pub lead: Option<Arc<Record>>,
    pub deal: Option<Arc<Record>>,
    pub company: Option<Arc<Record>>,
    pub manager: Option<Arc<Record>>,
    /// Named by the notification or by a link, and not there.
    pub missing: Vec<Missing>,
}

impl RecordSet {
    pub fn get(&self, role: Role) -> Option<&Arc<Record>> {
        match role {
            Role::Deal => self.deal.as_ref(),
            Role::Lead => self.lead.as_ref(),
            Role::Contact => self.contact.as_ref(),
            Role::Company => self.company.as_ref(),
            Role::Manager => self.manager.as_ref(),
        }
    }

    /// Whether this record was named, there or not.
    pub fn names(&self, role: Role) -> bool {
        self.get(role).is_some() || self.missing.iter().any(|missing| missing.role == role)
    }

    /// What a template is given: the records under `contact`, `lead`, `deal`, `company` and `manager`, and the call's
    /// own `data` over all. Objects are laid over each other field by field; anything else takes the place of what was
    /// there, null too.
    pub fn data(&self, given: &Map<String, Value>) -> Map<String, Value> {
        let records = Role::ALL.into_iter().filter_map(|role| Some((role.as_str(), self.get(role)?.to_data())));
        let mut data: Map<String, Value> = records.map(|(name, record)| (name.to_owned(), record)).collect();
        lay_over(&mut data, given);
        data
    }

    /// Where a notification without a recipient goes: to the contact; where none is named the lead; else the company.
    /// Whoever it is, nobody else is written to because they have no address.
    pub fn address(&self, channel: Channel) -> Result<String, NoAddress> {
        let Some(record) = self.get(self.addressee()?) else { return Err(NoAddress::Nobody) };
        let field = Record::address_field(channel);
        record.address(channel).ok_or_else(|| {
            let (kind, id) = (record.kind, record.id.to_string());
            match record.refused(field) {
                Some(problem) => NoAddress::Unusable { kind, id, field, detail: problem.detail.clone() },
                None => NoAddress::Lacking { kind, id, field },
            }
        })
    }

    /// Whose [`address`](Self::address) is taken; they are there.
    pub fn addressee(&self) -> Result<Role, NoAddress> {
        for role in Role::ADDRESSEES {
            if self.get(role).is_some() {
                return Ok(role);
            }
            if let Some(missing) = self.missing.iter().find(|missing| missing.role == role) {
                return Err(missing.clone().into());
            }
        }
        // A deal that is not there would have named somebody.
        Err(self.missing.first().map_or(NoAddress::Nobody, |missing| missing.clone().into()))
    }

    /// Who reads what goes to `address`: whoever has it, the contact first. None if it is nobody's.
    pub fn reader(&self, channel: Channel, address: &str) -> Option<Role> {
        let has =
            |role: &Role| self.get(*role).and_then(|record| record.address(channel)).is_some_and(|own| own == address);
        [Role::Contact, Role::Manager, Role::Lead, Role::Company].into_iter().find(has)
    }

    /// The id that records found so far give to this role.
    pub(super) fn named(&self, role: Role) -> Option<String> {
        let (field, namers) = role.namers();
        namers.iter().find_map(|namer| self.get(*namer)?.link(field)).map(|id| id.to_string())
    }

    pub(super) fn put(&mut self, role: Role, id: String, found: Option<Arc<Record>>) {
        if found.is_none() {
            self.missing.push(Missing { role, id });
        }
        match role {
            Role::Deal => self.deal = found,
            Role::Lead => self.lead = found,
            Role::Contact => self.contact = found,
            Role::Company => self.company = found,
            Role::Manager => self.manager = found,
        }
    }
}

/// Recurses as deep as what the call gave, which `serde_json` bounds when it parses.
fn lay_over(under: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (name, value) in over {
        match (under.get_mut(name), value) {
            (Some(Value::Object(under)), Value::Object(over)) => lay_over(under, over),
            (Some(under), value) => *under = value.clone(),
            (None, value) => drop(under.insert(name.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::RecordId;

    fn record(kind: RecordKind, id: &str, fields: Value) -> Option<Arc<Record>> {
        let Value::Object(fields) = fields else { panic!("fields are an object") };
        let id = RecordId::parse(kind, id).expect("an id");
        Some(Arc::new(Record::read_leniently(kind, id, fields, None)))
    }

    #[test]
    fn given_data_lies_over_records_field_by_field() {
        let set = RecordSet {
            contact: record(
                RecordKind::Contact,
                "c1",
                json!({ "name": "Анна", "city": { "name": "Москва", "zip": "101000" }, "tags": ["a", "b"], "age": 30 }),
            ),
            lead: record(RecordKind::Lead, "42", json!({ "title": "Окна" })),
            manager: record(RecordKind::Contact, "m1", json!({ "name": "Олег" })),
            ..RecordSet::default()
        };
        let given = json!({
            "contact": { "name": "Anna", "city": { "name": "Moscow" }, "tags": ["c"], "age": null },
            "lead": 7, "source": "site", "extra": { "a": [1] },
        });
        let Value::Object(given) = given else { panic!("an object") };
        let expected = json!({
            "contact": {
                "id": "c1", "name": "Anna", "city": { "name": "Moscow", "zip": "101000" }, "tags": ["c"], "age": null,
            },
            "lead": 7, "manager": { "id": "m1", "name": "Олег" }, "source": "site", "extra": { "a": [1] },
        });
        assert_eq!(Value::Object(set.data(&given)), expected);
        // Without anything given, ids are as the CRM has them: a lead's is a number.
        assert_eq!(set.data(&Map::new())["lead"], json!({ "id": 42, "title": "Окна" }));
    }

    #[test]
    fn nobody_else_is_written_to_because_the_right_one_has_no_address() {
        let phone = json!({ "phone": "+79991234567", "telegramChatId": 5 });
        let contact = |fields| record(RecordKind::Contact, "c1", fields);
        let lead = record(RecordKind::Lead, "42", phone.clone());
        let company = record(RecordKind::Company, "f1", phone.clone());
        let manager = contact(phone.clone());
        let missing = |role, id: &str| vec![Missing { role, id: id.into() }];
        let all = RecordSet { contact: contact(json!({})), lead, company, manager, ..RecordSet::default() };
        let without = |roles: &[Role]| {
            let mut set = all.clone();
            for role in roles {
                set.put(*role, String::new(), None);
            }
            set.missing.clear();
            set
        };
        let said = |set: &RecordSet| match set.address(Channel::Sms) {
            Ok(address) => address,
            Err(error) => error.to_string(),
        };
        let no_contact = without(&[Role::Contact]);
        let nobody = without(&[Role::Contact, Role::Lead, Role::Company]);
        let sets = [
            all.clone(),
            RecordSet { contact: contact(json!({ "phone": "12345" })), ..all.clone() },
            RecordSet { missing: missing(Role::Contact, "c9"), ..no_contact.clone() },
            RecordSet { missing: missing(Role::Manager, "m9"), ..no_contact.clone() },
            RecordSet { missing: missing(Role::Lead, "43"), ..without(&[Role::Contact, Role::Lead]) },
            without(&[Role::Contact, Role::Lead]),
            RecordSet { missing: missing(Role::Deal, "d9"), ..nobody.clone() },
            RecordSet { missing: missing(Role::Manager, "m9"), ..nobody.clone() },
            nobody,
        ];
        let said: Vec<String> = sets.iter().map(said).collect();
        insta::assert_snapshot!(said.join("\n"), @r"
        contact c1 has no phone
        contact c1's phone is not usable: not a valid phone number: give it with its country code, like +7 999 123-45-67
        there is no contact c9
        +79991234567
        there is no lead 43
        +79991234567
        there is no deal d9
        there is no contact m9, the manager
        there is neither a recipient nor a contact, lead or company to take one from
        ");
        assert_eq!(no_contact.address(Channel::Telegram).expect("the lead's"), "5");
    }
}
