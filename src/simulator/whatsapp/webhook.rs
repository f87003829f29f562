//! Status webhooks as Meta posts them.

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};
use jiff::Timestamp;
use ring::hmac;
use serde_json::json;

use super::errors;
use crate::channels::http_client::HttpRequest;
use crate::simulator::receipts::{Status, sign};

/// The business account that all numbers belong to.
const BUSINESS_ACCOUNT_ID: &str = "200000000000001";

/// Where one message's webhooks go, and what they say of it.
#[derive(Debug)]
pub(in crate::simulator) struct Webhook {
    pub(super) url: String,
    pub(super) app_secret: Option<String>,
    pub(super) phone_number_id: String,
    pub(super) display_phone_number: String,
    pub(super) message_id: String,
    pub(super) recipient: String,
    pub(super) our_id: Option<String>,
    /// What a failure says.
    pub(super) failed_code: u32,
}

impl Webhook {
    pub(in crate::simulator) fn request(&self, status: Status, now: Timestamp) -> Option<HttpRequest> {
        let body = self.body(status, now);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(secret) = &self.app_secret {
            let signature = HeaderValue::from_str(&signature(secret, body.as_bytes())).ok()?;
            headers.insert(HeaderName::from_static("x-hub-signature-256"), signature);
        }
        Some(HttpRequest { method: Method::POST, uri: self.url.parse().ok()?, headers, body: body.into() })
    }

    fn body(&self, status: Status, now: Timestamp) -> String {
        let word = match status {
            Status::Sent => "sent",
            Status::Delivered => "delivered",
            Status::Read => "read",
            Status::Failed => "failed",
        };
        let mut said = json!({
            "id": self.message_id,
            "status": word,
            "timestamp": now.as_second().to_string(),
            "recipient_id": self.recipient,
        });
        if let Some(our_id) = &self.our_id {
            said["biz_opaque_callback_data"] = json!(our_id);
        }
        if status == Status::Failed {
            said["errors"] = json!([errors::in_webhook(self.failed_code)]);
        } else {
            said["pricing"] = json!({ "billable": true, "pricing_model": "PMP", "category": "utility" });
        }
        let body = json!({
            "object": "whatsapp_business_account",
            "entry": [{ "id": BUSINESS_ACCOUNT_ID, "changes": [{ "field": "messages", "value": {
                "messaging_product": "whatsapp",
                "metadata": {
                    "display_phone_number": self.display_phone_number, "phone_number_id": self.phone_number_id,
                },
                "statuses": [said],
            } }] }],
        });
        escaped(&body.to_string())
    }
}

/// The `X-Hub-Signature-256` of a body.
fn signature(app_secret: &str, body: &[u8]) -> String {
    let tag = sign(hmac::HMAC_SHA256, app_secret, body);
    let mut text = String::from("sha256=");
    for byte in tag.as_ref() {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// JSON as Meta writes it, with `\/` and `\uXXXX`: who checks a signature over bytes of its own making fails here, too.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            '/' => out.push_str("\\/"),
            c if c.is_ascii() => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_says_whose_message_it_was_and_is_signed_over_its_bytes() {
        let webhook = Webhook {
            url: "http://127.0.0.1:1/callbacks/main".to_owned(),
            app_secret: Some("Jefe".to_owned()),
            phone_number_id: "100".to_owned(),
            display_phone_number: "+1 555".to_owned(),
            message_id: "wamid.a/b".to_owned(),
            recipient: "79991234567".to_owned(),
            our_id: Some("ключ".to_owned()),
            failed_code: 131026,
        };
        let request = webhook.request(Status::Failed, Timestamp::UNIX_EPOCH).expect("a request");
        let text = std::str::from_utf8(&request.body).expect("text");
        assert!(text.contains(r"wamid.a\/b") && text.contains(r"\u043a\u043b"), "{text}");
        let body: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let said = &body["entry"][0]["changes"][0]["value"]["statuses"][0];
        assert_eq!((&said["biz_opaque_callback_data"], &said["timestamp"]), (&json!("ключ"), &json!("0")));
        assert_eq!(said["errors"][0]["code"], 131026);
        assert_eq!(request.headers["x-hub-signature-256"], signature("Jefe", text.as_bytes()).as_str());
    }

    /// RFC 4231, test case 2.
    #[test]
    fn the_signature_is_hmac_sha256() {
        assert_eq!(
            signature("Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
