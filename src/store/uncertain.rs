//! Notifications of which nobody knows whether they left, and a person's word on them.

use async_trait::async_trait;
use uuid::Uuid;

use super::StoreError;
use super::dead_letters::{Decision, ids};
use super::lookup::Page;
use super::plan::Slot;
use super::recovery::HasIds;
use super::sql::{ColumnType, RowsStatement, Sql, Statement};
use super::undecided::{AT_ONCE, UNCERTAIN, URGENCY, Undecided, UndecidedFilter};
use crate::domain::{NotificationId, Verdict};

/// What became of some, as a person says who looked.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub verdict: Verdict,
    /// How they know.
    pub reason: String,
    pub decision: Decision,
}

#[async_trait]
pub trait UncertainNotifications: Send + Sync {
    /// Newest first by the time they were accepted, after the given one.
    async fn uncertain(
        &self,
        filter: UndecidedFilter,
        after: Option<NotificationId>,
        limit: u32,
    ) -> Result<Page<Undecided>, StoreError>;

    /// Settles those that are uncertain, and returns them; a receipt or another person may have been first. What is
    /// said to have failed becomes a dead letter.
    async fn settle_uncertain(
        &self,
        ids: Vec<NotificationId>,
        settlement: Settlement,
    ) -> Result<Vec<NotificationId>, StoreError>;
}

const GIVEN: &[(&str, ColumnType)] = &[
    ("id", ColumnType::Id),
    ("status", ColumnType::Small),
    ("at", ColumnType::Big),
    ("actor", ColumnType::Text),
    ("reason", ColumnType::Text),
    ("event", ColumnType::Id),
    ("nil", ColumnType::Id),
];

/// Only what is 9 uncertain. Whoever comes second waits here, and then finds neither the state nor the row.
const MOVE: &str = "UPDATE work SET state = given.status FROM ROWS given
                    WHERE work.id = given.id AND work.state = 9 RETURNING work.id";

macro_rules! of_moved {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " FROM ROWS given JOIN uncertain u ON u.id = given.id JOIN work w ON w.id = u.id AND w.state = given.status ",
            $after
        )
    };
}

// The row in `uncertain` goes last: as long as it is there, the others know what was moved. Counters of what a person
// does belong to no process; they change in one order, the one of the status that all lose first.
const FOLLOW: [&str; 5] = [
    // Another machine's clock may be behind the one that recorded the attempt.
    of_moved!(
        "INSERT INTO events (id, notification_id, at, status, actor, reason)
         SELECT given.event, u.id, CASE WHEN given.at < u.since THEN u.since ELSE given.at END, given.status,
             given.actor, given.reason",
        ""
    ),
    of_moved!(
        "INSERT INTO failed (id, failed_at, batch_id, account, cause, code, detail, template_id)
         SELECT u.id, given.at, u.batch_id, u.account, u.cause, a.code, a.detail, n.template_id",
        "JOIN notifications n ON n.id = u.id
         LEFT JOIN attempts a ON a.notification_id = u.id AND a.n = u.attempt WHERE given.status = 8"
    ),
    of_moved!(
        "INSERT INTO counters (batch_id, epoch, slot, status, n)
         SELECT coalesce(u.batch_id, given.nil), 0, 3, 9, -count(*)",
        "WHERE true GROUP BY coalesce(u.batch_id, given.nil) ORDER BY coalesce(u.batch_id, given.nil)
         ON CONFLICT (batch_id, epoch, slot, status) DO UPDATE SET n = counters.n + excluded.n"
    ),
    of_moved!(
        "INSERT INTO counters (batch_id, epoch, slot, status, n)
         SELECT coalesce(u.batch_id, given.nil), 0, 3, given.status, count(*)",
        "WHERE true GROUP BY coalesce(u.batch_id, given.nil), given.status ORDER BY coalesce(u.batch_id, given.nil)
         ON CONFLICT (batch_id, epoch, slot, status) DO UPDATE SET n = counters.n + excluded.n"
    ),
    of_moved!("DELETE FROM uncertain WHERE id IN (SELECT u.id", ")"),
];
const _: () = assert!(Slot::Settle as i16 == 3, "the code in the statements");

#[async_trait]
impl<S: Sql + HasIds> UncertainNotifications for S {
    async fn uncertain(
        &self,
        filter: UndecidedFilter,
        after: Option<NotificationId>,
        limit: u32,
    ) -> Result<Page<Undecided>, StoreError> {
        UNCERTAIN.page(self, &filter, after, limit).await
    }

    async fn settle_uncertain(
        &self,
        mut ids_given: Vec<NotificationId>,
        settlement: Settlement,
    ) -> Result<Vec<NotificationId>, StoreError> {
        // In one order for all, so that two who settle the same ones never wait in a circle.
        ids_given.sort_unstable();
        ids_given.dedup();
        let Settlement { verdict, reason, decision } = settlement;
        let mut settled = Vec::with_capacity(ids_given.len());
        for given in ids_given.chunks(AT_ONCE) {
            let row = |id: &NotificationId| {
                vec![
                    id.0.into(),
                    verdict.code().into(),
                    decision.at.into(),
                    decision.by.as_str().into(),
                    reason.as_str().into(),
                    self.next_id().into(),
                    Uuid::nil().into(),
                ]
            };
            let rows: Vec<_> = given.iter().map(row).collect();
            let of_rows = |sql| Statement::of_rows(RowsStatement { sql, columns: GIVEN }, rows.clone());
            let mut statements = vec![Statement { is_guard: true, ..of_rows(MOVE) }];
            statements.extend(FOLLOW.map(of_rows));
            settled.extend(ids(&self.write_as("settling uncertain notifications", URGENCY, statements).await?)?);
        }
        Ok(settled)
    }
}
