//! `onFailure: queue`: what a direct send could not get through goes on through the queue, once, and loses nothing.

use futures::future::join_all;
use serde_json::{Value, json};
use vestnik::domain::Channel;

use super::on_both_ledgers;
use super::server::{Answer, Client, Server, telegram, whatsapp, with};
use super::world::World;
use crate::support::eventually::{LONG, eventually};

on_both_ledgers!(
    what_may_pass_waits_in_the_ledger_and_is_sent_by_the_queue,
    retries_are_counted_over_the_call_and_the_queue,
    what_is_over_is_answered_as_ever,
    what_is_not_tried_waits_without_an_attempt,
    more_than_may_be_sent_at_once_goes_through_the_queue,
    several_go_on_each_for_itself,
    a_stop_hands_over_what_still_tries,
    a_repeat_is_answered_while_the_queue_has_it,
    what_is_queued_anyhow_cannot_fail_at_once,
);

fn queued(body: Value) -> Value {
    with(body, json!({ "onFailure": "queue" }))
}

/// Answers requests and hands nothing over: what waits stays as it was written.
async fn api_only(world: &World, settings: &[(&str, &str)]) -> Server {
    Server::start_with(world, settings, Some("127.0.0.1:0"), &["--roles", "api"]).await
}

/// The notification that the queue has now: neither over nor to be repeated by its caller.
#[track_caller]
fn waiting(answer: &Answer, hold: &str, outcomes: &[&str]) -> Value {
    let view = answer.json();
    assert_eq!((answer.status, &view["status"]), (202, &json!("pending")), "{view:#}");
    assert_eq!((&view["holdReason"], &view["mode"]), (&json!(hold), &json!("sync")), "{view:#}");
    assert_eq!((&view["retryAfter"], &view["error"]), (&Value::Null, &Value::Null), "{view:#}");
    assert!(view["dueAt"].is_string(), "{view:#}");
    assert_eq!(outcomes_of(&view), outcomes);
    view
}

fn outcomes_of(view: &Value) -> Vec<&str> {
    view["attempts"].as_array().unwrap().iter().map(|attempt| attempt["outcome"].as_str().unwrap()).collect()
}

async fn ended(client: &Client, id: &Value, status: &str) -> Value {
    eventually(LONG, status, async || {
        let found = client.find(id).await;
        (found["status"] == status).then_some(found)
    })
    .await
}

async fn what_may_pass_waits_in_the_ledger_and_is_sent_by_the_queue(world: World) {
    world.scenario(json!({ "whatsapp": { "recipients": {
        "+79990000001": { "error": 131056, "times": 1 },
        "+79990000002": { "error": 131016, "times": 1 },
        "+79990000003": { "fault": "server_error_json", "times": 1 },
    } } }));
    let server = api_only(&world, &[]).await;
    let mut answers = Vec::new();
    for (n, hold, outcome) in [(1, "rate_limit", "throttled"), (2, "retry", "transient"), (3, "retry", "transient")] {
        let body = queued(whatsapp(&format!("+7999000000{n}")));
        let first = server.send_with_key(&format!("{n}"), &body).await;
        let view = waiting(&first, hold, &[outcome]);
        assert_eq!(server.find(&view["id"]).await, view, "the answer is not what the ledger says");
        let second = server.send_with_key(&format!("{n}"), &body).await;
        assert_eq!((second.status, &second.body), (202, &first.body));
        answers.push(view);
    }
    // The account cannot send: the one that found out waits for it, too.
    world.scenario(json!({ "telegram": { "next": [{ "error": "unauthorized" }] } }));
    answers.push(waiting(&server.send(&queued(telegram("42"))).await, "channel_down", &["channel_down"]));
    assert_eq!(world.simulator.taken_count(), 0);
    server.stop().await;

    let server = world.server(&[]).await;
    for (n, answer) in answers.iter().enumerate() {
        let found = ended(&server, &answer["id"], "sent").await;
        assert_eq!(outcomes_of(&found), [outcomes_of(answer)[0], "accepted"]);
        assert_eq!(found["attempts"][0], answer["attempts"][0]);
        if n < 3 {
            let body = queued(whatsapp(found["recipient"].as_str().unwrap()));
            let repeated = server.send_with_key(&format!("{}", n + 1), &body).await;
            assert_eq!(repeated.ok(), found, "it is over, and a repeat says so");
        }
    }
    assert_eq!(world.simulator.taken_count(), 4);
    world.assert_books(&server, &answers).await;
}

async fn retries_are_counted_over_the_call_and_the_queue(world: World) {
    world.scenario(json!({ "whatsapp": { "errors": [{ "code": 131016, "share": 1.0 }] } }));
    let server = world.server(&[]).await;
    let body =
        |retries: i64| with(queued(whatsapp(&format!("+7999000000{retries}"))), json!({ "maxRetries": retries }));
    let never = server.send(&body(0)).await.ok();
    assert_eq!((&never["status"], &never["error"]["retryable"]), (&json!("failed"), &json!(true)), "{never:#}");
    let twice = server.send(&body(2)).await;
    assert_eq!(twice.status, 202);
    let failed = ended(&server, &twice.json()["id"], "failed").await;
    assert_eq!(outcomes_of(&failed), ["transient"; 3], "one in the call and two retries");
    let report = world.assert_books(&server, &[never, failed]).await;
    assert_eq!(report["deadLetters"], 2);
}

async fn what_is_over_is_answered_as_ever(world: World) {
    world.scenario(json!({ "whatsapp": { "recipients": {
        "+79990000001": { "error": 131026 },
        "+79990000002": { "fault": "reset_after_read" },
        "+79990000003": { "fault": "reset_after_read", "times": 1 },
    } } }));
    let server = world.server(&[("VESTNIK__DELIVERY__RESEND_GRACE_MS", "300")]).await;
    let mut answers = Vec::new();
    for (n, status) in [(0, "sent"), (1, "failed"), (2, "uncertain")] {
        let answer = server.send(&queued(whatsapp(&format!("+7999000000{n}")))).await.ok();
        assert_eq!((&answer["status"], answer["attempts"].as_array().unwrap().len()), (&json!(status), 1));
        answers.push(answer);
    }
    // Whoever wants it twice rather than never gets it so, with both attempts flagged.
    let resent = with(queued(whatsapp("+79990000003")), json!({ "policy": "at_least_once" }));
    let resent = waiting(&server.send(&resent).await, "resend", &["ambiguous"]);
    let found = ended(&server, &resent["id"], "sent").await;
    assert!(found["attempts"].as_array().unwrap().iter().all(|attempt| attempt["flagged"] == true), "{found:#}");
    answers.push(found);
    server.settled().await;
    assert_eq!(world.simulator.taken_count(), 4, "nothing that may have left was sent again unasked");
    world.assert_books(&server, &answers).await;
}

async fn what_is_not_tried_waits_without_an_attempt(world: World) {
    // A sender that is taken for spam rests for an hour, and a bot that is not let in is down.
    let refusals = json!({
        "whatsapp": { "next": [{ "error": 131048 }] }, "telegram": { "next": [{ "error": "unauthorized" }] }
    });
    world.scenario(refusals);
    let server = api_only(&world, &[]).await;
    let first = [whatsapp("+79990000001"), telegram("41")];
    let mut answers = join_all(first.iter().map(async |body| server.send(body).await.ok())).await;
    let requests = |channel| world.simulator.figures(channel).requests;
    let before = (requests(Channel::WhatsApp), requests(Channel::Telegram));
    let bodies = [queued(whatsapp("+79990000002")), queued(telegram("42"))];
    let mut kept = Vec::new();
    for (body, hold) in bodies.iter().zip(["rate_limit", "channel_down"]) {
        let answer = server.send_with_key(hold, body).await;
        let view = waiting(&answer, hold, &[]);
        assert_eq!(server.find(&view["id"]).await, view, "the answer is not what the ledger says");
        assert_eq!(server.send_with_key(hold, body).await.body, answer.body);
        kept.push(view);
    }
    assert_eq!((requests(Channel::WhatsApp), requests(Channel::Telegram)), before, "they were not even asked");
    let [resting, down] = &kept[..] else { panic!("two were kept") };
    server.post(&format!("/v1/notifications/{}/cancel", resting["id"].as_str().unwrap()), &json!({})).await.ok();
    server.kill().await;

    let server = world.server(&[]).await;
    answers.push(ended(&server, &down["id"], "sent").await);
    assert_eq!(server.find(&resting["id"]).await["status"], "cancelled");
    assert_eq!(world.simulator.taken_count(), 1);
    world.assert_books(&server, &answers).await;
}

async fn more_than_may_be_sent_at_once_goes_through_the_queue(world: World) {
    world.scenario(json!({ "whatsapp": { "recipients": { "+79990000001": { "fault": "hang" } } } }));
    let settings = [("VESTNIK__DELIVERY__DIRECT_CONCURRENCY", "1"), ("VESTNIK__DELIVERY__SEND_DEADLINE_MS", "4000")];
    let server = world.server(&settings).await;
    let hanging = with(whatsapp("+79990000001"), json!({ "deadlineMs": 45000 }));
    let meanwhile = async {
        eventually(LONG, "the provider has the first", async || (world.simulator.taken_count() == 1).then_some(()))
            .await;
        let short = |body| with(body, json!({ "deadlineMs": 100 }));
        server.send(&short(whatsapp("+79990000002"))).await.problem(429);
        let body = short(queued(whatsapp("+79990000003")));
        let answer = server.send_with_key("key", &body).await;
        let repeated = server.send_with_key("key", &body).await;
        let several = json!({ "channel": "whatsapp", "text": "Your order is ready", "onFailure": "queue",
            "deadlineMs": 100, "recipients": [{ "recipient": "+79990000004" }, { "recipient": "12" }] });
        let several = server.post("/v1/notifications/auto", &several).await.ok();
        (waiting(&answer, "rate_limit", &[]), repeated, several["results"].clone())
    };
    let (uncertain, (answer, repeated, several)) = tokio::join!(server.send(&hanging), meanwhile);
    assert_eq!(repeated.json()["id"], answer["id"]);
    assert_eq!((&several[0]["status"], &several[1]["status"]), (&json!("pending"), &json!("failed")), "{several:#}");
    server.settled().await;
    assert_eq!(ended(&server, &answer["id"], "sent").await["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(world.simulator.taken_count(), 3);
    world.assert_books(&server, &[uncertain.ok(), answer, several[0].clone(), several[1].clone()]).await;
}

async fn several_go_on_each_for_itself(world: World) {
    world.scenario(json!({ "whatsapp": { "recipients": {
        "+79990000000": { "error": 131026 }, "+79990000001": { "error": 131016, "times": 1 }
    } } }));
    let limits =
        [("VESTNIK__WHATSAPP__MAIN__LIMITS__PER_SECOND", "1"), ("VESTNIK__WHATSAPP__MAIN__LIMITS__BURST", "2")];
    let server = world.server(&limits).await;
    let recipients: Vec<_> = (0..6).map(|n| json!({ "recipient": format!("+7999000000{n}") })).collect();
    let body = json!({ "channel": "whatsapp", "text": "Hi", "recipients": recipients, "onFailure": "queue",
        "deadlineMs": 1500 });
    let call = async || server.try_post("/v1/notifications/auto", &[("idempotency-key", "one")], &body).await.unwrap();
    let first = call().await.ok();
    let results = first["results"].as_array().unwrap();
    assert_eq!(results[0]["status"], "failed", "{first:#}");
    for result in &results[1..] {
        assert!(["sent", "pending"].contains(&result["status"].as_str().unwrap()), "{result:#}");
        assert!(result["status"] == "sent" || result["holdReason"].is_string(), "{result:#}");
        assert_eq!(result["retryAfter"], Value::Null, "{result:#}");
    }
    assert!(results.iter().any(|result| result["status"] == "pending"), "{first:#}");
    server.settled().await;
    let again = call().await.ok();
    let statuses: Vec<_> = again["results"].as_array().unwrap().iter().map(|result| &result["status"]).collect();
    assert_eq!(statuses, ["failed", "sent", "sent", "sent", "sent", "sent"]);
    assert_eq!(world.simulator.taken_count(), 5, "each once");
    world.assert_books(&server, results).await;
}

async fn a_stop_hands_over_what_still_tries(world: World) {
    // A port that was free a moment ago, and that nobody listens on while this is held.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://127.0.0.1:{}", nobody.local_addr().unwrap().port());
    let mut server = world.server(&[("VESTNIK__WHATSAPP__MAIN__BASE_URL", url.as_str())]).await;
    let body = with(queued(whatsapp("+79990000001")), json!({ "deadlineMs": 45000, "maxRetries": 10 }));
    let stopping = async {
        eventually(LONG, "it tries", async || {
            let ledger = server.ledger().await;
            (!ledger.first()?["attempts"].as_array()?.is_empty()).then_some(())
        })
        .await;
        server.signal(rustix::process::Signal::TERM);
    };
    let (answer, ()) = tokio::join!(server.send(&body), stopping);
    let view = answer.json();
    assert_eq!((answer.status, &view["holdReason"]), (202, &json!("retry")), "{view:#}");
    let tries = outcomes_of(&view).len();
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());

    let server = world.server(&[]).await;
    let found = ended(&server, &view["id"], "sent").await;
    assert_eq!(outcomes_of(&found)[..tries], vec!["transient"; tries]);
    assert_eq!(world.simulator.taken_count(), 1);
    world.assert_books(&server, &[view]).await;
}

async fn a_repeat_is_answered_while_the_queue_has_it(world: World) {
    world.scenario(json!({ "whatsapp": { "next": [{ "error": 131016 }, { "fault": "hang" }] } }));
    let server = world.server(&[("VESTNIK__DELIVERY__SEND_DEADLINE_MS", "8000")]).await;
    let body = queued(whatsapp("+79990000001"));
    let first = server.send_with_key("one", &body).await;
    assert_eq!(first.status, 202);
    eventually(LONG, "the queue sends it", async || (world.simulator.taken_count() == 1).then_some(())).await;
    let repeated = server.send_with_key("one", &body).await;
    assert_eq!((repeated.status, &repeated.json()["status"]), (202, &json!("sending")), "{:#}", repeated.json());
    server.settled().await;
    let repeated = server.send_with_key("one", &body).await.ok();
    assert_eq!((&repeated["status"], &repeated["id"]), (&json!("uncertain"), &first.json()["id"]));
    assert_eq!(world.simulator.taken_count(), 1);
    world.assert_books(&server, &[first.json(), repeated]).await;
}

async fn what_is_queued_anyhow_cannot_fail_at_once(world: World) {
    let server = world.server(&[]).await;
    let later = json!({ "scheduledAt": "2099-01-01T00:00:00Z" });
    for fields in [json!({ "mode": "async" }), later] {
        let fail = with(with(whatsapp("+79990000001"), fields), json!({ "onFailure": "fail" }));
        let problem = server.send(&fail).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/onFailure", "{problem:#}");
    }
    let bulk = json!({ "channel": "whatsapp", "text": "Hi", "onFailure": "queue", "recipients": [] });
    let problem = server.post("/v1/notifications/bulk", &bulk).await.problem(422);
    assert_eq!(problem["errors"][0]["pointer"], "/onFailure", "{problem:#}");
    // It says what happens anyhow.
    let accepted = server.send(&with(queued(whatsapp("+79990000001")), json!({ "mode": "async" }))).await;
    assert_eq!(accepted.status, 202);
    let sent = ended(&server, &accepted.json()["id"], "sent").await;
    world.assert_books(&server, &[sent]).await;
}
