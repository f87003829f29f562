//! Do the books balance? Invariants between records that were written at different times, read in one snapshot.

use async_trait::async_trait;
use serde::Serialize;

use super::StoreError;
use super::batches::IS_SHOWN;
use super::recovery::LedgerClock;
use super::sql::{Row, Sql};
use super::undecided::{DEAD, UndecidedFilter};
use crate::domain::Status;

/// One invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The invariant's name, stable.
    pub invariant: &'static str,
    /// What it promises.
    pub promise: &'static str,
    /// How many records break it.
    pub count: u64,
    /// Some of them: ids, or what names them.
    pub examples: Vec<String>,
}

/// The sum of the books, and what does not add up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    pub accepted: i64,
    pub sent: i64,
    pub delivered: i64,
    pub read: i64,
    pub failed: i64,
    pub suppressed: i64,
    pub cancelled: i64,
    pub expired: i64,
    pub uncertain: i64,
    pub in_flight: i64,
    /// Failed ones that nobody replayed or discarded.
    pub dead_letters: i64,
    /// The invariants that were checked.
    pub checked: usize,
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    pub fn balances(&self) -> bool {
        self.findings.is_empty()
    }
}

#[async_trait]
pub trait Verify: Send + Sync {
    /// Reads the whole ledger in one snapshot; other work goes on meanwhile.
    async fn verify(&self) -> Result<VerifyReport, StoreError>;
}

struct Invariant {
    name: &'static str,
    promise: &'static str,
    /// A line for each record that breaks it; the first column names it.
    broken: &'static str,
}

/// The invariant that is no query of its own.
const THE_SUM: &str = "the_sum";

/// The names of all that is checked, in order.
pub fn invariants() -> impl Iterator<Item = &'static str> {
    std::iter::once(THE_SUM).chain(INVARIANTS.iter().map(|invariant| invariant.name))
}

/// What is being accepted is no part of the books yet.
const UNSEEN: &str = "SELECT WHAT FROM batches b JOIN notifications n ON n.batch_id = b.id JOIN work w ON w.id = n.id
                      WHERE b.state = 1";

/// Examples shown of one invariant.
const EXAMPLES: usize = 5;

// Codes: states 1 scheduled, 2 pending, 3 queued, 4 sending, 5 sent, 6 delivered, 7 read, 8 failed, 9 uncertain,
// 10 suppressed, 11 cancelled, 12 expired. Outcomes 1 accepted, 2 permanent, 3 transient, 4 throttled, 5 channel down,
// 6 ambiguous, 7 lost.
const INVARIANTS: &[Invariant] = &[
    Invariant {
        name: "accepted_is_there",
        promise: "every notification has its work row, and every work row its notification",
        broken: "SELECT coalesce(n.id, w.id) FROM notifications n FULL JOIN work w ON w.id = n.id
                 WHERE n.id IS NULL OR w.id IS NULL",
    },
    Invariant {
        name: "batch_is_whole",
        promise: "a batch has as many rows as it accepted, those counted that were removed by age",
        broken: "SELECT b.id FROM batches b
                 WHERE b.state = 2 AND b.accepted <> (SELECT count(*) FROM notifications n WHERE n.batch_id = b.id)
                     + (SELECT coalesce(CAST(sum(r.n) AS BIGINT), 0) FROM removed r WHERE r.batch_id = b.id)",
    },
    Invariant {
        name: "state_follows_attempts",
        promise: "a state is what the last attempt, or the last event after it, made of it",
        broken: "SELECT w.id FROM work w
                 LEFT JOIN attempts a ON a.notification_id = w.id
                     AND a.n = (SELECT max(n) FROM attempts l WHERE l.notification_id = w.id)
                 LEFT JOIN events e ON e.notification_id = w.id
                     AND e.at = (SELECT max(at) FROM events l WHERE l.notification_id = w.id)
                 WHERE CASE
                     WHEN e.status IN (10, 11, 12) THEN w.state <> e.status
                     WHEN e.status IS NOT NULL AND (a.closed_at IS NULL OR e.at >= a.closed_at) THEN
                         w.state <> e.status AND NOT (e.status IN (1, 2) AND w.state IN (2, 3, 4))
                     WHEN w.state = 5 THEN coalesce(a.class, 0) <> 1
                     WHEN w.state = 8 THEN coalesce(a.class, 0) NOT IN (2, 3, 4, 5)
                     WHEN w.state = 9 THEN coalesce(a.class, 0) NOT IN (6, 7)
                     WHEN w.state = 1 THEN a.class IS NOT NULL
                     WHEN w.state IN (2, 3, 4) THEN coalesce(a.class, 3) IN (1, 2)
                     ELSE w.state NOT IN (6, 7) OR a.class IS NULL
                 END",
    },
    Invariant {
        name: "attempts_are_counted",
        promise: "every attempt opened before the open one is recorded, once and in order, and no other; and no more \
                  retries are counted than there were attempts",
        broken: "SELECT w.id FROM work w
                 LEFT JOIN (SELECT notification_id, count(*) AS n, min(n) AS first, max(n) AS last FROM attempts
                            GROUP BY notification_id) a
                     ON a.notification_id = w.id
                 WHERE coalesce(a.n, 0) <> w.attempt - CASE WHEN w.state = 4 THEN 1 ELSE 0 END
                    OR coalesce(a.first, 1) <> 1 OR coalesce(a.last, 0) <> coalesce(a.n, 0)
                    OR w.retry_count + w.resends > coalesce(a.n, 0)
                 UNION ALL
                 SELECT DISTINCT a.notification_id FROM attempts a LEFT JOIN work w ON w.id = a.notification_id
                 WHERE w.id IS NULL",
    },
    Invariant {
        name: "open_attempts_are_held",
        promise: "an open attempt belongs to a process that lives or is being settled, and nothing else is open",
        broken: "SELECT w.id FROM work w
                 WHERE w.state = 4 AND (w.opened_at IS NULL OR NOT EXISTS (SELECT 1 FROM workers k WHERE k.epoch = w.epoch))
                 UNION ALL
                 SELECT w.id FROM work w WHERE w.state <> 4 AND (w.epoch IS NOT NULL OR w.opened_at IS NOT NULL)",
    },
    Invariant {
        name: "no_silent_duplicate",
        promise: "no notification was taken twice without both attempts being flagged",
        broken: "SELECT notification_id FROM attempts WHERE class IN (1, 6, 7) GROUP BY notification_id
                 HAVING count(*) > 1 AND sum(CASE WHEN flagged = 0 THEN 1 ELSE 0 END) > 0",
    },
    Invariant {
        name: "answers_are_kept",
        promise: "every id that a stored idempotent answer names exists",
        broken: "SELECT l.member FROM (MEMBERS(idempotency)) l
                 WHERE NOT EXISTS (SELECT 1 FROM notifications n WHERE n.id = l.member)",
    },
    Invariant {
        name: "counters_are_true",
        promise: "the counters of each batch are what its rows say, those counted that were removed by age",
        broken: "SELECT coalesce(c.batch_id, r.batch_id) FROM
                   (SELECT batch_id, status, CAST(sum(n) AS BIGINT) AS n FROM counters GROUP BY batch_id, status) c
                 FULL JOIN
                   (SELECT batch_id, status, CAST(sum(n) AS BIGINT) AS n FROM
                      (SELECT batch_id, 0 AS status, count(*) AS n FROM notifications n
                       WHERE batch_id IS NOT NULL AND SHOWN GROUP BY batch_id
                       UNION ALL
                       SELECT NIL, 0, count(*) FROM notifications WHERE batch_id IS NULL HAVING count(*) > 0
                       UNION ALL
                       SELECT coalesce(n.batch_id, NIL), w.state, count(*) FROM work w JOIN notifications n ON n.id = w.id
                       WHERE w.state > 4 AND SHOWN GROUP BY coalesce(n.batch_id, NIL), w.state
                       UNION ALL SELECT batch_id, 0, n FROM removed
                       UNION ALL SELECT batch_id, status, n FROM removed) s
                    GROUP BY batch_id, status) r
                 ON r.batch_id = c.batch_id AND r.status = c.status
                 WHERE coalesce(c.n, 0) <> coalesce(r.n, 0)",
    },
    Invariant {
        name: "dead_letters_are_the_failed",
        promise: "every failed notification is a dead letter or a resolved one, and nothing else is; what was replayed \
                  names its replay",
        broken: "SELECT coalesce(f.id, w.id) FROM (SELECT id FROM work WHERE state = 8) w
                 FULL JOIN (SELECT f.id FROM failed f JOIN work k ON k.id = f.id WHERE k.state NOT IN (6, 7)) f ON f.id = w.id
                 WHERE w.id IS NULL OR f.id IS NULL
                 UNION ALL SELECT f.id FROM failed f LEFT JOIN work k ON k.id = f.id WHERE k.id IS NULL
                 UNION ALL SELECT f.id FROM failed f LEFT JOIN notifications r ON r.id = f.replayed_as
                 WHERE (f.resolved_at IS NULL) <> (f.resolution IS NULL)
                    OR (f.replayed_as IS NOT NULL) <> (coalesce(f.resolution, 0) = 1)
                    OR (f.replayed_as IS NOT NULL AND r.id IS NULL)",
    },
    Invariant {
        name: "replayed_once",
        promise: "a replay is of its dead letter's channel, and takes the place of no other dead letter",
        broken: "SELECT f.id FROM failed f JOIN notifications r ON r.id = f.replayed_as
                 JOIN notifications n ON n.id = f.id WHERE r.channel <> n.channel
                 UNION ALL
                 SELECT replayed_as FROM failed WHERE replayed_as IS NOT NULL GROUP BY replayed_as HAVING count(*) > 1",
    },
    Invariant {
        name: "uncertain_are_listed",
        promise: "every uncertain notification is in the list of uncertain ones, and nothing else is",
        broken: "SELECT coalesce(u.id, w.id) FROM (SELECT id FROM work WHERE state = 9) w
                 FULL JOIN uncertain u ON u.id = w.id WHERE w.id IS NULL OR u.id IS NULL",
    },
    Invariant {
        name: "waiting_will_be_found",
        promise: "every notification that waits is named by a chunk that is handed out in its time, or is in the hand of \
                  a process that lives or is being settled; and every open one by an open set of its process",
        // A chunk that comes before its notification is due passes it over, and none comes before now; one that is handed
        // out takes nothing that is queued already.
        broken: "SELECT w.id FROM work w LEFT JOIN (MEMBERS(due)) l
                     ON l.member = w.id AND (l.due_at >= w.due_at OR w.due_at <= CLOCK)
                    AND ((l.handed_by IS NULL AND w.state <> 3) OR l.handed_by IN (SELECT epoch FROM workers))
                 WHERE w.state IN (1, 2, 3) AND l.member IS NULL
                     AND EXISTS (SELECT 1 FROM notifications n WHERE n.id = w.id AND SHOWN)
                 UNION ALL
                 SELECT w.id FROM work w LEFT JOIN (MEMBERS(opens)) l ON l.member = w.id AND l.epoch = w.epoch
                 WHERE w.state = 4 AND l.member IS NULL",
    },
];

#[async_trait]
impl<S: Sql + LedgerClock> Verify for S {
    async fn verify(&self) -> Result<VerifyReport, StoreError> {
        let everything = UndecidedFilter::default();
        let mut queries: Vec<String> = vec![
            format!(
                "SELECT state, CAST(sum(n) AS BIGINT) FROM
                     (SELECT state, count(*) AS n FROM work GROUP BY state UNION ALL SELECT status, n FROM removed
                      UNION ALL {UNSEEN} GROUP BY w.state) s
                 GROUP BY state",
                UNSEEN = UNSEEN.replace("WHAT", "w.state, -count(*)")
            ),
            format!(
                "SELECT count(*) + (SELECT coalesce(CAST(sum(n) AS BIGINT), 0) FROM removed) + ({UNSEEN}) FROM notifications",
                UNSEEN = UNSEEN.replace("WHAT", "-count(*)")
            ),
            format!("SELECT count(*) FROM {} WHERE {}", DEAD.tables, DEAD.narrowed(&everything, &mut Vec::new())),
        ];
        let sums = queries.len();
        queries.extend(INVARIANTS.iter().map(|invariant| self.text_of(invariant.broken)));
        let results = self.snapshot("verifying", queries).await?;
        let (sums, broken) = results.split_at(sums);
        let mut report = summary(sums)?;
        for (invariant, broken) in INVARIANTS.iter().zip(broken) {
            report.checked += 1;
            if !broken.is_empty() {
                report.findings.push(finding(invariant, broken)?);
            }
        }
        Ok(report)
    }
}

/// What the two engines spell differently in the invariants.
trait Dialect: Sql + LedgerClock {
    fn text_of(&self, broken: &str) -> String {
        let mut text = broken.replace("NIL", self.nil()).replace("SHOWN", IS_SHOWN).replace("CLOCK", &self.now_sql());
        for (table, beside) in [("idempotency", &[][..]), ("due", &["due_at", "handed_by"]), ("opens", &["epoch"])] {
            text = text.replace(&format!("MEMBERS({table})"), &self.members(table, beside));
        }
        text
    }
}

impl<S: Sql + LedgerClock> Dialect for S {}

fn summary(head: &[Vec<Row>]) -> Result<VerifyReport, StoreError> {
    let mut report = VerifyReport::default();
    for row in &head[0] {
        let count = row.int(1)?;
        // A number that is no status is missing in the sum, and a finding of its own.
        let Some(status) = Status::from_code(row.small(0)?) else { continue };
        match status {
            Status::Scheduled | Status::Pending | Status::Queued | Status::Sending => report.in_flight += count,
            Status::Sent => report.sent = count,
            Status::Delivered => report.delivered = count,
            Status::Read => report.read = count,
            Status::Failed => report.failed = count,
            Status::Uncertain => report.uncertain = count,
            Status::Suppressed => report.suppressed = count,
            Status::Cancelled => report.cancelled = count,
            Status::Expired => report.expired = count,
        }
    }
    report.accepted = head[1].first().map_or(Ok(0), |row| row.int(0))?;
    report.dead_letters = head[2].first().map_or(Ok(0), |row| row.int(0))?;
    let settled = report.sent + report.delivered + report.read + report.failed + report.uncertain + report.suppressed;
    let sum = settled + report.cancelled + report.expired + report.in_flight;
    if sum != report.accepted {
        report.findings.push(Finding {
            invariant: THE_SUM,
            promise: "accepted = sent + failed + suppressed + cancelled + expired + uncertain + in flight",
            count: sum.abs_diff(report.accepted),
            examples: vec![format!("accepted {}, found {sum}", report.accepted)],
        });
    }
    report.checked += 1;
    Ok(report)
}

fn finding(invariant: &Invariant, broken: &[Row]) -> Result<Finding, StoreError> {
    let name = |row: &Row| {
        row.uuid(0)
            .map(|id| id.to_string())
            .or_else(|_| row.text(0))
            .or_else(|_| row.int(0).map(|number| number.to_string()))
    };
    Ok(Finding {
        invariant: invariant.name,
        promise: invariant.promise,
        count: broken.len() as u64,
        examples: broken.iter().take(EXAMPLES).map(name).collect::<Result<_, _>>()?,
    })
}
