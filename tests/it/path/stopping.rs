//! How a send, and the service, end: whatever the caller or the service manager does in the middle.

use rustix::process::Signal;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::on_both_ledgers;
use super::server::{telegram, whatsapp, with};
use super::world::World;
use crate::support::eventually::{LONG, eventually};

on_both_ledgers!(
    a_caller_that_hangs_up_stops_nothing,
    a_stop_lets_what_runs_end,
    an_idle_service_stops_at_once,
    a_second_signal_stops_hard,
);

async fn a_caller_that_hangs_up_stops_nothing(world: World) {
    world.scenario(json!({ "whatsapp": { "latencyMs": 700 } }));
    let server = world.server(&[]).await;
    let body = whatsapp("+79991234567").to_string();
    let mut caller = server.connect().await.unwrap();
    let head = format!(
        "POST /v1/notifications HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    caller.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    eventually(LONG, "the provider has it", async || (world.simulator.taken_count() == 1).then_some(())).await;
    drop(caller);
    let sent = eventually(LONG, "it is recorded", async || {
        let ledger = server.ledger().await;
        (ledger[0]["status"] == "sent").then(|| ledger[0].clone())
    })
    .await;
    world.assert_books(&server, &[sent]).await;

    // Who hangs up before the request is whole has asked nothing.
    let mut caller = server.connect().await.unwrap();
    caller.write_all(format!("{head}{}", &body[..body.len() / 2]).as_bytes()).await.unwrap();
    drop(caller);
    server.send(&telegram("42")).await.ok();
    let report = world.assert_books(&server, &[]).await;
    assert_eq!(report["accepted"], 2);
}

async fn a_stop_lets_what_runs_end(world: World) {
    world.scenario(json!({ "whatsapp": { "latencyMs": 1500 }, "telegram": { "latencyMs": 1500 } }));
    let mut server = world.server(&[]).await;
    let client = server.client();
    let bodies = [whatsapp("+79991234567"), telegram("42")];
    let sends = bodies.map(|body| {
        let client = client.clone();
        async move { client.send(&body).await.ok() }
    });
    let stopping = async {
        eventually(LONG, "the providers have them", async || (world.simulator.taken_count() == 2).then_some(())).await;
        server.signal(Signal::TERM);
        eventually(LONG, "nobody is let in any more", async || server.connect().await.is_err().then_some(())).await;
    };
    let (answers, ()) = tokio::join!(futures::future::join_all(sends), stopping);
    for answer in &answers {
        assert_eq!(answer["status"], "sent", "the answer still came");
    }
    let status = server.ended().await;
    assert_eq!(status.code(), Some(0), "{}", server.log());
    let again = world.server(&[]).await;
    assert!(!again.log().contains("lost process"), "a clean end leaves nothing to settle: {}", again.log());
    world.assert_books(&again, &answers).await;
}

async fn an_idle_service_stops_at_once(world: World) {
    // With the default grace of 30 s: it must not be needed.
    let mut server = world.server(&[]).await;
    let sent = server.send(&telegram("42")).await.ok();
    // A connection that is kept and not used, and one that was never used.
    let _silent = server.connect().await.unwrap();
    server.signal(Signal::TERM);
    let status = tokio::time::timeout(std::time::Duration::from_secs(15), server.ended()).await.expect("at once");
    assert_eq!(status.code(), Some(0), "{}", server.log());
    let again = world.server(&[]).await;
    world.assert_books(&again, &[sent]).await;
}

async fn a_second_signal_stops_hard(world: World) {
    world.scenario(json!({ "telegram": { "next": [{ "fault": "hang" }] } }));
    let mut server = world.server(super::world::QUICK).await;
    let client = server.client();
    let body = with(telegram("42"), json!({ "deadlineMs": 45000 }));
    let send = async move { client.try_post("/v1/notifications", &[], &body).await.is_err() };
    let stopping = async {
        eventually(LONG, "the provider has it", async || (world.simulator.taken_count() == 1).then_some(())).await;
        server.signal(Signal::TERM);
        eventually(LONG, "nobody is let in any more", async || server.connect().await.is_err().then_some(())).await;
        server.signal(Signal::TERM);
        tokio::time::timeout(std::time::Duration::from_secs(10), server.ended()).await.expect("at once").code()
    };
    let (was_cut_off, code) = tokio::join!(send, stopping);
    assert!(was_cut_off);
    assert_eq!(code, Some(1), "it says that something was cut off");
    let again = world.server(super::world::QUICK).await;
    again.settled().await;
    assert_eq!(again.ledger().await[0]["status"], "uncertain");
    world.assert_books(&again, &[]).await;
}
