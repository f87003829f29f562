//! What happened at one send.
//!
//! An adapter turns every attempt into exactly one [`Outcome`]; `delivery` decides from it what happens next, and the
//! ledger keeps it as an [`Attempt`].

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AccountId, Epoch, TemplateVersion};

/// How one send ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took responsibility. Not yet delivered.
    Accepted {
        provider_message_id: String,
        /// What the provider said beside yes, e.g. `held_for_quality_assessment`.
        note: Option<String>,
    },
    /// This message will never be taken; repeating it is pointless.
    Permanent { reason: PermanentReason, error: ProviderError },
    /// The same request may succeed later.
    Transient {
        /// Whether any byte of the request left us. Only `false` may be repeated within a direct send.
        handed_off: bool,
        error: ProviderError,
    },
    /// Too much for `scope`: it rests for `after`, and the attempt costs no retry.
    Throttled { scope: ThrottleScope, after: Duration, error: ProviderError },
    /// Nothing of this account will be taken until a person acts (credentials, billing, configuration).
    ChannelDown { reason: DownReason, error: ProviderError },
    /// The request may have arrived; no answer was read that says.
    Ambiguous { error: ProviderError },
}

impl Outcome {
    pub fn class(&self) -> OutcomeClass {
        match self {
            Outcome::Accepted { .. } => OutcomeClass::Accepted,
            Outcome::Permanent { .. } => OutcomeClass::Permanent,
            Outcome::Transient { .. } => OutcomeClass::Transient,
            Outcome::Throttled { .. } => OutcomeClass::Throttled,
            Outcome::ChannelDown { .. } => OutcomeClass::ChannelDown,
            Outcome::Ambiguous { .. } => OutcomeClass::Ambiguous,
        }
    }

    pub fn error(&self) -> Option<&ProviderError> {
        match self {
            Outcome::Accepted { .. } => None,
            Outcome::Permanent { error, .. }
            | Outcome::Transient { error, .. }
            | Outcome::Throttled { error, .. }
            | Outcome::ChannelDown { error, .. }
            | Outcome::Ambiguous { error } => Some(error),
        }
    }

    /// The word for the cause that lists are grouped by: a reason, a scope, or the class itself.
    pub fn cause(&self) -> &'static str {
        match self {
            Outcome::Permanent { reason, .. } => reason.as_str(),
            Outcome::Throttled { .. } => "throttled",
            Outcome::ChannelDown { reason, .. } => reason.as_str(),
            Outcome::Accepted { .. } | Outcome::Transient { .. } | Outcome::Ambiguous { .. } => self.class().as_str(),
        }
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal $word:tt,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The word used on the wire and in lists.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }

            /// The number the ledger keeps. Never renumber: rows on disk carry it.
            pub const fn code(self) -> i16 {
                match self { $($name::$variant => $code,)* }
            }

            pub fn from_code(code: i16) -> Option<$name> {
                match code { $($code => Some($name::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                $name::ALL.iter().copied().find(|word| word.as_str() == text).ok_or_else(|| {
                    let known: Vec<_> = $name::ALL.iter().map(|word| word.as_str()).collect();
                    format!("expected one of {}", known.join(", "))
                })
            }
        }
    };
}
pub(crate) use words;

words! {
    /// The kind of an [`Outcome`], without its details.
    OutcomeClass {
        Accepted = 1 "accepted",
        Permanent = 2 "permanent",
        Transient = 3 "transient",
        Throttled = 4 "throttled",
        ChannelDown = 5 "channel_down",
        Ambiguous = 6 "ambiguous",
        /// The process that had opened the attempt is gone: nobody knows whether the request left.
        Lost = 7 "lost",
    }
}

words! {
    /// Why a message will never be taken.
    PermanentReason {
        Recipient = 1 "recipient",
        OptedOut = 2 "opted_out",
        Content = 3 "content",
        Template = 4 "template",
        Policy = 5 "policy",
    }
}

words! {
    /// What has to rest after a throttled answer.
    ThrottleScope {
        Recipient = 1 "recipient",
        Sender = 2 "sender",
        Account = 3 "account",
    }
}

words! {
    /// What a person has to mend before the account sends again.
    DownReason {
        Auth = 1 "auth",
        Billing = 2 "billing",
        Config = 3 "config",
        Suspended = 4 "suspended",
    }
}

/// What the provider, or the way to it, said went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderError {
    /// The provider's own code (`131026`, `403`), or ours for what never reached it (`connect`, `timeout`).
    pub code: String,
    /// Its text or raw body, at most [`ProviderError::DETAIL_LIMIT_BYTES`]. May hold personal data: kept in the
    /// ledger, never logged.
    pub detail: String,
}

impl ProviderError {
    /// Enough for every provider's error body seen; the rest is cut.
    pub const DETAIL_LIMIT_BYTES: usize = 1024;

    pub fn new(code: impl Into<String>, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > Self::DETAIL_LIMIT_BYTES {
            detail.truncate(detail.floor_char_boundary(Self::DETAIL_LIMIT_BYTES));
        }
        // A NUL cannot be stored in PostgreSQL's text.
        detail.retain(|c| c != '\0');
        let mut code = code.into();
        code.retain(|c| !c.is_control());
        code.truncate(code.floor_char_boundary(64));
        ProviderError { code, detail }
    }
}

/// One send as the ledger remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Counted from 1 within its notification.
    pub n: i16,
    pub account: AccountId,
    pub epoch: Epoch,
    pub class: OutcomeClass,
    /// [`Outcome::cause`].
    pub cause: String,
    pub provider_message_id: Option<String>,
    pub error: Option<ProviderError>,
    pub opened_at: Timestamp,
    pub closed_at: Timestamp,
    pub template_version: Option<TemplateVersion>,
    /// SHA-256 of the sent text, to tell later whether a new rendering is exactly what went out.
    pub text_hash: Option<[u8; 32]>,
    /// One of two attempts of which both may have reached the person (at-least-once after an uncertain one).
    pub flagged: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_detail_is_cut_at_a_character() {
        let error = ProviderError::new("1", "я".repeat(2000));
        assert_eq!(error.detail.len(), ProviderError::DETAIL_LIMIT_BYTES);
    }

    #[test]
    fn codes_and_words_round_trip() {
        for class in OutcomeClass::ALL {
            assert_eq!(OutcomeClass::from_code(class.code()), Some(*class));
            assert_eq!(class.as_str().parse(), Ok(*class));
        }
    }
}
