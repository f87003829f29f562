//! A message and an account as Twilio shows them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::errors;
use crate::domain::clock;
use crate::simulator::receipts::{self, Fate, Status};
use crate::simulator::record::{Taken, TakenSms};
use crate::simulator::scenario::{SmsScenario, TwilioAccountScenario};

pub(super) fn status_word(status: Status) -> &'static str {
    match status {
        Status::Sent => "sent",
        Status::Delivered => "delivered",
        Status::Read => "read",
        Status::Failed => "undelivered",
    }
}

/// RFC 2822, as all dates of this API.
fn date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// A message that was just taken.
pub(super) fn fresh(account: &str, sid: &str, sms: &TakenSms, body: &str, at: Timestamp) -> Value {
    let status = if sms.messaging_service_sid.is_some() { "accepted" } else { "queued" };
    view(&Shown { account, sid, sms, body, at, status, error: None, sent_at: None })
}

/// A message of the record, as far as it has come by now.
pub(super) fn later(taken: &Taken, id_bits: u64, scenario: &SmsScenario, now: Timestamp) -> Option<Value> {
    let sms = taken.sms.as_ref()?;
    let fate = taken.receipt.unwrap_or(Fate::Never);
    let passed = std::time::Duration::try_from(now.duration_since(taken.at)).unwrap_or_default();
    let status = receipts::status_after(&scenario.receipts, fate, id_bits, passed);
    let error = (status == Some(Status::Failed)).then(|| failed_code(scenario));
    let body = taken.text.as_deref().unwrap_or_default();
    Some(view(&Shown {
        account: &taken.account,
        sid: &taken.provider_message_id,
        sms,
        body,
        at: taken.at,
        status: status.map_or("queued", status_word),
        error,
        sent_at: status.map(|_| taken.at),
    }))
}

pub(super) fn failed_code(scenario: &SmsScenario) -> u32 {
    let code = scenario.receipts.failed_code.as_ref().and_then(|code| code.0.parse().ok());
    code.unwrap_or(errors::UNREACHABLE)
}

struct Shown<'a> {
    account: &'a str,
    sid: &'a str,
    sms: &'a TakenSms,
    body: &'a str,
    at: Timestamp,
    status: &'a str,
    error: Option<u32>,
    sent_at: Option<Timestamp>,
}

fn view(shown: &Shown<'_>) -> Value {
    let Shown { account, sid, sms, .. } = shown;
    json!({
        "account_sid": account,
        "api_version": "2010-04-01",
        "body": shown.body,
        "date_created": date(shown.at),
        "date_sent": shown.sent_at.map(date),
        "date_updated": date(shown.at),
        "direction": "outbound-api",
        "error_code": shown.error,
        "error_message": shown.error.and_then(errors::failure),
        "from": sms.from,
        "messaging_service_sid": sms.messaging_service_sid,
        "num_media": "0",
        "num_segments": sms.segments.to_string(),
        "price": null,
        "price_unit": "USD",
        "sid": sid,
        "status": shown.status,
        "subresource_uris": { "media": format!("/2010-04-01/Accounts/{account}/Messages/{sid}/Media.json") },
        "to": sms.to,
        "uri": format!("/2010-04-01/Accounts/{account}/Messages/{sid}.json"),
    })
}

pub(super) fn account(account: &TwilioAccountScenario) -> Value {
    json!({
        "sid": account.sid,
        "friendly_name": account.friendly_name,
        "status": account.status,
        "type": "Full",
        "date_created": date(clock::from_micros(0)),
        "date_updated": date(clock::from_micros(0)),
        "owner_account_sid": account.sid,
        "uri": format!("/2010-04-01/Accounts/{}.json", account.sid),
    })
}
