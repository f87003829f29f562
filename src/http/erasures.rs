//! `POST /v1/{contacts,…}/{id}/erase` and `/v1/erasures`: a person's data goes, what was done stays countable.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Api;
use super::auth::Caller;
use super::extract::{ValidPath, ValidQuery};
use super::notifications::page_limit;
use super::problem::{FieldError, Problem};
use super::records::Records;
use crate::domain::{ErasureId, RecordId, RecordKind};
use crate::store::{Erasure, Scope};

/// A request to erase a record, and how far it has come.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ErasureView {
    id: ErasureId,
    kind: RecordKind,
    record_id: String,
    requested_at: Timestamp,
    /// Absent while it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    done_at: Option<Timestamp>,
    /// Notifications that lost their text, data and address so far.
    notifications: u64,
}

/// A page of erasures, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ErasurePage {
    items: Vec<ErasureView>,
    /// Give it back as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<ErasureId>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ErasureQuery {
    /// 1 to 500; 50 if absent.
    limit: Option<u32>,
    cursor: Option<String>,
}

/// Erases a person.
///
/// The record is gone when this answers. What is left goes on in the background, also over restarts: the leads of a
/// contact and the addresses in its deals go within moments, then notifications about it or to its addresses lose
/// address, text, data and the provider's words, and those that still wait are cancelled. Times, outcomes, hashes of
/// texts and all counts stay; opt-outs stay as hashes.
#[utoipa::path(
    post, path = "/v1/{records}/{id}/erase", tag = "records", security(("key" = [])),
    params(("records" = Records, Path, description = "Its kind"), ("id" = String, Path, description = "Its id; it need not be there any more")),
    responses(
        (status = 202, body = ErasureView, description = "It goes on in the background"),
        (status = 422, body = Problem, description = "This is no id")
    )
)]
pub(super) async fn erase(
    State(api): State<Api>,
    caller: Caller,
    ValidPath((records, id)): ValidPath<(Records, String)>,
) -> Result<(StatusCode, Json<ErasureView>), Problem> {
    caller.may(Scope::Manage)?;
    let kind = RecordKind::from(records);
    let id = RecordId::parse(kind, &id)
        .map_err(|error| Problem::invalid(vec![FieldError::new("/id", error.to_string())]))?;
    let erasure = api.store.request_erasure(kind, id, api.clock.now()).await?;
    api.upkeep.wake();
    Ok((StatusCode::ACCEPTED, Json(view(erasure))))
}

/// How far an erasure has come.
#[utoipa::path(
    get, path = "/v1/erasures/{id}", tag = "records", security(("key" = [])),
    params(("id" = uuid::Uuid, Path, description = "Its id")),
    responses(
        (status = 200, body = ErasureView, description = "Where it stands"),
        (status = 404, body = Problem, description = "There is none with this id")
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<ErasureId>,
) -> Result<Json<ErasureView>, Problem> {
    caller.may(Scope::Read)?;
    let found = api.store.erasure(id).await?;
    found.map(|erasure| Json(view(erasure))).ok_or_else(|| Problem::not_found("there is no erasure with this id"))
}

/// Erasures, newest first: the proof that they were done.
#[utoipa::path(
    get, path = "/v1/erasures", tag = "records", security(("key" = [])),
    params(ErasureQuery),
    responses((status = 200, body = ErasurePage, description = "A page"))
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    ValidQuery(query): ValidQuery<ErasureQuery>,
) -> Result<Json<ErasurePage>, Problem> {
    caller.may(Scope::Read)?;
    let limit = page_limit(query.limit)?;
    let wrong = |_| Problem::invalid(vec![FieldError::new("/cursor", "this is not a nextCursor of an earlier page")]);
    let after = query.cursor.map(|cursor| cursor.parse::<ErasureId>().map_err(wrong)).transpose()?;
    let mut found = api.store.list_erasures(after, limit + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| more).map(|last| last.id);
    Ok(Json(ErasurePage { items: found.into_iter().map(view).collect(), next_cursor }))
}

fn view(erasure: Erasure) -> ErasureView {
    ErasureView {
        id: erasure.id,
        kind: erasure.kind,
        record_id: erasure.record.to_string(),
        requested_at: erasure.requested_at,
        done_at: erasure.done_at,
        notifications: erasure.notifications,
    }
}
