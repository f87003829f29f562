//! What Telegram takes and how it refuses.

use serde_json::{Value, json};

use super::{JSON_HEADER, TELEGRAM_PATH, exchange, get, request, start, telegram};

#[tokio::test]
async fn a_text_is_taken_and_answered_as_telegram_does() {
    let simulator = start(json!({})).await;
    let body = json!({
        "chat_id": 123456789, "text": "<b>Анна</b> &lt;3", "parse_mode": "HTML", "disable_notification": false,
        "link_preview_options": { "is_disabled": true },
        "reply_markup": { "inline_keyboard": [[{ "text": "Open", "url": "https://e.org" }]] },
    });
    let answer = telegram(&simulator, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    assert_eq!(json["ok"], true);
    assert_eq!(json["result"]["message_id"], 1);
    assert_eq!(json["result"]["text"], "Анна <3");
    assert_eq!(json["result"]["chat"]["id"], 123456789);
    assert_eq!(json["result"]["chat"]["type"], "private");
    let taken = &simulator.taken()[0];
    assert_eq!(taken.text.as_deref(), Some("Анна <3"));
    assert_eq!(taken.raw.as_deref(), Some("<b>Анна</b> &lt;3"));
    assert_eq!((taken.account.as_str(), &taken.our_id), ("1000001", &None));
    assert_eq!(taken.provider_message_id, "123456789:1");
    assert_eq!(telegram(&simulator, &body).await.json()["result"]["message_id"], 2);
}

#[tokio::test]
async fn parameters_come_as_json_form_or_query_by_get_or_post() {
    let simulator = start(json!({})).await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for raw in [
        request("POST", TELEGRAM_PATH, form, "chat_id=-100123&text=%D0%90+b"),
        request("POST", "/bot1000001%3Asim-token/SENDMESSAGE", form, "chat_id=-100123&text=%D0%90+b"),
        request("GET", &format!("{TELEGRAM_PATH}?chat_id=-100123&text=%D0%90%20b"), "", ""),
        request("POST", TELEGRAM_PATH, JSON_HEADER, r#"{"chat_id":"-100123","text":"А b"}"#),
    ] {
        let answer = exchange(&simulator, &raw).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["result"]["chat"]["type"], "supergroup");
    }
    assert!(simulator.taken().iter().all(|taken| taken.text.as_deref() == Some("А b")));
}

#[tokio::test]
async fn a_wrong_message_is_refused_with_telegrams_words() {
    let simulator = start(json!({})).await;
    let html = |text: &str| json!({ "chat_id": 1, "text": text, "parse_mode": "html" });
    for (body, description) in [
        (json!({ "text": "x" }), "Bad Request: chat_id is empty"),
        (json!({ "chat_id": "abc", "text": "x" }), "Bad Request: chat not found"),
        (json!({ "chat_id": 0, "text": "x" }), "Bad Request: chat not found"),
        (json!({ "chat_id": 1.5, "text": "x" }), "Bad Request: chat not found"),
        (json!({ "chat_id": "@1x", "text": "x" }), "Bad Request: chat not found"),
        (json!({ "chat_id": 1 }), "Bad Request: message text is empty"),
        (json!({ "chat_id": 1, "text": " \n" }), "Bad Request: text must be non-empty"),
        (json!({ "chat_id": 1, "text": "😀".repeat(2049) }), "Bad Request: message is too long"),
        (html("<b></b>"), "Bad Request: text must be non-empty"),
        (html("<b>x"), "Bad Request: can't parse entities: Can't find end tag corresponding to start tag \"b\""),
        (html("a <br>"), "Bad Request: can't parse entities: Unsupported start tag \"br\" at byte offset 2"),
        (json!({ "chat_id": 1, "text": "x", "parse_mode": "BBCode" }), "Bad Request: unsupported parse_mode"),
        (
            json!({ "chat_id": 1, "text": "x", "reply_markup": "x" }),
            "Bad Request: can't parse reply keyboard markup JSON object",
        ),
        (
            json!({ "chat_id": 1, "text": "x", "reply_markup": { "inline_keyboard": [[{ "text": "a" }]] } }),
            "Bad Request: text buttons are unallowed in the inline keyboard",
        ),
    ] {
        let answer = telegram(&simulator, &body).await;
        assert_eq!((answer.status, answer.description().as_str()), (400, description), "{body}");
        assert_eq!((&answer.json()["ok"], &answer.json()["error_code"]), (&json!(false), &json!(400)));
    }
    assert_eq!(simulator.taken_count(), 0);
    for body in [
        json!({ "chat_id": 1, "text": "😀".repeat(2048) }),
        html(&format!("<b>{}</b>", "x".repeat(4096))),
        json!({ "chat_id": "@durov_news", "text": "x" }),
    ] {
        assert_eq!(telegram(&simulator, &body).await.status, 200);
    }
}

#[tokio::test]
async fn the_token_and_the_method_are_checked() {
    let simulator = start(json!({})).await;
    for (path, status, description) in [
        ("/bot1000001:other/getMe", 401, "Unauthorized"),
        ("/botx/getMe", 404, "Not Found"),
        ("/bot1000001/getMe", 404, "Not Found"),
        ("/bot1000001:sim-token", 404, "Not Found"),
        ("/bot1000001:sim-token/sendPigeon", 404, "Not Found: method not found"),
    ] {
        let answer = get(&simulator, path).await;
        assert_eq!((answer.status, answer.description().as_str()), (status, description), "{path}");
    }
    let answer = get(&simulator, "/bot1000001:sim-token/getme").await;
    assert_eq!(answer.json()["result"]["id"], 1000001);
}

#[tokio::test]
async fn refusals_by_recipient_have_their_own_shapes() {
    let simulator = start(json!({ "telegram": { "recipients": {
        "1": { "error": "blocked" }, "2": { "error": "retry_after:7" }, "3": { "error": "migrated:-1005" },
        "4": { "error": "internal" }, "@gone_channel": { "error": "chat_not_found" },
    } } }))
    .await;
    let message = |chat: Value| json!({ "chat_id": chat, "text": "x" });
    let answer = telegram(&simulator, &message(json!(1))).await;
    assert_eq!((answer.status, answer.description().as_str()), (403, "Forbidden: bot was blocked by the user"));
    let answer = telegram(&simulator, &message(json!(2))).await;
    assert_eq!((answer.status, &answer.json()["parameters"]["retry_after"]), (429, &json!(7)));
    assert!(answer.head.contains("Retry-After: 7"));
    let answer = telegram(&simulator, &message(json!(3))).await;
    assert_eq!((answer.status, &answer.json()["parameters"]["migrate_to_chat_id"]), (400, &json!(-1005)));
    assert_eq!(telegram(&simulator, &message(json!(4))).await.status, 500);
    assert_eq!(telegram(&simulator, &message(json!("@gone_channel"))).await.status, 400);
    assert_eq!(telegram(&simulator, &message(json!(5))).await.status, 200);
    assert_eq!(simulator.taken_count(), 1);
}
