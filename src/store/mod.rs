//! Seam: what is remembered.
//!
//! The ledger is the truth: what was accepted, where it stands, every send and how it ended. A trait per subject, a
//! method per use case; what must be atomic is one method, and no transaction crosses a trait. Both databases keep
//! the same promises and pass one contract suite. What is the same SQL for both is written once, on [`sql::Sql`]; the
//! hot statements have a file each in `sqlite/` and `postgres/`.

pub mod account_states;
pub mod backlog;
pub mod batches;
pub mod dead_letters;
pub mod erasures;
mod fields;
pub mod keys;
pub mod ledger;
pub mod lookup;
mod mentions;
pub mod migrations;
pub mod neighbours;
pub mod opens;
mod personal;
mod plan;
pub mod postgres;
pub mod quarantine;
pub mod records;
mod recovery;
pub mod retention;
mod search;
pub mod sql;
pub mod sqlite;
pub mod suppressions;
pub mod templates;
pub mod uncertain;
pub mod undecided;
pub mod verify;
mod waiting;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use secrecy::SecretString;

pub use account_states::{AccountNews, AccountState, AccountStates, DayDemand, KnownDown, KnownPause};
pub use backlog::{Backlog, Backlogs, Retrying};
pub use batches::{AcceptBatch, BatchBegun, Batches, FoundBatch, NewBatch};
pub use dead_letters::{CauseGroup, DeadLetters, Decision, Replay};
pub use erasures::{Erasure, ErasureStep, Erasures};
pub use keys::{ApiKey, ApiKeys, NewApiKey, Scope};
pub use ledger::{
    Accept, Accepted, Begin, ChunkId, Claim, Close, Counts, Handed, HandedChunk, HandedLong, HandedOver, HeldBatch,
    Ledger, NewEpoch, NewKey, NewNotification, Next, Open, Opened, Postpone, Record, Recover, Recovered, Settle,
    StoredKey, Stream, TakeDue, TakeFrom, Urgency, Waiting, WaitingStream,
};
pub use lookup::{FoundNotification, ListFilter, Lookup, Page, Resolved, SettledByHand, Totals};
pub use neighbours::Neighbours;
pub use personal::ERASED;
pub use quarantine::{Quarantine, Quarantined};
pub use records::{KeptRecord, RECORDS_AT_ONCE, RecordFilter, Records, SaveHow, Saved};
pub use recovery::after_unknown;
pub use retention::{Cleared, Retention, YOUNGEST_REMOVED};
pub use suppressions::{Suppression, SuppressionScope, Suppressions};
pub use templates::{SavedTemplate, Templates};
pub use uncertain::{Settlement, UncertainNotifications};
pub use undecided::{Undecided, UndecidedFilter};
pub use verify::{Finding, Verify, VerifyReport};

use crate::domain::Clock;

/// Everything the service remembers. `app` holds one; whoever uses it asks for the narrowest part.
#[async_trait]
pub trait Store:
    Ledger
    + AccountStates
    + Neighbours
    + Backlogs
    + Batches
    + Lookup
    + DeadLetters
    + UncertainNotifications
    + Quarantine
    + Records
    + Erasures
    + Retention
    + Templates
    + ApiKeys
    + Suppressions
    + Verify
    + Send
    + Sync
    + 'static
{
    /// `sqlite` or `postgres`, for people.
    fn engine(&self) -> &'static str;

    /// How the database is set up. For `vestnik doctor`.
    async fn condition(&self) -> Result<Condition, StoreError>;
}

/// What a database says of itself.
#[derive(Clone, Debug)]
pub struct Condition {
    pub version: String,
    /// The settings that durability hangs on, with their values.
    pub durability: Vec<(&'static str, String)>,
    /// Whether committed means on disk, as far as those settings say.
    pub is_durable: bool,
    /// The server's clock, where it has one of its own.
    pub clock: Option<Timestamp>,
}

/// Why the ledger did not do what it was asked. A variant exists where the caller acts differently.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not answer, not in time, or broke off: whether it happened is unknown. Ask again with the
    /// same key or id.
    #[error("the ledger is not available ({doing})")]
    Unavailable {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This process was declared dead: it may open nothing any more.
    #[error("this process lost its lease on the ledger: it opens nothing until it starts anew")]
    EpochLost,
    /// The database refused for a reason that repeating does not mend: a bug, or damage.
    #[error("the ledger refused ({doing})")]
    Refused {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The ledger cannot be opened as it is; says what to do.
    #[error("{0}")]
    Setup(String),
}

impl StoreError {
    pub(crate) fn unavailable(
        doing: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        StoreError::Unavailable { doing, source: source.into() }
    }

    pub(crate) fn refused(doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        StoreError::Refused { doing, source: source.into() }
    }
}

/// Where the ledger is and how it is kept.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// PostgreSQL, when given; else SQLite in `data_dir`.
    pub database_url: Option<SecretString>,
    pub data_dir: PathBuf,
    /// Connections to PostgreSQL at most.
    pub pool_size: usize,
    /// No call to the database takes longer.
    pub call_timeout: Duration,
    /// SQLite: give up the last commits on a power cut for speed (`synchronous=NORMAL`).
    pub sqlite_normal: bool,
    /// How long a process counts as alive after its last sign of life (PostgreSQL).
    pub lease: Duration,
}

/// Opens the ledger that the options name, migrated to this version.
///
/// # Errors
/// [`StoreError::Setup`] when it is in use by another process (SQLite), of a newer version, damaged, or set up so
/// that accepted would not mean durable.
pub async fn connect(options: &LedgerOptions, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
    match &options.database_url {
        Some(url) => Ok(Arc::new(postgres::Postgres::connect(url, options, clock).await?)),
        None => Ok(Arc::new(sqlite::Sqlite::open(options, clock).await?)),
    }
}

/// Opens an existing ledger to look at it; every change is refused. A SQLite ledger may be in use by another process.
///
/// # Errors
/// [`StoreError::Setup`] when there is none, or not of this version.
pub async fn connect_read_only(options: &LedgerOptions, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
    match &options.database_url {
        Some(url) => Ok(Arc::new(postgres::Postgres::connect_read_only(url, options, clock).await?)),
        None => Ok(Arc::new(sqlite::Sqlite::open_read_only(options, clock).await?)),
    }
}
