//! Rate limits in the providers' words, and chance that does not depend on who comes first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use vestnik::domain::ManualClock;

use super::{start, start_at, telegram, whatsapp, whatsapp_text};

fn still_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()))
}

#[tokio::test]
async fn whatsapp_throttles_the_number_and_the_pair() {
    let clock = still_clock();
    let scenario = json!({ "whatsapp": {
        "rateLimits": { "perSecond": 10, "burst": 3, "perRecipientPerSecond": 1, "perRecipientBurst": 2 },
        "recipients": { "79990000009": { "ok": true } },
    } });
    let simulator = start_at(scenario, clock.clone()).await;
    let (first, second) = (whatsapp_text("79990000001"), whatsapp_text("79990000002"));
    for _ in 0..2 {
        assert_eq!(whatsapp(&simulator, &first).await.status, 200);
    }
    let answer = whatsapp(&simulator, &first).await;
    assert_eq!((answer.status, answer.code()), (429, 131056));
    assert_eq!(whatsapp(&simulator, &second).await.status, 200);
    let answer = whatsapp(&simulator, &second).await;
    assert_eq!((answer.status, answer.code()), (429, 130429));
    // A rule by address comes before the limits.
    assert_eq!(whatsapp(&simulator, &whatsapp_text("79990000009")).await.status, 200);
    clock.advance(Duration::from_millis(100));
    assert_eq!(whatsapp(&simulator, &second).await.status, 200);
    assert_eq!(simulator.taken_count(), 5);
}

#[tokio::test]
async fn telegram_says_when_to_come_back() {
    let clock = still_clock();
    let scenario = json!({ "telegram": { "rateLimits": { "perSecond": 0.4 } } });
    let simulator = start_at(scenario, clock.clone()).await;
    let body = json!({ "chat_id": 1, "text": "x" });
    assert_eq!(telegram(&simulator, &body).await.status, 200);
    let answer = telegram(&simulator, &body).await;
    assert_eq!((answer.status, answer.description().as_str()), (429, "Too Many Requests: retry after 3"));
    assert_eq!(answer.json()["parameters"]["retry_after"], 3);
    assert!(answer.head.contains("Retry-After: 3"));
    clock.advance(Duration::from_secs(3));
    assert_eq!(telegram(&simulator, &body).await.status, 200);
}

#[tokio::test]
async fn concurrency_does_not_change_who_fails() {
    let scenario = json!({ "whatsapp": { "errors": [
        { "code": 131026, "share": 0.3 }, { "code": 131016, "share": 0.2 },
    ] } });
    let recipients: Vec<_> = (0..100).map(|n| format!("79990000{n:03}")).collect();
    let one_by_one = start(scenario.clone()).await;
    let mut expected = BTreeMap::new();
    for to in &recipients {
        expected.insert(to.clone(), whatsapp(&one_by_one, &whatsapp_text(to)).await.status);
    }
    let all_at_once = start(scenario).await;
    let sends = recipients.iter().rev().map(async |to| {
        let status = whatsapp(&all_at_once, &whatsapp_text(to)).await.status;
        (to.clone(), status)
    });
    let seen: BTreeMap<_, _> = futures::future::join_all(sends).await.into_iter().collect();
    assert_eq!(seen, expected);
    let statuses: std::collections::BTreeSet<_> = expected.values().collect();
    assert_eq!(statuses.into_iter().copied().collect::<Vec<_>>(), [200, 400, 503]);
    // The same after a reset; with another seed, others.
    all_at_once.reset(None);
    for to in &recipients {
        assert_eq!(whatsapp(&all_at_once, &whatsapp_text(to)).await.status, expected[to]);
    }
    all_at_once.reset(Some(2));
    let mut others = BTreeMap::new();
    for to in &recipients {
        others.insert(to.clone(), whatsapp(&all_at_once, &whatsapp_text(to)).await.status);
    }
    assert_ne!(others, expected);
}
