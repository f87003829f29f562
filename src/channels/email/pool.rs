//! Conversations with one server that are kept for the next message.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::session::{Server, Session};
use super::wire::Patience;
use crate::domain::{Outcome, ProviderError};

/// Some servers end a conversation after a hundred messages; it is politer to do it ourselves.
const MESSAGES_PER_SESSION: u32 = 100;
/// A conversation that idled longer is asked whether it still stands. A firewall may have forgotten it in silence.
const TRUSTED_IDLE: Duration = Duration::from_secs(10);
/// Servers give up between one and five minutes; we do before them.
const LONGEST_IDLE: Duration = Duration::from_secs(50);

pub(super) struct Pool {
    server: Server,
    /// One per connection that may exist.
    permits: Semaphore,
    connections: usize,
    // Held to push or pop, never over an await. The last one given back is taken first, so that the others grow old.
    idle: Mutex<Vec<Session>>,
}

/// A conversation in use. Dropped without being given back, it is closed.
pub(super) struct Taken<'a> {
    pub(super) session: Session,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn new(server: Server, connections: usize) -> Self {
        let permits = Semaphore::new(connections.min(Semaphore::MAX_PERMITS));
        Pool { server, permits, connections, idle: Mutex::default() }
    }

    /// How many there may be.
    pub(super) fn connections(&self) -> usize {
        self.connections
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// A conversation that is ready for a message: a kept one, or a new one. Waits its turn.
    pub(super) async fn take(&self, patience: &Patience) -> Result<Taken<'_>, Outcome> {
        let Ok(Ok(permit)) = timeout_at(patience.deadline, self.permits.acquire()).await else {
            let detail = "all connections were busy for all the time there was";
            return Err(Outcome::Transient { handed_off: false, error: ProviderError::new("no_connection", detail) });
        };
        let session = match self.kept(patience).await {
            Some(session) => session,
            None => Session::open(&self.server, patience).await?,
        };
        Ok(Taken { session, _permit: permit })
    }

    async fn kept(&self, patience: &Patience) -> Option<Session> {
        loop {
            let mut session = self.idle().pop()?;
            let idled = session.idle_since.elapsed();
            if idled > LONGEST_IDLE {
                // Those below it idled longer still.
                self.idle().clear();
                return None;
            }
            let stands = session.is_quiet() && (idled <= TRUSTED_IDLE || session.is_alive(patience).await);
            if stands {
                return Some(session);
            }
        }
    }

    /// Keeps a conversation for the next message.
    pub(super) async fn give_back(&self, taken: Taken<'_>, patience: &Patience) {
        let mut session = taken.session;
        if session.carried >= MESSAGES_PER_SESSION {
            session.quit(patience).await;
        } else {
            session.idle_since = Instant::now();
            self.idle().push(session);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
