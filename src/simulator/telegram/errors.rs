//! Telegram's refusals, as data: our word for it, HTTP status, description.
//!
//! Telegram has no sub-codes, so scenarios name a refusal by a word. Two words carry a number after a colon:
//! `retry_after:7` and `migrated:-1001234567890`.

use serde_json::json;

use crate::simulator::answer::Answer;

const TABLE: &[(&str, u16, &str)] = &[
    ("blocked", 403, "Forbidden: bot was blocked by the user"),
    ("cant_initiate", 403, "Forbidden: bot can't initiate conversation with a user"),
    ("cant_parse_entities", 400, "Bad Request: can't parse entities: Unsupported start tag \"x\" at byte offset 0"),
    ("chat_id_empty", 400, "Bad Request: chat_id is empty"),
    ("chat_not_found", 400, "Bad Request: chat not found"),
    (
        "conflict",
        409,
        "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
    ),
    ("deactivated", 403, "Forbidden: user is deactivated"),
    ("group_deleted", 403, "Forbidden: the group chat was deleted"),
    ("internal", 500, "Internal Server Error"),
    ("kicked", 403, "Forbidden: bot was kicked from the supergroup chat"),
    ("message_empty", 400, "Bad Request: message text is empty"),
    ("message_too_long", 400, "Bad Request: message is too long"),
    ("no_rights", 400, "Bad Request: not enough rights to send text messages to the chat"),
    ("not_found", 404, "Not Found"),
    ("not_member", 403, "Forbidden: bot is not a member of the channel chat"),
    ("peer_id_invalid", 400, "Bad Request: PEER_ID_INVALID"),
    ("unauthorized", 401, "Unauthorized"),
];

/// A refusal that may appear in a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::simulator) enum Refusal {
    Known { status: u16, description: &'static str },
    RetryAfter(u64),
    Migrated(i64),
}

impl Refusal {
    pub(in crate::simulator) fn parse(word: &str) -> Option<Refusal> {
        if let Some((word, number)) = word.split_once(':') {
            return match word {
                "retry_after" => number.parse().ok().map(Refusal::RetryAfter),
                "migrated" => number.parse().ok().map(Refusal::Migrated),
                _ => None,
            };
        }
        let (_, status, description) = TABLE.iter().find(|row| row.0 == word)?;
        Some(Refusal::Known { status: *status, description })
    }

    pub(in crate::simulator) fn into_answer(self) -> Answer {
        match self {
            Refusal::Known { status, description } => answer(status, description),
            Refusal::RetryAfter(seconds) => {
                let mut answer = Answer::json(
                    429,
                    &json!({
                        "ok": false,
                        "error_code": 429,
                        "description": format!("Too Many Requests: retry after {seconds}"),
                        "parameters": { "retry_after": seconds },
                    }),
                );
                answer.retry_after_seconds = Some(seconds);
                answer
            }
            Refusal::Migrated(chat_id) => Answer::json(
                400,
                &json!({
                    "ok": false,
                    "error_code": 400,
                    "description": "Bad Request: group chat was upgraded to a supergroup chat",
                    "parameters": { "migrate_to_chat_id": chat_id },
                }),
            ),
        }
    }
}

/// A refusal without parameters.
pub(in crate::simulator) fn answer(status: u16, description: &str) -> Answer {
    Answer::json(status, &json!({ "ok": false, "error_code": status, "description": description }))
}

/// All words, for a message that says what is known.
pub(in crate::simulator) fn known_words() -> String {
    let mut words: Vec<_> = TABLE.iter().map(|row| row.0).collect();
    words.extend(["retry_after:<seconds>", "migrated:<chat id>"]);
    words.join(", ")
}
