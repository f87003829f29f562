//! Who opted out. Questions that wait at the same time are asked of the ledger together.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::accept::is_marketing;
use crate::domain::{Channel, Content};
use crate::store::{Store, StoreError, SuppressionScope};

/// Questions answered by one query at most.
const AT_ONCE: usize = 500;

type Question = (Channel, String, oneshot::Sender<Result<Vec<SuppressionScope>, StoreError>>);

/// See the module.
pub(super) struct SuppressionCheck(mpsc::Sender<Question>);

impl SuppressionCheck {
    pub(super) fn start(store: Arc<dyn Store>) -> Self {
        let (sender, mut receiver) = mpsc::channel(AT_ONCE);
        // Ends with the last sender: a stop does not wait for it.
        TaskTracker::new().spawn(async move {
            let mut questions = Vec::new();
            while receiver.recv_many(&mut questions, AT_ONCE).await > 0 {
                answer(&*store, std::mem::take(&mut questions)).await;
            }
        });
        SuppressionCheck(sender)
    }

    /// What this address does not want any more.
    pub(super) async fn of(&self, channel: Channel, address: String) -> Result<Vec<SuppressionScope>, StoreError> {
        let (sender, answered) = oneshot::channel();
        let gone = || StoreError::Unavailable { doing: "checking suppressions", source: "the check stopped".into() };
        self.0.send((channel, address, sender)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Whether whoever has this address opted out of such a message.
    pub(super) async fn stops(&self, channel: Channel, address: String, content: &Content) -> Result<bool, StoreError> {
        Ok(stop(&self.of(channel, address).await?, content))
    }
}

/// Whether opt-outs of these scopes stop such a message.
pub(super) fn stop(scopes: &[SuppressionScope], content: &Content) -> bool {
    scopes.iter().any(|scope| match scope {
        SuppressionScope::All => true,
        SuppressionScope::Marketing => is_marketing(content),
    })
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
