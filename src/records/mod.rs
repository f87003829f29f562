//! Seam: where CRM records come from.
//!
//! A source hands out records by id, many at once: the ledger's own (`builtin`), or queries on the CRM's database
//! (`sql`). Each kind of record has one source. `context` puts together what a template sees of a notification's
//! records: those named, and those that they link to. Whoever renders asks here and nowhere else.

use async_trait::async_trait;

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
