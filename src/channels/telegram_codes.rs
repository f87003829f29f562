//! What Telegram's refusals mean: a table of status and contained phrase, for the Bot API has no codes of its own.
//!
//! Source: the Bot API's documentation (core.telegram.org/bots/api) and its server's code (tdlib/telegram-bot-api,
//! read May 2026). The server lower-cases the first letter of many descriptions and may put an upper-case
//! `MTPROTO_CODE` in their place, so a phrase is looked for anywhere, in any case.

use std::time::Duration;

use super::outcomes::Verdict::{self, ChannelDown, Permanent, Throttled};
use crate::domain::DownReason::{Auth, Config};
use crate::domain::PermanentReason::{Content, OptedOut, Policy, Recipient};
use crate::domain::ThrottleScope;

/// A status with a phrase its description contains, in lower case; an empty phrase is the rest of that status.
#[derive(Clone, Copy, Debug)]
pub struct PhraseRow {
    pub status: u16,
    pub phrase: &'static str,
    pub verdict: Verdict,
}

/// The first row that fits, if any.
pub fn row(status: u16, description: &str) -> Option<&'static PhraseRow> {
    let description = description.to_ascii_lowercase();
    PHRASES.iter().find(|row| row.status == status && description.contains(row.phrase))
}

const fn on(status: u16, phrase: &'static str, verdict: Verdict) -> PhraseRow {
    PhraseRow { status, phrase, verdict }
}

pub const PHRASES: &[PhraseRow] = &[
    on(400, "chat not found", Permanent(Recipient)),
    on(400, "chat_id is empty", Permanent(Recipient)),
    on(400, "peer_id_invalid", Permanent(Recipient)),
    // The answer names the new chat; whoever knows the person has to store it.
    on(400, "group chat was upgraded to a supergroup chat", Permanent(Recipient)),
    on(400, "can't parse entities", Permanent(Content)),
    on(400, "message is too long", Permanent(Content)),
    on(400, "message text is empty", Permanent(Content)),
    on(400, "have no rights to send a message", Permanent(Policy)),
    on(400, "not enough rights", Permanent(Policy)),
    // `wrong HTTP URL specified` and its like.
    on(400, "wrong ", Permanent(Content)),
    on(401, "", ChannelDown(Auth)),
    on(403, "bot was blocked by the user", Permanent(OptedOut)),
    on(403, "user is deactivated", Permanent(Recipient)),
    on(403, "bot can't initiate conversation with a user", Permanent(Recipient)),
    on(403, "bot was kicked from", Permanent(Recipient)),
    on(403, "bot is not a member of", Permanent(Recipient)),
    on(403, "the group chat was deleted", Permanent(Recipient)),
    // Every 403 is about this chat: a bot that may nothing at all is answered 401.
    on(403, "", Permanent(Recipient)),
    // The token is malformed, or the method unknown.
    on(404, "", ChannelDown(Config)),
    // Only where the same bot is set up twice.
    on(409, "", ChannelDown(Config)),
    // The answer does not say whether the chat or the bot is too fast. It is taken for the chat; a second chat within
    // its pause makes it the bot (`limits`).
    on(429, "", Throttled(ThrottleScope::Recipient, Duration::from_secs(1))),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_found_anywhere_in_any_case() {
        let verdict = |status, description| row(status, description).map(|row| row.verdict);
        assert_eq!(verdict(403, "Forbidden: Bot was blocked by the user"), Some(Permanent(OptedOut)));
        assert_eq!(verdict(400, "Bad Request: PEER_ID_INVALID"), Some(Permanent(Recipient)));
        assert_eq!(verdict(400, "Bad Request: something new"), None);
        assert_eq!(verdict(403, "Forbidden: something new"), Some(Permanent(Recipient)));
    }

    #[test]
    fn every_phrase_finds_its_own_row() {
        for expected in PHRASES {
            assert_eq!(row(expected.status, expected.phrase).map(|row| row.verdict), Some(expected.verdict));
            assert_eq!(expected.phrase, expected.phrase.to_ascii_lowercase());
        }
    }
}
