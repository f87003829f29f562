//! `/v1/notifications`: send, and see what became of it.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
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
use super::view::NotificationView;
use crate::delivery::{DirectResult, SendRequest};
use crate::domain::{BatchId, Channel, Mode, NotificationId, Policy, Priority, RecordIds, Status, TemplateId};
use crate::store::{ListFilter, Scope};

/// The most retries a request may ask for.
const MOST_RETRIES: i16 = 10;
const DEFAULT_RETRIES: i16 = 3;
/// The longest a caller may let a direct send take: shorter than a request may (`http.request_time_limit_ms`).
const LONGEST_DEADLINE_MS: u64 = 45_000;
/// `externalId`, record ids, account names.
const LONGEST_ID_BYTES: usize = 200;
const LONGEST_PAGE: u32 = 500;
const DEFAULT_PAGE: u32 = 50;

/// Defines a request with the fields that all sends have.
macro_rules! send_body {
    ($(#[$doc:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(super) struct $name {
            channel: Channel,
            /// A named account of the channel; else `main`, or the only one.
            #[serde(default)]
            account: Option<String>,
            /// Either a template …
            #[serde(default)]
            template_id: Option<String>,
            /// … or a given text.
            #[serde(default)]
            text: Option<String>,
            $($own)*
            /// Kept with the notification and shown with it.
            #[serde(default)]
            #[schema(value_type = Option<Object>)]
            metadata: Option<Map<String, Value>>,
            #[serde(default)]
            priority: Priority,
            /// Retries within the call, of what provably did not leave: 0 to 10, 3 if absent.
            #[serde(default)]
            max_retries: Option<i16>,
            /// After this time it is not sent any more.
            #[serde(default)]
            not_after: Option<Timestamp>,
            /// What to do when it cannot be known whether a send arrived; else the template's, else `at_most_once`.
            #[serde(default)]
            policy: Option<Policy>,
            /// How long the call may take, in ms: 100 to 45,000.
            #[serde(default)]
            deadline_ms: Option<u64>,
            /// `sync`, or absent. `async` needs the queue, which this version has not.
            #[serde(default)]
            mode: Option<Mode>,
            /// Absent or null. A time needs the queue, which this version has not. `scheduled` is another name for it.
            #[serde(default, alias = "scheduled")]
            scheduled_at: Option<Timestamp>,
        }

        impl $name {
            fn common(&mut self) -> Result<SendRequest, Vec<FieldError>> {
                common(Common {
                    channel: self.channel,
                    account: self.account.take(),
                    template_id: self.template_id.take(),
                    text: self.text.take(),
                    metadata: self.metadata.take(),
                    priority: self.priority,
                    max_retries: self.max_retries,
                    not_after: self.not_after,
                    policy: self.policy,
                    deadline_ms: self.deadline_ms,
                    mode: self.mode,
                    scheduled_at: self.scheduled_at,
                })
            }
        }
    };
}

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
    }
}

send_body! {
    /// Notifications to some recipients.
    AutoNotifications {
        recipients: Vec<AutoRecipient>,
        /// Variables for all recipients; each one's own win.
        #[serde(default)]
        #[schema(value_type = Object)]
        data: Map<String, Value>,
    }
}

/// One of the recipients of a call.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AutoRecipient {
    /// A phone number, an email address or a Telegram chat id; else the contact's. `phoneNumber` is another name for it.
    #[serde(default, alias = "phoneNumber", deserialize_with = "text_or_number")]
    recipient: Option<String>,
    #[serde(default)]
    contact_id: Option<String>,
    #[serde(default)]
    #[schema(value_type = Object)]
    data: Map<String, Value>,
}

struct Common {
    channel: Channel,
    account: Option<String>,
    template_id: Option<String>,
    text: Option<String>,
    metadata: Option<Map<String, Value>>,
    priority: Priority,
    max_retries: Option<i16>,
    not_after: Option<Timestamp>,
    policy: Option<Policy>,
    deadline_ms: Option<u64>,
    mode: Option<Mode>,
    scheduled_at: Option<Timestamp>,
}

/// The results of an auto call.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct AutoView {
    mode: Mode,
    /// One per recipient, in order, each with its own success or error.
    results: Vec<NotificationView>,
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

/// Sends one notification now.
///
/// Answers when the provider has, and the outcome is on disk. A send that failed, or of which nobody knows, is a 200
/// with its status and error.
#[utoipa::path(
    post, path = "/v1/notifications", tag = "notifications", security(("key" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the call safe to repeat")),
    request_body = CreateNotification,
    responses(
        (status = 200, body = NotificationView, description = "Its end, recorded"),
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
) -> Result<Json<NotificationView>, Problem> {
    caller.may(Scope::Send)?;
    let key = idempotency::key(&headers, &caller, "POST /v1/notifications", &bytes)?;
    let mut wrong = Vec::new();
    bounded("/externalId", value.external_id.as_deref(), &mut wrong);
    bounded_records("/context", &value.context, &mut wrong);
    let mut request = value.common().map_err(|mut errors| {
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
    let result = api.delivery.send_now(request, key).await?;
    Ok(Json(view(&api, result)))
}

/// Sends to up to ten recipients directly, in parallel, each with its own result.
#[utoipa::path(
    post, path = "/v1/notifications/auto", tag = "notifications", security(("key" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the call safe to repeat")),
    request_body = AutoNotifications,
    responses(
        (status = 200, body = AutoView, description = "One result per recipient, in order"),
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
) -> Result<Json<AutoView>, Problem> {
    caller.may(Scope::Send)?;
    let key = idempotency::key(&headers, &caller, "POST /v1/notifications/auto", &bytes)?;
    let mut wrong = Vec::new();
    let threshold = api.delivery.auto_threshold();
    if value.recipients.is_empty() || value.recipients.len() > threshold {
        let detail = format!(
            "give 1 to {threshold} recipients (setting delivery.auto_threshold): more need the queue, which this \
             version has not"
        );
        wrong.push(FieldError { code: Some("recipients"), ..FieldError::new("/recipients", detail) });
    }
    for (place, recipient) in value.recipients.iter().enumerate() {
        bounded(&format!("/recipients/{place}/contactId"), recipient.contact_id.as_deref(), &mut wrong);
    }
    let request = value.common().map_err(|mut errors| {
        errors.append(&mut wrong);
        Problem::invalid(errors)
    })?;
    if !wrong.is_empty() {
        return Err(Problem::invalid(wrong));
    }
    let shared = value.data;
    let requests = value.recipients.into_iter().map(|recipient| {
        let mut data = shared.clone();
        data.extend(recipient.data);
        SendRequest {
            recipient: recipient.recipient,
            records: RecordIds { contact_id: recipient.contact_id, ..RecordIds::default() },
            data,
            ..request.clone()
        }
    });
    let results = api.delivery.send_all_now(requests.collect(), key).await?;
    let results = results.into_iter().map(|result| view(&api, result)).collect();
    Ok(Json(AutoView { mode: Mode::Sync, results }))
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

fn common(common: Common) -> Result<SendRequest, Vec<FieldError>> {
    let mut wrong = Vec::new();
    let template = common.template_id.as_deref().and_then(|id| match TemplateId::parse(id) {
        Ok(id) => Some(id),
        Err(error) => {
            wrong.push(FieldError::new("/templateId", error.to_string()));
            None
        }
    });
    let max_retries = common.max_retries.unwrap_or(DEFAULT_RETRIES);
    if !(0..=MOST_RETRIES).contains(&max_retries) {
        wrong.push(FieldError::new("/maxRetries", format!("maxRetries is 0 to {MOST_RETRIES}")));
    }
    if let Some(ms) = common.deadline_ms
        && !(100..=LONGEST_DEADLINE_MS).contains(&ms)
    {
        wrong.push(FieldError::new("/deadlineMs", format!("deadlineMs is 100 to {LONGEST_DEADLINE_MS}")));
    }
    const NO_QUEUE: &str = "this needs the queue, which this version has not: leave it out to send now";
    if common.mode == Some(Mode::Async) {
        wrong.push(FieldError { code: Some("no_queue"), ..FieldError::new("/mode", NO_QUEUE) });
    }
    if common.scheduled_at.is_some() {
        wrong.push(FieldError { code: Some("no_queue"), ..FieldError::new("/scheduledAt", NO_QUEUE) });
    }
    bounded("/account", common.account.as_deref(), &mut wrong);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(SendRequest {
        channel: common.channel,
        account: common.account,
        template,
        text: common.text,
        recipient: None,
        records: RecordIds::default(),
        data: Map::new(),
        metadata: common.metadata,
        external_id: None,
        priority: common.priority,
        policy: common.policy,
        max_retries,
        not_after: common.not_after,
        deadline: common.deadline_ms.map(Duration::from_millis),
    })
}

pub(super) fn bounded_records(pointer: &str, records: &RecordIds, wrong: &mut Vec<FieldError>) {
    bounded(&format!("{pointer}/contactId"), records.contact_id.as_deref(), wrong);
    bounded(&format!("{pointer}/dealId"), records.deal_id.as_deref(), wrong);
    bounded(&format!("{pointer}/companyId"), records.company_id.as_deref(), wrong);
}

pub(super) fn bounded(pointer: &str, text: Option<&str>, wrong: &mut Vec<FieldError>) {
    let Some(text) = text else { return };
    if text.is_empty() || text.len() > LONGEST_ID_BYTES || text.contains(char::is_control) {
        let detail = format!("1 to {LONGEST_ID_BYTES} bytes, without control characters");
        wrong.push(FieldError::new(pointer, detail));
    }
}

/// A chat id may come as a number.
pub(super) fn text_or_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a phone number as text, or a chat id")]
    enum TextOrNumber {
        Text(String),
        Number(i64),
        Nothing(()),
    }
    Ok(match TextOrNumber::deserialize(deserializer)? {
        TextOrNumber::Text(text) => Some(text),
        TextOrNumber::Number(number) => Some(number.to_string()),
        TextOrNumber::Nothing(()) => None,
    })
}
