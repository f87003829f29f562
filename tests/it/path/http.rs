//! What the HTTP API promises: which mistakes it names and how, who may call, and what bounds a caller.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use vestnik::domain::Channel;

use super::on_both_ledgers;
use super::server::{Client, read_to_end, telegram, whatsapp, with};
use super::world::World;
use crate::support::eventually::{LONG, eventually};

const BOOTSTRAP_KEY: &str = "vk_bootstrap-key-of-the-tests";
const JSON: (&str, &str) = ("content-type", "application/json");

on_both_ledgers!(
    a_body_that_cannot_be_read_is_a_problem,
    a_wrong_field_is_named_by_its_place,
    what_cannot_be_sent_is_refused_before_anything_is_written,
    a_missing_variable_is_named_with_its_place_in_the_template,
    a_direct_send_at_another_time_is_refused_with_the_reason,
    unknown_paths_and_methods_are_problems,
    a_large_body_is_refused,
    a_client_that_is_slow_with_its_headers_is_cut_off,
    without_keys_only_this_machine_is_served,
    with_keys_every_call_needs_one_with_its_scope,
    a_revoked_key_ends,
    without_keys_it_listens_to_this_machine_only,
);

/// The place of each mistake of a 422, with its code.
async fn mistakes(client: &Client, path: &str, body: &Value) -> Vec<(String, String)> {
    let problem = client.post(path, body).await.problem(422);
    assert_eq!(problem["type"], "urn:vestnik:invalid");
    let errors = problem["errors"].as_array().unwrap();
    let text = |error: &Value, field: &str| error[field].as_str().unwrap_or_default().to_owned();
    assert!(errors.iter().all(|error| !text(error, "detail").is_empty()), "{problem:#}");
    errors.iter().map(|error| (text(error, "pointer"), text(error, "code"))).collect()
}

fn place(pointer: &str, code: &str) -> Vec<(String, String)> {
    vec![(pointer.to_owned(), code.to_owned())]
}

/// Nothing was accepted, and nothing was taken.
async fn assert_nothing_happened(world: &World, client: &Client) {
    assert_eq!(world.simulator.taken_count(), 0);
    let report = world.assert_books(client, &[]).await;
    assert_eq!(report["accepted"], 0);
}

async fn a_body_that_cannot_be_read_is_a_problem(world: World) {
    let server = world.server(&[]).await;
    for body in ["", "{", "not JSON", "[", "\u{0}", "{\"channel\": \"whatsapp\",}"] {
        let answer = server.ask("POST", "/v1/notifications", &[JSON], body).await.unwrap();
        assert_eq!(answer.problem(400)["type"], "urn:vestnik:unreadable", "{body}");
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"]
    {
        let headers = [("content-type", content_type)];
        let body = whatsapp("+79991234567").to_string();
        let answer = server.ask("POST", "/v1/notifications", &headers, body).await.unwrap();
        assert_eq!(answer.problem(415)["type"], "urn:vestnik:media-type");
    }
    let none = server.ask("POST", "/v1/notifications", &[], whatsapp("+79991234567").to_string()).await.unwrap();
    none.problem(415);
    assert_nothing_happened(&world, &server).await;
}

async fn a_wrong_field_is_named_by_its_place(world: World) {
    let server = world.server(&[]).await;
    let to = || whatsapp("+79991234567");
    for (body, pointer) in [
        (with(to(), json!({ "chanel": "whatsapp" })), "/chanel"),
        (with(to(), json!({ "channel": "pigeon" })), "/channel"),
        (with(to(), json!({ "recipient": true })), "/recipient"),
        (with(to(), json!({ "priority": 1 })), "/priority"),
        (with(to(), json!({ "context": { "contactId": 5 } })), "/context/contactId"),
        (with(to(), json!({ "context": { "petId": "5" } })), "/context/petId"),
        (with(to(), json!({ "data": [] })), "/data"),
        (with(to(), json!({ "notAfter": "tomorrow" })), "/notAfter"),
        (with(to(), json!({ "maxRetries": 11 })), "/maxRetries"),
        (with(to(), json!({ "maxRetries": 1.5 })), "/maxRetries"),
        (with(to(), json!({ "deadlineMs": 5 })), "/deadlineMs"),
        (with(to(), json!({ "externalId": "" })), "/externalId"),
        (with(to(), json!({ "policy": "exactly_once" })), "/policy"),
        (json!([]), ""),
        (json!("x"), ""),
    ] {
        assert_eq!(mistakes(&server, "/v1/notifications", &body).await, place(pointer, ""), "{body}");
    }
    // Both mistakes at once, not one after the other.
    let two = with(to(), json!({ "maxRetries": -1, "deadlineMs": 0 }));
    assert_eq!(mistakes(&server, "/v1/notifications", &two).await.len(), 2);
    let many = json!({ "channel": "telegram", "text": "x", "recipients": [{ "recipient": 1 }, { "recipient": true }] });
    assert_eq!(mistakes(&server, "/v1/notifications/auto", &many).await, place("/recipients/1/recipient", ""));
    let missing = json!({ "channel": "telegram", "text": "x" });
    assert_eq!(mistakes(&server, "/v1/notifications", &missing).await, place("/recipient", "address"));
    let missing = json!({ "text": "x", "recipient": "1" });
    assert_eq!(mistakes(&server, "/v1/notifications", &missing).await, place("", ""));
    assert_nothing_happened(&world, &server).await;
}

async fn what_cannot_be_sent_is_refused_before_anything_is_written(mut world: World) {
    world.channels = &[Channel::WhatsApp, Channel::Telegram];
    let server = world.server(&[]).await;
    let to = || whatsapp("+79991234567");
    let neither = json!({ "channel": "whatsapp", "recipient": "+79991234567" });
    for (body, pointer, code) in [
        (with(neither.clone(), json!({ "templateId": "nope" })), "/templateId", "unknown_template"),
        (with(to(), json!({ "recipient": "12" })), "/recipient", "address"),
        (with(to(), json!({ "recipient": "9991234567" })), "/recipient", "address"),
        (with(telegram("1"), json!({ "recipient": "Ann Smith" })), "/recipient", "address"),
        (with(to(), json!({ "account": "other" })), "/account", "unknown_account"),
        (json!({ "channel": "sms", "recipient": "+79991234567", "text": "x" }), "/channel", "unknown_account"),
        (with(to(), json!({ "templateId": "nope" })), "/text", "both"),
        (neither, "", "neither"),
    ] {
        assert_eq!(mistakes(&server, "/v1/notifications", &body).await, place(pointer, code), "{body}");
    }
    assert_nothing_happened(&world, &server).await;
}

async fn a_missing_variable_is_named_with_its_place_in_the_template(world: World) {
    let server = world.server(&[]).await;
    let template = json!({ "text": "Hello,\n  dear {{ name }}!" });
    server.put("/v1/templates/greeting", &template).await.ok();
    let body = json!({ "channel": "telegram", "recipient": "42", "templateId": "greeting", "data": { "nam": "Ann" } });
    let problem = server.send(&body).await.problem(422);
    let error = &problem["errors"][0];
    assert_eq!((&error["pointer"], &error["code"]), (&json!("/data"), &json!("missing_variable")), "{problem:#}");
    assert_eq!(error["variable"], "name");
    assert_eq!(error["template"], json!({ "part": "/text", "line": 2, "column": 11 }), "{problem:#}");

    let broken = server.put("/v1/templates/broken", &json!({ "text": "a\n{% if %}" })).await.problem(422);
    assert_eq!(broken["errors"][0]["template"]["part"], "/text", "{broken:#}");
    assert_eq!(broken["errors"][0]["template"]["line"], 2, "{broken:#}");
    assert_nothing_happened(&world, &server).await;
}

async fn a_direct_send_at_another_time_is_refused_with_the_reason(world: World) {
    let server = world.server(&[]).await;
    let later = json!({ "mode": "sync", "scheduledAt": "2030-01-01T00:00:00Z" });
    let problem = server.send(&with(whatsapp("+79991234567"), later)).await.problem(422);
    assert_eq!(problem["errors"][0]["pointer"], "/scheduledAt");
    assert!(problem["detail"].as_str().unwrap().contains("goes through the queue"), "{problem:#}");
    assert_nothing_happened(&world, &server).await;
    // Said out loud, the default is no mistake.
    let body = with(whatsapp("+79991234567"), json!({ "mode": "sync", "scheduledAt": null }));
    let sent = server.send(&body).await.ok();
    world.assert_books(&server, &[sent]).await;
}

async fn unknown_paths_and_methods_are_problems(world: World) {
    let server = world.server(&[]).await;
    let unknown = "01a20a0f-9a62-76f0-bd51-508be31d5e04";
    for path in
        ["/", "/v1", "/v1/nothing", "/v2/notifications", &format!("/v1/notifications/{unknown}"), "/v1/notifications/x"]
    {
        assert_eq!(server.get(path).await.problem(404)["type"], "urn:vestnik:not-found", "{path}");
    }
    for (method, path) in [("DELETE", "/v1/notifications"), ("PUT", "/v1/notifications/auto"), ("POST", "/health/live")]
    {
        let answer = server.ask(method, path, &[JSON], "{}").await.unwrap();
        assert_eq!(answer.problem(405)["type"], "urn:vestnik:method", "{method} {path}");
    }
    server.get("/v1/notifications?limit=0").await.problem(422);
    server.get("/v1/notifications?cursor=rubbish").await.problem(422);
    server.get("/v1/notifications?nonsense=1").await.problem(422);
    // What is no mistake carries a request id, too, and each request its own.
    let ids = [server.get("/health/live").await, server.get("/health/live").await];
    let ids = ids.map(|answer| answer.header("x-request-id").unwrap().to_owned());
    assert_ne!(ids[0], ids[1]);
    assert_eq!(server.get("/health/ready").await.ok()["ready"], true);
    assert_nothing_happened(&world, &server).await;
}

async fn a_large_body_is_refused(world: World) {
    let server = world.server(&[("VESTNIK__HTTP__BODY_LIMIT_BYTES", "2000")]).await;
    let fits = server.send(&with(telegram("42"), json!({ "text": "x".repeat(1500) }))).await.ok();
    let body = with(telegram("42"), json!({ "text": "x".repeat(2500) }));
    let problem = server.send(&body).await.problem(413);
    assert!(problem["detail"].as_str().unwrap().contains("2000 bytes"), "{problem:#}");
    world.assert_books(&server, &[fits]).await;
}

async fn a_client_that_is_slow_with_its_headers_is_cut_off(world: World) {
    let server = world.server(&[("VESTNIK__HTTP__HEADER_TIME_LIMIT_MS", "300")]).await;
    for start in ["", "POST /v1/notifications HTTP/1.1\r\nHost: localhost\r\nContent-"] {
        let mut slow = server.connect().await.unwrap();
        slow.write_all(start.as_bytes()).await.unwrap();
        let said = read_to_end(&mut slow, LONG).await.expect("it hangs up");
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    }
    // Headers without an end are refused, however fast they come.
    let mut endless = server.connect().await.unwrap();
    let line = format!("x-filler: {}\r\n", "x".repeat(1000));
    // It may hang up in the middle of them.
    let _ = endless.write_all(format!("GET / HTTP/1.1\r\n{}", line.repeat(100)).as_bytes()).await;
    let said = read_to_end(&mut endless, LONG).await.expect("it hangs up");
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    assert_nothing_happened(&world, &server).await;
}

async fn without_keys_only_this_machine_is_served(world: World) {
    let server = world.server(&[]).await;
    let body = telegram("42").to_string();
    let port = server.address().rsplit(':').next().unwrap();
    for headers in [
        [("host", "evil.example"), JSON],
        [("host", "localhost.evil.example"), JSON],
        [("origin", "https://evil.example"), JSON],
        [("origin", "null"), JSON],
    ] {
        let answer = server.ask("POST", "/v1/notifications", &headers, body.as_str()).await.unwrap();
        assert_eq!(answer.problem(403)["type"], "urn:vestnik:forbidden", "{headers:?}");
    }
    assert_nothing_happened(&world, &server).await;
    let mut sent = Vec::new();
    for headers in [
        [("host", format!("localhost:{port}")), ("x-nothing", String::new())],
        [("host", format!("127.0.0.1:{port}")), ("origin", format!("http://localhost:{port}"))],
    ] {
        let [first, second] = &headers;
        let headers = [(first.0, first.1.as_str()), (second.0, second.1.as_str()), JSON];
        sent.push(server.ask("POST", "/v1/notifications", &headers, body.as_str()).await.unwrap().ok());
    }
    world.assert_books(&server, &sent).await;
}

async fn with_keys_every_call_needs_one_with_its_scope(world: World) {
    // The ledger exists before the service does: keys are made with it stopped.
    world.run_json(&["migrate"]).await;
    let (_, reader) = world.new_key("reader", "read").await;
    let (_, sender) = world.new_key("sender", "send").await;
    let (_, manager) = world.new_key("manager", "manage").await;
    let server = world.server(&[("VESTNIK_BOOTSTRAP_KEY", BOOTSTRAP_KEY)]).await;
    let body = telegram("42");
    let nobody = server.send(&body).await;
    assert_eq!(nobody.header("www-authenticate"), Some("Bearer"));
    assert_eq!(nobody.problem(401)["type"], "urn:vestnik:unauthorized");
    server.with_key("vk_unknown").send(&body).await.problem(401);
    for wrong in ["Basic dXNlcjpwYXNz", "vk_bare", ""] {
        let answer = server.ask("GET", "/v1/notifications", &[("authorization", wrong)], "").await.unwrap();
        answer.problem(401);
    }
    let [reader, sender, manager] = [reader, sender, manager].map(|key| server.with_key(&key));
    let problem = reader.send(&body).await.problem(403);
    assert!(problem["detail"].as_str().unwrap().contains("`send`"), "{problem:#}");
    sender.put("/v1/templates/x", &json!({ "text": "x" })).await.problem(403);
    sender.get("/v1/notifications").await.problem(403);
    reader.put("/v1/templates/x", &json!({ "text": "x" })).await.problem(403);
    assert_eq!(world.simulator.taken_count(), 0);

    let sent = sender.send(&body).await.ok();
    assert_eq!(reader.find(&sent["id"]).await, sent);
    manager.put("/v1/templates/x", &json!({ "text": "x" })).await.ok();
    // With keys, who calls is known by the key and not by the host's name.
    let headers = [("host", "vestnik.example"), ("authorization", &format!("Bearer {BOOTSTRAP_KEY}"))];
    server.ask("GET", "/v1/notifications", &headers, "").await.unwrap().ok();
    // What watches over the service needs no key.
    assert_eq!(server.get("/health/live").await.status, 200);
    let admin = server.with_key(BOOTSTRAP_KEY);
    world.assert_books(&admin, &[sent]).await;
}

async fn a_revoked_key_ends(world: World) {
    world.run_json(&["migrate"]).await;
    let (kept, admin) = world.new_key("admin", "admin").await;
    let (id, key) = world.new_key("leaver", "send,read").await;
    let server = world.server(&[]).await;
    let leaver = server.with_key(&key);
    let sent = leaver.send(&telegram("42")).await.ok();
    let revoked = world.run(&["keys", "revoke", &id, "--json"]).await;
    let server = if revoked.status.success() {
        server
    } else {
        // The embedded ledger has one user at a time, and says so.
        assert!(world.database.is_none());
        let reason = String::from_utf8_lossy(&revoked.stderr).into_owned();
        assert!(reason.contains("another"), "{reason}");
        server.stop().await;
        world.run_json(&["keys", "revoke", &id]).await;
        world.server(&[]).await
    };
    let leaver = server.with_key(&key);
    eventually(LONG, "the key is refused", async || {
        (leaver.get("/v1/notifications").await.status == 401).then_some(())
    })
    .await;
    leaver.send(&telegram("42")).await.problem(401);
    let listed = world.database.is_some().then_some(world.run_json(&["keys", "list"]));
    if let Some(listed) = listed {
        let listed = listed.await;
        let of = |id: &str| listed["items"].as_array().unwrap().iter().find(|key| key["id"] == id).cloned().unwrap();
        assert_ne!(of(&id)["revokedAt"], Value::Null);
        assert_eq!(of(&kept)["revokedAt"], Value::Null);
        assert!(!listed.to_string().contains(&key), "a key is shown once");
    }
    world.assert_books(&server.with_key(&admin), &[sent]).await;
}

async fn without_keys_it_listens_to_this_machine_only(world: World) {
    let output = tokio::time::timeout(LONG, world.run(&["serve", "--listen", "0.0.0.0:0"])).await.expect("it ends");
    assert!(!output.status.success());
    let reason = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(reason.contains("no API key") && reason.contains("hint"), "{reason}");
    // With a key it does; whoever comes has to show it.
    let settings = [("VESTNIK_BOOTSTRAP_KEY", BOOTSTRAP_KEY), ("VESTNIK__HTTP__LISTEN", "0.0.0.0:0")];
    let server = super::server::Server::start_listening(&world, &settings, None).await;
    server.get("/v1/notifications").await.problem(401);
    world.assert_books(&server.with_key(BOOTSTRAP_KEY), &[]).await;
    server.stop().await;
    // A key that could be guessed is none.
    let short = world.command(&[("VESTNIK_BOOTSTRAP_KEY", "secret")]).arg("serve").output();
    let short = tokio::time::timeout(Duration::from_secs(40), short).await.expect("it ends").unwrap();
    assert!(!short.status.success());
    assert!(String::from_utf8_lossy(&short.stderr).contains("could be guessed"));
}
