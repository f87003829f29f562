//! The inbox: the page, a mail's own page, and the command.

use std::process::Stdio;

use serde_json::json;
use tokio::process::Command;

use super::mail::{MAIL, Talk};
use super::{get, start_with_mail, telegram, whatsapp, whatsapp_text};

#[tokio::test]
async fn the_page_and_a_mails_own_page_are_shut_in() {
    let simulator = start_with_mail(json!({})).await;
    let mut talk = Talk::greeted(&simulator).await;
    talk.write("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n").await;
    for _ in 0..3 {
        talk.hear().await;
    }
    talk.write(&MAIL.replace("\r\n\r\nhello", "\r\nContent-Type: text/html\r\n\r\n<script>x</script>")).await;
    assert!(talk.say(".").await.starts_with("250"));
    let page = get(&simulator, "/_sim/inbox").await;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("text/html") && page.head.contains("default-src 'none'"), "{}", page.head);
    let mail = get(&simulator, "/_sim/inbox/1").await;
    assert_eq!(mail.body, b"<script>x</script>\r\n");
    let policy = mail.head.lines().find(|line| line.starts_with("Content-Security-Policy")).unwrap();
    assert!(policy.ends_with("sandbox") && !policy.contains("script-src"), "{policy}");
    assert_eq!(get(&simulator, "/_sim/inbox/2").await.status, 404);
    assert_eq!(get(&simulator, "/_sim/inbox/x").await.status, 404);
}

#[tokio::test]
async fn the_command_lists_what_fits() {
    let simulator = start_with_mail(json!({})).await;
    for to in ["79990000001", "79990000002"] {
        whatsapp(&simulator, &whatsapp_text(to)).await;
    }
    telegram(&simulator, &json!({ "chat_id": 5, "text": "Ваш заказ готов" })).await;
    let inbox = async |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vestnik"));
        command.args(["simulator", "inbox", "--url", &simulator.url()]).args(args).stderr(Stdio::inherit());
        String::from_utf8(command.output().await.unwrap().stdout).unwrap()
    };
    let all = inbox(&[]).await;
    let heads: Vec<_> = all.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(heads.len(), 3, "{all}");
    assert!(heads[0].starts_with("1  ") && heads[0].ends_with("→ 79990000001"), "{all}");
    assert!(inbox(&["--search", "ЗАКАЗ"]).await.ends_with("5\n    Ваш заказ готов\n"));
    assert_eq!(inbox(&["--channel", "sms"]).await, "nothing was taken that fits\n");
    let json = inbox(&["--json", "--limit", "1"]).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["n"], 3);
}
