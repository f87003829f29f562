//! Is it alive, may it be sent requests, how does it do.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Api;

/// Whether requests should come here.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Readiness {
    ready: bool,
    /// `ok`, or what is wrong.
    ledger: &'static str,
    /// `sqlite` or `postgres`.
    engine: &'static str,
    stopping: bool,
}

/// The process answers.
#[utoipa::path(get, path = "/health/live", tag = "operations", responses((status = 200, description = "It lives")))]
pub(super) async fn live() -> &'static str {
    "ok"
}

/// Whether the ledger answers and new work is taken.
#[utoipa::path(
    get, path = "/health/ready", tag = "operations",
    responses((status = 200, body = Readiness, description = "Ready"), (status = 503, body = Readiness, description = "Not ready"))
)]
pub(super) async fn ready(State(api): State<Api>) -> Response {
    let ledger = api.store.ping().await;
    let stopping = api.stopping.is_cancelled();
    let readiness = Readiness {
        ready: ledger.is_ok() && !stopping,
        ledger: if ledger.is_ok() { "ok" } else { "does not answer" },
        engine: api.store.engine(),
        stopping,
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// Figures in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "Prometheus text format", content_type = "text/plain"))
)]
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    if let Ok(totals) = api.store.totals().await {
        for status in crate::domain::Status::ALL.iter().filter(|status| !status.in_flight()) {
            gauge("vestnik_notifications", status.as_str(), totals.of(*status));
        }
        gauge("vestnik_notifications", "in_flight", totals.in_flight());
        metrics::gauge!("vestnik_notifications_accepted").set(as_float(totals.accepted));
    }
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, api.metrics.render()).into_response()
}

fn gauge(name: &'static str, status: &'static str, value: i64) {
    metrics::gauge!(name, "status" => status).set(as_float(value));
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts beyond 2^52 may be off by one")]
fn as_float(value: i64) -> f64 {
    value as f64
}
