//! Each fault as a client meets it, and whether the message was taken.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vestnik::simulator::{SLOW_HEADER_PAUSE, Simulator};

use super::{exchange, get, start, telegram_request, whatsapp_request, whatsapp_text};

const TO: &str = "79991234567";

async fn with_fault(rule: Value) -> Simulator {
    start(json!({ "whatsapp": { "recipients": { TO: rule } } })).await
}

async fn connected(simulator: &Simulator) -> TcpStream {
    let mut stream = TcpStream::connect(simulator.addr()).await.unwrap();
    stream.write_all(&whatsapp_request(&whatsapp_text(TO))).await.unwrap();
    stream
}

async fn read_to_end(mut stream: TcpStream) -> io::Result<Vec<u8>> {
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).await.map(|_| raw)
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    for (kind, taken) in [("reset_before_read", 0), ("reset_after_read", 1)] {
        let simulator = with_fault(json!({ "fault": kind })).await;
        let error = read_to_end(connected(&simulator).await).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{kind}");
        assert_eq!(simulator.taken_count(), taken, "{kind}");
    }
}

#[tokio::test]
async fn a_close_is_an_end_without_an_answer() {
    let simulator = with_fault(json!({ "fault": "close_after_read" })).await;
    assert_eq!(read_to_end(connected(&simulator).await).await.unwrap(), b"");
    assert_eq!(simulator.taken_count(), 1);
}

#[tokio::test]
async fn a_hang_lasts_until_the_client_leaves() {
    let simulator = with_fault(json!({ "fault": "hang" })).await;
    let mut stream = connected(&simulator).await;
    let mut byte = [0];
    assert!(tokio::time::timeout(Duration::from_millis(200), stream.read(&mut byte)).await.is_err());
    assert_eq!(simulator.taken_count(), 1);
    // A stop ends it, too.
    simulator.stop().await;
    assert!(!matches!(stream.read(&mut byte).await, Ok(1..)));
}

#[tokio::test]
async fn rubbish_is_200_and_no_json() {
    let simulator = with_fault(json!({ "fault": "rubbish_200" })).await;
    let answer = exchange(&simulator, &whatsapp_request(&whatsapp_text(TO))).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(serde_json::from_slice::<Value>(&answer.body).is_err());
    assert_eq!(simulator.taken_count(), 1);
}

#[tokio::test]
async fn an_endless_body_goes_on_past_any_answer() {
    const PAST_ANY_ANSWER_BYTES: usize = 128 * 1024;
    let simulator = with_fault(json!({ "fault": "endless_body" })).await;
    let mut stream = connected(&simulator).await;
    let mut raw = Vec::new();
    while raw.len() < PAST_ANY_ANSWER_BYTES {
        assert_ne!(stream.read_buf(&mut raw).await.unwrap(), 0);
    }
    assert!(raw.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert_eq!(simulator.taken_count(), 1);
}

#[tokio::test]
async fn slow_headers_come_byte_by_byte() {
    let simulator = with_fault(json!({ "fault": "slow_headers" })).await;
    let started = tokio::time::Instant::now();
    let mut stream = connected(&simulator).await;
    let mut head = [0; 8];
    stream.read_exact(&mut head).await.unwrap();
    // Seven pauses lie between eight bytes.
    assert!(started.elapsed() >= SLOW_HEADER_PAUSE * 7);
    assert_eq!(&head, b"HTTP/1.1");
    assert_eq!(simulator.taken_count(), 1);
}

#[tokio::test]
async fn a_bad_gateway_is_a_page_and_takes_only_if_told() {
    for (rule, taken) in [
        (json!({ "fault": "bad_gateway" }), 0),
        (json!({ "fault": "bad_gateway", "taken": false }), 0),
        (json!({ "fault": "bad_gateway", "taken": true }), 1),
    ] {
        let simulator = with_fault(rule).await;
        let answer = exchange(&simulator, &whatsapp_request(&whatsapp_text(TO))).await.unwrap();
        assert_eq!(answer.status, 502);
        assert!(answer.head.contains("text/html"));
        assert_eq!(simulator.taken_count(), taken);
    }
}

#[tokio::test]
async fn a_server_error_is_the_providers_own_json() {
    let simulator = with_fault(json!({ "fault": "server_error_json" })).await;
    let answer = exchange(&simulator, &whatsapp_request(&whatsapp_text(TO))).await.unwrap();
    assert_eq!((answer.status, answer.code()), (500, 1));
    simulator
        .set_scenario(
            serde_json::from_value(json!({
        "telegram": { "next": [{ "fault": "server_error_json" }] } }))
            .unwrap(),
        )
        .unwrap();
    let answer = exchange(&simulator, &telegram_request(&json!({ "chat_id": 1, "text": "x" }))).await.unwrap();
    assert_eq!((answer.status, answer.description().as_str()), (500, "Internal Server Error"));
    assert_eq!(simulator.taken_count(), 0);
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let simulator = with_fault(json!({ "fault": "redirect" })).await;
    let answer = exchange(&simulator, &whatsapp_request(&whatsapp_text(TO))).await.unwrap();
    assert_eq!(answer.status, 302);
    assert!(answer.head.contains("Location: /elsewhere"));
    assert_eq!(get(&simulator, "/elsewhere").await.status, 404);
    assert_eq!(simulator.taken_count(), 0);
}

#[tokio::test]
async fn every_fault_is_counted() {
    let simulator = with_fault(json!({ "fault": "rubbish_200", "times": 2 })).await;
    for _ in 0..3 {
        exchange(&simulator, &whatsapp_request(&whatsapp_text(TO))).await.unwrap();
    }
    let stats = get(&simulator, "/_sim/stats").await.json();
    assert_eq!(stats["channels"]["whatsapp"]["faults"], json!({ "rubbish_200": 2 }));
    assert_eq!(stats["taken"], 3);
}

#[tokio::test]
async fn an_answer_waits_for_its_latency_but_the_record_does_not() {
    let simulator = with_fault(json!({ "ok": true, "latencyMs": 600 })).await;
    let started = tokio::time::Instant::now();
    let mut stream = connected(&simulator).await;
    let mut byte = [0];
    assert!(tokio::time::timeout(Duration::from_millis(100), stream.read(&mut byte)).await.is_err());
    assert_eq!(simulator.taken_count(), 1);
    assert_eq!(stream.read(&mut byte).await.unwrap(), 1);
    assert!(started.elapsed() >= Duration::from_millis(600));
}
