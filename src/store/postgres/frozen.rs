//! Sessions of processes that stopped amid a `COPY`.
//!
//! The server keeps its time limits between messages, and not while it reads the rows of a `COPY`: a process that is
//! frozen there would hold the rows that it has changed until it thaws, and nobody could settle them. An order to end
//! its session reaches it (`ProcessClientReadInterrupt` in PostgreSQL's `src/backend/tcop/postgres.c`).

use std::time::Duration;

use deadpool_postgres::Object;

use super::connection::from_postgres;
use crate::store::StoreError;

pub(super) const DOING: &str = "ending sessions of frozen processes";

/// Ends our sessions of which the server has awaited rows for longer than `limit`.
pub(super) async fn end_frozen(client: &Object, limit: Duration) -> Result<(), StoreError> {
    // Of our own role, which is allowed to; others' sessions show no state.
    const SQL: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND usename = current_user AND application_name = 'vestnik'
            AND state = 'active' AND wait_event = 'ClientRead'
            AND query_start < clock_timestamp() - make_interval(secs => $1)";
    let failed = |error| from_postgres(DOING, error);
    let statement = client.prepare_cached(SQL).await.map_err(failed)?;
    let ended = client.query(&statement, &[&limit.as_secs_f64()]).await.map_err(failed)?;
    if !ended.is_empty() {
        tracing::warn!(sessions = ended.len(), "ended sessions of processes that stopped amid a write");
    }
    Ok(())
}
