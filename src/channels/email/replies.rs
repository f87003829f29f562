//! What a mail server's refusals mean: a table of stage, codes and, where codes say too little, a contained phrase.
//!
//! Source: RFC 5321 (4.2.3, 4.3.2), RFC 3463 and the IANA registry of enhanced codes; phrases from Postfix, Exim and
//! Exchange, whose submission servers say with a general code that it is the sender who is not let in. Servers that
//! check the sender often answer so only at RCPT. The enhanced code goes before the basic one.
//!
//! There is no scope for a recipient's domain: greylisting is by sender and recipient (RFC 6647), so the recipient
//! rests; a limit that is met before any recipient is named is the account's.

use std::time::Duration;

use super::reply::{Enhanced, Reply};
use crate::channels::outcomes::Verdict::{self, ChannelDown, Permanent, Throttled, Transient};
use crate::domain::DownReason::{Auth, Config};
use crate::domain::PermanentReason::{Content, Policy, Recipient};
use crate::domain::ThrottleScope;

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The connection, the greeting, or encryption.
    Greeting,
    Auth,
    Mail,
    Rcpt,
    /// The wish to send a message.
    Data,
    /// The whole message: the only stage at which it may have been taken.
    Message,
}

use Stage::{Data, Greeting, Mail, Message, Rcpt};

/// The first row that fits decides. An empty list, and a phrase of no words, fit everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyRow {
    stages: &'static [Stage],
    codes: &'static [u16],
    /// `5.1.1`, or `5.1.` for all details of a subject.
    enhanced: &'static [&'static str],
    /// In lower case.
    phrase: &'static str,
    verdict: Verdict,
}

/// Greylisting is over after this on nearly all servers; sooner tries are counted against us.
const GREYLISTED: Duration = Duration::from_secs(5 * 60);
/// The count is of the last 24 hours, so that room comes back bit by bit.
const A_DAY_IS_SENT: Duration = Duration::from_secs(60 * 60);
/// Amazon SES counts by the second.
const TOO_FAST: Duration = Duration::from_secs(1);

/// Every refusal has a verdict: what no row knows is decided by its first digit and its stage.
pub(super) fn verdict(stage: Stage, reply: &Reply) -> Verdict {
    let text = reply.text().to_lowercase();
    let row = REPLIES.iter().find(|row| row.fits(stage, reply, &text));
    row.map_or_else(|| by_digit(stage, reply.code), |row| row.verdict)
}

fn by_digit(stage: Stage, code: u16) -> Verdict {
    match (code / 100, stage) {
        (5, Stage::Auth) => ChannelDown(Auth),
        (5, Greeting | Mail) => ChannelDown(Config),
        (5, Rcpt) => Permanent(Recipient),
        (5, Data | Message) => Permanent(Content),
        (4, _) => Transient,
        // Neither yes nor no.
        (_, Message) => Verdict::Ambiguous,
        (_, _) => Transient,
    }
}

impl ReplyRow {
    fn fits(&self, stage: Stage, reply: &Reply, text: &str) -> bool {
        let enhanced = || {
            let Some(Enhanced(class, subject, detail)) = reply.enhanced else { return false };
            let written = format!("{class}.{subject}.{detail}");
            let fits = |row: &str| written == row || (row.ends_with('.') && written.starts_with(row));
            self.enhanced.iter().any(|row| fits(row))
        };
        (self.stages.is_empty() || self.stages.contains(&stage))
            && (self.codes.is_empty() || self.codes.contains(&reply.code))
            && (self.enhanced.is_empty() || enhanced())
            && text.contains(self.phrase)
    }
}

const fn row(
    stages: &'static [Stage],
    codes: &'static [u16],
    enhanced: &'static [&'static str],
    phrase: &'static str,
    verdict: Verdict,
) -> ReplyRow {
    ReplyRow { stages, codes, enhanced, phrase, verdict }
}

const REPLIES: &[ReplyRow] = &[
    // The server ends the conversation, whatever was asked.
    row(&[], &[421], &[], "", Transient),
    // Who we are.
    row(&[], &[530, 534, 535, 538], &[], "", ChannelDown(Auth)),
    row(&[], &[], &["5.7.8", "5.7.9", "5.7.57"], "", ChannelDown(Auth)),
    // We may not send through this server, or not as this sender: true of every message. Postfix says 454 to it.
    row(&[Mail, Rcpt], &[], &[], "relay access denied", ChannelDown(Config)),
    row(&[Mail, Rcpt], &[], &[], "relaying denied", ChannelDown(Config)),
    row(&[Mail, Rcpt], &[], &[], "unable to relay", ChannelDown(Config)),
    row(&[Mail, Rcpt], &[], &[], "relay not permitted", ChannelDown(Config)),
    row(&[Mail, Rcpt], &[550, 553, 554], &[], "sender address rejected", ChannelDown(Config)),
    row(&[], &[], &["5.1.7", "5.1.8", "5.7.60"], "", ChannelDown(Config)),
    // What this account may send in a day, or relay, is sent: Gmail and Exchange Online say so, also to RCPT.
    row(&[], &[], &["5.4.5", "5.1.90"], "", Throttled(ThrottleScope::Account, A_DAY_IS_SENT)),
    row(
        &[Rcpt, Data, Message],
        &[],
        &["5.7.1"],
        "relay limit exceeded",
        Throttled(ThrottleScope::Account, A_DAY_IS_SENT),
    ),
    // The two of us do not understand each other: true of every message.
    row(&[Mail, Rcpt], &[], &["5.5."], "", ChannelDown(Config)),
    // Not now.
    row(&[Mail, Data, Message], &[454], &[], "", Throttled(ThrottleScope::Account, TOO_FAST)),
    row(&[Mail], &[450, 451], &["4.7.1", "4.2.1"], "", Throttled(ThrottleScope::Account, GREYLISTED)),
    row(&[Rcpt, Data, Message], &[450, 451], &["4.7.1", "4.2.1"], "", Throttled(ThrottleScope::Recipient, GREYLISTED)),
    // Not to this one.
    row(&[Rcpt, Data, Message], &[], &["5.1."], "", Permanent(Recipient)),
    // Over quota: it may be emptied.
    row(&[], &[], &["5.2.2"], "", Transient),
    row(&[], &[], &["5.2.3"], "", Permanent(Content)),
    row(&[Rcpt, Data, Message], &[], &["5.2.", "5.4."], "", Permanent(Recipient)),
    row(&[], &[], &["5.6.7", "5.6.9"], "", Permanent(Recipient)),
    // Not this message.
    row(&[], &[], &["5.3.4", "5.6."], "", Permanent(Content)),
    row(&[Mail, Data, Message], &[552], &[], "", Permanent(Content)),
    row(&[Rcpt], &[552], &[], "", Transient),
    // At MAIL nobody is named yet: what is refused there is refused to all.
    row(&[Mail], &[], &["5.7."], "", ChannelDown(Config)),
    row(&[Rcpt, Data, Message], &[], &["5.7."], "", Permanent(Policy)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::PermanentReason;

    /// Written from the standard and from servers' logs, not from the table.
    #[test]
    fn refusals_are_told_apart() {
        let recipient = Permanent(PermanentReason::Recipient);
        let content = Permanent(PermanentReason::Content);
        let greylisted = Throttled(ThrottleScope::Recipient, GREYLISTED);
        for (stage, reply, expected) in [
            (Greeting, "554 5.7.1 blocked", ChannelDown(Config)),
            (Greeting, "421 4.3.2 shutting down", Transient),
            (Stage::Auth, "535 5.7.8 bad credentials", ChannelDown(Auth)),
            (Stage::Auth, "501 what?", ChannelDown(Auth)),
            (Stage::Auth, "454 4.7.0 temporary failure", Transient),
            (Mail, "530 5.7.0 Must issue STARTTLS first", ChannelDown(Auth)),
            (Mail, "550 no", ChannelDown(Config)),
            (Mail, "552 5.3.4 too big", content),
            (
                Mail,
                "454 Throttling failure: Maximum sending rate exceeded.",
                Throttled(ThrottleScope::Account, TOO_FAST),
            ),
            (Mail, "553 5.1.8 sender domain", ChannelDown(Config)),
            (Mail, "554 5.7.1 Client host rejected: Access denied", ChannelDown(Config)),
            (Rcpt, "503 5.5.1 MAIL first", ChannelDown(Config)),
            (Rcpt, "550 5.4.5 Daily user sending limit exceeded", Throttled(ThrottleScope::Account, A_DAY_IS_SENT)),
            (
                Message,
                "554 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
                Throttled(ThrottleScope::Account, A_DAY_IS_SENT),
            ),
            (Rcpt, "550 5.1.1 no such user", recipient),
            (Rcpt, "550 5.1.10 null MX", recipient),
            (Rcpt, "550-5.1.1 no\n550 5.1.1 such user", recipient),
            (Rcpt, "550 no such user", recipient),
            (Rcpt, "553 what?", recipient),
            (Rcpt, "450 4.7.1 greylisted", greylisted),
            (Rcpt, "451 4.7.1 greylisted", greylisted),
            (Rcpt, "450 4.2.1 too fast for this one", greylisted),
            (Rcpt, "450 mailbox busy", Transient),
            (Rcpt, "452 4.2.2 full", Transient),
            (Rcpt, "452 4.5.3 too many", Transient),
            (Rcpt, "552 5.2.2 over quota", Transient),
            (Rcpt, "552 mailbox full", Transient),
            (Rcpt, "550 5.2.1 disabled", recipient),
            (Rcpt, "554 5.7.1 <a@b.c>: Relay access denied", ChannelDown(Config)),
            (Rcpt, "454 4.7.1 <a@b.c>: Relay access denied", ChannelDown(Config)),
            (Rcpt, "550 relay not permitted", ChannelDown(Config)),
            (Rcpt, "553 5.7.1 <a@b.c>: Sender address rejected: not owned by user", ChannelDown(Config)),
            (Rcpt, "450 4.1.8 <a@b.c>: Sender address rejected: Domain not found", Transient),
            (Rcpt, "550 5.7.1 policy", Permanent(Policy)),
            (Data, "451 4.3.0 queue", Transient),
            (Data, "554 no", content),
            (Message, "552 5.3.4 too big", content),
            (Message, "554 5.6.0 broken", content),
            (Message, "554 no", content),
            (Message, "550 5.7.26 DMARC", Permanent(Policy)),
            (Message, "554 5.7.1 spam", Permanent(Policy)),
            (Message, "451 4.3.0 later", Transient),
            (Message, "451 4.4.1 no answer", Transient),
            (Message, "421 4.3.2 shutting down", Transient),
            (Message, "354 what?", Verdict::Ambiguous),
        ] {
            assert_eq!(verdict(stage, &Reply::of(reply)), expected, "{stage:?} {reply}");
        }
    }

    #[test]
    fn every_row_can_be_reached() {
        for (index, row) in REPLIES.iter().enumerate() {
            let stage = row.stages.first().copied().unwrap_or(Rcpt);
            let enhanced = row.enhanced.first().copied().unwrap_or_default();
            let code = row.codes.first().copied().unwrap_or(if enhanced.starts_with('4') { 450 } else { 550 });
            let detail = if enhanced.ends_with('.') { "99" } else { "" };
            let reply = Reply::of(&format!("{code} {enhanced}{detail} {}", row.phrase));
            let found = REPLIES.iter().position(|row| row.fits(stage, &reply, &reply.text()));
            assert_eq!(found, Some(index), "{row:?}");
            assert_eq!(row.phrase, row.phrase.to_lowercase());
        }
    }

    #[test]
    fn no_reply_is_a_yes_or_ambiguous_before_the_message() {
        for code in 200..600 {
            let reply = Reply::of(&code.to_string());
            for stage in [Greeting, Stage::Auth, Mail, Rcpt, Data] {
                assert_ne!(verdict(stage, &reply), Verdict::Ambiguous, "{stage:?} {code}");
            }
        }
    }
}
