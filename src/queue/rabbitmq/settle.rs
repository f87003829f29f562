//! Settling deliveries: one acknowledgement for many where they are in a row.
//!
//! Workers settle out of order. Everything up to the first unsettled delivery of a channel is acknowledged at once;
//! what is beyond, one by one, so that a slow task holds nobody's place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::{Acker, Channel};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::connection::{CALL_LIMIT, Live, within};
use crate::queue::QueueError;

const DOING: &str = "acknowledging";
/// Settled in one go.
const MOST: usize = 1000;
/// A quorum queue works on acknowledgements after the channel has passed them on, and forgets those of a channel that is
/// closed meanwhile (seen with 3.10.8): what was acknowledged came again.
const LINGER: Duration = Duration::from_millis(500);

/// One unsettled delivery. Dropped, it goes back to its queue.
pub(super) struct Hold {
    settler: UnboundedSender<Settled>,
    /// Which of the settler's channels it came on.
    lane: usize,
    tag: u64,
    acker: Option<Acker>,
}

impl Hold {
    pub(super) fn new(settler: UnboundedSender<Settled>, lane: usize, acker: Acker, tag: u64) -> Self {
        Hold { settler, lane, tag, acker: Some(acker) }
    }

    /// The ledger knows what comes of it.
    pub(super) fn done(mut self) {
        self.settle(true);
    }

    fn settle(&mut self, done: bool) {
        if let Some(acker) = self.acker.take() {
            // Without a settler the channel is gone, and the broker has taken back what was on it.
            let _ = self.settler.send(Settled { lane: self.lane, tag: self.tag, acker, done });
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.settle(false);
    }
}

/// One task's share in the delivery that brought it: when all are done, it is acknowledged; when all are gone and one
/// was dropped, it goes back to its queue.
pub struct Share(Arc<Whole>);

struct Whole {
    hold: Option<Hold>,
    /// Shares that are not done.
    open: AtomicUsize,
}

impl Share {
    /// So many shares of one delivery.
    pub(super) fn of(hold: Hold, count: usize) -> impl Iterator<Item = Share> {
        let whole = Arc::new(Whole { hold: Some(hold), open: AtomicUsize::new(count) });
        std::iter::repeat_n(whole, count).map(Share)
    }

    /// The ledger knows what comes of this task.
    pub(super) fn done(self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        let is_done = *self.open.get_mut() == 0;
        if let Some(hold) = self.hold.take_if(|_| is_done) {
            hold.done();
        }
    }
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Share").finish_non_exhaustive()
    }
}

/// A delivery that is done with, or given back.
pub(super) struct Settled {
    lane: usize,
    tag: u64,
    acker: Acker,
    done: bool,
}

/// Settles what came on three channels, and keeps them open until nothing of theirs is in hand.
pub(super) struct Settler {
    live: Arc<Live>,
    channels: [Channel; 3],
    rows: [Row; 3],
    settled: UnboundedReceiver<Settled>,
}

impl Settler {
    pub(super) fn new(live: Arc<Live>, channels: [Channel; 3]) -> (UnboundedSender<Settled>, Settler) {
        let (sender, settled) = unbounded_channel();
        (sender, Settler { live, channels, rows: <[Row; 3]>::default(), settled })
    }

    /// Ends when every hold is settled and the feeder is gone, or with the connection.
    pub(super) async fn run(mut self) {
        let mut settled = Vec::new();
        loop {
            let count = tokio::select! {
                biased;
                count = self.settled.recv_many(&mut settled, MOST) => count,
                () = self.live.over() => return,
            };
            if count == 0 {
                break;
            }
            for lane in 0..self.rows.len() {
                let of_lane: Vec<_> = settled.extract_if(.., |settled| settled.lane == lane).collect();
                if !of_lane.is_empty() {
                    self.settle(lane, of_lane).await;
                }
            }
        }
        let _ = timeout(LINGER, self.live.over()).await;
        for channel in &self.channels {
            // It may be closed already.
            let _ = within(CALL_LIMIT, DOING, channel.close(200, "done".into())).await;
        }
    }

    async fn settle(&mut self, lane: usize, settled: Vec<Settled>) {
        let mut ackers = BTreeMap::new();
        let mut back = Vec::new();
        for settled in settled {
            self.rows[lane].note(settled.tag, settled.done);
            if settled.done {
                ackers.insert(settled.tag, settled.acker);
            } else {
                back.push(settled.acker);
            }
        }
        let requeue = BasicNackOptions { requeue: true, multiple: false };
        // Before the others, whose `multiple` would cover these, too.
        let back = join_all(back.iter().map(|acker| timeout(CALL_LIMIT, acker.nack(requeue)))).await;
        let (all_up_to, single) = self.rows[lane].advance();
        let acks = all_up_to.map(|tag| (tag, true)).into_iter().chain(single.into_iter().map(|tag| (tag, false)));
        let acks = acks.filter_map(|(tag, multiple)| {
            let acker = ackers.get(&tag)?;
            Some(timeout(CALL_LIMIT, acker.ack(BasicAckOptions { multiple })))
        });
        // An error or `false` is a channel that is gone: all of it is delivered again, as copies.
        if join_all(acks).await.into_iter().chain(back).any(|answer| answer.is_err()) {
            let reason = format!("not written within {} s", CALL_LIMIT.as_secs());
            self.live.give_up(&QueueError { doing: DOING, reason });
        }
    }
}

/// Which deliveries of a channel are settled; they are numbered from 1 without gaps.
#[derive(Debug, Default)]
struct Row {
    /// All up to this one are settled.
    low: u64,
    /// Settled beyond, and whether the broker has still to be told.
    beyond: BTreeMap<u64, bool>,
}

impl Row {
    fn note(&mut self, tag: u64, tell: bool) {
        self.beyond.insert(tag, tell);
    }

    /// What to acknowledge now: everything up to a tag, and single ones.
    fn advance(&mut self) -> (Option<u64>, Vec<u64>) {
        let mut all_up_to = None;
        while let Some(tell) = self.beyond.remove(&(self.low + 1)) {
            self.low += 1;
            // An acknowledgement has to name a delivery that is not settled yet.
            if tell {
                all_up_to = Some(self.low);
            }
        }
        let mut single = Vec::new();
        for (tag, tell) in self.beyond.iter_mut().filter(|(_, tell)| **tell) {
            *tell = false;
            single.push(*tag);
        }
        (all_up_to, single)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(row: &mut Row, done: &[u64], back: &[u64]) -> (Option<u64>, Vec<u64>) {
        done.iter().for_each(|tag| row.note(*tag, true));
        back.iter().for_each(|tag| row.note(*tag, false));
        row.advance()
    }

    #[test]
    fn a_row_from_the_start_is_acknowledged_at_once() {
        let mut row = Row::default();
        assert_eq!(settle(&mut row, &[3, 1, 2], &[]), (Some(3), vec![]));
        assert_eq!(settle(&mut row, &[4, 6, 7], &[]), (Some(4), vec![6, 7]));
        // 6 and 7 are told already: what closes the gap names itself.
        assert_eq!(settle(&mut row, &[5], &[]), (Some(5), vec![]));
        assert_eq!((row.low, row.beyond.len()), (7, 0));
    }

    #[test]
    fn what_went_back_is_never_named() {
        let mut row = Row::default();
        assert_eq!(settle(&mut row, &[2], &[1, 3]), (Some(2), vec![]));
        assert_eq!(settle(&mut row, &[], &[4, 5]), (None, vec![]));
        assert_eq!(settle(&mut row, &[6], &[]), (Some(6), vec![]));
    }
}
