//! Who opted out. Questions that wait at the same time are asked of the ledger together.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::Channel;
use crate::store::{Store, StoreError, SuppressionScope};

/// Questions answered by one query at most.
const AT_ONCE: usize = 500;

type Question = (Channel, String, oneshot::Sender<Result<Vec<SuppressionScope>, StoreError>>);

/// See the module.
pub(super) struct SuppressionCheck {
    questions: mpsc::Sender<Question>,
    finished: CancellationToken,
}

impl SuppressionCheck {
    pub(super) fn start(store: Arc<dyn Store>, tracker: &TaskTracker) -> Self {
        let (sender, mut receiver) = mpsc::channel(AT_ONCE);
        let finished = CancellationToken::new();
        let until = finished.clone();
        tracker.spawn(async move {
            let mut questions = Vec::new();
            loop {
                let asked = tokio::select! {
                    asked = receiver.recv_many(&mut questions, AT_ONCE) => asked,
                    () = until.cancelled() => return,
                };
                if asked == 0 {
                    return;
                }
                answer(&*store, std::mem::take(&mut questions)).await;
            }
        });
        SuppressionCheck { questions: sender, finished }
    }

    /// Nobody asks any more. The senders live as long as `Delivery`, so only this ends the task that a stop waits for.
    pub(super) fn finish(&self) {
        self.finished.cancel();
    }

    /// What this address does not want any more.
    pub(super) async fn of(&self, channel: Channel, address: String) -> Result<Vec<SuppressionScope>, StoreError> {
        let (sender, answered) = oneshot::channel();
        let gone = || StoreError::Unavailable { doing: "checking suppressions", source: "the check stopped".into() };
        self.questions.send((channel, address, sender)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn answer(store: &dyn Store, mut questions: Vec<Question>) {
    for channel in Channel::ALL {
        let (of_channel, others) = questions.into_iter().partition::<Vec<_>, _>(|(asked, _, _)| *asked == channel);
        questions = others;
        if of_channel.is_empty() {
            continue;
        }
        let addresses = of_channel.iter().map(|(_, address, _)| address.clone()).collect();
        let found = store.suppressed(channel, addresses).await;
        for (_, address, sender) in of_channel {
            // Whoever asked may have gone.
            let _ = sender.send(match &found {
                Ok(found) => Ok(found.iter().filter(|(of, _)| *of == address).map(|(_, scope)| *scope).collect()),
                Err(error) => {
                    Err(StoreError::Unavailable { doing: "checking suppressions", source: error.to_string().into() })
                }
            });
        }
    }
}
