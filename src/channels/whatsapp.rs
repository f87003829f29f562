//! A number on the WhatsApp Cloud API.
//!
//! Source of the request and the answer: Meta's OpenAPI description of the business messaging API, v23.0. Our id goes
//! along as `biz_opaque_callback_data`, which status webhooks echo: the only way to settle an uncertain send, since
//! Meta deduplicates nothing.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use hyper::Uri;
use hyper::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};

use super::Provider;
use super::codes::CodeRow;
use super::endpoint::{ConfigProblem, Endpoint, Request, base_url, never, phone, printable, secret_header, token, uri};
use super::http_client::{HttpAnswer, HttpClient};
use super::outcomes::{Refusal, Verdict, word};
use super::whatsapp_codes;
use crate::config::whatsapp::WhatsAppSettings;
use crate::domain::message::RenderedWhatsAppTemplate;
use crate::domain::template::WhatsAppButtonKind;
use crate::domain::{AccountRef, Channel, Content, NotificationId, Outcome, OutgoingMessage, PermanentReason};

/// One number.
pub struct WhatsApp {
    account: AccountRef,
    endpoint: Endpoint,
    messages: Uri,
    number: Uri,
}

impl WhatsApp {
    pub fn new(account_name: &str, settings: &WhatsAppSettings, client: HttpClient) -> Result<Self, ConfigProblem> {
        let account = AccountRef { channel: Channel::WhatsApp, name: account_name.into() };
        let problem = |setting: &str, problem: &str| Err(ConfigProblem::new(&account, setting, problem));
        let base = base_url(&account, "base_url", &settings.base_url)?;
        let version = &settings.api_version;
        if !version.starts_with('v') || !version[1..].chars().all(|c| c.is_ascii_digit() || c == '.') {
            return problem("api_version", "is not a version like v23.0");
        }
        let number_id = &settings.phone_number_id;
        if number_id.is_empty() || !number_id.chars().all(|c| c.is_ascii_digit()) {
            return problem("phone_number_id", "has to be digits only: the number's id, not the number itself");
        }
        let token = token(&account, "token", &settings.token, |c| c.is_ascii_graphic())?;
        let authorization = secret_header(&account, "token", &format!("Bearer {token}"))?;

        let number = format!("{base}/{version}/{number_id}");
        let messages = uri(&account, "base_url", &format!("{number}/messages"))?;
        let fields = "fields=id,display_phone_number,quality_rating,verified_name";
        let number = uri(&account, "base_url", &format!("{number}?{fields}"))?;
        let endpoint = Endpoint::new(&account, client, &messages, settings.connect_timeout_ms, settings.timeout_ms)?
            .with_header(AUTHORIZATION, authorization);
        Ok(WhatsApp { account, endpoint, messages, number })
    }
}

#[async_trait]
impl Provider for WhatsApp {
    fn account(&self) -> &AccountRef {
        &self.account
    }

    async fn send(&self, message: &OutgoingMessage, limit: Duration) -> Outcome {
        let request = body(message).and_then(|body| Request::json(&self.messages, &body));
        self.endpoint.deliver(request, limit, outcome).await
    }

    async fn check(&self, limit: Duration) -> Result<String, String> {
        let answer = self.endpoint.ask(Request::get(&self.number), limit).await?;
        if let (true, Some(number)) = (answer.status.is_success(), answer.json::<NumberBody>()) {
            let said = |text: Option<String>| text.map_or_else(|| "?".into(), |text| printable(&text));
            let (phone, name) = (said(number.display_phone_number), said(number.verified_name));
            return Ok(format!("{phone}, {name}, quality {}", said(number.quality_rating)));
        }
        Err(match answer.json::<ErrorBody>() {
            Some(ErrorBody { error }) => {
                let said = printable(error.message.as_deref().unwrap_or_default());
                let code = error.code.map_or_else(|| "no code".into(), |code| code.to_string());
                let meaning = error.row().map_or("an unknown code", |row| row.meaning);
                format!("WhatsApp answered {} with code {code} ({meaning}): {said}", answer.status.as_u16())
            }
            None => format!("not WhatsApp's answer: status {}, is base_url right?", answer.status.as_u16()),
        })
    }
}

impl fmt::Debug for WhatsApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WhatsApp({})", self.account)
    }
}

/// The request's body, or why this message can never go by WhatsApp.
fn body(message: &OutgoingMessage) -> Result<SendBody<'_>, Outcome> {
    let phone = phone(message, "WhatsApp")?;
    let kind = match &message.content {
        Content::Text(text) => MessageKind::Text { text: TextBody { body: text, preview_url: false } },
        Content::WhatsAppTemplate(template) => MessageKind::Template { template: template_body(template) },
        Content::TelegramHtml(_) => return never(PermanentReason::Content, "WhatsApp takes no Telegram HTML"),
        Content::Email(_) => return never(PermanentReason::Content, "WhatsApp takes no email"),
    };
    Ok(SendBody {
        messaging_product: "whatsapp",
        recipient_type: "individual",
        to: phone.digits(),
        kind,
        biz_opaque_callback_data: message.id,
    })
}

fn template_body(template: &RenderedWhatsAppTemplate) -> TemplateBody<'_> {
    let mut components = Vec::with_capacity(2 + template.buttons.len());
    if !template.header.is_empty() {
        components.push(Component::Header { parameters: texts(&template.header) });
    }
    if !template.body.is_empty() {
        components.push(Component::Body { parameters: texts(&template.body) });
    }
    for (index, kind, value) in &template.buttons {
        let (sub_type, parameter) = match kind {
            WhatsAppButtonKind::Url => ("url", Parameter::Text { text: value }),
            WhatsAppButtonKind::QuickReply => ("quick_reply", Parameter::Payload { payload: value }),
        };
        components.push(Component::Button { sub_type, index: index.to_string(), parameters: [parameter] });
    }
    TemplateBody {
        name: &template.name,
        language: Language { policy: "deterministic", code: &template.language },
        components,
    }
}

fn texts(values: &[String]) -> Vec<Parameter<'_>> {
    values.iter().map(|text| Parameter::Text { text }).collect()
}

fn outcome(answer: &HttpAnswer) -> Outcome {
    if answer.status.is_success()
        && let Some(accepted) = accepted(answer)
    {
        return accepted;
    }
    let error = answer.json::<ErrorBody>().map(|body| body.error);
    let verdict = match (error.as_ref().and_then(MetaError::row), &error) {
        (Some(row), _) => Some(row.verdict),
        // Meta itself says that the same request may succeed later.
        (None, Some(error)) if error.is_transient && !answer.status.is_success() => Some(Verdict::Transient),
        (None, _) => None,
    };
    Refusal {
        code: error.as_ref().and_then(|error| error.code).map(|code| code.to_string()),
        verdict,
        from_provider: error.is_some(),
        stated: regain_access_after(answer),
    }
    .into_outcome(answer)
}

/// A yes with an id that can be kept; anything less is no readable answer.
fn accepted(answer: &HttpAnswer) -> Option<Outcome> {
    /// Ids seen are below 100; a longer one would not be Meta's.
    const LONGEST_ID_BYTES: usize = 512;
    let body = answer.json::<AcceptedBody>()?;
    let message = body.messages.into_iter().next()?;
    let provider_message_id = word(&message.id, LONGEST_ID_BYTES)?.to_owned();
    // `held_for_quality_assessment` and `paused` are taken but held; a receipt says how it ends.
    let note = message.message_status.filter(|status| status != "accepted").map(|status| printable(&status));
    Some(Outcome::Accepted { provider_message_id, note })
}

/// `X-Business-Use-Case-Usage` names the minutes until an exceeded request limit is free again, per kind of use.
fn regain_access_after(answer: &HttpAnswer) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Usage {
        #[serde(default)]
        estimated_time_to_regain_access: u64,
    }
    let header = answer.headers.get("x-business-use-case-usage")?;
    let usages: std::collections::HashMap<String, Vec<Usage>> = serde_json::from_slice(header.as_bytes()).ok()?;
    let minutes = usages.values().flatten().map(|usage| usage.estimated_time_to_regain_access).max()?;
    (minutes > 0).then(|| Duration::from_secs(minutes.saturating_mul(60)))
}

#[derive(Serialize)]
struct SendBody<'a> {
    messaging_product: &'static str,
    recipient_type: &'static str,
    to: &'a str,
    #[serde(flatten)]
    kind: MessageKind<'a>,
    biz_opaque_callback_data: NotificationId,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum MessageKind<'a> {
    Text { text: TextBody<'a> },
    Template { template: TemplateBody<'a> },
}

#[derive(Serialize)]
struct TextBody<'a> {
    body: &'a str,
    preview_url: bool,
}

#[derive(Serialize)]
struct TemplateBody<'a> {
    name: &'a str,
    language: Language<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    components: Vec<Component<'a>>,
}

/// The policy is required by Meta's description and missing in its examples; sending it suits both.
#[derive(Serialize)]
struct Language<'a> {
    policy: &'static str,
    code: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Component<'a> {
    Header { parameters: Vec<Parameter<'a>> },
    Body { parameters: Vec<Parameter<'a>> },
    // The index is a string in Meta's description.
    Button { sub_type: &'static str, index: String, parameters: [Parameter<'a>; 1] },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Parameter<'a> {
    Text { text: &'a str },
    Payload { payload: &'a str },
}

#[derive(Deserialize)]
struct AcceptedBody {
    messages: Vec<AcceptedMessage>,
}

#[derive(Deserialize)]
struct AcceptedMessage {
    id: String,
    message_status: Option<String>,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: MetaError,
}

#[derive(Deserialize)]
struct MetaError {
    code: Option<i64>,
    error_subcode: Option<i64>,
    message: Option<String>,
    #[serde(default)]
    is_transient: bool,
}

impl MetaError {
    fn row(&self) -> Option<&'static CodeRow> {
        // The Graph API says "no such object" as a subcode of "wrong parameter". It is the number's id that is wrong,
        // not the message.
        let code = if (self.code, self.error_subcode) == (Some(100), Some(33)) { Some(33) } else { self.code };
        whatsapp_codes::row(code?)
    }
}

#[derive(Deserialize)]
struct NumberBody {
    display_phone_number: Option<String>,
    verified_name: Option<String>,
    quality_rating: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DownReason, PhoneNumber, Recipient, ThrottleScope};
    use bytes::Bytes;
    use hyper::header::HeaderValue;
    use hyper::{HeaderMap, StatusCode};
    use serde_json::{Value, json};

    fn message(content: Content) -> OutgoingMessage {
        let recipient = Recipient::Phone(PhoneNumber::parse("+79991234567", None).expect("a number"));
        OutgoingMessage { id: NotificationId(uuid::Uuid::from_u128(7)), recipient, content }
    }

    fn body_of(content: Content) -> Value {
        serde_json::to_value(body(&message(content)).expect("a body")).expect("JSON")
    }

    fn answered(status: u16, body: &str) -> Outcome {
        outcome(&answer(status, &[], body))
    }

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> HttpAnswer {
        let headers = headers
            .iter()
            .map(|(name, value)| (hyper::header::HeaderName::from_static(name), HeaderValue::from_static(value)));
        HttpAnswer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::from_iter(headers),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn a_text_is_written_as_meta_describes() {
        assert_eq!(
            body_of(Content::Text("Привет".into())),
            json!({
                "messaging_product": "whatsapp", "recipient_type": "individual", "to": "79991234567", "type": "text",
                "text": { "body": "Привет", "preview_url": false },
                "biz_opaque_callback_data": "00000000-0000-0000-0000-000000000007",
            })
        );
    }

    #[test]
    fn a_template_is_written_as_meta_describes() {
        let template = RenderedWhatsAppTemplate {
            name: "order_ready".into(),
            language: "ru".into(),
            category: None,
            header: vec!["H".into()],
            body: vec!["Anna".into(), "42".into()],
            buttons: vec![
                (0, WhatsAppButtonKind::Url, "suffix".into()),
                (1, WhatsAppButtonKind::QuickReply, "stop".into()),
            ],
        };
        let written = body_of(Content::WhatsAppTemplate(template));
        assert_eq!(written["type"], "template");
        assert_eq!(
            written["template"],
            json!({
                "name": "order_ready", "language": { "policy": "deterministic", "code": "ru" },
                "components": [
                    { "type": "header", "parameters": [{ "type": "text", "text": "H" }] },
                    { "type": "body", "parameters": [{ "type": "text", "text": "Anna" }, { "type": "text", "text": "42" }] },
                    { "type": "button", "sub_type": "url", "index": "0", "parameters": [{ "type": "text", "text": "suffix" }] },
                    { "type": "button", "sub_type": "quick_reply", "index": "1",
                      "parameters": [{ "type": "payload", "payload": "stop" }] },
                ],
            })
        );
    }

    #[test]
    fn what_is_not_for_whatsapp_is_refused_without_a_panic() {
        let html = message(Content::TelegramHtml("<b>x</b>".into()));
        assert!(matches!(body(&html), Err(Outcome::Permanent { reason: PermanentReason::Content, .. })));
    }

    #[test]
    fn only_an_id_is_a_yes() {
        let yes = r#"{"messages":[{"id":"wamid.1","message_status":"held_for_quality_assessment"}]}"#;
        let Outcome::Accepted { provider_message_id, note } = answered(200, yes) else { panic!("not accepted") };
        assert_eq!((&*provider_message_id, note.as_deref()), ("wamid.1", Some("held_for_quality_assessment")));
        let plain = answered(200, r#"{"messages":[{"id":"wamid.1","message_status":"accepted"}]}"#);
        assert!(matches!(plain, Outcome::Accepted { note: None, .. }));
        for no in [
            "",
            "{}",
            "null",
            r#"{"messages":[]}"#,
            r#"{"messages":[{"id":""}]}"#,
            r#"{"messages":[{"id":"a\u0000"}]}"#,
        ] {
            assert!(matches!(answered(200, no), Outcome::Ambiguous { .. }), "{no}");
        }
    }

    #[test]
    fn the_code_decides_before_the_status() {
        let known = r#"{"error":{"code":131026,"message":"undeliverable"}}"#;
        for status in [200, 400, 500, 502] {
            let outcome = answered(status, known);
            assert!(matches!(outcome, Outcome::Permanent { reason: PermanentReason::Recipient, .. }), "{status}");
            assert_eq!(outcome.error().map(|error| &*error.code), Some("131026"));
        }
        let no_such_number = answered(400, r#"{"error":{"code":100,"error_subcode":33}}"#);
        assert!(matches!(no_such_number, Outcome::ChannelDown { reason: DownReason::Config, .. }));
        let unknown = |extra: &str| format!(r#"{{"error":{{"code":999999{extra}}}}}"#);
        assert!(matches!(answered(400, &unknown("")), Outcome::Permanent { reason: PermanentReason::Content, .. }));
        assert!(matches!(answered(401, &unknown("")), Outcome::ChannelDown { reason: DownReason::Auth, .. }));
        assert!(matches!(answered(500, &unknown("")), Outcome::Transient { handed_off: true, .. }));
        assert!(matches!(answered(502, &unknown("")), Outcome::Ambiguous { .. }));
        assert!(matches!(answered(200, &unknown("")), Outcome::Ambiguous { .. }));
        assert!(matches!(answered(400, &unknown(r#","is_transient":true"#)), Outcome::Transient { .. }));
        assert!(matches!(answered(500, "<html>"), Outcome::Ambiguous { .. }));
    }

    #[test]
    fn the_wait_comes_from_the_answer_where_it_says() {
        let rest = |headers: &[(&'static str, &'static str)], code: u32| match outcome(&answer(
            400,
            headers,
            &format!(r#"{{"error":{{"code":{code}}}}}"#),
        )) {
            Outcome::Throttled { scope, after, .. } => (scope, after.as_secs()),
            other => panic!("{other:?}"),
        };
        let usage = r#"{"1":[{"type":"whatsapp","estimated_time_to_regain_access":19}]}"#;
        assert_eq!(rest(&[], 80007), (ThrottleScope::Account, 60));
        assert_eq!(rest(&[("x-business-use-case-usage", usage)], 80007), (ThrottleScope::Account, 19 * 60));
        assert_eq!(rest(&[("x-business-use-case-usage", "{junk")], 80007), (ThrottleScope::Account, 60));
        assert_eq!(rest(&[("retry-after", "9")], 131056), (ThrottleScope::Recipient, 9));
        assert_eq!(rest(&[], 130429), (ThrottleScope::Sender, 1));
    }

    #[test]
    fn settings_are_checked_and_the_token_is_never_shown() {
        let settings = |edit: fn(&mut WhatsAppSettings)| {
            let text = r#"{"phone_number_id":"106540352242922","token":"EAAsecret"}"#;
            let mut settings: WhatsAppSettings = serde_json::from_str(text).expect("settings");
            edit(&mut settings);
            WhatsApp::new("main", &settings, HttpClient::new())
        };
        let good = settings(|_| {}).expect("good settings");
        assert!(!format!("{good:?} {:?}", good.endpoint).contains("EAAsecret"));
        for (edit, name) in [
            ((|s| s.token = "".into()) as fn(&mut WhatsAppSettings), "token"),
            (|s| s.token = "EAAsecret\n".into(), "token"),
            (|s| s.phone_number_id = "+7999".into(), "phone_number_id"),
            (|s| s.base_url = "graph".into(), "base_url"),
            (|s| s.api_version = "latest".into(), "api_version"),
            (|s| s.api_version = String::new(), "api_version"),
            (|s| s.timeout_ms = 0, "timeout_ms"),
        ] {
            let problem = settings(edit).expect_err(name);
            assert_eq!(problem.setting, format!("whatsapp.main.{name}"));
            assert!(!format!("{problem} {problem:?}").contains("EAAsecret"));
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_back_only_an_id_is_a_yes(
            status in 100..1000_u16,
            junk in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            code in proptest::option::of(-10..140_000_i64),
            shape in 0..5_u8,
        ) {
            let code = json!(code);
            let body = match shape {
                0 => junk,
                1 => json!({ "error": { "code": code } }).to_string().into_bytes(),
                2 => json!({ "error": code }).to_string().into_bytes(),
                3 => json!({ "messages": [code] }).to_string().into_bytes(),
                _ => json!({ "messages": [{ "id": String::from_utf8_lossy(&junk) }] }).to_string().into_bytes(),
            };
            let mut answer = answer(200, &[], "");
            answer.status = StatusCode::from_u16(status).expect("three digits");
            answer.body = body.into();
            let is_yes = matches!(outcome(&answer), Outcome::Accepted { .. });
            proptest::prop_assert!(!is_yes || (answer.status.is_success() && shape == 4));
        }
    }
}
