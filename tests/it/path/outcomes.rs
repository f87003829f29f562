//! Every way in which a send can end, on both channels, looked at in three places: the answer, the ledger, and what
//! the provider took.

use serde_json::{Value, json};
use vestnik::domain::Channel;

use super::on_both_ledgers;
use super::server::{Client, Server, telegram, whatsapp, with};
use super::world::World;
use crate::support::eventually::{LONG, eventually};

on_both_ledgers!(
    accepted_is_sent,
    held_is_sent_with_a_note,
    refused_for_good_is_failed_with_its_reason,
    opted_out_is_suppressed_from_then_on,
    stopped_marketing_suppresses_marketing_only,
    trouble_at_the_provider_is_failed_and_retryable,
    a_refused_connection_is_tried_again_within_the_call,
    a_throttle_of_a_recipient_holds_that_recipient_back_here,
    a_throttle_of_the_sender_holds_all_back_here,
    an_account_that_cannot_send_says_why,
    no_readable_answer_is_uncertain,
    at_least_once_sends_again_and_flags_both,
    at_least_once_that_stays_unknown_is_uncertain_with_both_flagged,
    expired_is_refused_and_leaves_nothing,
);

/// Sends, and finds in the ledger what was answered.
async fn send(client: &Client, body: Value) -> Value {
    let mut answer = client.send(&body).await.ok();
    let found = client.find(&answer["id"]).await;
    answer.as_object_mut().unwrap().remove("retryAfter");
    assert_eq!(answer, found, "the answer is not what the ledger says");
    answer
}

/// One recipient per channel for each case: a phone number, and a chat.
fn recipients(n: usize) -> (String, String) {
    (format!("+7999000{n:04}"), format!("{}", 5000 + n))
}

/// How both providers treat each of the cases, in order.
fn ruled(world: &World, cases: &[(Value, Value)]) {
    let (mut phones, mut chats) = (serde_json::Map::new(), serde_json::Map::new());
    for (n, (for_whatsapp, for_telegram)) in cases.iter().enumerate() {
        let (phone, chat) = recipients(n);
        for (rules, recipient, rule) in [(&mut phones, phone, for_whatsapp), (&mut chats, chat, for_telegram)] {
            if !rule.is_null() {
                rules.insert(recipient, rule.clone());
            }
        }
    }
    world.scenario(json!({ "whatsapp": { "recipients": phones }, "telegram": { "recipients": chats } }));
}

fn assert_failed(answer: &Value, class: &str, code: &str, retryable: bool) {
    assert_eq!(answer["status"], "failed", "{answer:#}");
    let error = &answer["error"];
    assert_eq!((&error["class"], &error["code"]), (&json!(class), &json!(code)), "{answer:#}");
    assert_eq!(error["retryable"], retryable, "{answer:#}");
}

fn outcomes(answer: &Value) -> Vec<&str> {
    answer["attempts"].as_array().unwrap().iter().map(|attempt| attempt["outcome"].as_str().unwrap()).collect()
}

async fn accepted_is_sent(world: World) {
    let server = world.server(&[]).await;
    let answers = [send(&server, whatsapp("+7 999 123-45-67")).await, send(&server, telegram("42")).await];
    for (answer, recipient) in answers.iter().zip(["+79991234567", "42"]) {
        assert_eq!(answer["status"], "sent");
        assert_eq!(answer["recipient"], recipient);
        assert_eq!(answer["account"], "main");
        assert_eq!(outcomes(answer), ["accepted"]);
        assert_eq!(answer["attempts"][0]["n"], 1);
        assert_eq!(answer["error"], Value::Null);
    }
    let taken = world.simulator.taken();
    assert_eq!(taken.len(), 2);
    assert_eq!(answers[0]["id"], taken[0].our_id.as_deref().unwrap());
    for (answer, taken) in answers.iter().zip(&taken) {
        assert_eq!(answer["attempts"][0]["providerMessageId"], taken.provider_message_id.as_str());
        assert_eq!(taken.text.as_deref(), Some("Your order is ready"));
    }
    let report = world.assert_books(&server, &answers).await;
    assert_eq!((&report["accepted"], &report["sent"]), (&json!(2), &json!(2)));
}

async fn save_template(server: &Server, id: &str, category: &str) {
    let body = json!({
        "text": "Hello {{ name }}",
        "whatsappTemplate": { "name": "offer", "language": "en", "category": category, "body": ["{{ name }}"] }
    });
    server.put(&format!("/v1/templates/{id}"), &body).await.ok();
}

fn templated(channel: &str, recipient: &str, id: &str) -> Value {
    json!({ "channel": channel, "recipient": recipient, "templateId": id, "data": { "name": "Ann" } })
}

async fn held_is_sent_with_a_note(world: World) {
    let offer = json!({ "languages": ["en"], "bodyParameters": 1, "messageStatus": "held_for_quality_assessment" });
    world.scenario(json!({ "whatsapp": { "templates": { "offer": offer } } }));
    let server = world.server(&[]).await;
    save_template(&server, "offer", "marketing").await;
    let answer = send(&server, templated("whatsapp", "+79991234567", "offer")).await;
    assert_eq!(answer["status"], "sent");
    assert_eq!(answer["attempts"][0]["error"]["detail"], "held_for_quality_assessment", "{answer:#}");
    assert_eq!((&answer["templateId"], &answer["templateVersion"]), (&json!("offer"), &json!(1)));
    assert_eq!(world.simulator.taken()[0].template.as_ref().unwrap()["name"], "offer");
    // Telegram knows no such thing, and says the text.
    let plain = send(&server, templated("telegram", "42", "offer")).await;
    assert_eq!(world.simulator.taken()[1].text.as_deref(), Some("Hello Ann"));
    world.assert_books(&server, &[answer, plain]).await;
}

async fn refused_for_good_is_failed_with_its_reason(world: World) {
    let cases = [
        ("recipient", json!(131026), json!("chat_not_found")),
        ("recipient", json!(131021), json!("deactivated")),
        ("opted_out", json!(131050), json!("blocked")),
        ("content", json!(131047), json!("cant_parse_entities")),
        ("content", json!(131051), json!("message_too_long")),
        ("policy", json!(131049), json!("no_rights")),
        ("template", json!(132001), Value::Null),
    ];
    let rule = |error: &Value| if error.is_null() { Value::Null } else { json!({ "error": error }) };
    let rules: Vec<_> = cases.iter().map(|(_, whatsapp, telegram)| (rule(whatsapp), rule(telegram))).collect();
    ruled(&world, &rules);
    let server = world.server(&[]).await;
    let mut answers = Vec::new();
    for (n, (reason, code, word)) in cases.iter().enumerate() {
        let (phone, chat) = recipients(n);
        let answer = send(&server, whatsapp(&phone)).await;
        assert_failed(&answer, reason, &code.to_string(), false);
        assert_eq!(outcomes(&answer), ["permanent"]);
        answers.push(answer);
        if !word.is_null() {
            let answer = send(&server, telegram(&chat)).await;
            let status = if ["deactivated", "blocked"].contains(&word.as_str().unwrap()) { "403" } else { "400" };
            assert_failed(&answer, reason, status, false);
            assert_eq!(outcomes(&answer), ["permanent"]);
            answers.push(answer);
        }
    }
    assert_eq!(world.simulator.taken_count(), 0);
    let report = world.assert_books(&server, &answers).await;
    assert_eq!(report["deadLetters"], 13);
}

async fn opted_out_is_suppressed_from_then_on(world: World) {
    world.scenario(json!({ "telegram": { "recipients": { "42": { "error": "blocked", "times": 1 } } } }));
    let server = world.server(&[]).await;
    let first = send(&server, telegram("42")).await;
    assert_failed(&first, "opted_out", "403", false);
    let requests = world.simulator.figures(Channel::Telegram).requests;
    let second = send(&server, telegram("42")).await;
    assert_eq!(second["status"], "suppressed", "{second:#}");
    assert_eq!(outcomes(&second), [""; 0]);
    assert_eq!(world.simulator.figures(Channel::Telegram).requests, requests, "it was not even asked");
    let listed = server.get("/v1/suppressions").await.ok();
    assert_eq!(listed["items"][0]["address"], "42");
    assert_eq!(listed["items"][0]["scope"], "all");

    // Who wants to hear again, hears again.
    let lifted = server.ask("DELETE", "/v1/suppressions/telegram/42", &[], "").await.unwrap();
    assert_eq!(lifted.status, 204);
    let third = send(&server, telegram("42")).await;
    assert_eq!(third["status"], "sent");
    let report = world.assert_books(&server, &[first, second, third]).await;
    assert_eq!(report["suppressed"], 1);
}

async fn stopped_marketing_suppresses_marketing_only(world: World) {
    world.scenario(json!({ "whatsapp": { "recipients": { "+79991234567": { "error": 131050, "times": 1 } } } }));
    let server = world.server(&[]).await;
    for category in ["marketing", "utility"] {
        save_template(&server, category, category).await;
    }
    let mut answers = Vec::new();
    for (template, status) in [("marketing", "failed"), ("marketing", "suppressed"), ("utility", "sent")] {
        let answer = send(&server, templated("whatsapp", "+79991234567", template)).await;
        assert_eq!(answer["status"], status, "{answer:#}");
        answers.push(answer);
    }
    let text = send(&server, whatsapp("+79991234567")).await;
    assert_eq!(text["status"], "sent");
    answers.push(text);
    assert_eq!(world.simulator.taken_count(), 2);
    world.assert_books(&server, &answers).await;
}

async fn trouble_at_the_provider_is_failed_and_retryable(world: World) {
    let cases = [
        (json!({ "error": 131016 }), json!({ "error": "internal" }), "131016"),
        (json!({ "error": 131000 }), json!({ "fault": "server_error_json" }), "131000"),
        (json!({ "fault": "server_error_json" }), json!({ "fault": "server_error_json" }), "1"),
    ];
    ruled(&world, &cases.clone().map(|(whatsapp, telegram, _)| (whatsapp, telegram)));
    let server = world.server(&[]).await;
    let mut answers = Vec::new();
    for (n, (_, _, code)) in cases.iter().enumerate() {
        let (phone, chat) = recipients(n);
        for (body, code) in [(whatsapp(&phone), *code), (telegram(&chat), "500")] {
            let answer = send(&server, body).await;
            assert_failed(&answer, "transient", code, true);
            // It had left us, so it is the caller who says whether it may be repeated.
            assert_eq!(outcomes(&answer), ["transient"]);
            answers.push(answer);
        }
    }
    assert_eq!(world.simulator.taken_count(), 0);
    world.assert_books(&server, &answers).await;
}

async fn a_refused_connection_is_tried_again_within_the_call(world: World) {
    // A port that was free a moment ago, and that nobody listens on while this is held.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    let server =
        world.server(&[("VESTNIK__WHATSAPP__MAIN__BASE_URL", &url), ("VESTNIK__TELEGRAM__MAIN__BASE_URL", &url)]).await;
    let mut answers = Vec::new();
    for (body, attempts) in [
        (with(whatsapp("+79991234567"), json!({ "maxRetries": 1 })), 2),
        (with(telegram("42"), json!({ "maxRetries": 0 })), 1),
        // Waits of 0.8 and 1.6 s fit; 3.2 s more do not.
        (with(telegram("43"), json!({ "deadlineMs": 4000 })), 3),
    ] {
        let answer = send(&server, body).await;
        assert_failed(&answer, "transient", "connect", true);
        assert_eq!(outcomes(&answer), vec!["transient"; attempts]);
        let numbers: Vec<_> = answer["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["n"]).collect();
        assert_eq!(numbers, (1..=attempts).collect::<Vec<_>>());
        answers.push(answer);
    }
    assert_eq!(world.simulator.taken_count(), 0);
    world.assert_books(&server, &answers).await;
}

async fn a_throttle_of_a_recipient_holds_that_recipient_back_here(world: World) {
    ruled(&world, &[(json!({ "error": 131056, "times": 1 }), json!({ "error": "retry_after:30", "times": 1 }))]);
    let server = world.server(&[]).await;
    let (phone, chat) = recipients(0);
    let mut answers = Vec::new();
    for (channel, body, other, code) in [
        (Channel::WhatsApp, whatsapp(&phone), whatsapp("+79991234567"), "131056"),
        (Channel::Telegram, telegram(&chat), telegram("42"), "429"),
    ] {
        // Meta's first step is one second: what may not wait that long is answered here.
        let body = with(body, json!({ "deadlineMs": 300 }));
        let throttled = server.send(&body).await.ok();
        assert_failed(&throttled, "throttled", code, true);
        assert_eq!(throttled["retryAfter"], if channel == Channel::Telegram { 30.0 } else { 1.0 });
        assert_eq!(outcomes(&throttled), ["throttled"]);

        let requests = world.simulator.figures(channel).requests;
        let local = server.send(&body).await.ok();
        assert_failed(&local, "throttled", "local_limit", true);
        let wait = local["retryAfter"].as_f64().unwrap();
        assert!((0.0..=30.0).contains(&wait) && wait > 0.3, "{wait}");
        assert_eq!(outcomes(&local), [""; 0]);
        assert_eq!(world.simulator.figures(channel).requests, requests, "it was not even asked");

        let free = send(&server, other).await;
        assert_eq!(free["status"], "sent", "nobody else rests: {free:#}");
        answers.extend([throttled, local, free]);
    }
    // Who can wait gets through when the rest is over.
    let patient = send(&server, with(whatsapp(&phone), json!({ "deadlineMs": 8000 }))).await;
    assert_eq!(patient["status"], "sent");
    answers.push(patient);
    world.assert_books(&server, &answers).await;
}

async fn a_throttle_of_the_sender_holds_all_back_here(world: World) {
    for (n, code) in [80007, 131048].into_iter().enumerate() {
        ruled(&world, &[(json!({ "error": code, "times": 1 }), Value::Null)]);
        // The pause lives in the process, so each code meets a fresh one.
        let server = world.server(&[]).await;
        let throttled = server.send(&whatsapp(&recipients(0).0)).await.ok();
        assert_failed(&throttled, "throttled", &code.to_string(), true);
        assert_eq!(throttled["retryAfter"], if code == 80007 { 60.0 } else { 3600.0 });
        let taken = world.simulator.taken_count();
        let local = send(&server, whatsapp("+79991234567")).await;
        assert_failed(&local, "throttled", "local_limit", true);
        assert_eq!(world.simulator.taken_count(), taken);
        let telegram = send(&server, telegram(&format!("{}", 42 + n))).await;
        assert_eq!(telegram["status"], "sent", "the other account is as fast as ever");
        world.assert_books(&server, &[throttled, local, telegram]).await;
        server.stop().await;
    }
}

async fn an_account_that_cannot_send_says_why(world: World) {
    let cases = [
        (190, json!("unauthorized"), "auth", "401"),
        (131042, json!("conflict"), "billing", "409"),
        (131031, json!("not_found"), "suspended", "404"),
        (133010, json!("not_found"), "config", "404"),
    ];
    let rules = cases.clone().map(|(code, word, _, _)| (json!({ "error": code }), json!({ "error": word })));
    ruled(&world, &rules);
    let server = world.server(&[]).await;
    let mut answers = Vec::new();
    for (n, (code, word, reason, status)) in cases.iter().enumerate() {
        let (phone, chat) = recipients(n);
        let answer = send(&server, whatsapp(&phone)).await;
        assert_failed(&answer, reason, &code.to_string(), false);
        let other = send(&server, telegram(&chat)).await;
        assert_failed(&other, if word == "unauthorized" { "auth" } else { "config" }, status, false);
        for answer in [answer, other] {
            assert_eq!(outcomes(&answer), ["channel_down"]);
            answers.push(answer);
        }
    }
    assert_eq!(world.simulator.taken_count(), 0);
    world.assert_books(&server, &answers).await;
}

/// Faults of which nobody can know whether the message was taken, and whether it was.
fn unknowable() -> Vec<(Value, bool)> {
    vec![
        (json!({ "fault": "reset_after_read" }), true),
        (json!({ "fault": "reset_before_read" }), false),
        (json!({ "fault": "close_after_read" }), true),
        (json!({ "fault": "hang" }), true),
        (json!({ "fault": "rubbish_200" }), true),
        (json!({ "fault": "endless_body" }), true),
        (json!({ "fault": "bad_gateway" }), false),
        (json!({ "fault": "bad_gateway", "taken": true }), true),
        (json!({ "fault": "redirect" }), false),
    ]
}

async fn no_readable_answer_is_uncertain(world: World) {
    let cases = unknowable();
    let rules: Vec<_> = cases.iter().map(|(rule, _)| (rule.clone(), rule.clone())).collect();
    ruled(&world, &rules);
    let server = world.server(&[]).await;
    let mut answers = Vec::new();
    for (n, (rule, is_taken)) in cases.iter().enumerate() {
        let (phone, chat) = recipients(n);
        for body in [whatsapp(&phone), telegram(&chat)] {
            let before = world.simulator.taken_count();
            let answer = send(&server, with(body, json!({ "deadlineMs": 2000 }))).await;
            assert_eq!(answer["status"], "uncertain", "{rule}: {answer:#}");
            assert_eq!(outcomes(&answer), ["ambiguous"], "{rule}");
            assert_eq!(answer["error"]["class"], "ambiguous", "{rule}: {answer:#}");
            assert_eq!(answer["error"]["retryable"], false, "{rule}");
            assert_eq!(world.simulator.taken_count() - before, u64::from(*is_taken), "{rule}: taken once at most");
            answers.push(answer);
        }
    }
    let report = world.assert_books(&server, &answers).await;
    assert_eq!(report["uncertain"], 2 * cases.len());
}

async fn at_least_once_sends_again_and_flags_both(world: World) {
    let rule = json!({ "fault": "reset_after_read", "times": 1 });
    ruled(&world, &[(rule.clone(), rule)]);
    let server = world.server(&[("VESTNIK__DELIVERY__RESEND_GRACE_MS", "300")]).await;
    let (phone, chat) = recipients(0);
    let mut answers = Vec::new();
    for body in [whatsapp(&phone), telegram(&chat)] {
        let answer = server.send(&with(body, json!({ "policy": "at_least_once" }))).await.ok();
        assert_eq!(answer["status"], "pending", "{answer:#}");
        assert_eq!(answer["holdReason"], "resend");
        assert_eq!(answer["attempts"][0]["flagged"], true);
        let sent = eventually(LONG, "it is sent again", async || {
            let found = server.find(&answer["id"]).await;
            (found["status"] == "sent").then_some(found)
        })
        .await;
        assert_eq!(outcomes(&sent), ["ambiguous", "accepted"]);
        assert!(sent["attempts"].as_array().unwrap().iter().all(|attempt| attempt["flagged"] == true), "{sent:#}");
        answers.push(answer);
    }
    assert_eq!(world.simulator.taken_count(), 4);
    world.assert_books(&server, &answers).await;
}

async fn at_least_once_that_stays_unknown_is_uncertain_with_both_flagged(world: World) {
    let rule = json!({ "fault": "close_after_read" });
    ruled(&world, &[(rule.clone(), rule)]);
    let server = world.server(&[("VESTNIK__DELIVERY__RESEND_GRACE_MS", "300")]).await;
    let (phone, chat) = recipients(0);
    let mut answers = Vec::new();
    for body in [whatsapp(&phone), telegram(&chat)] {
        answers.push(server.send(&with(body, json!({ "policy": "at_least_once" }))).await.ok());
    }
    server.settled().await;
    for answer in &answers {
        let found = server.find(&answer["id"]).await;
        assert_eq!(found["status"], "uncertain");
        assert_eq!(outcomes(&found), ["ambiguous", "ambiguous"], "once more, and not for ever");
        assert!(found["attempts"].as_array().unwrap().iter().all(|attempt| attempt["flagged"] == true), "{found:#}");
    }
    assert_eq!(world.simulator.taken_count(), 4);
    world.assert_books(&server, &answers).await;
}

async fn expired_is_refused_and_leaves_nothing(world: World) {
    let server = world.server(&[]).await;
    for body in [whatsapp("+79991234567"), telegram("42")] {
        let answer = server.send(&with(body, json!({ "notAfter": "2020-01-01T00:00:00Z" }))).await;
        assert_eq!(answer.problem(422)["errors"][0]["pointer"], "/notAfter");
    }
    let report = world.assert_books(&server, &[]).await;
    assert_eq!(report["accepted"], 0);
}
