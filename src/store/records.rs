//! The CRM records kept here: contacts, leads, deals, companies.

use async_trait::async_trait;
use jiff::Timestamp;

use super::StoreError;
use crate::domain::{Channel, Record, RecordId, RecordKind};

/// Records read or written in one call at most.
pub const RECORDS_AT_ONCE: usize = 500;

/// Records, each with its whole content; the ledger's notifications name them by id and hold no copy.
#[async_trait]
pub trait Records: Send + Sync {
    /// Writes up to [`RECORDS_AT_ONCE`] of one kind as one durable change. The answer says of each, in order, what
    /// became of it. An id given twice is written twice, in order. A record that stays what it was is not touched.
    async fn save_records(
        &self,
        kind: RecordKind,
        records: Vec<Record>,
        how: SaveHow,
        at: Timestamp,
    ) -> Result<Vec<Saved>, StoreError>;

    /// Those of the ids that are there, in no order. One query, however many.
    async fn records(&self, kind: RecordKind, ids: Vec<RecordId>) -> Result<Vec<KeptRecord>, StoreError>;

    /// A page in order of id, after the given one.
    async fn list_records(
        &self,
        kind: RecordKind,
        filter: RecordFilter,
        after: Option<RecordId>,
        limit: u32,
    ) -> Result<Vec<KeptRecord>, StoreError>;

    /// Whether there was one. What was sent about it stays: [`Erasures`](super::Erasures) is for that.
    async fn delete_record(&self, kind: RecordKind, id: RecordId) -> Result<bool, StoreError>;

    /// The names of all fields that a record of this kind ever had, `id` among them, sorted; records within records
    /// as `address.city`, as deep as two. Empty as long as there was no record. For checks of templates.
    async fn record_fields(&self, kind: RecordKind) -> Result<Vec<String>, StoreError>;
}

/// What becomes of fields that a new record does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveHow {
    /// They stay; a null takes one away.
    Merge,
    /// They go.
    Replace,
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saved {
    Created,
    Updated,
    Unchanged,
    /// Merged, it would be more than a record may be.
    Refused(String),
}

/// What a list is narrowed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// Records with this address on this channel, exactly.
    pub address: Option<(Channel, String)>,
    /// Records that hold a word beginning with each of these words, in any field, whatever the case.
    pub text: Option<String>,
}

/// A record with its times.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptRecord {
    pub record: Record,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}
