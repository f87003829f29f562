//! A gateway in the manner of SMSC.ru: `/sys/send.php` with `fmt=3`, as <https://smsc.ru/api/http> describes it.
//!
//! What a gateway of a hundred lines of settings must cope with: GET or POST, credentials among the parameters,
//! HTTP 200 for every answer, refusals as numbers in its body. One recipient and UTF-8 only; no receipts. It behaves as
//! the scenario's `sms` says, whose codes of Twilio's become the nearest of its own.

use serde_json::json;

use super::answer::{Answer, Reply};
use super::record::{Message, TakenSms};
use super::request::{Request, form_pairs};
use super::scenario::{ErrorCode, GatewayScenario, SmsScenario};
use super::stage::{Dialect, Stage};
use super::turns::{Throttle, Turn};
use super::twilio::segments;
use super::whatsapp;
use crate::domain::Channel;

/// What the record calls it.
pub(super) const PROVIDER: &str = "smsc";
const PATH: &str = "/sys/send.php";
/// A question that sends nothing, and asks for the same login.
const BALANCE: &str = "/sys/balance.php";
const TEXT_LIMIT_CHARS: usize = 1000;

pub(super) fn owns(path: &str) -> bool {
    path == PATH || path == BALANCE
}

pub(super) fn reply(stage: &Stage, request: &Request) -> Reply {
    let scenario = stage.scenario();
    let scenario = &scenario.sms;
    if request.path() == BALANCE {
        let pairs = parameters(request);
        return match knows(&scenario.gateway, &pairs) {
            true => Answer::json(200, &json!({ "balance": "100.00" })).into(),
            false => Refusal::Login.into_answer().into(),
        };
    }
    match checked(request, scenario) {
        Ok((message, segments)) => stage.play(Channel::Sms, scenario.behaviour(), &Wording { segments }, &message),
        Err(refusal) => {
            stage.stand(Channel::Sms).refused(refusal.name());
            refusal.into_answer().into()
        }
    }
}

/// The gateway's own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Parameters = 1,
    Login = 2,
    Money = 3,
    Forbidden = 6,
    Number = 7,
    Undeliverable = 8,
    TooMany = 9,
}

impl Refusal {
    fn name(self) -> &'static str {
        match self {
            Refusal::Parameters => "smsc_1",
            Refusal::Login => "smsc_2",
            Refusal::Money => "smsc_3",
            Refusal::Forbidden => "smsc_6",
            Refusal::Number => "smsc_7",
            Refusal::Undeliverable => "smsc_8",
            Refusal::TooMany => "smsc_9",
        }
    }

    fn into_answer(self) -> Answer {
        let error = match self {
            Refusal::Parameters => "parameters error",
            Refusal::Login => "authorise error",
            Refusal::Money => "no money",
            Refusal::Forbidden => "message is denied",
            Refusal::Number => "invalid number",
            Refusal::Undeliverable => "message to this number cannot be delivered",
            Refusal::TooMany => "too many requests",
        };
        Answer::json(200, &json!({ "error": error, "error_code": self as u8 }))
    }

    fn from_twilio(code: &ErrorCode) -> Refusal {
        match code.0.as_str() {
            "20003" => Refusal::Login,
            "10001" | "20005" | "30002" => Refusal::Money,
            "21211" => Refusal::Number,
            "21214" | "21408" | "21608" | "21610" | "21612" | "21614" | "63024" => Refusal::Undeliverable,
            "14107" | "20429" | "21611" | "30001" | "30022" | "60728" | "63017" | "63018" | "63038" => Refusal::TooMany,
            "21602" | "21603" | "21604" | "21617" => Refusal::Parameters,
            _ => Refusal::Forbidden,
        }
    }
}

fn checked(request: &Request, scenario: &SmsScenario) -> Result<(Message, u32), Refusal> {
    let pairs = parameters(request);
    let get = |name: &str| given(&pairs, name);
    let gateway = &scenario.gateway;
    if !knows(gateway, &pairs) {
        return Err(Refusal::Login);
    }
    let (Some(phone), Some(text), Some("3")) = (get("phones"), get("mes"), get("fmt")) else {
        return Err(Refusal::Parameters);
    };
    let digits = whatsapp::canonical_recipient(phone);
    if !(7..=15).contains(&digits.len()) || phone.contains([',', ';']) {
        return Err(Refusal::Number);
    }
    if text.chars().count() > TEXT_LIMIT_CHARS {
        return Err(Refusal::Parameters);
    }
    let sender = get("sender");
    if let Some(sender) = sender
        && !scenario.senders.is_empty()
        && !scenario.senders.iter().any(|known| known == sender)
    {
        return Err(Refusal::Forbidden);
    }
    let (encoding, segments) = segments::count(text);
    let sms = TakenSms {
        provider: PROVIDER.to_owned(),
        to: phone.to_owned(),
        from: sender.map(str::to_owned),
        messaging_service_sid: None,
        encoding: encoding.as_str().to_owned(),
        segments,
        status_callback: None,
    };
    let message = Message {
        account: gateway.login.clone(),
        recipient: digits,
        text: Some(text.to_owned()),
        our_id: get("id").map(str::to_owned),
        // Only keys that are not text could fail here.
        details: serde_json::to_string(&sms).ok(),
        ..Message::default()
    };
    Ok((message, segments))
}

fn parameters(request: &Request) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = form_pairs(request.query()).collect();
    if request.content_type_is("application/x-www-form-urlencoded") {
        pairs.extend(form_pairs(std::str::from_utf8(&request.body).unwrap_or_default()));
    }
    pairs
}

fn given<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

fn knows(gateway: &GatewayScenario, pairs: &[(String, String)]) -> bool {
    let get = |name: &str| given(pairs, name);
    get("apikey") == Some(gateway.api_key.as_str())
        || (get("login"), get("psw")) == (Some(gateway.login.as_str()), Some(gateway.password.as_str()))
}

/// The gateway's answers to one message.
struct Wording {
    segments: u32,
}

impl Dialect for Wording {
    fn id_bits(&self, turn: &Turn) -> u64 {
        turn.message_bits
    }

    fn accepted(&self, _recipient: &str, id_bits: u64, _at: jiff::Timestamp) -> Answer {
        Answer::json(200, &json!({ "id": message_id(id_bits), "cnt": self.segments }))
    }

    fn refused(&self, code: &ErrorCode) -> Answer {
        Refusal::from_twilio(code).into_answer()
    }

    fn throttled(&self, _throttle: Throttle) -> (Answer, &'static str) {
        (Refusal::TooMany.into_answer(), Refusal::TooMany.name())
    }

    fn server_error(&self) -> Answer {
        Answer::json(500, &json!({ "error": "internal error" }))
    }

    fn weight(&self) -> u32 {
        self.segments
    }
}

/// A number, short enough for those who read it as a floating one.
pub(super) fn message_id(id_bits: u64) -> u64 {
    const EXACT_BITS: u32 = 53;
    id_bits >> (u64::BITS - EXACT_BITS)
}
