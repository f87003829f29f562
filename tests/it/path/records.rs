//! CRM records over the API, and sends that are about them.

use serde_json::{Value, json};

use super::on_both_ledgers;
use super::server::{Client, Server};
use super::world::World;

on_both_ledgers!(
    records_are_kept_in_one_form,
    lists_find_by_address_and_by_words,
    a_deal_brings_its_people_along,
    given_ids_and_data_win,
    whom_nobody_can_reach_is_not_written_to,
    whoever_reads_it_chooses_its_language_and_clock,
    recipients_of_a_call_are_filled_in_each_from_its_own_records,
);

async fn put(server: &Client, path: &str, fields: Value) {
    let answer = server.put(path, &fields).await;
    assert!(matches!(answer.status, 200 | 201), "{:#}", answer.json());
}

/// A deal with its contact, its company and its manager.
async fn fill(server: &Server) {
    put(server, "/v1/companies/f1", json!({ "name": "Север" })).await;
    put(server, "/v1/contacts/m1", json!({ "name": "Пётр", "phone": "+7 999 765-43-21" })).await;
    let anna = json!({ "name": "Анна", "phone": "+7 (999) 123-45-67", "telegramChatId": 1001, "companyId": "f1" });
    put(server, "/v1/contacts/c1", anna).await;
    put(server, "/v1/contacts/c2", json!({ "name": "Борис", "phone": "+79990000002" })).await;
    put(server, "/v1/deals/d1", json!({ "contactId": "c1", "managerId": "m1", "number": 1042 })).await;
    put(server, "/v1/leads/42", json!({ "name": "Заявка", "contactId": "c2", "managerId": "m1" })).await;
    let text = "{{ contact.name }}|{{ deal.number }}|{{ company.name }}|{{ manager.name }}";
    put(server, "/v1/templates/all", json!({ "text": text })).await;
    put(server, "/v1/templates/name", json!({ "text": "{{ contact.name }}" })).await;
}

fn texts(world: &World) -> Vec<(String, String)> {
    let taken = world.simulator.taken();
    taken.iter().map(|taken| (taken.recipient.clone(), taken.text.clone().unwrap_or_default())).collect()
}

fn pair(recipient: &str, text: &str) -> (String, String) {
    (recipient.to_owned(), text.to_owned())
}

async fn records_are_kept_in_one_form(world: World) {
    let server = world.server(&[("VESTNIK__DELIVERY__DEFAULT_REGION", "RU")]).await;
    let given =
        json!({ "phone": "8 (999) 123-45-67", "email": "Anna@Example.COM", "locale": "ru_ru", "tags": ["vip"] });
    let answer = server.put("/v1/contacts/c1", &given).await;
    assert_eq!(answer.status, 201);
    let kept = answer.json();
    let mut fields = kept.clone();
    let meta = fields.as_object_mut().unwrap().remove("_meta").unwrap();
    let expected =
        json!({ "id": "c1", "phone": "+79991234567", "email": "Anna@example.com", "locale": "ru-RU", "tags": ["vip"] });
    assert_eq!(fields, expected);
    // What was read may be written back, and changes nothing.
    let again = server.put("/v1/contacts/c1", &kept).await;
    assert_eq!((again.status, again.ok()), (200, kept.clone()));

    let changed = server.patch("/v1/contacts/c1", &json!({ "name": "Анна", "tags": null })).await.ok();
    assert_eq!((&changed["name"], &changed["phone"], &changed["tags"]), (&json!("Анна"), &kept["phone"], &Value::Null));
    assert_eq!(changed["_meta"]["createdAt"], meta["createdAt"]);

    let problem = server.put("/v1/leads/42", &json!({ "phone": "12345", "contactId": [] })).await.problem(422);
    let pointers: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].clone()).collect();
    assert_eq!(pointers, ["/phone", "/contactId"]);
    assert_eq!(server.put("/v1/leads/c1", &json!({})).await.problem(422)["errors"][0]["pointer"], "/id");
    server.get("/v1/leads/42").await.problem(404);
    server.get("/v1/people").await.problem(404);

    assert_eq!(server.delete("/v1/contacts/c1").await.status, 204);
    server.delete("/v1/contacts/c1").await.problem(404);
    server.get("/v1/contacts/c1").await.problem(404);
}

async fn lists_find_by_address_and_by_words(world: World) {
    let server = world.server(&[]).await;
    for n in 0..7 {
        let fields = json!({ "name": format!("Анна {n}"), "phone": format!("+7999000000{n}"), "city": "Тула" });
        put(&server, &format!("/v1/contacts/c{n}"), fields).await;
    }
    put(&server, "/v1/contacts/x", json!({ "name": "John \"Жора\" O'Neil", "phone": "+79990000001" })).await;
    let found = async |query: &str| {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = server.get(&format!("/v1/contacts?limit=3&{query}{cursor}")).await.ok();
            ids.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
            let Some(next) = page["nextCursor"].as_str() else { return ids };
            cursor = format!("&cursor={next}");
        }
    };
    assert_eq!(found("").await, ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "x"]);
    assert_eq!(found("search=%D0%B0%D0%BD%D0%BD%20%D1%82%D1%83%D0%BB").await.len(), 7, "анн тул");
    assert_eq!(found("search=o%27neil").await, ["x"]);
    assert_eq!(found("channel=sms&address=%2B7%20999%20000-00-01").await, ["c1", "x"]);
    assert!(found("search=%22%20OR%20%2A%3A%26").await.is_empty());
    assert_eq!(server.get("/v1/contacts?address=1").await.problem(422)["errors"][0]["pointer"], "/channel");
}

async fn a_deal_brings_its_people_along(world: World) {
    let server = world.server(&[]).await;
    fill(&server).await;
    let send = json!({ "channel": "whatsapp", "templateId": "all", "context": { "dealId": "d1" } });
    let sent = server.post("/v1/notifications", &send).await.ok();
    assert_eq!((&sent["status"], &sent["recipient"]), (&json!("sent"), &json!("+79991234567")));
    // The notification is about the contact, whatever becomes of the deal's link.
    assert_eq!(sent["context"], json!({ "dealId": "d1", "contactId": "c1" }));
    let telegram =
        json!({ "channel": "telegram", "templateId": "all", "context": { "dealId": "d1" }, "recipient": "" });
    let also = server.post("/v1/notifications", &telegram).await.ok();
    let text = "Анна|1042|Север|Пётр";
    assert_eq!(texts(&world), [pair("79991234567", text), pair("1001", text)]);
    let about = server.get("/v1/notifications?contactId=c1").await.ok();
    assert_eq!(about["items"].as_array().unwrap().len(), 2);
    world.assert_books(&server, &[sent, also]).await;
}

async fn given_ids_and_data_win(world: World) {
    let server = world.server(&[]).await;
    fill(&server).await;
    let send = json!({ "channel": "whatsapp", "templateId": "all", "context": { "dealId": "d1", "contactId": "c2" },
                       "data": { "deal": { "number": 7 }, "company": { "name": "Юг" } } });
    let first = server.post("/v1/notifications", &send).await.ok();
    // Data wins over the contact's address, too.
    let send = json!({ "channel": "whatsapp", "templateId": "name", "context": { "contactId": "c1" },
                       "data": { "contact": { "phone": "+7 999 000-00-08" } } });
    let third = server.post("/v1/notifications", &send).await.ok();
    assert_eq!(third["recipient"], "+79990000008");
    // No record need exist where all values are given.
    let send = json!({ "channel": "whatsapp", "templateId": "name", "context": { "leadId": 999 },
                       "data": { "contact": { "name": "Гость" } }, "recipient": "+79990000009" });
    let second = server.post("/v1/notifications", &send).await.ok();
    let expected = [pair("79990000002", "Борис|7|Юг|Пётр"), pair("79990000008", "Анна"), pair("79990000009", "Гость")];
    assert_eq!(texts(&world), expected);
    world.assert_books(&server, &[first, second, third]).await;
}

async fn whom_nobody_can_reach_is_not_written_to(world: World) {
    let server = world.server(&[]).await;
    fill(&server).await;
    put(&server, "/v1/deals/d2", json!({ "contactId": "gone", "number": 1 })).await;
    for (context, pointer, detail) in [
        (json!({ "contactId": "c2" }), "/context", "contact c2 has no telegramChatId"),
        (json!({ "contactId": "nobody" }), "/context", "there is no contact nobody"),
        (json!({ "dealId": "d2" }), "/context", "there is no contact gone"),
        (json!({}), "/recipient", "there is neither a recipient nor a contact, lead or company to take one from"),
    ] {
        let send = json!({ "channel": "telegram", "text": "x", "context": context });
        let problem = server.post("/v1/notifications", &send).await.problem(422);
        assert_eq!(
            (&problem["errors"][0]["pointer"], &problem["errors"][0]["detail"]),
            (&json!(pointer), &json!(detail))
        );
    }
    // A variable that a missing record would have had says so.
    let send =
        json!({ "channel": "telegram", "recipient": "5", "templateId": "name", "context": { "contactId": "nobody" } });
    let error = server.post("/v1/notifications", &send).await.problem(422)["errors"][0].clone();
    assert!(error["detail"].as_str().unwrap().ends_with(": there is no contact nobody"), "{error}");
    assert_eq!(world.simulator.taken_count(), 0);
}

async fn whoever_reads_it_chooses_its_language_and_clock(world: World) {
    let server = world.server(&[]).await;
    let client = json!({ "phone": "+447400123456", "locale": "en-GB", "timezone": "Europe/London" });
    put(&server, "/v1/contacts/c1", client).await;
    let manager = json!({ "phone": "+79997654321", "locale": "ru", "timezone": "Europe/Moscow" });
    put(&server, "/v1/contacts/m1", manager).await;
    put(&server, "/v1/leads/42", json!({ "contactId": "c1", "managerId": "m1", "at": "2026-01-07T09:00:00Z" })).await;
    let template = json!({ "locale": "ru", "text": "В {{ lead.at | time }}", "locales": { "en": { "text": "At {{ lead.at | time }}" } } });
    server.put("/v1/templates/at", &template).await.ok();
    let mut answers = Vec::new();
    // The client reads English, the manager of the same lead Russian; a stranger what the client would.
    for recipient in [json!(null), json!("+7 999 765-43-21"), json!("+79990000001")] {
        let send =
            json!({ "channel": "whatsapp", "templateId": "at", "context": { "leadId": 42 }, "recipient": recipient });
        answers.push(server.post("/v1/notifications", &send).await.ok());
    }
    let texts: Vec<_> = texts(&world).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts[1], "В 12:00");
    assert!(texts[0].starts_with("At 9:00") && texts[2] == texts[0], "{texts:?}");
    world.assert_books(&server, &answers).await;
}

async fn recipients_of_a_call_are_filled_in_each_from_its_own_records(world: World) {
    let server = world.server(&[]).await;
    fill(&server).await;
    let recipients =
        json!([{ "contactId": "c1" }, { "contactId": "nobody" }, { "contactId": "c2", "recipient": "+79990000007" }]);
    let body = json!({ "channel": "whatsapp", "templateId": "name", "recipients": recipients });
    let answer = server.post("/v1/notifications/auto", &body).await.ok();
    let results = answer["results"].as_array().unwrap().clone();
    let statuses: Vec<_> = results.iter().map(|result| result["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["sent", "failed", "sent"]);
    assert!(results[1]["error"]["detail"].as_str().unwrap().contains("there is no contact nobody"), "{}", results[1]);
    let mut texts = texts(&world);
    texts.sort();
    assert_eq!(texts, [pair("79990000007", "Борис"), pair("79991234567", "Анна")]);
    world.assert_books(&server, &results).await;
}
