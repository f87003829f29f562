//! Records that are kept here, in the ledger's database.

use std::sync::Arc;

use async_trait::async_trait;

use super::{RecordSource, SourceError};
use crate::domain::{Record, RecordId, RecordKind};
use crate::store::{Records, StoreError};

pub struct BuiltIn {
    records: Arc<dyn Records>,
}

impl BuiltIn {
    pub fn new(records: Arc<dyn Records>) -> Self {
        BuiltIn { records }
    }
}

#[async_trait]
impl RecordSource for BuiltIn {
    async fn load(&self, kind: RecordKind, ids: Vec<RecordId>) -> Result<Vec<Record>, SourceError> {
        let kept = self.records.records(kind, ids).await.map_err(|error| unavailable(kind, error))?;
        Ok(kept.into_iter().map(|kept| kept.record).collect())
    }

    async fn fields(&self, kind: RecordKind) -> Result<Vec<String>, SourceError> {
        self.records.record_fields(kind).await.map_err(|error| unavailable(kind, error))
    }
}

/// Whatever the ledger has against it, no query of an operator's is to blame.
fn unavailable(kind: RecordKind, error: StoreError) -> SourceError {
    SourceError::Unavailable { kind, source: error.into() }
}
