//! Taking: the three lanes of a channel, each with a share of what may be in hand.
//!
//! A lane has an AMQP channel of its own, so that what waits in a lower one does not keep those of a higher one from
//! being acknowledged together. When anything goes wrong the three are made anew; what was in hand on them comes
//! again, as copies.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream, ReadyChunks};
use lapin::message::Delivery as Message;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::basket::Basket;
use super::connection::{CALL_LIMIT, Link, Live, within};
use super::incarnation::Keeper;
use super::intake::Intake;
use super::message;
use super::settle::{Hold, Settled, Settler, Share};
use crate::domain::{Channel, reconnect};
use crate::queue::{Ack, Consumer, Delivery, Lane, QueueError};

const DOING: &str = "taking";
/// After a cancel, for what the broker had sent before.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// Looked at together: what others published among them shares a commit.
const AT_ONCE: usize = 100;

/// What a worker takes from.
pub(super) struct RabbitConsumer {
    basket: Arc<Basket>,
    stop: CancellationToken,
    stopped: CancellationToken,
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn next(&mut self, max: usize) -> Option<Vec<Delivery>> {
        self.basket.take(max).await
    }

    async fn stop(&mut self) {
        self.basket.close();
        self.stop.cancel();
        // The feeder's own steps have time limits.
        self.stopped.cancelled().await;
    }
}

impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        self.basket.close();
        self.stop.cancel();
    }
}

/// What every feeder works with.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) link: Link,
    pub(super) keeper: Arc<Keeper>,
    pub(super) intake: Arc<Intake>,
    /// Feeders end by themselves when stopped; settlers end with the connection.
    pub(super) feeders: TaskTracker,
    pub(super) settlers: TaskTracker,
}

/// Begins to take. Ends when the consumer is stopped or dropped, or with `stop`.
pub(super) fn start(parts: Parts, channel: Channel, prefetch: u16, stop: CancellationToken) -> RabbitConsumer {
    let consumer = RabbitConsumer { basket: Arc::default(), stop, stopped: CancellationToken::new() };
    let basket = Arc::clone(&consumer.basket);
    let (stop, stopped) = (consumer.stop.clone(), consumer.stopped.clone().drop_guard());
    let feeders = parts.feeders.clone();
    feeders.spawn(async move {
        Feeder { parts, channel, shares: shares(prefetch), basket, stop }.run().await;
        drop(stopped);
    });
    consumer
}

/// 60, 30 and 10 of a hundred, and at least one each.
fn shares(prefetch: u16) -> [u16; 3] {
    let normal = (prefetch / 10 * 3 + prefetch % 10 * 3 / 10).max(1);
    let low = (prefetch / 10).max(1);
    [prefetch.saturating_sub(normal + low).max(1), normal, low]
}

struct Feeder {
    parts: Parts,
    channel: Channel,
    shares: [u16; 3],
    basket: Arc<Basket>,
    stop: CancellationToken,
}

/// Deliveries of all lanes; the item of a lane that ended is `None`.
type Incoming = BoxStream<'static, (usize, Option<lapin::Result<Message>>)>;

struct Session {
    incoming: ReadyChunks<Incoming>,
    lanes: Vec<(lapin::Channel, ShortString)>,
    settler: UnboundedSender<Settled>,
}

impl Feeder {
    async fn run(mut self) {
        let mut pauses = reconnect::pauses();
        loop {
            let live = tokio::select! {
                () = self.stop.cancelled() => break,
                live = self.parts.link.live() => live,
            };
            let Some(live) = live else { break };
            let error = match self.open(&live).await {
                Ok(mut session) => {
                    let mut worked = false;
                    let ended = self.fill(&live, &mut session, &mut worked).await;
                    if worked {
                        pauses = reconnect::pauses();
                    }
                    if ended.is_ok() {
                        self.basket.close();
                    }
                    // Also after trouble in one lane: the others would keep what they were sent.
                    if live.connection.status().connected() {
                        drain(session).await;
                    }
                    match ended {
                        Ok(()) => break,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            self.basket.empty();
            tracing::warn!(channel = %self.channel, error = %error, "taking from RabbitMQ was interrupted: trying again");
            if live.connection.status().connected() {
                // A queue that was removed ends its consumer without a word: see that it is there again.
                if let Err(error) = self.parts.keeper.ensure(&live.connection).await {
                    live.give_up(&error);
                }
            }
            let pause = pauses.next().unwrap_or_default();
            if timeout(pause, self.stop.cancelled()).await.is_ok() {
                break;
            }
        }
        self.basket.close();
    }

    async fn open(&self, live: &Arc<Live>) -> Result<Session, QueueError> {
        let mut lanes = Vec::new();
        let mut streams: Vec<Incoming> = Vec::new();
        for ((index, lane), share) in Lane::of(self.channel).into_iter().enumerate().zip(self.shares) {
            let channel = within(CALL_LIMIT, DOING, live.connection.create_channel()).await?;
            within(CALL_LIMIT, DOING, channel.basic_qos(share, BasicQosOptions::default())).await?;
            let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
            let consuming = channel.basic_consume(lane.name().into(), "".into(), options, arguments);
            let consumer = within(CALL_LIMIT, DOING, consuming).await?;
            lanes.push((channel, consumer.tag()));
            let ended = stream::once(async move { (index, None) });
            streams.push(consumer.map(move |item| (index, Some(item))).chain(ended).boxed());
        }
        let channels = [0, 1, 2].map(|index: usize| lanes[index].0.clone());
        let (settler, settling) = Settler::new(Arc::clone(live), channels);
        self.parts.settlers.spawn(settling.run());
        let incoming = stream::select_all(streams).boxed().ready_chunks(AT_ONCE);
        Ok(Session { incoming, lanes, settler })
    }

    /// Fills the basket. Returns `Ok` when it was stopped.
    async fn fill(&self, live: &Live, session: &mut Session, worked: &mut bool) -> Result<(), QueueError> {
        loop {
            let items = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = live.over() => return Err(lost("the connection is given up")),
                next = session.incoming.next() => next.ok_or_else(|| lost("all lanes ended"))?,
            };
            let (mut foreign, mut ended) = ([const { Vec::new() }; 3], None);
            for (index, item) in items {
                let lane = Lane::of(self.channel)[index];
                let message = match item {
                    Some(Ok(message)) => message,
                    Some(Err(error)) => {
                        ended = Some(super::connection::trouble(DOING, &error));
                        break;
                    }
                    None => {
                        let why = format!("the broker ended the consumer of {lane} (was the queue removed?)");
                        ended = Some(lost(&why));
                        break;
                    }
                };
                let hold = Hold::new(session.settler.clone(), index, message.acker.clone(), message.delivery_tag);
                match message::to_tasks(&message.properties, &message.data, lane) {
                    Ok(tasks) => {
                        let shares = Share::of(hold, tasks.len()).map(Ack::RabbitMq);
                        self.basket.put(index, tasks.into_iter().zip(shares).map(|(task, ack)| Delivery { task, ack }));
                        *worked = true;
                    }
                    Err(_) => foreign[index].push((message, hold)),
                }
            }
            for (lane, foreign) in Lane::of(self.channel).into_iter().zip(foreign).filter(|(_, some)| !some.is_empty())
            {
                let messages: Vec<&Message> = foreign.iter().map(|(message, _)| message).collect();
                self.parts.intake.take(&live.connection, lane.name(), &messages).await?;
                foreign.into_iter().for_each(|(_, hold)| hold.done());
                *worked = true;
            }
            if let Some(ended) = ended {
                return Err(ended);
            }
        }
    }
}

/// Has the broker send no more; what it had sent goes back.
async fn drain(mut session: Session) {
    for (channel, tag) in &session.lanes {
        let _ = within(CALL_LIMIT, DOING, channel.basic_cancel(tag.clone(), BasicCancelOptions::default())).await;
    }
    let settler = session.settler;
    let giving_back = async {
        let mut open = session.lanes.len();
        while open > 0 {
            let Some(items) = session.incoming.next().await else { break };
            for item in items {
                match item {
                    (lane, Some(Ok(message))) => {
                        drop(Hold::new(settler.clone(), lane, message.acker.clone(), message.delivery_tag));
                    }
                    (_, Some(Err(_))) => {}
                    (_, None) => open -= 1,
                }
            }
        }
    };
    let _ = timeout(DRAIN_LIMIT, giving_back).await;
}

fn lost(reason: &str) -> QueueError {
    QueueError { doing: DOING, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_in_hand_is_split_among_the_lanes() {
        assert_eq!(shares(100), [60, 30, 10]);
        assert_eq!(shares(200), [120, 60, 20]);
        assert_eq!(shares(10), [6, 3, 1]);
        assert_eq!(shares(3), [1, 1, 1]);
        assert_eq!(shares(u16::MAX).map(u32::from).iter().sum::<u32>(), u32::from(u16::MAX));
    }
}
