//! What all requests to send have in common, read and checked.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Api;
use super::problem::{FieldError, Problem};
use crate::delivery::{Delivery, SendRequest};
use crate::domain::{AccountId, Channel, GivenTime, OnFailure, Policy, Priority, RecordIds, TemplateId};

/// The most retries a request may ask for.
const MOST_RETRIES: i16 = 10;
const DEFAULT_RETRIES: i16 = 3;
/// The longest a caller may let a direct send take: shorter than a request may (`http.request_time_limit_ms`).
const LONGEST_DEADLINE_MS: u64 = 45_000;
/// `externalId`, record ids, account names.
const LONGEST_ID_BYTES: usize = 200;
/// Defines a request with the fields that all sends have.
macro_rules! send_body {
    ($(#[$doc:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(super) struct $name {
            channel: Channel,
            /// A named account of the channel; else `main`, or the only one.
            #[serde(default)]
            account: Option<String>,
            /// Either a template …
            #[serde(default)]
            template_id: Option<String>,
            /// … or a given text.
            #[serde(default)]
            text: Option<String>,
            $($own)*
            /// Kept with the notification and shown with it.
            #[serde(default)]
            #[schema(value_type = Option<Object>)]
            metadata: Option<Map<String, Value>>,
            #[serde(default)]
            priority: Priority,
            /// Retries: 0 to 10, 3 if absent. Within a direct call only of what provably did not leave; through the queue also
            /// of what the provider could not take just then, after 1, 2, 4, 8, … seconds.
            #[serde(default)]
            max_retries: Option<i16>,
            /// After this time it is not sent any more. Given as `scheduledAt`, and later than it.
            #[serde(default)]
            #[schema(value_type = Option<String>, examples("2030-01-01T20:00:00+03:00"))]
            not_after: Option<GivenTime>,
            /// What to do when it cannot be known whether a send arrived; else the template's, else `at_most_once`.
            #[serde(default)]
            policy: Option<Policy>,
            /// How long a direct call may take, in ms: 100 to 45,000.
            #[serde(default)]
            deadline_ms: Option<u64>,
            /// When it is to leave; the queue holds it until then. With an offset, `2030-01-01T10:00:00+03:00`, with a zone,
            /// `2030-01-01T10:00[Europe/Moscow]`, or in the account's own `timezone`, `2030-01-01T10:00`. Not more than five
            /// minutes in the past. `scheduled` is another name for it.
            #[serde(default, alias = "scheduled")]
            #[schema(value_type = Option<String>, examples("2030-01-01T10:00:00+03:00"))]
            scheduled_at: Option<GivenTime>,
        }

        impl $name {
            /// What is asked of all of it, and when it is to leave.
            pub(super) fn common(
                &mut self,
                delivery: &$crate::delivery::Delivery,
            ) -> Result<(SendRequest, Option<Timestamp>), Vec<FieldError>> {
                $crate::http::requests::common(delivery, $crate::http::requests::Common {
                    channel: self.channel,
                    account: self.account.take(),
                    template_id: self.template_id.take(),
                    text: self.text.take(),
                    metadata: self.metadata.take(),
                    priority: self.priority,
                    max_retries: self.max_retries,
                    not_after: self.not_after.take(),
                    scheduled_at: self.scheduled_at.take(),
                    policy: self.policy,
                    deadline_ms: self.deadline_ms,
                })
            }
        }
    };
}

pub(super) use send_body;

/// A recipient of a call to several.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BulkRecipientBody {
    /// A phone number, an email address or a Telegram chat id; else the contact's. `phoneNumber` is another name for it.
    #[serde(default, alias = "phoneNumber", deserialize_with = "text_or_number")]
    pub(super) recipient: Option<String>,
    #[serde(default)]
    pub(super) contact_id: Option<String>,
    #[serde(default)]
    #[schema(value_type = Object)]
    pub(super) data: Map<String, Value>,
}

pub(super) struct Common {
    pub(super) channel: Channel,
    pub(super) account: Option<String>,
    pub(super) template_id: Option<String>,
    pub(super) text: Option<String>,
    pub(super) metadata: Option<Map<String, Value>>,
    pub(super) priority: Priority,
    pub(super) max_retries: Option<i16>,
    pub(super) not_after: Option<GivenTime>,
    pub(super) scheduled_at: Option<GivenTime>,
    pub(super) policy: Option<Policy>,
    pub(super) deadline_ms: Option<u64>,
}

pub(super) fn common(delivery: &Delivery, common: Common) -> Result<(SendRequest, Option<Timestamp>), Vec<FieldError>> {
    let mut wrong = Vec::new();
    let template = common.template_id.as_deref().and_then(|id| match TemplateId::parse(id) {
        Ok(id) => Some(id),
        Err(error) => {
            wrong.push(FieldError::new("/templateId", error.to_string()));
            None
        }
    });
    let max_retries = common.max_retries.unwrap_or(DEFAULT_RETRIES);
    if !(0..=MOST_RETRIES).contains(&max_retries) {
        wrong.push(FieldError::new("/maxRetries", format!("maxRetries is 0 to {MOST_RETRIES}")));
    }
    if let Some(ms) = common.deadline_ms
        && !(100..=LONGEST_DEADLINE_MS).contains(&ms)
    {
        wrong.push(FieldError::new("/deadlineMs", format!("deadlineMs is 100 to {LONGEST_DEADLINE_MS}")));
    }
    bounded("/account", common.account.as_deref(), &mut wrong);
    let mut moment = |pointer: &str, given: Option<&GivenTime>| {
        let moment = delivery.moment(given?, common.channel, common.account.as_deref());
        moment.unwrap_or_else(|error| {
            wrong.push(FieldError::new(pointer, error.to_string()));
            None
        })
    };
    let scheduled_at = moment("/scheduledAt", common.scheduled_at.as_ref());
    let not_after = moment("/notAfter", common.not_after.as_ref());
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let request = SendRequest {
        channel: common.channel,
        account: common.account,
        template,
        text: common.text,
        recipient: None,
        records: RecordIds::default(),
        data: Map::new(),
        metadata: common.metadata,
        external_id: None,
        priority: common.priority,
        policy: common.policy,
        max_retries,
        not_after,
        deadline: common.deadline_ms.map(Duration::from_millis),
        on_failure: OnFailure::default(),
    };
    Ok((request, scheduled_at))
}

/// A time that something is moved to, as the account it belongs to reads it.
pub(super) fn moment_of(api: &Api, given: &GivenTime, account: AccountId) -> Result<Timestamp, Problem> {
    let wrong = |detail: String| Problem::invalid(vec![FieldError::new("/scheduledAt", detail)]);
    match (given, api.delivery.account_name(account)) {
        (GivenTime::Moment(moment), _) => Ok(*moment),
        (_, Some(account)) => api.delivery.moment_of(given, account).map_err(|error| wrong(error.to_string())),
        (_, None) => Err(wrong("add an offset, like +03:00: its account is not in the settings any more".to_owned())),
    }
}

pub(super) fn bounded_records(pointer: &str, records: &RecordIds, wrong: &mut Vec<FieldError>) {
    bounded(&format!("{pointer}/contactId"), records.contact_id.as_deref(), wrong);
    bounded(&format!("{pointer}/dealId"), records.deal_id.as_deref(), wrong);
    bounded(&format!("{pointer}/companyId"), records.company_id.as_deref(), wrong);
}

pub(super) fn bounded(pointer: &str, text: Option<&str>, wrong: &mut Vec<FieldError>) {
    let Some(text) = text else { return };
    if text.is_empty() || text.len() > LONGEST_ID_BYTES || text.contains(char::is_control) {
        let detail = format!("1 to {LONGEST_ID_BYTES} bytes, without control characters");
        wrong.push(FieldError::new(pointer, detail));
    }
}

/// A chat id may come as a number.
pub(super) fn text_or_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a phone number as text, or a chat id")]
    enum TextOrNumber {
        Text(String),
        Number(i64),
        Nothing(()),
    }
    Ok(match TextOrNumber::deserialize(deserializer)? {
        TextOrNumber::Text(text) => Some(text),
        TextOrNumber::Number(number) => Some(number.to_string()),
        TextOrNumber::Nothing(()) => None,
    })
}
