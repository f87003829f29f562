//! What a template sees of a notification's records: those it names, and those that they link to.
//!
//! Records are read for many notifications at once, in stages: deals and leads, then contacts, then companies, then
//! the managers that only contacts and companies named. Each stage is one query per kind, and each record is asked for
//! once.

mod set;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

pub use self::set::{Missing, NoAddress, RecordSet, Role};
use super::{RecordSource, SourceError};
use crate::domain::{Record, RecordId, RecordIds, RecordKind};

/// Puts records together.
pub struct Context {
    source: Arc<dyn RecordSource>,
}

impl Context {
    pub fn new(source: Arc<dyn RecordSource>) -> Self {
        Context { source }
    }

    /// Reads all records that these notifications name, and those that they link to.
    pub async fn load(&self, wanted: &[RecordIds]) -> Result<Loaded, SourceError> {
        let mut loaded = Loaded::default();
        let (deals, leads) = (loaded.wanting(wanted, &[Role::Deal]), loaded.wanting(wanted, &[Role::Lead]));
        let (deals, leads) = tokio::try_join!(self.read(RecordKind::Deal, deals), self.read(RecordKind::Lead, leads))?;
        loaded.add(deals);
        loaded.add(leads);
        for (kind, roles) in [
            (RecordKind::Contact, &[Role::Contact, Role::Manager][..]),
            (RecordKind::Company, &[Role::Company]),
            (RecordKind::Contact, &[Role::Manager]),
        ] {
            let ids = loaded.wanting(wanted, roles);
            loaded.add(self.read(kind, ids).await?);
        }
        Ok(loaded)
    }

    async fn read(&self, kind: RecordKind, ids: Vec<RecordId>) -> Result<Vec<Record>, SourceError> {
        if ids.is_empty() { Ok(Vec::new()) } else { self.source.load(kind, ids).await }
    }
}

/// Records of many notifications.
#[derive(Default)]
pub struct Loaded {
    /// `None` is a record that was asked for, and is not there.
    records: HashMap<RecordKind, HashMap<RecordId, Option<Arc<Record>>>>,
}

impl Loaded {
    /// What one of the notifications sees. An id that was given wins over links; of links the nearest wins: the deal's
    /// over the lead's, the lead's over the contact's, the contact's over the company's.
    pub fn of(&self, ids: &RecordIds) -> RecordSet {
        let mut set = RecordSet::default();
        for role in Role::ALL {
            let Some(id) = role.given(ids).or_else(|| set.named(role)) else { continue };
            let found = RecordId::parse(role.kind(), &id).ok().and_then(|id| self.get(role.kind(), &id));
            set.put(role, id, found);
        }
        set
    }

    fn get(&self, kind: RecordKind, id: &RecordId) -> Option<Arc<Record>> {
        self.records.get(&kind)?.get(id)?.clone()
    }

    /// The ids in these roles, all of one kind, that were not asked for yet. They count as asked for from here on.
    fn wanting(&mut self, wanted: &[RecordIds], roles: &[Role]) -> Vec<RecordId> {
        let mut wanting = Vec::new();
        for ids in wanted {
            let missing = self.of(ids).missing;
            for Missing { role, id } in missing.iter().filter(|missing| roles.contains(&missing.role)) {
                // An id that can be none is not there.
                let Ok(id) = RecordId::parse(role.kind(), id) else { continue };
                if let Entry::Vacant(entry) = self.records.entry(role.kind()).or_default().entry(id) {
                    wanting.push(entry.key().clone());
                    entry.insert(None);
                }
            }
        }
        wanting
    }

    fn add(&mut self, records: Vec<Record>) {
        for record in records {
            let of_kind = self.records.entry(record.kind).or_default();
            of_kind.insert(record.id.clone(), Some(Arc::new(record)));
        }
    }
}

#[cfg(test)]
mod tests;
