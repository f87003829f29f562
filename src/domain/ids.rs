//! Names of things: a newtype each, so that one can never be given for another.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use uuid::{ContextV7, Uuid};

use super::Clock;

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(text).map($name)
            }
        }
    };
}

uuid_newtype! {
    /// One notification, from the request to its last receipt. Version 7: ids sort by the time they were made.
    NotificationId
}
uuid_newtype! {
    /// The notifications of one bulk call.
    BatchId
}
uuid_newtype! {
    /// One request to erase a record's personal data.
    ErasureId
}

/// One life of one worker process. A new start is a new epoch; the ledger opens nothing for a lost one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub i64);

/// How many times a notification was handed over; a copy that carries an older one finds nothing to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub i32);

/// A template's name, chosen by its author: 1 to 100 of `a-z A-Z 0-9 . _ -`, starting with a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct TemplateId(Arc<str>);

/// The text is not a template name.
#[derive(Debug, thiserror::Error)]
#[error("a template id is 1 to 100 of `a-z A-Z 0-9 . _ -` and starts with a letter or digit")]
pub struct InvalidTemplateId;

impl TemplateId {
    pub fn parse(text: &str) -> Result<Self, InvalidTemplateId> {
        let plain = |c: char| c.is_ascii_alphanumeric();
        let starts_well = text.chars().next().is_some_and(plain);
        if starts_well && text.len() <= 100 && text.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-')) {
            Ok(TemplateId(text.into()))
        } else {
            Err(InvalidTemplateId)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TemplateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A template's immutable version, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct TemplateVersion(pub i32);

/// Makes ids from the clock it is given: strictly increasing within the process.
pub struct IdSource {
    clock: Arc<dyn Clock>,
    // Version 7 ids made in the same millisecond are ordered by a counter in here; held for nanoseconds, never over
    // an await.
    context: Mutex<ContextV7>,
}

impl IdSource {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        IdSource { clock, context: Mutex::new(ContextV7::new()) }
    }

    pub fn notification(&self) -> NotificationId {
        NotificationId(self.next())
    }

    pub fn batch(&self) -> BatchId {
        BatchId(self.next())
    }

    /// An id for what has no type of its own (a request, a key).
    pub fn next(&self) -> Uuid {
        let now = self.clock.now();
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let nanoseconds = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
        let context = self.context.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Uuid::new_v7(uuid::Timestamp::from_unix(&*context, seconds, nanoseconds))
    }
}

impl fmt::Debug for IdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdSource")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SystemClock;

    #[test]
    fn ids_increase_within_a_process() {
        let ids = IdSource::new(Arc::new(SystemClock));
        let made: Vec<_> = (0..10_000).map(|_| ids.notification()).collect();
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn template_ids_are_plain_names() {
        assert!(TemplateId::parse("new-lead.alert_2").is_ok());
        for bad in ["", "-x", "a b", "ы", "a/b", &"x".repeat(101)] {
            assert!(TemplateId::parse(bad).is_err(), "{bad} was taken");
        }
    }
}
