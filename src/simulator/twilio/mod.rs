//! Twilio's Programmable Messaging: messages and accounts under `/2010-04-01/Accounts/`.
//!
//! Checks as Twilio does and refuses in its words (`errors`, `message`), counts segments (`segments`), shows what
//! became of a message (`views`) and posts status callbacks (`callback`).

mod callback;
mod errors;
mod message;
pub(super) mod segments;
mod views;

use base64::Engine as _;
use serde_json::json;

pub(super) use self::callback::Callback;
pub(super) use self::errors::Refusal;
use self::message::Checked;
use super::answer::{Answer, Reply};
use super::chance;
use super::receipts::Target;
use super::record::{Message, TakenQuery};
use super::request::{Method, Request, form_pairs};
use super::scenario::{ErrorCode, SmsScenario, TwilioAccountScenario};
use super::stage::{Dialect, Stage};
use super::turns::{LimitScope, Throttle, Turn};
use super::whatsapp;
use crate::domain::Channel;

/// The account that exists unless the scenario says otherwise.
pub const DEFAULT_ACCOUNT_SID: &str = "AC00000000000000000000000000000001";
/// Its token.
pub const DEFAULT_TOKEN: &str = "sim-token";
/// A sender to use: the number that Twilio's own test credentials send from. Any other does as well.
pub const DEFAULT_SENDER: &str = "+15005550006";

const PREFIX: &str = "/2010-04-01/Accounts";

pub(super) fn owns(path: &str) -> bool {
    path.starts_with("/2010-04-01/")
}

pub(super) fn reply(stage: &Stage, request: &Request) -> Reply {
    let scenario = stage.scenario();
    let scenario = &scenario.sms;
    match checked(stage, request, scenario) {
        Ok(Wanted::Look(answer)) => answer.into(),
        Ok(Wanted::Send(account, checked)) => {
            let Checked { message, sms } = *checked;
            let wording = Wording { account, sms: &sms, text: message.text.as_deref().unwrap_or_default(), scenario };
            stage.play(Channel::Sms, scenario.behaviour(), &wording, &message)
        }
        Err(refusal) => {
            stage.stand(Channel::Sms).refused(&refusal.code.to_string());
            refusal.into_answer().into()
        }
    }
}

/// What a valid request asks for.
enum Wanted<'a> {
    Send(&'a TwilioAccountScenario, Box<Checked>),
    Look(Answer),
}

fn checked<'a>(stage: &Stage, request: &Request, scenario: &'a SmsScenario) -> Result<Wanted<'a>, Refusal> {
    let path = request.path();
    let not_found = || Refusal::new(20404, format!("The requested resource {path} was not found"));
    let account = account(request, scenario)?;
    let rest = path.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('/')).ok_or_else(not_found)?;
    let rest = rest.strip_suffix(".json").ok_or_else(not_found)?;
    let (sid, rest) = rest.split_once('/').unwrap_or((rest, ""));
    if sid != account.sid {
        return Err(not_found());
    }
    match (request.method, rest.split_once('/').unwrap_or((rest, ""))) {
        (Method::Get, ("", "")) => Ok(Wanted::Look(Answer::json(200, &views::account(account)))),
        (Method::Get, ("Messages", "")) => Ok(Wanted::Look(list(stage, account, request.query(), scenario))),
        (Method::Get, ("Messages", sid)) => {
            let bits = message_bits(sid).ok_or_else(not_found)?;
            let taken = stage.record.by_id(Channel::Sms, bits).filter(|taken| taken.account == account.sid);
            let view = taken.and_then(|taken| views::later(&taken, bits, scenario, stage.now()));
            view.map(|view| Wanted::Look(Answer::json(200, &view))).ok_or_else(not_found)
        }
        (Method::Post, ("Messages", "")) => {
            if account.status != "active" {
                return Err(Refusal::of(20005));
            }
            message::check(&account.sid, request, scenario).map(|checked| Wanted::Send(account, Box::new(checked)))
        }
        (Method::Get | Method::Post | Method::Put | Method::Other, _) => Err(not_found()),
    }
}

/// The account whose token, or whose API key, the request brings.
fn account<'a>(request: &Request, scenario: &'a SmsScenario) -> Result<&'a TwilioAccountScenario, Refusal> {
    let credentials = request.authorization.as_deref().and_then(|header| {
        let (scheme, encoded) = header.split_once(' ')?;
        let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
        scheme.eq_ignore_ascii_case("basic").then(|| String::from_utf8(decoded).ok())?
    });
    let found = credentials.as_deref().and_then(|pair| pair.split_once(':')).and_then(|(user, secret)| {
        scenario.accounts.iter().find(|account| {
            (account.sid == user && account.token == secret)
                || account.api_keys.get(user).is_some_and(|known| known == secret)
        })
    });
    found.ok_or_else(|| Refusal::of(20003))
}

/// Messages by `To`, `From` and day, newest first: what remains to a sender who never saw an answer.
fn list(stage: &Stage, account: &TwilioAccountScenario, query: &str, scenario: &SmsScenario) -> Answer {
    const PAGE: usize = 50;
    const PAGE_MOST: usize = 1000;
    let mut wanted = TakenQuery { channel: Some(Channel::Sms), limit: PAGE, ..TakenQuery::default() };
    let (mut from, mut day) = (None, None);
    for (name, value) in form_pairs(query) {
        match name.as_str() {
            "To" => wanted.recipient = Some(whatsapp::canonical_recipient(&value)),
            "From" => from = Some(value),
            "DateSent" => day = Some(value),
            "PageSize" => wanted.limit = value.parse().unwrap_or(PAGE).clamp(1, PAGE_MOST),
            _ => {}
        }
    }
    let taken = stage.record.newest(&wanted);
    let views = taken.iter().filter(|taken| {
        taken.account == account.sid
            && taken.sms.as_ref().is_some_and(|sms| from.is_none() || sms.from == from)
            && day.as_ref().is_none_or(|day| taken.at.strftime("%Y-%m-%d").to_string() == *day)
    });
    let views: Vec<_> = views
        .filter_map(|taken| views::later(taken, message_bits(&taken.provider_message_id)?, scenario, stage.now()))
        .collect();
    let uri = format!("{PREFIX}/{}/Messages.json", account.sid);
    let body = json!({
        "messages": views, "page": 0, "page_size": wanted.limit, "next_page_uri": null, "previous_page_uri": null,
        "start": 0, "end": views.len().saturating_sub(1), "first_page_uri": uri, "uri": uri,
    });
    Answer::json(200, &body)
}

/// Twilio's answers to one message.
struct Wording<'a> {
    account: &'a TwilioAccountScenario,
    sms: &'a super::record::TakenSms,
    text: &'a str,
    scenario: &'a SmsScenario,
}

impl Dialect for Wording<'_> {
    fn id_bits(&self, turn: &Turn) -> u64 {
        turn.message_bits
    }

    fn accepted(&self, _recipient: &str, id_bits: u64, at: jiff::Timestamp) -> Answer {
        Answer::json(201, &views::fresh(&self.account.sid, &message_sid(id_bits), self.sms, self.text, at))
    }

    fn refused(&self, code: &ErrorCode) -> Answer {
        // The scenario was checked when it was set.
        Refusal::of(errors::parse_code(&code.0).unwrap_or(20500)).into_answer()
    }

    fn throttled(&self, throttle: Throttle) -> (Answer, &'static str) {
        match throttle.scope {
            LimitScope::Account => (Refusal::of(21611).into_answer(), "21611"),
            LimitScope::Recipient => (Refusal::of(14107).into_answer(), "14107"),
        }
    }

    fn server_error(&self) -> Answer {
        Refusal::of(20500).into_answer()
    }

    fn sender<'a>(&'a self, message: &'a Message) -> &'a str {
        let sender = self.sms.from.as_ref().or(self.sms.messaging_service_sid.as_ref());
        sender.map_or(&message.account, String::as_str)
    }

    fn weight(&self) -> u32 {
        self.sms.segments
    }

    fn target(&self, _message: &Message, id_bits: u64) -> Option<Target> {
        Some(Target::Twilio(Callback {
            url: self.sms.status_callback.clone()?,
            token: self.account.token.clone(),
            account_sid: self.account.sid.clone(),
            message_sid: message_sid(id_bits),
            messaging_service_sid: self.sms.messaging_service_sid.clone(),
            from: self.sms.from.clone(),
            to: self.sms.to.clone(),
            failed_code: views::failed_code(self.scenario),
        }))
    }
}

/// A message's id in Twilio's form.
pub(super) fn message_sid(id_bits: u64) -> String {
    format!("SM{id_bits:016x}{:016x}", chance::mixed(id_bits))
}

/// What a sid was made from, if it is one of ours.
fn message_bits(sid: &str) -> Option<u64> {
    let bits = u64::from_str_radix(sid.get(2..18)?, 16).ok()?;
    (message_sid(bits) == sid).then_some(bits)
}

/// Two letters and 32 hexadecimal digits.
pub(super) fn is_sid(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

pub(super) fn check_error_code(code: &ErrorCode) -> Result<(), String> {
    match errors::parse_code(&code.0) {
        Some(_) => Ok(()),
        None => Err(format!("no such code; known are {}", errors::known_codes())),
    }
}

/// A code that a callback may bring.
pub(super) fn check_failed_code(code: &ErrorCode) -> Result<(), String> {
    match code.0.parse().ok().and_then(errors::failure) {
        Some(_) => Ok(()),
        None => Err(format!("no such code; known are {}, {}", errors::known_failures(), errors::known_codes())),
    }
}
