//! The one place where an error becomes `application/problem+json` (RFC 9457).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::delivery::{DirectError, Refusal};
use crate::domain::{RecordKind, Status};
use crate::records::SourceError;
use crate::store::StoreError;
use crate::templates::TemplateProblems;

/// Why a request was not done, for people and programs.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// Stable: programs may act on it.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub title: &'static str,
    pub status: u16,
    /// What was wrong with this request, and what to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The request's id, as in the `x-request-id` header and the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Each mistake in the body, with its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Seconds after which asking again makes sense; also in the `Retry-After` header.
    #[serde(skip)]
    pub retry_after: Option<u16>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// JSON pointer into the body (RFC 6901).
    pub pointer: String,
    /// A stable word: `missing_variable`, `address`, `unknown_template`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    pub detail: String,
    /// The variable that a template misses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// Where in the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplatePlace>,
}

/// A place in a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct TemplatePlace {
    /// JSON pointer into the template's body.
    pub part: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
}

impl FieldError {
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        FieldError { pointer: pointer.into(), code: None, detail: detail.into(), variable: None, template: None }
    }
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Problem {
            kind,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            instance: None,
            errors: Vec::new(),
            retry_after: None,
        }
    }

    /// 400: cannot be read at all.
    pub fn unreadable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "urn:vestnik:unreadable", "The request cannot be read", detail)
    }

    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "urn:vestnik:unauthorized", "An API key is needed", detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "urn:vestnik:forbidden", "This is not allowed", detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "urn:vestnik:not-found", "There is no such thing", detail)
    }

    /// 422: readable, but wrong.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = errors.first().map(|error| error.detail.clone()).unwrap_or_default();
        let mut problem =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "urn:vestnik:invalid", "The request is wrong", detail);
        problem.errors = errors;
        problem
    }

    pub fn too_large(limit_bytes: usize) -> Self {
        let detail = format!("the body is larger than {limit_bytes} bytes (setting http.body_limit_bytes)");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "urn:vestnik:too-large", "The body is too large", detail)
    }

    pub fn unsupported_media_type() -> Self {
        let detail = "send the body as JSON with the header Content-Type: application/json";
        Self::wrong_media_type("The body is not JSON", detail)
    }

    /// 415: for bodies that are something else than JSON.
    pub fn wrong_media_type(title: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "urn:vestnik:media-type", title, detail)
    }

    /// 422: a file that cannot be read from some line on.
    pub fn unreadable_file(detail: impl Into<String>) -> Self {
        let title = "The file cannot be read further";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "urn:vestnik:unreadable-file", title, detail)
    }

    /// 408: the client stopped sending.
    pub fn silence(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "urn:vestnik:silence", "The body did not come in time", detail)
    }

    /// 429: all places for this kind of work are taken.
    pub fn too_many(detail: impl Into<String>) -> Self {
        let title = "Too many at once";
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "urn:vestnik:too-many", title, detail);
        problem.retry_after = Some(5);
        problem
    }

    pub fn method_not_allowed() -> Self {
        let detail = "the path exists, but not with this method; /docs lists what does";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "urn:vestnik:method", "The method is not allowed", detail)
    }

    pub fn timeout() -> Self {
        let detail = "the request was not answered in time; what it asked for may have happened: ask with the same key";
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "urn:vestnik:timeout", "It took too long", detail);
        problem.retry_after = Some(1);
        problem
    }

    /// 503: try again.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let mut problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "urn:vestnik:unavailable",
            "The service cannot do this now",
            detail,
        );
        problem.retry_after = Some(1);
        problem
    }

    /// 500: a bug. The cause is in the log, under the request's id.
    pub fn internal() -> Self {
        let detail = "this is a bug: the log has the cause under this request's id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "urn:vestnik:internal", "Something broke", detail)
    }

    /// 409: the CRM's own database has these records.
    pub fn kept_elsewhere(kind: RecordKind) -> Self {
        let detail = format!(
            "{kind} records are read from the CRM's own database (setting records.sql.{kind}): list and change them there"
        );
        Self::conflict("urn:vestnik:kept-elsewhere", "These records are kept elsewhere", detail)
    }

    /// 409: there is nothing to settle.
    pub fn not_uncertain(status: Status) -> Self {
        let detail = format!("it is {status}: only what is uncertain can be settled");
        Self::conflict("urn:vestnik:not-uncertain", "It is not uncertain", detail)
    }

    /// 409: it is too late for a change that only what has not begun can take.
    pub fn begun(status: Status, what: &str) -> Self {
        let detail = format!("it is {status}: only what has not begun can be {what}");
        Self::conflict("urn:vestnik:begun", "It has begun, or is over", detail)
    }

    /// 409: only a batch that waits for its time can be moved.
    pub fn batch_begun() -> Self {
        let detail = "its time has come already: pause or cancel it, or move its notifications one by one";
        Self::conflict("urn:vestnik:begun", "The batch has begun", detail)
    }

    /// 409: a cancelled batch stays cancelled.
    pub fn batch_cancelled(at: jiff::Timestamp) -> Self {
        let detail = format!("it was cancelled at {at}: what it had not sent has ended, and nothing brings it back");
        Self::conflict("urn:vestnik:batch-cancelled", "The batch was cancelled", detail)
    }

    fn conflict(kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, kind, title, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.respond(&serde_json::Map::new())
    }
}

impl Problem {
    /// The answer, with members that only this kind of problem has (RFC 9457, 3.2).
    pub(super) fn respond(mut self, more: &impl Serialize) -> Response {
        #[derive(Serialize)]
        struct Whole<'a, T> {
            #[serde(flatten)]
            problem: &'a Problem,
            #[serde(flatten)]
            more: &'a T,
        }
        self.instance = super::request_id::current().map(|id| format!("urn:uuid:{id}"));
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after;
        let mut response = (status, Json(Whole { problem: &self, more })).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Unavailable { .. } | StoreError::EpochLost => {
                tracing::error!(error = &error as &dyn std::error::Error, "the ledger is away");
                Problem::unavailable(
                    "the ledger does not answer; what was asked may have happened: ask with the same key",
                )
            }
            StoreError::Refused { .. } | StoreError::Setup(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a request broke");
                Problem::internal()
            }
        }
    }
}

impl From<SourceError> for Problem {
    /// Its source has said in the log what failed.
    fn from(error: SourceError) -> Self {
        match &error {
            SourceError::Unavailable { kind, .. } => {
                Problem::unavailable(format!("the source of {kind} records does not answer; nothing was sent"))
            }
            SourceError::Unusable { .. } => Problem::unavailable(format!("{error}; nothing was sent")),
        }
    }
}

impl From<Refusal> for FieldError {
    fn from(refusal: Refusal) -> Self {
        FieldError {
            pointer: refusal.pointer,
            code: Some(refusal.code),
            detail: refusal.detail,
            variable: refusal.variable,
            template: refusal.template_place.map(|(part, line, column)| TemplatePlace { part, line, column }),
        }
    }
}

impl From<DirectError> for Problem {
    fn from(error: DirectError) -> Self {
        match error {
            DirectError::Refused(refusals) => Problem::invalid(refusals.into_iter().map(Into::into).collect()),
            DirectError::KeyReused => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "urn:vestnik:key-reused",
                "The Idempotency-Key was used before",
                "this Idempotency-Key came with another body: take a new one for a new request",
            ),
            DirectError::KeyRunning => {
                let mut problem = Problem::conflict(
                    "urn:vestnik:key-running",
                    "The first request is still running",
                    "a request with this Idempotency-Key is still running: ask again in a moment",
                );
                problem.retry_after = Some(1);
                problem
            }
            DirectError::Overloaded => {
                let mut problem = Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "urn:vestnik:overloaded",
                    "Too many direct sends at once",
                    "no place became free before the deadline (setting delivery.direct_concurrency); nothing was sent",
                );
                problem.retry_after = Some(1);
                problem
            }
            DirectError::Stopping => Problem::unavailable("the service is stopping; nothing was sent"),
            DirectError::Records(error) => error.into(),
            DirectError::Store(error) => error.into(),
        }
    }
}

impl From<TemplateProblems> for Problem {
    fn from(problems: TemplateProblems) -> Self {
        let errors = problems.0.into_iter().map(|problem| FieldError {
            code: Some("template"),
            template: Some(TemplatePlace {
                part: problem.place.part.clone(),
                line: problem.place.line,
                column: problem.place.column,
            }),
            ..FieldError::new(problem.place.part, problem.message)
        });
        Problem::invalid(errors.collect())
    }
}
