//! Direct sends that the ledger did not confirm in time: this process sends none of them, and what turns out to be in the
//! ledger ends. What was to wait for the queue is left to it, as with a queued call: the same key finds it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Delivery;
use super::accept::Prepared;
use super::direct::claim_of;
use super::record::OpenAttempt;
use super::send::not_sent;
use crate::domain::Epoch;
use crate::store::{Begin, NewNotification, Next, Urgency};

impl Delivery {
    /// Nobody knows whether the ledger took these; none is sent directly.
    pub(super) fn disown(self: &Arc<Self>, prepared: &[Prepared], epoch: Epoch) {
        let unsent = |new: &&NewNotification| matches!(new.begin, Begin::Open | Begin::Held);
        prepared.iter().map(|one| &one.new).filter(unsent).for_each(|new| self.disown_one(new, epoch));
    }

    /// What turns out to be in the ledger is closed as not sent, or it would stay open as long as this process lives.
    pub(super) fn disown_one(self: &Arc<Self>, new: &NewNotification, epoch: Epoch) {
        /// Longer than PostgreSQL lets a transaction lie idle: what is not there by then never will be.
        const APPEARS_WITHIN: Duration = Duration::from_secs(30);
        const LOOK_EVERY: Duration = Duration::from_secs(1);
        let (this, new) = (Arc::clone(self), new.clone());
        self.sends.spawn(async move {
            let open = OpenAttempt { n: 1, opened_at: new.created_at, retry_count: 0, resends: 0 };
            let outcome = not_sent("ledger", "the ledger did not confirm in time that it was accepted");
            let close = this.close(&new, &open, &outcome, None, Next::Failed);
            let until = Instant::now() + APPEARS_WITHIN;
            while Instant::now() < until && !this.stopping.is_cancelled() {
                // One that was only held is opened first: what is closed has to be open.
                if matches!(new.begin, Begin::Held) && this.store.open(claim_of(&new, epoch)).await.is_err() {
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                match this.record(epoch, close.clone(), Urgency::Urgent).await {
                    Ok(false) => tokio::time::sleep(LOOK_EVERY).await,
                    Ok(true) => return,
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(notification.id = %new.id, error, "an unconfirmed send is not settled");
                        return;
                    }
                }
            }
        });
    }
}
