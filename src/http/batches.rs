//! `/v1/batches`: bulk calls, and how far they are.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Api;
use super::auth::Caller;
use super::extract::{ValidJson, ValidPath, ValidQuery};
use super::notifications::{bad_cursor, from_cursor, page_limit, to_cursor};
use super::problem::Problem;
use super::requests::moment_of;
use crate::domain::{BatchId, Channel, GivenTime, Priority, Status};
use crate::store::{FoundBatch, Scope};

/// A batch, and how far it is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchView {
    id: BatchId,
    state: BatchState,
    channel: Channel,
    account: String,
    priority: Priority,
    #[serde(skip_serializing_if = "Option::is_none")]
    template_id: Option<String>,
    /// Notifications it has.
    accepted: u64,
    /// Recipients that were given more than once.
    duplicates: u64,
    /// What has ended, by status.
    settled: BTreeMap<&'static str, u64>,
    /// Those that are still on their way.
    in_flight: u64,
    /// Ended per second lately: within the last minute, and since it went on. Absent when it does not run, and when nothing
    /// ended lately or that is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_per_second: Option<f64>,
    /// At that rate. Absent when that is not known, or nothing is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_left: Option<u64>,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduled_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled_by: Option<String>,
}

/// What a batch is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum BatchState {
    /// Waits for its time.
    Scheduled,
    Running,
    Paused,
    /// Cancelled, and what was in a worker's hand is not over yet.
    Cancelling,
    Cancelled,
    /// Everything has ended.
    Finished,
}

/// A page of batches, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchPage {
    items: Vec<BatchView>,
    /// Give it back as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct BatchQuery {
    /// 1 to 500; 50 if absent.
    limit: Option<u32>,
    cursor: Option<String>,
}

/// Batches, newest first.
#[utoipa::path(
    get, path = "/v1/batches", tag = "batches", security(("key" = [])),
    params(BatchQuery),
    responses((status = 200, body = BatchPage, description = "A page"))
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    ValidQuery(query): ValidQuery<BatchQuery>,
) -> Result<Json<BatchPage>, Problem> {
    caller.may(Scope::Read)?;
    let after = query.cursor.as_deref().map(|cursor| from_cursor(cursor).ok_or_else(bad_cursor)).transpose()?;
    let page = api.store.batches(after.map(BatchId), page_limit(query.limit)?).await?;
    let last = page.items.last().map(|last| to_cursor(last.id.0));
    let items = page.items.into_iter().map(|batch| view(&api, batch)).collect();
    Ok(Json(BatchPage { items, next_cursor: last.filter(|_| page.more) }))
}

/// One batch and its progress.
#[utoipa::path(
    get, path = "/v1/batches/{id}", tag = "batches", security(("key" = [])),
    params(("id" = Uuid, Path, description = "Its id")),
    responses(
        (status = 200, body = BatchView, description = "How far it is"),
        (status = 404, body = Problem, description = "There is none with this id")
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<BatchId>,
) -> Result<Json<BatchView>, Problem> {
    caller.may(Scope::Read)?;
    found(&api, id).await
}

/// Holds a batch up: within two seconds nothing more of it leaves.
#[utoipa::path(
    post, path = "/v1/batches/{id}/pause", tag = "batches", security(("key" = [])),
    params(("id" = Uuid, Path, description = "Its id")),
    responses(
        (status = 200, body = BatchView, description = "It is paused"),
        (status = 404, body = Problem, description = "There is none with this id"),
        (status = 409, body = Problem, description = "It was cancelled")
    )
)]
pub(super) async fn pause(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<BatchId>,
) -> Result<Json<BatchView>, Problem> {
    caller.may(Scope::Manage)?;
    set_paused(&api, id, Some(api.clock.now())).await
}

/// Lets a paused batch go on where it stopped.
#[utoipa::path(
    post, path = "/v1/batches/{id}/resume", tag = "batches", security(("key" = [])),
    params(("id" = Uuid, Path, description = "Its id")),
    responses(
        (status = 200, body = BatchView, description = "It goes on"),
        (status = 404, body = Problem, description = "There is none with this id"),
        (status = 409, body = Problem, description = "It was cancelled")
    )
)]
pub(super) async fn resume(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<BatchId>,
) -> Result<Json<BatchView>, Problem> {
    caller.may(Scope::Manage)?;
    set_paused(&api, id, None).await
}

/// When a batch is to leave instead.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RescheduleBatch {
    /// As in the bulk call.
    #[serde(alias = "scheduled")]
    #[schema(value_type = String, examples("2030-01-01T10:00:00+03:00"))]
    scheduled_at: GivenTime,
}

/// Moves a batch whose time has not come to another time: all of it at once, or nothing.
///
/// What was moved by itself stays at its own time. A paused batch stays paused.
#[utoipa::path(
    patch, path = "/v1/batches/{id}", tag = "batches", security(("key" = [])),
    params(("id" = Uuid, Path, description = "Its id")),
    request_body = RescheduleBatch,
    responses(
        (status = 200, body = BatchView, description = "It leaves then"),
        (status = 404, body = Problem, description = "There is none with this id"),
        (status = 409, body = Problem, description = "It has begun, or was cancelled"),
        (status = 422, body = Problem, description = "This is no time it could leave at")
    )
)]
pub(super) async fn reschedule(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<BatchId>,
    ValidJson { value, .. }: ValidJson<RescheduleBatch>,
) -> Result<Json<BatchView>, Problem> {
    caller.may(Scope::Manage)?;
    let batch = not_cancelled(&api, id).await?;
    let at = moment_of(&api, &value.scheduled_at, batch.account)?;
    if !api.delivery.reschedule_batch(&batch, at).await? {
        // Cancelled meanwhile, or its time has come.
        not_cancelled(&api, id).await?;
        return Err(Problem::batch_begun());
    }
    found(&api, id).await
}

/// Ends what has not begun; within two seconds nothing more of it leaves.
#[utoipa::path(
    post, path = "/v1/batches/{id}/cancel", tag = "batches", security(("key" = [])),
    params(("id" = Uuid, Path, description = "Its id")),
    responses(
        (status = 200, body = BatchView, description = "It is cancelled, or was already"),
        (status = 404, body = Problem, description = "There is none with this id")
    )
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<BatchId>,
) -> Result<Json<BatchView>, Problem> {
    caller.may(Scope::Manage)?;
    api.store.cancel_batch(id, api.clock.now(), caller.name()).await?;
    api.delivery.look_at_batches();
    found(&api, id).await
}

async fn set_paused(api: &Api, id: BatchId, paused_at: Option<Timestamp>) -> Result<Json<BatchView>, Problem> {
    not_cancelled(api, id).await?;
    api.store.pause_batch(id, paused_at).await?;
    api.delivery.look_at_batches();
    found(api, id).await
}

async fn found(api: &Api, id: BatchId) -> Result<Json<BatchView>, Problem> {
    Ok(Json(view(api, batch_of(api, id).await?)))
}

async fn not_cancelled(api: &Api, id: BatchId) -> Result<FoundBatch, Problem> {
    let batch = batch_of(api, id).await?;
    match batch.cancelled_at {
        Some(at) => Err(Problem::batch_cancelled(at)),
        None => Ok(batch),
    }
}

async fn batch_of(api: &Api, id: BatchId) -> Result<FoundBatch, Problem> {
    api.store.batch(id).await?.ok_or_else(|| Problem::not_found("there is no batch with this id"))
}

fn view(api: &Api, batch: FoundBatch) -> BatchView {
    let (now, in_flight) = (api.clock.now(), batch.in_flight());
    let state = match (&batch.cancelled_at, &batch.paused_at, batch.scheduled_at) {
        (Some(_), _, _) if in_flight > 0 => BatchState::Cancelling,
        (Some(_), _, _) => BatchState::Cancelled,
        _ if in_flight == 0 => BatchState::Finished,
        (None, Some(_), _) => BatchState::Paused,
        (None, None, Some(at)) if at > now => BatchState::Scheduled,
        (None, None, _) => BatchState::Running,
    };
    let is_running = state == BatchState::Running;
    let rate = is_running.then(|| api.pace.rate(batch.id, batch.settled.values().sum())).flatten();
    BatchView {
        id: batch.id,
        state,
        channel: batch.channel,
        account: api.delivery.account_name(batch.account).map_or_else(String::new, |account| account.name.to_string()),
        priority: batch.priority,
        template_id: batch.template.as_ref().map(|id| id.as_str().to_owned()),
        accepted: batch.accepted,
        duplicates: batch.duplicates,
        settled: batch.settled.iter().map(|(status, n)| (Status::as_str(*status), *n)).collect(),
        in_flight,
        rate_per_second: rate.map(|rate| (rate * 10.0).round() / 10.0),
        seconds_left: rate.filter(|_| in_flight > 0).map(|rate| (in_flight as f64 / rate).ceil() as u64),
        created_at: batch.created_at,
        scheduled_at: batch.scheduled_at,
        paused_at: batch.paused_at,
        cancelled_at: batch.cancelled_at,
        cancelled_by: batch.cancelled_by,
    }
}
