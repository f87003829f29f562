//! Writing what requests asked for: a group of them in one transaction.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;

use deadpool_postgres::Object;
use futures::future::try_join_all;
use futures::{TryFutureExt as _, try_join};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::Shared;
use super::connection::from_postgres;
use crate::domain::{NotificationId, Status};
use crate::store::ledger::{Accept, Accepted, Begin, NewKey, NewNotification, StoredKey};
use crate::store::lookup::stored_key;
use crate::store::plan::{Chunks, Deltas, NewChunk, Slot, begins, held_by};
use crate::store::{StoreError, Urgency};

const DOING: &str = "accepting";

/// From as many rows on they are copied into their table: a page's worth of rows is then one record of the server's
/// log. It costs a round trip more, which a direct send need not pay.
pub(super) const COPY_FROM_ROWS: usize = 64;

type Answer = Result<Accepted, StoreError>;

pub(super) async fn commit(shared: Shared, group: Arc<[Accept]>) -> Result<Vec<Answer>, StoreError> {
    let for_work = shared.clone();
    let (answers, opened) = shared
        .on_connection(DOING, move |client| Box::pin(async move { transaction(client, &for_work, &group).await }))
        .await?;
    for (set, ids) in opened {
        shared.opens.opened(set, ids);
    }
    Ok(answers)
}

type OpenedSets = Vec<(Uuid, Vec<NotificationId>)>;

async fn transaction(
    client: &Object,
    shared: &Shared,
    group: &[Accept],
) -> Result<(Vec<Answer>, OpenedSets), StoreError> {
    let mut answers: Vec<Option<Answer>> = group.iter().map(|_| None).collect();
    let asks_first = group.iter().any(|accept| accept.key.is_some() || accept.holds());
    if asks_first {
        let epochs: HashSet<i64> = group.iter().filter(|accept| accept.holds()).map(|accept| accept.epoch.0).collect();
        let begin = client.batch_execute("BEGIN").map_err(|error| from_postgres(DOING, error));
        let ((), live) = try_join!(begin, live_epochs(client, &epochs))?;
        for (answer, accept) in answers.iter_mut().zip(group) {
            if accept.holds() && !live.contains(&accept.epoch.0) {
                *answer = Some(Err(StoreError::EpochLost));
            }
        }
        claim_keys(client, group, &mut answers).await?;
    }
    let kept: Vec<&Accept> =
        group.iter().zip(&answers).filter(|(_, answer)| answer.is_none()).map(|(accept, _)| accept).collect();
    let opened = write(client, shared, &kept, !asks_first).await?;
    Ok((answers.into_iter().map(|answer| answer.unwrap_or(Ok(Accepted::Stored))).collect(), opened))
}

/// Which of the epochs live. Their rows stay share-locked until the commit: nobody declares them lost meanwhile.
pub(super) async fn live_epochs(client: &Object, epochs: &HashSet<i64>) -> Result<HashSet<i64>, StoreError> {
    if epochs.is_empty() {
        return Ok(HashSet::new());
    }
    let epochs: Vec<i64> = epochs.iter().copied().collect();
    let failed = |error| from_postgres("checking the epoch", error);
    let statement = client
        .prepare_cached(
            "SELECT epoch FROM workers
             WHERE epoch = ANY($1) AND lost_at IS NULL AND lease_until >= vestnik_now() FOR SHARE",
        )
        .await
        .map_err(failed)?;
    let rows = client.query(&statement, &[&epochs]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Makes the keys of the group ours, or answers with what they stand for.
async fn claim_keys(client: &Object, group: &[Accept], answers: &mut [Option<Answer>]) -> Result<(), StoreError> {
    let failed = |error| from_postgres("claiming a key", error);
    let mut first_with: HashMap<(&str, &str), usize> = HashMap::new();
    // In one order for all: two groups that share keys wait for each other once, never in a circle.
    let mut keyed: Vec<(usize, &Accept, &NewKey)> =
        group.iter().enumerate().filter_map(|(n, accept)| Some((n, accept, accept.key.as_ref()?))).collect();
    keyed.sort_by_key(|(place, _, key)| (&key.scope, &key.key, *place));
    for (place, accept, key) in keyed {
        if answers[place].is_some() {
            continue;
        }
        // The same key twice in one group: the second is a repetition of the first.
        if let Some(&first) = first_with.get(&(key.scope.as_str(), key.key.as_str())) {
            let same = group[first].key.as_ref().map_or([0; 32], |key| key.request_hash);
            answers[place] = Some(Ok(Accepted::Repeated(StoredKey {
                request_hash: same,
                ids: group[first].notifications.iter().map(|new| new.id).collect(),
                batch: group[first].notifications.first().and_then(|new| new.batch),
            })));
            continue;
        }
        let ids: Vec<Uuid> = accept.notifications.iter().map(|new| new.id.0).collect();
        let batch = accept.notifications.first().and_then(|new| new.batch).map(|batch| batch.0);
        let now = accept.notifications.first().map_or(0, |new| new.created_at.as_microsecond());
        let insert = client
            .prepare_cached(
                "INSERT INTO idempotency AS i (scope, key, request_hash, ids, batch_id, created_at, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (scope, key) DO UPDATE SET request_hash = excluded.request_hash, ids = excluded.ids,
                     batch_id = excluded.batch_id, created_at = excluded.created_at, expires_at = excluded.expires_at
                     WHERE i.expires_at < excluded.created_at",
            )
            .await
            .map_err(failed)?;
        let expires_at = key.expires_at.as_microsecond();
        let hash = key.request_hash.as_slice();
        let values: [&(dyn ToSql + Sync); 7] = [&key.scope, &key.key, &hash, &ids, &batch, &now, &expires_at];
        if client.execute(&insert, &values).await.map_err(failed)? == 1 {
            first_with.insert((&key.scope, &key.key), place);
            continue;
        }
        let select = client
            .prepare_cached("SELECT request_hash, ids, batch_id FROM idempotency WHERE scope = $1 AND key = $2")
            .await
            .map_err(failed)?;
        let row = client.query_one(&select, &[&key.scope, &key.key]).await.map_err(failed)?;
        let row = super::sql::row_of(&row).map_err(failed)?;
        answers[place] = Some(stored_key(&row).map(Accepted::Repeated));
    }
    Ok(())
}

/// Everything in one pipeline, then its commit.
async fn write(client: &Object, shared: &Shared, accepts: &[&Accept], begin: bool) -> Result<OpenedSets, StoreError> {
    let news: Vec<(&Accept, &NewNotification)> =
        accepts.iter().flat_map(|accept| accept.notifications.iter().map(move |new| (*accept, new))).collect();
    let (mut chunks, mut deltas, mut sets) = (Chunks::default(), Deltas::default(), Vec::new());
    for accept in accepts {
        chunks.accepted(accept);
        deltas.accepted(accept);
        let opened: Vec<_> =
            accept.notifications.iter().filter(|new| matches!(new.begin, Begin::Open)).map(|new| new.id).collect();
        if !opened.is_empty() {
            sets.push((shared.ids.next(), accept.epoch.0, opened));
        }
    }
    // One open set for the whole group, as all of it is one process's.
    let sets = merge(sets);
    let chunks = chunks.into_rows(&shared.ids);
    let slot = match accepts.first().map(|accept| accept.urgency) {
        Some(Urgency::Bulk) => Slot::BulkAccept,
        Some(Urgency::Urgent) | None => Slot::UrgentAccept,
    };
    let epoch = accepts.first().map_or(0, |accept| accept.epoch.0);
    // BEGIN goes out with the first poll, before anything else has been prepared; COMMIT only when all are answered.
    let start = async {
        if begin { client.batch_execute("BEGIN").await.map_err(|error| from_postgres(DOING, error)) } else { Ok(()) }
    };
    try_join!(
        start,
        insert_notifications(client, &news),
        insert_work(client, &news),
        insert_ended(client, shared, &news),
        insert_chunks(client, &chunks),
        insert_sets(client, &sets),
        count(client, epoch, slot, &deltas),
    )?;
    client.batch_execute("COMMIT").await.map_err(|error| from_postgres(DOING, error))?;
    Ok(sets.into_iter().map(|(set, _, ids)| (set, ids)).collect())
}

type SetRow = (Uuid, i64, Vec<NotificationId>);

fn merge(sets: Vec<SetRow>) -> Vec<SetRow> {
    let mut merged: Vec<SetRow> = Vec::new();
    for (set, epoch, ids) in sets {
        match merged.iter_mut().find(|(_, known, _)| *known == epoch) {
            Some((_, _, known)) => known.extend(ids),
            None => merged.push((set, epoch, ids)),
        }
    }
    merged
}

/// Executes one statement; a text of ours, kept prepared on the connection.
pub(super) async fn execute(
    client: &Object,
    doing: &'static str,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<u64, StoreError> {
    let failed = |error| from_postgres(doing, error);
    let statement = client.prepare_cached(sql).await.map_err(failed)?;
    client.execute(&statement, values).await.map_err(failed)
}

async fn insert_notifications(client: &Object, news: &[(&Accept, &NewNotification)]) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO notifications (id, batch_id, created_at, scheduled_at, not_after, lead_id,
            template_version, channel, priority, policy, mode, max_retries, recipient, template_id, body, contact_id,
            deal_id, company_id, data, metadata, external_id)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int4[],
            $8::int2[], $9::int2[], $10::int2[], $11::int2[], $12::int2[], $13::text[], $14::text[], $15::text[],
            $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::text[])";
    if news.is_empty() {
        return Ok(());
    }
    if news.len() >= COPY_FROM_ROWS {
        return copy_notifications(client, news).await;
    }
    /// One column of all rows.
    fn column<'a, T>(news: &[(&'a Accept, &'a NewNotification)], pick: impl Fn(&'a NewNotification) -> T) -> Vec<T> {
        news.iter().map(|(_, new)| pick(new)).collect()
    }
    let micros = |at: Option<jiff::Timestamp>| at.map(|at| at.as_microsecond());
    execute(
        client,
        DOING,
        SQL,
        &[
            &column(news, |new| new.id.0),
            &column(news, |new| new.batch.map(|batch| batch.0)),
            &column(news, |new| new.created_at.as_microsecond()),
            &column(news, |new| micros(new.scheduled_at)),
            &column(news, |new| micros(new.not_after)),
            &column(news, |new| new.records.lead_id),
            &column(news, |new| new.template.as_ref().map(|(_, version)| version.0)),
            &column(news, |new| new.channel.code()),
            &column(news, |new| new.priority.code()),
            &column(news, |new| new.policy.code()),
            &column(news, |new| new.mode.code()),
            &column(news, |new| new.max_retries),
            &column(news, |new| new.recipient.as_str()),
            &column(news, |new| new.template.as_ref().map(|(id, _)| id.as_str())),
            &column(news, |new| new.text.as_deref()),
            &column(news, |new| new.records.contact_id.as_deref()),
            &column(news, |new| new.records.deal_id.as_deref()),
            &column(news, |new| new.records.company_id.as_deref()),
            &column(news, |new| new.data.as_deref()),
            &column(news, |new| new.metadata.as_deref()),
            &column(news, |new| new.external_id.as_deref()),
        ],
    )
    .await
    .map(|_| ())
}

async fn insert_work(client: &Object, news: &[(&Accept, &NewNotification)]) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO work (id, due_at, opened_at, epoch, generation, account, state, hold, attempt,
            retry_count, resends)
        SELECT id, due_at, opened_at, epoch, 0, account, state, hold, attempt, 0, 0
        FROM unnest($1::uuid[], $2::int8[], $3::int8[], $4::int8[], $5::int2[], $6::int2[], $7::int2[], $8::int2[])
            AS u(id, due_at, opened_at, epoch, account, state, hold, attempt)";
    if news.is_empty() {
        return Ok(());
    }
    if news.len() >= COPY_FROM_ROWS {
        return copy_work(client, news).await;
    }
    let begun: Vec<_> = news.iter().map(|(_, new)| begins(new)).collect();
    let opened: Vec<Option<i64>> = begun.iter().map(|(_, _, _, at)| at.map(|at| at.as_microsecond())).collect();
    let epochs: Vec<Option<i64>> =
        news.iter().zip(&opened).map(|((accept, _), opened)| opened.map(|_| accept.epoch.0)).collect();
    execute(
        client,
        DOING,
        SQL,
        &[
            &news.iter().map(|(_, new)| new.id.0).collect::<Vec<_>>(),
            &begun.iter().map(|(_, due_at, _, _)| due_at.as_microsecond()).collect::<Vec<_>>(),
            &opened,
            &epochs,
            &news.iter().map(|(_, new)| new.account.0).collect::<Vec<_>>(),
            &begun.iter().map(|(state, _, _, _)| state.code()).collect::<Vec<_>>(),
            &news.iter().map(|(_, new)| held_by(new)).collect::<Vec<_>>(),
            &begun.iter().map(|(_, _, attempt, _)| *attempt).collect::<Vec<_>>(),
        ],
    )
    .await
    .map(|_| ())
}

async fn copy_notifications(client: &Object, news: &[(&Accept, &NewNotification)]) -> Result<(), StoreError> {
    const SQL: &str = "COPY notifications (id, batch_id, created_at, scheduled_at, not_after, lead_id,
            template_version, channel, priority, policy, mode, max_retries, recipient, template_id, body, contact_id,
            deal_id, company_id, data, metadata, external_id) FROM STDIN BINARY";
    const TYPES: [Type; 21] = [
        Type::UUID,
        Type::UUID,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT4,
        Type::INT2,
        Type::INT2,
        Type::INT2,
        Type::INT2,
        Type::INT2,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
    ];
    let failed = |error| from_postgres(DOING, error);
    let mut copy = pin!(copy(client, DOING, SQL, &TYPES).await?);
    let micros = |at: Option<jiff::Timestamp>| at.map(|at| at.as_microsecond());
    for (_, new) in news {
        let row: [&(dyn ToSql + Sync); 21] = [
            &new.id.0,
            &new.batch.map(|batch| batch.0),
            &new.created_at.as_microsecond(),
            &micros(new.scheduled_at),
            &micros(new.not_after),
            &new.records.lead_id,
            &new.template.as_ref().map(|(_, version)| version.0),
            &new.channel.code(),
            &new.priority.code(),
            &new.policy.code(),
            &new.mode.code(),
            &new.max_retries,
            &new.recipient,
            &new.template.as_ref().map(|(id, _)| id.as_str()),
            &new.text,
            &new.records.contact_id,
            &new.records.deal_id,
            &new.records.company_id,
            &new.data,
            &new.metadata,
            &new.external_id,
        ];
        copy.as_mut().write(&row).await.map_err(failed)?;
    }
    copy.finish().await.map(|_| ()).map_err(failed)
}

async fn copy_work(client: &Object, news: &[(&Accept, &NewNotification)]) -> Result<(), StoreError> {
    const SQL: &str = "COPY work (id, due_at, opened_at, epoch, generation, account, state, hold, attempt,
            retry_count, resends) FROM STDIN BINARY";
    const TYPES: [Type; 11] = [
        Type::UUID,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT4,
        Type::INT2,
        Type::INT2,
        Type::INT2,
        Type::INT2,
        Type::INT2,
        Type::INT2,
    ];
    let failed = |error| from_postgres(DOING, error);
    let mut copy = pin!(copy(client, DOING, SQL, &TYPES).await?);
    for (accept, new) in news {
        let (state, due_at, attempt, opened_at) = begins(new);
        let row: [&(dyn ToSql + Sync); 11] = [
            &new.id.0,
            &due_at.as_microsecond(),
            &opened_at.map(|at| at.as_microsecond()),
            &opened_at.map(|_| accept.epoch.0),
            &0_i32,
            &new.account.0,
            &state.code(),
            &held_by(new),
            &attempt,
            &0_i16,
            &0_i16,
        ];
        copy.as_mut().write(&row).await.map_err(failed)?;
    }
    copy.finish().await.map(|_| ()).map_err(failed)
}

/// Begins to copy rows into a table; a text of ours, kept prepared on the connection.
pub(super) async fn copy(
    client: &Object,
    doing: &'static str,
    sql: &str,
    types: &[Type],
) -> Result<BinaryCopyInWriter, StoreError> {
    let failed = |error| from_postgres(doing, error);
    let statement = client.prepare_cached(sql).await.map_err(failed)?;
    let sink = client.copy_in(&statement).await.map_err(failed)?;
    Ok(BinaryCopyInWriter::new(sink, types))
}

/// What was settled without a send; seldom, so one by one.
async fn insert_ended(
    client: &Object,
    shared: &Shared,
    news: &[(&Accept, &NewNotification)],
) -> Result<(), StoreError> {
    for (_, new) in news {
        let Begin::Ended { status, cause, error } = &new.begin else { continue };
        let at = new.created_at.as_microsecond();
        if *status == Status::Failed {
            const SQL: &str = "INSERT INTO failed (id, failed_at, batch_id, account, cause, code, detail, template_id)
                               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
            let batch = new.batch.map(|batch| batch.0);
            let template = new.template.as_ref().map(|(id, _)| id.as_str());
            let values: [&(dyn ToSql + Sync); 8] =
                [&new.id.0, &at, &batch, &new.account.0, cause, &error.code, &error.detail, &template];
            execute(client, DOING, SQL, &values).await?;
        }
        const SQL: &str = "INSERT INTO events (id, notification_id, at, status, actor, reason)
                           VALUES ($1, $2, $3, $4, 'accept', $5)";
        execute(client, DOING, SQL, &[&shared.ids.next(), &new.id.0, &at, &status.code(), cause]).await?;
    }
    Ok(())
}

pub(super) async fn insert_chunks(client: &Object, chunks: &[NewChunk]) -> Result<(), StoreError> {
    const SQL: &str =
        "INSERT INTO due (id, due_at, handed_by, handed_at, account, priority, batch_id, ids, outstanding)
                       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    try_join_all(chunks.iter().map(|chunk| async move {
        let due_at = chunk.due_at.as_microsecond();
        let handed_by = chunk.handed_by.map(|epoch| epoch.0);
        let handed_at = handed_by.map(|_| due_at);
        let batch = chunk.batch.map(|batch| batch.0);
        let (account, priority) = (chunk.account.0, chunk.priority.code());
        let outstanding = chunk.outstanding();
        let values: [&(dyn ToSql + Sync); 9] =
            [&chunk.id, &due_at, &handed_by, &handed_at, &account, &priority, &batch, &chunk.members, &outstanding];
        execute(client, DOING, SQL, &values).await
    }))
    .await
    .map(|_| ())
}

async fn insert_sets(client: &Object, sets: &[SetRow]) -> Result<(), StoreError> {
    for (set, epoch, ids) in sets {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        execute(client, DOING, "INSERT INTO opens (id, epoch, ids) VALUES ($1, $2, $3)", &[set, epoch, &ids]).await?;
    }
    Ok(())
}

pub(super) async fn count(client: &Object, epoch: i64, slot: Slot, deltas: &Deltas) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO counters AS c (batch_id, epoch, slot, status, n)
        SELECT batch, $1, $2, status, n FROM unnest($3::uuid[], $4::int2[], $5::int8[]) AS u(batch, status, n)
        ON CONFLICT (batch_id, epoch, slot, status) DO UPDATE SET n = c.n + excluded.n";
    let rows: Vec<_> = deltas.iter().collect();
    if rows.is_empty() {
        return Ok(());
    }
    execute(
        client,
        DOING,
        SQL,
        &[
            &epoch,
            &slot.code(),
            &rows.iter().map(|(batch, _, _)| *batch).collect::<Vec<_>>(),
            &rows.iter().map(|(_, status, _)| *status).collect::<Vec<_>>(),
            &rows.iter().map(|(_, _, n)| *n).collect::<Vec<_>>(),
        ],
    )
    .await
    .map(|_| ())
}
