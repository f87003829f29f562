//! An erasure's way through the notifications: down all of them once, and back to those that were being sent.

use jiff::Timestamp;
use uuid::Uuid;

use super::{DOING, ErasureStep, Open, SENDING, Step, finish, is_id_personal};
use crate::domain::{BatchId, Channel, Epoch, NotificationId, Status};
use crate::store::ledger::{Ledger, Settle, Urgency};
use crate::store::sql::{ColumnType, RowsStatement, Sql, Statement};
use crate::store::{StoreError, personal, suppressions};

/// Changed notifications in one commit: about a millisecond of SQLite's writer.
const AT_ONCE: usize = 50;
/// Counters of erasures belong to no process.
const NO_EPOCH: Epoch = Epoch(0);
const ACTOR: &str = "erasure";

/// One step down the notifications.
pub(super) async fn go_on<S: Sql + Ledger>(
    store: &S,
    erasure: &Open,
    limit: u32,
    at: Timestamp,
) -> Result<ErasureStep, StoreError> {
    let (id, cursor) = (erasure.id, erasure.cursor);
    let query = "SELECT n.id, CASE
                     WHEN n.recipient IN (SELECT value FROM erasing WHERE erasure = $1 AND what IN (1, 2, 3))
                       OR n.contact_id IN (SELECT value FROM erasing WHERE erasure = $1 AND what = 11) THEN 2
                     WHEN CAST(n.lead_id AS text) IN (SELECT value FROM erasing WHERE erasure = $1 AND what = 12)
                       OR n.deal_id IN (SELECT value FROM erasing WHERE erasure = $1 AND what = 13)
                       OR n.company_id IN (SELECT value FROM erasing WHERE erasure = $1 AND what = 14) THEN 1
                     ELSE 0 END
                 FROM (SELECT id, recipient, contact_id, lead_id, deal_id, company_id FROM notifications
                       WHERE id < $2 ORDER BY id DESC LIMIT $3) n
                 ORDER BY n.id DESC";
    let rows = store.read(DOING, query.into(), vec![id.0.into(), cursor.into(), i64::from(limit).into()]).await?;
    let mut matches = Vec::new();
    let mut step = if rows.len() < limit as usize { Step::Sending } else { Step::Notifications };
    let mut next = rows.last().map_or(Ok(cursor), |row| row.uuid(0))?;
    for row in &rows {
        let how = row.int(1)?;
        if how > 0 {
            matches.push(Match { id: row.uuid(0)?, is_to_person: how > 1 });
        }
        if matches.len() == AT_ONCE {
            (step, next) = (Step::Notifications, row.uuid(0)?);
            break;
        }
    }
    let found = end_waiting(store, &matches, at).await?;
    let count = i64::try_from(found.settled.iter().filter(|one| !one.is_erased()).count()).unwrap_or(0);
    let mut statements = vec![Statement::guard(
        "UPDATE erasures SET cursor = $3, notifications = notifications + $4, step = $6
         WHERE id = $1 AND cursor = $2 AND step = $5 RETURNING id",
        vec![id.0.into(), cursor.into(), next.into(), count.into(), erasure.step.code().into(), step.code().into()],
    )];
    let settled: Vec<_> = found.settled.iter().map(|one| one.id).collect();
    statements.extend(personal::erase(&settled));
    if !settled.is_empty() && is_id_personal(store, erasure).await? {
        statements.extend(personal::erase_id(erasure.kind, erasure.record.as_str(), &settled));
    }
    statements.extend(hash_opt_outs(&found.settled));
    statements.push(Statement::of_rows(
        RowsStatement {
            sql: "INSERT INTO erasing (erasure, what, value) SELECT erasure, what, value FROM ROWS given WHERE true
                  ON CONFLICT DO NOTHING",
            columns: &[("erasure", ColumnType::Id), ("what", ColumnType::Small), ("value", ColumnType::Text)],
        },
        found.sending.iter().map(|one| vec![id.0.into(), SENDING.into(), one.to_string().into()]).collect(),
    ));
    store.write_as(DOING, Urgency::Bulk, statements).await?;
    Ok(ErasureStep::Went)
}

/// After the last notification: those that were being sent, and then the end.
pub(super) async fn come_back<S: Sql + Ledger>(
    store: &S,
    erasure: &Open,
    at: Timestamp,
) -> Result<ErasureStep, StoreError> {
    let id = erasure.id;
    let query = "SELECT value FROM erasing WHERE erasure = $1 AND what = $2";
    let mut matches = Vec::new();
    for row in store.read(DOING, query.into(), vec![id.0.into(), SENDING.into()]).await? {
        let id = row.text(0)?.parse().map_err(|error| StoreError::refused(DOING, error))?;
        matches.push(Match { id, is_to_person: true });
    }
    if matches.is_empty() {
        return finish(store, erasure, at).await;
    }
    let is_id_personal = is_id_personal(store, erasure).await?;
    let mut came_to = ErasureStep::Waits;
    for matches in matches.chunks(AT_ONCE) {
        let found = end_waiting(store, matches, at).await?;
        for one in &found.settled {
            let mut statements = vec![
                Statement::guard(
                    "DELETE FROM erasing WHERE erasure = $1 AND what = 20 AND value = $2 RETURNING value",
                    vec![id.0.into(), one.id.to_string().into()],
                ),
                Statement::new(
                    "UPDATE erasures SET notifications = notifications + $2 WHERE id = $1",
                    vec![id.0.into(), i64::from(!one.is_erased()).into()],
                ),
            ];
            statements.extend(personal::erase(&[one.id]));
            if is_id_personal {
                statements.extend(personal::erase_id(erasure.kind, erasure.record.as_str(), &[one.id]));
            }
            statements.extend(hash_opt_outs(std::slice::from_ref(one)));
            store.write_as(DOING, Urgency::Bulk, statements).await?;
            came_to = ErasureStep::Went;
        }
        for gone in matches.iter().filter(|one| !found.names(one.id)) {
            let forget = Statement::new(
                "DELETE FROM erasing WHERE erasure = $1 AND what = 20 AND value = $2",
                vec![id.0.into(), gone.id.to_string().into()],
            );
            store.write_as(DOING, Urgency::Bulk, vec![forget]).await?;
            came_to = ErasureStep::Went;
        }
    }
    Ok(came_to)
}

#[derive(Clone, Copy)]
struct Match {
    id: Uuid,
    /// It went to the person, not only to somebody about them.
    is_to_person: bool,
}

struct Settled {
    id: Uuid,
    /// Where it went, if that is the person's address.
    to: Option<(Channel, String)>,
    recipient: String,
}

impl Settled {
    fn is_erased(&self) -> bool {
        self.recipient == personal::ERASED
    }
}

#[derive(Default)]
struct Ended {
    settled: Vec<Settled>,
    sending: Vec<Uuid>,
}

impl Ended {
    fn names(&self, id: Uuid) -> bool {
        self.sending.contains(&id) || self.settled.iter().any(|one| one.id == id)
    }
}

/// Cancels what still waits, and tells what is settled now from what is being sent.
async fn end_waiting<S: Sql + Ledger>(store: &S, matches: &[Match], at: Timestamp) -> Result<Ended, StoreError> {
    let mut ended = Ended::default();
    if matches.is_empty() {
        return Ok(ended);
    }
    let places: Vec<_> = (1..=matches.len()).map(|n| format!("${n}")).collect();
    let query = format!(
        "SELECT n.id, n.channel, n.recipient, n.batch_id, w.state FROM notifications n JOIN work w ON w.id = n.id
         WHERE n.id IN ({})",
        places.join(", ")
    );
    let ids = matches.iter().map(|one| one.id.into()).collect();
    for row in store.read(DOING, query, ids).await? {
        let (id, recipient) = (row.uuid(0)?, row.text(2)?);
        let is_settled = match row.word(4, Status::from_code)? {
            Status::Sending => false,
            status if status.may_become(Status::Cancelled) => {
                let settle = Settle {
                    epoch: NO_EPOCH,
                    id: NotificationId(id),
                    batch: row.opt_uuid(3)?.map(BatchId),
                    chunk: None,
                    status: Status::Cancelled,
                    at,
                    actor: ACTOR.into(),
                    reason: personal::ERASED.into(),
                };
                store.settle(vec![settle]).await? == [true]
            }
            _ => true,
        };
        if !is_settled {
            ended.sending.push(id);
            continue;
        }
        let is_to_person = matches.iter().any(|one| one.id == id && one.is_to_person);
        let to = is_to_person.then(|| Ok((row.word(1, Channel::from_code)?, recipient.clone()))).transpose()?;
        ended.settled.push(Settled { id, to, recipient });
    }
    Ok(ended)
}

fn hash_opt_outs(settled: &[Settled]) -> impl Iterator<Item = Statement> {
    let addresses = settled.iter().filter(|one| !one.is_erased()).filter_map(|one| one.to.as_ref());
    addresses.flat_map(|(channel, address)| suppressions::hash(*channel, address))
}
