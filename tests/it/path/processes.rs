//! Several services on one PostgreSQL ledger: what one leaves, another settles.

use rustix::process::Signal;
use serde_json::json;

use super::crashes::{Burst, assert_interrupted_are_right, slow_providers};
use super::server::{telegram, whatsapp, with};
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
