//! Closing attempts: a group in one transaction.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;

use deadpool_postgres::Object;
use futures::try_join;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::Shared;
use super::accept::{COPY_FROM_ROWS, copy, count, execute, insert_chunks};
use super::connection::from_postgres;
use crate::store::StoreError;
use crate::store::ledger::{Close, Counts, Next, Record};
use crate::store::opens::{Closing, OpenSets};
use crate::store::plan::{Chunks, Deltas, Slot};

const DOING: &str = "recording outcomes";

type Answer = Result<Vec<bool>, StoreError>;

pub(super) async fn commit(shared: Shared, group: Arc<[Record]>) -> Result<Vec<Answer>, StoreError> {
    let (for_work, for_group) = (shared.clone(), Arc::clone(&group));
    let closed = shared
        .on_connection(DOING, move |client| Box::pin(async move { transaction(client, &for_work, &for_group).await }))
        .await?;
    let mut closed = closed.into_iter();
    Ok(group.iter().map(|record| Ok(closed.by_ref().take(record.closes.len()).collect())).collect())
}

/// Whether each close of the group, in order, was the one that closed.
async fn transaction(client: &Object, shared: &Shared, group: &[Record]) -> Result<Vec<bool>, StoreError> {
    let failed = |error| from_postgres(DOING, error);
    let closes: Vec<(i64, &Close)> =
        group.iter().flat_map(|record| record.closes.iter().map(|close| (record.epoch.0, close))).collect();
    // BEGIN goes out with the first poll, before anything else has been prepared.
    let begin = async { client.batch_execute("BEGIN").await.map_err(failed) };
    let ((), mut ended) = try_join!(begin, close_all(client, &closes))?;
    // Each once: of two equal closes the second finds nothing to close.
    let closed: Vec<bool> =
        closes.iter().map(|(epoch, close)| ended.remove(&(close.id.0, close.attempt, *epoch))).collect();
    let kept: Vec<(i64, &Close)> =
        closes.into_iter().zip(&closed).filter(|(_, closed)| **closed).map(|(close, _)| close).collect();
    // What was reopened stays in its set.
    let ended = kept.iter().filter(|(_, close)| !matches!(close.next, Next::Reopen { .. })).map(|(_, close)| close.id);
    let mut closing = Uncommitted { opens: &shared.opens, closing: shared.opens.closing(ended) };
    write(client, shared, &kept, &closing.closing.drained).await?;
    client.batch_execute("COMMIT").await.map_err(failed)?;
    closing.closing = Closing::default();
    Ok(closed)
}

/// Takes back what was closed if the commit fails, or its time is up.
struct Uncommitted<'a> {
    opens: &'a OpenSets,
    closing: Closing,
}

impl Drop for Uncommitted<'_> {
    fn drop(&mut self) {
        self.opens.take_back(std::mem::take(&mut self.closing));
    }
}

/// Which (id, attempt, epoch) were closed: only what was 4 sending, by its epoch, at its attempt; and a lost epoch
/// reopens nothing.
async fn close_all(client: &Object, closes: &[(i64, &Close)]) -> Result<HashSet<(Uuid, i16, i64)>, StoreError> {
    const CLOSE: &str = "UPDATE work w SET
            state = u.state, hold = u.hold, due_at = coalesce(u.due_at, w.due_at),
            epoch = CASE WHEN u.state = 4 THEN w.epoch END,
            opened_at = u.reopened_at,
            attempt = CASE WHEN u.state = 4 THEN w.attempt + 1 ELSE w.attempt END,
            retry_count = w.retry_count + u.retries, resends = w.resends + u.resends
        FROM unnest($1::uuid[], $2::int8[], $3::int2[], $4::int2[], $5::int2[], $6::int8[], $7::int8[], $8::int2[],
                    $9::int2[])
            AS u(id, epoch, attempt, state, hold, due_at, reopened_at, retries, resends)
        WHERE w.id = u.id AND w.state = 4 AND w.epoch = u.epoch AND w.attempt = u.attempt
            AND (u.state <> 4 OR EXISTS (SELECT 1 FROM workers k WHERE k.epoch = u.epoch AND k.lost_at IS NULL
                                             AND k.lease_until >= vestnik_now()))
        RETURNING w.id, u.attempt, u.epoch";
    /// One column of all rows.
    fn column<'a, T>(closes: &[(i64, &'a Close)], pick: impl Fn(&'a Close) -> T) -> Vec<T> {
        closes.iter().map(|(_, close)| pick(close)).collect()
    }
    let failed = |error| from_postgres(DOING, error);
    let statement = client.prepare_cached(CLOSE).await.map_err(failed)?;
    let rows = client
        .query(
            &statement,
            &[
                &column(closes, |close| close.id.0),
                &closes.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>(),
                &column(closes, |close| close.attempt),
                &column(closes, |close| close.next.status().code()),
                &column(closes, |close| match close.next {
                    Next::Again { hold, .. } => Some(hold.code()),
                    _ => None,
                }),
                &column(closes, |close| match close.next {
                    Next::Again { due_at, .. } => Some(due_at.as_microsecond()),
                    _ => None,
                }),
                &column(closes, |close| match close.next {
                    Next::Reopen { opened_at } => Some(opened_at.as_microsecond()),
                    _ => None,
                }),
                &column(closes, |close| match close.next {
                    Next::Again { counts, .. } => i16::from(counts == Counts::Retry),
                    Next::Reopen { .. } => 1,
                    _ => 0,
                }),
                &column(closes, |close| match close.next {
                    Next::Again { counts, .. } => i16::from(counts == Counts::Resend),
                    _ => 0,
                }),
            ],
        )
        .await
        .map_err(failed)?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

async fn write(client: &Object, shared: &Shared, kept: &[(i64, &Close)], drained: &[Uuid]) -> Result<(), StoreError> {
    let Some((epoch, _)) = kept.first() else { return Ok(()) };
    let (mut deltas, mut chunks) = (Deltas::default(), Chunks::default());
    for (_, close) in kept {
        deltas.closed(close);
        chunks.closed(close);
    }
    let chunks = chunks.into_rows(&shared.ids);
    let drop_sets = async {
        if drained.is_empty() {
            return Ok(0);
        }
        execute(client, DOING, "DELETE FROM opens WHERE id = ANY($1)", &[&drained]).await
    };
    try_join!(
        insert_attempts(client, kept),
        insert_failed(client, kept),
        insert_uncertain(client, kept),
        insert_suppressions(client, kept),
        insert_chunks(client, &chunks),
        count(client, *epoch, Slot::Record, &deltas),
        drop_sets,
    )
    .map(|_| ())
}

async fn insert_attempts(client: &Object, kept: &[(i64, &Close)]) -> Result<(), StoreError> {
    const SQL: &str =
        "INSERT INTO attempts (notification_id, opened_at, closed_at, epoch, template_version, n, account,
            class, flagged, cause, provider_message_id, code, detail, text_hash)
        SELECT * FROM unnest($1::uuid[], $2::int8[], $3::int8[], $4::int8[], $5::int4[], $6::int2[], $7::int2[],
            $8::int2[], $9::int2[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bytea[])";
    if kept.len() >= COPY_FROM_ROWS {
        return copy_attempts(client, kept).await;
    }
    /// One column of all rows.
    fn column<'a, T>(kept: &[(i64, &'a Close)], pick: impl Fn(&'a Close) -> T) -> Vec<T> {
        kept.iter().map(|(_, close)| pick(close)).collect()
    }
    execute(
        client,
        DOING,
        SQL,
        &[
            &column(kept, |close| close.id.0),
            &column(kept, |close| close.opened_at.as_microsecond()),
            &column(kept, |close| close.closed_at.as_microsecond()),
            &kept.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>(),
            &column(kept, |close| close.template.as_ref().map(|(_, version)| version.0)),
            &column(kept, |close| close.attempt),
            &column(kept, |close| close.account.0),
            &column(kept, |close| close.class.code()),
            &column(kept, |close| i16::from(close.flagged)),
            &column(kept, |close| close.cause),
            &column(kept, |close| close.provider_message_id.as_deref()),
            &column(kept, |close| close.error.as_ref().map(|error| error.code.as_str())),
            &column(kept, |close| close.error.as_ref().map(|error| error.detail.as_str())),
            &column(kept, |close| close.text_hash.as_ref().map(<[u8; 32]>::as_slice)),
        ],
    )
    .await
    .map(|_| ())
}

async fn copy_attempts(client: &Object, kept: &[(i64, &Close)]) -> Result<(), StoreError> {
    const SQL: &str = "COPY attempts (notification_id, opened_at, closed_at, epoch, template_version, n, account,
            class, flagged, cause, provider_message_id, code, detail, text_hash) FROM STDIN BINARY";
    const TYPES: [Type; 14] = [
        Type::UUID,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT4,
        Type::INT2,
        Type::INT2,
        Type::INT2,
        Type::INT2,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::BYTEA,
    ];
    let failed = |error| from_postgres(DOING, error);
    let mut copy = pin!(copy(client, DOING, SQL, &TYPES).await?);
    for (epoch, close) in kept {
        let row: [&(dyn ToSql + Sync); 14] = [
            &close.id.0,
            &close.opened_at.as_microsecond(),
            &close.closed_at.as_microsecond(),
            epoch,
            &close.template.as_ref().map(|(_, version)| version.0),
            &close.attempt,
            &close.account.0,
            &close.class.code(),
            &i16::from(close.flagged),
            &close.cause,
            &close.provider_message_id,
            &close.error.as_ref().map(|error| error.code.as_str()),
            &close.error.as_ref().map(|error| error.detail.as_str()),
            &close.text_hash.as_ref().map(<[u8; 32]>::as_slice),
        ];
        copy.as_mut().write(&row).await.map_err(failed)?;
    }
    copy.finish().await.map(|_| ()).map_err(failed)
}

async fn insert_failed(client: &Object, kept: &[(i64, &Close)]) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO failed (id, failed_at, batch_id, account, cause, code, detail, template_id)
        SELECT * FROM unnest($1::uuid[], $2::int8[], $3::uuid[], $4::int2[], $5::text[], $6::text[], $7::text[],
            $8::text[])";
    let failed: Vec<&Close> = kept.iter().map(|(_, close)| *close).filter(|close| close.next == Next::Failed).collect();
    if failed.is_empty() {
        return Ok(());
    }
    execute(
        client,
        DOING,
        SQL,
        &[
            &failed.iter().map(|close| close.id.0).collect::<Vec<_>>(),
            &failed.iter().map(|close| close.closed_at.as_microsecond()).collect::<Vec<_>>(),
            &failed.iter().map(|close| close.batch.map(|batch| batch.0)).collect::<Vec<_>>(),
            &failed.iter().map(|close| close.account.0).collect::<Vec<_>>(),
            &failed.iter().map(|close| close.cause).collect::<Vec<_>>(),
            &failed.iter().map(|close| close.error.as_ref().map(|error| error.code.as_str())).collect::<Vec<_>>(),
            &failed.iter().map(|close| close.error.as_ref().map(|error| error.detail.as_str())).collect::<Vec<_>>(),
            &failed.iter().map(|close| close.template.as_ref().map(|(id, _)| id.as_str())).collect::<Vec<_>>(),
        ],
    )
    .await
    .map(|_| ())
}

async fn insert_uncertain(client: &Object, kept: &[(i64, &Close)]) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO uncertain (id, since, batch_id, account, attempt, cause)
        SELECT * FROM unnest($1::uuid[], $2::int8[], $3::uuid[], $4::int2[], $5::int2[], $6::text[])";
    let uncertain: Vec<&Close> =
        kept.iter().map(|(_, close)| *close).filter(|close| close.next == Next::Uncertain).collect();
    if uncertain.is_empty() {
        return Ok(());
    }
    execute(
        client,
        DOING,
        SQL,
        &[
            &uncertain.iter().map(|close| close.id.0).collect::<Vec<_>>(),
            &uncertain.iter().map(|close| close.closed_at.as_microsecond()).collect::<Vec<_>>(),
            &uncertain.iter().map(|close| close.batch.map(|batch| batch.0)).collect::<Vec<_>>(),
            &uncertain.iter().map(|close| close.account.0).collect::<Vec<_>>(),
            &uncertain.iter().map(|close| close.attempt).collect::<Vec<_>>(),
            &uncertain.iter().map(|close| close.cause).collect::<Vec<_>>(),
        ],
    )
    .await
    .map(|_| ())
}

async fn insert_suppressions(client: &Object, kept: &[(i64, &Close)]) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO suppressions (channel, address, scope, reason, created_at)
                       VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
    for (_, close) in kept {
        let Some(scope) = close.suppress else { continue };
        let at = close.closed_at.as_microsecond();
        let values: [&(dyn ToSql + Sync); 5] =
            [&close.channel.code(), &close.recipient, &scope.code(), &close.cause, &at];
        execute(client, DOING, SQL, &values).await?;
    }
    Ok(())
}
