//! An SMS account at Twilio.
//!
//! Source of the request and the answer: Twilio's OpenAPI description of the API of 2010-04-01, read April 2026. Our id
//! goes along in the URL of the status callback, the only place Twilio repeats: without `http.public_url` nothing is
//! heard of a message after it was taken. Twilio deduplicates nothing.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use hyper::header::AUTHORIZATION;
use serde::Deserialize;

use super::Provider;
use super::endpoint::{
    ConfigProblem, Endpoint, Request, base_url, phone, plain_text, printable, secret_header, token, uri,
};
use super::http_client::{HttpAnswer, HttpClient};
use super::outcomes::{Refusal, word};
use super::twilio_codes;
use crate::config::sms::{SmsSettings, TwilioSettings};
use crate::domain::{AccountRef, Channel, Outcome, OutgoingMessage};

/// One sender.
pub struct Twilio {
    account: AccountRef,
    endpoint: Endpoint,
    messages: Uri,
    check: Uri,
    sender: Sender,
    smart_encoded: bool,
    /// Up to our id.
    status_callback: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Sender {
    From(String),
    MessagingService(String),
}

impl Twilio {
    /// `public_url` is where Twilio reaches us.
    pub fn new(
        account_name: &str,
        settings: &SmsSettings,
        twilio: &TwilioSettings,
        public_url: Option<&str>,
        client: HttpClient,
    ) -> Result<Self, ConfigProblem> {
        let account = AccountRef { channel: Channel::Sms, name: account_name.into() };
        let problem =
            |setting: &str, problem: &str| ConfigProblem::new(&account, &format!("twilio.{setting}"), problem);
        let base = base_url(&account, "twilio.base_url", &twilio.base_url)?;
        let sid = &twilio.account_sid;
        if !is_sid("AC", sid) {
            return Err(problem("account_sid", "has to be AC and 32 hexadecimal digits"));
        }
        let sender = sender(twilio).map_err(|(setting, text)| problem(setting, text))?;
        let secret =
            |setting: &str, given| token(&account, &format!("twilio.{setting}"), given, |c| c.is_ascii_graphic());
        let (user, password) = match (&twilio.api_key, &twilio.api_key_secret, &twilio.auth_token) {
            (Some(key), Some(given), _) if is_sid("SK", key) => (key, secret("api_key_secret", given)?),
            (Some(_), Some(_), _) => return Err(problem("api_key", "has to be SK and 32 hexadecimal digits")),
            (None, None, Some(given)) => (sid, secret("auth_token", given)?),
            (None, None, None) => return Err(problem("auth_token", "is missing; an api_key would do as well")),
            (None, Some(_), _) => return Err(problem("api_key", "is missing, and its secret is given")),
            (Some(_), None, _) => return Err(problem("api_key_secret", "is missing, and its api_key is given")),
        };
        let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let authorization = secret_header(&account, "twilio.auth_token", &basic)?;

        let of_account = format!("{base}/2010-04-01/Accounts/{sid}");
        let messages = uri(&account, "twilio.base_url", &format!("{of_account}/Messages.json"))?;
        // A standard API key may not read the account itself, but lists its messages.
        let check = if twilio.api_key.is_some() { "/Messages.json?PageSize=1" } else { ".json" };
        let check = uri(&account, "twilio.base_url", &format!("{of_account}{check}"))?;
        let endpoint = Endpoint::new(&account, client, &messages, settings.connect_timeout_ms, settings.timeout_ms)?
            .with_header(AUTHORIZATION, authorization);
        let status_callback =
            public_url.map(|base| format!("{}/v1/callbacks/{account}?id=", base.trim_end_matches('/')));
        let smart_encoded = twilio.smart_encoded;
        Ok(Twilio { account, endpoint, messages, check, sender, smart_encoded, status_callback })
    }

    fn request(&self, message: &OutgoingMessage) -> Result<Request, Outcome> {
        let callback = self.status_callback.as_ref().map(|base| format!("{base}{}", message.id));
        let mut fields = vec![("To", phone(message, "SMS")?.as_str()), ("Body", plain_text(message, "SMS")?)];
        fields.push(match &self.sender {
            Sender::From(from) => ("From", from),
            Sender::MessagingService(service) => ("MessagingServiceSid", service),
        });
        if self.smart_encoded {
            fields.push(("SmartEncoded", "true"));
        }
        if let Some(callback) = &callback {
            fields.push(("StatusCallback", callback));
        }
        Ok(Request::form(&self.messages, fields))
    }
}

#[async_trait]
impl Provider for Twilio {
    fn account(&self) -> &AccountRef {
        &self.account
    }

    async fn send(&self, message: &OutgoingMessage, limit: Duration) -> Outcome {
        self.endpoint.deliver(self.request(message), limit, outcome).await
    }

    async fn check(&self, limit: Duration) -> Result<String, String> {
        let answer = self.endpoint.ask(Request::get(&self.check), limit).await?;
        let status = answer.status.as_u16();
        if answer.status.is_success()
            && let Some(account) = answer.json::<AccountBody>()
        {
            let said = |text: Option<String>| text.map_or_else(|| "?".into(), |text| printable(&text));
            let seen = match (account.status, account.friendly_name, account.messages) {
                (Some(status), _, _) if status != "active" => {
                    return Err(format!("Twilio says that the account is {}", printable(&status)));
                }
                (Some(_), name, _) => format!("{}, account type {}", said(name), said(account.kind)),
                (None, _, Some(_)) => "the API key may use the account's messages".to_owned(),
                (None, _, None) => return Err(format!("not Twilio's answer: status {status}, is base_url right?")),
            };
            return Ok(format!("{seen}, sends from {}", self.sender));
        }
        Err(match answer.json::<ErrorBody>() {
            Some(ErrorBody { code, message }) => {
                let meaning = twilio_codes::row(code).map_or("an unknown code", |row| row.meaning);
                let said = printable(message.as_deref().unwrap_or_default());
                format!("Twilio answered {status} with code {code} ({meaning}): {said}")
            }
            None => format!("not Twilio's answer: status {status}, is base_url right?"),
        })
    }
}

impl fmt::Debug for Twilio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Twilio({})", self.account)
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sender::From(from) => f.write_str(from),
            Sender::MessagingService(service) => write!(f, "the Messaging Service {service}"),
        }
    }
}

fn is_sid(prefix: &str, text: &str) -> bool {
    const HEX_DIGITS: usize = 32;
    text.strip_prefix(prefix).is_some_and(|hex| hex.len() == HEX_DIGITS && hex.chars().all(|c| c.is_ascii_hexdigit()))
}

fn sender(twilio: &TwilioSettings) -> Result<Sender, (&'static str, &'static str)> {
    match (&twilio.from, &twilio.messaging_service_sid) {
        (Some(from), None) if is_sender(from) => Ok(Sender::From(from.clone())),
        (Some(_), None) => Err((
            "from",
            "has to be a number like +15005550006, a short code, or a name of 1 to 11 letters, digits and spaces",
        )),
        (None, Some(service)) if is_sid("MG", service) => Ok(Sender::MessagingService(service.clone())),
        (None, Some(_)) => Err(("messaging_service_sid", "has to be MG and 32 hexadecimal digits")),
        (None, None) => Err(("from", "is missing; a messaging_service_sid would do as well")),
        (Some(_), Some(_)) => Err(("from", "and messaging_service_sid are both given: one of them sends")),
    }
}

/// E.164, a short code, or an alphanumeric sender, which needs a letter.
fn is_sender(text: &str) -> bool {
    const NUMBER_DIGITS: std::ops::RangeInclusive<usize> = 7..=15;
    const SHORT_CODE_DIGITS: std::ops::RangeInclusive<usize> = 3..=8;
    const NAME_CHARS: std::ops::RangeInclusive<usize> = 1..=11;
    let digits = |text: &str, count: std::ops::RangeInclusive<usize>| {
        count.contains(&text.len()) && text.chars().all(|c| c.is_ascii_digit())
    };
    match text.strip_prefix('+') {
        Some(number) => digits(number, NUMBER_DIGITS),
        None if digits(text, SHORT_CODE_DIGITS) => true,
        None => {
            NAME_CHARS.contains(&text.len())
                && text.chars().any(|c| c.is_ascii_alphabetic())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || " -_&+".contains(c))
        }
    }
}

fn outcome(answer: &HttpAnswer) -> Outcome {
    if answer.status.is_success()
        && let Some(accepted) = accepted(answer)
    {
        return accepted;
    }
    let error = answer.json::<ErrorBody>();
    Refusal {
        code: error.as_ref().map(|error| error.code.to_string()),
        verdict: error.as_ref().and_then(|error| twilio_codes::row(error.code)).map(|row| row.verdict),
        from_provider: error.is_some(),
        stated: None,
    }
    .into_outcome(answer)
}

/// A yes with an id that can be kept; anything less is no readable answer.
fn accepted(answer: &HttpAnswer) -> Option<Outcome> {
    /// Two letters and 32 hexadecimal digits.
    const LONGEST_ID_BYTES: usize = 64;
    let body = answer.json::<MessageBody>()?;
    if body.error_code.is_some() {
        return None;
    }
    let provider_message_id = word(&body.sid, LONGEST_ID_BYTES)?.to_owned();
    // `accepted` is what a Messaging Service says; anything but these two is worth a note.
    let note = body.status.filter(|status| status != "queued" && status != "accepted");
    Some(Outcome::Accepted { provider_message_id, note: note.map(|status| printable(&status)) })
}

#[derive(Deserialize)]
struct MessageBody {
    sid: String,
    status: Option<String>,
    error_code: Option<i64>,
}

#[derive(Deserialize)]
struct ErrorBody {
    // Within a message it is called so.
    #[serde(alias = "error_code")]
    code: i64,
    #[serde(alias = "error_message")]
    message: Option<String>,
}

#[derive(Deserialize)]
struct AccountBody {
    friendly_name: Option<String>,
    status: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Of the list of messages.
    messages: Option<serde::de::IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::{HeaderMap, StatusCode};
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{Content, DownReason, NotificationId, PermanentReason, Recipient, ThrottleScope};

    const ACCOUNT: &str = "AC00000000000000000000000000000001";
    const KEY: &str = "SK00000000000000000000000000000002";
    const SERVICE: &str = "MG00000000000000000000000000000003";

    fn twilio(change: &Value, public_url: Option<&str>) -> Result<Twilio, ConfigProblem> {
        let mut twilio = json!({ "account_sid": ACCOUNT, "auth_token": "topsecret", "from": "+15005550006" });
        twilio.as_object_mut().expect("a table").extend(change.as_object().expect("a table").clone());
        let settings: SmsSettings = serde_json::from_value(json!({ "twilio": twilio })).expect("settings");
        Twilio::new("main", &settings, settings.twilio.as_ref().expect("given"), public_url, HttpClient::new())
    }

    fn body_of(twilio: &Twilio, text: &str) -> String {
        let recipient = Recipient::parse(Channel::Sms, "+79991234567", None).expect("a number");
        let id = NotificationId(uuid::Uuid::from_u128(7));
        let message = OutgoingMessage { id, recipient, content: Content::Text(text.into()) };
        String::from_utf8(twilio.request(&message).expect("a request").body.to_vec()).expect("text")
    }

    fn answered(status: u16, body: &str) -> Outcome {
        outcome(&HttpAnswer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        })
    }

    #[test]
    fn a_text_is_written_as_twilio_describes() {
        let plain = twilio(&json!({}), None).expect("fine");
        assert_eq!(plain.messages.path(), format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json"));
        assert_eq!(body_of(&plain, "<3 я"), "To=%2B79991234567&Body=%3C3%20%D1%8F&From=%2B15005550006");
        let change = json!({ "from": null, "messaging_service_sid": SERVICE, "smart_encoded": true });
        let full = twilio(&change, Some("https://notify.example.com/x/")).expect("fine");
        let callback = "https%3A%2F%2Fnotify.example.com%2Fx%2Fv1%2Fcallbacks%2Fsms.main%3Fid%3D00000000-0000-0000-0000-000000000007";
        assert_eq!(
            body_of(&full, "x"),
            format!(
                "To=%2B79991234567&Body=x&MessagingServiceSid={SERVICE}&SmartEncoded=true&StatusCallback={callback}"
            )
        );
    }

    #[test]
    fn only_an_id_without_an_error_is_a_yes() {
        let yes = r#"{"sid":"SM1","status":"queued","error_code":null,"num_segments":"1"}"#;
        let Outcome::Accepted { provider_message_id, note } = answered(201, yes) else { panic!("not accepted") };
        assert_eq!((&*provider_message_id, note), ("SM1", None));
        let scheduled = answered(201, r#"{"sid":"SM1","status":"scheduled"}"#);
        assert!(matches!(scheduled, Outcome::Accepted { note: Some(note), .. } if note == "scheduled"));
        for no in ["", "{}", "null", r#"{"sid":""}"#, r#"{"sid":"a\u0000"}"#, r#"{"sid":7}"#] {
            assert!(matches!(answered(201, no), Outcome::Ambiguous { .. }), "{no}");
        }
        let failed = answered(201, r#"{"sid":"SM1","status":"failed","error_code":30006}"#);
        assert!(matches!(failed, Outcome::Permanent { reason: PermanentReason::Recipient, .. }));
    }

    #[test]
    fn the_code_decides_before_the_status() {
        let said = |status: u16, code: i64| answered(status, &json!({ "code": code, "status": status }).to_string());
        for status in [200, 400, 500, 502] {
            assert!(matches!(said(status, 21610), Outcome::Permanent { reason: PermanentReason::OptedOut, .. }));
        }
        assert!(matches!(said(401, 20003), Outcome::ChannelDown { reason: DownReason::Auth, .. }));
        assert!(matches!(said(429, 20429), Outcome::Throttled { scope: ThrottleScope::Account, .. }));
        assert!(matches!(said(400, 99999), Outcome::Permanent { reason: PermanentReason::Content, .. }));
        assert!(matches!(said(500, 99999), Outcome::Transient { handed_off: true, .. }));
        assert!(matches!(said(502, 99999), Outcome::Ambiguous { .. }));
        assert!(matches!(answered(500, "<html>"), Outcome::Ambiguous { .. }));
        assert!(matches!(answered(404, "<html>"), Outcome::ChannelDown { reason: DownReason::Config, .. }));
    }

    #[test]
    fn settings_are_checked_and_no_secret_is_shown() {
        let key = json!({ "auth_token": null, "api_key": KEY, "api_key_secret": "topsecret" });
        for fine in [json!({}), key, json!({ "from": "12345" }), json!({ "from": "Vestnik 24" })] {
            let twilio = twilio(&fine, None).unwrap_or_else(|problem| panic!("{fine}: {problem}"));
            let shown = format!("{twilio:?} {:?}", twilio.endpoint);
            assert!(!shown.contains("topsecret") && !shown.contains("Basic"), "{shown}");
        }
        for (change, name) in [
            (json!({ "account_sid": "AC1" }), "account_sid"),
            (json!({ "account_sid": "../00000000000000000000000000000001" }), "account_sid"),
            (json!({ "auth_token": "" }), "auth_token"),
            (json!({ "auth_token": "topsecret\n" }), "auth_token"),
            (json!({ "auth_token": null }), "auth_token"),
            (json!({ "api_key": KEY }), "api_key_secret"),
            (json!({ "api_key": "x", "api_key_secret": "topsecret" }), "api_key"),
            (json!({ "api_key_secret": "topsecret" }), "api_key"),
            (json!({ "from": null }), "from"),
            (json!({ "from": "+7 999" }), "from"),
            (json!({ "from": "12" }), "from"),
            (json!({ "from": "Vestnik & Sons" }), "from"),
            (json!({ "messaging_service_sid": SERVICE }), "from"),
            (json!({ "from": null, "messaging_service_sid": "MG1" }), "messaging_service_sid"),
            (json!({ "base_url": "api.twilio.com" }), "base_url"),
        ] {
            let problem = twilio(&change, None).expect_err(&change.to_string());
            assert_eq!(problem.setting, format!("sms.main.twilio.{name}"), "{change}");
            assert!(!format!("{problem} {problem:?}").contains("topsecret"));
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_back_only_an_id_is_a_yes(
            status in 100..1000_u16,
            junk in ".{0,100}",
            code in proptest::option::of(-10..70_000_i64),
            shape in 0..5_u8,
        ) {
            let body = match shape {
                0 => junk,
                1 => json!({ "code": code, "message": junk }).to_string(),
                2 => json!({ "sid": code }).to_string(),
                3 => json!({ "sid": "SM1", "error_code": code.unwrap_or(1) }).to_string(),
                _ => json!({ "sid": junk }).to_string(),
            };
            let is_yes = matches!(answered(status, &body), Outcome::Accepted { .. });
            proptest::prop_assert!(!is_yes || ((200..300).contains(&status) && shape == 4));
        }
    }
}
