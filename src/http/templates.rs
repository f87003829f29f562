//! `/v1/templates`: texts with variables, in immutable versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Api;
use super::auth::Caller;
use super::extract::{ValidJson, ValidPath, ValidQuery};
use super::notifications::page_limit;
use super::problem::{FieldError, Problem, TemplatePlace};
use crate::domain::template::TemplateBody;
use crate::domain::{RecordKind, TemplateId, TemplateVersion};
use crate::records::RecordSource as _;
use crate::store::{SavedTemplate, Scope};
use crate::templates::{Checked, Place, TemplateProblem, unknown_fields};

/// A version of a template.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TemplateView {
    id: String,
    /// Absent where nothing was saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_at: Option<Timestamp>,
    /// The variables it prints or asks for.
    variables: Vec<String>,
    /// What will work, but perhaps not as it was meant.
    warnings: Vec<TemplateWarning>,
    #[serde(flatten)]
    body: TemplateBody,
}

/// Something its author may want to look at.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct TemplateWarning {
    /// Where in the template.
    place: TemplatePlace,
    message: String,
}

/// A page of templates, by name.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TemplatePage {
    items: Vec<TemplateView>,
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

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct VersionQuery {
    /// An older version; the current one if absent.
    version: Option<i32>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SaveQuery {
    /// Only check it.
    #[serde(default)]
    dry_run: bool,
}

/// Saves a template. Each save that changes something is a new version; notifications keep the one they were accepted
/// with.
#[utoipa::path(
    put, path = "/v1/templates/{id}", tag = "templates", security(("key" = [])),
    params(("id" = String, Path, description = "Its name: letters, digits, `.`, `_`, `-`"), SaveQuery),
    request_body = TemplateBody,
    responses(
        (status = 200, body = TemplateView, description = "Saved, with what is worth a look"),
        (status = 422, body = Problem, description = "It is wrong: part, line and column of each mistake")
    )
)]
pub(super) async fn save(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<String>,
    ValidQuery(query): ValidQuery<SaveQuery>,
    ValidJson { value, .. }: ValidJson<TemplateBody>,
) -> Result<Json<TemplateView>, Problem> {
    caller.may(Scope::Manage)?;
    let id = TemplateId::parse(&id).map_err(|error| Problem::invalid(vec![FieldError::new("", error.to_string())]))?;
    let value = Arc::new(value);
    let checked = api.delivery.renderer().check_apart(Arc::clone(&value)).await?;
    let variables = checked.variables.clone();
    let warnings = warnings(&api, checked).await;
    if query.dry_run {
        let view = TemplateView {
            id: id.to_string(),
            version: None,
            saved_at: None,
            variables,
            warnings,
            body: Arc::unwrap_or_clone(value),
        };
        return Ok(Json(view));
    }
    let saved = api.store.save_template(id.clone(), value, api.clock.now()).await?;
    api.delivery.renderer().forget(&id);
    Ok(Json(TemplateView { warnings, ..view(&api, saved) }))
}

/// The current version of a template, or an older one.
#[utoipa::path(
    get, path = "/v1/templates/{id}", tag = "templates", security(("key" = [])),
    params(("id" = String, Path, description = "Its name"), VersionQuery),
    responses(
        (status = 200, body = TemplateView, description = "The version"),
        (status = 404, body = Problem, description = "There is none")
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<String>,
    ValidQuery(query): ValidQuery<VersionQuery>,
) -> Result<Json<TemplateView>, Problem> {
    caller.may(Scope::Read)?;
    let id = TemplateId::parse(&id).map_err(|_| none())?;
    let found = api.store.template(id, query.version.map(TemplateVersion)).await?;
    found.map(|saved| Json(view(&api, saved))).ok_or_else(none)
}

/// All templates, by name.
#[utoipa::path(
    get, path = "/v1/templates", tag = "templates", security(("key" = [])),
    params(PageQuery),
    responses((status = 200, body = TemplatePage, description = "A page"))
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    ValidQuery(query): ValidQuery<PageQuery>,
) -> Result<Json<TemplatePage>, Problem> {
    caller.may(Scope::Read)?;
    let limit = page_limit(query.limit)?;
    let after = query.cursor.map(|cursor| {
        let wrong =
            || Problem::invalid(vec![FieldError::new("/cursor", "this is not a nextCursor of an earlier page")]);
        TemplateId::parse(&cursor).map_err(|_| wrong())
    });
    let mut found = api.store.list_templates(after.transpose()?, limit + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| more).map(|saved| saved.template.id.to_string());
    Ok(Json(TemplatePage { items: found.into_iter().map(|saved| view(&api, saved)).collect(), next_cursor }))
}

/// Deletes a template. Its versions stay readable for what was sent with them.
#[utoipa::path(
    delete, path = "/v1/templates/{id}", tag = "templates", security(("key" = [])),
    params(("id" = String, Path, description = "Its name")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, body = Problem, description = "There is none")
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<String>,
) -> Result<StatusCode, Problem> {
    caller.may(Scope::Manage)?;
    let id = TemplateId::parse(&id).map_err(|_| none())?;
    let was_there = api.store.delete_template(id.clone(), api.clock.now()).await?;
    api.delivery.renderer().forget(&id);
    if was_there { Ok(StatusCode::NO_CONTENT) } else { Err(none()) }
}

/// What is worth a look in a template that may be saved, by itself and beside the records there are.
pub(super) async fn warnings(api: &Api, checked: Checked) -> Vec<TemplateWarning> {
    let mut fields = BTreeMap::new();
    for kind in RecordKind::ALL {
        // A source that is away has said so in the log, and a template is saved without it.
        let known = api.delivery.records().fields(*kind).await.unwrap_or_default();
        fields.insert(kind.as_str(), known.into_iter().collect());
    }
    let known = |kind: &str| fields.get(kind).cloned().unwrap_or_default();
    let unknown = unknown_fields(&checked.fields, &known);
    checked.warnings.into_iter().chain(unknown).map(warning).collect()
}

pub(super) fn none() -> Problem {
    Problem::not_found("there is no such template, or no such version of it")
}

fn view(api: &Api, saved: SavedTemplate) -> TemplateView {
    // What an earlier release saved may not pass today; it is shown all the same, with what is wrong.
    let renderer = api.delivery.renderer();
    let warnings = match renderer.check(&saved.template.body) {
        Ok(checked) => checked.warnings,
        Err(problems) => problems.0,
    };
    TemplateView {
        id: saved.template.id.to_string(),
        version: Some(saved.template.version.0),
        saved_at: Some(saved.saved_at),
        variables: renderer.variables(&saved.template.body),
        warnings: warnings.into_iter().map(warning).collect(),
        body: (*saved.template.body).clone(),
    }
}

fn warning(problem: TemplateProblem) -> TemplateWarning {
    let Place { part, line, column } = problem.place;
    TemplateWarning { place: TemplatePlace { part, line, column }, message: problem.message }
}
