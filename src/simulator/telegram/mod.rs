//! Telegram's Bot API: `/bot<token>/sendMessage` and `/bot<token>/getMe`.
//!
//! Method names in any case, GET or POST, parameters in the query, a form or JSON. Text is plain or HTML, which is
//! parsed as Telegram does (`html`). Markdown modes and multipart are refused: nothing here sends them.

mod errors;
mod html;
mod parameters;

use serde_json::{Value, json};

use self::errors::Refusal;
use self::parameters::Parameters;
use super::answer::{Answer, Reply};
use super::chance;
use super::record::Message;
use super::request::Request;
use super::scenario::{ErrorCode, TelegramScenario};
use super::stage::{Dialect, Stage};
use super::turns::{Throttle, Turn};
use crate::domain::Channel;

/// The bot that exists unless the scenario says otherwise.
pub const DEFAULT_TOKEN: &str = "1000001:sim-token";

const TEXT_LIMIT_UTF16: usize = 4096;
const CALLBACK_DATA_LIMIT_BYTES: usize = 64;

pub(super) fn owns(path: &str) -> bool {
    path.starts_with("/bot")
}

pub(super) fn reply(stage: &Stage, request: &Request) -> Reply {
    let scenario = stage.scenario();
    let scenario = &scenario.telegram;
    match checked(request, scenario) {
        Ok(Wanted::Send(message, text)) => {
            let wording = Wording { bot_id: &message.account, text: &text };
            stage.play(Channel::Telegram, scenario.behaviour(), &wording, &message)
        }
        Ok(Wanted::Look(answer)) => answer.into(),
        Err(complaint) => {
            stage.stand(Channel::Telegram).refused(complaint.key);
            errors::answer(complaint.status, &complaint.description).into()
        }
    }
}

/// What a valid request asks for.
enum Wanted {
    /// The message, and its text as Telegram shows it.
    Send(Message, String),
    Look(Answer),
}

/// A refusal of the request itself; `key` groups it in the figures.
struct Complaint {
    status: u16,
    key: &'static str,
    description: String,
}

impl Complaint {
    fn new(status: u16, key: &'static str, description: impl Into<String>) -> Self {
        Complaint { status, key, description: description.into() }
    }

    fn bad_request(key: &'static str, detail: &str) -> Self {
        Complaint::new(400, key, format!("Bad Request: {detail}"))
    }
}

fn checked(request: &Request, scenario: &TelegramScenario) -> Result<Wanted, Complaint> {
    let not_found = || Complaint::new(404, "not_found", "Not Found");
    let rest = request.path().strip_prefix("/bot").unwrap_or_default();
    let (token, method) = rest.split_once('/').ok_or_else(not_found)?;
    // Some clients escape the colon.
    let token = percent_encoding::percent_decode_str(token).decode_utf8_lossy();
    let bot_id = bot_id(&token).ok_or_else(not_found)?;
    if !scenario.tokens.iter().any(|known| *known == token) {
        return Err(Complaint::new(401, "unauthorized", "Unauthorized"));
    }
    match method.to_ascii_lowercase().as_str() {
        "getme" => {
            let bot = json!({
                "id": bot_id, "is_bot": true, "first_name": "Vestnik Simulator", "username": "vestnik_simulator_bot",
                "can_join_groups": true, "can_read_all_group_messages": false, "supports_inline_queries": false,
            });
            Ok(Wanted::Look(Answer::json(200, &json!({ "ok": true, "result": bot }))))
        }
        "sendmessage" => {
            let parameters =
                Parameters::read(request).map_err(|description| Complaint::new(400, "bad_request", description))?;
            send_message(bot_id, &parameters)
        }
        _ => Err(Complaint::new(404, "not_found", "Not Found: method not found")),
    }
}

fn send_message(bot_id: u64, parameters: &Parameters) -> Result<Wanted, Complaint> {
    let raw = parameters.get("text");
    if raw.is_empty() {
        return Err(Complaint::bad_request("message_empty", "message text is empty"));
    }
    let parse_mode = parameters.get("parse_mode");
    let visible = match parse_mode.to_ascii_lowercase().as_str() {
        "" => raw.to_owned(),
        "html" => html::visible_text(raw).map_err(|complaint| {
            Complaint::bad_request("cant_parse_entities", &format!("can't parse entities: {complaint}"))
        })?,
        _ => return Err(Complaint::bad_request("bad_request", "unsupported parse_mode")),
    };
    // Telegram trims what it shows and counts that.
    let visible = visible.trim();
    if visible.is_empty() {
        return Err(Complaint::bad_request("message_empty", "text must be non-empty"));
    }
    if visible.encode_utf16().count() > TEXT_LIMIT_UTF16 {
        return Err(Complaint::bad_request("message_too_long", "message is too long"));
    }
    check_object(parameters.get("link_preview_options"), "link preview options")?;
    check_reply_markup(parameters.get("reply_markup"))?;
    let recipient = chat(parameters.get("chat_id"))?;
    let message = Message {
        account: bot_id.to_string(),
        recipient,
        raw: (raw != visible).then(|| raw.to_owned()),
        text: Some(visible.to_owned()),
        ..Message::default()
    };
    Ok(Wanted::Send(message, visible.to_owned()))
}

/// The chat as the record names it: its id, or `@name`.
fn chat(chat_id: &str) -> Result<String, Complaint> {
    if chat_id.is_empty() {
        return Err(Complaint::bad_request("chat_id_empty", "chat_id is empty"));
    }
    let known = match chat_id.strip_prefix('@') {
        Some(name) => {
            let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            letters && (4..=32).contains(&name.len()) && name.starts_with(|c: char| c.is_ascii_alphabetic())
        }
        None => chat_id.parse::<i64>().is_ok_and(|id| id != 0) && !chat_id.starts_with('+'),
    };
    if known { Ok(chat_id.to_owned()) } else { Err(Complaint::bad_request("chat_not_found", "chat not found")) }
}

fn check_object(json: &str, what: &str) -> Result<(), Complaint> {
    if json.is_empty() || serde_json::from_str::<Value>(json).is_ok_and(|value| value.is_object()) {
        return Ok(());
    }
    Err(Complaint::bad_request("bad_request", &format!("can't parse {what} JSON object")))
}

fn check_reply_markup(json: &str) -> Result<(), Complaint> {
    check_object(json, "reply keyboard markup")?;
    let markup: Value = serde_json::from_str(json).unwrap_or_default();
    let Some(keyboard) = markup.get("inline_keyboard") else { return Ok(()) };
    let complaint = |detail: &str| Complaint::bad_request("bad_request", detail);
    let rows = keyboard.as_array().ok_or_else(|| complaint("field \"inline_keyboard\" must be of type Array"))?;
    for row in rows {
        let row = row.as_array().ok_or_else(|| complaint("inline keyboard button row must be an Array"))?;
        for button in row {
            if button.get("text").and_then(Value::as_str).is_none_or(str::is_empty) {
                return Err(complaint("can't parse inline keyboard button: button text must be non-empty"));
            }
            if button.as_object().is_some_and(|fields| fields.len() < 2) {
                return Err(complaint("text buttons are unallowed in the inline keyboard"));
            }
            let data = button.get("callback_data").and_then(Value::as_str).unwrap_or_default();
            if data.len() > CALLBACK_DATA_LIMIT_BYTES {
                return Err(complaint("BUTTON_DATA_INVALID"));
            }
        }
    }
    Ok(())
}

/// Telegram's answers to one message.
struct Wording<'a> {
    bot_id: &'a str,
    text: &'a str,
}

impl Dialect for Wording<'_> {
    /// Message ids count within a chat, as Telegram's do.
    fn id_bits(&self, turn: &Turn) -> u64 {
        turn.ordinal + 1
    }

    fn accepted(&self, recipient: &str, id_bits: u64, at: jiff::Timestamp) -> Answer {
        let id = chat_number(recipient);
        let chat = match recipient.strip_prefix('@') {
            Some(name) => json!({ "id": id, "title": name, "username": name, "type": "channel" }),
            None if id < 0 => json!({ "id": id, "title": "Group", "type": "supergroup" }),
            None => json!({ "id": id, "first_name": "Person", "type": "private" }),
        };
        let result = json!({
            "message_id": id_bits,
            "from": {
                "id": self.bot_id.parse::<u64>().unwrap_or_default(), "is_bot": true,
                "first_name": "Vestnik Simulator", "username": "vestnik_simulator_bot",
            },
            "chat": chat,
            "date": at.as_second(),
            "text": self.text,
        });
        Answer::json(200, &json!({ "ok": true, "result": result }))
    }

    fn refused(&self, code: &ErrorCode) -> Answer {
        // The scenario was checked when it was set.
        Refusal::parse(&code.0)
            .unwrap_or(Refusal::Known { status: 500, description: "Internal Server Error" })
            .into_answer()
    }

    fn throttled(&self, throttle: Throttle) -> (Answer, &'static str) {
        // Whole seconds, and never too early.
        let seconds = throttle.retry_after.as_micros().div_ceil(1_000_000).max(1);
        (Refusal::RetryAfter(u64::try_from(seconds).unwrap_or(u64::MAX)).into_answer(), "retry_after")
    }

    fn server_error(&self) -> Answer {
        errors::answer(500, "Internal Server Error")
    }
}

/// A chat's number; a public name gets one made from it, in the range of channels.
fn chat_number(recipient: &str) -> i64 {
    /// Channel ids start below this.
    const CHANNELS: i64 = -1_000_000_000_000;
    match recipient.strip_prefix('@') {
        Some(name) => CHANNELS - (chance::text_hash(name) % 1_000_000_000_000) as i64,
        None => recipient.parse().unwrap_or_default(),
    }
}

/// A message's id in the record: unique over all chats.
pub(super) fn record_id(recipient: &str, id_bits: u64) -> String {
    format!("{}:{id_bits}", chat_number(recipient))
}

/// The bot's id, if `token` has the form of a token.
pub(super) fn bot_id(token: &str) -> Option<u64> {
    let (id, secret) = token.split_once(':')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (!secret.is_empty() && secret.chars().all(plain) && id.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| id.parse().ok())?
}

pub(super) fn check_error_code(code: &ErrorCode) -> Result<(), String> {
    match Refusal::parse(&code.0) {
        Some(_) => Ok(()),
        None => Err(format!("no such word; known are {}", errors::known_words())),
    }
}
