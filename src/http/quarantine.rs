//! `/v1/quarantine`: what came by the broker and could not be read.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Api;
use super::auth::Caller;
use super::extract::{ValidPath, ValidQuery};
use super::notifications::{bad_cursor, from_cursor, page_limit, to_cursor};
use super::problem::Problem;
use crate::store::{Quarantined, Scope};

/// A message that is no notification.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QuarantinedView {
    id: Uuid,
    /// When it came last.
    received_at: Timestamp,
    /// The queue it came by.
    source: String,
    /// Why it is no notification: `invalid_json`, `unknown_shape`, `unknown_pattern`, …
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    /// The beginning of it; what is not UTF-8 is shown as `�`.
    body: String,
    /// Of the whole.
    body_bytes: u64,
    /// How often the same came.
    times: u64,
}

/// A page of messages in quarantine.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QuarantinePage {
    items: Vec<QuarantinedView>,
    /// Give it back as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct QuarantineQuery {
    /// 1 to 500; 50 if absent.
    limit: Option<u32>,
    cursor: Option<String>,
}

/// Messages that others published and that could not be read. They may hold personal data.
#[utoipa::path(
    get, path = "/v1/quarantine", tag = "dead-letters", security(("key" = [])),
    params(QuarantineQuery),
    responses((status = 200, body = QuarantinePage, description = "A page"))
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    ValidQuery(query): ValidQuery<QuarantineQuery>,
) -> Result<Json<QuarantinePage>, Problem> {
    caller.may(Scope::Read)?;
    let after = query.cursor.as_deref().map(|cursor| from_cursor(cursor).ok_or_else(bad_cursor)).transpose()?;
    let page = api.store.quarantined(after, page_limit(query.limit)?).await?;
    let next_cursor = page.items.last().filter(|_| page.more).map(|(id, _)| to_cursor(*id));
    Ok(Json(QuarantinePage { items: page.items.into_iter().map(view).collect(), next_cursor }))
}

/// Drops one that somebody has seen to.
#[utoipa::path(
    delete, path = "/v1/quarantine/{id}", tag = "dead-letters", security(("key" = [])),
    params(("id" = Uuid, Path, description = "Its id")),
    responses(
        (status = 204, description = "Dropped"),
        (status = 404, body = Problem, description = "There is none with this id")
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<Uuid>,
) -> Result<StatusCode, Problem> {
    caller.may(Scope::Manage)?;
    if api.store.drop_quarantined(id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("there is no message with this id in quarantine"))
    }
}

fn view((id, one): (Uuid, Quarantined)) -> QuarantinedView {
    QuarantinedView {
        id,
        received_at: one.received_at,
        source: one.source,
        reason: one.reason,
        content_type: one.content_type,
        body: String::from_utf8_lossy(&one.body).into_owned(),
        body_bytes: one.body_size,
        times: one.times,
    }
}
