//! What Twilio's error codes mean: a table to be extended as Twilio adds codes, which it does by splitting old ones.
//!
//! Source: Twilio's error dictionary (twilio.com/docs/api/errors, read July 2026); 20005, 20500, 21602–21604, 21617,
//! 21635, 21659–21661, 21701–21704, 30032, 30450 and 63024 from experience. The codes from 30000 on mostly come later, as the `ErrorCode` of a
//! status callback. Twilio's own rule for 20429: such a request was never processed.

use super::codes::{CodeRow, DAY, HOUR, MINUTE, one, rest};
use super::outcomes::Verdict::{ChannelDown, Permanent, Transient};
use crate::domain::DownReason::{Auth, Config, Suspended};
use crate::domain::PermanentReason::{Content, OptedOut, Policy, Recipient};
use crate::domain::ThrottleScope::{self, Account, Sender};

/// The row of a code, if it is known.
pub fn row(code: i64) -> Option<&'static CodeRow> {
    super::codes::row(CODES, code)
}

pub const CODES: &[CodeRow] = &[
    // Nothing will leave until a person acts.
    one(10001, ChannelDown(Suspended), "the account is not active"),
    one(20003, ChannelDown(Auth), "the credentials are wrong"),
    one(20005, ChannelDown(Suspended), "the account is not active"),
    one(20404, ChannelDown(Config), "no such account: account_sid or base_url is wrong"),
    one(21212, ChannelDown(Config), "the sender is not valid"),
    one(21603, ChannelDown(Config), "neither a sender nor a Messaging Service"),
    one(21606, ChannelDown(Config), "the sender is not a number of this account, or cannot send SMS"),
    one(21609, ChannelDown(Config), "http.public_url makes no URL that Twilio would call"),
    one(21659, ChannelDown(Config), "the sender is not a number of Twilio's"),
    one(21660, ChannelDown(Config), "the sender belongs to another account"),
    one(21661, ChannelDown(Config), "the sender cannot send SMS"),
    one(21701, ChannelDown(Config), "no such Messaging Service"),
    one(21703, ChannelDown(Config), "the Messaging Service has no sender that fits"),
    one(21704, ChannelDown(Config), "the Messaging Service has no senders"),
    one(21705, ChannelDown(Config), "no such Messaging Service"),
    one(21910, ChannelDown(Config), "the sender belongs to another channel"),
    one(30002, ChannelDown(Suspended), "the account was suspended"),
    // Only what goes to the United States is refused, and all of it.
    one(30032, ChannelDown(Config), "the toll-free sender is not verified"),
    one(30034, ChannelDown(Config), "the sender is not registered for A2P 10DLC"),
    // Too fast. The first step; consecutive ones grow.
    one(14107, rest(ThrottleScope::Recipient, 30), "more than 30 messages to one number, less than 30 s apart"),
    one(20429, rest(Account, 1), "too many requests at once"),
    one(21611, rest(Sender, 5 * MINUTE), "the sender's queue holds all it can"),
    one(30001, rest(Sender, MINUTE), "the queue is full"),
    one(30022, rest(Sender, MINUTE), "the carrier's rate for this sender is exceeded"),
    one(60728, rest(Account, HOUR), "the account's hourly limit is reached"),
    one(63017, rest(Account, 1), "the account's rate is exceeded"),
    one(63018, rest(Sender, 1), "the channel's rate for this sender is exceeded"),
    one(63038, rest(Account, DAY), "the account's daily limit is reached"),
    // Trouble at Twilio or beyond.
    one(20500, Transient, "trouble at Twilio"),
    one(21730, Transient, "maintenance"),
    one(30003, Transient, "the handset is off or out of reach"),
    one(30008, Transient, "unknown trouble at the carrier"),
    // This person will not get it.
    one(21211, Permanent(Recipient), "not a valid number"),
    one(21214, Permanent(Recipient), "the number cannot be reached"),
    one(21608, Permanent(Recipient), "a trial account sends to verified numbers only"),
    one(21610, Permanent(OptedOut), "the recipient replied STOP"),
    one(21612, Permanent(Recipient), "no way from this sender to this number"),
    one(21614, Permanent(Recipient), "not a mobile number"),
    one(21635, Permanent(Recipient), "a landline"),
    one(30005, Permanent(Recipient), "the number is unknown or no longer in use"),
    one(30006, Permanent(Recipient), "a landline, or a carrier that cannot be reached"),
    one(63024, Permanent(Recipient), "not a valid recipient of this channel"),
    one(21266, Permanent(Recipient), "the recipient is the sender"),
    one(21408, Permanent(Policy), "the account may not send to this country: see its geo permissions"),
    one(30004, Permanent(Policy), "blocked by the recipient or the carrier"),
    one(30007, Permanent(Policy), "filtered as spam: the same text would be again"),
    one(30450, Permanent(Policy), "sending to this country is switched off"),
    // This message is wrong.
    one(21602, Permanent(Content), "no text"),
    one(21604, Permanent(Content), "no recipient"),
    one(21617, Permanent(Content), "longer than 1600 characters"),
    one(30036, Permanent(Content), "its validity ran out before it could leave"),
    one(63016, Permanent(Content), "outside the 24 hours in which WhatsApp takes free text"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_has_two_rows() {
        super::super::codes::assert_no_code_has_two_rows(CODES);
    }
}
