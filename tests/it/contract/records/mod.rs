//! The promises about CRM records and personal data, on SQLite and PostgreSQL alike.

mod dump;
mod erasing;
mod retention;
mod saving;
mod searching;

use serde_json::Value;
use vestnik::domain::{Record, RecordId, RecordKind};
use vestnik::store::{KeptRecord, RecordFilter, SaveHow, Saved};

use crate::support::ledger::TestLedger;

fn id(kind: RecordKind, text: &str) -> RecordId {
    RecordId::parse(kind, text).unwrap()
}

fn record(kind: RecordKind, name: &str, fields: Value) -> Record {
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    Record::parse(kind, id(kind, name), fields, Some(phonenumber::country::Id::RU)).unwrap()
}

fn contact(name: &str, fields: Value) -> Record {
    record(RecordKind::Contact, name, fields)
}

async fn save(ledger: &TestLedger, records: Vec<Record>, how: SaveHow) -> Vec<Saved> {
    let kind = records[0].kind;
    ledger.store().save_records(kind, records, how, ledger.now()).await.unwrap()
}

async fn find(ledger: &TestLedger, kind: RecordKind, name: &str) -> Option<KeptRecord> {
    ledger.store().records(kind, vec![id(kind, name)]).await.unwrap().pop()
}

/// All ids of a list, read in pages.
async fn listed(ledger: &TestLedger, kind: RecordKind, filter: &RecordFilter, limit: u32) -> Vec<String> {
    let mut ids = Vec::new();
    let mut after = None;
    loop {
        let page = ledger.store().list_records(kind, filter.clone(), after, limit).await.unwrap();
        assert!(page.len() <= limit as usize);
        let Some(last) = page.last() else { return ids };
        after = Some(last.record.id.clone());
        ids.extend(page.iter().map(|kept| kept.record.id.to_string()));
    }
}
