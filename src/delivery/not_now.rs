//! Direct sends that are not tried: their account is down, or its limit leaves no room in time. They end at once, with
//! nothing sent, and say when trying again may help; or they go on through the queue, where their caller wants that.

use std::time::Duration;

use jiff::Timestamp;

use super::accept::Prepared;
use super::record::due_when_down;
use crate::domain::clock::later;
use crate::domain::{HoldReason, OnFailure, Outcome, OutcomeClass, ProviderError, Status, ThrottleScope};
use crate::limits::{Busy, WaitReason};
use crate::store::Begin;

/// Why one is not tried.
pub(super) enum NotNow {
    /// The account cannot send, and is tried again after this.
    Down(Duration),
    /// The account's limit leaves no room in time.
    Busy(Busy),
}

impl Prepared {
    /// It is not tried at `now`. Returns after which time its caller may try again, where that is up to them.
    pub(super) fn not_now(&mut self, why: &NotNow, on_failure: OnFailure, now: Timestamp) -> Option<Duration> {
        match (on_failure, why) {
            (OnFailure::Queue, NotNow::Down(_)) => self.hold(due_when_down(now), HoldReason::ChannelDown),
            (OnFailure::Queue, NotNow::Busy(busy)) => self.hold(later(now, busy.retry_after), HoldReason::RateLimit),
            (OnFailure::Fail, NotNow::Down(wait)) => {
                self.end(OutcomeClass::ChannelDown.as_str(), self.down_error(*wait));
                return Some(*wait);
            }
            (OnFailure::Fail, NotNow::Busy(busy)) => {
                self.end("throttled", busy_outcome(busy).error().cloned().unwrap_or_default());
                return Some(busy.retry_after);
            }
        }
        None
    }

    /// It is not tried in this call: it waits in the ledger, and goes through the queue.
    pub(super) fn hold(&mut self, until: Timestamp, hold: HoldReason) {
        self.message = None;
        self.new.begin = Begin::OnHold { until, hold };
    }

    fn end(&mut self, cause: &'static str, error: ProviderError) {
        self.message = None;
        self.new.begin = Begin::Ended { status: Status::Failed, cause, error };
    }

    fn down_error(&self, wait: Duration) -> ProviderError {
        let (reason, code) = self.account.circuit.down().map(|down| (down.reason, down.code)).unwrap_or_default();
        let seconds = wait.as_secs_f64().ceil();
        let detail = format!("the account cannot send ({reason}): tried again in about {seconds} s; nothing was sent");
        ProviderError::new(code, detail)
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
