//! A ledger that is not what this program knows, or would not keep its promises, is refused with the reason.

use std::sync::Arc;

use vestnik::store::{Store, StoreError, connect};

use crate::support::ledger::{TestLedger, promises};

promises!(reopening_is_fine, a_changed_migration_stops_the_start, a_newer_ledger_stops_the_start,);

async fn reopening_is_fine(mut ledger: TestLedger) {
    for _ in 0..3 {
        ledger.reopen().await;
    }
    let applied = ledger.raw_column("SELECT version AS c FROM schema_migrations").await;
    let once: std::collections::BTreeSet<_> = applied.iter().collect();
    assert_eq!(once.len(), applied.len(), "each once");
}

fn setup_text(opened: Result<Arc<dyn Store>, StoreError>) -> String {
    match opened {
        Err(StoreError::Setup(text)) => text,
        Err(other) => panic!("another error: {other:?}"),
        Ok(_) => panic!("it was opened"),
    }
}

async fn a_changed_migration_stops_the_start(mut ledger: TestLedger) {
    ledger.raw("UPDATE schema_migrations SET sha256 = 'another'").await;
    ledger.close();
    let text = setup_text(ledger.connect().await);
    assert!(text.contains("0001_ledger") && text.contains("changed"), "{text}");
}

async fn a_newer_ledger_stops_the_start(mut ledger: TestLedger) {
    ledger.raw("INSERT INTO schema_migrations (version, sha256, applied_at) SELECT 999, 'x', max(applied_at) FROM schema_migrations").await;
    ledger.close();
    let text = setup_text(ledger.connect().await);
    assert!(text.contains("999") && text.contains("newer"), "{text}");
}

#[tokio::test]
async fn a_second_process_on_the_sqlite_folder_is_refused() {
    let mut ledger = TestLedger::sqlite().await;
    let text = setup_text(ledger.connect().await);
    assert!(text.contains("another vestnik process") && text.contains("DATABASE_URL"), "{text}");
    assert!(text.contains(&*ledger.dir.path().to_string_lossy()), "{text}");
    ledger.close();
    ledger.connect().await.unwrap();
}

#[tokio::test]
async fn postgres_that_does_not_wait_for_the_disk_is_refused() {
    let Some(ledger) = TestLedger::postgres().await else { return };
    let name = ledger.database.as_ref().expect("it is on PostgreSQL").name().to_owned();
    ledger.raw(&format!("ALTER DATABASE {name} SET synchronous_commit = off")).await;
    let text = setup_text(ledger.connect().await);
    assert!(text.contains("synchronous_commit = off"), "{text}");
    ledger.raw(&format!("ALTER DATABASE {name} RESET synchronous_commit")).await;
    ledger.connect().await.unwrap();
}

/// Debian's server offers TLS with a certificate of its own making.
#[tokio::test]
async fn a_server_on_this_machine_needs_no_certificate() {
    let Some(mut ledger) = TestLedger::postgres().await else { return };
    let url = ledger.database.as_ref().expect("it is on PostgreSQL").url();
    ledger.close();
    ledger.options.database_url = Some(url.replace("?sslmode=disable", "").into());
    ledger.connect().await.unwrap();
}

#[tokio::test]
async fn two_processes_that_start_at_once_migrate_once() {
    let Some(database) = crate::support::postgres::TestDatabase::create().await else { return };
    let Some(ledger) = TestLedger::postgres().await else { return };
    let mut options = ledger.options.clone();
    options.database_url = Some(database.url().into());
    let starts = (0..4).map(|_| connect(&options, ledger.clock.clone()));
    for store in futures::future::join_all(starts).await {
        store.unwrap();
    }
}
