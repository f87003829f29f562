//! What processes on one ledger tell each other.

use async_trait::async_trait;

/// A word between processes, so that nobody has to wait for the next look at the ledger.
///
/// It is a courtesy: it may come twice or get lost, so whoever relies on it looks by himself now and then. A ledger
/// that serves one process has nobody to tell, which is what the methods do by themselves.
#[async_trait]
pub trait Neighbours: Send + Sync {
    /// Tells the others that something became due, or may leave now. Returns at once: it is said after a moment, once
    /// for all that is to be told then, and not within the transaction of whoever tells.
    fn tell_of_due(&self) {}

    /// Waits until another process told so; before that, it returns once whenever it begins to hear, as something may
    /// have been told before. What is told while nobody waits is kept for the next who does, once. One waits at a time.
    /// Cancel safe.
    async fn due_elsewhere(&self) {
        std::future::pending::<()>().await;
    }
}
