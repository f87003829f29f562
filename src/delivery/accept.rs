//! 1. Check what was asked, choose the account, render.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::context::{explain, reader, recipient};
use super::{Delivery, DirectError, SendingAccount};
use crate::domain::message::Content;
use crate::domain::notification::is_expired;
use crate::domain::template::WhatsAppCategory;
use crate::domain::{
    Channel, Mode, OnFailure, Policy, Priority, ProviderError, Recipient, RecordIds, Status, TemplateId,
};
use crate::records::RecordSet;
use crate::store::{Begin, NewNotification, SavedTemplate};
use crate::templates::{RenderError, without_controls};

/// One notification as it was asked for: read, not yet checked.
#[derive(Clone, Debug)]
pub struct SendRequest {
    pub channel: Channel,
    /// The channel's default account, if none is named.
    pub account: Option<String>,
    /// Either a template …
    pub template: Option<TemplateId>,
    /// … or a given text.
    pub text: Option<String>,
    /// Where it goes; else to the address of its records.
    pub recipient: Option<String>,
    pub records: RecordIds,
    pub data: Map<String, Value>,
    pub metadata: Option<Map<String, Value>>,
    pub external_id: Option<String>,
    pub priority: Priority,
    /// The template's, else at-most-once.
    pub policy: Option<Policy>,
    pub max_retries: i16,
    pub not_after: Option<Timestamp>,
    pub deadline: Option<Duration>,
    /// What becomes of it where it is sent directly and does not get through now.
    pub on_failure: OnFailure,
}

/// A caller's `Idempotency-Key` with the hash of what it asked.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    pub scope: String,
    pub key: String,
    pub request_hash: [u8; 32],
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// JSON pointer into the request.
    pub pointer: String,
    /// A stable word for programs.
    pub code: &'static str,
    pub detail: String,
    /// Where in the template, when it is a rendering that failed.
    pub template_place: Option<(String, u32, u32)>,
    /// The variable that was missing.
    pub variable: Option<String>,
}

impl Refusal {
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Refusal { pointer: pointer.into(), code, detail: detail.into(), template_place: None, variable: None }
    }

    /// What is wrong with a rendering.
    pub fn of_rendering(error: &RenderError) -> Self {
        let code = match error {
            RenderError::Missing { .. } => "missing_variable",
            RenderError::TooLong { .. } => "too_long",
            _ => "template",
        };
        Refusal {
            template_place: error.place().map(|place| (place.part.clone(), place.line, place.column)),
            variable: error.variable().map(str::to_owned),
            ..Refusal::new(if error.variable().is_some() { "/data" } else { "/templateId" }, code, error.to_string())
        }
    }
}

/// Ready to leave.
pub(super) struct Prepared {
    pub(super) account: Arc<SendingAccount>,
    pub(super) new: NewNotification,
    /// Nothing for one that is not sent in this call.
    pub(super) message: Option<(Recipient, Content)>,
}

/// Opt-outs from marketing stop only what is marketing.
pub(super) fn is_marketing(content: &Content) -> bool {
    matches!(content, Content::WhatsAppTemplate(template) if template.category == Some(WhatsAppCategory::Marketing))
}

impl Delivery {
    /// Everything that can be wrong with a request is found here, before anything is written.
    pub(super) async fn prepare(&self, request: SendRequest) -> Result<Prepared, DirectError> {
        let (account, template) = self.check_common(&request).await?;
        let records = self.records_of(std::slice::from_ref(&request.records)).await?.of(&request.records);
        self.prepare_one(request, account, template, &records).map_err(DirectError::Refused)
    }

    /// Account and template: the same for all recipients of a call.
    pub(super) async fn check_common(
        &self,
        request: &SendRequest,
    ) -> Result<(Arc<SendingAccount>, Option<SavedTemplate>), DirectError> {
        let mut wrong = Vec::new();
        let account = match self.account(request.channel, request.account.as_deref()) {
            Ok(account) => Some(Arc::clone(account)),
            Err(error) => {
                let pointer = if request.account.is_some() { "/account" } else { "/channel" };
                wrong.push(Refusal::new(pointer, "unknown_account", error.to_string()));
                None
            }
        };
        let mut template = None;
        match (&request.template, &request.text) {
            (Some(id), None) => match self.renderer.current(id).await.map_err(DirectError::Store)? {
                Some(found) => template = Some(found),
                None => {
                    wrong.push(Refusal::new("/templateId", "unknown_template", format!("there is no template `{id}`")));
                }
            },
            // The text itself is looked at when it is prepared.
            (None, Some(_)) => {}
            (Some(_), Some(_)) => wrong.push(Refusal::new("/text", "both", "give either templateId or text, not both")),
            (None, None) => wrong.push(Refusal::new("", "neither", "give a templateId or a text")),
        }
        if is_expired(request.not_after, self.clock.now()) {
            wrong.push(Refusal::new("/notAfter", "past", "this time has passed already"));
        }
        match account {
            Some(account) if wrong.is_empty() => Ok((account, template)),
            _ => Err(DirectError::Refused(wrong)),
        }
    }

    pub(super) fn prepare_one(
        &self,
        request: SendRequest,
        account: Arc<SendingAccount>,
        template: Option<SavedTemplate>,
        records: &RecordSet,
    ) -> Result<Prepared, Vec<Refusal>> {
        let mut wrong = Vec::new();
        let given = request.recipient.as_deref();
        let recipient = recipient(given, request.channel, records, &request.data, self.options.default_region);
        let recipient = recipient.map_err(|refusal| wrong.push(refusal));
        let data = Value::Object(records.data(&request.data));
        let content = match (&template, &request.text) {
            (Some(saved), _) => {
                let to = recipient.as_ref().map_or_else(|()| String::new(), ToString::to_string);
                let reader = reader(&to, request.channel, records, &data);
                let rendered = self.renderer.render(&saved.template, request.channel, &data, reader);
                rendered.map_err(|error| wrong.push(explain(Refusal::of_rendering(&error), records))).ok()
            }
            (None, Some(text)) => {
                let given = self.renderer.given(request.channel, text);
                given
                    .map_err(|error| wrong.push(Refusal { pointer: "/text".into(), ..Refusal::of_rendering(&error) }))
                    .ok()
            }
            (None, None) => None,
        };
        match (recipient, content) {
            (Ok(recipient), Some(content)) if wrong.is_empty() => {
                let request = about(request, records);
                let new =
                    self.new_notification(request, &account, template.as_ref(), recipient.to_string(), Begin::Open);
                Ok(Prepared { account, new, message: Some((recipient, content)) })
            }
            _ => Err(wrong),
        }
    }

    /// One recipient of many that cannot be sent to: its own row, failed, with the reason.
    pub(super) fn refused_one(
        &self,
        request: SendRequest,
        account: Arc<SendingAccount>,
        template: Option<&SavedTemplate>,
        records: &RecordSet,
        wrong: &[Refusal],
    ) -> Prepared {
        /// What was given as an address is kept to be found again, but not without bound.
        const ADDRESS_BYTES: usize = 200;
        let mut given = request.recipient.clone().unwrap_or_default();
        given.truncate(given.floor_char_boundary(ADDRESS_BYTES));
        given.retain(|c| !c.is_control());
        let first = wrong.first();
        let cause = match first.map(|refusal| refusal.code) {
            Some("address") | None => "recipient",
            Some(_) => "template",
        };
        let error = ProviderError::new(
            first.map_or("refused", |refusal| refusal.code),
            wrong.iter().map(|refusal| refusal.detail.as_str()).collect::<Vec<_>>().join("; "),
        );
        let begin = Begin::Ended { status: Status::Failed, cause, error };
        let new = self.new_notification(about(request, records), &account, template, given, begin);
        Prepared { account, new, message: None }
    }

    pub(super) fn new_notification(
        &self,
        request: SendRequest,
        account: &SendingAccount,
        template: Option<&SavedTemplate>,
        recipient: String,
        begin: Begin,
    ) -> NewNotification {
        let policy =
            request.policy.or_else(|| template.and_then(|saved| saved.template.body.policy)).unwrap_or_default();
        let json = |map: Map<String, Value>| (!map.is_empty()).then(|| Value::Object(map).to_string());
        NewNotification {
            id: self.ids.notification(),
            batch: None,
            channel: request.channel,
            account: account.id,
            template: template.map(|saved| (saved.template.id.clone(), saved.template.version)),
            // As it leaves: PostgreSQL, for one, keeps no NUL.
            text: request.text.map(without_controls),
            recipient,
            records: request.records,
            data: json(request.data),
            metadata: request.metadata.and_then(json),
            external_id: request.external_id,
            priority: request.priority,
            policy,
            mode: Mode::Sync,
            max_retries: request.max_retries,
            scheduled_at: None,
            not_after: request.not_after,
            created_at: self.clock.now(),
            begin,
        }
    }
}

/// Names the contact that a link found: the notification is about them whatever becomes of the link.
fn about(mut request: SendRequest, records: &RecordSet) -> SendRequest {
    if request.records.contact_id.is_none() {
        request.records.contact_id = records.contact.as_ref().map(|contact| contact.id.to_string());
    }
    request
}
