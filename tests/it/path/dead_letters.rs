//! What did not go out: seen, sent again once, given up; and what nobody knew, settled by hand.

use std::collections::HashSet;

use futures::future::join_all;
use serde_json::{Value, json};

use super::on_both_ledgers;
use super::server::{Server, telegram, whatsapp, with};
use super::world::{QUICK, World};
use crate::support::eventually::{LONG, eventually};
use crate::support::proxy::{Cut, Proxy};

on_both_ledgers!(
    a_replay_goes_out_and_both_say_so,
    a_mended_template_and_another_address_go_out,
    what_could_not_be_sent_is_said_and_stays,
    killed_in_the_middle_of_a_replay,
    what_nobody_knew_is_settled_by_hand,
    calls_go_on_where_the_last_one_stopped,
    who_may_and_what_is_wrong_is_said,
    an_export_is_whole_and_harmless,
    the_commands_do_the_same,
);

const PHONE: &str = "+79990000001";

/// All are refused for good.
fn refuse(world: &World) {
    let errors = json!({ "errors": [{ "code": 131026, "share": 1.0 }] });
    world.scenario(json!({ "whatsapp": errors }));
}

/// So many dead letters, ten at a call; from now on everything works.
async fn dead_letters(world: &World, server: &Server, tens: u64) -> Vec<Value> {
    refuse(world);
    let calls = (0..tens).map(|ten| {
        let recipient = move |n: u64| json!({ "recipient": format!("+7999{ten:04}{n:03}") });
        let recipients: Vec<_> = (0..10).map(recipient).collect();
        json!({ "channel": "whatsapp", "text": "Заказ готов", "recipients": recipients })
    });
    let calls: Vec<_> = calls.collect();
    let answers = join_all(calls.iter().map(|body| server.post("/v1/notifications/auto", body))).await;
    world.scenario(json!({}));
    let results = answers.iter().flat_map(|answer| answer.ok()["results"].as_array().unwrap().clone());
    results.inspect(|result| assert_eq!(result["status"], "failed", "{result:#}")).collect()
}

async fn replay(server: &Server, body: Value) -> Value {
    server.post("/v1/dead-letters/replay", &body).await.ok()
}

fn refused(answer: &Value) -> Vec<&str> {
    answer["refused"].as_array().unwrap().iter().map(|refused| refused["code"].as_str().unwrap()).collect()
}

async fn a_replay_goes_out_and_both_say_so(world: World) {
    let server = world.server(&[]).await;
    let rules = json!({ PHONE: { "error": 131026, "times": 1 } });
    world.scenario(json!({ "whatsapp": { "recipients": rules } }));
    let body = with(whatsapp(PHONE), json!({ "metadata": { "order": 7 }, "externalId": "order-7" }));
    let failed = server.send(&body).await.ok();
    let causes = server.get("/v1/dead-letters/causes").await.ok();
    let group = &causes["items"][0];
    assert_eq!((&group["cause"], &group["code"], &group["count"]), (&json!("recipient"), &json!("131026"), &json!(1)));
    assert_eq!((&group["channel"], &group["account"]), (&json!("whatsapp"), &json!("main")));
    let listed = server.get("/v1/dead-letters?code=131026").await.ok();
    assert_eq!(listed["items"][0]["id"], failed["id"]);

    let ids = json!({ "ids": [failed["id"]] });
    let trial = replay(&server, with(ids.clone(), json!({ "dryRun": true }))).await;
    assert_eq!((&trial["dryRun"], &trial["replayed"], refused(&trial)), (&json!(true), &json!(1), vec![]));
    assert_eq!(server.ledger().await.len(), 1, "a dry run writes nothing");
    let done = replay(&server, ids.clone()).await;
    let new = &done["items"][0]["replayedAs"];
    server.settled().await;
    let (old, new) = (server.find(&failed["id"]).await, server.find(new).await);
    assert_eq!((&old["status"], &old["resolution"]["how"]), (&json!("failed"), &json!("replayed")));
    assert_eq!((&old["resolution"]["replayedAs"], &old["resolution"]["by"]), (&new["id"], &json!("local")));
    assert_eq!((&new["status"], &new["mode"]), (&json!("sent"), &json!("async")));
    for field in ["recipient", "metadata", "externalId", "context", "account"] {
        assert_eq!(new[field], old[field], "{field}");
    }
    assert_eq!(server.get("/v1/dead-letters").await.ok()["items"], json!([]));
    assert_eq!(refused(&replay(&server, ids).await), ["replayed"], "and once only");
    let report = world.assert_books(&server, &[failed, new]).await;
    assert_eq!((&report["accepted"], &report["sent"], &report["deadLetters"]), (&json!(2), &json!(1), &json!(0)));
}

async fn a_mended_template_and_another_address_go_out(world: World) {
    let server = world.server(&[]).await;
    server.put("/v1/templates/hello", &json!({ "text": "Здравствуйте, {{ name }}!" })).await.ok();
    refuse(&world);
    let body = |phone: &str| json!({ "channel": "whatsapp", "templateId": "hello", "data": { "name": "Анна" }, "recipient": phone });
    let first = server.send(&body(PHONE)).await.ok();
    let second = server.send(&body("+79990000002")).await.ok();
    world.scenario(json!({}));
    server.put("/v1/templates/hello", &json!({ "text": "Добрый день, {{ name }}!" })).await.ok();
    let elsewhere = json!({ "ids": [first["id"]], "recipient": "+7 999 000-00-03" });
    replay(&server, elsewhere).await;
    replay(&server, json!({ "filter": { "templateId": "hello" }, "templateId": "hello" })).await;
    server.settled().await;
    let mut taken: Vec<_> =
        world.simulator.taken().into_iter().map(|taken| (taken.recipient, taken.text.unwrap_or_default())).collect();
    taken.sort();
    let expected = [("79990000002", "Добрый день, Анна!"), ("79990000003", "Здравствуйте, Анна!")];
    assert_eq!(taken, expected.map(|(to, text)| (to.to_owned(), text.to_owned())));
    world.assert_books(&server, &[first, second]).await;
}

async fn what_could_not_be_sent_is_said_and_stays(world: World) {
    let server = world.server(&[]).await;
    server.put("/v1/templates/hello", &json!({ "text": "Здравствуйте!" })).await.ok();
    server.put("/v1/templates/asks", &json!({ "text": "{{ order.number }}" })).await.ok();
    refuse(&world);
    let hello = |phone: &str| json!({ "channel": "whatsapp", "templateId": "hello", "recipient": phone });
    let opted_out = server.send(&hello(PHONE)).await.ok();
    let dead = server.send(&hello("+79990000002")).await.ok();
    world.scenario(json!({}));
    let stop = json!({ "channel": "whatsapp", "address": PHONE });
    assert_eq!(server.post("/v1/suppressions", &stop).await.status, 201);
    let sent = server.send(&hello("+79990000003")).await.ok();
    let nobody = json!("0197a2b4-6c1e-7d3f-8a90-1b2c3d4e5f60");
    let ids = [&opted_out["id"], &sent["id"], &nobody];
    for dry_run in [true, false] {
        let answer = replay(&server, json!({ "ids": ids, "dryRun": dry_run })).await;
        let mut codes = refused(&answer);
        codes.sort_unstable();
        assert_eq!((codes, &answer["replayed"]), (vec!["not_failed", "opted_out", "unknown"], &json!(0)));
    }
    let asks = replay(&server, json!({ "ids": [dead["id"]], "templateId": "asks" })).await;
    assert_eq!(refused(&asks), ["missing_variable"]);
    let wrong = replay(&server, json!({ "ids": [dead["id"]], "recipient": "12" })).await;
    assert_eq!(refused(&wrong), ["address"]);
    let discard = json!({ "ids": [dead["id"], sent["id"]], "reason": "старый номер" });
    let discarded = server.post("/v1/dead-letters/discard", &discard).await.ok();
    assert_eq!((&discarded["changed"], &discarded["skipped"]), (&json!(1), &json!(1)));
    let shown = server.find(&dead["id"]).await;
    assert_eq!(
        (&shown["resolution"]["how"], &shown["resolution"]["reason"]),
        (&json!("discarded"), &json!("старый номер"))
    );
    assert_eq!(refused(&replay(&server, json!({ "ids": [dead["id"]] })).await), ["discarded"]);
    let report = world.assert_books(&server, &[opted_out, sent]).await;
    assert_eq!((&report["failed"], &report["deadLetters"]), (&json!(2), &json!(1)));
}

async fn killed_in_the_middle_of_a_replay(world: World) {
    const TENS: u64 = 100;
    let server = world.server(QUICK).await;
    let mut answers = dead_letters(&world, &server, TENS).await;
    world.scenario(json!({ "whatsapp": { "latencyMs": 20 } }));
    let client = server.client();
    let all = json!({ "filter": {} });
    let asked = async { client.try_post("/v1/dead-letters/replay", &[], &all).await };
    let killed = async {
        eventually(LONG, "it has begun", async || {
            let causes = client.get("/v1/dead-letters/causes").await.ok();
            (causes["items"][0]["count"] != 10 * TENS).then_some(())
        })
        .await;
        server.kill().await;
    };
    let (asked, ()) = tokio::join!(asked, killed);
    assert!(asked.is_err(), "the call came to its end: the test has shown nothing");
    let server = world.server(QUICK).await;
    let rest = replay(&server, all.clone()).await["replayed"].as_u64().unwrap();
    assert!((1..10 * TENS).contains(&rest), "some were on their way, and some were not: {rest}");
    server.settled().await;
    assert_eq!(replay(&server, all).await["replayed"], 0, "nothing is left");
    let ledger = server.ledger().await;
    let replays: HashSet<_> =
        ledger.iter().filter_map(|found| found["resolution"]["replayedAs"].as_str().map(str::to_owned)).collect();
    assert_eq!((replays.len() as u64, ledger.len() as u64), (10 * TENS, 20 * TENS), "each has one");
    let of_replays = ledger.iter().filter(|found| replays.contains(found["id"].as_str().unwrap()));
    for found in of_replays {
        let status = found["status"].as_str().unwrap();
        assert!(matches!(status, "sent" | "uncertain"), "{found:#}");
        answers.push(found.clone());
    }
    world.assert_books(&server, &answers).await;
}

/// The line breaks at the commit: nobody hears whether it happened, and asking again finds out.
async fn the_commit_of_a_replay_is_cut_off(cut: Cut) {
    let Some(world) = World::postgres().await else { return };
    let database = world.database.as_ref().unwrap();
    let line = Proxy::start(database.server()).await;
    let server = world.server(&[("DATABASE_URL", &database.url_at(line.address))]).await;
    let answers = dead_letters(&world, &server, 1).await;
    let all = json!({ "filter": {} });
    line.arm(cut);
    server.post("/v1/dead-letters/replay", &all).await.problem(503);
    assert!(line.has_cut());
    let again = eventually(LONG, "the repeat is answered", async || {
        let answer = server.post("/v1/dead-letters/replay", &all).await;
        (answer.status == 200).then(|| answer.ok())
    })
    .await;
    assert_eq!(again["replayed"], if cut == Cut::AfterCommit { 0 } else { 10 });
    server.settled().await;
    assert_eq!(server.ledger().await.len(), 20);
    assert_eq!(world.simulator.taken_count(), 10);
    world.assert_books(&server, &answers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_was_not_heard_of_is_not_done_twice() {
    the_commit_of_a_replay_is_cut_off(Cut::AfterCommit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_never_arrived_is_done_by_the_next_call() {
    the_commit_of_a_replay_is_cut_off(Cut::BeforeCommit).await;
}

async fn what_nobody_knew_is_settled_by_hand(world: World) {
    let server = world.server(&[]).await;
    let rule = json!({ "fault": "reset_after_read", "times": 1 });
    let rules = json!({ PHONE: rule, "+79990000002": rule, "+79990000003": rule });
    world.scenario(json!({ "whatsapp": { "recipients": rules } }));
    let mut ids = Vec::new();
    for phone in [PHONE, "+79990000002", "+79990000003"] {
        let unknown = server.send(&whatsapp(phone)).await.ok();
        assert_eq!(unknown["status"], "uncertain", "{unknown:#}");
        ids.push(unknown["id"].clone());
    }
    assert_eq!(server.get("/v1/uncertain?cause=ambiguous").await.ok()["items"].as_array().unwrap().len(), 3);
    let path = |id: &Value| format!("/v1/notifications/{}/resolve", id.as_str().unwrap());
    let sent = json!({ "status": "sent", "reason": "клиент ответил" });
    let settled = server.post(&path(&ids[0]), &sent).await.ok();
    assert_eq!((&settled["status"], &settled["settled"]["reason"]), (&json!("sent"), &json!("клиент ответил")));
    assert_eq!(settled["error"], Value::Null);
    let again = server.post(&path(&ids[0]), &sent).await.problem(409);
    assert_eq!(again["type"], "urn:vestnik:not-uncertain");
    let body =
        json!({ "filter": { "channel": "whatsapp" }, "status": "failed", "reason": "нет в журнале", "limit": 1 });
    let first = server.post("/v1/uncertain/resolve", &body).await.ok();
    assert_eq!(first["changed"], 1);
    let rest = with(body, json!({ "cursor": first["nextCursor"] }));
    let rest = server.post("/v1/uncertain/resolve", &rest).await.ok();
    assert_eq!((&rest["changed"], &rest["nextCursor"]), (&json!(1), &Value::Null));
    assert_eq!(replay(&server, json!({ "filter": { "cause": "ambiguous" } })).await["replayed"], 2);
    server.settled().await;
    let report = world.assert_books(&server, &[]).await;
    assert_eq!((&report["sent"], &report["failed"], &report["uncertain"]), (&json!(3), &json!(2), &json!(0)));
    assert_eq!(report["deadLetters"], 0);
}

async fn calls_go_on_where_the_last_one_stopped(world: World) {
    let server = world.server(&[]).await;
    let answers = dead_letters(&world, &server, 1).await;
    let mut body = json!({ "filter": { "cause": "recipient" }, "limit": 4, "ratePerSecond": 100.0 });
    let mut counts = Vec::new();
    loop {
        let done = replay(&server, body.clone()).await;
        counts.push(done["replayed"].as_u64().unwrap());
        if done["nextCursor"].is_null() {
            break;
        }
        body["cursor"] = done["nextCursor"].clone();
    }
    assert_eq!(counts, [4, 4, 2]);
    server.settled().await;
    let ledger = server.ledger().await;
    assert_eq!(ledger.iter().filter(|found| found["status"] == "sent").count(), 10);
    world.assert_books(&server, &answers).await;
}

async fn who_may_and_what_is_wrong_is_said(world: World) {
    let server = world.server(&[]).await;
    let failed = dead_letters(&world, &server, 1).await;
    let (first, second) = (&failed[0]["id"], &failed[1]["id"]);
    let path = "/v1/dead-letters/replay";
    for (body, pointer) in [
        (json!({}), ""),
        (json!({ "ids": [first], "filter": {} }), ""),
        (json!({ "ids": [] }), "/ids"),
        (json!({ "ids": [first, second], "recipient": PHONE }), "/recipient"),
        (json!({ "filter": {}, "ratePerSecond": 0 }), "/ratePerSecond"),
        (json!({ "filter": {}, "limit": 0 }), "/limit"),
        (json!({ "filter": {}, "cursor": "nonsense" }), "/cursor"),
        (json!({ "filter": { "templateId": "a b" } }), "/filter/templateId"),
        (json!({ "filter": { "phone": "1" } }), "/filter/phone"),
        (json!({ "ids": [first], "templateId": "nothing" }), "/templateId"),
    ] {
        let problem = server.post(path, &body).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem:#}");
    }
    let no_reason = json!({ "ids": [first], "reason": " " });
    let problem = server.post("/v1/dead-letters/discard", &no_reason).await.problem(422);
    assert_eq!(problem["errors"][0]["pointer"], "/reason");
    server.get("/v1/dead-letters?limit=0").await.problem(422);
    let nobody = "/v1/notifications/0197a2b4-6c1e-7d3f-8a90-1b2c3d4e5f60/resolve";
    server.post(nobody, &json!({ "status": "sent", "reason": "x" })).await.problem(404);
    server.post(nobody, &json!({ "status": "read", "reason": "x" })).await.problem(422);
    assert_eq!(server.get("/v1/dead-letters").await.ok()["items"].as_array().unwrap().len(), 10, "nothing was changed");
    if world.database.is_none() {
        // A key is made beside a server on PostgreSQL only.
        return;
    }
    let (_, reads) = world.new_key("reader", "read").await;
    let (_, manages) = world.new_key("manager", "manage").await;
    let body = json!({ "ids": [first] });
    eventually(LONG, "keys are wanted", async || (server.get("/v1/dead-letters").await.status == 401).then_some(()))
        .await;
    server.with_key(&reads).get("/v1/dead-letters/causes").await.ok();
    for path in ["/v1/dead-letters/replay", "/v1/dead-letters/discard", "/v1/uncertain/resolve"] {
        let body = if path.ends_with("replay") {
            body.clone()
        } else {
            with(body.clone(), json!({ "reason": "x", "status": "sent" }))
        };
        let body = if path.ends_with("discard") { json!({ "ids": [first], "reason": "x" }) } else { body };
        server.with_key(&reads).post(path, &body).await.problem(403);
    }
    let done = server.with_key(&manages).post(path, &body).await.ok();
    assert_eq!(done["replayed"], 1);
    let shown = server.with_key(&reads).find(first).await;
    assert_eq!(shown["resolution"]["by"], "key manager");
}

async fn an_export_is_whole_and_harmless(world: World) {
    let server = world.server(&[]).await;
    refuse(&world);
    let hostile = with(whatsapp(PHONE), json!({ "externalId": "=HYPERLINK(\"http://x\",\"y\")" }));
    let failed = server.send(&hostile).await.ok();
    let csv = server.get("/v1/dead-letters/export").await;
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    let text = String::from_utf8(csv.body.to_vec()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("id,since,channel,account,recipient,cause,code,detail,"), "{text}");
    assert!(lines[1].starts_with(failed["id"].as_str().unwrap()) && lines[1].contains(&format!(",{PHONE},")), "{text}");
    assert!(lines[1].contains("\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""), "{text}");
    world.scenario(json!({}));
    dead_letters(&world, &server, 60).await;
    let lines = server.get("/v1/dead-letters/export?format=ndjson&cause=recipient").await;
    let text = String::from_utf8(lines.body.to_vec()).unwrap();
    let ids: HashSet<_> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 601);
    let none = server.get("/v1/dead-letters/export?cause=nothing").await;
    assert_eq!(none.body.iter().filter(|byte| **byte == b'\n').count(), 1, "the names of the columns");
    server.get("/v1/dead-letters/export?format=pdf").await.problem(422);
}

async fn the_commands_do_the_same(world: World) {
    let server = world.server(&[]).await;
    let failed = dead_letters(&world, &server, 1).await;
    let id = |n: usize| failed[n]["id"].as_str().unwrap();
    let run = async |args: &[&str]| world.run(&[args, &["--url", &server.url]].concat()).await;
    let words = |output: &std::process::Output| String::from_utf8(output.stdout.clone()).unwrap();

    let causes = words(&run(&["dead-letters", "causes"]).await);
    assert!(causes.contains("10  whatsapp.main         recipient 131026"), "{causes}");
    assert_eq!(words(&run(&["dead-letters", "list", "--limit", "3"]).await).lines().count(), 4);
    assert_eq!(words(&run(&["dead-letters", "export"]).await).lines().count(), 11);
    let nothing = run(&["dead-letters", "replay"]).await;
    assert_eq!(nothing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("--all"), "{nothing:?}");
    let trial = run(&["dead-letters", "replay", "--all", "--dry-run"]).await;
    assert_eq!(words(&trial), "10 dead letters to send again\n");
    let unasked = run(&["dead-letters", "replay", "--all"]).await;
    assert_eq!(unasked.status.code(), Some(2), "nobody is there to ask");
    let done = run(&["dead-letters", "replay", id(0), "--to", "+7 999 000-00-07", "--yes"]).await;
    assert_eq!(words(&done), "1 dead letter put on the way again\n");
    let discarded = run(&["dead-letters", "discard", id(1), id(0), "--reason", "old", "--yes"]).await;
    assert_eq!(discarded.status.code(), Some(1), "one of them was none");
    assert!(words(&discarded).starts_with("1 dead letter discarded\n1 no dead letters"), "{discarded:?}");
    let shown = words(&run(&["notifications", "show", id(1)]).await);
    assert!(shown.contains("resolved   discarded by local at "), "{shown}");
    let again = run(&["dead-letters", "replay", id(1), "--yes"]).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(words(&again).contains("1 not, discarded: it was discarded"), "{again:?}");
    let all = run(&["dead-letters", "replay", "--cause", "recipient", "--rate", "1000", "--yes", "--json"]).await;
    let all: Value = serde_json::from_slice(&all.stdout).unwrap();
    assert_eq!((&all["replayed"], &all["refused"]), (&json!(8), &json!([])));
    server.settled().await;

    let rules = json!({ "42": { "fault": "reset_after_read", "times": 1 } });
    world.scenario(json!({ "telegram": { "recipients": rules } }));
    let unknown = server.send(&telegram("42")).await.ok();
    assert!(words(&run(&["uncertain", "list"]).await).starts_with(unknown["id"].as_str().unwrap()));
    let settled = run(&["uncertain", "resolve", "failed", "--all", "--reason", "not there", "--yes"]).await;
    assert_eq!(words(&settled), "1 notification settled as failed\n");
    let shown = words(&run(&["notifications", "show", unknown["id"].as_str().unwrap()]).await);
    assert!(shown.contains("settled    by local at ") && shown.contains(": not there"), "{shown}");
    let report = world.assert_books(&server, &[]).await;
    assert_eq!((&report["deadLetters"], &report["uncertain"]), (&json!(1), &json!(0)));
}
