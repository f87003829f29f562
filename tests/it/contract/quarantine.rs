//! What could not be read is kept once, counted, and forgotten in time, on SQLite and PostgreSQL alike.

use std::time::Duration;

use jiff::Timestamp;
use vestnik::store::Quarantined;

use crate::support::ledger::{TestLedger, promises};

promises!(the_same_is_kept_once_and_counted, what_is_old_goes_in_steps);

fn poison(body: &str, received_at: Timestamp) -> Quarantined {
    Quarantined {
        received_at,
        source: "whatsapp.send".into(),
        reason: "invalid_json".into(),
        content_type: None,
        body: body.into(),
        body_size: body.len() as u64,
        times: 1,
    }
}

async fn kept(ledger: &TestLedger) -> Vec<(String, u64)> {
    let page = ledger.store().quarantined(None, 100).await.unwrap();
    assert_eq!(ledger.store().quarantined_count().await.unwrap(), page.items.len() as u64);
    let mut kept: Vec<_> =
        page.items.into_iter().map(|(_, one)| (String::from_utf8(one.body).unwrap(), one.times)).collect();
    kept.sort_unstable();
    kept
}

async fn the_same_is_kept_once_and_counted(ledger: TestLedger) {
    let now = ledger.now();
    ledger.store().quarantine(vec![poison("a", now), poison("b", now)]).await.unwrap();
    ledger.store().quarantine(vec![poison("a", now)]).await.unwrap();
    assert_eq!(kept(&ledger).await, [("a".into(), 2), ("b".into(), 1)]);
}

async fn what_is_old_goes_in_steps(ledger: TestLedger) {
    let now = ledger.now();
    let old = now - Duration::from_secs(60);
    let poison = ["a", "b", "c"].map(|body| poison(body, old)).into_iter().chain([poison("new", now)]);
    ledger.store().quarantine(poison.collect()).await.unwrap();
    assert_eq!(ledger.store().drop_old_quarantined(now, 2).await.unwrap(), 2);
    assert_eq!(ledger.store().drop_old_quarantined(now, 2).await.unwrap(), 1);
    assert_eq!(kept(&ledger).await, [("new".into(), 1)]);
}
