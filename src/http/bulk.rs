//! `/v1/notifications/bulk` and `/v1/notifications/auto`: many recipients in one call.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Api;
use super::auth::Caller;
use super::extract::ValidJson;
use super::idempotency;
use super::problem::{FieldError, Problem};
use super::requests::{BulkRecipientBody, bounded, send_body};
use super::view::NotificationView;
use crate::delivery::{AcceptedBatch, BulkRecipient, BulkRequest, SendRequest};
use crate::domain::{BatchId, Channel, GivenTime, Mode, NotificationId, OnFailure, Policy, Priority, RecordIds};
use crate::store::Scope;

/// Recipients of one bulk call.
const MOST_RECIPIENTS: usize = 100_000;

send_body! {
    /// Notifications to some recipients.
    AutoNotifications {
        recipients: Vec<BulkRecipientBody>,
        /// Variables for all recipients; each one's own win.
        #[serde(default)]
        #[schema(value_type = Object)]
        data: Map<String, Value>,
        /// What becomes of those that are sent directly, do not get through now and may later: `fail` or `queue`, each
        /// recipient for itself. What goes through the queue anyhow is tried again.
        #[serde(default)]
        #[schema(default = "fail")]
        on_failure: Option<OnFailure>,
    }
}

send_body! {
    /// Notifications to many recipients, through the queue.
    BulkNotifications {
        /// The contacts, by id …
        #[serde(default)]
        contact_ids: Option<Vec<String>>,
        /// … or recipients, each with an address or a contact, and data of its own.
        #[serde(default)]
        recipients: Option<Vec<BulkRecipientBody>>,
        /// Variables for all recipients; each one's own win.
        #[serde(default)]
        #[schema(value_type = Object)]
        data: Map<String, Value>,
    }
}

/// The results of an auto call.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct AutoView {
    mode: Mode,
    /// One per recipient, in order, each with its own success or error.
    results: Vec<NotificationView>,
}

/// A batch that was accepted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchAccepted {
    mode: Mode,
    batch_id: BatchId,
    /// Notifications there are now.
    accepted: u64,
    /// Recipients given more than once: each gets one message.
    duplicates: u64,
    /// Of the accepted ones, those that have no address to go to and failed at once.
    failed: u64,
    /// In the order of the call, each recipient once.
    message_ids: Vec<NotificationId>,
}

impl From<AcceptedBatch> for BatchAccepted {
    fn from(batch: AcceptedBatch) -> Self {
        BatchAccepted {
            mode: Mode::Async,
            batch_id: batch.id,
            accepted: batch.ids.len() as u64,
            duplicates: batch.duplicates,
            failed: batch.failed,
            message_ids: batch.ids,
        }
    }
}

/// Sends to some recipients directly and in parallel, to more of them through the queue.
///
/// Up to ten (`delivery.auto_threshold`) get their results in the answer. More, or any number with a time to leave at,
/// become a batch.
#[utoipa::path(
    post, path = "/v1/notifications/auto", tag = "notifications", security(("key" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the call safe to repeat")),
    request_body = AutoNotifications,
    responses(
        (status = 200, body = AutoView, description = "One result per recipient, in order; those that the queue has now are `pending`"),
        (status = 202, body = BatchAccepted, description = "Accepted for the queue"),
        (status = 409, body = Problem, description = "The first request with this key is still running"),
        (status = 422, body = Problem, description = "The request is wrong; nothing was sent"),
        (status = 503, body = Problem, description = "The ledger is away")
    )
)]
pub(super) async fn auto(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    ValidJson { mut value, bytes }: ValidJson<AutoNotifications>,
) -> Result<Response, Problem> {
    caller.may(Scope::Send)?;
    let key = idempotency::key(&headers, &caller, "POST /v1/notifications/auto", &bytes)?;
    let mut wrong = Vec::new();
    check_recipients(&value.recipients, &mut wrong);
    let (request, scheduled_at) = common_of(value.common(&api.delivery), wrong)?;
    let shared = value.data;
    if scheduled_at.is_some() || value.recipients.len() > api.delivery.auto_threshold() {
        let recipients = value.recipients.into_iter().map(BulkRecipient::from).collect();
        let common = SendRequest { data: shared, ..request };
        let batch = api.delivery.send_bulk(BulkRequest { common, recipients, scheduled_at }, key).await?;
        return Ok((StatusCode::ACCEPTED, Json(BatchAccepted::from(batch))).into_response());
    }
    let on_failure = value.on_failure.unwrap_or_default();
    let requests = value.recipients.into_iter().map(|recipient| {
        let mut data = shared.clone();
        data.extend(recipient.data);
        SendRequest {
            recipient: recipient.recipient,
            records: RecordIds { contact_id: recipient.contact_id, ..RecordIds::default() },
            data,
            on_failure,
            ..request.clone()
        }
    });
    let results = api.delivery.send_all_now(requests.collect(), key).await?;
    let view = |result: crate::delivery::DirectResult| {
        NotificationView::new(result.notification, &api.delivery, result.retry_after)
    };
    Ok(Json(AutoView { mode: Mode::Sync, results: results.into_iter().map(view).collect() }).into_response())
}

/// Accepts up to 100,000 notifications for the queue.
///
/// The answer comes when all of them are on disk, none of them sooner visible than all. A recipient that is given twice
/// gets one message; one without an address is a failed notification of its own.
#[utoipa::path(
    post, path = "/v1/notifications/bulk", tag = "notifications", security(("key" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the call safe to repeat")),
    request_body = BulkNotifications,
    responses(
        (status = 202, body = BatchAccepted, description = "Accepted: it is on disk and will be sent"),
        (status = 409, body = Problem, description = "The first request with this key is still running"),
        (status = 422, body = Problem, description = "The request is wrong; nothing was accepted"),
        (status = 503, body = Problem, description = "The ledger is away")
    )
)]
pub(super) async fn bulk(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    ValidJson { mut value, bytes }: ValidJson<BulkNotifications>,
) -> Result<(StatusCode, Json<BatchAccepted>), Problem> {
    caller.may(Scope::Send)?;
    let key = idempotency::key(&headers, &caller, "POST /v1/notifications/bulk", &bytes)?;
    let mut wrong = Vec::new();
    let recipients: Vec<BulkRecipient> = match (value.contact_ids.take(), value.recipients.take()) {
        (Some(ids), None) => {
            check_count("/contactIds", ids.len(), &mut wrong);
            for (place, id) in ids.iter().enumerate() {
                bounded(&format!("/contactIds/{place}"), Some(id), &mut wrong);
            }
            ids.into_iter().map(|id| BulkRecipient { contact_id: Some(id), ..BulkRecipient::default() }).collect()
        }
        (None, Some(recipients)) => {
            check_recipients(&recipients, &mut wrong);
            recipients.into_iter().map(BulkRecipient::from).collect()
        }
        (Some(_), Some(_)) => {
            wrong.push(FieldError::new("/recipients", "give either contactIds or recipients, not both"));
            Vec::new()
        }
        (None, None) => {
            wrong.push(FieldError::new("/recipients", "give contactIds, or recipients"));
            Vec::new()
        }
    };
    let (request, scheduled_at) = common_of(value.common(&api.delivery), wrong)?;
    let common = SendRequest { data: value.data, ..request };
    let request = BulkRequest { common, recipients, scheduled_at };
    let batch = api.delivery.send_bulk(request, key).await?;
    Ok((StatusCode::ACCEPTED, Json(batch.into())))
}

impl From<BulkRecipientBody> for BulkRecipient {
    fn from(body: BulkRecipientBody) -> Self {
        let recipient = body.recipient.filter(|recipient| !recipient.trim().is_empty());
        BulkRecipient { recipient, contact_id: body.contact_id, data: body.data }
    }
}

type CommonOf = (SendRequest, Option<Timestamp>);

fn common_of(common: Result<CommonOf, Vec<FieldError>>, mut wrong: Vec<FieldError>) -> Result<CommonOf, Problem> {
    match common {
        Ok(request) if wrong.is_empty() => Ok(request),
        Ok(_) => Err(Problem::invalid(wrong)),
        Err(mut errors) => {
            errors.append(&mut wrong);
            Err(Problem::invalid(errors))
        }
    }
}

fn check_count(pointer: &str, count: usize, wrong: &mut Vec<FieldError>) {
    if count == 0 || count > MOST_RECIPIENTS {
        let detail = format!("give 1 to {MOST_RECIPIENTS} recipients; more go in several calls");
        wrong.push(FieldError { code: Some("recipients"), ..FieldError::new(pointer, detail) });
    }
}

fn check_recipients(recipients: &[BulkRecipientBody], wrong: &mut Vec<FieldError>) {
    /// Of a list that is wrong throughout, so many are named.
    const NAMED: usize = 20;
    check_count("/recipients", recipients.len(), wrong);
    for (place, recipient) in recipients.iter().enumerate() {
        bounded(&format!("/recipients/{place}/contactId"), recipient.contact_id.as_deref(), wrong);
        if wrong.len() >= NAMED {
            return;
        }
    }
}
