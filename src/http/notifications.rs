//! `/v1/notifications`: send, and see what became of it.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Api;
use super::auth::Caller;
use super::extract::{ValidJson, ValidPath, ValidQuery};
use super::idempotency;
use super::problem::{FieldError, Problem};
use super::requests::{bounded, bounded_records, moment_of, send_body, text_or_number};
use super::view::NotificationView;
use crate::delivery::{DirectResult, SendRequest};
use crate::domain::{
    BatchId, Channel, GivenTime, Mode, NotificationId, OnFailure, Policy, Priority, RecordIds, Status,
};
use crate::store::{ListFilter, Scope};

const LONGEST_PAGE: u32 = 500;
const DEFAULT_PAGE: u32 = 50;

send_body! {
    /// One notification to send.
    CreateNotification {
        /// A phone number (`+7 999 123-45-67`), an email address or a Telegram chat id. `phoneNumber` is another name for
        /// it. Absent or empty, it goes to the contact's address; where there is no contact, to the lead's or company's.
        #[serde(default, alias = "phoneNumber", deserialize_with = "text_or_number")]
        recipient: Option<String>,
        /// The CRM records it is about. A lead or deal brings its contact, company and manager along; an id given here
        /// wins over a link.
        #[serde(default)]
        context: RecordIds,
        /// Values of the call, laid over the records' fields; no record need exist.
        #[serde(default)]
        #[schema(value_type = Object)]
        data: Map<String, Value>,
        /// Your own id for it.
        #[serde(default)]
        external_id: Option<String>,
        /// `sync`: sent in the call, with the provider's answer. `async`: accepted for the queue, which a `scheduledAt`
        /// means, too.
        #[serde(default)]
        mode: Option<Mode>,
        /// What becomes of a direct send that does not get through now and may later (a throttle, an account that is
        /// down, no room within the deadline, a failure that may pass). `fail`: it has failed, and `retryAfter` may say
        /// when to try again. `queue`: it waits, goes through the queue, and is answered with 202. `fail` is for direct
        /// sends only.
        #[serde(default)]
        #[schema(default = "fail")]
        on_failure: Option<OnFailure>,
    }
}

/// A page of notifications, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NotificationPage {
    items: Vec<NotificationView>,
    /// Give it back as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// What a list is narrowed to.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    channel: Option<Channel>,
    status: Option<Status>,
    batch_id: Option<BatchId>,
    contact_id: Option<String>,
    /// Accepted at this time or later.
    from: Option<Timestamp>,
    /// Accepted before this time.
    until: Option<Timestamp>,
    /// 1 to 500; 50 if absent.
    limit: Option<u32>,
    cursor: Option<String>,
}

/// Sends one notification now, or accepts it for the queue.
///
/// `sync` answers when the provider has, and the outcome is on disk. A send that failed, or of which nobody knows, is a
/// 200 with its status and error; one that is not over, because the queue has it now, is a 202 with what it waits for.
/// `async`, or a time to leave at, answers 202 when it is on disk.
#[utoipa::path(
    post, path = "/v1/notifications", tag = "notifications", security(("key" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the call safe to repeat")),
    request_body = CreateNotification,
    responses(
        (status = 200, body = NotificationView, description = "Its end, recorded"),
        (status = 202, body = NotificationView, description = "On its way through the queue"),
        (status = 409, body = Problem, description = "The first request with this key is still running"),
        (status = 422, body = Problem, description = "The request is wrong; nothing was sent"),
        (status = 429, body = Problem, description = "Too many direct sends at once; nothing was sent"),
        (status = 503, body = Problem, description = "The ledger is away")
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    ValidJson { mut value, bytes }: ValidJson<CreateNotification>,
) -> Result<(StatusCode, Json<NotificationView>), Problem> {
    caller.may(Scope::Send)?;
    let key = idempotency::key(&headers, &caller, "POST /v1/notifications", &bytes)?;
    let mut wrong = Vec::new();
    if value.mode == Some(Mode::Sync) && value.scheduled_at.is_some() {
        let detail = "a time to leave at goes through the queue: leave mode out, or make it async";
        wrong.push(FieldError::new("/scheduledAt", detail));
    }
    bounded("/externalId", value.external_id.as_deref(), &mut wrong);
    bounded_records("/context", &value.context, &mut wrong);
    let is_queued = value.mode == Some(Mode::Async) || value.scheduled_at.is_some();
    if is_queued && value.on_failure == Some(OnFailure::Fail) {
        let detail = "what goes through the queue is tried again, maxRetries times: leave onFailure out";
        wrong.push(FieldError::new("/onFailure", detail));
    }
    let (mut request, scheduled_at) = value.common(&api.delivery).map_err(|mut errors| {
        errors.append(&mut wrong);
        Problem::invalid(errors)
    })?;
    if !wrong.is_empty() {
        return Err(Problem::invalid(wrong));
    }
    request.recipient = value.recipient;
    request.records = value.context;
    request.data = value.data;
    request.external_id = value.external_id;
    if is_queued {
        let result = api.delivery.send_later(request, scheduled_at, key).await?;
        return Ok((StatusCode::ACCEPTED, Json(view(&api, result))));
    }
    request.on_failure = value.on_failure.unwrap_or_default();
    let result = api.delivery.send_now(request, key).await?;
    let is_over = !result.notification.status.in_flight();
    Ok((if is_over { StatusCode::OK } else { StatusCode::ACCEPTED }, Json(view(&api, result))))
}

/// One notification with every attempt.
#[utoipa::path(
    get, path = "/v1/notifications/{id}", tag = "notifications", security(("key" = [])),
    params(("id" = Uuid, Path, description = "Its id")),
    responses(
        (status = 200, body = NotificationView, description = "Where it stands"),
        (status = 404, body = Problem, description = "There is none with this id")
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<NotificationId>,
) -> Result<Json<NotificationView>, Problem> {
    caller.may(Scope::Read)?;
    let found = api.store.notifications(vec![id]).await?.pop();
    let found = found.ok_or_else(|| Problem::not_found("there is no notification with this id"))?;
    Ok(Json(NotificationView::new(found, &api.delivery, None)))
}

/// Notifications, newest first, without their attempts.
#[utoipa::path(
    get, path = "/v1/notifications", tag = "notifications", security(("key" = [])),
    params(ListQuery),
    responses((status = 200, body = NotificationPage, description = "A page"))
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    ValidQuery(query): ValidQuery<ListQuery>,
) -> Result<Json<NotificationPage>, Problem> {
    caller.may(Scope::Read)?;
    let after = query.cursor.as_deref().map(|cursor| from_cursor(cursor).ok_or_else(bad_cursor)).transpose()?;
    let limit = page_limit(query.limit)?;
    let mut wrong = Vec::new();
    bounded("/contactId", query.contact_id.as_deref(), &mut wrong);
    if !wrong.is_empty() {
        return Err(Problem::invalid(wrong));
    }
    let filter = ListFilter {
        channel: query.channel,
        status: query.status,
        batch: query.batch_id,
        contact: query.contact_id,
        from: query.from,
        until: query.until,
        after: after.map(NotificationId),
    };
    let page = api.store.list(filter, limit).await?;
    let last = page.items.last().map(|last| last.id.0);
    let items = page.items.into_iter().map(|found| NotificationView::listed(found, &api.delivery)).collect();
    let next_cursor = last.filter(|_| page.more).map(to_cursor);
    Ok(Json(NotificationPage { items, next_cursor }))
}

fn view(api: &Api, result: DirectResult) -> NotificationView {
    NotificationView::new(result.notification, &api.delivery, result.retry_after)
}

/// A page's size, checked.
pub(super) fn page_limit(limit: Option<u32>) -> Result<u32, Problem> {
    match limit.unwrap_or(DEFAULT_PAGE) {
        limit @ 1..=LONGEST_PAGE => Ok(limit),
        _ => Err(Problem::invalid(vec![FieldError::new("/limit", format!("limit is 1 to {LONGEST_PAGE}"))])),
    }
}

/// Opaque, and safe in a URL.
pub(super) fn to_cursor(id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(id.as_bytes())
}

pub(super) fn from_cursor(cursor: &str) -> Option<Uuid> {
    Uuid::from_slice(&URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
}

pub(super) fn bad_cursor() -> Problem {
    Problem::invalid(vec![FieldError::new("/cursor", "this is not a nextCursor of an earlier page")])
}

/// When it is to leave instead.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Reschedule {
    /// As in the request to send it.
    #[serde(alias = "scheduled")]
    #[schema(value_type = String, examples("2030-01-01T10:00:00+03:00"))]
    scheduled_at: GivenTime,
}

/// Moves a notification that has not begun to another time.
#[utoipa::path(
    patch, path = "/v1/notifications/{id}", tag = "notifications", security(("key" = [])),
    params(("id" = Uuid, Path, description = "Its id")),
    request_body = Reschedule,
    responses(
        (status = 200, body = NotificationView, description = "It leaves then"),
        (status = 404, body = Problem, description = "There is none with this id"),
        (status = 409, body = Problem, description = "It has begun, or is over"),
        (status = 422, body = Problem, description = "This is no time it could leave at")
    )
)]
pub(super) async fn reschedule(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<NotificationId>,
    ValidJson { value, .. }: ValidJson<Reschedule>,
) -> Result<Json<NotificationView>, Problem> {
    caller.may(Scope::Send)?;
    let found = api.store.notifications(vec![id]).await?.pop();
    let found = found.ok_or_else(|| Problem::not_found("there is no notification with this id"))?;
    let at = moment_of(&api, &value.scheduled_at, found.account)?;
    let moved = api.delivery.reschedule(id, at).await?;
    changed(&api, id, moved, "moved").await
}

/// Ends a notification that has not begun.
#[utoipa::path(
    post, path = "/v1/notifications/{id}/cancel", tag = "notifications", security(("key" = [])),
    params(("id" = Uuid, Path, description = "Its id")),
    responses(
        (status = 200, body = NotificationView, description = "It is cancelled"),
        (status = 404, body = Problem, description = "There is none with this id"),
        (status = 409, body = Problem, description = "It has begun, or is over")
    )
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<NotificationId>,
) -> Result<Json<NotificationView>, Problem> {
    caller.may(Scope::Send)?;
    let cancelled = api.delivery.cancel(id, caller.name()).await?;
    changed(&api, id, cancelled, "cancelled").await
}

/// The notification after a change, or why there was none.
async fn changed(
    api: &Api,
    id: NotificationId,
    was_changed: bool,
    what: &str,
) -> Result<Json<NotificationView>, Problem> {
    let found = api.store.notifications(vec![id]).await?.pop();
    let found = found.ok_or_else(|| Problem::not_found("there is no notification with this id"))?;
    if !was_changed {
        return Err(Problem::begun(found.status, what));
    }
    Ok(Json(NotificationView::new(found, &api.delivery, None)))
}
