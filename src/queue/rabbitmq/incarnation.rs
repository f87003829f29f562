//! Noticing that the broker lost what it held.
//!
//! A durable queue holds one message with a random id, the marker. A broker that was wiped has no marker, or, when
//! another process was there first, another one. Also a lane that is not there counts as a loss, whoever removed it. A
//! broker without a marker counts even when this process never saw one: it may have been wiped while we were down, and
//! on one that is really new there is nothing to hand over again. What is not noticed: a lane that was only emptied.

use std::time::Duration;

use futures::FutureExt as _;
use lapin::options::{BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Connection};
use tokio::sync::{Mutex, watch};

use super::connection::{CALL_LIMIT, within};
use super::options::Options;
use super::topology::{self, INCARNATION, NOTIFICATIONS};
use crate::queue::QueueError;

const DOING: &str = "looking at the incarnation marker";
/// Another process may hold the marker in its hand just then.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
const PERSISTENT: u8 = 2;

/// Sees to what has to be there, and counts losses.
#[derive(Debug)]
pub(super) struct Keeper {
    options: std::sync::Arc<Options>,
    // Held over the look, so that of all who find a queue missing one makes it and counts.
    known: Mutex<Known>,
    losses: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    /// The marker last seen.
    marker: Option<String>,
    /// Something was missing, and not everything is back yet.
    lost: bool,
    /// Arguments and bindings have been compared.
    compared: bool,
}

impl Keeper {
    pub(super) fn new(options: std::sync::Arc<Options>) -> Self {
        Keeper { options, known: Mutex::default(), losses: watch::Sender::new(0) }
    }

    pub(super) fn losses(&self) -> watch::Receiver<u64> {
        self.losses.subscribe()
    }

    /// The next look compares and binds everything again: something came back that should have found its way.
    pub(super) async fn doubt(&self) {
        self.known.lock().await.compared = false;
    }

    /// Makes sure that everything needed is there, and counts a loss if something had gone.
    pub(super) async fn ensure(&self, connection: &Connection) -> Result<(), QueueError> {
        let mut known = self.known.lock().await;
        let report = topology::bring_about(connection, &self.options, !known.compared).await?;
        known.lost |= report.lanes_were_missing();
        for (name, text) in report.differences() {
            tracing::warn!("{name} is not as it would be made now, and is used as it is: {text}");
        }
        if let Some(lacks) = report.lacks() {
            return Err(QueueError { doing: topology::DOING, reason: lacks });
        }
        for (item, why) in report.missing() {
            tracing::warn!("{} is missing: {why}", item.name);
        }
        known.compared = true;
        match self.marker(connection).await {
            Ok(marker) => {
                let same = known.marker.as_ref().is_none_or(|before| *before == marker.id);
                known.lost |= marker.made || !same;
                known.marker = Some(marker.id);
            }
            // Without the right to read it, missing lanes have to do.
            Err(error) if connection.status().connected() => tracing::debug!(%error, "no incarnation marker"),
            Err(error) => return Err(error),
        }
        if std::mem::take(&mut known.lost) {
            tracing::warn!("RabbitMQ has nothing of what it may have held: it is handed over again");
            self.losses.send_modify(|losses| *losses += 1);
        }
        Ok(())
    }

    async fn marker(&self, connection: &Connection) -> Result<Marker, QueueError> {
        let channel = within(CALL_LIMIT, DOING, connection.create_channel()).await?;
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
            if let Some(id) = read(&channel).await? {
                return Ok(Marker { id, made: false });
            }
        }
        let id = format!("{:016x}{:016x}", getrandom::u64().unwrap_or_default(), getrandom::u64().unwrap_or_default());
        write(&channel, &id).await?;
        // If two made one at the same time, the first in the queue is the one for both.
        let first = read(&channel).await?.unwrap_or(id);
        Ok(Marker { id: first, made: true })
    }
}

struct Marker {
    id: String,
    made: bool,
}

async fn read(channel: &Channel) -> Result<Option<String>, QueueError> {
    let got = within(CALL_LIMIT, DOING, channel.basic_get(INCARNATION.into(), BasicGetOptions::default())).await?;
    let Some(got) = got else { return Ok(None) };
    let back = BasicNackOptions { requeue: true, multiple: false };
    within(CALL_LIMIT, DOING, got.acker.nack(back)).await?;
    Ok(Some(String::from_utf8_lossy(&got.data).into_owned()))
}

async fn write(channel: &Channel, id: &str) -> Result<(), QueueError> {
    within(CALL_LIMIT, DOING, channel.confirm_select(ConfirmSelectOptions::default())).await?;
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let publish = channel.basic_publish(NOTIFICATIONS.into(), INCARNATION.into(), options, id.as_bytes(), properties);
    let confirm = within(CALL_LIMIT, DOING, publish).await?;
    let confirmation = within(CALL_LIMIT, DOING, confirm.map(|confirmation| confirmation)).await?;
    if confirmation.is_ack() && confirmation.take_message().is_none() {
        Ok(())
    } else {
        Err(QueueError { doing: DOING, reason: "it was not taken".into() })
    }
}
