//! The shared ledger: PostgreSQL, for any number of processes.
//!
//! Hot changes go through one group-commit task per kind ([`committer`]); their statements are pipelined, so that a
//! group costs two round trips. Every call has a time limit, here and on the server.

mod accept;
mod committer;
mod connection;
mod frozen;
mod load;
mod neighbours;
mod open;
pub(crate) mod pool;
pub mod probe;
mod record;
mod reschedule;
mod settle;
mod sql;
mod take;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Object, Pool};
use futures::future::BoxFuture;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::committer::{Change, Committer};
use self::neighbours::Neighbourhood;
use self::pool::Server;
use super::fields::{HasKnownFields, KnownFields};
use super::ledger::{HandedLong, Ledger, NewEpoch, NewNotification, Postpone, Recover, Recovered, Settle, Waiting};
use super::opens::OpenSets;
use super::sql::{Sql as _, Statement};
use super::{
    Accept, Accepted, ChunkId, Condition, HandedChunk, LedgerOptions, Open, Opened, Record, Store, StoreError, TakeDue,
    Urgency, recovery, waiting,
};
use crate::domain::{AccountId, AccountRef, BatchId, Channel, Clock, Epoch, IdSource, NotificationId};

/// Rows in one commit of the hot path.
const GROUP_ROWS: usize = 1000;

/// See the module.
pub struct Postgres {
    pool: Pool,
    ids: Arc<IdSource>,
    call_timeout: Duration,
    shared: Shared,
    lease: Duration,
    fields: KnownFields,
    urgent_accept: Committer<Accept, Accepted>,
    bulk_accept: Committer<Accept, Accepted>,
    urgent_open: Committer<Open, Vec<Opened>>,
    record: Committer<Record, Vec<bool>>,
    neighbourhood: Neighbourhood,
}

/// What every committer needs.
#[derive(Clone)]
struct Shared {
    pool: Pool,
    call_timeout: Duration,
    opens: Arc<OpenSets>,
    ids: Arc<IdSource>,
}

impl Postgres {
    /// Connects, checks that commits are durable, migrates.
    pub async fn connect(
        url: &SecretString,
        options: &LedgerOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let (server, pool) = connection::server_and_pool(url, options)?;
        let mut client = connection::get(&pool, "connecting to PostgreSQL").await?;
        connection::check_durability(&client).await?;
        connection::migrate(&mut client).await?;
        drop(client);
        Ok(Self::new(server, pool, options, clock))
    }

    /// Connects to an existing ledger to look at it; changes nothing.
    pub async fn connect_read_only(
        url: &SecretString,
        options: &LedgerOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let (server, pool) = connection::server_and_pool(url, options)?;
        connection::must_be_current(&connection::get(&pool, "connecting to PostgreSQL").await?).await?;
        Ok(Self::new(server, pool, options, clock))
    }

    fn new(server: Server, pool: Pool, options: &LedgerOptions, clock: Arc<dyn Clock>) -> Self {
        let ids = Arc::new(IdSource::new(clock));
        let shared = Shared {
            pool: pool.clone(),
            call_timeout: options.call_timeout,
            opens: Arc::default(),
            ids: Arc::clone(&ids),
        };
        // The committers end when the ledger is dropped: their channels close.
        let tracker = TaskTracker::new();
        let neighbourhood = Neighbourhood::new(&shared, server);
        let (urgent, bulk, opening, recording) = (shared.clone(), shared.clone(), shared.clone(), shared.clone());
        Postgres {
            pool,
            ids,
            call_timeout: options.call_timeout,
            shared,
            lease: options.lease,
            fields: KnownFields::default(),
            urgent_accept: Committer::start(&tracker, GROUP_ROWS, move |group| accept::commit(urgent.clone(), group)),
            bulk_accept: Committer::start(&tracker, GROUP_ROWS, move |group| accept::commit(bulk.clone(), group)),
            urgent_open: Committer::start(&tracker, GROUP_ROWS, move |group| open::commit(opening.clone(), group)),
            record: Committer::start(&tracker, GROUP_ROWS, move |group| record::commit(recording.clone(), group)),
            neighbourhood,
        }
    }
}

impl Shared {
    /// Runs `work` on a connection of its own within the time limit. After an error the connection is closed, which
    /// rolls back whatever it had begun.
    async fn on_connection<T: Send>(
        &self,
        doing: &'static str,
        work: impl for<'c> FnOnce(&'c Object) -> BoxFuture<'c, Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        on_connection(&self.pool, self.call_timeout, doing, work).await
    }
}

async fn on_connection<T: Send>(
    pool: &Pool,
    limit: Duration,
    doing: &'static str,
    work: impl for<'c> FnOnce(&'c Object) -> BoxFuture<'c, Result<T, StoreError>> + Send,
) -> Result<T, StoreError> {
    let mut client = Unfinished(Some(connection::get(pool, doing).await?));
    let connection = client.0.as_ref().expect("it is taken out only below");
    let result = match tokio::time::timeout(limit, work(connection)).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::unavailable(doing, format!("no answer from PostgreSQL within {limit:?}"))),
    };
    if result.is_ok() {
        // Back into the pool.
        drop(client.0.take());
    }
    result
}

/// A connection that may be within a transaction. Unless its work ends well it is closed: after an error, and also
/// when whoever waited for it goes away, so that no half of a change is ever committed by the next user of the pool.
struct Unfinished(Option<Object>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Object::take(client));
        }
    }
}

#[async_trait]
impl Store for Postgres {
    fn engine(&self) -> &'static str {
        "postgres"
    }

    async fn condition(&self) -> Result<Condition, StoreError> {
        const SETTINGS: [&str; 3] = ["fsync", "synchronous_commit", "full_page_writes"];
        let sql = "SELECT current_setting('server_version'), current_setting('fsync'),
                          current_setting('synchronous_commit'), current_setting('full_page_writes'),
                          (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let rows = self.read("asking PostgreSQL how it is set up", sql.into(), vec![]).await?;
        let Some(row) = rows.first() else { return Err(StoreError::refused("asking PostgreSQL", "it did not say")) };
        let values = [row.text(1)?, row.text(2)?, row.text(3)?];
        Ok(Condition {
            version: row.text(0)?,
            is_durable: values.iter().all(|value| value != "off"),
            durability: SETTINGS.into_iter().zip(values).collect(),
            clock: Some(row.time(4)?),
        })
    }
}

#[async_trait]
impl Ledger for Postgres {
    async fn accounts(&self, accounts: Vec<AccountRef>) -> Result<Vec<(AccountId, AccountRef)>, StoreError> {
        recovery::number_accounts(self, accounts).await
    }

    async fn begin_epoch(&self, new: NewEpoch) -> Result<Epoch, StoreError> {
        const DOING: &str = "beginning an epoch";
        let insert = Statement::new(
            "INSERT INTO workers (name, started_at, lease_until, channels)
             VALUES ($1, vestnik_now(), vestnik_now() + $2, $3) RETURNING epoch",
            vec![new.name.into(), micros(self.lease).into(), recovery::bits(&new.channels).into()],
        );
        let rows = self.write(DOING, vec![insert]).await?;
        rows[0].first().map_or_else(|| Err(StoreError::refused(DOING, "no epoch")), |row| row.int(0).map(Epoch))
    }

    async fn renew(&self, epoch: Epoch) -> Result<(), StoreError> {
        let renew = Statement::new(
            "UPDATE workers SET lease_until = vestnik_now() + $2
             WHERE epoch = $1 AND lost_at IS NULL AND lease_until >= vestnik_now() RETURNING epoch",
            vec![epoch.0.into(), micros(self.lease).into()],
        );
        let rows = self.write("renewing the lease", vec![renew]).await?;
        if rows[0].is_empty() { Err(StoreError::EpochLost) } else { Ok(()) }
    }

    async fn senders(&self) -> Result<HashMap<Channel, u32>, StoreError> {
        recovery::senders(self).await
    }

    async fn end_epoch(&self, epoch: Epoch) -> Result<(), StoreError> {
        recovery::end_epoch(self, epoch).await
    }

    async fn accept(&self, accept: Accept) -> Result<Accepted, StoreError> {
        let committer = match accept.urgency {
            Urgency::Urgent => &self.urgent_accept,
            Urgency::Bulk => &self.bulk_accept,
        };
        committer.commit("accepting", accept).await
    }

    async fn take_due(&self, take: TakeDue) -> Result<Vec<HandedChunk>, StoreError> {
        let ids = Arc::clone(&self.ids);
        self.shared
            .on_connection("taking due work", move |client| {
                Box::pin(async move { take::take_due(client, &ids, take).await })
            })
            .await
    }

    async fn waiting(&self) -> Result<Waiting, StoreError> {
        waiting::waiting(self).await
    }

    async fn load(&self, ids: Vec<NotificationId>) -> Result<Vec<NewNotification>, StoreError> {
        const DOING: &str = "reading what was handed over";
        on_connection(&self.pool, self.call_timeout, DOING, move |client| {
            Box::pin(async move { load::load(client, &ids).await })
        })
        .await
    }

    async fn open(&self, open: Open) -> Result<Vec<Opened>, StoreError> {
        self.urgent_open.commit("opening attempts", open).await
    }

    async fn record(&self, record: Record) -> Result<Vec<bool>, StoreError> {
        self.record.commit("recording outcomes", record).await
    }

    async fn give_back(&self, chunk: ChunkId) -> Result<u64, StoreError> {
        recovery::give_back_one(self, chunk).await
    }

    async fn recount(&self, before: Timestamp, by: Option<Epoch>) -> Result<Vec<HandedLong>, StoreError> {
        recovery::recount(self, before, by).await
    }

    async fn postpone(&self, postpones: Vec<Postpone>) -> Result<Vec<bool>, StoreError> {
        let shared = self.shared.clone();
        self.shared
            .on_connection("postponing notifications", move |client| {
                Box::pin(async move { settle::postpone(client, &shared, &postpones).await })
            })
            .await
    }

    async fn settle(&self, settles: Vec<Settle>) -> Result<Vec<bool>, StoreError> {
        let shared = self.shared.clone();
        self.shared
            .on_connection("settling notifications", move |client| {
                Box::pin(async move { settle::settle(client, &shared, &settles).await })
            })
            .await
    }

    async fn reschedule(&self, id: NotificationId, at: Timestamp) -> Result<bool, StoreError> {
        waiting::reschedule(self, id, at).await
    }

    async fn reschedule_batch(&self, id: BatchId, at: Timestamp) -> Result<bool, StoreError> {
        self.shared
            .on_connection(reschedule::DOING, move |client| {
                Box::pin(async move { reschedule::reschedule_batch(client, id, at).await })
            })
            .await
    }

    async fn recover(&self, recover: Recover) -> Result<Recovered, StoreError> {
        let limit = pool::idle_limit(self.call_timeout);
        let ended = self.shared.on_connection(frozen::DOING, move |client| {
            Box::pin(async move { frozen::end_frozen(client, limit).await })
        });
        if let Err(error) = ended.await {
            // What they hold may be all that cannot be settled now.
            tracing::warn!(error = &error as &dyn std::error::Error, "could not end sessions of frozen processes");
        }
        recovery::recover(self, recover).await
    }
}

impl recovery::HasIds for Postgres {
    fn next_id(&self) -> Uuid {
        self.ids.next()
    }
}

impl HasKnownFields for Postgres {
    fn known_fields(&self) -> &KnownFields {
        &self.fields
    }
}

impl recovery::LedgerClock for Postgres {
    fn now_sql(&self) -> String {
        "vestnik_now()".into()
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

impl Change for Accept {
    fn weight(&self) -> usize {
        self.notifications.len()
    }
}

impl Change for Open {
    fn weight(&self) -> usize {
        self.claims.len()
    }
}

impl Change for Record {
    fn weight(&self) -> usize {
        self.closes.len()
    }
}
