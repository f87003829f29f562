//! The published example, and what no setting and no value may do.

use std::path::PathBuf;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::json;

use super::*;
use crate::channels::http_client::HttpAnswer;
use crate::config::{Settings, Sources};
use crate::domain::{DownReason, ThrottleScope};

/// Nobody's text: every sign that means something in a form, a URL or JSON.
const TEXT: &str = "Привет, \"Анна\"! {text} 100% a=b&psw=x + \\ \u{1f600}\n<3";

fn gateway(settings: serde_json::Value) -> Result<Gateway, ConfigProblem> {
    let settings: SmsSettings = serde_json::from_value(json!({ "http": settings })).expect("settings");
    Gateway::new("main", &settings, settings.http.as_ref().expect("a gateway"), HttpClient::new())
}

/// The file that users copy.
fn smsc() -> Gateway {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("assets/gateways/smsc.toml");
    let settings = Settings::load(&Sources { file: Some(file), ..Sources::default() }).expect("the example holds");
    let account = &settings.sms["main"];
    Gateway::new("main", account, account.http.as_ref().expect("a gateway"), HttpClient::new()).expect("it is fine")
}

const VALUES: Values<'static> =
    Values { to: "+79991234567", to_digits: "79991234567", text: TEXT, id: "00000000-0000-0000-0000-000000000007" };

fn answered(gateway: &Gateway, status: u16, body: &str) -> Outcome {
    let answer = HttpAnswer {
        status: StatusCode::from_u16(status).expect("a status"),
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    };
    gateway.outcome_without_secrets(gateway.answer.outcome(&answer, &VALUES))
}

fn decoded(form: &[u8]) -> Vec<(String, String)> {
    let text = std::str::from_utf8(form).expect("text");
    let part = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8().expect("UTF-8").into_owned();
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (part(name), part(value))).collect()
}

#[test]
fn the_example_asks_as_smsc_documents() {
    let request = smsc().request(&VALUES).expect("a request");
    assert_eq!((request.method, request.uri.to_string()), (Method::POST, "https://smsc.ru/sys/send.php".to_owned()));
    let expected = [
        ("charset", "utf-8"),
        ("fmt", "3"),
        ("login", "login"),
        ("mes", TEXT),
        ("phones", "+79991234567"),
        ("psw", "password"),
        ("sender", "Vestnik"),
    ];
    assert_eq!(decoded(&request.body), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let (_, check) = smsc().check.expect("a check");
    assert_eq!(check.to_string(), "https://smsc.ru/sys/balance.php?login=login&psw=password&fmt=3");
}

#[test]
fn the_example_reads_smscs_answers() {
    let gateway = smsc();
    let Outcome::Accepted { provider_message_id, note } = answered(&gateway, 200, r#"{"id": 4711, "cnt": 1}"#) else {
        panic!("not accepted")
    };
    assert_eq!((&*provider_message_id, note), ("4711", None));
    let refused =
        |code: u8, id: &str| answered(&gateway, 200, &format!(r#"{{"error": "…", "error_code": {code}{id}}}"#));
    // Some errors bring an id along and are no yes for it.
    for id in ["", r#", "id": 4711"#] {
        assert!(matches!(refused(3, id), Outcome::ChannelDown { reason: DownReason::Billing, .. }));
        assert!(matches!(refused(7, id), Outcome::Permanent { reason: PermanentReason::Recipient, .. }));
        assert!(matches!(refused(6, id), Outcome::Permanent { reason: PermanentReason::Policy, .. }));
    }
    assert!(matches!(refused(2, ""), Outcome::ChannelDown { reason: DownReason::Auth, .. }));
    let Outcome::Throttled { scope, after, error } = refused(9, "") else { panic!("not throttled") };
    assert_eq!((scope, after.as_secs(), &*error.code), (ThrottleScope::Account, 60, "9"));
    // What the list does not say, and what is not SMSC's answer.
    for unreadable in [r#"{"error_code": 99}"#, r#"{"id": null}"#, r#"{"id": []}"#, "OK - 1 SMS", "", "[]"] {
        assert!(matches!(answered(&gateway, 200, unreadable), Outcome::Ambiguous { .. }), "{unreadable}");
    }
    assert!(matches!(answered(&gateway, 502, "<html>"), Outcome::Ambiguous { .. }));
    assert!(matches!(answered(&gateway, 403, "<html>"), Outcome::ChannelDown { reason: DownReason::Auth, .. }));
    assert!(matches!(answered(&gateway, 429, ""), Outcome::Throttled { scope: ThrottleScope::Account, .. }));
}

/// SMS.ru answers by number: `{"status_code": 100, "sms": {"79991234567": {"status_code": 100, "sms_id": "…"}}}`.
#[test]
fn a_place_in_the_answer_may_depend_on_the_recipient() {
    let gateway = gateway(json!({
        "url": "https://sms.ru/sms/send",
        "form": { "api_id": "x", "to": "{to_digits}", "msg": "{text}", "json": "1" },
        "answer": {
            "id": "/sms/{to_digits}/sms_id",
            "error_code": ["/sms/{to_digits}/status_code", "/status_code"],
            "accepted_codes": ["100"],
            "codes": { "200": "channel_down auth", "207": "permanent recipient", "*": "permanent content" },
        },
    }))
    .expect("fine");
    let of_number = |inner: &str| format!(r#"{{"status_code": 100, "sms": {{"79991234567": {inner}}}}}"#);
    let yes = answered(&gateway, 200, &of_number(r#"{"status_code": 100, "sms_id": "000000-10000000"}"#));
    assert!(matches!(yes, Outcome::Accepted { provider_message_id, .. } if provider_message_id == "000000-10000000"));
    let refused = answered(&gateway, 200, &of_number(r#"{"status_code": 207}"#));
    assert!(matches!(refused, Outcome::Permanent { reason: PermanentReason::Recipient, .. }));
    let down = answered(&gateway, 200, r#"{"status": "ERROR", "status_code": 200}"#);
    assert!(matches!(down, Outcome::ChannelDown { reason: DownReason::Auth, .. }));
    let other = |status| answered(&gateway, status, r#"{"status_code": 230}"#);
    assert!(matches!(other(200), Outcome::Permanent { reason: PermanentReason::Content, .. }));
    assert!(matches!(other(500), Outcome::Transient { handed_off: true, .. }), "`*` speaks of a 2xx only");
    assert!(matches!(answered(&gateway, 200, r#"{"status_code": 100}"#), Outcome::Ambiguous { .. }), "a yes, no id");
}

#[test]
fn values_cannot_break_out_of_where_they_stand() {
    let json = r#"{"messages": [{"to": "{to}", "text": "{text}", "n": 1, "from": "«{from}»"}], "dry": false}"#;
    let gateway = gateway(json!({
        "url": "https://api.example.com/{secrets.account}/send?v=1", "from": "A\"B",
        "secrets": { "account": "a/../b?c", "key": "k3y" },
        "headers": { "X-Api-Key": "{secrets.key}", "Idempotency-Key": "{id}" },
        "query": { "text": "{text}" }, "json": json, "answer": { "id": "/id" },
    }))
    .expect("fine");
    let request = gateway.request(&VALUES).expect("a request");
    assert_eq!(request.uri.path(), "/a%2F..%2Fb%3Fc/send");
    assert_eq!(
        decoded(request.uri.query().expect("a query").as_bytes()),
        [("v".to_owned(), "1".to_owned()), ("text".to_owned(), TEXT.to_owned())]
    );
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(
        body,
        json!({ "messages": [{ "to": "+79991234567", "text": TEXT, "n": 1, "from": "«A\"B»" }], "dry": false })
    );
    assert_eq!(request.headers["idempotency-key"], VALUES.id);
    assert!(!format!("{:?} {gateway:?}", request.headers).contains("k3y"));
}

#[test]
fn a_get_carries_everything_in_its_query() {
    let gateway = gateway(json!({
        "method": "GET", "url": "http://127.0.0.1:1/send", "query": { "to": "{to}", "text": "{text}" },
        "answer": { "id": "/id" },
    }))
    .expect("fine");
    let request = gateway.request(&VALUES).expect("a request");
    assert_eq!((request.method, request.body.len()), (Method::GET, 0));
    assert_eq!(decoded(request.uri.query().expect("a query").as_bytes())[1].0, "to");
    let long = Values { text: &"я".repeat(40_000), ..VALUES };
    assert!(matches!(gateway.request(&long), Err(Outcome::Permanent { reason: PermanentReason::Content, .. })));
}

#[test]
fn secrets_are_cut_out_of_what_an_answer_repeats() {
    let gateway = gateway(json!({
        "url": "https://api.example.com", "form": { "key": "{secrets.key}" },
        "secrets": { "key": "s3cr&t", "short": "s3", "empty": "" },
        "answer": { "id": "/id", "error_code": ["/code"] },
    }))
    .expect("fine");
    for body in [r#"{"code": "key s3cr&t is wrong"}"#, "GET /?key=s3cr%26t", "s3cr&ts3"] {
        let outcome = answered(&gateway, 400, body);
        let said = format!("{outcome:?}");
        assert!(!said.contains("s3") && said.contains("***"), "{said}");
    }
}

#[test]
fn settings_that_cannot_work_are_named() {
    let good = json!({
        "url": "https://api.example.com", "secrets": { "key": "topsecret\n" }, "form": { "to": "{to}" },
        "answer": { "id": "/id" },
    });
    assert!(gateway(good.clone()).is_ok());
    let said = [
        json!({ "url": "api.example.com" }),
        json!({ "url": "https://{to}.example.com" }),
        json!({ "url": "https://a b" }),
        json!({ "form": {} }),
        json!({ "json": "{}" }),
        json!({ "form": {}, "json": "{to}" }),
        json!({ "form": {}, "json": "[\"{phone}\"]" }),
        json!({ "method": "GET" }),
        json!({ "form": { "sender": "{from}" } }),
        json!({ "headers": { "authorization": "Bearer {secrets.key}" } }),
        json!({ "headers": { "x y": "1" } }),
        json!({ "check_url": "ftp://x" }),
        json!({ "answer": { "id": "id" } }),
        json!({ "answer": { "id": "/id", "codes": { "3": "permanent billing" } } }),
        json!({ "answer": { "id": "/id", "codes": { "3": "down" } } }),
    ]
    .map(|change| {
        let mut settings = good.clone();
        settings.as_object_mut().expect("a table").extend(change.as_object().expect("a table").clone());
        gateway(settings).expect_err(&change.to_string()).to_string()
    });
    assert!(!said.join("").contains("topsecret"));
    insta::assert_snapshot!(said.join("\n"), @r"
    `sms.main.http.url` has to begin with http:// or https://
    `sms.main.http.url` may hold {from} and {secrets.<name>}, and not {to}
    `sms.main.http.url` does not fit into a URL
    `sms.main.http` needs either a form or json
    `sms.main.http` needs either a form or json
    `sms.main.http.json` is not JSON: key must be a string at line 1 column 2
    `sms.main.http.json` may hold {to}, {to_digits}, {text}, {id}, {from} and {secrets.<name>}, and not {phone}
    `sms.main.http.method` is GET, which carries neither a form nor JSON: put them into query
    `sms.main.http.form.sender` has {from}, and `from` is not given
    `sms.main.http.headers` hold what does not fit into a header
    `sms.main.http.headers.x y` is not the name of a header
    `sms.main.http.check_url` has to begin with http:// or https://
    `sms.main.http.answer.id` has to be a JSON pointer (RFC 6901) like /message/id
    `sms.main.http.answer.codes.3` expected one of recipient, opted_out, content, template, policy
    `sms.main.http.answer.codes.3` expected permanent REASON, transient, throttled SCOPE SECONDS, channel_down REASON or ambiguous
    ");
}

#[test]
fn a_truth_value_where_the_id_should_be_is_no_yes() {
    for body in [r#"{"id": false, "message": "rejected"}"#, r#"{"id": true}"#, r#"{"id": 0}"#, r#"{"id": null}"#] {
        let outcome = answered(&smsc(), 200, body);
        assert!(!matches!(outcome, Outcome::Accepted { .. }), "{body}: {outcome:?}");
    }
    assert!(matches!(answered(&smsc(), 200, r#"{"id": 7, "cnt": 1}"#), Outcome::Accepted { .. }));
}
