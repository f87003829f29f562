//! What Meta takes and how it refuses.

use serde_json::{Value, json};

use super::{
    WHATSAPP_HEADERS, WHATSAPP_PATH, exchange, get, request, start, whatsapp, whatsapp_request, whatsapp_text,
};

/// A valid text with one field replaced, or removed by null.
fn text_with(field: &str, value: Value) -> Value {
    let mut body = whatsapp_text("79991234567");
    if value.is_null() {
        body.as_object_mut().unwrap().remove(field);
    } else {
        body[field] = value;
    }
    body
}

fn template(components: Value) -> Value {
    let mut body = text_with("type", json!("template"));
    body["template"] = json!({
        "name": "order_ready", "language": { "policy": "deterministic", "code": "ru" }, "components": components,
    });
    body
}

#[tokio::test]
async fn a_text_is_taken_and_answered_as_meta_does() {
    let simulator = start(json!({})).await;
    let mut body = whatsapp_text("+79991234567");
    body["text"]["preview_url"] = json!(false);
    let answer = whatsapp(&simulator, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    assert_eq!(json["messaging_product"], "whatsapp");
    assert_eq!(json["contacts"], json!([{ "input": "+79991234567", "wa_id": "79991234567" }]));
    let id = json["messages"][0]["id"].as_str().unwrap();
    assert!(id.starts_with("wamid."));
    assert!(json["messages"][0].get("message_status").is_none());
    let taken = simulator.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].recipient, "79991234567");
    assert_eq!(taken[0].account, "100000000000001");
    assert_eq!(taken[0].text.as_deref(), Some("Привет"));
    assert_eq!(taken[0].our_id.as_deref(), Some("id-+79991234567"));
    assert_eq!(taken[0].provider_message_id, id);
}

#[tokio::test]
async fn a_wrong_text_is_refused_with_metas_code() {
    let simulator = start(json!({})).await;
    for (field, value, status, code) in [
        ("messaging_product", json!(null), 400, 100),
        ("messaging_product", json!("sms"), 400, 100),
        ("recipient_type", json!("crowd"), 400, 131009),
        ("to", json!(null), 400, 100),
        ("to", json!("abc"), 400, 131009),
        ("to", json!("+7 999 123-45-67"), 400, 131009),
        ("to", json!("123456"), 400, 131009),
        ("to", json!("1234567890123456"), 400, 131009),
        ("type", json!("telepathy"), 400, 100),
        ("type", json!("image"), 400, 131051),
        ("text", json!(null), 400, 131008),
        ("text", json!("hello"), 400, 100),
        ("text", json!({}), 400, 100),
        ("text", json!({ "body": "" }), 400, 100),
        ("text", json!({ "body": 5 }), 400, 100),
        ("text", json!({ "body": "я".repeat(4097) }), 400, 100),
        ("text", json!({ "body": "x", "preview_url": "no" }), 400, 100),
        ("text", json!({ "body": "x", "colour": "red" }), 400, 100),
        ("biz_opaque_callback_data", json!("x".repeat(513)), 400, 100),
        ("biz_opaque_callback_data", json!(5), 400, 100),
    ] {
        let answer = whatsapp(&simulator, &text_with(field, value.clone())).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{field}: {value} gave {answer:?}");
        let error = &answer.json()["error"];
        assert!(error["message"].is_string() && error["type"].is_string() && error["fbtrace_id"].is_string());
    }
    assert_eq!(simulator.taken_count(), 0);
    for body in [text_with("text", json!({ "body": "я".repeat(4096) })), text_with("type", json!(null))] {
        assert_eq!(whatsapp(&simulator, &body).await.status, 200);
    }
}

#[tokio::test]
async fn only_a_known_token_and_number_are_let_in() {
    let simulator = start(json!({ "whatsapp": { "tokens": ["a", "b"] } })).await;
    let body = whatsapp_text("79991234567").to_string();
    let json_type = "Content-Type: application/json\r\n";
    for (authorization, status) in [
        ("", 401),
        ("Authorization: Bearer sim-token\r\n", 401),
        ("Authorization: Basic a\r\n", 401),
        ("authorization: bearer b\r\n", 200),
    ] {
        let raw = request("POST", WHATSAPP_PATH, &format!("{authorization}{json_type}"), &body);
        let answer = exchange(&simulator, &raw).await.unwrap();
        assert_eq!(answer.status, status, "{authorization}");
        assert!(status == 200 || answer.code() == 190);
    }
    let headers = format!("Authorization: Bearer a\r\n{json_type}");
    let answer = exchange(&simulator, &request("POST", "/v23.0/5/messages", &headers, &body)).await.unwrap();
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["code"], &error["error_subcode"]), (400, &json!(100), &json!(33)));
    assert_eq!(error["type"], "GraphMethodException");
    for path in ["/v23/100000000000001/messages", "/v23.0/100000000000001/letters", "/v23.0"] {
        let answer = exchange(&simulator, &request("POST", path, &headers, &body)).await.unwrap();
        assert_eq!((answer.status, answer.code()), (400, 2500), "{path}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_json_has_no_parameters() {
    let simulator = start(json!({})).await;
    let body = whatsapp_text("79991234567").to_string();
    let plain = WHATSAPP_HEADERS.replace("application/json", "text/plain");
    for raw in [
        request("POST", WHATSAPP_PATH, &plain, &body),
        request("POST", WHATSAPP_PATH, WHATSAPP_HEADERS, "{"),
        request("POST", WHATSAPP_PATH, WHATSAPP_HEADERS, "[]"),
        request("POST", WHATSAPP_PATH, WHATSAPP_HEADERS, ""),
    ] {
        let answer = exchange(&simulator, &raw).await.unwrap();
        assert_eq!((answer.status, answer.code()), (400, 100));
    }
}

#[tokio::test]
async fn a_template_is_taken_with_its_status() {
    let simulator = start(json!({})).await;
    let body = template(json!([
        { "type": "header", "parameters": [{ "type": "image", "image": { "link": "https://e.org/a.png" } }] },
        { "type": "body", "parameters": [{ "type": "text", "text": "Anna" }] },
        { "type": "button", "sub_type": "url", "index": "0", "parameters": [{ "type": "text", "text": "x" }] },
    ]));
    let answer = whatsapp(&simulator, &body).await;
    assert_eq!(answer.json()["messages"][0]["message_status"], "accepted", "{answer:?}");
    let taken = simulator.taken();
    assert_eq!(taken[0].text, None);
    assert_eq!(taken[0].template, Some(body["template"].clone()));
}

#[tokio::test]
async fn a_wrong_template_is_refused_with_metas_code() {
    let simulator = start(json!({ "whatsapp": { "templates": {
        "order_ready": { "languages": ["ru"], "bodyParameters": 1, "headerParameters": 0 },
        "paused": { "languages": ["ru"], "messageStatus": "paused" },
    } } }))
    .await;
    let body = |parameters: Value| template(json!([{ "type": "body", "parameters": parameters }]));
    let text = |text: &str| json!([{ "type": "text", "text": text }]);
    let mut other_language = body(text("x"));
    other_language["template"]["language"]["code"] = json!("en_US");
    let mut other_name = body(text("x"));
    other_name["template"]["name"] = json!("nobody");
    let mut no_language = body(text("x"));
    no_language["template"]["language"] = json!("ru");
    let mut odd_key = body(text("x"));
    odd_key["template"]["lang"] = json!("ru");
    let mut no_name = body(text("x"));
    no_name["template"]["name"] = json!("");
    for (body, status, code) in [
        (body(text("x")), 200, 0),
        (other_language, 404, 132001),
        (other_name, 404, 132001),
        (no_language, 400, 100),
        (odd_key, 400, 100),
        (no_name, 400, 131008),
        (body(json!([])), 400, 132000),
        (template(json!([])), 400, 132000),
        (body(json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }])), 400, 132000),
        (body(text("two\nlines")), 400, 132018),
        (body(text("a\ttab")), 400, 132018),
        (body(text("five     spaces")), 400, 132018),
        (body(text("four    spaces")), 200, 0),
        (body(text("")), 400, 131008),
        (body(text(&"x".repeat(1025))), 400, 132005),
        (body(json!([{ "type": "smell" }])), 400, 132012),
        (body(json!([{ "type": "image", "image": {} }])), 400, 131008),
        (
            body(json!([{ "type": "text", "text": "a", "parameter_name": "n" }, { "type": "text", "text": "b" }])),
            400,
            132012,
        ),
        (template(json!([{ "type": "footer" }])), 400, 100),
        (template(json!([{ "type": "button", "sub_type": "url", "parameters": [] }])), 400, 131008),
        (template(json!([{ "type": "button", "sub_type": "url", "index": "10", "parameters": [] }])), 400, 131009),
    ] {
        let answer = whatsapp(&simulator, &body).await;
        assert_eq!(answer.status, status, "{body} gave {answer:?}");
        assert!(status == 200 || answer.code() == code, "{body} gave {answer:?}");
    }
    let mut paused = template(json!([]));
    paused["template"]["name"] = json!("paused");
    assert_eq!(whatsapp(&simulator, &paused).await.json()["messages"][0]["message_status"], "paused");
}

#[tokio::test]
async fn a_number_can_be_looked_at() {
    let simulator = start(json!({})).await;
    let path = "/v23.0/100000000000001?fields=display_phone_number,quality_rating,verified_name";
    let answer = exchange(&simulator, &request("GET", path, WHATSAPP_HEADERS, "")).await.unwrap();
    assert_eq!(answer.json()["id"], "100000000000001");
    assert_eq!(answer.json()["quality_rating"], "GREEN");
    assert_eq!(get(&simulator, path).await.status, 401);
}

#[tokio::test]
async fn every_message_has_its_own_id() {
    let simulator = start(json!({})).await;
    let mut ids = std::collections::HashSet::new();
    for n in 0..20 {
        let to = format!("7999123456{}", n % 5);
        let answer = whatsapp(&simulator, &whatsapp_text(&to)).await;
        ids.insert(answer.json()["messages"][0]["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 20);
}

#[tokio::test]
async fn a_connection_serves_many_requests_in_any_pieces() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let simulator = start(json!({})).await;
    let body = whatsapp_text("79991234567").to_string();
    let chunked = format!(
        "POST {WHATSAPP_PATH} HTTP/1.1\r\n{WHATSAPP_HEADERS}Transfer-Encoding: chunked\r\n\r\n\
         5\r\n{}\r\n{:x}\r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
        &body[..5],
        body.len() - 5,
        &body[5..]
    );
    let kept = String::from_utf8(whatsapp_request(&whatsapp_text("79991234568"))).unwrap();
    let all = format!("{chunked}{}{kept}", kept.replace("Connection: close\r\n", ""));
    let mut stream = tokio::net::TcpStream::connect(simulator.addr()).await.unwrap();
    for piece in all.as_bytes().chunks(37) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut raw = String::new();
    stream.read_to_string(&mut raw).await.unwrap();
    assert_eq!(raw.matches("HTTP/1.1 200 OK").count(), 3, "{raw}");
    assert_eq!(simulator.taken_count(), 3);
}

#[tokio::test]
async fn what_is_too_large_or_broken_is_refused() {
    let simulator = start(json!({})).await;
    let large = whatsapp_text(&"7".repeat(70_000));
    assert_eq!(whatsapp(&simulator, &large).await.status, 413);
    let long_head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    for (raw, status) in [
        (long_head.as_str(), 431),
        ("hello\r\n\r\n", 400),
        ("POST /v1.0/1 HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST /v1.0/1 HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        ("POST /v1.0/1 HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ("POST /v1.0/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ("POST /v1.0/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 413),
        ("GET /nowhere HTTP/1.0\r\n\r\n", 404),
    ] {
        assert_eq!(exchange(&simulator, raw.as_bytes()).await.unwrap().status, status, "{raw:.60}");
    }
}
