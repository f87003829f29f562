//! Named accounts at a provider: the sender a message leaves from, and the budget it spends.

use std::fmt;
use std::sync::Arc;

use super::Channel;

/// The ledger's small number for an account (rows on the hot path carry it instead of a name).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(pub i16);

/// One message's leave to try an account that is down; each has the next number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe(pub i64);

/// An account as the settings name it: `[whatsapp.main]` is channel `whatsapp`, name `main`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountRef {
    pub channel: Channel,
    pub name: Arc<str>,
}

impl fmt::Display for AccountRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.channel, self.name)
    }
}
