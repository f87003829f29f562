//! `/v1/dead-letters`: what failed for good, why, and what is done about it.

mod export;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;

pub(super) use self::export::{__path_export, export};
use super::Api;
use super::auth::Caller;
use super::extract::{ValidJson, ValidQuery};
use super::problem::{FieldError, Problem};
use super::requests::text_or_number;
use super::undecided::{
    Change, ChangedView, UndecidedPage, UndecidedQuery, Which, change_body, narrowed, reason, replay_cursor,
};
use crate::delivery::{Chosen, ReplayRequest};
use crate::domain::{Channel, NotificationId, TemplateId};
use crate::store::{CauseGroup, Decision, Scope};

/// Groups shown: a person reads them.
const MOST_CAUSES: u32 = 1000;
/// Replays becoming due in a second.
const RATES: std::ops::RangeInclusive<f64> = 0.01..=10_000.0;

narrowed! {
    /// Which causes are shown.
    #[derive(utoipa::IntoParams)]
    #[into_params(parameter_in = Query)]
    CausesQuery {}
}

/// Dead letters that failed for the same reason.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct CauseView {
    channel: Channel,
    account: String,
    cause: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    template_id: Option<TemplateId>,
    count: u64,
    /// When the first of them was given up.
    first_at: Timestamp,
    last_at: Timestamp,
}

/// Causes, the most frequent first; 1,000 at most.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Causes {
    items: Vec<CauseView>,
}

change_body! {
    /// Dead letters to send again.
    ReplayDeadLetters {
        /// Send it here instead: for one id only. `phoneNumber` is another name for it.
        #[serde(default, alias = "phoneNumber", deserialize_with = "text_or_number")]
        recipient: Option<String>,
        /// Send the current version of this template instead. Without it the version that the dead letter was accepted
        /// with is rendered again; name the same template to take what was mended in it.
        #[serde(default)]
        template_id: Option<String>,
        /// In a second so many become due at most: 0.01 to 10,000. Without it all are due at once, and the account's
        /// own rate holds.
        #[serde(default)]
        rate_per_second: Option<f64>,
        /// Only say what would be sent again, and what could not be.
        #[serde(default)]
        dry_run: bool,
    }
}

change_body! {
    /// Dead letters that are not to be sent any more.
    DiscardDeadLetters {
        /// Why; kept with each.
        reason: String,
    }
}

/// What was sent again.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReplayView {
    /// Nothing was changed: this is what would happen.
    dry_run: bool,
    /// How many are on their way again.
    replayed: u64,
    items: Vec<ReplayedView>,
    /// Those that stay as they were.
    refused: Vec<RefusedView>,
    /// There are more: give it back as `cursor`, with the same request. Absent when all was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct ReplayedView {
    id: NotificationId,
    /// The notification that takes its place. Absent in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_as: Option<NotificationId>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct RefusedView {
    id: NotificationId,
    /// A stable word: `unknown`, `not_failed`, `replayed`, `discarded`, `erased`, `expired`, `opted_out`, `address`,
    /// `missing_variable`, `template`, `unknown_template`, `unknown_account`, …
    code: &'static str,
    detail: String,
}

/// Dead letters: given up, and neither replayed nor discarded.
#[utoipa::path(
    get, path = "/v1/dead-letters", tag = "dead-letters", security(("key" = [])),
    params(UndecidedQuery),
    responses((status = 200, body = UndecidedPage, description = "A page"))
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    ValidQuery(query): ValidQuery<UndecidedQuery>,
) -> Result<Json<UndecidedPage>, Problem> {
    caller.may(Scope::Read)?;
    Which::DeadLetters.list(&api, &query).await
}

/// What dead letters failed for, counted.
#[utoipa::path(
    get, path = "/v1/dead-letters/causes", tag = "dead-letters", security(("key" = [])),
    params(CausesQuery),
    responses((status = 200, body = Causes, description = "By channel, account, cause, code and template"))
)]
pub(super) async fn causes(
    State(api): State<Api>,
    caller: Caller,
    ValidQuery(query): ValidQuery<CausesQuery>,
) -> Result<Json<Causes>, Problem> {
    caller.may(Scope::Read)?;
    let filter = query.filter("").map_err(Problem::invalid)?;
    let groups = api.store.dead_letter_causes(filter, MOST_CAUSES).await?;
    Ok(Json(Causes { items: groups.into_iter().map(Into::into).collect() }))
}

/// Sends dead letters again, as new notifications.
///
/// Each has the content, data, records and metadata of its dead letter, and waits for its turn. What was delivered,
/// replayed or discarded meanwhile is not sent again, and what could not be sent stays a dead letter. Repeating the call
/// is safe without an `Idempotency-Key`: a dead letter is replayed once.
#[utoipa::path(
    post, path = "/v1/dead-letters/replay", tag = "dead-letters", security(("key" = [])),
    request_body = ReplayDeadLetters,
    responses(
        (status = 200, body = ReplayView, description = "On their way, and those that are not"),
        (status = 422, body = Problem, description = "The request is wrong; nothing is sent again"),
        (status = 503, body = Problem, description = "The ledger or the source of the records is away: ask again")
    )
)]
pub(super) async fn replay(
    State(api): State<Api>,
    caller: Caller,
    ValidJson { value, .. }: ValidJson<ReplayDeadLetters>,
) -> Result<Json<ReplayView>, Problem> {
    caller.may(Scope::Manage)?;
    let position = value.position().map_err(Problem::invalid)?;
    let mut wrong = Vec::new();
    if value.recipient.is_some() && !matches!(&position.chosen, Chosen::Ids(ids) if ids.len() == 1) {
        wrong.push(FieldError::new("/recipient", "another recipient goes with one id only"));
    }
    if value.rate_per_second.is_some_and(|rate| !RATES.contains(&rate)) {
        let detail = format!("ratePerSecond is {} to {}", RATES.start(), RATES.end());
        wrong.push(FieldError::new("/ratePerSecond", detail));
    }
    let template = value.template_id.as_deref().map(TemplateId::parse).transpose().unwrap_or_else(|error| {
        wrong.push(FieldError::new("/templateId", error.to_string()));
        None
    });
    if !wrong.is_empty() {
        return Err(Problem::invalid(wrong));
    }
    let now = api.clock.now();
    let request = ReplayRequest {
        chosen: position.chosen,
        recipient: value.recipient,
        template,
        per_second: value.rate_per_second,
        start: position.start.unwrap_or(now).max(now),
        is_trial: value.dry_run,
        by: caller.name(),
    };
    let done = api.delivery.replay_dead_letters(&request).await?;
    let shown =
        |(id, new): (NotificationId, NotificationId)| ReplayedView { id, replayed_as: (!value.dry_run).then_some(new) };
    Ok(Json(ReplayView {
        dry_run: value.dry_run,
        replayed: done.replayed.len() as u64,
        items: done.replayed.into_iter().map(shown).collect(),
        refused: done
            .refused
            .into_iter()
            .map(|refused| RefusedView { id: refused.id, code: refused.code, detail: refused.detail })
            .collect(),
        next_cursor: done.more.map(|(after, start)| replay_cursor(after, start)),
    }))
}

/// Gives dead letters up for good.
///
/// They stay failed and are no dead letters any more. Repeating the call is safe.
#[utoipa::path(
    post, path = "/v1/dead-letters/discard", tag = "dead-letters", security(("key" = [])),
    request_body = DiscardDeadLetters,
    responses(
        (status = 200, body = ChangedView, description = "Discarded"),
        (status = 422, body = Problem, description = "The request is wrong; nothing was discarded")
    )
)]
pub(super) async fn discard(
    State(api): State<Api>,
    caller: Caller,
    ValidJson { value, .. }: ValidJson<DiscardDeadLetters>,
) -> Result<Json<ChangedView>, Problem> {
    caller.may(Scope::Manage)?;
    let mut wrong = Vec::new();
    let reason = reason(&value.reason, &mut wrong);
    if !wrong.is_empty() {
        return Err(Problem::invalid(wrong));
    }
    let position = value.position().map_err(Problem::invalid)?;
    let decision = Decision { by: caller.name(), at: api.clock.now() };
    Ok(Json(Change::Discard { reason, decision }.make(&api, position.chosen).await?))
}

impl From<CauseGroup> for CauseView {
    fn from(group: CauseGroup) -> Self {
        CauseView {
            channel: group.channel,
            account: group.account,
            cause: group.cause,
            code: group.code,
            template_id: group.template,
            count: group.count,
            first_at: group.first_at,
            last_at: group.last_at,
        }
    }
}
