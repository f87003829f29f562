//! 5. One hand-off to the provider, within its deadline and this process's lease.

use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;

use super::{Delivery, SendingAccount};
use crate::domain::message::OutgoingMessage;
use crate::domain::{Epoch, Outcome, OutcomeClass, ProviderError};
use crate::limits::RecipientKey;

impl Delivery {
    /// Hands `message` off and tells the account's budget how it went. Ends by `deadline`.
    pub(super) async fn hand_off(
        &self,
        account: &SendingAccount,
        epoch: Epoch,
        message: &OutgoingMessage,
        deadline: Instant,
    ) -> Outcome {
        let recipient = RecipientKey::of(&message.recipient);
        if !self.lease.allows(epoch) {
            return not_sent("lease", "this process may have lost its lease on the ledger: nothing was sent");
        }
        // Never longer than a process that settles a lost one's attempts waits for them.
        let begun = Instant::now();
        let time_limit = deadline.saturating_duration_since(begun).min(self.options.send_deadline);
        if time_limit.is_zero() {
            return not_sent("deadline", "the deadline had passed before anything was sent");
        }
        // A provider that panics must not take the record of the attempt with it.
        let sending = std::panic::AssertUnwindSafe(account.provider.send(message, time_limit)).catch_unwind();
        let outcome = sending.await.unwrap_or_else(|_| Outcome::Ambiguous {
            error: ProviderError::new(
                "panic",
                "the adapter panicked: it is a bug, and unknown whether the message left",
            ),
        });
        match &outcome {
            Outcome::Accepted { .. } => {
                account.budget.succeeded(recipient, Instant::now());
                account.sent.count(Instant::now());
                self.account_works(account);
            }
            Outcome::Throttled { scope, after, .. } => {
                let pause = account.budget.throttled(*scope, recipient, *after, Instant::now());
                tracing::warn!(
                    account = %account.name(),
                    scope = %pause.scope,
                    pause_ms = millis(pause.until.saturating_duration_since(Instant::now())),
                    "throttled by the provider"
                );
            }
            Outcome::ChannelDown { reason, error } => {
                tracing::error!(account = %account.name(), %reason, code = error.code, "the account cannot send");
                if account.circuit.refused(reason.as_str(), &error.code, self.clock.now(), Instant::now()) {
                    self.news.notify_one();
                }
            }
            Outcome::Transient { handed_off: false, error } | Outcome::Ambiguous { error } if is_silent(error) => {
                let now = Instant::now();
                if account.circuit.unreachable(&error.code, self.clock.now(), now) {
                    tracing::error!(account = %account.name(), code = error.code, "the provider does not answer");
                    self.news.notify_one();
                }
            }
            // It answers, whatever it says of this one.
            Outcome::Permanent { .. } => self.account_works(account),
            Outcome::Transient { .. } | Outcome::Ambiguous { .. } => {}
        }
        account.figures.count(outcome.class(), begun.elapsed());
        log_attempt(account, message, &outcome);
        outcome
    }

    fn account_works(&self, account: &SendingAccount) {
        if account.circuit.worked() {
            tracing::info!(account = %account.name(), "the account sends again");
            self.news.notify_one();
            self.wake.notify_one();
        }
    }
}

/// Nobody answered, so that the next message would not be answered either.
fn is_silent(error: &ProviderError) -> bool {
    matches!(error.code.as_str(), "connect" | "connect_timeout" | "dns" | "tls" | "timeout")
}

fn log_attempt(account: &SendingAccount, message: &OutgoingMessage, outcome: &Outcome) {
    let code = outcome.error().map(|error| error.code.as_str());
    match outcome.class() {
        // The ledger says so of each; a line for each would drown the others in a campaign.
        OutcomeClass::Accepted => tracing::debug!(
            notification.id = %message.id, account = %account.name(), outcome = %outcome.class(), "attempt ended"
        ),
        _ => tracing::warn!(
            notification.id = %message.id, account = %account.name(), outcome = %outcome.class(),
            cause = outcome.cause(), code, "attempt ended"
        ),
    }
}

/// An outcome of ours: it provably did not leave.
pub(super) fn not_sent(code: &str, detail: &str) -> Outcome {
    Outcome::Transient { handed_off: false, error: ProviderError::new(code, detail) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
