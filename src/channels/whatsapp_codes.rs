//! What WhatsApp's error codes mean: a table to be extended as Meta adds codes.
//!
//! Source: Meta's error code page (developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes,
//! read May 2026) and, where it is silent, the error lists of client libraries and resellers (pywa 4.5, Kaleyra,
//! Wolkvox). The same codes come later, in the `errors` of a `failed` status webhook.

use super::codes::{CodeRow, DAY, HOUR, MINUTE, one, rest};
use super::outcomes::Verdict::{ChannelDown, Permanent, Transient};
use crate::domain::DownReason::{Auth, Billing, Config, Suspended};
use crate::domain::PermanentReason::{Content, OptedOut, Policy, Recipient, Template};
use crate::domain::ThrottleScope;

/// The row of a code, if it is known.
pub fn row(code: i64) -> Option<&'static CodeRow> {
    super::codes::row(CODES, code)
}

pub const CODES: &[CodeRow] = &[
    // Nothing will leave until a person acts.
    one(0, ChannelDown(Auth), "the token cannot be authenticated"),
    one(3, ChannelDown(Auth), "the app lacks the capability"),
    one(10, ChannelDown(Auth), "permission not granted or removed"),
    one(33, ChannelDown(Config), "the business number was deleted, or the id is wrong"),
    one(190, ChannelDown(Auth), "the token has expired"),
    CodeRow { first: 200, last: 299, verdict: ChannelDown(Auth), meaning: "permission not granted or removed" },
    one(368, ChannelDown(Suspended), "the account is restricted for violating a policy"),
    // The Graph API's own; seen, not in WhatsApp's list.
    one(2500, ChannelDown(Config), "the path is unknown: base_url or api_version is wrong"),
    one(131005, ChannelDown(Auth), "permission not granted or removed"),
    one(131031, ChannelDown(Suspended), "the account is locked"),
    one(131037, ChannelDown(Config), "the number's display name is not approved"),
    one(131042, ChannelDown(Billing), "no valid way of payment"),
    one(131045, ChannelDown(Config), "the number is not registered"),
    one(133010, ChannelDown(Config), "the number is not registered"),
    // Too fast. The first step; consecutive ones grow.
    one(4, rest(ThrottleScope::Account, MINUTE), "the app's request limit is reached"),
    one(80007, rest(ThrottleScope::Account, MINUTE), "the business account's request limit is reached"),
    one(130429, rest(ThrottleScope::Sender, 1), "the number's throughput is exceeded"),
    one(131048, rest(ThrottleScope::Sender, HOUR), "too many messages of this number were taken for spam"),
    // Meta's advice is 4^n seconds, n from 0.
    one(131056, rest(ThrottleScope::Recipient, 1), "too many messages to this user"),
    one(131057, rest(ThrottleScope::Sender, MINUTE), "the account is in maintenance"),
    one(131064, rest(ThrottleScope::Account, DAY), "the messaging limit is reached"),
    // Trouble at Meta.
    one(1, Transient, "unknown trouble or an invalid request"),
    one(2, Transient, "the service is down or overloaded"),
    one(131000, Transient, "something went wrong"),
    one(131016, Transient, "a service is unavailable"),
    one(135000, Transient, "unknown trouble, without detail"),
    // The file's server may be back at the next try; the retries of the notification bound how often.
    one(131052, Transient, "downloading the user's media failed"),
    one(131053, Transient, "uploading the media failed"),
    // This person will not get it.
    one(130472, Permanent(Policy), "the user is in a marketing experiment"),
    one(130497, Permanent(Policy), "the account may not message this country"),
    one(131021, Permanent(Recipient), "the recipient is the sender"),
    one(131026, Permanent(Recipient), "undeliverable: not on WhatsApp, terms not accepted, or an old client"),
    one(131030, Permanent(Recipient), "not on the test number's list of recipients"),
    one(131049, Permanent(Policy), "withheld to keep the user's messages few; not an opt-out"),
    one(131050, Permanent(OptedOut), "the user stopped marketing messages of this business"),
    one(131062, Permanent(Recipient), "a business-scoped user id is not supported for this message"),
    // Only marketing templates are refused, so the account goes on; stopping it would hold back codes and alarms.
    one(131063, Permanent(Policy), "marketing templates are switched off on this endpoint"),
    one(137000, Permanent(Recipient), "the identity key's hash does not match"),
    // This message is wrong.
    one(100, Permanent(Content), "a parameter is wrong or unknown"),
    one(131008, Permanent(Content), "a required parameter is missing"),
    one(131009, Permanent(Content), "a parameter's value is wrong"),
    one(131047, Permanent(Content), "more than 24 hours since the user's last message: only a template may be sent"),
    one(131051, Permanent(Content), "the message type is not supported"),
    one(132000, Permanent(Template), "the number of parameters does not match"),
    one(132001, Permanent(Template), "no approved template of this name in this language"),
    one(132005, Permanent(Template), "the text with its values is too long"),
    one(132007, Permanent(Template), "the template violates a policy"),
    one(132008, Permanent(Template), "a parameter's value is wrong"),
    one(132012, Permanent(Template), "a parameter's format does not match"),
    one(132015, Permanent(Template), "the template is paused for low quality"),
    one(132016, Permanent(Template), "the template is disabled for low quality"),
    one(132018, Permanent(Template), "a parameter's format does not match"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_has_two_rows() {
        super::super::codes::assert_no_code_has_two_rows(CODES);
    }
}
