//! `Idempotency-Key`: a call that may be repeated, whatever happened to the first.

use serde_json::{Value, json};

use super::on_both_ledgers;
use super::server::{telegram, whatsapp, with};
use super::world::{QUICK, World};
use crate::support::eventually::{LONG, eventually};

on_both_ledgers!(
    a_repeated_call_gets_the_same_bytes_and_sends_once,
    every_kind_of_end_is_repeated_byte_for_byte,
    another_body_is_refused,
    a_key_that_is_no_key_is_refused,
    repeats_at_the_same_time_send_once,
    a_repeat_after_a_restart_gets_the_same_bytes,
    a_repeat_after_a_kill_in_mid_send_is_told_that_it_is_uncertain,
    callers_have_keys_of_their_own,
    an_auto_call_is_repeated_as_a_whole,
);

async fn a_repeated_call_gets_the_same_bytes_and_sends_once(world: World) {
    let server = world.server(&[]).await;
    let mut answers = Vec::new();
    for (key, body) in [("one", whatsapp("+79991234567")), ("two", telegram("42"))] {
        let first = server.send_with_key(key, &body).await;
        let second = server.send_with_key(key, &body).await;
        assert_eq!(first.body, second.body);
        assert_eq!(second.ok()["status"], "sent");
        answers.push(first.ok());
    }
    assert_eq!(world.simulator.taken_count(), 2);
    world.assert_books(&server, &answers).await;
}

async fn every_kind_of_end_is_repeated_byte_for_byte(world: World) {
    let rules = json!({
        "+79990000001": { "error": 131026 },
        "+79990000002": { "error": 131016 },
        "+79990000003": { "error": 131050 },
        "+79990000004": { "fault": "rubbish_200" },
        // The last one: after it the account is down.
        "+79990000005": { "error": 131031 },
    });
    world.scenario(json!({ "whatsapp": { "recipients": rules } }));
    let server = world.server(&[]).await;
    server.put("/v1/templates/t", &json!({ "text": "Hello {{ name }}" })).await.ok();
    let mut answers = Vec::new();
    for n in 0..6 {
        let body = json!({
            "channel": "whatsapp", "recipient": format!("+7999000000{n}"), "templateId": "t",
            "data": { "name": "Ann" }, "externalId": format!("ours-{n}"), "priority": "high",
            "metadata": { "z": 1, "a": { "b": [1.50, "é", null] } }, "notAfter": "2099-01-01T00:00:00Z",
            "context": { "contactId": "c1", "leadId": 7, "dealId": "d", "companyId": "co" },
        });
        let key = format!("key-{n}");
        let first = server.send_with_key(&key, &body).await;
        let second = server.send_with_key(&key, &body).await;
        assert_eq!(String::from_utf8_lossy(&first.body), String::from_utf8_lossy(&second.body));
        answers.push(first.ok());
    }
    let statuses: Vec<_> = answers.iter().map(|answer| answer["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["sent", "failed", "failed", "failed", "uncertain", "failed"]);
    world.assert_books(&server, &answers).await;
}

async fn another_body_is_refused(world: World) {
    let server = world.server(&[]).await;
    let sent = server.send_with_key("one", &whatsapp("+79991234567")).await.ok();
    for other in [whatsapp("+79991234568"), with(whatsapp("+79991234567"), json!({ "priority": "high" }))] {
        let problem = server.send_with_key("one", &other).await.problem(422);
        assert_eq!(problem["type"], "urn:vestnik:key-reused");
    }
    // Nor may another call have it.
    let auto = json!({ "channel": "whatsapp", "text": "x", "recipients": [{ "recipient": "+79991234567" }] });
    let answer = server.try_post("/v1/notifications/auto", &[("idempotency-key", "one")], &auto).await.unwrap();
    assert_eq!(answer.problem(422)["type"], "urn:vestnik:key-reused");
    // What was refused before it was accepted has used up no key.
    let wrong = with(whatsapp("+79991234567"), json!({ "recipient": "12" }));
    server.send_with_key("two", &wrong).await.problem(422);
    let right = server.send_with_key("two", &whatsapp("+79991234567")).await.ok();
    world.assert_books(&server, &[sent, right]).await;
}

async fn a_key_that_is_no_key_is_refused(world: World) {
    let server = world.server(&[]).await;
    for key in ["", "   ", &"x".repeat(256)] {
        server.send_with_key(key, &telegram("42")).await.problem(422);
    }
    assert_eq!(world.simulator.taken_count(), 0);
    let sent = server.send_with_key(&"x".repeat(255), &telegram("42")).await.ok();
    world.assert_books(&server, &[sent]).await;
}

async fn repeats_at_the_same_time_send_once(world: World) {
    world.scenario(json!({ "whatsapp": { "latencyMs": 300 } }));
    let server = world.server(&[]).await;
    let body = whatsapp("+79991234567");
    let calls = (0..20).map(|_| server.send_with_key("one", &body));
    let answers = futures::future::join_all(calls).await;
    let (done, running): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(!done.is_empty());
    assert!(done.iter().all(|answer| answer.body == done[0].body), "{done:?}");
    for answer in running {
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.problem(409)["type"], "urn:vestnik:key-running");
    }
    assert_eq!(world.simulator.taken_count(), 1);
    let late = server.send_with_key("one", &body).await;
    assert_eq!(late.body, done[0].body);
    let report = world.assert_books(&server, &[late.ok()]).await;
    assert_eq!(report["accepted"], 1);
}

async fn a_repeat_after_a_restart_gets_the_same_bytes(world: World) {
    world.scenario(json!({ "telegram": { "recipients": { "43": { "error": "blocked" } } } }));
    let server = world.server(&[]).await;
    let bodies = [whatsapp("+79991234567"), telegram("42"), telegram("43")];
    let mut firsts = Vec::new();
    for (n, body) in bodies.iter().enumerate() {
        firsts.push(server.send_with_key(&format!("{n}"), body).await);
    }
    server.stop().await;
    let server = world.server(&[]).await;
    for (n, (body, first)) in bodies.iter().zip(&firsts).enumerate() {
        let second = server.send_with_key(&format!("{n}"), body).await;
        assert_eq!(String::from_utf8_lossy(&first.body), String::from_utf8_lossy(&second.body));
    }
    assert_eq!(world.simulator.taken_count(), 2);
    let answers: Vec<_> = firsts.iter().map(super::server::Answer::ok).collect();
    world.assert_books(&server, &answers).await;
}

async fn a_repeat_after_a_kill_in_mid_send_is_told_that_it_is_uncertain(world: World) {
    let hang = json!({ "next": [{ "fault": "hang" }] });
    world.scenario(json!({ "whatsapp": hang.clone(), "telegram": hang }));
    let server = world.server(QUICK).await;
    let bodies = [whatsapp("+79991234567"), telegram("42")];
    let client = server.client();
    let calls = bodies.each_ref().map(|body| {
        let client = client.clone();
        async move {
            let key = body["channel"].as_str().unwrap();
            client.try_post("/v1/notifications", &[("idempotency-key", key)], body).await.is_err()
        }
    });
    let killing = async {
        eventually(LONG, "the providers have both", async || (world.simulator.taken_count() == 2).then_some(())).await;
        server.kill().await;
    };
    let (broke_off, ()) = tokio::join!(futures::future::join_all(calls), killing);
    assert_eq!(broke_off, [true, true]);
    let server = world.server(QUICK).await;
    let mut answers = Vec::new();
    for body in &bodies {
        let key = body["channel"].as_str().unwrap();
        let answer = eventually(LONG, "it is settled", async || {
            let answer = server.send_with_key(key, body).await;
            // Until it is known that the process is gone, it may still be sending.
            if answer.status == 409 { None } else { Some(answer) }
        })
        .await;
        let told = answer.ok();
        assert_eq!(told["status"], "uncertain");
        assert_eq!(told["attempts"][0]["outcome"], "lost");
        assert_eq!(server.send_with_key(key, body).await.body, answer.body);
        answers.push(told);
    }
    assert_eq!(world.simulator.taken_count(), 2, "nothing is sent again");
    world.assert_books(&server, &answers).await;
}

async fn callers_have_keys_of_their_own(world: World) {
    world.run_json(&["migrate"]).await;
    let (_, first) = world.new_key("first", "send,read").await;
    let (_, second) = world.new_key("second", "send,read").await;
    let server = world.server(&[]).await;
    let (first, second) = (server.with_key(&first), server.with_key(&second));
    let of_first = first.send_with_key("one", &telegram("42")).await.ok();
    let of_second = second.send_with_key("one", &telegram("42")).await.ok();
    assert_ne!(of_first["id"], of_second["id"]);
    let other_body = second.send_with_key("two", &telegram("43")).await.ok();
    let same_key = first.send_with_key("two", &telegram("44")).await.ok();
    world.assert_books(&first, &[of_first, of_second, other_body, same_key]).await;
}

async fn an_auto_call_is_repeated_as_a_whole(world: World) {
    world.scenario(json!({ "whatsapp": { "recipients": { "+79990000002": { "error": 131026 } } } }));
    let server = world.server(&[]).await;
    let recipients = ["+79990000001", "12", "+79990000002", "+79990000003"].map(|to| json!({ "phoneNumber": to }));
    let body = json!({ "channel": "whatsapp", "text": "x", "recipients": recipients });
    let call = async || server.try_post("/v1/notifications/auto", &[("idempotency-key", "one")], &body).await.unwrap();
    let first = call().await;
    let second = call().await;
    assert_eq!(String::from_utf8_lossy(&first.body), String::from_utf8_lossy(&second.body));
    assert_eq!(world.simulator.taken_count(), 2);
    let Value::Array(answers) = first.ok()["results"].take() else { panic!("results are a list") };
    let report = world.assert_books(&server, &answers).await;
    assert_eq!(report["accepted"], 4);
}
