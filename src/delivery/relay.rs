//! 3. What is due is handed to the queue, a window of it at a time.
//!
//! The queue holds about as much as an account may send in two seconds: so a pause takes hold soon, one slow account
//! stands in nobody's way, and a broker that loses everything loses little time. Streams of an account (its batches,
//! and what is in none) take turns; a more urgent one does not wait for the window that less urgent ones fill.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Delivery, SendingAccount};
use crate::domain::clock::earlier;
use crate::domain::{AccountId, Epoch, Priority, Status};
use crate::limits::Lane as BudgetLane;
use crate::queue::{Bundle, Condition, Lane, Task};
use crate::store::{
    ChunkId, HandedChunk, HandedLong, HandedOver, Settle, StoreError, TakeDue, TakeFrom, Waiting, WaitingStream,
};

/// How far ahead of its account's rate the queue is filled.
const WINDOW: Duration = Duration::from_secs(2);
/// No window is larger: what a lost process had in hand waits for its lease to run out.
const LARGEST_WINDOW: u64 = 20_000;
/// Taken at once of one account and priority: SQLite's writer is not held for longer than a direct send may wait.
const AT_ONCE: u32 = 500;
/// What travels together goes to one worker, and is sent within this time …
const BUNDLE_LASTS: Duration = Duration::from_millis(50);
/// … and is no more than this: a broker's price by the message is small already, and its window stays finely divided.
const LARGEST_BUNDLE: usize = 16;
/// Chunks of more streams are not taken apart in one turn: each part rewrites what is left of its chunk.
const STREAMS_AT_ONCE: usize = 8;
/// Rounds follow each other no faster: there is always a window's worth to do meanwhile.
const BREATH: Duration = Duration::from_millis(20);
/// The ledger is looked at this often while there is anything in it, and when no word of others comes through.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// … and this often while there is nothing.
const IDLE_LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a failure of the ledger or the queue, this long before trying again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// What was handed over so long ago, with nothing left in its lane, was lost on the way.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// It is looked for this often: each look reads what is in hand.
const LOOK_FOR_LOST_EVERY: Duration = Duration::from_secs(10);

/// Lanes that the queue took nothing into, and until when they are left alone.
type Resting = HashMap<Lane, Instant>;

/// Hands over until new work may not begin any more.
pub(super) fn start(delivery: &Arc<Delivery>) {
    let delivery = Arc::clone(delivery);
    let sends = delivery.sends.clone();
    sends.spawn(async move {
        let mut losses = delivery.queue.losses();
        let (mut turn, mut looked_at, mut resting) = (0, Instant::now(), Resting::new());
        loop {
            if losses.has_changed().unwrap_or(false) {
                losses.mark_unchanged();
                delivery.hand_over_again().await;
            }
            let is_time = looked_at.elapsed() >= LOOK_FOR_LOST_EVERY;
            if is_time {
                looked_at = Instant::now();
            }
            let pause = match delivery.round(turn, is_time, &mut resting).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "could not hand over what is due");
                    AFTER_FAILURE
                }
            };
            turn += 1;
            let breath = tokio::time::sleep(BREATH.min(pause));
            tokio::select! {
                () = breath => {}
                () = delivery.stopping.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(pause.saturating_sub(BREATH)) => {}
                () = delivery.wake.notified() => {}
                () = delivery.store.due_elsewhere() => {}
                _ = losses.changed() => losses.mark_changed(),
                () = delivery.stopping.cancelled() => return,
            }
        }
    });
}

impl Delivery {
    /// One look at the ledger, and what follows from it. Returns how long nothing more will be due.
    async fn round(&self, turn: usize, look_for_lost: bool, resting: &mut Resting) -> Result<Duration, StoreError> {
        let waiting = self.store.waiting().await?;
        self.held.set(&waiting.held);
        let now = self.clock.now();
        if !waiting.cancelled.is_empty() {
            self.end_cancelled(&waiting.cancelled).await?;
        }
        if look_for_lost {
            self.look_for_lost(&waiting.handed, now).await;
        }
        if let Condition::Down { .. } | Condition::Blocked { .. } = &*self.queue.condition().borrow() {
            return Ok(AFTER_FAILURE);
        }
        resting.retain(|_, until| *until > Instant::now());
        let from = self.portions(&waiting, now, turn, resting);
        if from.is_empty() {
            let is_over = waiting.cancelled.is_empty();
            return Ok(if is_over { self.until_next(&waiting, now) } else { Duration::ZERO });
        }
        let chunks = self.store.take_due(TakeDue { epoch: self.lease.epoch(), from, early: false }).await?;
        self.hand_over(chunks, resting).await;
        Ok(Duration::ZERO)
    }

    /// How much of which streams there is room for.
    fn portions(&self, waiting: &Waiting, now: Timestamp, turn: usize, resting: &Resting) -> Vec<TakeFrom> {
        let mut of_account: HashMap<AccountId, Vec<&WaitingStream>> = HashMap::new();
        for stream in waiting.streams.iter().filter(|stream| stream.due_at <= now) {
            of_account.entry(stream.stream.account).or_default().push(stream);
        }
        let mut from = Vec::new();
        for (id, streams) in of_account {
            let Some(account) = self.account_by_id(id) else { continue };
            if !self.roles.channels.contains(&account.name().channel) {
                continue;
            }
            let Some(room) = account.circuit.room(Instant::now()) else { continue };
            let own = account.budget.room(BudgetLane::Queued, WINDOW, Instant::now());
            // In a queue that all take from there is room for all.
            let takers = if self.queue.is_shared() { account.budget.sharers().into() } else { 1 };
            let window = own.saturating_mul(takers).min(LARGEST_WINDOW).min(room);
            let mut filled = 0;
            for priority in Priority::ALL {
                filled += self.outstanding(&waiting.handed, id, *priority);
                if resting.contains_key(&Lane { channel: account.name().channel, priority: *priority }) {
                    continue;
                }
                let left = window.saturating_sub(filled);
                let streams: Vec<_> =
                    streams.iter().copied().filter(|stream| stream.stream.priority == *priority).collect();
                let shared = share(&streams, left.min(AT_ONCE.into()), turn);
                filled += shared.iter().map(|from| u64::from(from.limit)).sum::<u64>();
                from.extend(shared);
            }
        }
        from
    }

    /// What was handed over of an account and priority and is not opened: by all, if all take from the same queue.
    fn outstanding(&self, handed: &[HandedOver], account: AccountId, priority: Priority) -> u64 {
        let ours = |one: &&HandedOver| self.queue.is_shared() || one.by == self.lease.epoch();
        let of_lane = |one: &&HandedOver| one.account == account && one.priority == priority;
        handed.iter().filter(ours).filter(of_lane).map(|one| one.count).sum()
    }

    fn until_next(&self, waiting: &Waiting, now: Timestamp) -> Duration {
        let next = waiting.streams.iter().map(|stream| stream.due_at).min();
        let is_empty = next.is_none() && waiting.handed.is_empty();
        let look = if is_empty { IDLE_LOOK_EVERY } else { LOOK_EVERY };
        let wait = next.and_then(|due_at| Duration::try_from(due_at.duration_since(now)).ok());
        wait.filter(|wait| !wait.is_zero()).map_or(look, |wait| wait.min(look))
    }

    /// Publishes chunks, or gives them back: each lane for itself, so that one that is full stops no other.
    async fn hand_over(&self, chunks: Vec<HandedChunk>, resting: &mut Resting) {
        let lane_of = |chunk: &HandedChunk| (chunk.account, chunk.priority);
        for chunks in chunks.chunk_by(|one, next| lane_of(one) == lane_of(next)) {
            let ids = chunks.iter().map(|chunk| chunk.id).collect();
            let (id, priority) = lane_of(&chunks[0]);
            let Some(account) = self.account_by_id(id) else {
                self.give_back_all(ids).await;
                continue;
            };
            let lane = Lane { channel: account.name().channel, priority };
            let tasks: Vec<Task> = chunks.iter().flat_map(|chunk| tasks_of(chunk, lane)).collect();
            if let Err(error) = self.queue.publish(Bundle::all(&tasks, self.together(account))).await {
                tracing::warn!(error = &error as &dyn std::error::Error, %lane, "could not hand over: it waits in the ledger");
                resting.insert(lane, Instant::now() + AFTER_FAILURE);
                self.give_back_all(ids).await;
            }
        }
    }

    /// How much of an account travels together: a slow one's work is spread over all workers, one by one.
    fn together(&self, account: &SendingAccount) -> usize {
        let room = account.budget.room(BudgetLane::Queued, BUNDLE_LASTS, Instant::now());
        usize::try_from(room).unwrap_or(LARGEST_BUNDLE).clamp(1, LARGEST_BUNDLE)
    }

    /// Lets a chunk be taken again, however long the ledger is away; a process that ends meanwhile gives back all.
    pub(super) async fn give_back(&self, chunk: ChunkId) {
        while let Err(error) = self.store.give_back(chunk).await {
            tracing::error!(error = &error as &dyn std::error::Error, "could not give a chunk back");
            tokio::select! {
                () = tokio::time::sleep(AFTER_FAILURE) => {}
                () = self.stopping.cancelled() => return,
            }
        }
    }

    /// The same for several, each once.
    pub(super) async fn give_back_all(&self, mut chunks: Vec<ChunkId>) {
        chunks.sort_unstable_by_key(|chunk| chunk.0);
        chunks.dedup();
        for chunk in chunks {
            self.give_back(chunk).await;
        }
    }

    /// Some of what waits of cancelled batches ends, due or not; the next round goes on, so that a large batch holds
    /// up no other. What is in a worker's hand the worker ends.
    async fn end_cancelled(&self, cancelled: &[WaitingStream]) -> Result<(), StoreError> {
        const STEP: u32 = 250;
        let epoch = self.lease.epoch();
        for waiting in cancelled {
            let from = vec![TakeFrom { stream: waiting.stream, limit: STEP }];
            for chunk in self.store.take_due(TakeDue { epoch, from, early: true }).await? {
                self.cancel_all(epoch, &chunk).await?;
            }
        }
        Ok(())
    }

    async fn cancel_all(&self, epoch: Epoch, chunk: &HandedChunk) -> Result<(), StoreError> {
        let at = self.clock.now();
        let settles = chunk.handed.iter().map(|handed| Settle {
            epoch,
            id: handed.id,
            batch: chunk.batch,
            chunk: Some(chunk.id),
            status: Status::Cancelled,
            at,
            actor: "batch".into(),
            reason: "its batch was cancelled".into(),
        });
        self.store.settle(settles.collect()).await.map(drop)
    }

    /// The queue lost what it held: everything that was handed over is handed over again.
    async fn hand_over_again(&self) {
        tracing::warn!(queue = self.queue.kind(), "the queue lost what it held: handing it over again");
        loop {
            match self.store.recount(self.clock.now(), None).await {
                Ok(chunks) if chunks.is_empty() => return,
                Ok(chunks) => {
                    for one in chunks {
                        self.give_back(one.chunk).await;
                    }
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "could not look for what is lost");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
            if self.stopping.is_cancelled() {
                return;
            }
        }
    }

    /// Counts anew what was handed over long ago, and hands over again what is not in its lane any more. A copy that
    /// turns up all the same finds nothing to take.
    async fn look_for_lost(&self, handed: &[HandedOver], now: Timestamp) {
        let since = earlier(now, LOST_AFTER);
        if !handed.iter().any(|one| one.since < since) {
            return;
        }
        if let Err(error) = self.give_back_lost(since).await {
            tracing::warn!(error = &*error, "could not look for what was lost on the way");
        }
    }

    async fn give_back_lost(&self, since: Timestamp) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let by = (!self.queue.is_shared()).then(|| self.lease.epoch());
        let chunks = self.store.recount(since, by).await?;
        if chunks.is_empty() {
            return Ok(());
        }
        let depths = self.queue.depths().await?;
        for HandedLong { chunk, account, priority } in chunks {
            let Some(account) = self.account_by_id(account) else { continue };
            let lane = Lane { channel: account.name().channel, priority };
            let is_empty = depths.iter().all(|depth| depth.lane != lane || depth.ready == 0);
            if is_empty && account.in_hand() == 0 {
                self.give_back(chunk).await;
            }
        }
        Ok(())
    }
}

fn tasks_of(chunk: &HandedChunk, lane: Lane) -> impl Iterator<Item = Task> {
    chunk.handed.iter().map(move |handed| Task {
        id: handed.id,
        generation: handed.generation,
        chunk: chunk.id,
        account: chunk.account,
        batch: chunk.batch,
        lane,
        retry_count: handed.retry_count,
    })
}

/// Shares out `room` among the streams whose turn it is.
fn share(streams: &[&WaitingStream], room: u64, turn: usize) -> Vec<TakeFrom> {
    if streams.is_empty() || room == 0 {
        return Vec::new();
    }
    let (at_once, first) = (streams.len().min(STREAMS_AT_ONCE), first_of(turn, streams.len()));
    let (mut from, mut left) = (Vec::new(), room);
    for n in 0..at_once {
        let stream = streams[(n + first) % streams.len()];
        let part = left.div_ceil((at_once - n) as u64).min(stream.count.max(1));
        if part == 0 {
            break;
        }
        left -= part;
        from.push(TakeFrom { stream: stream.stream, limit: u32::try_from(part).unwrap_or(u32::MAX) });
    }
    from
}

/// Who begins: the next group, and after each time round one further, so that all begin in time.
fn first_of(turn: usize, streams: usize) -> usize {
    let groups = streams.div_ceil(STREAMS_AT_ONCE);
    (turn % groups * STREAMS_AT_ONCE + turn / groups) % streams
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::BatchId;
    use crate::store::Stream;

    fn waiting(batch: u128, count: u64) -> WaitingStream {
        let batch = Some(BatchId(uuid::Uuid::from_u128(batch)));
        let stream = Stream { priority: Priority::Low, account: AccountId(1), batch };
        WaitingStream { stream, due_at: Timestamp::UNIX_EPOCH, count }
    }

    /// What each stream gets, by its batch's number.
    fn shares(counts: &[u64], room: u64, turn: usize) -> Vec<u64> {
        let streams: Vec<_> = counts.iter().zip(0..).map(|(count, n)| waiting(n, *count)).collect();
        let shared = share(&streams.iter().collect::<Vec<_>>(), room, turn);
        let mut of = vec![0; counts.len()];
        for from in shared {
            let batch = from.stream.batch.expect("of a batch").0.as_u128();
            of[usize::try_from(batch).expect("a small number")] += u64::from(from.limit);
        }
        of
    }

    #[test]
    fn streams_of_an_account_get_equal_parts_and_none_more_than_it_has() {
        assert_eq!(shares(&[1_000, 1_000_000], 100, 0), [50, 50]);
        assert_eq!(shares(&[10, 1_000], 100, 0), [10, 90], "what a small one leaves goes to the others");
        assert_eq!(shares(&[5, 5], 100, 0), [5, 5]);
        assert_eq!(shares(&[5, 5], 0, 0), [0, 0]);
    }

    #[test]
    fn of_many_some_have_their_turn_and_all_in_time() {
        for (streams, room) in [(9, 1), (16, 1), (16, 500), (200, 500), (200, 3)] {
            let counts = vec![1_000_000; streams];
            let shared = |turn| shares(&counts, room, turn);
            assert!(shared(0).iter().filter(|share| **share > 0).count() <= STREAMS_AT_ONCE);
            assert_eq!(shared(0).iter().sum::<u64>(), room);
            let mut got = vec![0; streams];
            let all_begin = streams * streams.div_ceil(STREAMS_AT_ONCE);
            for turn in 0..all_begin {
                got.iter_mut().zip(shared(turn)).for_each(|(got, share)| *got += share);
            }
            assert!(got.iter().all(|got| *got > 0), "of {streams} with room for {room}: {got:?}");
        }
    }

    #[test]
    fn when_there_is_not_room_for_all_they_take_turns() {
        let got: Vec<_> = (0..3).map(|turn| shares(&[9, 9, 9], 1, turn)).collect();
        assert_eq!(got, [[1, 0, 0], [0, 1, 0], [0, 0, 1]]);
    }
}
