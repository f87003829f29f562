//! From an answer to an outcome: the rules that hold for every provider spoken to over HTTP.
//!
//! The order of trust: the provider's own code by its table (data, in the `…_codes` modules), then the HTTP status,
//! never the message's text (Telegram, which has no codes, excepted). What nobody can read, or a proxy may have said,
//! is ambiguous: the send may have happened.

use std::str::FromStr;
use std::time::Duration;

use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, StatusCode};

use super::http_client::{HttpAnswer, HttpError};
use crate::domain::{DownReason, Outcome, PermanentReason, ProviderError, ThrottleScope};

/// No provider's demand to wait is followed further than this; what lasts longer is asked again.
pub const LONGEST_THROTTLE: Duration = Duration::from_secs(24 * 60 * 60);
/// A demand of zero seconds still means "slower".
pub const SHORTEST_THROTTLE: Duration = Duration::from_secs(1);
/// How long to rest after a 429 that neither names a time nor has a row in a table.
const UNSTATED_THROTTLE: Duration = Duration::from_secs(5);

/// A row of a provider's table: an [`Outcome`] without what the answer at hand adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Permanent(PermanentReason),
    /// The provider answered, so the request had left.
    Transient,
    /// Rests for the time that the answer states, else for this first step. Steps grow with consecutive throttles;
    /// that is the budget's business (`limits`), which sees them all.
    Throttled(ThrottleScope, Duration),
    ChannelDown(DownReason),
    Ambiguous,
}

impl Verdict {
    /// `stated` is the wait that the answer asked for.
    pub fn into_outcome(self, stated: Option<Duration>, error: ProviderError) -> Outcome {
        match self {
            Verdict::Permanent(reason) => Outcome::Permanent { reason, error },
            Verdict::Transient => Outcome::Transient { handed_off: true, error },
            Verdict::Throttled(scope, first_step) => {
                let after = stated.unwrap_or(first_step).clamp(SHORTEST_THROTTLE, LONGEST_THROTTLE);
                Outcome::Throttled { scope, after, error }
            }
            Verdict::ChannelDown(reason) => Outcome::ChannelDown { reason, error },
            Verdict::Ambiguous => Outcome::Ambiguous { error },
        }
    }
}

/// The words of settings and tests: `permanent recipient`, `throttled sender 60`, `channel_down auth`, `transient`,
/// `ambiguous`.
impl FromStr for Verdict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["permanent", reason] => reason.parse().map(Verdict::Permanent),
            ["transient"] => Ok(Verdict::Transient),
            ["throttled", scope, seconds] => {
                let seconds =
                    seconds.parse().map_err(|_| "expected seconds, as in `throttled account 60`".to_owned())?;
                Ok(Verdict::Throttled(scope.parse()?, Duration::from_secs(seconds)))
            }
            ["channel_down", reason] => reason.parse().map(Verdict::ChannelDown),
            ["ambiguous"] => Ok(Verdict::Ambiguous),
            _ => Err("expected permanent REASON, transient, throttled SCOPE SECONDS, channel_down REASON or ambiguous"
                .to_owned()),
        }
    }
}

/// What was read of an answer that is no yes.
#[derive(Default)]
pub(super) struct Refusal {
    /// The provider's own code.
    pub(super) code: Option<String>,
    /// What its table says of that code.
    pub(super) verdict: Option<Verdict>,
    /// Whether the body is the provider's own, with a code or without.
    pub(super) from_provider: bool,
    /// The wait that it asks for in its own way; else `Retry-After` says.
    pub(super) stated: Option<Duration>,
}

impl Refusal {
    pub(super) fn into_outcome(self, answer: &HttpAnswer) -> Outcome {
        let verdict = self.verdict.unwrap_or_else(|| by_status(answer.status, self.from_provider));
        let code = self.code.unwrap_or_else(|| answer.status.as_str().to_owned());
        let stated = self.stated.or_else(|| retry_after(&answer.headers));
        verdict.into_outcome(stated, ProviderError::new(code, detail(&answer.body)))
    }
}

/// What an answer means whose code is in no table. `from_provider` says whether its body is the provider's own JSON.
pub fn by_status(status: StatusCode, from_provider: bool) -> Verdict {
    use Verdict::{Ambiguous, ChannelDown, Permanent, Throttled, Transient};
    match status.as_u16() {
        // Yes, but in words that we cannot read.
        200..=299 => Ambiguous,
        // No provider redirects a send: the base URL is wrong, or something stands between. By RFC 9110 these three
        // say that the request was not performed here, so waiting for a person loses and doubles nothing. Of the
        // others (302, 303) servers commonly mean "done, now look there".
        301 | 307 | 308 => ChannelDown(DownReason::Config),
        300..=399 => Ambiguous,
        401 => ChannelDown(DownReason::Auth),
        // Not read to its end, or refused for coming too early: it was not performed.
        408 | 425 => Transient,
        429 => Throttled(ThrottleScope::Account, UNSTATED_THROTTLE),
        // The request itself is refused, whoever says so.
        400 | 413 | 414 | 422 | 431 => Permanent(PermanentReason::Content),
        // Something that is not the provider refuses us (a wrong base URL, a firewall): no message would pass.
        400..=499 if !from_provider => ChannelDown(DownReason::Config),
        400..=499 => Permanent(PermanentReason::Content),
        // A gateway lost sight of the request; whoever speaks.
        502 | 504 => Ambiguous,
        500..=599 if from_provider => Transient,
        _ => Ambiguous,
    }
}

/// No answer came: only what provably never left may be sent again without asking.
pub fn without_answer(error: &HttpError) -> Outcome {
    let provider_error = ProviderError::new(error.kind.code(), error.chain());
    if error.kind.nothing_left() {
        Outcome::Transient { handed_off: false, error: provider_error }
    } else {
        Outcome::Ambiguous { error: provider_error }
    }
}

/// `Retry-After` in seconds. Its other form, a date, is used by none of the providers and needs a clock.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// An answer's body as an attempt keeps it.
pub fn detail(body: &[u8]) -> String {
    // Cut before it is turned into text: a junk body can be 64 KiB.
    let cut = &body[..body.len().min(ProviderError::DETAIL_LIMIT_BYTES)];
    String::from_utf8_lossy(cut).into_owned()
}

/// A word of the provider's that the ledger is to keep: bounded, and without control characters, which neither a
/// terminal nor PostgreSQL (NUL) takes well. `None` when that leaves nothing.
pub fn word(text: &str, limit_bytes: usize) -> Option<&str> {
    (!text.is_empty() && text.len() <= limit_bytes && !text.contains(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::http_client::HttpErrorKind;
    use hyper::header::HeaderValue;

    #[test]
    fn no_status_is_ever_accepted_or_panics() {
        for status in 100..1000 {
            let status = StatusCode::from_u16(status).expect("three digits");
            for from_provider in [true, false] {
                let verdict = by_status(status, from_provider);
                // Every class that allows another try needs a statement that this one was not performed.
                if matches!(verdict, Verdict::Transient) && status.is_server_error() {
                    assert!(from_provider, "{status}");
                }
                if status.is_success() || matches!(status.as_u16(), 302 | 303 | 502 | 504) {
                    assert_eq!(verdict, Verdict::Ambiguous, "{status}");
                }
            }
        }
    }

    #[test]
    fn verdicts_are_read_from_words() {
        for (text, expected) in [
            ("permanent opted_out", Verdict::Permanent(PermanentReason::OptedOut)),
            (" transient ", Verdict::Transient),
            ("throttled sender 60", Verdict::Throttled(ThrottleScope::Sender, Duration::from_secs(60))),
            ("channel_down billing", Verdict::ChannelDown(DownReason::Billing)),
            ("ambiguous", Verdict::Ambiguous),
        ] {
            assert_eq!(text.parse(), Ok(expected));
        }
        for bad in ["", "accepted", "permanent", "permanent forever", "throttled account", "throttled account soon"] {
            assert!(bad.parse::<Verdict>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stated_wait_wins_within_bounds() {
        let rest = |stated: Option<u64>| {
            let verdict = Verdict::Throttled(ThrottleScope::Sender, Duration::from_secs(4));
            match verdict.into_outcome(stated.map(Duration::from_secs), ProviderError::default()) {
                Outcome::Throttled { after, .. } => after.as_secs(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([rest(None), rest(Some(0)), rest(Some(9)), rest(Some(u64::MAX))], [4, 1, 9, 86_400]);
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let read =
            |text: &'static str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]));
        assert_eq!(read(" 7 "), Some(Duration::from_secs(7)));
        for junk in ["", "-1", "soon", "Fri, 31 Dec 1999 23:59:59 GMT", "99999999999999999999999"] {
            assert_eq!(read(junk), None, "{junk}");
        }
    }

    #[test]
    fn only_what_provably_never_left_is_transient() {
        for kind in [HttpErrorKind::Connect, HttpErrorKind::ConnectTimeout, HttpErrorKind::StaleConnection] {
            assert!(matches!(without_answer(&kind.into()), Outcome::Transient { handed_off: false, .. }));
        }
        for kind in [
            HttpErrorKind::Timeout,
            HttpErrorKind::ConnectionLost,
            HttpErrorKind::InvalidAnswer,
            HttpErrorKind::AnswerTooLarge,
        ] {
            assert!(matches!(without_answer(&kind.into()), Outcome::Ambiguous { .. }));
        }
    }
}
