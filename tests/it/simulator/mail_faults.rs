//! What goes wrong with mail, at every step of it.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _};
use vestnik::simulator::{SLOW_HEADER_PAUSE, Simulator, smtp};

use super::mail::{MAIL, Talk};
use super::{send, start_with_mail};

/// The commands up to a step, without the one whose reply is awaited.
const STEPS: [(&str, &str); 5] = [
    ("ehlo", "EHLO c.test"),
    ("mail", "MAIL FROM:<a@example.org>"),
    ("rcpt", "RCPT TO:<b@example.org>"),
    ("data", "DATA"),
    ("dot", ""),
];

/// Goes on until the step's command is said, and leaves its reply to be heard.
async fn up_to(simulator: &Simulator, step: &str) -> Talk {
    let mut talk = Talk::begin(simulator).await;
    for (name, command) in STEPS {
        let text = if name == "dot" { format!("{MAIL}.\r\n") } else { format!("{command}\r\n") };
        talk.write(&text).await;
        if name == step {
            return talk;
        }
        let reply = talk.hear().await;
        assert!(reply.starts_with(['2', '3']), "{name}: {reply}");
    }
    panic!("no such step: {step}");
}

async fn queue(simulator: &Simulator, rule: Value) {
    let mut rule = rule;
    rule["channel"] = json!("email");
    assert_eq!(send(simulator, "POST", "/_sim/next", &rule).await.status, 200, "{rule}");
}

#[tokio::test]
async fn a_connection_ends_or_hangs_at_any_step() {
    let simulator = start_with_mail(json!({})).await;
    for (step, _) in STEPS {
        for (kind, taken) in
            [("drop", step == "dot"), ("reset", step == "dot"), ("hang", step == "dot"), ("shutdown", false)]
        {
            let before = simulator.taken_count();
            queue(&simulator, json!({ "fault": format!("{kind}_at_{step}") })).await;
            let mut talk = up_to(&simulator, step).await;
            let mut rest = String::new();
            match kind {
                "drop" => assert_eq!(talk.0.read_line(&mut rest).await.unwrap(), 0, "{step}"),
                "reset" => {
                    let error = talk.0.read_line(&mut rest).await.unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{step}");
                }
                "hang" => {
                    let heard = tokio::time::timeout(Duration::from_millis(100), talk.0.read_line(&mut rest)).await;
                    assert!(heard.is_err(), "{step}: {rest}");
                }
                _ => {
                    assert!(talk.hear().await.starts_with("421 4.3.2"), "{step}");
                    assert_eq!(talk.hear().await, "");
                }
            }
            assert_eq!(simulator.taken_count() - before, u64::from(taken), "{kind}_at_{step}");
        }
    }
}

#[tokio::test]
async fn whether_a_lost_reply_was_a_taken_mail_can_be_said() {
    let simulator = start_with_mail(json!({})).await;
    for (fault, taken, expected) in
        [("drop_at_dot", false, 0), ("drop_at_dot", true, 1), ("shutdown_at_dot", true, 2), ("hang_at_dot", false, 2)]
    {
        queue(&simulator, json!({ "fault": fault, "taken": taken })).await;
        let mut talk = up_to(&simulator, "dot").await;
        let mut rest = String::new();
        let _ = tokio::time::timeout(Duration::from_millis(100), talk.0.read_line(&mut rest)).await;
        assert_eq!(simulator.taken_count(), expected, "{fault}");
    }
}

#[tokio::test]
async fn a_connection_may_never_begin() {
    let simulator = start_with_mail(json!({})).await;
    let connect = async || tokio::net::TcpStream::connect(simulator.smtp_addr().unwrap()).await.unwrap();
    let mut raw = Vec::new();
    queue(&simulator, json!({ "fault": "reset_at_banner" })).await;
    assert!(connect().await.read_to_end(&mut raw).await.is_err());
    queue(&simulator, json!({ "fault": "drop_at_banner" })).await;
    assert_eq!(connect().await.read_to_end(&mut raw).await.unwrap(), 0);
    queue(&simulator, json!({ "error": "banner 554 5.3.2 Not today" })).await;
    connect().await.read_to_end(&mut raw).await.unwrap();
    assert_eq!(raw, b"554 5.3.2 Not today\r\n");
    queue(&simulator, json!({ "fault": "slow_at_banner" })).await;
    let started = tokio::time::Instant::now();
    let mut first = [0; 4];
    connect().await.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"220 ");
    assert!(started.elapsed() >= smtp::SLOW_REPLY_PAUSE * 3 && smtp::SLOW_REPLY_PAUSE == SLOW_HEADER_PAUSE);
}

#[tokio::test]
async fn rubbish_is_no_reply_and_a_refusal_leaves_the_conversation() {
    let simulator = start_with_mail(json!({ "email": { "recipients": {
        "Full@example.org": { "error": "452 4.2.2 Mailbox full" },
        "spam@example.org": { "error": "dot 554 5.7.1 Refused" },
        "late@example.org": { "error": "data 451 4.3.0 Later" },
        "gone@example.org": { "error": "421 4.3.2 Going" },
    } } }))
    .await;
    queue(&simulator, json!({ "fault": "rubbish_at_mail" })).await;
    let mut talk = Talk::greeted(&simulator).await;
    assert!(talk.say("MAIL FROM:<a@example.org>").await.starts_with("<<<"));
    for (to, replies) in [
        ("full", ["452 4.2.2 Mailbox full", "503", ""]),
        ("late", ["250", "451 4.3.0 Later", ""]),
        ("spam", ["250", "354", "554 5.7.1 Refused"]),
    ] {
        assert!(talk.say("MAIL FROM:<a@example.org>").await.starts_with("250"));
        assert!(talk.say(&format!("RCPT TO:<{to}@example.org>")).await.starts_with(replies[0]));
        assert!(talk.say("DATA").await.starts_with(replies[1]), "{to}");
        if !replies[2].is_empty() {
            talk.write(MAIL).await;
            assert!(talk.say(".").await.starts_with(replies[2]), "{to}");
        }
        talk.say("RSET").await;
    }
    // One refused recipient does not keep the others from getting it.
    talk.say("MAIL FROM:<a@example.org>").await;
    assert!(talk.say("RCPT TO:<full@example.org>").await.starts_with("452"));
    assert!(talk.say("RCPT TO:<b@example.org>").await.starts_with("250"));
    talk.say("DATA").await;
    talk.write(MAIL).await;
    assert!(talk.say(".").await.starts_with("250"));
    assert_eq!(simulator.taken().iter().map(|taken| taken.recipient.as_str()).collect::<Vec<_>>(), ["b@example.org"]);
    talk.say("MAIL FROM:<a@example.org>").await;
    assert_eq!(talk.say("RCPT TO:<gone@example.org>").await, "421 4.3.2 Going");
    assert_eq!(talk.hear().await, "");
    let refused = simulator.figures(vestnik::domain::Channel::Email).refused;
    assert_eq!(refused["452 4.2.2 Mailbox full"], 2);
}

#[tokio::test]
async fn too_many_are_told_to_come_back() {
    let simulator = start_with_mail(json!({ "email": { "rateLimits": { "perSecond": 0.001, "burst": 2 } } })).await;
    let mut talk = Talk::greeted(&simulator).await;
    talk.say("MAIL FROM:<a@example.org>").await;
    for expected in ["250", "250", "451 4.7.1"] {
        assert!(talk.say("RCPT TO:<b@example.org>").await.starts_with(expected));
    }
}
