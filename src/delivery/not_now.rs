//! Direct sends that are not tried: their account is down, or its limit leaves no room in time. They end at once, with
//! nothing sent, and say when trying again may help.

use std::time::Duration;

use super::accept::Prepared;
use crate::domain::{Outcome, OutcomeClass, ProviderError, Status, ThrottleScope};
use crate::limits::{Busy, WaitReason};
use crate::store::Begin;

impl Prepared {
    /// The account's limit leaves no room in time.
    pub(super) fn end_as_busy(&mut self, busy: &Busy) {
        let error = busy_outcome(busy).error().cloned().unwrap_or_default();
        self.end("throttled", error);
    }

    /// The account cannot send, and is tried again after `wait`.
    pub(super) fn end_as_down(&mut self, wait: Duration) {
        let (reason, code) = self.account.circuit.down().map(|down| (down.reason, down.code)).unwrap_or_default();
        let seconds = wait.as_secs_f64().ceil();
        let detail = format!("the account cannot send ({reason}): tried again in about {seconds} s; nothing was sent");
        self.end(OutcomeClass::ChannelDown.as_str(), ProviderError::new(code, detail));
    }

    fn end(&mut self, cause: &'static str, error: ProviderError) {
        self.message = None;
        self.new.begin = Begin::Ended { status: Status::Failed, cause, error };
    }
}

pub(super) fn busy_outcome(busy: &Busy) -> Outcome {
    let (scope, what) = match busy.reason {
        WaitReason::Rate => (ThrottleScope::Account, "the account's rate is used up"),
        WaitReason::Day => (ThrottleScope::Account, "the account's daily limit is used up"),
        WaitReason::AccountPaused => (ThrottleScope::Account, "the provider throttled this account"),
        WaitReason::RecipientPaused => (ThrottleScope::Recipient, "the provider throttled messages to this recipient"),
    };
    let detail = format!("{what}: room again in about {} s; nothing was sent", busy.retry_after.as_secs_f64().ceil());
    Outcome::Throttled { scope, after: busy.retry_after, error: ProviderError::new("local_limit", detail) }
}
