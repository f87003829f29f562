//! `/v1/templates/{id}/preview` and `/test`: a template tried out before anybody else reads it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Api;
use super::auth::Caller;
use super::extract::{ValidJson, ValidPath};
use super::problem::{FieldError, Problem};
use super::requests::{bounded, bounded_records};
use super::templates::{TemplateWarning, none, warnings};
use super::view::NotificationView;
use crate::delivery::{Refusal, SendRequest, Tried};
use crate::domain::record::parse_locale;
use crate::domain::sms::SmsSize;
use crate::domain::template::TemplateBody;
use crate::domain::{Channel, Content, OnFailure, Priority, RecordIds, RecordKind, TemplateId, TemplateVersion};
use crate::store::Scope;
use crate::templates::ChannelPreview;

/// What to fill a template with.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct PreviewTemplate {
    /// The CRM records it is about.
    context: RecordIds,
    /// Values of the call, laid over the records; no record need exist.
    #[schema(value_type = Object)]
    data: Map<String, Value>,
    /// The reader's language; else the one of the record that would be written to.
    locale: Option<String>,
    /// An older version; the current one if absent.
    version: Option<i32>,
    /// A draft, instead of what is saved under this name.
    template: Option<TemplateBody>,
}

/// What would leave, on every channel that the template serves.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PreviewView {
    template_id: String,
    /// Absent for a draft.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i32>,
    channels: Vec<ChannelPreviewView>,
    /// Variables without which some channel sends nothing.
    missing: Vec<String>,
    /// Variables that are not there and that the template does without: they have a default, or an `if` asks for them.
    unset: Vec<String>,
    /// Records that were named, here or by another record, and are not there.
    missing_records: Vec<MissingRecord>,
    /// What will work, but perhaps not as meant.
    warnings: Vec<TemplateWarning>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct MissingRecord {
    kind: RecordKind,
    id: String,
}

/// What one channel would send.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct ChannelPreviewView {
    channel: Channel,
    /// The language of the bodies used; absent if the template does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    locale: Option<String>,
    /// Where it would go if no recipient is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<String>,
    /// Why there is no such address.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_recipient: Option<String>,
    /// Of an email.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// What a person reads: without tags; of an approved WhatsApp template the approved text with its parameters, as
    /// far as the template says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Of Telegram and email, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<String>,
    /// Of email: the names of the files that go along.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<String>,
    /// The approved WhatsApp template that would be named.
    #[serde(skip_serializing_if = "Option::is_none")]
    approved: Option<ApprovedView>,
    /// How long it is, and may be; of an email the subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<LengthView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sms: Option<SmsView>,
    /// Why this channel would send nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<FieldError>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ApprovedView {
    name: String,
    language: String,
    header: Vec<String>,
    body: Vec<String>,
    buttons: Vec<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct LengthView {
    length: usize,
    limit: usize,
    /// `characters`, `utf16_units` (Telegram's measure) or `bytes`.
    unit: &'static str,
}

/// What an SMS is billed as.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct SmsView {
    /// `GSM-7`: 160 characters in one part, 153 in each of several; `UCS-2`: 70 and 67.
    encoding: &'static str,
    parts: usize,
    /// Before it needs one part more.
    characters_left: usize,
    /// The characters that GSM-7 does not have, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ucs2_because: Vec<char>,
}

/// One send to look at it on a real device.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TestTemplate {
    channel: Channel,
    /// A named account of the channel; else `main`, or the only one.
    #[serde(default)]
    account: Option<String>,
    /// Your own address on this channel. `phoneNumber` is another name for it.
    #[serde(default, alias = "phoneNumber", deserialize_with = "super::requests::text_or_number")]
    recipient: Option<String>,
    #[serde(default)]
    context: RecordIds,
    #[serde(default)]
    #[schema(value_type = Object)]
    data: Map<String, Value>,
}

/// Fills a template in and sends nothing: what would leave on each channel, how long it is, and what is missing.
#[utoipa::path(
    post, path = "/v1/templates/{id}/preview", tag = "templates", security(("key" = [])),
    params(("id" = String, Path, description = "Its name; with a draft, any")),
    request_body = PreviewTemplate,
    responses(
        (status = 200, body = PreviewView, description = "What would leave; a channel that cannot send says why"),
        (status = 404, body = Problem, description = "There is no such template"),
        (status = 422, body = Problem, description = "The draft is wrong: part, line and column of each mistake")
    )
)]
pub(super) async fn preview(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<String>,
    ValidJson { value, .. }: ValidJson<PreviewTemplate>,
) -> Result<Json<PreviewView>, Problem> {
    caller.may(Scope::Read)?;
    let mut wrong = Vec::new();
    bounded_records("/context", &value.context, &mut wrong);
    let locale = value.locale.as_deref().map(|given| {
        let read = parse_locale(given);
        if read.is_none() {
            wrong.push(FieldError::new("/locale", "expected a language, like ru or en-GB"));
        }
        read
    });
    if !wrong.is_empty() {
        return Err(Problem::invalid(wrong));
    }
    let id = TemplateId::parse(&id).map_err(|_| none())?;
    let (body, version) = match value.template {
        Some(draft) => (draft, None),
        None => {
            let saved = api.store.template(id.clone(), value.version.map(TemplateVersion)).await?.ok_or_else(none)?;
            ((*saved.template.body).clone(), Some(saved.template.version.0))
        }
    };
    let checked = api.delivery.renderer().check_apart(Arc::new(body.clone())).await?;
    let tried = api.delivery.try_out(&body, &value.context, &value.data, locale.flatten().as_deref()).await?;
    let warnings = warnings(&api, checked).await;
    Ok(Json(view(&id, version, tried, warnings)))
}

/// Sends a template now to one address, and answers with what the provider said.
#[utoipa::path(
    post, path = "/v1/templates/{id}/test", tag = "templates", security(("key" = [])),
    params(("id" = String, Path, description = "Its name")),
    request_body = TestTemplate,
    responses(
        (status = 200, body = NotificationView, description = "Its end; `metadata.test` is true"),
        (status = 422, body = Problem, description = "The request is wrong; nothing was sent")
    )
)]
pub(super) async fn test(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(id): ValidPath<String>,
    ValidJson { value, .. }: ValidJson<TestTemplate>,
) -> Result<Json<NotificationView>, Problem> {
    caller.may(Scope::Send)?;
    let mut wrong = Vec::new();
    bounded("/account", value.account.as_deref(), &mut wrong);
    bounded_records("/context", &value.context, &mut wrong);
    if value.recipient.as_deref().is_none_or(|recipient| recipient.trim().is_empty()) {
        wrong.push(FieldError::new("/recipient", "a test goes to an address that is given, never to a record's"));
    }
    if !wrong.is_empty() {
        return Err(Problem::invalid(wrong));
    }
    let template = TemplateId::parse(&id).map_err(|_| none())?;
    let request = SendRequest {
        channel: value.channel,
        account: value.account,
        template: Some(template),
        text: None,
        recipient: value.recipient,
        records: value.context,
        data: value.data,
        metadata: Some(Map::from_iter([("test".to_owned(), Value::Bool(true))])),
        external_id: None,
        priority: Priority::High,
        policy: None,
        max_retries: 0,
        not_after: None,
        deadline: None,
        on_failure: OnFailure::Fail,
    };
    let result = api.delivery.send_now(request, None).await?;
    Ok(Json(NotificationView::new(result.notification, &api.delivery, result.retry_after)))
}

fn view(id: &TemplateId, version: Option<i32>, tried: Tried, warnings: Vec<TemplateWarning>) -> PreviewView {
    let missing_records = tried.records.missing.iter();
    let address = |channel| match tried.recipient(channel) {
        Ok(recipient) => (Some(recipient.to_string()), None),
        Err(refusal) => (None, Some(refusal.detail)),
    };
    PreviewView {
        template_id: id.to_string(),
        version,
        missing_records: missing_records
            .map(|missing| MissingRecord { kind: missing.role.kind(), id: missing.id.clone() })
            .collect(),
        channels: tried.preview.channels.iter().map(|shown| channel_view(shown, address(shown.channel))).collect(),
        missing: tried.preview.missing,
        unset: tried.preview.unset,
        warnings,
    }
}

fn channel_view(
    preview: &ChannelPreview,
    (recipient, no_recipient): (Option<String>, Option<String>),
) -> ChannelPreviewView {
    let (mut subject, mut html, mut approved, mut error) = (None, None, None, None);
    let mut attachments = Vec::new();
    match &preview.content {
        Ok(Content::Text(_)) => {}
        Ok(Content::TelegramHtml(source)) => html = Some(source.clone()),
        Ok(Content::WhatsAppTemplate(template)) => {
            approved = Some(ApprovedView {
                name: template.name.clone(),
                language: template.language.clone(),
                header: template.header.clone(),
                body: template.body.clone(),
                buttons: template.buttons.iter().map(|(_, _, value)| value.clone()).collect(),
            });
        }
        Ok(Content::Email(email)) => {
            subject = Some(email.subject.clone());
            html.clone_from(&email.html);
            attachments = email.attachments.iter().map(|attachment| attachment.name.clone()).collect();
        }
        Err(wrong) => error = Some(FieldError::from(Refusal::of_rendering(wrong))),
    }
    ChannelPreviewView {
        channel: preview.channel,
        locale: preview.locale.clone(),
        recipient,
        no_recipient,
        subject,
        text: preview.text.clone(),
        html,
        attachments,
        approved,
        length: preview.length.map(|length| LengthView {
            length: length.length,
            limit: length.limit,
            unit: length.unit.as_str(),
        }),
        sms: preview.sms.as_ref().map(sms_view),
        error,
    }
}

fn sms_view(size: &SmsSize) -> SmsView {
    SmsView {
        encoding: size.encoding.as_str(),
        parts: size.parts,
        characters_left: size.left,
        ucs2_because: size.outside_gsm.clone(),
    }
}
