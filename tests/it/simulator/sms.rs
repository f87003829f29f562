//! What Twilio and the gateway take and how they refuse.

use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use vestnik::domain::{Channel, ManualClock};
use vestnik::simulator::{Simulator, twilio};

use super::{Answer, exchange, request, start, start_at};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

fn path() -> String {
    format!("/2010-04-01/Accounts/{}/Messages.json", twilio::DEFAULT_ACCOUNT_SID)
}

fn authorization(user: &str, secret: &str) -> String {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{secret}"));
    format!("Authorization: Basic {pair}\r\n")
}

fn ours() -> String {
    authorization(twilio::DEFAULT_ACCOUNT_SID, twilio::DEFAULT_TOKEN)
}

/// `form` is written as it goes over the wire.
pub(super) async fn twilio_send(simulator: &Simulator, form: &str) -> Answer {
    exchange(simulator, &request("POST", &path(), &format!("{FORM}{}", ours()), form)).await.unwrap()
}

async fn look(simulator: &Simulator, path: &str) -> Answer {
    exchange(simulator, &request("GET", path, &ours(), "")).await.unwrap()
}

#[tokio::test]
async fn a_message_is_taken_and_answered_as_twilio_does() {
    let simulator = start(json!({})).await;
    let answer = twilio_send(&simulator, "To=%2B79991234567&From=%2B15005550006&Body=%D0%9F%D1%80%D0%B8").await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let body = answer.json();
    let sid = body["sid"].as_str().unwrap();
    assert!(sid.starts_with("SM") && sid.len() == 34, "{sid}");
    assert_eq!(
        (&body["status"], &body["num_segments"], &body["error_code"]),
        (&json!("queued"), &json!("1"), &Value::Null)
    );
    assert_eq!(
        (&body["to"], &body["from"], &body["body"]),
        (&json!("+79991234567"), &json!("+15005550006"), &json!("При"))
    );
    let taken = &simulator.taken()[0];
    assert_eq!(
        (taken.channel, taken.recipient.as_str(), taken.provider_message_id.as_str()),
        (Channel::Sms, "79991234567", sid)
    );
    let sms = taken.sms.as_ref().unwrap();
    assert_eq!((sms.encoding.as_str(), sms.segments, sms.from.as_deref()), ("UCS-2", 1, Some("+15005550006")));

    let service = format!("To=whatsapp:%2B79991234567&MessagingServiceSid=MG{}&Body=x", "0".repeat(32));
    let body = twilio_send(&simulator, &service).await.json();
    assert_eq!(
        (&body["status"], &body["from"], &body["to"]),
        (&json!("accepted"), &Value::Null, &json!("whatsapp:+79991234567"))
    );
    assert_eq!(twilio_send(&simulator, "To=%2B79991234567&From=VESTNIK&Body=x").await.status, 201);
}

#[tokio::test]
async fn a_wrong_message_is_refused_with_twilios_numbers() {
    let simulator = start(json!({})).await;
    let (to, from) = ("To=%2B79991234567", "From=%2B15005550006");
    for (form, code) in [
        (format!("{from}&Body=x"), 21604),
        (format!("To=79991234567&{from}&Body=x"), 21211),
        (format!("To=%2B0991234567&{from}&Body=x"), 21211),
        (format!("{to}&Body=x"), 21603),
        (format!("{to}&From=%2B1&Body=x"), 21212),
        (format!("{to}&From=whatsapp:%2B15005550006&Body=x"), 21910),
        (format!("{to}&From=%2B79991234567&Body=x"), 21266),
        (format!("{to}&MessagingServiceSid=MG1&Body=x"), 21705),
        (format!("{to}&{from}"), 21602),
        (format!("{to}&{from}&Body={}", "x".repeat(1601)), 21617),
        (format!("{to}&{from}&Body=x&StatusCallback=http://a_b.example/"), 21609),
        (format!("{to}&{from}&Body=x&StatusCallback=/relative"), 21609),
        (format!("{to}&{from}&Body=x&ValidityPeriod=36001"), 21624),
        (format!("{to}&{from}&ContentSid=HX1"), 21654),
        (format!("{to}&{from}&Body=x&SendAt=2027-01-01T00:00:00Z"), 35118),
    ] {
        let answer = twilio_send(&simulator, &form).await;
        let body = answer.json();
        assert_eq!((answer.status, &body["code"], &body["status"]), (400, &json!(code), &json!(400)), "{form}");
        assert_eq!(body["more_info"], format!("https://www.twilio.com/docs/errors/{code}"));
    }
    let body = json!({ "To": "+79991234567", "From": "+15005550006", "Body": "x" }).to_string();
    let as_json = request("POST", &path(), &format!("Content-Type: application/json\r\n{}", ours()), &body);
    assert_eq!(exchange(&simulator, &as_json).await.unwrap().json()["code"], 21604);
    assert_eq!(simulator.taken_count(), 0);
    assert_eq!(twilio_send(&simulator, &format!("{to}&{from}&Body={}", "x".repeat(1600))).await.status, 201);
}

#[tokio::test]
async fn credentials_paths_and_accounts_are_checked() {
    let key = format!("SK{}", "1".repeat(32));
    let (suspended, sid) = (format!("AC{}", "a".repeat(32)), twilio::DEFAULT_ACCOUNT_SID);
    let simulator = start(json!({ "sms": { "senders": ["+15005550006"], "accounts": [
        { "sid": sid, "token": "t", "apiKeys": { key.clone(): "s" } },
        { "sid": suspended, "token": "t", "status": "suspended" },
    ] } }))
    .await;
    let send = async |sid: &str, headers: String, form: &str| {
        let path = format!("/2010-04-01/Accounts/{sid}/Messages.json");
        let answer = exchange(&simulator, &request("POST", &path, &format!("{FORM}{headers}"), form)).await.unwrap();
        (answer.status, answer.json()["code"].as_u64().unwrap_or_default())
    };
    let form = "To=%2B79991234567&From=%2B15005550006&Body=x";
    assert_eq!(send(sid, authorization(sid, "t"), form).await, (201, 0));
    assert_eq!(send(sid, authorization(&key, "s"), form).await, (201, 0));
    assert_eq!(send(sid, authorization(sid, "x"), form).await, (401, 20003));
    assert_eq!(send(sid, String::new(), form).await, (401, 20003));
    assert_eq!(send(&suspended, authorization(sid, "t"), form).await, (404, 20404));
    assert_eq!(send(&suspended, authorization(&suspended, "t"), form).await, (403, 20005));
    assert_eq!(send(sid, authorization(sid, "t"), "To=%2B79991234567&From=%2B15005550007&Body=x").await, (400, 21606));
    assert_eq!(send(sid, authorization(sid, "t"), "To=%2B79991234567&From=OTHER&Body=x").await, (400, 21659));
    let path = format!("/2010-04-01/Accounts/{suspended}.json");
    let answer = exchange(&simulator, &request("GET", &path, &authorization(&suspended, "t"), "")).await.unwrap();
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("suspended")));
}

#[tokio::test]
async fn limits_count_segments_and_refusals_follow_the_scenario() {
    let clock = std::sync::Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
    let simulator = start_at(
        json!({ "sms": {
            "rateLimits": { "perSecond": 1, "burst": 4 },
            "recipients": { "+7 999 000-00-01": { "error": 21610 }, "79990000002": { "fault": "server_error_json" } },
        } }),
        clock.clone(),
    )
    .await;
    let send = async |to: &str, from: &str, text: &str| {
        let answer = twilio_send(&simulator, &format!("To=%2B{to}&From={from}&Body={text}")).await;
        (answer.status, answer.json()["code"].as_u64().unwrap_or_default())
    };
    assert_eq!(send("79990000003", "ONE", &"x".repeat(400)).await, (201, 0), "three parts of four");
    assert_eq!(send("79990000003", "ONE", &"x".repeat(200)).await, (429, 21611));
    assert_eq!(send("79990000003", "TWO", "x").await, (201, 0), "another sender has its own");
    clock.advance(Duration::from_secs(1));
    assert_eq!(send("79990000003", "ONE", &"x".repeat(200)).await, (201, 0));
    assert_eq!(send("79990000001", "ONE", "x").await, (400, 21610));
    assert_eq!(send("79990000002", "ONE", "x").await, (500, 20500));
}

#[tokio::test]
async fn a_message_can_be_looked_at_and_looked_for() {
    let clock = std::sync::Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
    let scenario = json!({ "sms": {
        "recipients": { "79990000002": { "ok": true, "receipt": "failed" } },
        "receipts": { "sentAfterMs": 1000, "deliveredAfterMs": 1000, "failedCode": 30007 },
    } });
    let simulator = start_at(scenario, clock.clone()).await;
    let mut sids = Vec::new();
    for to in ["79990000001", "79990000002"] {
        let answer = twilio_send(&simulator, &format!("To=%2B{to}&From=ONE&Body=x")).await;
        sids.push(answer.json()["sid"].as_str().unwrap().to_owned());
    }
    let status = async |sid: &str| {
        let path = path().replace(".json", &format!("/{sid}.json"));
        let body = look(&simulator, &path).await.json();
        (body["status"].as_str().unwrap_or_default().to_owned(), body["error_code"].clone())
    };
    assert_eq!(status(&sids[0]).await, ("queued".to_owned(), Value::Null));
    clock.advance(Duration::from_secs(1));
    assert_eq!(status(&sids[0]).await, ("sent".to_owned(), Value::Null));
    clock.advance(Duration::from_secs(1));
    assert_eq!(status(&sids[0]).await, ("delivered".to_owned(), Value::Null));
    assert_eq!(status(&sids[1]).await, ("undelivered".to_owned(), json!(30007)));
    let unknown = path().replace(".json", &format!("/SM{}.json", "0".repeat(32)));
    assert_eq!(look(&simulator, &unknown).await.json()["code"], 20404);
    let listed = look(&simulator, &format!("{}?To=%2B79990000002&DateSent=2026-01-01", path())).await.json();
    assert_eq!((listed["messages"].as_array().unwrap().len(), &listed["messages"][0]["sid"]), (1, &json!(sids[1])));
    let listed = look(&simulator, &format!("{}?From=TWO", path())).await.json();
    assert_eq!(listed["messages"], json!([]));
}

#[tokio::test]
async fn the_gateway_answers_200_whatever_it_thinks() {
    let simulator = start(json!({ "sms": { "recipients": { "79990000002": { "error": 21610 } } } })).await;
    let send = async |form: &str| {
        let answer = exchange(&simulator, &request("POST", "/sys/send.php", FORM, form)).await.unwrap();
        assert_eq!(answer.status, 200);
        answer.json()
    };
    let login = "login=sim&psw=sim-password&fmt=3";
    let body = send(&format!("{login}&phones=%2B79990000001&mes=%D0%9F&id=ours-1&sender=VESTNIK")).await;
    assert_eq!(body["cnt"], 1);
    let taken = &simulator.taken()[0];
    assert_eq!(
        (taken.our_id.as_deref(), taken.provider_message_id.as_str()),
        (Some("ours-1"), body["id"].to_string().as_str())
    );
    assert_eq!(taken.sms.as_ref().unwrap().provider, "smsc");
    for (form, code) in [
        ("login=sim&psw=x&fmt=3&phones=79990000001&mes=x".to_owned(), 2),
        (format!("{login}&phones=79990000001"), 1),
        (format!("{login}&phones=12&mes=x"), 7),
        ("apikey=sim-api-key&fmt=3&phones=79990000002&mes=x".to_owned(), 8),
    ] {
        assert_eq!(send(&form).await["error_code"], code, "{form}");
    }
    let query = format!("/sys/send.php?{login}&phones=79990000001&mes=x");
    assert_eq!(exchange(&simulator, &request("GET", &query, "", "")).await.unwrap().json()["cnt"], 1);
}
