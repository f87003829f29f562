//! `/v1/uncertain` and `/v1/notifications/{id}/resolve`: nobody knows whether it left, until a person says so.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::Api;
use super::auth::Caller;
use super::extract::{ValidJson, ValidPath, ValidQuery};
use super::problem::{FieldError, Problem};
use super::undecided::{Change, ChangedView, UndecidedPage, UndecidedQuery, Which, change_body, reason};
use super::view::NotificationView;
use crate::domain::{NotificationId, Verdict};
use crate::store::{Decision, Scope, Settlement};

/// A person's word on an uncertain notification.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ResolveNotification {
    status: Verdict,
    /// How you know.
    reason: String,
}

change_body! {
    /// A person's word on uncertain notifications.
    ResolveUncertain {
        status: Verdict,
        /// How you know.
        reason: String,
    }
}

/// Uncertain notifications.
#[utoipa::path(
    get, path = "/v1/uncertain", tag = "dead-letters", security(("key" = [])),
    params(UndecidedQuery),
    responses((status = 200, body = UndecidedPage, description = "A page"))
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    ValidQuery(query): ValidQuery<UndecidedQuery>,
) -> Result<Json<UndecidedPage>, Problem> {
    caller.may(Scope::Read)?;
    Which::Uncertain.list(&api, &query).await
}

/// Settles an uncertain notification by hand.
///
/// As `sent` it is done; as `failed` it becomes a dead letter, which may be replayed.
#[utoipa::path(
    post, path = "/v1/notifications/{id}/resolve", tag = "dead-letters", security(("key" = [])),
    params(("id" = uuid::Uuid, Path, description = "Its id")),
    request_body = ResolveNotification,
    responses(
        (status = 200, body = NotificationView, description = "Settled"),
        (status = 404, body = Problem, description = "There is none with this id"),
        (status = 409, body = Problem, description = "It is not uncertain (any more)"),
        (status = 422, body = Problem, description = "The request is wrong")
    )
)]
pub(super) async fn resolve_one(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<NotificationId>,
    ValidJson { value, .. }: ValidJson<ResolveNotification>,
) -> Result<Json<NotificationView>, Problem> {
    caller.may(Scope::Manage)?;
    let settlement = settlement(&api, &caller, value.status, &value.reason).map_err(Problem::invalid)?;
    let settled = api.store.settle_uncertain(vec![id], settlement).await?;
    let found = api.store.notifications(vec![id]).await?.pop();
    let found = found.ok_or_else(|| Problem::not_found("there is no notification with this id"))?;
    if settled.is_empty() {
        return Err(Problem::not_uncertain(found.status));
    }
    Ok(Json(NotificationView::new(found, &api.delivery, None)))
}

/// Settles uncertain notifications by hand.
///
/// Repeating it is safe: what is settled is no longer uncertain.
#[utoipa::path(
    post, path = "/v1/uncertain/resolve", tag = "dead-letters", security(("key" = [])),
    request_body = ResolveUncertain,
    responses(
        (status = 200, body = ChangedView, description = "Settled"),
        (status = 422, body = Problem, description = "The request is wrong; nothing was settled")
    )
)]
pub(super) async fn resolve(
    State(api): State<Api>,
    caller: Caller,
    ValidJson { value, .. }: ValidJson<ResolveUncertain>,
) -> Result<Json<ChangedView>, Problem> {
    caller.may(Scope::Manage)?;
    let settlement = settlement(&api, &caller, value.status, &value.reason).map_err(Problem::invalid)?;
    let position = value.position().map_err(Problem::invalid)?;
    Ok(Json(Change::Settle(settlement).make(&api, position.chosen).await?))
}

fn settlement(api: &Api, caller: &Caller, verdict: Verdict, given: &str) -> Result<Settlement, Vec<FieldError>> {
    let mut wrong = Vec::new();
    let reason = reason(given, &mut wrong);
    let decision = Decision { by: caller.name(), at: api.clock.now() };
    if wrong.is_empty() { Ok(Settlement { verdict, reason, decision }) } else { Err(wrong) }
}
