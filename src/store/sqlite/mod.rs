//! The embedded ledger: one SQLite file, one writer thread with group commit, used by one process.

mod accept;
mod connection;
mod load;
mod open;
mod record;
mod reschedule;
mod settle;
mod setup;
mod sql;
mod take;

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, params};

use self::connection::{Connections, from_sqlite};
use super::fields::{HasKnownFields, KnownFields};
use super::ledger::{HandedLong, Ledger, NewEpoch, NewNotification, Postpone, Recover, Recovered, Settle, Waiting};
use super::opens::OpenSets;
use super::sql::Sql as _;
use super::{
    Accept, Accepted, ChunkId, Condition, HandedChunk, LedgerOptions, Neighbours, Open, Opened, Record, Store,
    StoreError, TakeDue, Urgency, migrations, recovery, waiting,
};
use crate::domain::{AccountId, AccountRef, BatchId, Channel, Clock, Epoch, IdSource, NotificationId};

/// See the module.
pub struct Sqlite {
    connections: Connections,
    opens: Arc<OpenSets>,
    ids: Arc<IdSource>,
    clock: Arc<dyn Clock>,
    fields: KnownFields,
    /// Held as long as the ledger is open for writing: a second process is refused, and every earlier epoch is known
    /// to be dead.
    _lock: Option<File>,
}

impl Sqlite {
    /// Opens or makes `data_dir/ledger.sqlite3`.
    pub async fn open(options: &LedgerOptions, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let (dir, normal) = (options.data_dir.clone(), options.sqlite_normal);
        let now = clock.now();
        let opened = tokio::task::spawn_blocking(move || setup::open(&dir, normal, now)).await;
        let (connections, lock) = opened.map_err(|error| StoreError::refused("opening the ledger", error))??;
        Ok(Self::new(connections, clock, Some(lock)))
    }

    /// Opens an existing ledger to look at it, beside a process that may be using it.
    pub async fn open_read_only(options: &LedgerOptions, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let path = setup::existing(&options.data_dir)?;
        let ledger = Self::new(Connections::read_only(&path), clock, None);
        let applied = ledger.read("reading the ledger's version", setup::APPLIED.into(), vec![]).await?;
        let applied =
            applied.iter().map(|row| Ok((row.int(0)?, row.text(1)?))).collect::<Result<Vec<_>, StoreError>>()?;
        migrations::must_be_current(&applied, |migration| migration.sqlite)?;
        Ok(ledger)
    }

    fn new(connections: Connections, clock: Arc<dyn Clock>, lock: Option<File>) -> Self {
        let ids = Arc::new(IdSource::new(Arc::clone(&clock)));
        Sqlite { connections, opens: Arc::default(), ids, clock, fields: KnownFields::default(), _lock: lock }
    }
}

#[async_trait]
impl Store for Sqlite {
    fn engine(&self) -> &'static str {
        "sqlite"
    }

    async fn condition(&self) -> Result<Condition, StoreError> {
        let sql = "SELECT sqlite_version(), journal_mode FROM pragma_journal_mode";
        let rows = self.read("asking SQLite how it is set up", sql.into(), vec![]).await?;
        let Some(row) = rows.first() else { return Err(StoreError::refused("asking SQLite", "it did not say")) };
        let journal = row.text(1)?;
        // `synchronous` belongs to the writer's connection, not to the file: the settings say it.
        let is_durable = journal == "wal";
        Ok(Condition { version: row.text(0)?, durability: vec![("journal_mode", journal)], is_durable, clock: None })
    }
}

#[async_trait]
impl Ledger for Sqlite {
    async fn accounts(&self, accounts: Vec<AccountRef>) -> Result<Vec<(AccountId, AccountRef)>, StoreError> {
        recovery::number_accounts(self, accounts).await
    }

    async fn begin_epoch(&self, new: NewEpoch) -> Result<Epoch, StoreError> {
        let now = self.clock.now().as_microsecond();
        let channels = recovery::bits(&new.channels);
        let begin = move |db: &Connection| {
            // The lock file is ours: whoever is in here is dead.
            let ended = db.execute("UPDATE workers SET lost_at = ?1, lease_until = 0 WHERE lost_at IS NULL", [now]);
            ended
                .and_then(|_| {
                    db.query_row(
                        "INSERT INTO workers (name, started_at, lease_until, channels) VALUES (?1, ?2, ?3, ?4)
                         RETURNING epoch",
                        params![new.name, now, i64::MAX, channels],
                        |row| row.get(0),
                    )
                })
                .map(Epoch)
                .map_err(|error| from_sqlite("beginning an epoch", error))
        };
        self.connections.write("beginning an epoch", Urgency::Urgent, begin, drop).await
    }

    async fn renew(&self, epoch: Epoch) -> Result<(), StoreError> {
        // The lock file is the lease: it lasts as long as the process, or until the process begins anew.
        let is_live = move |db: &Connection| accept::is_live(db, epoch.0);
        if self.connections.read("renewing the lease", is_live).await? { Ok(()) } else { Err(StoreError::EpochLost) }
    }

    async fn senders(&self) -> Result<HashMap<Channel, u32>, StoreError> {
        recovery::senders(self).await
    }

    async fn end_epoch(&self, epoch: Epoch) -> Result<(), StoreError> {
        recovery::end_epoch(self, epoch).await
    }

    async fn accept(&self, accept: Accept) -> Result<Accepted, StoreError> {
        let (opens, ids) = (Arc::clone(&self.opens), Arc::clone(&self.ids));
        let urgency = accept.urgency;
        let undo_opens = Arc::clone(&self.opens);
        let run = move |db: &Connection| {
            let (accepted, opened) = accept::accept(db, &accept, &ids)?;
            if let Some(set) = opened {
                opens.opened(set, accept::opened_ids(&accept));
                return Ok((accepted, accept::opened_ids(&accept).collect()));
            }
            Ok((accepted, Vec::new()))
        };
        let undo = move |(_, opened): (Accepted, Vec<_>)| drop(undo_opens.closing(opened));
        self.connections.write("accepting", urgency, run, undo).await.map(|(accepted, _)| accepted)
    }

    async fn take_due(&self, take: TakeDue) -> Result<Vec<HandedChunk>, StoreError> {
        let (ids, now) = (Arc::clone(&self.ids), self.clock.now());
        let run = move |db: &Connection| take::take_due(db, &take, &ids, now);
        self.connections.write("taking due work", Urgency::Bulk, run, drop).await
    }

    async fn waiting(&self) -> Result<Waiting, StoreError> {
        waiting::waiting(self).await
    }

    async fn load(&self, ids: Vec<NotificationId>) -> Result<Vec<NewNotification>, StoreError> {
        self.connections.read("reading what was handed over", move |db| load::load(db, &ids)).await
    }

    async fn open(&self, open: Open) -> Result<Vec<Opened>, StoreError> {
        let (opens, ids, now) = (Arc::clone(&self.opens), Arc::clone(&self.ids), self.clock.now());
        let urgency = open.urgency;
        let undo_opens = Arc::clone(&self.opens);
        let run = move |db: &Connection| {
            let set = ids.next();
            let opened = open::open(db, &open, set, now)?;
            opens.opened(set, opened.iter().map(|opened| opened.id));
            Ok(opened)
        };
        let undo = move |opened: Vec<Opened>| drop(undo_opens.closing(opened.into_iter().map(|opened| opened.id)));
        self.connections.write("opening attempts", urgency, run, undo).await
    }

    async fn record(&self, record: Record) -> Result<Vec<bool>, StoreError> {
        let (opens, ids) = (Arc::clone(&self.opens), Arc::clone(&self.ids));
        let urgency = record.urgency;
        let undo_opens = Arc::clone(&self.opens);
        let run = move |db: &Connection| record::record(db, &record, &opens, &ids);
        let undo = move |(_, closing)| undo_opens.take_back(closing);
        self.connections.write("recording outcomes", urgency, run, undo).await.map(|(closed, _)| closed)
    }

    async fn give_back(&self, chunk: ChunkId) -> Result<u64, StoreError> {
        recovery::give_back_one(self, chunk).await
    }

    async fn recount(&self, before: Timestamp, by: Option<Epoch>) -> Result<Vec<HandedLong>, StoreError> {
        recovery::recount(self, before, by).await
    }

    async fn postpone(&self, postpones: Vec<Postpone>) -> Result<Vec<bool>, StoreError> {
        let ids = Arc::clone(&self.ids);
        let run = move |db: &Connection| settle::postpone(db, &postpones, &ids);
        self.connections.write("postponing notifications", Urgency::Bulk, run, drop).await
    }

    async fn settle(&self, settles: Vec<Settle>) -> Result<Vec<bool>, StoreError> {
        let ids = Arc::clone(&self.ids);
        let run = move |db: &Connection| settle::settle(db, &settles, &ids);
        self.connections.write("settling notifications", Urgency::Bulk, run, drop).await
    }

    async fn reschedule(&self, id: NotificationId, at: Timestamp) -> Result<bool, StoreError> {
        waiting::reschedule(self, id, at).await
    }

    async fn reschedule_batch(&self, id: BatchId, at: Timestamp) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let run = move |db: &Connection| reschedule::reschedule_batch(db, id, at, now);
        self.connections.write("moving a batch", Urgency::Urgent, run, drop).await
    }

    async fn recover(&self, recover: Recover) -> Result<Recovered, StoreError> {
        recovery::recover(self, recover).await
    }
}

impl recovery::HasIds for Sqlite {
    fn next_id(&self) -> uuid::Uuid {
        self.ids.next()
    }
}

/// Its lock keeps every other process out.
impl Neighbours for Sqlite {}

impl HasKnownFields for Sqlite {
    fn known_fields(&self) -> &KnownFields {
        &self.fields
    }
}

impl recovery::LedgerClock for Sqlite {
    fn now_sql(&self) -> String {
        self.clock.now().as_microsecond().to_string()
    }
}
