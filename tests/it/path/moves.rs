//! Times to leave at: how they are given, moved and shown, and what a `kill -9` or another call in the middle of a move
//! leaves behind.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{Timestamp, TimestampRound, Unit};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use vestnik::domain::{Clock as _, SystemClock};

use super::crashes::{seed, throw};
use super::on_both_ledgers;
use super::server::{Client, Server, whatsapp, with};
use super::world::{QUICK, World};
use crate::support::eventually::{LONG, eventually};
use crate::support::postgres::connect;

on_both_ledgers!(
    two_moves_at_the_same_time_leave_one_time,
    killed_around_a_move_it_is_at_one_time_or_the_other,
    a_pause_during_a_move_holds,
    what_was_moved_shows_its_time_and_how_late_it_was,
    one_that_was_moved_by_itself_leaves_by_itself,
    times_may_have_an_offset_a_zone_or_that_of_the_account,
    what_is_no_time_to_leave_at_is_refused,
    a_repeated_call_gets_its_answer_though_its_times_have_passed,
    what_may_not_leave_any_more_expires,
    a_running_batch_has_a_pace_and_a_paused_one_has_none,
);

/// So much later than now, in whole milliseconds: the ledger keeps no more than microseconds.
fn after(wait: Duration) -> Timestamp {
    (SystemClock.now() + wait).round(TimestampRound::new().smallest(Unit::Millisecond)).unwrap()
}

const HOUR: Duration = Duration::from_secs(3600);

/// A batch of so many that leaves at `at`.
async fn scheduled(client: &Client, count: usize, at: Timestamp) -> Value {
    let recipients: Vec<_> = (0..count).map(|n| json!({ "recipient": format!("+7999{n:07}") })).collect();
    let body = json!({
        "channel": "whatsapp", "text": "Sale!", "recipients": recipients, "scheduledAt": at.to_string(),
    });
    let answer = client.post("/v1/notifications/bulk", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.json());
    answer.json()
}

fn path(batch: &Value, rest: &str) -> String {
    format!("/v1/batches/{}{rest}", batch["batchId"].as_str().unwrap())
}

fn to(at: Timestamp) -> Value {
    json!({ "scheduledAt": at.to_string() })
}

fn time(of: &Value) -> Timestamp {
    of.as_str().unwrap_or_else(|| panic!("no time: {of}")).parse().unwrap()
}

async fn finished(client: &Client, batch: &Value) -> Value {
    eventually(LONG, "the batch is over", async || {
        let batch = client.get(&path(batch, "")).await.ok();
        (batch["inFlight"] == 0).then_some(batch)
    })
    .await
}

/// The times at which anything becomes due, as the ledger has them.
async fn due_times(world: &World) -> BTreeSet<Timestamp> {
    const QUERY: &str = "SELECT DISTINCT due_at FROM due";
    let micros: Vec<i64> = match &world.database {
        Some(database) => {
            let client = connect(&database.url()).await.unwrap();
            client.query(QUERY, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
        }
        None => {
            let db = rusqlite::Connection::open(world.data_dir().join("ledger.sqlite3")).unwrap();
            db.busy_timeout(LONG).unwrap();
            let mut statement = db.prepare(QUERY).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        }
    };
    micros.into_iter().map(|micros| Timestamp::from_microsecond(micros).unwrap()).collect()
}

async fn two_moves_at_the_same_time_leave_one_time(world: World) {
    let server = world.server(&[]).await;
    let client = server.client();
    let batch = scheduled(&client, 3_000, after(HOUR)).await;
    for round in 2..6 {
        let (one, other) = (after(HOUR * round), after(HOUR * round * 10));
        let patch = async |at| client.patch(&path(&batch, ""), &to(at)).await.ok();
        tokio::join!(patch(one), patch(other));
        let at = time(&client.get(&path(&batch, "")).await.ok()["scheduledAt"]);
        assert!([one, other].contains(&at));
        assert_eq!(due_times(&world).await, BTreeSet::from([at]), "the batch was split");
    }
    let soon = after(Duration::from_secs(1));
    client.patch(&path(&batch, ""), &to(soon)).await.ok();
    assert_eq!(finished(&client, &batch).await["settled"], json!({ "sent": 3_000 }));
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn killed_around_a_move_it_is_at_one_time_or_the_other(world: World) {
    let seed = seed();
    let mut server = world.server(QUICK).await;
    let mut held = after(HOUR);
    let batch = scheduled(&server.client(), 4_000, held).await;
    for round in 0..4 {
        let at = after(HOUR * (2 + u32::try_from(round).unwrap()));
        let (client, path) = (server.client(), path(&batch, ""));
        let mut moving = JoinSet::new();
        moving.spawn(async move {
            client.ask("PATCH", &path, &[("content-type", "application/json")], to(at).to_string()).await
        });
        let then = Instant::now() + Duration::from_micros(throw(seed, round, 40_000));
        eventually(LONG, "the moment has come", async || (Instant::now() >= then).then_some(())).await;
        server.kill().await;
        let answer = moving.join_next().await.unwrap().unwrap();
        server = world.server(QUICK).await;
        let found = server.get(&self::path(&batch, "")).await.ok();
        let now = time(&found["scheduledAt"]);
        assert!(now == at || (now == held && answer.is_err()), "{found:#}");
        assert_eq!(due_times(&world).await, BTreeSet::from([now]), "the batch was split");
        assert_eq!(found["state"], "scheduled");
        held = now;
    }
    let client = server.client();
    client.post(&path(&batch, "/cancel"), &json!({})).await.ok();
    assert_eq!(finished(&client, &batch).await["settled"], json!({ "cancelled": 4_000 }));
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn a_pause_during_a_move_holds(world: World) {
    let server = world.server(&[]).await;
    let client = server.client();
    let batch = scheduled(&client, 3_000, after(HOUR)).await;
    for _ in 0..3 {
        let soon = after(Duration::from_secs(2));
        let (moving, pause) = (to(soon), path(&batch, "/pause"));
        let nothing = json!({});
        let path = path(&batch, "");
        let (moved, paused) = tokio::join!(client.patch(&path, &moving), client.post(&pause, &nothing));
        assert_eq!((moved.ok()["scheduledAt"].clone(), paused.status), (moving["scheduledAt"].clone(), 200));
        let found = client.get(&path).await.ok();
        assert_eq!((&found["state"], &found["scheduledAt"]), (&json!("paused"), &moving["scheduledAt"]));
        client.patch(&path, &to(after(HOUR))).await.ok();
        client.post(&self::path(&batch, "/resume"), &json!({})).await.ok();
    }
    assert_eq!(world.simulator.taken_count(), 0);
    client.post(&path(&batch, "/cancel"), &json!({})).await.ok();
    assert_eq!(finished(&client, &batch).await["settled"], json!({ "cancelled": 3_000 }));
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

/// What the program says as a client of this server.
async fn command_line(world: &World, server: &Server, arguments: &[&str]) -> String {
    let output = world.command(&[("VESTNIK_URL", &server.url)]).args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// How late it says it was, and how late that is by its attempt.
fn lateness(found: &Value) -> (Value, Value) {
    let late = time(&found["attempts"][0]["openedAt"]).duration_since(time(&found["scheduledAt"])).as_millis();
    (found["lateMs"].clone(), json!(late))
}

async fn what_was_moved_shows_its_time_and_how_late_it_was(world: World) {
    let server = world.server(&[]).await;
    let client = server.client();
    let batch = scheduled(&client, 2, after(Duration::from_secs(1000))).await;
    let body = with(whatsapp("+79990000009"), json!({ "scheduledAt": after(HOUR).to_string() }));
    let alone = client.post("/v1/notifications", &body).await.json();
    let soon = after(Duration::from_secs(1));
    client.patch(&path(&batch, ""), &to(soon)).await.ok();
    let one = format!("/v1/notifications/{}", alone["id"].as_str().unwrap());
    let moved = client.patch(&one, &to(soon)).await.ok();
    assert_eq!((&moved["scheduledAt"], &moved["dueAt"]), (&json!(soon), &json!(soon)));
    finished(&client, &batch).await;
    client.settled().await;
    for id in batch["messageIds"].as_array().unwrap().iter().chain([&alone["id"]]) {
        let found = client.find(id).await;
        assert_eq!((&found["status"], &found["scheduledAt"]), (&json!("sent"), &json!(soon)));
        let (said, is) = lateness(&found);
        assert_eq!(said, is, "{found:#}");
    }
    let shown = command_line(&world, &server, &["notifications", "show", alone["id"].as_str().unwrap()]).await;
    assert!(shown.contains(&format!("  scheduled  {soon}\n")), "{shown}");
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn one_that_was_moved_by_itself_leaves_by_itself(world: World) {
    let server = world.server(&[]).await;
    let client = server.client();
    let batch = scheduled(&client, 5, after(HOUR)).await;
    let one = |n: usize| format!("/v1/notifications/{}", batch["messageIds"][n].as_str().unwrap());
    client.patch(&one(0), &to(after(Duration::from_millis(500)))).await.ok();
    client.patch(&one(1), &to(after(HOUR * 3))).await.ok();
    eventually(LONG, "it left", async || (client.get(&one(0)).await.ok()["status"] == "sent").then_some(())).await;
    assert_eq!(world.simulator.taken_count(), 1);
    let soon = after(Duration::from_secs(1));
    client.patch(&path(&batch, ""), &to(soon)).await.ok();
    eventually(LONG, "the others left", async || {
        (client.get(&path(&batch, "")).await.ok()["inFlight"] == 1).then_some(())
    })
    .await;
    assert_eq!(client.get(&one(1)).await.ok()["status"], "scheduled");
    client.patch(&path(&batch, ""), &to(after(HOUR))).await.problem(409);
    client.post(&format!("{}/cancel", one(1)), &json!({})).await.ok();
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

const IN_MOSCOW: &[(&str, &str)] = &[("VESTNIK__WHATSAPP__MAIN__TIMEZONE", "Europe/Moscow")];

async fn times_may_have_an_offset_a_zone_or_that_of_the_account(world: World) {
    let server = world.server(IN_MOSCOW).await;
    let client = server.client();
    let batch = scheduled(&client, 1, after(HOUR)).await;
    let one = client.post("/v1/notifications", &with(whatsapp("+79990000001"), to(after(HOUR)))).await.json();
    let one = format!("/v1/notifications/{}", one["id"].as_str().unwrap());
    let given =
        ["2090-01-01T10:00:00+03:00", "2090-01-01T10:00[Europe/Moscow]", "2090-01-01T10:00", "2090-01-01 10:00"];
    let expected = json!("2090-01-01T07:00:00Z");
    for given in given {
        let body = json!({ "scheduledAt": given, "notAfter": "2090-01-01T10:30" });
        let answer = client.post("/v1/notifications", &with(whatsapp("+79990000001"), body.clone())).await;
        let accepted = answer.json();
        assert_eq!((answer.status, &accepted["scheduledAt"]), (202, &expected), "{accepted:#}");
        assert_eq!(accepted["notAfter"], "2090-01-01T07:30:00Z");
        client.post(&format!("/v1/notifications/{}/cancel", accepted["id"].as_str().unwrap()), &json!({})).await.ok();
        let bulk = json!({ "channel": "whatsapp", "text": "Hi", "recipients": [{ "recipient": "+79990000002" }] });
        let accepted = client.post("/v1/notifications/bulk", &with(bulk, body)).await.json();
        assert_eq!(client.get(&path(&accepted, "")).await.ok()["scheduledAt"], expected);
        client.post(&path(&accepted, "/cancel"), &json!({})).await.ok();
        for moved in [path(&batch, ""), one.clone()] {
            client.patch(&moved, &to(after(HOUR))).await.ok();
            let found = client.patch(&moved, &json!({ "scheduledAt": given })).await.ok();
            assert_eq!(found["scheduledAt"], expected, "{given}");
        }
    }
    let args = ["send", "--channel", "whatsapp", "--to", "+79990000003", "--text", "Hi"];
    let args = [&args[..], &["--scheduled", "2090-01-01 10:00", "--json"]].concat();
    let sent: Value = serde_json::from_str(&command_line(&world, &server, &args).await).unwrap();
    assert_eq!(sent["scheduledAt"], expected);
    client.post(&format!("/v1/notifications/{}/cancel", sent["id"].as_str().unwrap()), &json!({})).await.ok();
    client.post(&format!("{one}/cancel"), &json!({})).await.ok();
    client.post(&path(&batch, "/cancel"), &json!({})).await.ok();
    client.settled().await;
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn what_is_no_time_to_leave_at_is_refused(world: World) {
    let server = world.server(&[]).await;
    let client = server.client();
    let batch = scheduled(&client, 1, after(HOUR)).await;
    let limited = with(to(after(HOUR)), json!({ "notAfter": after(HOUR * 2).to_string() }));
    let one = client.post("/v1/notifications", &with(whatsapp("+79990000001"), limited)).await.json();
    let one = format!("/v1/notifications/{}", one["id"].as_str().unwrap());
    let bulk = json!({ "channel": "whatsapp", "text": "Hi", "recipients": [{ "recipient": "+79990000002" }] });
    let said = |problem: &Value| {
        format!("{} {}", problem["errors"][0]["pointer"].as_str().unwrap(), problem["detail"].as_str().unwrap())
    };
    let no_zone = "/scheduledAt 2090-01-01T10:00:00 has no time zone: add an offset, like +03:00, or set `timezone` of \
                   the account whatsapp.main";
    for (given, expected) in [
        ("tomorrow", "/scheduledAt `tomorrow` is no time: expected one like 2030-01-01T10:00:00+03:00"),
        ("2090-01-01T10:00", no_zone),
        ("2020-01-01T10:00:00Z", "/scheduledAt 2020-01-01T10:00:00Z has passed already: give a time to come"),
    ] {
        let at = json!({ "scheduledAt": given });
        for answer in [
            client.post("/v1/notifications", &with(whatsapp("+79990000001"), at.clone())).await,
            client.post("/v1/notifications/bulk", &with(bulk.clone(), at.clone())).await,
            client.post("/v1/notifications/auto", &with(bulk.clone(), at.clone())).await,
            client.patch(&one, &at).await,
            client.patch(&path(&batch, ""), &at).await,
        ] {
            let said = said(&answer.problem(422));
            assert!(said.starts_with(expected), "{said}");
        }
    }
    // All of it would expire.
    let at = after(HOUR);
    let expires = json!({ "scheduledAt": at.to_string(), "notAfter": at.to_string() });
    for (path, body) in [("/v1/notifications", whatsapp("+79990000001")), ("/v1/notifications/bulk", bulk.clone())] {
        let problem = client.post(path, &with(body, expires.clone())).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/notAfter");
    }
    let problem = client.patch(&one, &to(after(HOUR * 3))).await.problem(422);
    assert_eq!(problem["errors"][0]["pointer"], "/scheduledAt");
    // The clock of a client may be slow.
    let slow = json!({ "scheduledAt": (SystemClock.now() - Duration::from_secs(120)).to_string() });
    let sent = client.post("/v1/notifications", &with(whatsapp("+79990000003"), slow)).await;
    assert_eq!(sent.status, 202);
    client.post(&format!("{one}/cancel"), &json!({})).await.ok();
    client.post(&path(&batch, "/cancel"), &json!({})).await.ok();
    client.settled().await;
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn a_repeated_call_gets_its_answer_though_its_times_have_passed(world: World) {
    let server = world.server(&[]).await;
    let client = server.client();
    let limit = after(Duration::from_secs(2));
    let body = json!({
        "channel": "whatsapp", "text": "Hi", "recipients": [{ "recipient": "+79990000002" }],
        "notAfter": limit.to_string(),
    });
    let keyed = async || client.try_post("/v1/notifications/bulk", &[("idempotency-key", "k")], &body).await.unwrap();
    let first = keyed().await;
    assert_eq!(first.status, 202);
    eventually(LONG, "its time has passed", async || (SystemClock.now() > limit).then_some(())).await;
    let again = keyed().await;
    assert_eq!((again.status, again.json()), (202, first.json()));
    client.settled().await;
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn what_may_not_leave_any_more_expires(world: World) {
    let server = world.server(&[]).await;
    let client = server.client();
    let limit = after(Duration::from_secs(6));
    let body = json!({
        "channel": "whatsapp", "text": "Hi", "recipients": [{ "recipient": "+79990000002" }],
        "scheduledAt": after(Duration::from_secs(5)).to_string(), "notAfter": limit.to_string(),
    });
    let batch = client.post("/v1/notifications/bulk", &body).await.json();
    client.post(&path(&batch, "/pause"), &json!({})).await.ok();
    eventually(LONG, "its time has passed", async || (SystemClock.now() > limit).then_some(())).await;
    client.post(&path(&batch, "/resume"), &json!({})).await.ok();
    assert_eq!(finished(&client, &batch).await["settled"], json!({ "expired": 1 }));
    world.assert_books(&server, &[]).await;
    server.stop().await;
}

async fn a_running_batch_has_a_pace_and_a_paused_one_has_none(world: World) {
    const SLOWLY: &[(&str, &str)] =
        &[("VESTNIK__WHATSAPP__MAIN__LIMITS__PER_SECOND", "50"), ("VESTNIK__WHATSAPP__MAIN__LIMITS__BURST", "20")];
    let server = world.server(SLOWLY).await;
    let client = server.client();
    let batch = scheduled(&client, 3_000, after(Duration::ZERO)).await;
    let found = eventually(LONG, "its pace is known", async || {
        let found = client.get(&path(&batch, "")).await.ok();
        found["ratePerSecond"].is_number().then_some(found)
    })
    .await;
    assert!(found["secondsLeft"].is_number(), "{found:#}");
    let paused = client.post(&path(&batch, "/pause"), &json!({})).await.ok();
    assert!(paused["ratePerSecond"].is_null() && paused["secondsLeft"].is_null(), "{paused:#}");
    client.post(&path(&batch, "/cancel"), &json!({})).await.ok();
    finished(&client, &batch).await;
    world.assert_books(&server, &[]).await;
    server.stop().await;
}
