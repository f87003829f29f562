//! A person is erased: what was known of them goes, what was done stays countable.

use serde_json::{Value, json};

use super::on_both_ledgers;
use super::server::Server;
use super::world::World;
use crate::support::eventually::{LONG, eventually};

on_both_ledgers!(an_erased_person_is_nowhere_and_the_books_balance, an_erasure_goes_on_after_a_kill,);

const PHONE: &str = "+79991234567";

async fn anna(server: &Server) {
    let fields =
        json!({ "name": "Анна Смирнова", "phone": PHONE, "email": "anna@example.com", "telegramChatId": 1001 });
    assert_eq!(server.put("/v1/contacts/c1", &fields).await.status, 201);
    let lead = json!({ "contactId": "c1", "name": "Анна Смирнова", "phone": PHONE });
    assert_eq!(server.put("/v1/leads/42", &lead).await.status, 201);
    server.put("/v1/templates/hello", &json!({ "text": "Здравствуйте, {{ contact.name }}!" })).await.ok();
}

async fn erase(server: &Server) -> Value {
    let asked = server.post("/v1/contacts/c1/erase", &json!({})).await;
    assert_eq!(asked.status, 202, "{:#}", asked.json());
    asked.json()["id"].clone()
}

async fn done(server: &Server, id: &Value) -> Value {
    let path = format!("/v1/erasures/{}", id.as_str().unwrap());
    eventually(LONG, "an erasure is done", async || {
        let erasure = server.get(&path).await.ok();
        (!erasure["doneAt"].is_null()).then_some(erasure)
    })
    .await
}

async fn an_erased_person_is_nowhere_and_the_books_balance(world: World) {
    let rules = json!({ "+79991234567": { "error": 131026, "times": 1 } });
    world.scenario(json!({ "whatsapp": { "recipients": rules } }));
    let server = world.server(&[]).await;
    anna(&server).await;
    let failed = json!({ "channel": "whatsapp", "templateId": "hello", "context": { "contactId": "c1" } });
    let to_contact = json!({ "channel": "whatsapp", "templateId": "hello", "context": { "leadId": 42 }, "metadata": { "for": "Анна" } });
    let to_address =
        json!({ "channel": "whatsapp", "text": "Анна, заказ готов", "recipient": PHONE, "externalId": "anna-1" });
    let mut ids = Vec::new();
    for body in [&failed, &to_contact, &to_address] {
        ids.push(server.send(body).await.ok()["id"].clone());
    }
    let stop = json!({ "channel": "sms", "address": PHONE, "reason": "Анна просила" });
    assert_eq!(server.post("/v1/suppressions", &stop).await.status, 201);

    let id = erase(&server).await;
    server.get("/v1/contacts/c1").await.problem(404);
    assert_eq!(done(&server, &id).await["notifications"], 3);
    server.get("/v1/leads/42").await.problem(404);

    let mut seen = String::new();
    for path in ["/v1/notifications", "/v1/suppressions", "/v1/contacts", "/v1/erasures"] {
        seen.push_str(&server.get(path).await.ok().to_string());
    }
    for (id, status) in ids.iter().zip(["failed", "sent", "sent"]) {
        let shown = server.find(id).await;
        assert_eq!((&shown["status"], &shown["recipient"]), (&json!(status), &json!("erased")), "{shown:#}");
        assert!(shown["attempts"][0]["closedAt"].is_string(), "what was done stays: {shown:#}");
        seen.push_str(&shown.to_string());
    }
    for personal in ["9991234567", "anna", "Анна", "1001"] {
        assert!(!seen.contains(personal), "{personal} is still shown: {seen}");
    }
    let report = world.run_json(&["verify"]).await;
    assert_eq!((&report["accepted"], &report["sent"], &report["failed"]), (&json!(3), &json!(2), &json!(1)));
    // The opt-out holds for whoever has the address.
    let listed = server.get("/v1/suppressions").await.ok();
    assert!(listed["items"][0]["address"].as_str().unwrap().starts_with("sha256:"), "{listed:#}");
    let again = json!({ "channel": "sms", "address": PHONE });
    assert_eq!(server.post("/v1/suppressions", &again).await.status, 201);
}

async fn an_erasure_goes_on_after_a_kill(world: World) {
    let server = world.server(super::world::QUICK).await;
    anna(&server).await;
    for _ in 0..5 {
        server.send(&json!({ "channel": "whatsapp", "text": "x", "recipient": PHONE })).await.ok();
    }
    let id = erase(&server).await;
    server.kill().await;
    let server = world.server(super::world::QUICK).await;
    assert_eq!(done(&server, &id).await["notifications"], 5);
    assert!(!server.get("/v1/notifications").await.ok().to_string().contains("9991234567"));
    world.run_json(&["verify"]).await;
}
