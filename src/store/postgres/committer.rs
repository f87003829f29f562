//! Group commit: changes of one kind that wait at the same time share a transaction.
//!
//! While one commit is on its way to the disk the next group gathers, so the more is asked for, the more share a
//! flush. A group that the database refuses is run again one by one, so that a bad change harms no neighbour; one that
//! it rolled back to end a deadlock is run again as it is.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_postgres::error::SqlState;
use tokio_util::task::TaskTracker;

use crate::store::StoreError;

/// Changes that may wait; beyond it, asking waits.
const WAITING: usize = 4096;

/// A change that can be committed together with others of its kind.
pub(super) trait Change: Clone + Send + Sync + 'static {
    /// Rows it writes.
    fn weight(&self) -> usize;
}

pub(super) struct Committer<C, A> {
    sender: mpsc::Sender<(C, oneshot::Sender<Result<A, StoreError>>)>,
}

impl<C: Change, A: Send + 'static> Committer<C, A> {
    /// `commit` makes one transaction of a group and answers each, in order. Groups hold `limit` rows, or one change
    /// that is larger alone.
    pub(super) fn start<F, R>(tracker: &TaskTracker, limit: usize, commit: F) -> Self
    where
        F: Fn(Arc<[C]>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Vec<Result<A, StoreError>>, StoreError>> + Send,
    {
        let (sender, mut receiver) = mpsc::channel::<(C, oneshot::Sender<_>)>(WAITING);
        tracker.spawn(async move {
            let mut left_over = None;
            loop {
                let first = match left_over.take() {
                    Some(first) => first,
                    None => match receiver.recv().await {
                        Some(first) => first,
                        None => return,
                    },
                };
                let mut weight = first.0.weight();
                let mut group = vec![first];
                while weight < limit {
                    match receiver.try_recv() {
                        Ok(next) if weight + next.0.weight() <= limit => {
                            weight += next.0.weight();
                            group.push(next);
                        }
                        Ok(next) => {
                            left_over = Some(next);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                run(&commit, group).await;
            }
        });
        Committer { sender }
    }

    pub(super) async fn commit(&self, doing: &'static str, change: C) -> Result<A, StoreError> {
        let (answer, answered) = oneshot::channel();
        let closed = || StoreError::unavailable(doing, "the ledger is closed");
        self.sender.send((change, answer)).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

async fn run<C, A, F, R>(commit: &F, group: Vec<(C, oneshot::Sender<Result<A, StoreError>>)>)
where
    C: Change,
    F: Fn(Arc<[C]>) -> R,
    R: Future<Output = Result<Vec<Result<A, StoreError>>, StoreError>>,
{
    /// Two processes deadlock only over the same rows in the same moment; the third time they have drifted apart.
    const TRIES: u32 = 4;
    let (changes, answers): (Vec<C>, Vec<_>) = group.into_iter().unzip();
    let changes: Arc<[C]> = changes.into();
    let mut outcome = commit(Arc::clone(&changes)).await;
    for _ in 1..TRIES {
        if !outcome.as_ref().is_err_and(is_deadlock) {
            break;
        }
        outcome = commit(Arc::clone(&changes)).await;
    }
    // Whoever asked may have gone; the change stands all the same, so answers are sent without looking.
    match outcome {
        Ok(results) => {
            for (answer, result) in answers.into_iter().zip(results) {
                let _ = answer.send(result);
            }
        }
        Err(StoreError::Refused { .. }) if changes.len() > 1 => {
            for (change, answer) in changes.iter().cloned().zip(answers) {
                let alone = commit(Arc::new([change])).await;
                let _ = answer.send(alone.and_then(|mut results| {
                    results.pop().unwrap_or_else(|| Err(StoreError::refused("committing", "no answer")))
                }));
            }
        }
        Err(error) => {
            let mut answers = answers.into_iter();
            let text = chain(&error);
            if let Some(first) = answers.next() {
                let _ = first.send(Err(error));
            }
            for answer in answers {
                let _ = answer.send(Err(StoreError::unavailable("committing", text.clone())));
            }
        }
    }
}

/// The server has rolled it back for another transaction's sake; nothing of it happened.
fn is_deadlock(error: &StoreError) -> bool {
    let StoreError::Unavailable { source, .. } = error else { return false };
    let code = source.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
    code == Some(&SqlState::T_R_DEADLOCK_DETECTED)
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
