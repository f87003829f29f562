//! Why nothing could be read, and what is to be done about it.

use std::time::Duration;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::SourceError;
use super::query::{Query, is_at_fault};
use crate::domain::RecordKind;

/// What is wrong with a query or its database, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub seen: String,
    /// What to do about it.
    pub hint: String,
}

impl Trouble {
    pub(super) fn new(seen: impl Into<String>, hint: impl Into<String>) -> Self {
        Trouble { seen: seen.into(), hint: hint.into() }
    }
}

pub(super) enum Failure {
    /// No answer, or none in time; the connection is not to be trusted.
    Away(Box<dyn std::error::Error + Send + Sync>),
    /// There is something to be said against the query; the connection is as good as before.
    Refused(Trouble),
    /// Rows came that cannot be used; more of them may be on their way.
    Rows(Trouble),
}

impl Failure {
    pub(super) fn away(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Failure::Away(error.into())
    }

    pub(super) fn late(limit: Duration) -> Self {
        Failure::away(format!("no answer within {} ms", limit.as_millis()))
    }

    /// What PostgreSQL said to `sent`, one of the query's wrapped texts.
    pub(super) fn of(query: &Query, sent: &str, error: Error) -> Self {
        if !is_at_fault(&error) {
            return Failure::away(error);
        }
        let hint = match error.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => "let the user of records.sql.url read it: GRANT SELECT ON …",
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => "read only: a function that writes cannot be called either",
            _ => "try the query in psql, as the user of records.sql.url",
        };
        Failure::Refused(Trouble::new(query.objection(&error, sent), hint))
    }

    pub(super) fn into_source_error(self, kind: RecordKind) -> SourceError {
        match self {
            Failure::Away(source) => SourceError::Unavailable { kind, source },
            Failure::Refused(trouble) | Failure::Rows(trouble) => SourceError::Unusable { kind, detail: trouble.seen },
        }
    }
}
