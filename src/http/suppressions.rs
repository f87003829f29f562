//! `/v1/suppressions`: addresses that opted out.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Api;
use super::auth::Caller;
use super::extract::{ValidJson, ValidPath, ValidQuery};
use super::notifications::page_limit;
use super::problem::{FieldError, Problem};
use crate::domain::{Channel, Recipient};
use crate::store::{Scope, Suppression, SuppressionScope};

/// An address that wants nothing more.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CreateSuppression {
    channel: Channel,
    /// A phone number or a chat id.
    address: String,
    /// `all`, or only `marketing`.
    #[serde(default = "all")]
    scope: SuppressionScope,
    /// For people: who says so.
    #[serde(default)]
    reason: Option<String>,
}

fn all() -> SuppressionScope {
    SuppressionScope::All
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SuppressionView {
    channel: Channel,
    address: String,
    scope: SuppressionScope,
    reason: String,
    created_at: Timestamp,
}

/// A page of suppressions, by channel and address.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SuppressionPage {
    items: Vec<SuppressionView>,
    /// Give it back as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// 1 to 500; 50 if absent.
    limit: Option<u32>,
    cursor: Option<String>,
}

/// Adds an address. One that is there already stays as it is.
#[utoipa::path(
    post, path = "/v1/suppressions", tag = "suppressions", security(("key" = [])),
    request_body = CreateSuppression,
    responses(
        (status = 201, body = SuppressionView, description = "Nothing is sent there any more"),
        (status = 422, body = Problem, description = "The address is wrong")
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    ValidJson { value, .. }: ValidJson<CreateSuppression>,
) -> Result<(StatusCode, Json<SuppressionView>), Problem> {
    caller.may(Scope::Manage)?;
    let suppression = Suppression {
        channel: value.channel,
        address: address(&api, value.channel, &value.address, "/address")?,
        scope: value.scope,
        reason: value
            .reason
            .unwrap_or_else(|| "by request".into())
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect(),
        created_at: api.clock.now(),
    };
    api.store.suppress(suppression.clone()).await?;
    Ok((StatusCode::CREATED, Json(view(suppression))))
}

/// All suppressed addresses.
#[utoipa::path(
    get, path = "/v1/suppressions", tag = "suppressions", security(("key" = [])),
    params(PageQuery),
    responses((status = 200, body = SuppressionPage, description = "A page"))
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    ValidQuery(query): ValidQuery<PageQuery>,
) -> Result<Json<SuppressionPage>, Problem> {
    caller.may(Scope::Read)?;
    let limit = page_limit(query.limit)?;
    let wrong = || Problem::invalid(vec![FieldError::new("/cursor", "this is not a nextCursor of an earlier page")]);
    let after = query.cursor.map(|cursor| from_cursor(&cursor).ok_or_else(wrong)).transpose()?;
    // One address more than asked for: whether there is a next page. An address may have several scopes.
    let mut found = api.store.suppressions(after, limit + 1).await?;
    let mut addresses = 0;
    let mut last: Option<(Channel, &str)> = None;
    let fits = found.iter().take_while(|suppression| {
        let this = (suppression.channel, suppression.address.as_str());
        addresses += u32::from(last != Some(this));
        last = Some(this);
        addresses <= limit
    });
    let fits = fits.count();
    let more = fits < found.len();
    found.truncate(fits);
    let next_cursor = found.last().filter(|_| more).map(to_cursor);
    Ok(Json(SuppressionPage { items: found.into_iter().map(view).collect(), next_cursor }))
}

/// Lifts a suppression: the person wants to hear again.
#[utoipa::path(
    delete, path = "/v1/suppressions/{channel}/{address}", tag = "suppressions", security(("key" = [])),
    params(("channel" = Channel, Path, description = "Its channel"), ("address" = String, Path, description = "The address")),
    responses(
        (status = 204, description = "Lifted"),
        (status = 404, body = Problem, description = "There is none")
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    ValidPath((channel, given)): ValidPath<(Channel, String)>,
) -> Result<StatusCode, Problem> {
    caller.may(Scope::Manage)?;
    let address = address(&api, channel, &given, "")?;
    if api.store.lift_suppression(channel, address).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("this address is not suppressed"))
    }
}

/// Opaque, and safe in a URL.
fn to_cursor(last: &Suppression) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}:{}", last.channel, last.address))
}

fn from_cursor(cursor: &str) -> Option<(Channel, String)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (channel, address) = text.split_once(':').filter(|(_, address)| !address.contains(char::is_control))?;
    Some((channel.parse().ok()?, address.to_owned()))
}

fn address(api: &Api, channel: Channel, given: &str, pointer: &str) -> Result<String, Problem> {
    let parsed = Recipient::parse(channel, given, api.delivery.default_region());
    let parsed = parsed.map_err(|error| Problem::invalid(vec![FieldError::new(pointer, error.to_string())]))?;
    Ok(parsed.to_string())
}

fn view(suppression: Suppression) -> SuppressionView {
    SuppressionView {
        channel: suppression.channel,
        address: suppression.address,
        scope: suppression.scope,
        reason: suppression.reason,
        created_at: suppression.created_at,
    }
}
