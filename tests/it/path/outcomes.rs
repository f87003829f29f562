//! Every way in which a send can end, on all channels, looked at in three places: the answer, the ledger, and what the
//! provider took.

use futures::future::join_all;
use serde_json::{Map, Value, json};
use vestnik::domain::Channel;
use vestnik::simulator::Taken;

use super::on_both_ledgers;
use super::server::{Client, Server, email, sms, telegram, whatsapp, with};
use super::world::World;
use crate::support::eventually::{LONG, eventually};

on_both_ledgers!(
    accepted_is_sent,
    held_is_sent_with_a_note,
    refused_for_good_is_failed_with_its_reason,
    opted_out_is_suppressed_from_then_on,
    stopped_marketing_suppresses_marketing_only,
    trouble_at_the_provider_is_failed_and_retryable,
    trouble_before_the_message_is_tried_again_within_the_call,
    a_throttle_of_a_recipient_holds_that_recipient_back_here,
    a_throttle_of_the_sender_holds_all_back_here,
    a_sender_taken_for_spam_rests_for_an_hour,
    an_account_that_cannot_send_says_why,
    no_readable_answer_is_uncertain,
    at_least_once_sends_again_and_flags_both,
    at_least_once_that_stays_unknown_is_uncertain_with_both_flagged,
    expired_is_refused_and_leaves_nothing,
);

/// The provider does so, and the answer has this class and code.
type Case = (Channel, Value, &'static str, &'static str);

/// Sends, and finds in the ledger what was answered.
async fn send(client: &Client, body: Value) -> Value {
    let mut answer = client.send(&body).await.ok();
    let found = client.find(&answer["id"]).await;
    answer.as_object_mut().unwrap().remove("retryAfter");
    assert_eq!(answer, found, "the answer is not what the ledger says");
    answer
}

/// Has the providers treat the recipient of each case so, and sends to all of them at the same time.
async fn meet<'a>(world: &World, server: &Server, cases: &'a [Case], fields: &Value) -> Vec<(&'a Case, Value)> {
    ruled(world, cases.iter().map(|(channel, rule, ..)| (*channel, rule.clone())));
    let sends = cases.iter().enumerate().map(|(n, (channel, ..))| send(server, with(to(*channel, n), fields.clone())));
    cases.iter().zip(join_all(sends).await).collect()
}

/// The `n`th person on a channel.
fn recipient(channel: Channel, n: usize) -> String {
    match channel {
        Channel::WhatsApp | Channel::Sms => format!("+7999000{n:04}"),
        Channel::Telegram => format!("{}", 5000 + n),
        Channel::Email => format!("person{n}@example.org"),
    }
}

fn to(channel: Channel, n: usize) -> Value {
    let body = match channel {
        Channel::WhatsApp => whatsapp,
        Channel::Telegram => telegram,
        Channel::Sms => sms,
        Channel::Email => email,
    };
    body(&recipient(channel, n))
}

fn to_all() -> Vec<Value> {
    Channel::ALL.map(|channel| to(channel, 0)).to_vec()
}

/// The first rule is for the first person, and so on.
fn ruled(world: &World, rules: impl Iterator<Item = (Channel, Value)>) {
    let mut scenario = Map::new();
    for (n, (channel, rule)) in rules.enumerate() {
        let provider = scenario.entry(channel.as_str()).or_insert_with(|| json!({ "recipients": {} }));
        provider["recipients"][recipient(channel, n)] = rule;
    }
    world.scenario(scenario.into());
}

/// What was taken for the `n`th person.
fn taken(world: &World, channel: Channel, n: usize) -> Vec<Taken> {
    let recipient = recipient(channel, n);
    let recipient = recipient.trim_start_matches('+');
    let is_theirs = |taken: &Taken| taken.channel == channel && taken.recipient == recipient;
    world.simulator.taken().into_iter().filter(is_theirs).collect()
}

/// What a provider that breaks off is told, with the message in its hands.
fn broken_off(channel: Channel) -> &'static str {
    if channel == Channel::Email { "drop_at_dot" } else { "reset_after_read" }
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
    let mut answers = Vec::new();
    for (body, address) in [
        (whatsapp("+7 999 123-45-67"), "+79991234567"),
        (telegram("42"), "42"),
        (sms("+7 (999) 123-45-68"), "+79991234568"),
        (email("anna@example.org"), "anna@example.org"),
    ] {
        let answer = send(&server, body).await;
        assert_eq!((&answer["status"], &answer["recipient"]), (&json!("sent"), &json!(address)));
        assert_eq!((&answer["account"], &answer["error"]), (&json!("main"), &Value::Null));
        assert_eq!((outcomes(&answer), &answer["attempts"][0]["n"]), (vec!["accepted"], &json!(1)));
        let taken = world.simulator.taken().pop().unwrap();
        assert_eq!(taken.text.as_deref().map(str::trim_end), Some("Your order is ready"));
        let id = answer["id"].as_str().unwrap();
        let (our_id, provider_id) = match taken.channel {
            Channel::WhatsApp => (Some(id.to_owned()), taken.provider_message_id),
            Channel::Telegram | Channel::Sms => (None, taken.provider_message_id),
            Channel::Email => (
                Some(format!("{id}@example.com")),
                format!("<{id}@example.com> 2.0.0 Ok: queued as {}", taken.provider_message_id),
            ),
        };
        assert_eq!((taken.our_id, &answer["attempts"][0]["providerMessageId"]), (our_id, &json!(provider_id)));
        answers.push(answer);
    }
    let report = world.assert_books(&server, &answers).await;
    assert_eq!((&report["accepted"], &report["sent"]), (&json!(4), &json!(4)));
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
    let whatsapp = |code: u32| (Channel::WhatsApp, json!({ "error": code }));
    let telegram = |word: &str| (Channel::Telegram, json!({ "error": word }));
    let sms = |code: u32| (Channel::Sms, json!({ "error": code }));
    let email = |reply: &str| (Channel::Email, json!({ "error": reply }));
    let cases = [
        (whatsapp(131026), "recipient", "131026"),
        (whatsapp(131021), "recipient", "131021"),
        (whatsapp(131050), "opted_out", "131050"),
        (whatsapp(131047), "content", "131047"),
        (whatsapp(131051), "content", "131051"),
        (whatsapp(131049), "policy", "131049"),
        (whatsapp(132001), "template", "132001"),
        (telegram("chat_not_found"), "recipient", "400"),
        (telegram("deactivated"), "recipient", "403"),
        (telegram("blocked"), "opted_out", "403"),
        (telegram("cant_parse_entities"), "content", "400"),
        (telegram("message_too_long"), "content", "400"),
        (telegram("no_rights"), "policy", "400"),
        (sms(21211), "recipient", "21211"),
        (sms(21610), "opted_out", "21610"),
        (sms(21617), "content", "21617"),
        (sms(21408), "policy", "21408"),
        (email("550 5.1.1 No such user"), "recipient", "550 5.1.1"),
        (email("550 Who is that?"), "recipient", "550"),
        (email("dot 552 5.3.4 Too large"), "content", "552 5.3.4"),
        (email("dot 554 5.7.1 Looks like spam"), "policy", "554 5.7.1"),
    ]
    .map(|((channel, rule), reason, code)| (channel, rule, reason, code));
    let server = world.server(&[]).await;
    let mut answers = Vec::new();
    for ((_, _, reason, code), answer) in meet(&world, &server, &cases, &json!({})).await {
        assert_failed(&answer, reason, code, false);
        assert_eq!(outcomes(&answer), ["permanent"]);
        answers.push(answer);
    }
    assert_eq!(world.simulator.taken_count(), 0);
    let report = world.assert_books(&server, &answers).await;
    assert_eq!(report["deadLetters"], cases.len());
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
    let cases: [Case; 10] = [
        (Channel::WhatsApp, json!({ "error": 131016 }), "transient", "131016"),
        (Channel::WhatsApp, json!({ "error": 131000 }), "transient", "131000"),
        (Channel::WhatsApp, json!({ "fault": "server_error_json" }), "transient", "1"),
        (Channel::Telegram, json!({ "error": "internal" }), "transient", "500"),
        (Channel::Telegram, json!({ "fault": "server_error_json" }), "transient", "500"),
        (Channel::Sms, json!({ "error": 21730 }), "transient", "21730"),
        (Channel::Sms, json!({ "fault": "server_error_json" }), "transient", "20500"),
        (Channel::Email, json!({ "error": "dot 451 4.3.0 Later" }), "transient", "451 4.3.0"),
        (Channel::Email, json!({ "error": "dot 452" }), "transient", "452"),
        (Channel::Email, json!({ "fault": "shutdown_at_dot" }), "transient", "421 4.3.2"),
    ];
    let server = world.server(&[]).await;
    let mut answers = Vec::new();
    for ((_, _, class, code), answer) in meet(&world, &server, &cases, &json!({})).await {
        assert_failed(&answer, class, code, true);
        // It had left us, so it is the caller who says whether it may be repeated.
        assert_eq!(outcomes(&answer), ["transient"]);
        answers.push(answer);
    }
    assert_eq!(world.simulator.taken_count(), 0);
    world.assert_books(&server, &answers).await;
}

async fn trouble_before_the_message_is_tried_again_within_the_call(world: World) {
    // Mail has steps before the message itself.
    let rules = [json!({ "error": "452 4.3.1 Busy", "times": 1 }), json!({ "fault": "drop_at_data", "times": 1 })];
    ruled(&world, rules.into_iter().map(|rule| (Channel::Email, rule)));
    let server = world.server(&[]).await;
    let mut answers = join_all((0..2).map(|n| send(&server, to(Channel::Email, n)))).await;
    for answer in &answers {
        assert_eq!((outcomes(answer), &answer["status"]), (vec!["transient", "accepted"], &json!("sent")));
    }
    world.assert_books(&server, &answers).await;
    server.stop().await;

    // A port that was free a moment ago, and that nobody listens on while this is held.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = nobody.local_addr().unwrap().port().to_string();
    let url = format!("http://127.0.0.1:{port}");
    let settings = [
        ("VESTNIK__WHATSAPP__MAIN__BASE_URL", url.as_str()),
        ("VESTNIK__TELEGRAM__MAIN__BASE_URL", &url),
        ("VESTNIK__SMS__MAIN__TWILIO__BASE_URL", &url),
        ("VESTNIK__EMAIL__MAIN__HOST", "127.0.0.1"),
        ("VESTNIK__EMAIL__MAIN__PORT", &port),
    ];
    let server = world.server(&settings).await;
    let cases = [
        (whatsapp("+79991234567"), json!({ "maxRetries": 1 }), 2),
        (telegram("42"), json!({ "maxRetries": 0 }), 1),
        // Waits of 0.8 and 1.6 s fit; 3.2 s more do not.
        (sms("+79991234567"), json!({ "deadlineMs": 4000 }), 3),
        (email("anna@example.org"), json!({ "maxRetries": 1 }), 2),
    ];
    let refused =
        join_all(cases.iter().map(|(body, fields, _)| send(&server, with(body.clone(), fields.clone())))).await;
    for ((_, _, attempts), answer) in cases.iter().zip(refused) {
        assert_failed(&answer, "transient", "connect", true);
        assert_eq!(outcomes(&answer), vec!["transient"; *attempts]);
        let numbers: Vec<_> = answer["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["n"]).collect();
        assert_eq!(numbers, (1..=*attempts).collect::<Vec<_>>());
        answers.push(answer);
    }
    assert_eq!(world.simulator.taken_count(), 2);
    world.assert_books(&server, &answers).await;
}

async fn a_throttle_of_a_recipient_holds_that_recipient_back_here(world: World) {
    let cases = [
        // Meta's first step is one second.
        (Channel::WhatsApp, json!(131056), "131056", 1.0),
        (Channel::Telegram, json!("retry_after:30"), "429", 30.0),
        (Channel::Sms, json!(14107), "14107", 30.0),
        (Channel::Email, json!("451 4.7.1 Greylisted"), "451 4.7.1", 300.0),
    ];
    ruled(&world, cases.iter().map(|(channel, error, ..)| (*channel, json!({ "error": error, "times": 1 }))));
    let server = world.server(&[]).await;
    let mut answers = Vec::new();
    for (n, (channel, _, code, after)) in cases.into_iter().enumerate() {
        // What may not wait so long is answered here.
        let body = with(to(channel, n), json!({ "deadlineMs": 300 }));
        let throttled = server.send(&body).await.ok();
        assert_failed(&throttled, "throttled", code, true);
        assert_eq!((&throttled["retryAfter"], outcomes(&throttled)), (&json!(after), vec!["throttled"]));

        let requests = world.simulator.figures(channel).requests;
        let local = server.send(&body).await.ok();
        assert_failed(&local, "throttled", "local_limit", true);
        let wait = local["retryAfter"].as_f64().unwrap();
        assert!(wait > 0.3 && wait <= after, "{wait}");
        assert_eq!(outcomes(&local), [""; 0]);
        assert_eq!(world.simulator.figures(channel).requests, requests, "it was not even asked");

        let free = send(&server, to(channel, 100)).await;
        assert_eq!(free["status"], "sent", "nobody else rests: {free:#}");
        answers.extend([throttled, local, free]);
    }
    // Who can wait gets through when the rest is over.
    let patient = send(&server, with(to(Channel::WhatsApp, 0), json!({ "deadlineMs": 8000 }))).await;
    assert_eq!(patient["status"], "sent");
    answers.push(patient);
    world.assert_books(&server, &answers).await;
}

async fn a_throttle_of_the_sender_holds_all_back_here(world: World) {
    let errors = [
        (Channel::WhatsApp, json!(80007), "80007", 60.0),
        (Channel::Sms, json!(21611), "21611", 300.0),
        (Channel::Email, json!("mail 451 4.7.1 Slow down"), "451 4.7.1", 300.0),
    ];
    senders_rest(&world, errors.to_vec()).await;
}

async fn a_sender_taken_for_spam_rests_for_an_hour(world: World) {
    let errors = [(Channel::WhatsApp, json!(131048), "131048", 3600.0), (Channel::Sms, json!(60728), "60728", 3600.0)];
    senders_rest(&world, errors.to_vec()).await;
}

async fn senders_rest(world: &World, errors: Vec<(Channel, Value, &str, f64)>) {
    let server = world.server(&[]).await;
    let mut answers = Vec::new();
    for (channel, error, code, after) in errors {
        world.scenario(json!({ channel.as_str(): { "next": [{ "error": error }] } }));
        let throttled = server.send(&to(channel, 0)).await.ok();
        assert_failed(&throttled, "throttled", code, true);
        assert_eq!(throttled["retryAfter"], after);
        let requests = world.simulator.figures(channel).requests;
        let local = send(&server, to(channel, 1)).await;
        assert_failed(&local, "throttled", "local_limit", true);
        assert_eq!(world.simulator.figures(channel).requests, requests, "it was not even asked");
        let other = send(&server, to(Channel::Telegram, 0)).await;
        assert_eq!(other["status"], "sent", "the other account is as fast as ever");
        answers.extend([throttled, local, other]);
    }
    world.assert_books(&server, &answers).await;
    server.stop().await;
}

async fn an_account_that_cannot_send_says_why(world: World) {
    let cases: [Case; 12] = [
        (Channel::WhatsApp, json!({ "error": 190 }), "auth", "190"),
        (Channel::WhatsApp, json!({ "error": 131042 }), "billing", "131042"),
        (Channel::WhatsApp, json!({ "error": 131031 }), "suspended", "131031"),
        (Channel::WhatsApp, json!({ "error": 133010 }), "config", "133010"),
        (Channel::Telegram, json!({ "error": "unauthorized" }), "auth", "401"),
        (Channel::Telegram, json!({ "error": "conflict" }), "config", "409"),
        (Channel::Telegram, json!({ "error": "not_found" }), "config", "404"),
        (Channel::Sms, json!({ "error": 20003 }), "auth", "20003"),
        (Channel::Sms, json!({ "error": 20005 }), "suspended", "20005"),
        (Channel::Sms, json!({ "error": 21606 }), "config", "21606"),
        (Channel::Email, json!({ "error": "530 5.7.0 Sign in first" }), "auth", "530 5.7.0"),
        (Channel::Email, json!({ "error": "554 5.7.1 Relay access denied" }), "config", "554 5.7.1"),
    ];
    // While an account is known to be down it is not tried: a process that starts tries it once.
    let mut rounds: Vec<Vec<Case>> = Vec::new();
    for case in cases {
        match rounds.iter_mut().find(|round| round.iter().all(|(channel, ..)| *channel != case.0)) {
            Some(round) => round.push(case),
            None => rounds.push(vec![case]),
        }
    }
    let mut answers = Vec::new();
    for round in rounds {
        let server = world.server(&[]).await;
        for ((channel, _, reason, code), answer) in meet(&world, &server, &round, &json!({})).await {
            assert_failed(&answer, reason, code, false);
            assert_eq!(outcomes(&answer), ["channel_down"]);
            let requests = world.simulator.figures(*channel).requests;
            let next = server.send(&to(*channel, 99)).await.ok();
            assert_failed(&next, "channel_down", code, true);
            assert!(next["retryAfter"].as_f64().unwrap() > 0.0, "{next:#}");
            assert_eq!((outcomes(&next).len(), world.simulator.figures(*channel).requests), (0, requests));
            answers.extend([answer, next]);
        }
        server.stop().await;
    }
    assert_eq!(world.simulator.taken_count(), 0);
    let server = world.server(&[]).await;
    world.assert_books(&server, &answers).await;
}

/// Faults of which nobody can know whether the message was taken, and whether it was.
fn unknowable(channel: Channel) -> Vec<(Value, bool)> {
    if channel == Channel::Email {
        return vec![
            (json!({ "fault": "drop_at_dot" }), true),
            (json!({ "fault": "drop_at_dot", "taken": false }), false),
            (json!({ "fault": "reset_at_dot" }), true),
            (json!({ "fault": "hang_at_dot" }), true),
            (json!({ "fault": "rubbish_at_dot" }), true),
        ];
    }
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
    let (cases, are_taken): (Vec<Case>, Vec<bool>) = Channel::ALL
        .into_iter()
        .flat_map(|channel| unknowable(channel).into_iter().map(move |(rule, is_taken)| (channel, rule, is_taken)))
        .map(|(channel, rule, is_taken)| ((channel, rule, "ambiguous", ""), is_taken))
        .unzip();
    let server = world.server(&[]).await;
    let met = meet(&world, &server, &cases, &json!({ "deadlineMs": 3000 })).await;
    let mut answers = Vec::new();
    for (n, (((channel, rule, class, _), answer), is_taken)) in met.into_iter().zip(are_taken).enumerate() {
        assert_eq!(answer["status"], "uncertain", "{channel}, {rule}: {answer:#}");
        assert_eq!(outcomes(&answer), ["ambiguous"], "{channel}, {rule}");
        assert_eq!(answer["error"]["class"], *class, "{channel}, {rule}: {answer:#}");
        assert_eq!(answer["error"]["retryable"], false, "{channel}, {rule}");
        assert_eq!(taken(&world, *channel, n).len(), usize::from(is_taken), "{channel}, {rule}: taken once at most");
        answers.push(answer);
    }
    let report = world.assert_books(&server, &answers).await;
    assert_eq!(report["uncertain"], cases.len());
}

async fn at_least_once_sends_again_and_flags_both(world: World) {
    let rule =
        |channel| json!({ "recipients": { recipient(channel, 0): { "fault": broken_off(channel), "times": 1 } } });
    world.scenario(Channel::ALL.map(|channel| (channel.as_str(), rule(channel))).into_iter().collect());
    let server = world.server(&[("VESTNIK__DELIVERY__RESEND_GRACE_MS", "300")]).await;
    let mut answers = Vec::new();
    for body in to_all() {
        let answer = server.send(&with(body, json!({ "policy": "at_least_once" }))).await;
        assert_eq!(answer.status, 202);
        let answer = answer.json();
        assert_eq!(answer["status"], "pending", "{answer:#}");
        assert_eq!(answer["holdReason"], "resend");
        assert_eq!(answer["attempts"][0]["flagged"], true);
        answers.push(answer);
    }
    for answer in &answers {
        let sent = eventually(LONG, "it is sent again", async || {
            let found = server.find(&answer["id"]).await;
            (found["status"] == "sent").then_some(found)
        })
        .await;
        assert_eq!(outcomes(&sent), ["ambiguous", "accepted"]);
        assert!(sent["attempts"].as_array().unwrap().iter().all(|attempt| attempt["flagged"] == true), "{sent:#}");
    }
    for channel in Channel::ALL {
        assert_eq!(taken(&world, channel, 0).len(), 2, "{channel}");
    }
    world.assert_books(&server, &answers).await;
}

async fn at_least_once_that_stays_unknown_is_uncertain_with_both_flagged(world: World) {
    let rule = |channel| json!({ "recipients": { recipient(channel, 0): { "fault": broken_off(channel) } } });
    world.scenario(Channel::ALL.map(|channel| (channel.as_str(), rule(channel))).into_iter().collect());
    let server = world.server(&[("VESTNIK__DELIVERY__RESEND_GRACE_MS", "300")]).await;
    let mut answers = Vec::new();
    for body in to_all() {
        answers.push(server.send(&with(body, json!({ "policy": "at_least_once" }))).await.json());
    }
    server.settled().await;
    for answer in &answers {
        let found = server.find(&answer["id"]).await;
        assert_eq!(found["status"], "uncertain");
        assert_eq!(outcomes(&found), ["ambiguous", "ambiguous"], "once more, and not for ever");
        assert!(found["attempts"].as_array().unwrap().iter().all(|attempt| attempt["flagged"] == true), "{found:#}");
    }
    for channel in Channel::ALL {
        assert_eq!(taken(&world, channel, 0).len(), 2, "{channel}");
    }
    world.assert_books(&server, &answers).await;
}

async fn expired_is_refused_and_leaves_nothing(world: World) {
    let server = world.server(&[]).await;
    for body in to_all() {
        let answer = server.send(&with(body, json!({ "notAfter": "2020-01-01T00:00:00Z" }))).await;
        assert_eq!(answer.problem(422)["errors"][0]["pointer"], "/notAfter");
    }
    let report = world.assert_books(&server, &[]).await;
    assert_eq!(report["accepted"], 0);
}
