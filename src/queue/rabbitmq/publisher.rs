//! Handing over: batches, each confirmed before the next begins.
//!
//! With several batches in flight the client attaches returned messages to the wrong confirms, so a batch is settled
//! as a whole: everything confirmed, nothing returned. An error or a time limit says "unknown", never "not there".

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use tokio::sync::Mutex;

use super::connection::{CALL_LIMIT, Link, Live, within};
use super::incarnation::Keeper;
use super::message::Outgoing;
use crate::queue::QueueError;

const DOING: &str = "handing over";
/// 100 has most of the gain; more than 500 adds only waiting.
const BATCH: usize = 500;
/// A quorum queue on busy disks takes its time.
const CONFIRM_LIMIT: Duration = Duration::from_secs(15);

pub(super) struct Publisher {
    link: Link,
    keeper: Arc<Keeper>,
    // Held over a batch: one in flight is the rule, and who waits here has nothing in memory but its tasks.
    channel: Mutex<Option<Open>>,
}

/// A channel in confirm mode on a connection.
struct Open {
    live: Arc<Live>,
    channel: Channel,
}

/// What came of a batch that the broker answered.
#[derive(Default)]
struct Answered {
    refused: usize,
    /// Message ids and routing keys of what no queue was bound for.
    returned: BTreeSet<(String, String)>,
}

impl Publisher {
    pub(super) fn new(link: Link, keeper: Arc<Keeper>) -> Self {
        Publisher { link, keeper, channel: Mutex::default() }
    }

    /// After `Ok` the broker holds all of them.
    pub(super) async fn publish(&self, messages: &[Outgoing]) -> Result<(), QueueError> {
        for batch in messages.chunks(BATCH) {
            self.batch(batch).await?;
        }
        Ok(())
    }

    async fn batch(&self, messages: &[Outgoing]) -> Result<(), QueueError> {
        let mut slot = self.channel.lock().await;
        let live = self.link.now(DOING)?;
        let mut blocked = live.blocked.subscribe();
        let sending = async {
            // Taken out: a batch that is given up half-way leaves confirms behind, and its channel must not be used
            // again.
            let open = match slot.take() {
                Some(open) if Arc::ptr_eq(&open.live, &live) && open.channel.status().connected() => open,
                _ => Open { channel: confirming(&live).await?, live: Arc::clone(&live) },
            };
            let answered = within(CONFIRM_LIMIT, DOING, send(&open.channel, messages)).await?;
            Ok::<_, QueueError>((open, answered))
        };
        // On a blocked connection nothing is written, and nothing would be answered.
        let sent = tokio::select! {
            biased;
            reason = blocked.wait_for(Option::is_some) => {
                let reason = reason.ok().and_then(|reason| reason.clone()).unwrap_or_default();
                return Err(QueueError { doing: DOING, reason: format!("the broker takes nothing: {reason}") });
            }
            sent = sending => sent,
        };
        let (open, answered) = sent.inspect_err(|error| live.give_up(error))?;
        if let Some((_, key)) = answered.returned.first() {
            let (count, reason) = (answered.returned.len(), format!("no queue is bound for `{key}`"));
            self.keeper.doubt().await;
            self.keeper.ensure(&open.live.connection).await.inspect_err(|error| live.give_up(error))?;
            *slot = Some(open);
            return Err(QueueError {
                doing: DOING,
                reason: format!("{count} of {} came back: {reason}", messages.len()),
            });
        }
        *slot = Some(open);
        match answered.refused {
            0 => Ok(()),
            refused => {
                let reason = format!("the broker refused {refused} of {} (is a queue full?)", messages.len());
                Err(QueueError { doing: DOING, reason })
            }
        }
    }
}

async fn confirming(live: &Live) -> Result<Channel, QueueError> {
    let channel = within(CALL_LIMIT, DOING, live.connection.create_channel()).await?;
    within(CALL_LIMIT, DOING, channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

async fn send(channel: &Channel, messages: &[Outgoing]) -> lapin::Result<Answered> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let mut confirms = Vec::with_capacity(messages.len());
    for message in messages {
        let (exchange, key) = (message.exchange.into(), message.routing_key.into());
        confirms.push(channel.basic_publish(exchange, key, options, &message.body, message.properties.clone()).await?);
    }
    let mut answered = Answered::default();
    for confirm in confirms {
        let confirmation = confirm.await?;
        if !matches!(confirmation, Confirmation::Ack(_)) {
            answered.refused += 1;
        }
        // It may be another message's: its own id says whose it is.
        if let Some(returned) = confirmation.take_message() {
            let id = returned.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
            answered.returned.insert((id, returned.routing_key.to_string()));
        }
    }
    Ok(answered)
}
