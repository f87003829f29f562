//! Records that stay in the CRM's own database: sends about them, and what is said when they cannot be read.

use serde_json::{Value, json};

use super::world::World;
use crate::support::postgres::{TestDatabase, connect};

const DEAL: &str = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
const CONTACTS: &str = "select id, name, phone from clients where id = any($1)";
const DEALS: &str = "select id, title, client_id as \"contactId\" from deals where id = any($1);";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deal_of_the_crm_is_written_about_and_nothing_is_sent_when_it_cannot_be_read() {
    let Some(database) = TestDatabase::create().await else { return };
    let crm = connect(&database.url()).await.unwrap();
    crm.batch_execute(&format!(
        "create table clients (id int primary key, name text, phone text);
         create table deals (id uuid primary key, title text, client_id int);
         insert into clients values (7, 'Анна', '8 (999) 123-45-67'), (8, 'Олег', 'ask at the desk');
         insert into deals values ('{DEAL}', 'Windows', 7)"
    ))
    .await
    .unwrap();
    let world = World::sqlite().await;
    let url = database.url();
    let settings = [
        ("VESTNIK__DELIVERY__DEFAULT_REGION", "RU"),
        ("VESTNIK__RECORDS__SQL__URL", url.as_str()),
        // The machine may be busy with other tests.
        ("VESTNIK__RECORDS__SQL__TIMEOUT_MS", "20000"),
        ("VESTNIK__RECORDS__SQL__CONTACT", CONTACTS),
        ("VESTNIK__RECORDS__SQL__DEAL", DEALS),
    ];
    let server = world.server(&settings).await;
    let template = json!({ "text": "{{ contact.name }}: {{ deal.title }}" });
    server.put("/v1/templates/won", &template).await.ok();
    let send = |context: Value| {
        let body = json!({ "channel": "whatsapp", "templateId": "won", "context": context });
        let server = &server;
        async move { server.post("/v1/notifications", &body).await }
    };

    let sent = send(json!({ "dealId": DEAL.to_uppercase() })).await.ok();
    assert_eq!((sent["status"].as_str(), sent["recipient"].as_str()), (Some("sent"), Some("+79991234567")));
    assert_eq!(world.simulator.taken()[0].text.as_deref(), Some("Анна: Windows"));

    let unusable = send(json!({ "contactId": "8", "dealId": DEAL })).await;
    assert_eq!(unusable.status, 422);
    assert!(unusable.json()["errors"][0]["detail"].as_str().unwrap().starts_with("contact 8's phone is not usable"));
    // They are changed where they are kept; the other kinds are kept here.
    assert_eq!(server.put("/v1/contacts/7", &json!({ "name": "x" })).await.status, 409);
    assert_eq!(server.put("/v1/leads/7", &json!({ "name": "x" })).await.status, 201);

    let doctor = async || -> Vec<Value> {
        let output = world.command(&settings).args(["doctor", "--json"]).output().await.unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = said["checks"].as_array().unwrap();
        checks.iter().filter(|check| check["check"].as_str().unwrap().starts_with("records.sql")).cloned().collect()
    };
    let well = doctor().await;
    assert_eq!(well.len(), 3);
    assert!(well.iter().all(|check| check["ok"] == true), "{well:?}");

    crm.batch_execute("alter table clients rename to customers").await.unwrap();
    assert_eq!(send(json!({ "dealId": DEAL })).await.status, 503);
    let ill = doctor().await;
    assert_eq!(ill[1]["check"], "records.sql.contact");
    assert!(ill[1]["seen"].as_str().unwrap().contains("\"clients\" does not exist"), "{ill:?}");
    assert_eq!(ill[2]["ok"], true);
    crm.batch_execute("alter table customers rename to clients").await.unwrap();
    let again = send(json!({ "dealId": DEAL })).await.ok();
    assert_eq!(again["status"], "sent");
    world.assert_books(&server, &[sent, again]).await;
}
