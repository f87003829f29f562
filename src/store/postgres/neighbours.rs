//! One process wakes others, by `NOTIFY`.
//!
//! The server takes one lock of its whole cluster for each transaction that notifies, from before its commit until it
//! is done: so nothing is said within those that matter, but in one of its own, which does not wait for the disk, at most
//! once in a while, and only if somebody else lives who may hear it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::connection::from_postgres;
use super::pool::{Server, chain};
use super::{Postgres, Shared};
use crate::domain::reconnect::{self, LONGEST_PAUSE};
use crate::store::Neighbours;

/// Within the database.
const CHANNEL: &str = "vestnik_due";
/// What is to be told within this time is told once.
const BREATH: Duration = Duration::from_millis(50);

/// Both directions, of one process.
pub(super) struct Neighbourhood {
    /// By which a process knows its own words.
    name: Uuid,
    to_tell: watch::Sender<()>,
    server: Server,
    connect_limit: Duration,
    /// From the first who wants to hear.
    hearing: OnceLock<Hearing>,
}

struct Hearing {
    told: Arc<Notify>,
    _until_dropped: DropGuard,
}

impl Neighbourhood {
    pub(super) fn new(shared: &Shared, server: Server) -> Self {
        let name = shared.ids.next();
        let to_tell = watch::Sender::new(());
        // It ends when the ledger is dropped.
        TaskTracker::new().spawn(tell(name, shared.clone(), to_tell.subscribe()));
        Neighbourhood { name, to_tell, server, connect_limit: shared.call_timeout, hearing: OnceLock::new() }
    }

    fn hear(&self) -> Hearing {
        let (told, over) = (Arc::<Notify>::default(), CancellationToken::new());
        let ear = Ear {
            name: self.name.to_string(),
            server: self.server.clone(),
            connect_limit: self.connect_limit,
            told: Arc::clone(&told),
        };
        let until = over.clone();
        TaskTracker::new().spawn(async move { until.run_until_cancelled(Box::pin(ear.listen())).await });
        Hearing { told, _until_dropped: over.drop_guard() }
    }
}

#[async_trait]
impl Neighbours for Postgres {
    fn tell_of_due(&self) {
        self.neighbourhood.to_tell.send_replace(());
    }

    async fn due_elsewhere(&self) {
        self.neighbourhood.hearing.get_or_init(|| self.neighbourhood.hear()).told.notified().await;
    }
}

async fn tell(name: Uuid, shared: Shared, mut to_tell: watch::Receiver<()>) {
    const DOING: &str = "waking other processes";
    let say: Arc<str> = format!(
        "BEGIN; SET LOCAL synchronous_commit = off;
         SELECT pg_notify('{CHANNEL}', '{name}') WHERE 1 <
             (SELECT count(*) FROM workers WHERE lost_at IS NULL AND lease_until >= vestnik_now());
         COMMIT"
    )
    .into();
    while to_tell.changed().await.is_ok() {
        let say = Arc::clone(&say);
        let said = shared.on_connection(DOING, |client| {
            Box::pin(async move { client.batch_execute(&say).await.map_err(|error| from_postgres(DOING, error)) })
        });
        if let Err(error) = said.await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "others are not told what is due: they will look"
            );
        }
        sleep(BREATH).await;
    }
}

/// Listens, on a connection of its own.
struct Ear {
    name: String,
    server: Server,
    connect_limit: Duration,
    told: Arc<Notify>,
}

impl Ear {
    async fn listen(self) {
        let mut pauses = reconnect::pauses();
        loop {
            let mut heard = false;
            let reason = match self.hear(&mut heard).await {
                Ok(()) => "the connection ended".into(),
                Err(error) => chain(&*error),
            };
            if heard {
                pauses = reconnect::pauses();
            }
            tracing::warn!(%reason, "other processes cannot wake this one: it looks by itself what is due");
            sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    }

    /// One connection, as long as it lasts.
    async fn hear(&self, heard: &mut bool) -> Result<(), BoxError> {
        let config = &self.server.config;
        match &self.server.tls {
            None => self.follow(timeout(self.connect_limit, config.connect(NoTls)).await??, heard).await,
            Some(tls) => self.follow(timeout(self.connect_limit, config.connect(tls.clone())).await??, heard).await,
        }
    }

    async fn follow<S, T>(
        &self,
        (client, mut connection): (Client, Connection<S, T>),
        heard: &mut bool,
    ) -> Result<(), BoxError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        let listen = format!("LISTEN {CHANNEL}");
        let mut listening = std::pin::pin!(timeout(self.connect_limit, client.batch_execute(&listen)));
        loop {
            // Nothing moves on the connection but while its messages are asked for.
            tokio::select! {
                listens = &mut listening, if !*heard => {
                    listens??;
                    *heard = true;
                    self.told.notify_one();
                }
                message = messages.next() => match message.transpose()? {
                    Some(AsyncMessage::Notification(word)) if word.payload() != self.name => self.told.notify_one(),
                    Some(_) => {}
                    None => return Ok(()),
                },
            }
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
