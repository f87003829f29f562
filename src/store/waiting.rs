//! What waits, and what is handed over: the relay's view of the ledger. And what was asked for, for the work on it.

use std::collections::HashMap;

use super::StoreError;
use super::ledger::{Begin, HandedOver, HeldBatch, NewNotification, Stream, Waiting, WaitingStream};
use super::lookup::template;
use super::recovery::HasIds;
use super::sql::{Row, Sql, Statement, Value};
use jiff::Timestamp;

use crate::domain::{AccountId, BatchId, Channel, Epoch, Mode, NotificationId, Policy, Priority, RecordIds};

const DOING: &str = "looking for due work";

/// See [`Ledger::waiting`](super::Ledger::waiting).
pub(super) async fn waiting(sql: &impl Sql) -> Result<Waiting, StoreError> {
    // By small tables: a million that wait are two thousand chunks.
    const STREAMS: &str = "SELECT priority, account, batch_id, min(due_at), CAST(sum(outstanding) AS BIGINT) FROM due
        WHERE handed_by IS NULL GROUP BY priority, account, batch_id ORDER BY priority, min(due_at)";
    const HANDED: &str =
        "SELECT handed_by, account, priority, CAST(sum(outstanding) AS BIGINT), min(handed_at) FROM due
        WHERE handed_by IS NOT NULL GROUP BY handed_by, account, priority";
    const HELD: &str = "SELECT id, CASE WHEN cancelled_at IS NULL THEN 0 ELSE 1 END FROM batches
        WHERE paused_at IS NOT NULL OR cancelled_at IS NOT NULL";
    let read = |query: &str| sql.read(DOING, query.into(), vec![]);
    let (streams, handed, held) = futures::try_join!(read(STREAMS), read(HANDED), read(HELD))?;
    let held: HashMap<BatchId, bool> =
        held.iter().map(|row| Ok((BatchId(row.uuid(0)?), row.int(1)? != 0))).collect::<Result<_, StoreError>>()?;
    let mut waiting = Waiting {
        handed: handed.iter().map(handed_over).collect::<Result<_, _>>()?,
        held: held
            .iter()
            .map(|(batch, is_cancelled)| HeldBatch { batch: *batch, is_cancelled: *is_cancelled })
            .collect(),
        ..Waiting::default()
    };
    for row in &streams {
        let stream = waiting_stream(row)?;
        match stream.stream.batch.and_then(|batch| held.get(&batch)) {
            None => waiting.streams.push(stream),
            Some(true) => waiting.cancelled.push(stream),
            Some(false) => {}
        }
    }
    Ok(waiting)
}

fn waiting_stream(row: &Row) -> Result<WaitingStream, StoreError> {
    let stream = Stream {
        priority: row.word(0, Priority::from_code)?,
        account: AccountId(row.small(1)?),
        batch: row.opt_uuid(2)?.map(BatchId),
    };
    Ok(WaitingStream { stream, due_at: row.time(3)?, count: u64::try_from(row.int(4)?).unwrap_or(0) })
}

fn handed_over(row: &Row) -> Result<HandedOver, StoreError> {
    Ok(HandedOver {
        by: Epoch(row.int(0)?),
        account: AccountId(row.small(1)?),
        priority: row.word(2, Priority::from_code)?,
        count: u64::try_from(row.int(3)?).unwrap_or(0),
        since: row.time(4)?,
    })
}

/// See [`Ledger::reschedule`](super::Ledger::reschedule).
pub(super) async fn reschedule(
    sql: &(impl Sql + HasIds),
    id: NotificationId,
    at: Timestamp,
) -> Result<bool, StoreError> {
    let statements = vec![
        // 1 scheduled, 2 pending, 3 queued → 1 scheduled.
        Statement::guard(
            "UPDATE work SET state = 1, hold = NULL, due_at = $2, generation = generation + 1
             WHERE id = $1 AND state IN (1, 2, 3) RETURNING id",
            vec![id.0.into(), at.into()],
        ),
        Statement::new(
            "INSERT INTO due (id, due_at, outstanding, account, priority, batch_id, ids)
             SELECT $2, $3, 1, w.account, n.priority, n.batch_id, $4
             FROM work w JOIN notifications n ON n.id = w.id WHERE w.id = $1",
            vec![id.0.into(), sql.next_id().into(), at.into(), Value::Ids(vec![id.0])],
        ),
        Statement::new("UPDATE notifications SET moved_to = $2 WHERE id = $1", vec![id.0.into(), at.into()]),
    ];
    Ok(sql.write("rescheduling a notification", statements).await?.len() > 1)
}

/// The columns of a notification as it was asked for, with its account and the time that holds, from `notifications n
/// JOIN work w`.
pub(super) const ASKED: &str = "n.id, n.batch_id, n.channel, w.account, n.template_id, n.template_version, n.body,
    n.recipient, n.contact_id, n.lead_id, n.deal_id, n.company_id, n.data, n.metadata, n.external_id, n.priority,
    n.policy, n.mode, n.max_retries, coalesce(n.moved_to, CASE WHEN n.scheduled_at IS NOT NULL
    THEN coalesce((SELECT b.scheduled_at FROM batches b WHERE b.id = n.batch_id), n.scheduled_at) END),
    n.not_after, n.created_at";

/// A row of [`ASKED`].
pub(super) fn asked(row: &Row) -> Result<NewNotification, StoreError> {
    let created_at = row.time(21)?;
    Ok(NewNotification {
        id: NotificationId(row.uuid(0)?),
        batch: row.opt_uuid(1)?.map(BatchId),
        channel: row.word(2, Channel::from_code)?,
        account: AccountId(row.small(3)?),
        template: template(row, 4)?,
        text: row.opt_text(6)?,
        recipient: row.text(7)?,
        records: RecordIds {
            contact_id: row.opt_text(8)?,
            lead_id: row.opt_int(9)?,
            deal_id: row.opt_text(10)?,
            company_id: row.opt_text(11)?,
        },
        data: row.opt_text(12)?,
        metadata: row.opt_text(13)?,
        external_id: row.opt_text(14)?,
        priority: row.word(15, Priority::from_code)?,
        policy: row.word(16, Policy::from_code)?,
        mode: row.word(17, Mode::from_code)?,
        max_retries: row.small(18)?,
        scheduled_at: row.opt_time(19)?,
        not_after: row.opt_time(20)?,
        created_at,
        begin: Begin::Due { at: created_at, scheduled: false },
    })
}
