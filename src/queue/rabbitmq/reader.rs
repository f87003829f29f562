//! Reading the queues that are not lanes: what others publish, and the quarantine. In batches, each settled as a whole.

use std::sync::Arc;

use futures::StreamExt as _;
use lapin::message::Delivery as Message;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connection::{CALL_LIMIT, Link, Live, within};
use super::incarnation::Keeper;
use super::intake::Intake;
use super::quarantine;
use super::topology::{INGRESS, QUARANTINE};
use crate::domain::reconnect;
use crate::queue::QueueError;
use crate::queue::foreign::Ingress;

const DOING: &str = "reading messages of others";
/// In hand at the same time, and so in one commit; a body is 256 KiB at most where it can be read.
const PREFETCH: u16 = 100;

/// Reads one queue until it is told to stop.
pub(super) struct Reader {
    pub(super) link: Link,
    pub(super) keeper: Arc<Keeper>,
    pub(super) reads: Reads,
    pub(super) stop: CancellationToken,
}

/// Which queue, and where to.
pub(super) enum Reads {
    Ingress(Arc<Intake>),
    Quarantine(Arc<dyn Ingress>),
}

impl Reads {
    fn queue(&self) -> &'static str {
        match self {
            Reads::Ingress(_) => INGRESS,
            Reads::Quarantine(_) => QUARANTINE,
        }
    }

    async fn take(&self, live: &Live, messages: &[Message]) -> Result<(), QueueError> {
        match self {
            Reads::Ingress(intake) => {
                let messages: Vec<_> = messages.iter().collect();
                intake.take(&live.connection, INGRESS, &messages).await
            }
            Reads::Quarantine(ingress) => {
                let poison = messages.iter().map(quarantine::unwrap).collect();
                ingress
                    .quarantine(poison)
                    .await
                    .map_err(|error| QueueError { doing: "keeping what is in quarantine", reason: error.reason })
            }
        }
    }
}

impl Reader {
    pub(super) async fn run(mut self) {
        let mut pauses = reconnect::pauses();
        loop {
            let live = tokio::select! {
                () = self.stop.cancelled() => return,
                live = self.link.live() => live,
            };
            let Some(live) = live else { return };
            let mut worked = false;
            let ended = tokio::select! {
                () = self.stop.cancelled() => return,
                ended = self.read(&live, &mut worked) => ended,
            };
            if worked {
                pauses = reconnect::pauses();
            }
            let Err(error) = ended else { continue };
            tracing::warn!(queue = self.reads.queue(), error = %error, "reading was interrupted: trying again");
            if live.connection.status().connected()
                && let Err(error) = self.keeper.ensure(&live.connection).await
            {
                live.give_up(&error);
            }
            if timeout(pauses.next().unwrap_or_default(), self.stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    /// Reads until something goes wrong; then what was in hand comes again.
    async fn read(&self, live: &Live, worked: &mut bool) -> Result<(), QueueError> {
        let channel = within(CALL_LIMIT, DOING, live.connection.create_channel()).await?;
        within(CALL_LIMIT, DOING, channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consuming = channel.basic_consume(self.reads.queue().into(), "".into(), options, arguments);
        let mut batches = within(CALL_LIMIT, DOING, consuming).await?.ready_chunks(PREFETCH.into());
        let ended = loop {
            let batch = tokio::select! {
                () = live.over() => break Ok(()),
                batch = batches.next() => batch,
            };
            let Some(batch) = batch else { break Err(lost("the broker ended the consumer")) };
            let Ok(messages) = batch.into_iter().collect::<lapin::Result<Vec<_>>>() else {
                break Err(lost("the channel was closed"));
            };
            if let Err(error) = self.reads.take(live, &messages).await {
                break Err(error);
            }
            // All on this channel up to the last one: batches are settled in order.
            if let Some(last) = messages.last() {
                within(CALL_LIMIT, DOING, last.acker.ack(BasicAckOptions { multiple: true })).await?;
            }
            *worked = true;
        };
        // What was in hand goes back now.
        let _ = within(CALL_LIMIT, DOING, channel.close(200, "bye".into())).await;
        ended
    }
}

fn lost(reason: &str) -> QueueError {
    QueueError { doing: DOING, reason: reason.into() }
}
