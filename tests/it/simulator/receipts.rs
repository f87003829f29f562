//! Receipts as a service gets them: signed, repeated, doubled, in the wrong order, or never.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use ring::hmac;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use vestnik::simulator::{Fate, twilio};

use super::sms::twilio_send;
use super::{send, start, whatsapp, whatsapp_text};

/// A post that came in: its head in small letters, and its body.
type Post = (String, Vec<u8>);

/// A service that answers each post with the next of these, and with 200 after the last.
async fn service(answers: &'static [u16]) -> (String, mpsc::UnboundedReceiver<Post>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::unbounded_channel();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        let mut answers = answers.iter();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut raw = Vec::new();
            let (head, length) = loop {
                if stream.read_buf(&mut raw).await.unwrap_or(0) == 0 {
                    break (0, 0);
                }
                if let Some(end) = raw.windows(4).position(|four| four == b"\r\n\r\n") {
                    let head = String::from_utf8(raw[..end].to_vec()).unwrap().to_lowercase();
                    let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
                    break (end, length.parse().unwrap());
                }
            };
            while raw.len() < head + 4 + length {
                stream.read_buf(&mut raw).await.unwrap();
            }
            let status = answers.next().copied().unwrap_or(200);
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = sender
                .send((String::from_utf8(raw[..head].to_vec()).unwrap().to_lowercase(), raw[head + 4..].to_vec()));
        }
    });
    (url, receiver)
}

async fn next(posts: &mut mpsc::UnboundedReceiver<Post>) -> Post {
    tokio::time::timeout(Duration::from_secs(10), posts.recv()).await.expect("a post").unwrap()
}

fn header<'a>(post: &'a Post, name: &str) -> &'a str {
    post.0.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_default()
}

fn status(post: &Post) -> Value {
    let body: Value = serde_json::from_slice(&post.1).unwrap();
    body["entry"][0]["changes"][0]["value"]["statuses"][0].clone()
}

fn soon() -> Value {
    json!({ "sentAfterMs": 1, "deliveredAfterMs": 1, "readAfterMs": 1, "retryAfterMs": 10 })
}

/// The receipts' part of a scenario, with these fields besides.
fn with(fields: Value) -> Value {
    let mut receipts = soon();
    receipts.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    receipts
}

#[tokio::test]
async fn whatsapp_posts_signed_webhooks_and_repeats_them() {
    let (url, mut posts) = service(&[503, 500]).await;
    let receipts = with(json!({ "url": format!("{url}/hook"), "appSecret": "s3cret", "read": 1 }));
    let simulator = start(json!({ "whatsapp": { "receipts": receipts } })).await;
    let id = whatsapp(&simulator, &whatsapp_text("79990000001")).await.json()["messages"][0]["id"].clone();
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let post = next(&mut posts).await;
        assert!(post.0.starts_with("post /hook http/1.1"), "{}", post.0);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"s3cret"), &post.1);
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(header(&post, "x-hub-signature-256"), format!("sha256={hex}"));
        let status = status(&post);
        assert_eq!((&status["id"], &status["biz_opaque_callback_data"]), (&id, &json!("id-79990000001")));
        statuses.push(status["status"].as_str().unwrap().to_owned());
    }
    assert_eq!(statuses, ["sent", "sent", "sent", "delivered", "read"]);
    assert_eq!(simulator.taken()[0].receipt, Some(Fate::Read));
    let figures = simulator.receipt_figures();
    assert_eq!((figures.repeated, figures.given_up, figures.dropped), (2, 0, 0));
}

#[tokio::test]
async fn a_message_that_was_taken_under_a_fault_has_receipts_too() {
    let (url, mut posts) = service(&[]).await;
    let receipts = with(json!({ "url": url, "failedCode": 131047 }));
    let simulator = start(json!({ "whatsapp": {
        "receipts": receipts,
        "recipients": { "79990000001": { "fault": "bad_gateway", "taken": true, "receipt": "failed" } },
    } }))
    .await;
    assert_eq!(whatsapp(&simulator, &whatsapp_text("79990000001")).await.status, 502);
    assert_eq!(status(&next(&mut posts).await)["status"], "sent");
    let failed = status(&next(&mut posts).await);
    assert_eq!((&failed["status"], &failed["errors"][0]["code"]), (&json!("failed"), &json!(131047)));
    assert_eq!(failed["biz_opaque_callback_data"], "id-79990000001");
}

#[tokio::test]
async fn receipts_are_doubled_shuffled_given_up_or_never_come() {
    let (url, mut posts) = service(&[]).await;
    let set = async |simulator: &vestnik::simulator::Simulator, fields: Value| {
        let scenario = json!({ "whatsapp": { "receipts": with(fields) } });
        assert_eq!(send(simulator, "PUT", "/_sim/scenario", &scenario).await.status, 200);
    };
    let simulator = start(json!({})).await;
    let mut heard = async |count: usize| {
        let mut words = Vec::new();
        for _ in 0..count {
            words.push(status(&next(&mut posts).await)["status"].as_str().unwrap().to_owned());
        }
        words
    };
    set(&simulator, json!({ "url": url, "doubled": 1, "shuffled": 1 })).await;
    whatsapp(&simulator, &whatsapp_text("79990000001")).await;
    assert_eq!(heard(4).await, ["delivered", "delivered", "sent", "sent"]);
    set(&simulator, json!({ "url": url, "delivered": 0, "never": 1 })).await;
    whatsapp(&simulator, &whatsapp_text("79990000002")).await;
    assert_eq!(simulator.taken()[1].receipt, Some(Fate::Never));
    set(&simulator, json!({ "url": url, "delivered": 0 })).await;
    whatsapp(&simulator, &whatsapp_text("79990000003")).await;
    assert_eq!(heard(1).await, ["sent"]);
    // Nobody listens there.
    set(&simulator, json!({ "url": "http://127.0.0.1:1/", "delivered": 0, "retries": 2 })).await;
    whatsapp(&simulator, &whatsapp_text("79990000004")).await;
    let settled = async || {
        while simulator.receipt_figures().waiting > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), settled()).await.unwrap();
    let figures = simulator.receipt_figures();
    assert_eq!((figures.posted, figures.repeated, figures.given_up), (5, 2, 1));
}

#[tokio::test]
async fn twilio_posts_signed_forms_to_each_messages_own_address() {
    let (url, mut posts) = service(&[]).await;
    let receipts = with(json!({ "failedCode": 30005 }));
    let simulator = start(json!({ "sms": {
        "receipts": receipts, "recipients": { "79990000002": { "ok": true, "receipt": "failed" } },
    } }))
    .await;
    let callback = format!("{url}/cb?id=7").replace(':', "%3A").replace('/', "%2F").replace('?', "%3F");
    for to in ["79990000001", "79990000002"] {
        let form = format!("To=%2B{to}&From=%2B15005550006&Body=x&StatusCallback={callback}");
        let sid = twilio_send(&simulator, &form).await.json()["sid"].as_str().unwrap().to_owned();
        for expected in ["sent", if to == "79990000001" { "delivered" } else { "undelivered" }] {
            let post = next(&mut posts).await;
            let parameters = form_of(&post.1);
            assert_eq!(
                (parameters["MessageStatus"].as_str(), parameters["MessageSid"].as_str()),
                (expected, sid.as_str())
            );
            assert_eq!(parameters.get("ErrorCode").map(String::as_str), (expected == "undelivered").then_some("30005"));
            let mut signed = format!("{url}/cb?id=7");
            parameters.iter().for_each(|(name, value)| signed.push_str(&format!("{name}{value}")));
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, twilio::DEFAULT_TOKEN.as_bytes());
            let signature = base64::engine::general_purpose::STANDARD.encode(hmac::sign(&key, signed.as_bytes()));
            // The head was put into small letters.
            assert_eq!(header(&post, "x-twilio-signature"), signature.to_lowercase());
        }
    }
}

fn form_of(body: &[u8]) -> BTreeMap<String, String> {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let pairs = std::str::from_utf8(body).unwrap().split('&').map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}

#[tokio::test]
async fn the_same_seed_has_the_same_receipts() {
    let scenario = json!({
        "seed": 7, "whatsapp": { "receipts": { "delivered": 0.6, "read": 0.3, "failed": 0.2, "never": 0.1 } },
    });
    let mut runs = Vec::new();
    for _ in 0..2 {
        let simulator = start(scenario.clone()).await;
        for n in 0..60 {
            whatsapp(&simulator, &whatsapp_text(&format!("799900000{n:02}"))).await;
        }
        runs.push(
            simulator.taken().into_iter().map(|taken| (taken.provider_message_id, taken.receipt)).collect::<Vec<_>>(),
        );
        simulator.stop().await;
    }
    assert_eq!(runs[0], runs[1]);
    for fate in [Fate::Read, Fate::Delivered, Fate::Failed, Fate::Never, Fate::Sent] {
        assert!(runs[0].iter().any(|(_, given)| *given == Some(fate)), "{fate:?}");
    }
}
