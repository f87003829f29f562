//! Links, which of them win, and how often a source is asked.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;

/// Keeps records in memory, and what it was asked.
#[derive(Default)]
struct Memory {
    records: BTreeMap<(RecordKind, String), Value>,
    asked: Mutex<Vec<(RecordKind, Vec<String>)>>,
}

impl Memory {
    fn with(mut self, kind: RecordKind, id: &str, fields: Value) -> Self {
        self.records.insert((kind, id.to_owned()), fields);
        self
    }

    fn asked(&self) -> Vec<(RecordKind, Vec<String>)> {
        std::mem::take(&mut self.asked.lock().expect("unpoisoned"))
    }
}

#[async_trait]
impl RecordSource for Memory {
    async fn load(&self, kind: RecordKind, ids: Vec<RecordId>) -> Result<Vec<Record>, SourceError> {
        let mut texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
        texts.sort();
        self.asked.lock().expect("unpoisoned").push((kind, texts));
        let record = |id: RecordId| {
            let Value::Object(fields) = self.records.get(&(kind, id.to_string()))?.clone() else { return None };
            Some(Record::parse(kind, id, fields, None).expect("a good record"))
        };
        Ok(ids.into_iter().filter_map(record).collect())
    }

    async fn fields(&self, _: RecordKind) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }
}

fn ids(contact: Option<&str>, lead: Option<i64>, deal: Option<&str>, company: Option<&str>) -> RecordIds {
    let owned = |id: Option<&str>| id.map(str::to_owned);
    RecordIds { contact_id: owned(contact), lead_id: lead, deal_id: owned(deal), company_id: owned(company) }
}

/// Everybody named differently by everybody.
fn crm() -> Memory {
    let links = |contact, company, manager| json!({ "contactId": contact, "companyId": company, "managerId": manager });
    Memory::default()
        .with(RecordKind::Deal, "d1", links("c-deal", "f-deal", "m-deal"))
        .with(RecordKind::Deal, "d2", json!({ "contactId": "c-deal" }))
        .with(RecordKind::Deal, "d3", json!({ "contactId": "c-gone", "companyId": "f-deal" }))
        .with(RecordKind::Lead, "1", links("c-lead", "f-lead", "m-lead"))
        .with(RecordKind::Lead, "2", json!({}))
        .with(RecordKind::Contact, "c-deal", json!({ "companyId": "f-contact", "managerId": "m-contact" }))
        .with(RecordKind::Contact, "c-lead", json!({ "companyId": "f-contact" }))
        .with(RecordKind::Contact, "c1", json!({ "name": "Анна" }))
        .with(RecordKind::Contact, "m-deal", json!({}))
        .with(RecordKind::Contact, "m-lead", json!({}))
        .with(RecordKind::Contact, "m-contact", json!({}))
        .with(RecordKind::Contact, "m-company", json!({ "managerId": "m-deal" }))
        .with(RecordKind::Company, "f-deal", json!({ "managerId": "m-company" }))
        .with(RecordKind::Company, "f-lead", json!({}))
        .with(RecordKind::Company, "f-contact", json!({ "managerId": "m-company" }))
        .with(RecordKind::Company, "f1", json!({ "managerId": "m-company" }))
}

/// Who is who, with those that are not there in brackets.
async fn seen(ids: RecordIds) -> String {
    let context = Context::new(Arc::new(crm()));
    let set = context.load(std::slice::from_ref(&ids)).await.expect("it answers").of(&ids);
    let words = Role::ALL.into_iter().filter_map(|role| {
        let missing = set.missing.iter().find(|missing| missing.role == role);
        let id = set.get(role).map(|record| record.id.to_string());
        let id = id.or_else(|| missing.map(|missing| format!("({})", missing.id)))?;
        Some(format!("{} {id}", role.as_str()))
    });
    words.collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn the_nearest_link_wins_and_what_is_given_wins_over_all() {
    let cases = [
        ids(None, None, Some("d1"), None),
        ids(None, Some(1), Some("d1"), None),
        ids(None, Some(1), None, None),
        ids(None, Some(1), Some("d2"), None),
        ids(None, None, Some("d2"), None),
        ids(None, Some(2), None, None),
        ids(Some("c1"), Some(1), Some("d1"), Some("f1")),
        ids(Some("c1"), None, None, None),
        ids(Some("c-lead"), None, None, None),
        ids(Some("c1"), None, None, Some("f1")),
        ids(None, None, None, Some("f1")),
        ids(None, None, Some("d3"), None),
        ids(Some("nobody"), Some(9), Some(" "), Some("'; drop table")),
        ids(None, None, None, None),
    ];
    let mut lines = Vec::new();
    for case in cases {
        lines.push(seen(case).await);
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    deal d1, contact c-deal, company f-deal, manager m-deal
    deal d1, lead 1, contact c-deal, company f-deal, manager m-deal
    lead 1, contact c-lead, company f-lead, manager m-lead
    deal d2, lead 1, contact c-deal, company f-lead, manager m-lead
    deal d2, contact c-deal, company f-contact, manager m-contact
    lead 2
    deal d1, lead 1, contact c1, company f1, manager m-deal
    contact c1
    contact c-lead, company f-contact, manager m-company
    contact c1, company f1, manager m-company
    company f1, manager m-company
    deal d3, contact (c-gone), company f-deal, manager m-company
    deal ( ), lead (9), contact (nobody), company ('; drop table)
    ");
}

#[tokio::test]
async fn a_batch_asks_once_per_kind_and_stage_and_once_per_record() {
    let source = Arc::new(crm());
    let context = Context::new(Arc::clone(&source) as Arc<dyn RecordSource>);
    let every = [
        ids(None, None, Some("d1"), None),
        ids(None, Some(1), Some("d2"), None),
        ids(Some("c1"), Some(2), Some("gone"), None),
        ids(None, None, Some("d3"), Some("f1")),
        ids(Some("c-gone"), None, None, None),
    ];
    let batch: Vec<RecordIds> = every.iter().cycle().take(1000).cloned().collect();
    let loaded = context.load(&batch).await.expect("it answers");
    let asked: Vec<String> = source.asked().iter().map(|(kind, ids)| format!("{kind}: {}", ids.join(" "))).collect();
    insta::assert_snapshot!(asked.join("\n"), @r"
    deal: d1 d2 d3 gone
    lead: 1 2
    contact: c-deal c-gone c1 m-deal m-lead
    company: f-deal f-lead f1
    contact: m-company
    ");
    // All see the same record, not copies of it.
    let (first, other) = (loaded.of(&batch[0]), loaded.of(&batch[1]));
    assert!(Arc::ptr_eq(first.contact.as_ref().expect("linked"), other.contact.as_ref().expect("linked")));

    context.load(&[ids(Some("c1"), None, None, None), RecordIds::default()]).await.expect("it answers");
    assert_eq!(source.asked(), [(RecordKind::Contact, vec!["c1".to_owned()])]);
    context.load(&[RecordIds::default()]).await.expect("it answers");
    assert_eq!(source.asked(), []);
}

#[tokio::test]
async fn a_source_that_fails_fails_the_batch() {
    struct Away;
    #[async_trait]
    impl RecordSource for Away {
        async fn load(&self, kind: RecordKind, _: Vec<RecordId>) -> Result<Vec<Record>, SourceError> {
            Err(SourceError::Unavailable { kind, source: "gone".into() })
        }
        async fn fields(&self, _: RecordKind) -> Result<Vec<String>, SourceError> {
            Ok(Vec::new())
        }
    }
    let context = Context::new(Arc::new(Away));
    assert!(context.load(&[ids(Some("c1"), None, None, None)]).await.is_err());
    assert!(context.load(&[RecordIds::default()]).await.is_ok(), "nothing is asked of it");
}
