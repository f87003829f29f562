//! The simulator set and read over HTTP, and its record.

use serde_json::{Value, json};
use vestnik::simulator::{Simulator, SimulatorOptions, Taken};

use super::{get, send, start, telegram, whatsapp, whatsapp_text};

#[tokio::test]
async fn a_scenario_is_shown_and_replaced() {
    let simulator = start(json!({})).await;
    assert_eq!(get(&simulator, "/_sim/health").await.json()["status"], "ok");
    let mut scenario = get(&simulator, "/_sim/scenario").await.json();
    assert_eq!(scenario["whatsapp"]["tokens"], json!(["sim-token"]));
    scenario["whatsapp"]["recipients"]["+7 999 123-45-67"] = json!({ "error": 131050 });
    let answer = send(&simulator, "PUT", "/_sim/scenario", &scenario).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["whatsapp"]["recipients"]["79991234567"]["error"], "131050");
    assert_eq!(whatsapp(&simulator, &whatsapp_text("79991234567")).await.code(), 131050);
    // What is shown can be put back as it is.
    let shown = get(&simulator, "/_sim/scenario").await.json();
    assert_eq!(send(&simulator, "PUT", "/_sim/scenario", &shown).await.json(), shown);
}

#[tokio::test]
async fn wrong_input_is_refused_with_its_path_and_changes_nothing() {
    let simulator = start(json!({})).await;
    let before = get(&simulator, "/_sim/scenario").await.json();
    for (method, path, body, wrong) in [
        (
            "PUT",
            "/_sim/scenario",
            json!({ "whatsapp": { "faults": [{ "kind": "x", "share": 1 }] } }),
            "whatsapp.faults[0].kind",
        ),
        (
            "PUT",
            "/_sim/scenario",
            json!({ "whatsapp": { "errors": [{ "code": 5, "share": 1 }] } }),
            "whatsapp.errors[0].code",
        ),
        ("PUT", "/_sim/scenario", json!({ "pigeon": {} }), "pigeon"),
        (
            "POST",
            "/_sim/next",
            json!([{ "channel": "whatsapp", "ok": true }, { "channel": "pigeon", "ok": true }]),
            "[1].channel",
        ),
        ("POST", "/_sim/next", json!({ "channel": "telegram", "error": "nope" }), "[0].error"),
        ("POST", "/_sim/next", json!({ "channel": "telegram", "fualt": "hang" }), "[0].fualt"),
        ("POST", "/_sim/reset", json!({ "sed": 1 }), "sed"),
        ("GET", "/_sim/taken?limit=0", json!(null), "limit"),
        ("GET", "/_sim/taken?channel=pigeon", json!(null), "channel"),
        ("GET", "/_sim/taken?aftr=1", json!(null), "aftr"),
    ] {
        let answer = send(&simulator, method, path, &body).await;
        assert_eq!((answer.status, answer.json()["path"].as_str()), (400, Some(wrong)), "{path} {body}: {answer:?}");
        assert!(answer.json()["error"].as_str().is_some_and(|error| !error.is_empty()));
    }
    assert_eq!(get(&simulator, "/_sim/scenario").await.json(), before);
    assert_eq!(send(&simulator, "POST", "/_sim/scenario", &json!({})).await.status, 405);
    assert_eq!(get(&simulator, "/_sim/nothing").await.status, 404);
}

#[tokio::test]
async fn queued_outcomes_are_used_once_in_order() {
    let simulator = start(json!({})).await;
    let rules = json!([
        { "channel": "whatsapp", "error": 131016 },
        { "channel": "whatsapp", "recipient": "+79990000002", "error": 131026 },
        { "channel": "whatsapp", "ok": true },
        { "channel": "telegram", "error": "blocked" },
    ]);
    assert_eq!(send(&simulator, "POST", "/_sim/next", &rules).await.json(), json!({ "queued": 4 }));
    let mut statuses = Vec::new();
    for to in ["79990000001", "79990000001", "79990000002", "79990000002"] {
        statuses.push(whatsapp(&simulator, &whatsapp_text(to)).await.status);
    }
    assert_eq!(statuses, [503, 200, 400, 200]);
    let shown = get(&simulator, "/_sim/scenario").await.json();
    assert_eq!(
        (&shown["whatsapp"]["next"], &shown["telegram"]["next"]),
        (&json!([]), &json!([{ "error": "blocked" }]))
    );
    assert_eq!(telegram(&simulator, &json!({ "chat_id": 1, "text": "x" })).await.status, 403);
}

#[tokio::test]
async fn the_record_is_read_in_pages() {
    let simulator = start(json!({})).await;
    for n in 0..5 {
        whatsapp(&simulator, &whatsapp_text(&format!("7999000000{}", n % 2))).await;
        telegram(&simulator, &json!({ "chat_id": n + 1, "text": "x" })).await;
    }
    let page = async |query: &str| get(&simulator, &format!("/_sim/taken{query}")).await.json();
    let numbers = |page: &Value| -> Vec<u64> {
        page["items"].as_array().unwrap().iter().map(|item| item["n"].as_u64().unwrap()).collect()
    };
    let all = page("").await;
    assert_eq!((numbers(&all), &all["next"]), ((1..=10).collect(), &json!(null)));
    assert_eq!(all["items"][0]["ourId"], "id-79990000000");
    assert_eq!(all["items"][1]["ourId"], json!(null));
    let first = page("?limit=4").await;
    assert_eq!((numbers(&first), &first["next"]), (vec![1, 2, 3, 4], &json!(4)));
    let rest = page("?after=4&limit=100").await;
    assert_eq!(numbers(&rest), [5, 6, 7, 8, 9, 10]);
    assert_eq!(numbers(&page("?channel=telegram").await), [2, 4, 6, 8, 10]);
    assert_eq!(numbers(&page("?channel=whatsapp&recipient=79990000001").await), [3, 7]);
    assert_eq!(numbers(&page("?recipient=+79990000001").await), [3, 7]);
    assert_eq!(numbers(&page("?after=10").await), [0; 0]);
    assert_eq!(numbers(&page("?newest=true&limit=3").await), [10, 9, 8]);
    assert_eq!(numbers(&page("?search=%D0%9F%D0%A0%D0%98%D0%92%D0%95%D0%A2&limit=2").await), [1, 3]);
    assert_eq!(get(&simulator, "/_sim/taken/3").await.json()["n"], 3);
    assert_eq!(get(&simulator, "/_sim/taken/11").await.status, 404);
}

#[tokio::test]
async fn a_reset_starts_over() {
    let simulator = start(json!({})).await;
    let id = |answer: super::Answer| answer.json()["messages"][0]["id"].clone();
    let first = id(whatsapp(&simulator, &whatsapp_text("79990000001")).await);
    assert_eq!(send(&simulator, "POST", "/_sim/reset", &json!({})).await.status, 200);
    let stats = get(&simulator, "/_sim/stats").await.json();
    assert_eq!((&stats["requests"], &stats["taken"]), (&json!(0), &json!(0)));
    assert_eq!(id(whatsapp(&simulator, &whatsapp_text("79990000001")).await), first);
    assert_eq!(send(&simulator, "POST", "/_sim/reset", &json!({ "seed": 5 })).await.json(), json!({ "seed": 5 }));
    assert_ne!(id(whatsapp(&simulator, &whatsapp_text("79990000001")).await), first);
}

#[tokio::test]
async fn refusals_are_counted_by_their_code() {
    let simulator = start(json!({ "whatsapp": { "recipients": { "79990000001": { "error": 131026 } } } })).await;
    for body in [whatsapp_text("79990000001"), whatsapp_text("79990000001"), whatsapp_text("x"), json!({})] {
        whatsapp(&simulator, &body).await;
    }
    get(&simulator, "/bot1:x/getMe").await;
    let stats = get(&simulator, "/_sim/stats").await.json();
    let whatsapp = &stats["channels"]["whatsapp"];
    assert_eq!(whatsapp["refused"], json!({ "100": 1, "131009": 1, "131026": 2 }));
    assert_eq!((&whatsapp["requests"], &whatsapp["taken"]), (&json!(4), &json!(0)));
    assert_eq!(stats["channels"]["telegram"]["refused"], json!({ "unauthorized": 1 }));
}

#[tokio::test]
async fn the_file_says_what_the_memory_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("taken.ndjson");
    let options = SimulatorOptions { record_file: Some(path.clone()), ..SimulatorOptions::default() };
    let simulator = Simulator::start(options).await.unwrap();
    for n in 0..20 {
        whatsapp(&simulator, &whatsapp_text(&format!("799900000{n:02}"))).await;
    }
    let taken = simulator.taken();
    simulator.stop().await;
    let written: Vec<Taken> =
        std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(written, taken);
}

#[tokio::test]
async fn the_command_refuses_an_address_that_others_can_reach() {
    let cli = <vestnik::cli::Cli as clap::Parser>::parse_from(["vestnik", "simulator", "--listen", "0.0.0.0:0"]);
    let vestnik::cli::Command::Simulator(args) = cli.command else { panic!("another command") };
    let printer = vestnik::cli::Printer::new(false);
    let error = vestnik::cli::simulator::run(args, printer).await.unwrap_err();
    assert!(error.to_string().contains("--allow-remote"), "{error}");
}

#[tokio::test]
async fn a_scenario_that_makes_no_sense_does_not_start() {
    let options = SimulatorOptions {
        scenario: serde_json::from_value(json!({ "telegram": { "latencyMs": -1 } })).unwrap(),
        ..SimulatorOptions::default()
    };
    let error = Simulator::start(options).await.err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().starts_with("telegram.latencyMs"), "{error}");
}

#[tokio::test]
async fn a_scenario_may_name_very_many_recipients() {
    let simulator = start(json!({})).await;
    let rules: serde_json::Map<_, _> =
        (0..50_000).map(|n| (format!("799900{n:05}"), json!({ "error": 131026 }))).collect();
    let answer = send(&simulator, "PUT", "/_sim/scenario", &json!({ "whatsapp": { "recipients": rules } })).await;
    assert_eq!(answer.status, 200);
    assert_eq!(whatsapp(&simulator, &whatsapp_text("79990049999")).await.code(), 131026);
}
