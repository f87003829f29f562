//! Processes on one ledger wake each other, and find each other again when the line between them broke.

use vestnik::store::Store;

use crate::support::eventually::LONG;
use crate::support::ledger::{TestLedger, new_epoch};
use crate::support::postgres;

async fn is_told(store: &dyn Store, what: &str) {
    assert!(tokio::time::timeout(LONG, store.due_elsewhere()).await.is_ok(), "it was not told: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_accepts_another_is_told() {
    let Some(ledger) = TestLedger::postgres().await else { return };
    let other = ledger.connect().await.unwrap();
    other.begin_epoch(new_epoch("other")).await.unwrap();
    is_told(&*other, "it begins to hear").await;
    let accept = async || {
        ledger.accept(vec![ledger.notification(ledger.due_now())]).await;
        ledger.store().tell_of_due();
    };
    for _ in 0..3 {
        accept().await;
        is_told(&*other, "something is due").await;
    }

    let server = postgres::connect(&ledger.database.as_ref().unwrap().url()).await.unwrap();
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    for _ in 0..2 {
        assert_eq!(server.query(kill, &[]).await.unwrap().len(), 1, "one connection hears");
        is_told(&*other, "it hears again, and may have missed a word").await;
        accept().await;
        is_told(&*other, "something is due, after its connection was killed").await;
    }
}
