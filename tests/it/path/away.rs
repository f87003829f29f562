//! The ledger goes away in the middle of a send, and comes back.
#![expect(clippy::disallowed_methods, reason = "the line to the ledger lives and dies with its test")]

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::server::{telegram, whatsapp, with};
use super::world::World;
use crate::support::eventually::{LONG, eventually};
use crate::support::proxy::{Cut, Proxy};

/// A line to PostgreSQL that can fall silent: nothing is lost, nothing passes.
struct Line {
    address: SocketAddr,
    passes: watch::Sender<bool>,
}

impl Line {
    async fn start(server: (String, u16)) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (passes, watching) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(pass(from_client, to_server, watching.clone()));
                tokio::spawn(pass(from_server, to_client, watching.clone()));
            }
        });
        Line { address, passes }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut passes: watch::Receiver<bool>) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if passes.wait_for(|passes| *passes).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_is_recorded_when_the_ledger_is_back() {
    let Some(world) = World::postgres().await else { return };
    let slow = json!({ "latencyMs": 1000 });
    world.scenario(json!({ "whatsapp": slow.clone(), "telegram": slow }));
    let database = world.database.as_ref().unwrap();
    let line = Line::start(database.server()).await;
    let url = database.url_at(line.address);
    let server = world.server(&[("DATABASE_URL", &url), ("VESTNIK__LEDGER__CALL_TIMEOUT_MS", "1000")]).await;
    let bodies = [whatsapp("+79991234567"), telegram("42")].map(|body| with(body, json!({ "deadlineMs": 3000 })));
    let calls = bodies.each_ref().map(|body| server.send(body));
    let falling_silent = async {
        eventually(LONG, "the providers have both", async || (world.simulator.taken_count() == 2).then_some(())).await;
        line.passes.send_replace(false);
    };
    let (answers, ()) = tokio::join!(futures::future::join_all(calls), falling_silent);
    for answer in answers {
        let problem = answer.problem(503);
        assert!(problem["detail"].as_str().unwrap().contains("may have happened"), "{problem:#}");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    // A new send is refused, and nothing leaves.
    server.send(&with(whatsapp("+79991234568"), json!({ "deadlineMs": 500 }))).await.problem(503);
    assert_eq!(server.get("/health/ready").await.status, 503);
    assert_eq!(server.get("/health/live").await.status, 200);
    assert_eq!(world.simulator.taken_count(), 2);

    line.passes.send_replace(true);
    eventually(LONG, "both are recorded", async || {
        let page = server.get("/v1/notifications?status=sent").await;
        (page.status == 200 && page.json()["items"].as_array()?.len() == 2).then_some(())
    })
    .await;
    server.settled().await;
    eventually(LONG, "it is ready", async || (server.get("/health/ready").await.status == 200).then_some(())).await;
    let after = server.send(&whatsapp("+79991234569")).await.ok();
    world.assert_books(&server, &[after]).await;
}

/// The commit that is cut off is the one that accepts, or the one that records: whichever comes next.
async fn a_commit_is_cut_off(cut: Cut, in_mid_send: bool) {
    let Some(world) = World::postgres().await else { return };
    world.scenario(json!({ "whatsapp": { "latencyMs": 700 } }));
    let database = world.database.as_ref().unwrap();
    let line = Proxy::start(database.server()).await;
    let url = database.url_at(line.address);
    // The lease is not renewed meanwhile: no other commit is on its way.
    let server = world.server(&[("DATABASE_URL", &url)]).await;
    let body = whatsapp("+79991234567");
    let arming = async {
        if in_mid_send {
            eventually(LONG, "the provider has it", async || (world.simulator.taken_count() == 1).then_some(())).await;
        }
        line.arm(cut);
    };
    let (answer, ()) = if in_mid_send {
        tokio::join!(server.send_with_key("one", &body), arming)
    } else {
        arming.await;
        (server.send_with_key("one", &body).await, ())
    };
    assert!(line.has_cut());
    let mut answers = Vec::new();
    if in_mid_send {
        // It was recorded, on another connection or by the commit nobody heard of: the caller notices nothing.
        answers.push(answer.ok());
    } else {
        answer.problem(503);
        assert_eq!(world.simulator.taken_count(), 0, "what may not be in the ledger does not leave");
    }
    let repeated = eventually(LONG, "the repeat is answered", async || {
        let answer = server.send_with_key("one", &body).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    let repeated = repeated.ok();
    if cut == Cut::AfterCommit && !in_mid_send {
        assert_eq!((&repeated["status"], &repeated["error"]["code"]), (&json!("failed"), &json!("ledger")));
        assert_eq!(repeated["error"]["retryable"], true);
    } else {
        assert_eq!(repeated["status"], "sent");
    }
    answers.push(repeated);
    server.settled().await;
    assert!(world.simulator.taken_count() <= 1);
    world.assert_books(&server, &answers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_never_arrived_is_written_again() {
    a_commit_is_cut_off(Cut::BeforeCommit, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_whose_answer_was_lost_is_not_written_twice() {
    a_commit_is_cut_off(Cut::AfterCommit, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accept_that_never_arrived_sends_nothing() {
    a_commit_is_cut_off(Cut::BeforeCommit, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accept_whose_answer_was_lost_is_settled() {
    a_commit_is_cut_off(Cut::AfterCommit, false).await;
}
