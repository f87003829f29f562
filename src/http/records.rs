//! `/v1/contacts`, `/v1/leads`, `/v1/deals`, `/v1/companies`: the CRM records kept here.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Api;
use super::auth::Caller;
use super::extract::{ValidJson, ValidPath, ValidQuery};
use super::notifications::page_limit;
use super::problem::{FieldError, Problem};
use crate::domain::record::FieldProblem;
use crate::domain::{Channel, Recipient, Record, RecordId, RecordKind};
use crate::records::RecordSource as _;
use crate::store::{KeptRecord, RecordFilter, SaveHow, Saved, Scope};

/// Our own part of a record on the wire; the CRM's fields stand beside it.
const META: &str = "_meta";

/// The kind of record, as the path says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Records {
    Contacts,
    Leads,
    Deals,
    Companies,
}

impl From<Records> for RecordKind {
    fn from(records: Records) -> Self {
        match records {
            Records::Contacts => RecordKind::Contact,
            Records::Leads => RecordKind::Lead,
            Records::Deals => RecordKind::Deal,
            Records::Companies => RecordKind::Company,
        }
    }
}

/// A page of records, by id.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RecordPage {
    /// Each with `id`, its fields, and `_meta`.
    #[schema(value_type = Vec<Object>)]
    items: Vec<Value>,
    /// Give it back as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RecordQuery {
    /// Words, or beginnings of words, that stand anywhere in the record; digits of a phone number are words, too.
    search: Option<String>,
    /// Exactly this address of `channel`.
    address: Option<String>,
    /// Needed with `address`.
    channel: Option<Channel>,
    /// 1 to 500; 50 if absent.
    limit: Option<u32>,
    cursor: Option<String>,
}

/// One record with all its fields.
#[utoipa::path(
    get, path = "/v1/{records}/{id}", tag = "records", security(("key" = [])),
    params(("records" = Records, Path, description = "Its kind"), ("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, body = Object, description = "`id`, its fields, and where it is kept here `_meta` with its times"),
        (status = 404, body = Problem, description = "There is none")
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    ValidPath((records, id)): ValidPath<(Records, String)>,
) -> Result<Json<Value>, Problem> {
    caller.may(Scope::Read)?;
    let kind = RecordKind::from(records);
    let id = RecordId::parse(kind, &id).map_err(|_| none(kind))?;
    if api.delivery.records().is_elsewhere(kind) {
        // As its own database has it, and as a template would see it.
        let found = api.delivery.records().load(kind, vec![id]).await?.pop();
        return found.map(|record| Json(record.to_data())).ok_or_else(|| none(kind));
    }
    let found = api.store.records(kind, vec![id]).await?.pop();
    found.map(|kept| Json(view(&kept))).ok_or_else(|| none(kind))
}

/// Saves a record: these fields and no others.
///
/// `phone`, `email`, `telegramChatId`, `locale`, `timezone` and the links `contactId`, `companyId`, `managerId` are
/// read and kept in one form (E.164, …); every other field is yours. Saving what is there already changes nothing.
#[utoipa::path(
    put, path = "/v1/{records}/{id}", tag = "records", security(("key" = [])),
    params(("records" = Records, Path, description = "Its kind"), ("id" = String, Path, description = "Its id; a whole number for leads")),
    request_body = Object,
    responses(
        (status = 200, body = Object, description = "The record as it is kept now"),
        (status = 201, body = Object, description = "It was new"),
        (status = 409, body = Problem, description = "Records of this kind are read from the CRM's own database"),
        (status = 422, body = Problem, description = "Each field that is wrong")
    )
)]
pub(super) async fn replace(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(path): ValidPath<(Records, String)>,
    ValidJson { value, .. }: ValidJson<Map<String, Value>>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    save(api, caller, path, value, SaveHow::Replace).await
}

/// Changes some fields of a record, and leaves the others; null takes a field away. A new record is made if there is
/// none.
#[utoipa::path(
    patch, path = "/v1/{records}/{id}", tag = "records", security(("key" = [])),
    params(("records" = Records, Path, description = "Its kind"), ("id" = String, Path, description = "Its id; a whole number for leads")),
    request_body = Object,
    responses(
        (status = 200, body = Object, description = "The record as it is kept now"),
        (status = 201, body = Object, description = "It was new"),
        (status = 409, body = Problem, description = "Records of this kind are read from the CRM's own database"),
        (status = 422, body = Problem, description = "Each field that is wrong")
    )
)]
pub(super) async fn change(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(path): ValidPath<(Records, String)>,
    ValidJson { value, .. }: ValidJson<Map<String, Value>>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    save(api, caller, path, value, SaveHow::Merge).await
}

/// Records by id, all or those found.
#[utoipa::path(
    get, path = "/v1/{records}", tag = "records", security(("key" = [])),
    params(("records" = Records, Path, description = "Their kind"), RecordQuery),
    responses((status = 200, body = RecordPage, description = "A page"))
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(records): ValidPath<Records>,
    ValidQuery(query): ValidQuery<RecordQuery>,
) -> Result<Json<RecordPage>, Problem> {
    caller.may(Scope::Read)?;
    let kind = built_in(&api, records)?;
    let limit = page_limit(query.limit)?;
    let after = query.cursor.map(|cursor| from_cursor(kind, &cursor).ok_or_else(bad_cursor)).transpose()?;
    let address = match (query.channel, query.address) {
        (Some(channel), Some(given)) => {
            let parsed = Recipient::parse(channel, &given, api.delivery.default_region());
            let parsed = parsed.map_err(|error| Problem::invalid(vec![FieldError::new("/address", error.to_string())]));
            Some((channel, parsed?.to_string()))
        }
        (None, Some(_)) => {
            let detail = "say which channel's address it is: channel=whatsapp, sms, telegram or email";
            return Err(Problem::invalid(vec![FieldError::new("/channel", detail)]));
        }
        (_, None) => None,
    };
    let filter = RecordFilter { address, text: query.search };
    let mut found = api.store.list_records(kind, filter, after, limit + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(last.record.id.as_str()));
    Ok(Json(RecordPage { items: found.iter().map(view).collect(), next_cursor }))
}

/// Deletes a record. What was sent about it keeps its text and address: `erase` takes them away, too.
#[utoipa::path(
    delete, path = "/v1/{records}/{id}", tag = "records", security(("key" = [])),
    params(("records" = Records, Path, description = "Its kind"), ("id" = String, Path, description = "Its id")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, body = Problem, description = "There is none")
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    ValidPath((records, id)): ValidPath<(Records, String)>,
) -> Result<StatusCode, Problem> {
    caller.may(Scope::Manage)?;
    let kind = built_in(&api, records)?;
    let id = RecordId::parse(kind, &id).map_err(|_| none(kind))?;
    if api.store.delete_record(kind, id).await? { Ok(StatusCode::NO_CONTENT) } else { Err(none(kind)) }
}

async fn save(
    api: Api,
    caller: Caller,
    (records, id): (Records, String),
    mut fields: Map<String, Value>,
    how: SaveHow,
) -> Result<(StatusCode, Json<Value>), Problem> {
    caller.may(Scope::Manage)?;
    let kind = built_in(&api, records)?;
    let id = RecordId::parse(kind, &id)
        .map_err(|error| Problem::invalid(vec![FieldError::new("/id", error.to_string())]))?;
    // What was read here may be written back.
    fields.remove(META);
    let region = api.delivery.default_region();
    let record = Record::parse(kind, id.clone(), fields, region).map_err(|problems| invalid(&problems))?;
    let saved = api.store.save_records(kind, vec![record], how, api.clock.now()).await?.pop();
    let status = match saved {
        Some(Saved::Created) => StatusCode::CREATED,
        Some(Saved::Updated | Saved::Unchanged) => StatusCode::OK,
        Some(Saved::Refused(detail)) => return Err(Problem::invalid(vec![FieldError::new("", detail)])),
        None => return Err(Problem::internal()),
    };
    let kept = api.store.records(kind, vec![id]).await?.pop();
    // Somebody may have deleted it since.
    kept.map(|kept| (status, Json(view(&kept)))).ok_or_else(|| none(kind))
}

/// The kind, if it is kept here.
pub(super) fn built_in(api: &Api, records: Records) -> Result<RecordKind, Problem> {
    let kind = records.into();
    if api.delivery.records().is_elsewhere(kind) {
        return Err(Problem::kept_elsewhere(kind));
    }
    Ok(kind)
}

pub(super) fn invalid(problems: &[FieldProblem]) -> Problem {
    let pointer = |field: &str| match field {
        "" => String::new(),
        field => format!("/{}", field.replace('~', "~0").replace('/', "~1")),
    };
    Problem::invalid(
        problems.iter().map(|problem| FieldError::new(pointer(&problem.field), problem.detail.clone())).collect(),
    )
}

fn view(kept: &KeptRecord) -> Value {
    let mut shown = kept.record.to_data();
    shown[META] = json!({ "createdAt": kept.created_at, "updatedAt": kept.updated_at });
    shown
}

pub(super) fn none(kind: RecordKind) -> Problem {
    Problem::not_found(format!("there is no {kind} with this id"))
}

fn from_cursor(kind: RecordKind, cursor: &str) -> Option<RecordId> {
    let id = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    RecordId::parse(kind, &id).ok()
}

fn bad_cursor() -> Problem {
    Problem::invalid(vec![FieldError::new("/cursor", "this is not a nextCursor of an earlier page")])
}
