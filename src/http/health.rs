//! Is it alive, may it be sent requests, how does it do.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;

use super::Api;
use super::queues::{DownView, QueueView};
use crate::delivery::LaneNow;

/// Whether requests should come here, and what an operator should know.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Readiness {
    ready: bool,
    /// `ok`, or what is wrong.
    ledger: &'static str,
    /// `sqlite` or `postgres`.
    engine: &'static str,
    stopping: bool,
    /// While it is down or blocked, requests are accepted all the same, and wait.
    queue: QueueView,
    /// Absent when the ledger does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog: Option<BacklogView>,
    /// Accounts that cannot send.
    accounts_down: Vec<AccountDownView>,
}

/// What is to leave and has not begun.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct BacklogView {
    /// Its time has come, handed over or not.
    due: u64,
    /// It waits for its time.
    later: u64,
    /// How long the oldest has been due.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_due_seconds: Option<f64>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct AccountDownView {
    /// `whatsapp.main`.
    account: String,
    #[serde(flatten)]
    down: DownView,
}

/// The process answers.
#[utoipa::path(get, path = "/health/live", tag = "operations", responses((status = 200, description = "It lives")))]
pub(super) async fn live() -> &'static str {
    "ok"
}

/// Whether the ledger answers and new work is taken.
///
/// A queue that is down, a backlog and accounts that cannot send are told, and make it no less ready.
#[utoipa::path(
    get, path = "/health/ready", tag = "operations",
    responses((status = 200, body = Readiness, description = "Ready"), (status = 503, body = Readiness, description = "Not ready"))
)]
pub(super) async fn ready(State(api): State<Api>) -> Response {
    let ledger = api.store.ping().await;
    let lanes = if ledger.is_ok() { api.delivery.backlog().await.ok() } else { None };
    let stopping = api.stopping.is_cancelled();
    let accounts_down = api
        .delivery
        .accounts_down()
        .into_iter()
        .filter_map(|(account, down)| Some(AccountDownView { account: account.to_string(), down: down?.into() }));
    let readiness = Readiness {
        ready: ledger.is_ok() && !stopping,
        ledger: if ledger.is_ok() { "ok" } else { "does not answer" },
        engine: api.store.engine(),
        stopping,
        queue: api.delivery.queue_now().into(),
        backlog: lanes.map(|lanes| BacklogView {
            due: lanes.iter().map(|lane| lane.due + lane.handed).sum(),
            later: lanes.iter().map(|lane| lane.later).sum(),
            oldest_due_seconds: oldest_due(&lanes).map(|oldest| seconds_since(&api, oldest)),
        }),
        accounts_down: accounts_down.collect(),
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
    if let Ok(lanes) = api.delivery.backlog().await {
        for lane in &lanes {
            let states =
                [("due", lane.due), ("later", lane.later), ("paused", lane.paused), ("handed_over", lane.handed)];
            for (state, count) in states {
                metrics::gauge!(
                    "vestnik_queue_waiting",
                    "channel" => lane.channel.as_str(), "lane" => lane.priority.as_str(), "state" => state
                )
                .set(count as f64);
            }
        }
        let oldest = oldest_due(&lanes).map_or(0.0, |oldest| seconds_since(&api, oldest));
        metrics::gauge!("vestnik_queue_oldest_due_seconds").set(oldest);
    }
    for (account, down) in api.delivery.accounts_down() {
        metrics::gauge!("vestnik_account_down", "account" => account.to_string()).set(u8::from(down.is_some()));
    }
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, api.metrics.render()).into_response()
}

fn oldest_due(lanes: &[LaneNow]) -> Option<Timestamp> {
    lanes.iter().filter_map(|lane| lane.oldest_due).min()
}

fn seconds_since(api: &Api, at: Timestamp) -> f64 {
    let seconds = api.clock.now().duration_since(at).as_secs_f64().max(0.0);
    (seconds * 10.0).round() / 10.0
}

fn gauge(name: &'static str, status: &'static str, value: i64) {
    metrics::gauge!(name, "status" => status).set(as_float(value));
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts beyond 2^52 may be off by one")]
fn as_float(value: i64) -> f64 {
    value as f64
}
