//! WhatsApp's Cloud API: `POST /v{N}.{M}/{phone number id}/messages` and a look at the number.
//!
//! Checks as Meta does and refuses in its words (`errors`); takes texts and templates (`message`).

mod errors;
mod message;
mod webhook;

use base64::Engine as _;
use serde::Serialize;
use serde_json::json;

use self::errors::Refusal;
use self::message::Checked;
pub(super) use self::webhook::Webhook;
use super::answer::{Answer, Reply};
use super::chance;
use super::receipts::Target;
use super::record::Message;
use super::request::{Method, Request};
use super::scenario::{ErrorCode, WhatsAppScenario};
use super::stage::{Dialect, Stage};
use super::turns::{LimitScope, Throttle, Turn};
use crate::domain::Channel;

/// The token that is let in unless the scenario says otherwise.
pub const DEFAULT_TOKEN: &str = "sim-token";
/// The sending number that exists unless the scenario says otherwise.
pub const DEFAULT_PHONE_NUMBER_ID: &str = "100000000000001";

/// Whether a path is the Graph API's: it starts with a version.
pub(super) fn owns(path: &str) -> bool {
    path.strip_prefix("/v").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

pub(super) fn reply(stage: &Stage, request: &Request) -> Reply {
    let scenario = stage.scenario();
    let scenario = &scenario.whatsapp;
    match checked(request, scenario) {
        Ok(Wanted::Look(answer)) => answer.into(),
        Ok(Wanted::Send(checked)) => {
            let (input, message_status) = (&checked.input, checked.message_status.as_deref());
            let wording = Wording { input, message_status, scenario };
            stage.play(Channel::WhatsApp, scenario.behaviour(), &wording, &checked.message)
        }
        Err(refusal) => {
            stage.stand(Channel::WhatsApp).refused(&refusal.code.to_string());
            refusal.into_answer().into()
        }
    }
}

/// What a valid request asks for.
enum Wanted {
    Send(Checked),
    Look(Answer),
}

fn checked(request: &Request, scenario: &WhatsAppScenario) -> Result<Wanted, Refusal> {
    let path = request.path();
    let mut segments = path.trim_start_matches('/').trim_end_matches('/').split('/');
    let version = segments.next().unwrap_or_default();
    let (id, edge, rest) = (segments.next().unwrap_or_default(), segments.next(), segments.next());
    if !is_version(version) || id.is_empty() || rest.is_some() || edge.is_some_and(|edge| edge != "messages") {
        return Err(Refusal::graph(2500, format!("Unknown path components: {path}")));
    }
    check_token(request, scenario)?;
    let number = scenario.phone_numbers.iter().find(|number| number.id == id);
    match (request.method, edge, number) {
        (Method::Get, None, Some(number)) => Ok(Wanted::Look(Answer::json(
            200,
            &json!({
                "verified_name": number.verified_name,
                "display_phone_number": number.display_phone_number,
                "quality_rating": number.quality_rating,
                "id": number.id,
            }),
        ))),
        (Method::Post, Some(_), Some(number)) => {
            let body = request.content_type_is("application/json").then_some(&*request.body);
            message::check(&number.id, body, scenario).map(Wanted::Send)
        }
        (Method::Get, _, _) => Err(Refusal::unknown_object("get", id)),
        (Method::Post | Method::Put | Method::Other, _, _) => Err(Refusal::unknown_object("post", id)),
    }
}

/// `v23.0`.
fn is_version(segment: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    segment
        .strip_prefix('v')
        .and_then(|version| version.split_once('.'))
        .is_some_and(|(major, minor)| digits(major) && digits(minor))
}

fn check_token(request: &Request, scenario: &WhatsAppScenario) -> Result<(), Refusal> {
    let Some(authorization) = &request.authorization else {
        return Err(Refusal::graph(190, "Authentication Error"));
    };
    let token = authorization.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match token {
        Some((_, token)) if scenario.tokens.iter().any(|known| known == token.trim()) => Ok(()),
        Some(_) => Err(Refusal::graph(190, "Invalid OAuth access token - Cannot parse access token")),
        None => Err(Refusal::graph(190, "Authentication Error")),
    }
}

/// Meta's answers to one message.
struct Wording<'a> {
    input: &'a str,
    message_status: Option<&'a str>,
    scenario: &'a WhatsAppScenario,
}

impl Dialect for Wording<'_> {
    fn id_bits(&self, turn: &Turn) -> u64 {
        turn.message_bits
    }

    fn accepted(&self, recipient: &str, id_bits: u64, _at: jiff::Timestamp) -> Answer {
        #[derive(Serialize)]
        struct Body<'a> {
            messaging_product: &'static str,
            contacts: [Contact<'a>; 1],
            messages: [Sent<'a>; 1],
        }
        #[derive(Serialize)]
        struct Contact<'a> {
            input: &'a str,
            wa_id: &'a str,
        }
        #[derive(Serialize)]
        struct Sent<'a> {
            id: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            message_status: Option<&'a str>,
        }
        let body = Body {
            messaging_product: "whatsapp",
            contacts: [Contact { input: self.input, wa_id: recipient }],
            messages: [Sent { id: wamid(recipient, id_bits), message_status: self.message_status }],
        };
        Answer::json(200, &body)
    }

    fn refused(&self, code: &ErrorCode) -> Answer {
        // The scenario was checked when it was set.
        Refusal::scripted(errors::parse_code(&code.0).unwrap_or(131000)).into_answer()
    }

    fn throttled(&self, throttle: Throttle) -> (Answer, &'static str) {
        match throttle.scope {
            LimitScope::Account => {
                let details = "Message failed to send because there were too many messages sent from this phone \
                               number in a short period of time";
                (Refusal::new(130429, details).into_answer(), "130429")
            }
            LimitScope::Recipient => {
                let details = "Message failed to send because there were too many messages sent from this phone \
                               number to the same phone number in a short period of time";
                (Refusal::new(131056, details).into_answer(), "131056")
            }
        }
    }

    fn server_error(&self) -> Answer {
        Refusal::graph(1, "An unknown error has occurred.").into_answer()
    }

    fn target(&self, message: &Message, id_bits: u64) -> Option<Target> {
        /// What fails unless the scenario says how: nobody is there.
        const UNDELIVERABLE: u32 = 131026;
        let receipts = &self.scenario.receipts;
        let number = self.scenario.phone_numbers.iter().find(|number| number.id == message.account)?;
        let failed_code = receipts.failed_code.as_ref().and_then(|code| errors::parse_code(&code.0));
        Some(Target::WhatsApp(Webhook {
            url: receipts.url.clone()?,
            app_secret: receipts.app_secret.clone(),
            phone_number_id: number.id.clone(),
            display_phone_number: number.display_phone_number.clone(),
            message_id: wamid(&message.recipient, id_bits),
            recipient: message.recipient.clone(),
            our_id: message.our_id.clone(),
            failed_code: failed_code.unwrap_or(UNDELIVERABLE),
        }))
    }
}

/// A message id in Meta's form: the recipient and the message's own bits, in base64.
pub(super) fn wamid(recipient: &str, id_bits: u64) -> String {
    let mut raw = Vec::with_capacity(48);
    raw.extend_from_slice(&[0x1c, 0x18, recipient.len() as u8]);
    raw.extend_from_slice(recipient.as_bytes());
    raw.extend_from_slice(&[0x15, 0x02, 0x00, 0x11, 0x18, 0x12]);
    let check = chance::mixed(id_bits) as u8;
    raw.extend_from_slice(format!("{id_bits:016X}{check:02X}").as_bytes());
    raw.push(0);
    let mut id = String::with_capacity(72);
    id.push_str("wamid.");
    base64::engine::general_purpose::STANDARD.encode_string(&raw, &mut id);
    id
}

/// A recipient as Meta writes it: digits only.
pub(super) fn canonical_recipient(recipient: &str) -> String {
    recipient.chars().filter(char::is_ascii_digit).collect()
}

pub(super) fn check_error_code(code: &ErrorCode) -> Result<(), String> {
    match errors::parse_code(&code.0) {
        Some(_) => Ok(()),
        None => Err(format!("no such code; known are {}", errors::known_codes())),
    }
}
