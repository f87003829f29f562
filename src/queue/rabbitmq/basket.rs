//! What has been delivered to one consumer and not yet taken from it.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::queue::Delivery;
use crate::queue::turns::Turns;

/// Three lanes of deliveries, most urgent first. What the broker lets us have in hand bounds them.
#[derive(Debug, Default)]
pub(super) struct Basket {
    // Held to move a few deliveries, never over an await.
    inside: Mutex<Inside>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    lanes: [VecDeque<Delivery>; 3],
    turns: Turns,
    closed: bool,
}

impl Basket {
    pub(super) fn put(&self, lane: usize, deliveries: impl Iterator<Item = Delivery>) {
        let mut inside = self.inside();
        // Into a closed one they are not put: dropping them gives them back.
        if !inside.closed {
            inside.lanes[lane].extend(deliveries);
        }
        drop(inside);
        self.changed.notify_waiters();
    }

    /// Waits for something, then takes up to `max`. `None` once it is closed.
    pub(super) async fn take(&self, max: usize) -> Option<Vec<Delivery>> {
        loop {
            // Listening begins before the look, so that what comes between the look and the wait is not missed.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut inside = self.inside();
                if inside.closed {
                    return None;
                }
                let taken = inside.take(max);
                if !taken.is_empty() || max == 0 {
                    return Some(taken);
                }
            }
            changed.await;
        }
    }

    /// Gives back everything in it.
    pub(super) fn empty(&self) {
        let lanes = std::mem::take(&mut self.inside().lanes);
        drop(lanes);
    }

    /// Gives back everything in it, and takes nothing more.
    pub(super) fn close(&self) {
        self.inside().closed = true;
        self.empty();
        self.changed.notify_waiters();
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn take(&mut self, max: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        while taken.len() < max {
            let Some(lane) = self.turns.next(self.lanes.each_ref().map(|lane| !lane.is_empty())) else { break };
            taken.extend(self.lanes[lane].pop_front());
        }
        taken
    }
}
