//! The promises of whatever CRM records come from: the ledger on either engine, and queries on the CRM's database
//! with ids of each type.

mod sql;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;
use vestnik::config::records::SqlSettings;
use vestnik::domain::{Channel, Record, RecordId, RecordKind};
use vestnik::records::{BuiltIn, RecordSource, SqlSource};
use vestnik::store::{RECORDS_AT_ONCE, SaveHow};

use crate::support::ledger::TestLedger;
use crate::support::postgres::{TestDatabase, connect};

/// Writes each promise as a test of each implementation.
macro_rules! promises {
    ($($name:ident),* $(,)?) => {
        promises! { @each sqlite, World::sqlite; $($name)* }
        promises! { @each postgres, World::postgres; $($name)* }
        promises! { @each sql_text, World::sql_text; $($name)* }
        promises! { @each sql_varchar, World::sql_varchar; $($name)* }
        promises! { @each sql_int4, World::sql_int4; $($name)* }
        promises! { @each sql_int8, World::sql_int8; $($name)* }
        promises! { @each sql_uuid, World::sql_uuid; $($name)* }
    };
    (@each $module:ident, $world:path; $($name:ident)*) => {
        mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    if let Some(world) = $world().await {
                        super::$name(world).await;
                    }
                }
            )*
        }
    };
}

promises!(
    what_is_there_is_found_and_what_is_not_is_missing,
    known_fields_come_in_one_form,
    an_id_asked_for_twice_is_one_record,
    ten_thousand_are_read_at_once,
    hostile_ids_are_not_there_and_harm_nothing,
    kinds_are_apart,
    names_of_fields_are_known,
);

/// A source, and where its records are put.
struct World {
    source: Arc<dyn RecordSource>,
    id_type: &'static str,
    kept: Kept,
}

enum Kept {
    Here(TestLedger),
    There { client: tokio_postgres::Client, _database: TestDatabase },
}

impl World {
    async fn sqlite() -> Option<Self> {
        Some(Self::built_in(TestLedger::sqlite().await))
    }

    async fn postgres() -> Option<Self> {
        Some(Self::built_in(TestLedger::postgres().await?))
    }

    fn built_in(ledger: TestLedger) -> Self {
        let source = Arc::new(BuiltIn::new(ledger.store().clone()));
        World { source, id_type: "text", kept: Kept::Here(ledger) }
    }

    async fn sql_text() -> Option<Self> {
        Self::sql("text").await
    }

    async fn sql_varchar() -> Option<Self> {
        Self::sql("varchar(40)").await
    }

    async fn sql_int4() -> Option<Self> {
        Self::sql("int4").await
    }

    async fn sql_int8() -> Option<Self> {
        Self::sql("int8").await
    }

    async fn sql_uuid() -> Option<Self> {
        Self::sql("uuid").await
    }

    async fn sql(id_type: &'static str) -> Option<Self> {
        let (database, client) = crm(id_type).await?;
        let source = Arc::new(source(&settings(&database.url())));
        Some(World { source, id_type, kept: Kept::There { client, _database: database } })
    }

    fn id(&self, n: u32) -> RecordId {
        let text = match self.id_type {
            "uuid" => Uuid::from_u128(n.into()).to_string(),
            "int4" | "int8" => n.to_string(),
            _ => format!("c-{n}"),
        };
        RecordId::parse(RecordKind::Contact, &text).unwrap()
    }

    /// Contacts or companies.
    async fn put(&self, kind: RecordKind, records: &[(u32, Value)]) {
        match &self.kept {
            Kept::Here(ledger) => {
                let record = |(n, fields): &(u32, Value)| {
                    let Value::Object(fields) = fields.clone() else { panic!("fields are an object") };
                    Record::parse(kind, self.id(*n), fields, Some(phonenumber::country::Id::RU)).unwrap()
                };
                let records: Vec<Record> = records.iter().map(record).collect();
                for chunk in records.chunks(RECORDS_AT_ONCE) {
                    let saved = ledger.store().save_records(kind, chunk.to_vec(), SaveHow::Replace, ledger.now());
                    saved.await.unwrap();
                }
            }
            Kept::There { client, .. } => {
                let row = |(n, fields): &(u32, Value)| {
                    let mut row = fields.clone();
                    row["id"] = self.id(*n).as_str().into();
                    row
                };
                let rows = Value::Array(records.iter().map(row).collect()).to_string();
                let insert = format!(
                    "insert into {kind} select id, name, phone, email, \"telegramChatId\", \"companyId\"
                     from json_to_recordset($1::text::json) as r(id {}, name text, phone text, email text,
                     \"telegramChatId\" text, \"companyId\" text)",
                    self.id_type
                );
                client.execute(&insert, &[&rows]).await.unwrap();
            }
        }
    }

    async fn load(&self, kind: RecordKind, ids: Vec<RecordId>) -> Vec<Record> {
        self.source.load(kind, ids).await.unwrap()
    }
}

/// A CRM's database, whose contacts and companies have ids of this type.
async fn crm(id_type: &str) -> Option<(TestDatabase, tokio_postgres::Client)> {
    let database = TestDatabase::create().await?;
    let client = connect(&database.url()).await.unwrap();
    for kind in [RecordKind::Contact, RecordKind::Company] {
        let columns = "name text, phone text, email text, telegram_id text, company_id text";
        client.batch_execute(&format!("create table {kind} (id {id_type} primary key, {columns})")).await.unwrap();
    }
    Some((database, client))
}

fn settings(url: &str) -> SqlSettings {
    let query = |kind: RecordKind| {
        format!(
            "select id, name, phone, email, telegram_id as \"telegramChatId\", company_id as \"companyId\"
             from {kind} where id = any($1); -- as in psql"
        )
    };
    SqlSettings {
        url: url.into(),
        contact: Some(query(RecordKind::Contact)),
        lead: None,
        deal: None,
        company: Some(query(RecordKind::Company)),
        timeout_ms: 20_000,
        pool_size: 4,
    }
}

fn source(settings: &SqlSettings) -> SqlSource {
    SqlSource::new(settings, Some(phonenumber::country::Id::RU)).unwrap()
}

// --- promises ----------------------------------------------------------------------------------------------------

async fn what_is_there_is_found_and_what_is_not_is_missing(world: World) {
    let kind = RecordKind::Contact;
    world.put(kind, &[(1, json!({ "name": "Анна" })), (2, json!({ "name": null }))]).await;
    let mut found = world.load(kind, vec![world.id(1), world.id(2), world.id(3)]).await;
    found.sort_by_key(|record| record.id.clone());
    let found: Vec<_> = found.iter().map(|record| (record.id.clone(), record.text("name"))).collect();
    assert_eq!(found, [(world.id(1), Some("Анна")), (world.id(2), None)]);
    assert_eq!(world.load(kind, vec![world.id(3)]).await, []);
    assert_eq!(world.load(kind, vec![]).await, []);
}

async fn known_fields_come_in_one_form(world: World) {
    let given = json!({
        "phone": "8 (999) 123-45-67", "email": "Anna@Example.COM", "telegramChatId": "-100123", "companyId": " 7 ",
    });
    world.put(RecordKind::Contact, &[(1, given)]).await;
    let found = world.load(RecordKind::Contact, vec![world.id(1)]).await.pop().unwrap();
    assert_eq!(found.address(Channel::WhatsApp).as_deref(), Some("+79991234567"));
    assert_eq!(found.address(Channel::Email).as_deref(), Some("Anna@example.com"));
    assert_eq!(found.address(Channel::Telegram).as_deref(), Some("-100123"));
    assert_eq!(found.link("companyId").unwrap().as_str(), "7");
    assert!(!found.fields().contains_key("name"), "a null is no field");
    assert_eq!(found.to_data()["id"], world.id(1).as_str());
}

async fn an_id_asked_for_twice_is_one_record(world: World) {
    world.put(RecordKind::Contact, &[(1, json!({ "name": "Анна" }))]).await;
    assert_eq!(world.load(RecordKind::Contact, vec![world.id(1), world.id(1)]).await.len(), 1);
}

async fn ten_thousand_are_read_at_once(world: World) {
    const MANY: u32 = 10_000;
    let records: Vec<(u32, Value)> = (0..MANY).map(|n| (n, json!({ "name": format!("n{n}") }))).collect();
    world.put(RecordKind::Contact, &records).await;
    let ids: Vec<RecordId> = (MANY / 2..MANY + MANY / 2).map(|n| world.id(n)).collect();
    let found = world.load(RecordKind::Contact, ids).await;
    let found: BTreeSet<RecordId> = found.into_iter().map(|record| record.id).collect();
    assert_eq!(found, (MANY / 2..MANY).map(|n| world.id(n)).collect());
}

async fn hostile_ids_are_not_there_and_harm_nothing(world: World) {
    let kind = RecordKind::Contact;
    world.put(kind, &[(1, json!({ "name": "Анна" }))]).await;
    let long = "9".repeat(RecordId::LONGEST_BYTES);
    let hostile = [
        "'",
        "\"",
        "'; drop table contact; --",
        "1 or 1=1",
        "{1,2}",
        "NULL",
        "\\",
        "$1",
        "%",
        "00000000-0000-0000-0000-00000000000x",
        "99999999999999999999",
        "01",
        "+1",
        "-1",
        "1.0",
        "Ж\u{202e}🦀",
        &long,
    ];
    let mut ids: Vec<RecordId> = hostile.iter().map(|id| RecordId::parse(kind, id).unwrap()).collect();
    assert_eq!(world.load(kind, ids.clone()).await, []);
    ids.push(world.id(1));
    let found = world.load(kind, ids).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, world.id(1));
}

async fn kinds_are_apart(world: World) {
    world.put(RecordKind::Contact, &[(1, json!({ "name": "Анна" }))]).await;
    world.put(RecordKind::Company, &[(1, json!({ "name": "Окна" })), (2, json!({}))]).await;
    let contacts = world.load(RecordKind::Contact, vec![world.id(1), world.id(2)]).await;
    assert_eq!(contacts.iter().map(|record| record.text("name")).collect::<Vec<_>>(), [Some("Анна")]);
    let company = world.load(RecordKind::Company, vec![world.id(1)]).await.pop().unwrap();
    assert_eq!((company.kind, company.text("name")), (RecordKind::Company, Some("Окна")));
}

async fn names_of_fields_are_known(world: World) {
    world.put(RecordKind::Contact, &[(1, json!({ "name": "Анна", "phone": "+79991234567" }))]).await;
    let fields = world.source.fields(RecordKind::Contact).await.unwrap();
    for name in ["id", "name", "phone"] {
        assert!(fields.iter().any(|field| field == name), "{name} is not among {fields:?}");
    }
}
