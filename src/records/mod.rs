//! Seam: where CRM records come from.
//!
//! A source hands out records by id, many at once: the ledger's own (`builtin`), or queries on the CRM's database
//! (`sql`). Each kind of record has one source. `context` puts together what a template sees of a notification's
//! records: those named, and those that they link to. Whoever renders asks here and nowhere else.

pub mod builtin;
pub mod context;
pub mod sql;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

pub use builtin::BuiltIn;
pub use context::{Context, Loaded, Missing, NoAddress, RecordSet, Role};
pub use sql::SqlSource;

use crate::domain::{Record, RecordId, RecordKind};

/// Hands out records of one or more kinds.
///
/// One call is one query per kind, however many ids. Ids that are not there are missing in the answer, which has no
/// order. A source never writes to what it reads.
#[async_trait]
pub trait RecordSource: Send + Sync {
    async fn load(&self, kind: RecordKind, ids: Vec<RecordId>) -> Result<Vec<Record>, SourceError>;

    /// The names of the fields that records of this kind have, as far as is known; empty where nothing is known.
    async fn fields(&self, kind: RecordKind) -> Result<Vec<String>, SourceError>;
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It did not answer, or not in time: ask again later.
    #[error("the source of {kind} records is not available")]
    Unavailable {
        kind: RecordKind,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered what cannot be used: a query to be mended.
    #[error("the source of {kind} records answers nothing usable: {detail}")]
    Unusable { kind: RecordKind, detail: String },
}

/// The source of each kind.
pub struct Sources {
    here: Arc<dyn RecordSource>,
    elsewhere: HashMap<RecordKind, Arc<dyn RecordSource>>,
}

impl Sources {
    /// All kinds are kept here.
    pub fn new(here: Arc<dyn RecordSource>) -> Self {
        Sources { here, elsewhere: HashMap::new() }
    }

    /// Kinds that have another source.
    #[must_use]
    pub fn with(mut self, kinds: impl IntoIterator<Item = RecordKind>, source: &Arc<dyn RecordSource>) -> Self {
        self.elsewhere.extend(kinds.into_iter().map(|kind| (kind, Arc::clone(source))));
        self
    }

    /// The kinds that are not kept here: nothing of theirs can be written.
    pub fn elsewhere(&self) -> impl Iterator<Item = RecordKind> {
        RecordKind::ALL.iter().copied().filter(|kind| self.is_elsewhere(*kind))
    }

    pub fn is_elsewhere(&self, kind: RecordKind) -> bool {
        self.elsewhere.contains_key(&kind)
    }

    fn of(&self, kind: RecordKind) -> &dyn RecordSource {
        &**self.elsewhere.get(&kind).unwrap_or(&self.here)
    }
}

#[async_trait]
impl RecordSource for Sources {
    async fn load(&self, kind: RecordKind, ids: Vec<RecordId>) -> Result<Vec<Record>, SourceError> {
        self.of(kind).load(kind, ids).await
    }

    async fn fields(&self, kind: RecordKind) -> Result<Vec<String>, SourceError> {
        self.of(kind).fields(kind).await
    }
}
