//! Status callbacks as Twilio posts them.

use base64::Engine as _;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;

use super::views;
use crate::channels::http_client::HttpRequest;
use crate::simulator::receipts::{Status, sign};

/// What a form leaves as it is.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// Where one message's callbacks go, and what they say of it.
#[derive(Debug)]
pub(in crate::simulator) struct Callback {
    pub(super) url: String,
    /// The account's; an API key does not sign.
    pub(super) token: String,
    pub(super) account_sid: String,
    pub(super) message_sid: String,
    pub(super) messaging_service_sid: Option<String>,
    pub(super) from: Option<String>,
    pub(super) to: String,
    pub(super) failed_code: u32,
}

impl Callback {
    pub(in crate::simulator) fn request(&self, status: Status, now: Timestamp) -> Option<HttpRequest> {
        // What follows a `#` is for Twilio itself.
        let url = self.url.split('#').next()?;
        let parameters = self.parameters(status, now);
        let encode = |text: &str| utf8_percent_encode(text, FORM).to_string();
        let pairs = parameters.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
        let body = pairs.collect::<Vec<_>>().join("&");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let signature = HeaderValue::from_str(&signature(&self.token, url, &parameters)).ok()?;
        headers.insert(HeaderName::from_static("x-twilio-signature"), signature);
        Some(HttpRequest { method: Method::POST, uri: url.parse().ok()?, headers, body: body.into() })
    }

    fn parameters(&self, status: Status, now: Timestamp) -> Vec<(&'static str, String)> {
        let word = views::status_word(status);
        let mut parameters = vec![
            ("MessageSid", self.message_sid.clone()),
            ("SmsSid", self.message_sid.clone()),
            ("MessageStatus", word.to_owned()),
            ("SmsStatus", word.to_owned()),
            ("AccountSid", self.account_sid.clone()),
            ("To", self.to.clone()),
            ("ApiVersion", "2010-04-01".to_owned()),
        ];
        parameters.extend(self.from.iter().map(|from| ("From", from.clone())));
        parameters.extend(self.messaging_service_sid.iter().map(|sid| ("MessagingServiceSid", sid.clone())));
        if status == Status::Failed {
            parameters.push(("ErrorCode", self.failed_code.to_string()));
        }
        if matches!(status, Status::Delivered | Status::Failed) {
            parameters.push(("RawDlrDoneDate", now.strftime("%y%m%d%H%M").to_string()));
        }
        parameters
    }
}

/// The `X-Twilio-Signature` of a form that is posted to a URL.
fn signature(token: &str, url: &str, parameters: &[(&str, String)]) -> String {
    let mut sorted: Vec<_> = parameters.iter().collect();
    sorted.sort();
    let mut signed = url.to_owned();
    for (name, value) in sorted {
        signed.push_str(name);
        signed.push_str(value);
    }
    let tag = sign(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token, signed.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(tag.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that Twilio's helper libraries are tested with.
    #[test]
    fn the_signature_is_twilios() {
        let parameters = [
            ("Digits", "1234"),
            ("CallSid", "CA1234567890ABCDE"),
            ("To", "+18005551212"),
            ("Caller", "+14158675309"),
            ("From", "+14158675309"),
        ]
        .map(|(name, value)| (name, value.to_owned()));
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
        assert_eq!(signature("12345", url, &parameters), "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    }

    #[test]
    fn a_callback_is_a_form_and_keeps_its_fragment_to_itself() {
        let callback = Callback {
            url: "http://127.0.0.1:1/cb?id=7#rc=5".to_owned(),
            token: "t".to_owned(),
            account_sid: "AC1".to_owned(),
            message_sid: "SM1".to_owned(),
            messaging_service_sid: None,
            from: Some("+1555".to_owned()),
            to: "+7999".to_owned(),
            failed_code: 30003,
        };
        let request = callback.request(Status::Failed, Timestamp::UNIX_EPOCH).expect("a request");
        assert_eq!(request.uri.to_string(), "http://127.0.0.1:1/cb?id=7");
        let body = std::str::from_utf8(&request.body).expect("text");
        assert!(body.contains("MessageStatus=undelivered&") && body.contains("To=%2B7999"), "{body}");
        assert!(body.ends_with("From=%2B1555&ErrorCode=30003&RawDlrDoneDate=7001010000"), "{body}");
    }
}
