//! Figures of one account's sends, for `/metrics`: held, because looking them up by their labels costs more than
//! counting.

use std::time::Duration;

use metrics::{Counter, Histogram};

use crate::domain::{AccountRef, OutcomeClass};

/// `vestnik_send_seconds` and `vestnik_attempts_total`.
pub(super) struct Figures {
    seconds: Histogram,
    attempts: Vec<(OutcomeClass, Counter)>,
}

impl Figures {
    pub(super) fn of(account: &AccountRef) -> Self {
        let account = account.to_string();
        let attempts = OutcomeClass::ALL.iter().map(|class| {
            let labels = [("account", account.clone()), ("outcome", class.as_str().to_owned())];
            (*class, metrics::counter!("vestnik_attempts_total", &labels))
        });
        Figures {
            attempts: attempts.collect(),
            seconds: metrics::histogram!("vestnik_send_seconds", "account" => account.clone()),
        }
    }

    /// One hand-off that is over.
    pub(super) fn count(&self, class: OutcomeClass, took: Duration) {
        self.seconds.record(took.as_secs_f64());
        if let Some((_, counter)) = self.attempts.iter().find(|(of, _)| *of == class) {
            counter.increment(1);
        }
    }
}
