//! Scenarios as files: the ones that come along, and what they promise.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use vestnik::domain::ManualClock;
use vestnik::simulator::{Scenario, Simulator, SimulatorOptions};

use super::{get, start_at, whatsapp, whatsapp_text};

#[tokio::test]
async fn every_sample_can_be_played_and_played_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/scenarios");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        names.push(entry.file_name().into_string().unwrap());
        let mut scenario = Scenario::parse(&std::fs::read(entry.path()).unwrap()).unwrap();
        // Neither time nor the connection may play a part in what is compared.
        scenario.whatsapp.faults.clear();
        scenario.whatsapp.latency_ms = vestnik::simulator::Latency::Fixed(0.0);
        let mut runs = Vec::new();
        for _ in 0..2 {
            let options = SimulatorOptions { scenario: scenario.clone(), ..SimulatorOptions::default() };
            let simulator = Simulator::start(options).await.unwrap();
            let mut run = Vec::new();
            for n in 0..15 {
                run.push(whatsapp(&simulator, &whatsapp_text(&format!("799900000{n:02}"))).await.body);
            }
            runs.push(run);
        }
        let answers =
            |run: &Vec<Vec<u8>>| run.iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect::<Vec<_>>();
        assert_eq!(answers(&runs[0]), answers(&runs[1]), "{names:?}");
    }
    names.sort();
    assert_eq!(names, ["bad-day.json", "good-day.json", "provider-outage.json"]);
}

#[tokio::test]
async fn a_scenario_changes_with_time() {
    let clock = Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
    let scenario = json!({ "phases": [
        { "afterMs": 1000, "whatsapp": { "errors": [{ "code": 131016, "share": 1 }] } },
        { "afterMs": 2000 },
    ] });
    let simulator = start_at(scenario.clone(), clock.clone()).await;
    let status = async || whatsapp(&simulator, &whatsapp_text("79990000001")).await.status;
    assert_eq!(status().await, 200);
    clock.advance(Duration::from_secs(1));
    assert_eq!(status().await, 503);
    assert_eq!(get(&simulator, "/_sim/scenario").await.json()["phases"], scenario["phases"]);
    clock.advance(Duration::from_secs(1));
    assert_eq!(status().await, 200);
    simulator.reset(None);
    clock.advance(Duration::from_millis(1500));
    assert_eq!(status().await, 503, "a reset begins the time anew");
}

#[tokio::test]
async fn the_scenario_of_the_manual_can_be_played() {
    let manual = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/simulator.md")).unwrap();
    let (_, json) = manual.split_once("```json\n").unwrap();
    let (json, _) = json.split_once("```").unwrap();
    let scenario = Scenario::parse(json.as_bytes()).unwrap();
    assert_eq!((scenario.seed, scenario.phases.len()), (Some(7), 2));
}
