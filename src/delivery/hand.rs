//! What workers have in hand and have not begun: tasks of one account, and the batches of which nothing may begin.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::domain::{BatchId, Priority};
use crate::queue::{Delivery, Turns};
use crate::store::HeldBatch;

/// Tasks of one account that wait for its budget or for a free place. Bounded by what is handed over.
#[derive(Debug, Default)]
pub(super) struct Hand {
    // Held to move a few tasks, never over an await.
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Most urgent first.
    lanes: [VecDeque<Delivery>; 3],
    turns: Turns,
}

impl Hand {
    pub(super) fn put(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        let mut waiting = self.waiting();
        for delivery in deliveries {
            let lane = match delivery.task.lane.priority {
                Priority::High => 0,
                Priority::Normal => 1,
                Priority::Low => 2,
            };
            waiting.lanes[lane].push_back(delivery);
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// Up to `max`, the urgent first; a tenth goes to each less urgent lane in which something waits.
    pub(super) fn take(&self, max: usize) -> Vec<Delivery> {
        let mut waiting = self.waiting();
        let mut taken = Vec::new();
        while taken.len() < max {
            let Waiting { lanes, turns } = &mut *waiting;
            let Some(lane) = turns.next(lanes.each_ref().map(|lane| !lane.is_empty())) else { break };
            taken.extend(lanes[lane].pop_front());
        }
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.waiting().lanes.iter().map(VecDeque::len).sum()
    }

    /// How many there are of each priority, most urgent first.
    pub(super) fn lens(&self) -> [usize; 3] {
        self.waiting().lanes.each_ref().map(VecDeque::len)
    }

    /// Waits until there is something in it. For one taker.
    pub(super) async fn filled(&self) {
        while self.len() == 0 {
            self.changed.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Batches that are paused or cancelled, as the ledger was last seen.
#[derive(Debug, Default)]
pub(super) struct Held(ArcSwap<HashMap<BatchId, bool>>);

/// What holds a batch up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holding {
    Paused,
    Cancelled,
}

impl Held {
    pub(super) fn set(&self, held: &[HeldBatch]) {
        if held.is_empty() && self.0.load().is_empty() {
            return;
        }
        self.0.store(std::sync::Arc::new(held.iter().map(|one| (one.batch, one.is_cancelled)).collect()));
    }

    pub(super) fn of(&self, batch: Option<BatchId>) -> Option<Holding> {
        let is_cancelled = *self.0.load().get(&batch?)?;
        Some(if is_cancelled { Holding::Cancelled } else { Holding::Paused })
    }
}
