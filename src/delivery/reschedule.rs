//! When what waits is to leave: times as they are given, and moving and ending what has not begun.
//!
//! A move is one change of the ledger: whoever looks sees all of a batch at its old time or all of it at its new one,
//! whatever is killed meanwhile.

use std::time::Duration;

use jiff::Timestamp;

use super::{Delivery, DirectError, Refusal};
use crate::domain::clock::{earlier, later};
use crate::domain::{AccountRef, BatchId, Channel, GivenTime, GivenTimeError, NotificationId, Status};
use crate::store::{FoundBatch, ListFilter, Settle, StoreError};

/// A time that lies further back was mistyped; less is a client whose clock is slow, and means now.
const SLOW_CLOCK: Duration = Duration::from_secs(5 * 60);

impl Delivery {
    /// The moment that a time without a zone means to an account: `None` names the channel's default. Nothing is wrong
    /// with a time while the account is not known: that is said elsewhere.
    pub fn moment(
        &self,
        given: &GivenTime,
        channel: Channel,
        account: Option<&str>,
    ) -> Result<Option<Timestamp>, GivenTimeError> {
        if let GivenTime::Moment(moment) = given {
            return Ok(Some(*moment));
        }
        let Ok(account) = self.account(channel, account) else { return Ok(None) };
        self.moment_of(given, account.name()).map(Some)
    }

    /// The same, to an account that is known.
    pub fn moment_of(&self, given: &GivenTime, account: &AccountRef) -> Result<Timestamp, GivenTimeError> {
        given.moment(self.options.time_zones.get(account), account)
    }

    /// What is wrong with the times of a request.
    pub(super) fn check_times(
        &self,
        scheduled_at: Option<Timestamp>,
        not_after: Option<Timestamp>,
    ) -> Result<(), DirectError> {
        let Some(at) = scheduled_at else { return Ok(()) };
        let now = self.clock.now();
        let mut wrong = Vec::new();
        if at < earlier(now, SLOW_CLOCK) {
            let detail =
                format!("{at} has passed already: give a time to come, like {}, or none for now", example(now));
            wrong.push(Refusal::new("/scheduledAt", "past", detail));
        }
        if let Some(limit) = not_after.filter(|limit| *limit <= at) {
            let detail = format!("{limit} is not later than scheduledAt, {at}: it would expire and not be sent");
            wrong.push(Refusal::new("/notAfter", "too_early", detail));
        }
        if wrong.is_empty() { Ok(()) } else { Err(DirectError::Refused(wrong)) }
    }

    /// Moves one that has not begun to another time. `false` if it has begun, is over, or is not there.
    pub async fn reschedule(&self, id: NotificationId, at: Timestamp) -> Result<bool, DirectError> {
        let Some(found) = self.store.notifications(vec![id]).await?.pop() else { return Ok(false) };
        if !found.status.in_flight() || found.status == Status::Sending {
            return Ok(false);
        }
        self.check_move(at, found.not_after)?;
        let moved = self.store.reschedule(id, at).await?;
        self.tell_of_due();
        Ok(moved)
    }

    /// Moves a batch whose time has not come to another time. `false` if it has come, or it was cancelled.
    pub async fn reschedule_batch(&self, batch: &FoundBatch, at: Timestamp) -> Result<bool, DirectError> {
        if batch.scheduled_at.is_none_or(|at| at <= self.clock.now()) {
            return Ok(false);
        }
        self.check_move(at, self.not_after_of(batch.id).await?)?;
        let moved = self.store.reschedule_batch(batch.id, at).await?;
        self.tell_of_due();
        Ok(moved)
    }

    /// A move names one time: what is wrong is wrong with that.
    fn check_move(&self, at: Timestamp, not_after: Option<Timestamp>) -> Result<(), DirectError> {
        self.check_times(Some(at), None)?;
        match not_after.filter(|limit| *limit <= at) {
            Some(limit) => {
                let detail = format!("it may not leave after {limit}: at {at} it would expire and not be sent");
                Err(DirectError::Refused(vec![Refusal::new("/scheduledAt", "too_late", detail)]))
            }
            None => Ok(()),
        }
    }

    /// All of a batch share it.
    async fn not_after_of(&self, batch: BatchId) -> Result<Option<Timestamp>, StoreError> {
        let one = self.store.list(ListFilter { batch: Some(batch), ..ListFilter::default() }, 1).await?;
        Ok(one.items.first().and_then(|member| member.not_after))
    }

    /// Ends one that has not begun. `false` if it has begun, is over, or is not there.
    pub async fn cancel(&self, id: NotificationId, by: String) -> Result<bool, StoreError> {
        let Some(found) = self.store.notifications(vec![id]).await?.pop() else { return Ok(false) };
        let settle = Settle {
            epoch: self.lease.epoch(),
            id,
            batch: found.batch,
            chunk: None,
            status: Status::Cancelled,
            at: self.clock.now(),
            actor: by,
            reason: "cancelled".into(),
        };
        Ok(self.store.settle(vec![settle]).await? == [true])
    }
}

/// Tomorrow, in whole seconds.
fn example(now: Timestamp) -> Timestamp {
    let tomorrow = later(now, Duration::from_secs(24 * 3600));
    Timestamp::from_second(tomorrow.as_second()).unwrap_or(tomorrow)
}
