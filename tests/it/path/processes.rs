//! Several services on one PostgreSQL ledger: what one leaves, another settles; what one accepts, others are told.
#![expect(clippy::disallowed_methods, reason = "a connection lives as long as its test")]

use std::collections::BTreeSet;

use futures::{StreamExt as _, stream};
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, NoTls};

use super::crashes::{Burst, assert_interrupted_are_right, slow_providers};
use super::server::{Server, telegram, whatsapp, with};
use super::world::{QUICK, World};
use crate::support::eventually::{LONG, eventually};
use crate::support::postgres::connect;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_settles_what_a_dead_one_had_open() {
    let Some(world) = World::postgres().await else { return };
    slow_providers(&world);
    let (survivor, doomed) = (world.server(QUICK).await, world.server(QUICK).await);
    let burst = Burst::start(&[survivor.client(), doomed.client()], 0, 200, 40);
    eventually(LONG, "both are busy", async || (world.simulator.taken_count() >= 60).then_some(())).await;
    doomed.kill().await;
    let answers = burst.answers().await;
    survivor.settled().await;
    let interrupted = assert_interrupted_are_right(&survivor.ledger().await);
    assert!(interrupted > 0, "no send was interrupted: the test has shown nothing");
    assert!(survivor.log().contains("settled what a lost process left"), "{}", survivor.log());
    world.assert_books(&survivor, &answers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_frozen_beyond_its_lease_sends_nothing_twice() {
    let Some(world) = World::postgres().await else { return };
    slow_providers(&world);
    let (survivor, frozen) = (world.server(QUICK).await, world.server(QUICK).await);
    let burst = Burst::start(&[frozen.client()], 0, 200, 100);
    eventually(LONG, "it is busy", async || (world.simulator.taken_count() >= 30).then_some(())).await;
    frozen.signal(Signal::STOP);
    eventually(LONG, "the survivor has settled what was open", async || {
        survivor.log().contains("settled what a lost process left").then_some(())
    })
    .await;
    survivor.settled().await;
    frozen.signal(Signal::CONT);
    let answers = burst.answers().await;
    survivor.settled().await;
    // It has noticed, and serves again under a new epoch.
    let body = with(telegram("77"), json!({ "externalId": "after" }));
    let after = eventually(LONG, "the frozen one serves again", async || {
        let answer = frozen.send(&body).await;
        (answer.status == 200).then(|| answer.ok()).filter(|answer| answer["status"] == "sent")
    })
    .await;
    let before = survivor.send(&whatsapp("+79991234567")).await.ok();
    assert!(frozen.log().contains("lost the lease"), "{}", frozen.log());
    world.assert_books(&survivor, &[answers, vec![after, before]].concat()).await;
}

/// What a dead process held locked cannot be settled yet; that is no reason for a living one to lose its lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_settle_what_is_locked_keeps_its_own_lease() {
    let Some(world) = World::postgres().await else { return };
    slow_providers(&world);
    let (survivor, doomed) = (world.server(QUICK).await, world.server(QUICK).await);
    let burst = Burst::start(&[doomed.client()], 0, 200, 40);
    eventually(LONG, "it is busy", async || (world.simulator.taken_count() >= 60).then_some(())).await;
    doomed.kill().await;
    let answers = burst.answers().await;
    let holder = connect(&world.database.as_ref().unwrap().url()).await.unwrap();
    holder.batch_execute("BEGIN; SELECT 1 FROM work WHERE state = 4 FOR UPDATE").await.unwrap();
    eventually(LONG, "the survivor has tried", async || {
        survivor.log().contains("could not look for lost processes").then_some(())
    })
    .await;
    survivor.send(&with(telegram("77"), json!({ "externalId": "meanwhile" }))).await.ok();
    holder.batch_execute("ROLLBACK").await.unwrap();
    survivor.settled().await;
    assert!(assert_interrupted_are_right(&survivor.ledger().await) > 0, "no send was interrupted");
    assert!(!survivor.log().contains("lost the lease"), "{}", survivor.log());
    world.assert_books(&survivor, &answers).await;
}

/// Only accepts: others have to hand over and send. Its lease is as long as in real life.
async fn accepting(world: &World) -> Server {
    Server::start_with(world, &[], Some("127.0.0.1:0"), &["--roles", "api"]).await
}

/// What processes say to each other: each says its own name.
struct Words {
    client: tokio_postgres::Client,
    heard: mpsc::UnboundedReceiver<String>,
}

impl Words {
    async fn of(world: &World) -> Words {
        let url = world.database.as_ref().unwrap().url();
        let (client, mut connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        let (hears, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(word) = message {
                    let _ = hears.send(word.payload().to_owned());
                }
            }
        });
        client.batch_execute("LISTEN vestnik_due").await.unwrap();
        Words { client, heard }
    }

    async fn next(&mut self, why: &str) -> String {
        let word = tokio::time::timeout(LONG, self.heard.recv()).await;
        word.unwrap_or_else(|_| panic!("nobody was told: {why}")).unwrap()
    }

    /// All that was said by now.
    async fn all(&mut self) -> BTreeSet<String> {
        self.client.batch_execute("NOTIFY vestnik_due, 'the end'").await.unwrap();
        let mut all = BTreeSet::new();
        loop {
            match self.next("its own word").await {
                word if word == "the end" => return all,
                word => all.insert(word),
            };
        }
    }
}

/// Whoever is alone says nothing; else others hear of everything that they could do something about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_told_what_one_accepts() {
    let Some(world) = World::postgres().await else { return };
    let mut words = Words::of(&world).await;
    let later = |body| with(body, json!({ "scheduledAt": "2099-01-01T10:00:00Z" }));
    let alone = accepting(&world).await;
    assert_eq!(alone.send(&later(telegram("42"))).await.status, 202);
    alone.stop().await;
    let (one, _other) = (accepting(&world).await, accepting(&world).await);
    let accepted = one.send(&later(telegram("43"))).await;
    assert_eq!(accepted.status, 202, "{}", accepted.json());
    let name = words.next("one was accepted").await;
    assert!(words.all().await.iter().all(|word| *word == name), "whoever was alone spoke, too");

    let path = format!("/v1/notifications/{}", accepted.json()["id"].as_str().unwrap());
    one.patch(&path, &json!({ "scheduledAt": "2099-01-02T10:00:00Z" })).await.ok();
    assert_eq!(words.next("one was moved").await, name);
    let recipients = [json!({ "recipient": "+79991234567" })];
    let bulk = json!({ "channel": "whatsapp", "text": "Sale!", "recipients": recipients });
    let batch = one.post("/v1/notifications/bulk", &later(bulk)).await;
    assert_eq!(batch.status, 202, "{}", batch.json());
    assert_eq!(words.next("a batch was accepted").await, name);
    let batch = format!("/v1/batches/{}", batch.json()["batchId"].as_str().unwrap());
    for change in ["pause", "resume", "cancel"] {
        one.post(&format!("{batch}/{change}"), &json!({})).await.ok();
        assert_eq!(words.next(change).await, name);
    }
}

/// Who hands over keeps a connection to hear by, and makes another when it is gone; who only accepts needs none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hands_over_hears_and_sends_what_another_accepts() {
    let Some(world) = World::postgres().await else { return };
    let (accepts, sends) = (accepting(&world).await, world.server(&[]).await);
    let ledger = connect(&world.database.as_ref().unwrap().url()).await.unwrap();
    let ears = async |do_with_them: &str| {
        let query = format!(
            "SELECT {do_with_them} FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        );
        ledger.query(&query, &[]).await.unwrap().len()
    };
    for text in ["One", "Two"] {
        eventually(LONG, "one hears", async || (ears("pid").await == 1).then_some(())).await;
        let body = with(telegram("42"), json!({ "mode": "async", "text": text }));
        let accepted = accepts.send(&body).await;
        assert_eq!(accepted.status, 202, "{}", accepted.json());
        sends.settled().await;
        assert_eq!(accepts.find(&accepted.json()["id"]).await["status"], "sent");
        assert_eq!(ears("pg_terminate_backend(pid)").await, 1);
    }
    world.assert_books(&sends, &[]).await;
}

/// A relay in a process of its own would hand over to a queue that nobody else sees.
#[tokio::test]
async fn without_a_broker_relay_and_worker_go_together() {
    let world = World::sqlite().await;
    for roles in ["api,relay", "relay", "worker", "api,worker"] {
        let output = world.run(&["serve", "--roles", roles, "--listen", "127.0.0.1:0"]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("`relay` and `worker` go together") && said.contains("hint: "), "{said}");
    }
}
