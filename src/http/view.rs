//! A notification as the API shows it.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::delivery::Delivery;
use crate::domain::{
    Attempt, BatchId, Channel, HoldReason, Mode, NotificationId, OutcomeClass, Policy, Priority, RecordIds, Resolution,
    Status,
};
use crate::store::FoundNotification;

/// What was asked, where it stands, and every attempt.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NotificationView {
    pub(super) id: NotificationId,
    pub(super) status: Status,
    channel: Channel,
    /// In the form it was sent to: E.164, chat id.
    recipient: String,
    account: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    template_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    template_version: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_id: Option<BatchId>,
    /// What it waits for, and until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_reason: Option<HoldReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<Timestamp>,
    /// Every send, oldest first. Absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<AttemptView>>,
    /// Why it failed, or was not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
    /// What a person did about its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<ResolutionView>,
    /// Who said what became of it, when nobody knew.
    #[serde(skip_serializing_if = "Option::is_none")]
    settled: Option<SettledView>,
    /// Seconds after which the same may succeed; only in the answer to the send itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<f64>,
    context: RecordIds,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<String>,
    priority: Priority,
    policy: Policy,
    mode: Mode,
    /// When it is to leave, as it was said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduled_at: Option<Timestamp>,
    /// How long after its time its first send began, in ms: after a downtime, for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    late_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<Timestamp>,
    created_at: Timestamp,
}

/// How a dead letter ended.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct ResolutionView {
    how: Resolution,
    at: Timestamp,
    by: String,
    /// Why it was discarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The notification that took its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_as: Option<NotificationId>,
}

/// A person's word.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct SettledView {
    at: Timestamp,
    by: String,
    reason: String,
}

/// One send.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct AttemptView {
    n: i16,
    /// `accepted`, `permanent`, `transient`, `throttled`, `channel_down`, `ambiguous`, `lost`; `open` while it runs.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
    opened_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_at: Option<Timestamp>,
    /// This and another attempt may both have reached the person.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    flagged: bool,
}

/// What went wrong.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct ErrorView {
    /// `recipient`, `opted_out`, `content`, `template`, `policy`, `transient`, `throttled`, `auth`, `billing`, …;
    /// `channel_down` when it was not tried, because its account cannot send.
    class: String,
    /// The provider's own code, or ours for what never reached it.
    #[serde(skip_serializing_if = "String::is_empty")]
    code: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    /// Whether the same request may succeed later.
    retryable: bool,
}

impl NotificationView {
    /// One of a list, whose attempts were not read.
    pub(super) fn listed(found: FoundNotification, delivery: &Delivery) -> Self {
        NotificationView { attempts: None, ..Self::new(found, delivery, None) }
    }

    pub(super) fn new(found: FoundNotification, delivery: &Delivery, retry_after: Option<Duration>) -> Self {
        let mut attempts: Vec<_> = found.attempts.iter().map(attempt).collect();
        if let Some((opened_at, _)) = found.open {
            attempts.push(AttemptView {
                n: found.attempt,
                outcome: "open",
                provider_message_id: None,
                error: None,
                opened_at,
                closed_at: None,
                flagged: false,
            });
        }
        let late_ms = found.scheduled_at.and_then(|due| late_ms(&found, due));
        let is_waiting = found.status.in_flight() && found.status != Status::Sending;
        let error = match (&found.failure, found.status) {
            (Some((class, error)), _) => Some(error_view(class, &error.code, &error.detail)),
            // Nobody can say whether it arrived; what was seen is in its last attempt.
            (None, Status::Uncertain) => found.attempts.last().and_then(|last| attempt(last).error),
            (None, _) => None,
        };
        NotificationView {
            id: found.id,
            status: found.status,
            channel: found.channel,
            recipient: found.recipient,
            account: delivery.account_name(found.account).map_or_else(String::new, |account| account.name.to_string()),
            template_id: found.template.as_ref().map(|(id, _)| id.as_str().to_owned()),
            template_version: found.template.as_ref().map(|(_, version)| version.0),
            batch_id: found.batch,
            hold_reason: found.hold,
            due_at: is_waiting.then_some(found.due_at),
            attempts: Some(attempts),
            error,
            resolution: found.resolved.map(|resolved| ResolutionView {
                how: resolved.how,
                at: resolved.at,
                by: resolved.by,
                reason: resolved.reason,
                replayed_as: resolved.replayed_as,
            }),
            settled: found.settled.map(|settled| SettledView {
                at: settled.at,
                by: settled.by,
                reason: settled.reason,
            }),
            retry_after: retry_after.map(|wait| (wait.as_secs_f64() * 10.0).ceil() / 10.0),
            context: found.records,
            metadata: found.metadata.and_then(|json| RawValue::from_string(json).ok()),
            external_id: found.external_id,
            priority: found.priority,
            policy: found.policy,
            mode: found.mode,
            scheduled_at: found.scheduled_at,
            late_ms,
            not_after: found.not_after,
            created_at: found.created_at,
        }
    }
}

/// What was tried before its time counts only if nothing was tried since: it was moved in between.
fn late_ms(found: &FoundNotification, due: Timestamp) -> Option<u64> {
    let opened = found.attempts.iter().map(|attempt| attempt.opened_at).chain(found.open.map(|(at, _)| at));
    let began = opened.clone().find(|at| *at >= due).or(opened.last())?;
    Some(u64::try_from(began.duration_since(due).as_millis()).unwrap_or(0))
}

fn attempt(attempt: &Attempt) -> AttemptView {
    let error = attempt.error.as_ref().map(|error| error_view(&attempt.cause, &error.code, &error.detail));
    AttemptView {
        n: attempt.n,
        outcome: attempt.class.as_str(),
        provider_message_id: attempt.provider_message_id.clone(),
        error,
        opened_at: attempt.opened_at,
        closed_at: Some(attempt.closed_at),
        flagged: attempt.flagged,
    }
}

fn error_view(class: &str, code: &str, detail: &str) -> ErrorView {
    // That the account was known to be down says nothing of this message; a refusal itself names its reason instead.
    let passing = [OutcomeClass::Transient, OutcomeClass::Throttled, OutcomeClass::ChannelDown];
    let retryable = passing.iter().any(|known| known.as_str() == class);
    ErrorView { class: class.to_owned(), code: code.to_owned(), detail: detail.to_owned(), retryable }
}
