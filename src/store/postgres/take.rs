//! Handing out what is due, by the server's clock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use deadpool_postgres::Object;
use futures::TryFutureExt as _;
use futures::future::try_join_all;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::accept::{execute, live_epochs};
use super::connection::from_postgres;
use crate::domain::clock::from_micros;
use crate::domain::{Generation, IdSource, NotificationId};
use crate::store::StoreError;
use crate::store::ledger::{ChunkId, Handed, HandedChunk, TakeDue, TakeFrom};
use crate::store::plan::{MOST_CHUNKS, portion};

const DOING: &str = "taking due work";

// 1 scheduled, 2 pending → 3 queued.
const MARK: &str = "UPDATE work w SET state = 3, hold = NULL, generation = generation + 1
    FROM unnest($1::uuid[]) AS u(id)
    WHERE w.id = u.id AND w.state IN (1, 2) AND ($2 OR w.due_at <= vestnik_now())
    RETURNING w.id, w.generation, w.retry_count";
const HAND: &str = "UPDATE due d SET handed_by = $1, handed_at = vestnik_now(), outstanding = u.n
    FROM unnest($2::uuid[], $3::int4[]) AS u(id, n) WHERE d.id = u.id AND u.n > 0";
const DROP_EMPTY: &str =
    "DELETE FROM due d USING unnest($1::uuid[], $2::int4[]) AS u(id, n) WHERE d.id = u.id AND u.n = 0";
// The first so many of a chunk become one of their own.
const PART: &str = "WITH rest AS (
        UPDATE due SET ids = ids[$3 + 1:], outstanding = cardinality(ids) - $3 WHERE id = $1
        RETURNING due_at, account, priority, batch_id)
    INSERT INTO due (id, due_at, outstanding, account, priority, batch_id, ids)
    SELECT $2, due_at, $3, account, priority, batch_id, $4 FROM rest";

pub(super) async fn take_due(
    client: &Object,
    ids: &Arc<IdSource>,
    take: TakeDue,
) -> Result<Vec<HandedChunk>, StoreError> {
    let failed = |error| from_postgres(DOING, error);
    let begin = client.batch_execute("BEGIN").map_err(failed);
    let epoch = HashSet::from([take.epoch.0]);
    let ((), live) = futures::try_join!(begin, live_epochs(client, &epoch))?;
    if live.is_empty() {
        return Err(StoreError::EpochLost);
    }
    let picked = try_join_all(take.from.iter().map(|from| pick(client, ids, *from, take.early))).await?;
    let mut taken: Vec<(Vec<Uuid>, HandedChunk)> = picked.into_iter().flatten().collect();
    let all: Vec<_> = taken.iter().flat_map(|(ids, _)| ids.iter().copied()).collect();
    let mut marked = HashMap::with_capacity(all.len());
    if !all.is_empty() {
        let mark = client.prepare_cached(MARK).await.map_err(failed)?;
        for row in client.query(&mark, &[&all, &take.early]).await.map_err(failed)? {
            marked.insert(row.get::<_, Uuid>(0), (Generation(row.get(1)), row.get::<_, i16>(2)));
        }
    }
    for (ids, chunk) in &mut taken {
        let handed = ids.iter().filter_map(|id| {
            let (generation, retry_count) = marked.remove(id)?;
            Some(Handed { id: NotificationId(*id), generation, retry_count })
        });
        chunk.handed = handed.collect();
    }
    if !taken.is_empty() {
        let chunks: Vec<Uuid> = taken.iter().map(|(_, chunk)| chunk.id.0).collect();
        let counts: Vec<i32> =
            taken.iter().map(|(_, chunk)| i32::try_from(chunk.handed.len()).unwrap_or(i32::MAX)).collect();
        execute(client, DOING, HAND, &[&take.epoch.0, &chunks, &counts]).await?;
        if counts.contains(&0) {
            execute(client, DOING, DROP_EMPTY, &[&chunks, &counts]).await?;
        }
    }
    client.batch_execute("COMMIT").await.map_err(failed)?;
    Ok(taken.into_iter().map(|(_, chunk)| chunk).filter(|chunk| !chunk.handed.is_empty()).collect())
}

/// The oldest chunks of a stream up to its limit, with the ids in them; nothing is handed over yet.
async fn pick(
    client: &Object,
    ids: &Arc<IdSource>,
    from: TakeFrom,
    early: bool,
) -> Result<Vec<(Vec<Uuid>, HandedChunk)>, StoreError> {
    // SKIP LOCKED: two processes never wait for, nor get, the same chunk. One text for batches and one for what is in
    // none, so that each can use the index.
    const OF_BATCH: &str = "SELECT id, due_at, outstanding FROM due
        WHERE handed_by IS NULL AND priority = $1 AND account = $2 AND batch_id = $5 AND ($3 OR due_at <= vestnik_now())
        ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED";
    const SINGLE: &str = "SELECT id, due_at, outstanding FROM due
        WHERE handed_by IS NULL AND priority = $1 AND account = $2 AND batch_id IS NULL
            AND ($3 OR due_at <= vestnik_now())
        ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED";
    let failed = |error| from_postgres(DOING, error);
    let TakeFrom { stream, limit } = from;
    let (priority, account, batch) = (stream.priority.code(), stream.account.0, stream.batch.map(|batch| batch.0));
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![&priority, &account, &early, &MOST_CHUNKS];
    let sql = match &batch {
        Some(batch) => {
            values.push(batch);
            OF_BATCH
        }
        None => SINGLE,
    };
    let statement = client.prepare_cached(sql).await.map_err(failed)?;
    let found = client.query(&statement, &values).await.map_err(failed)?;
    let chosen: Vec<(Uuid, i64)> = portion(limit, found.iter().map(|row| row.get::<_, i32>(2)))
        .zip(&found)
        .map(|(_, row)| (row.get(0), row.get(1)))
        .collect();
    let names: Vec<Uuid> = chosen.iter().map(|(id, _)| *id).collect();
    let members = client.prepare_cached("SELECT id, ids FROM due WHERE id = ANY($1)").await.map_err(failed)?;
    let rows = client.query(&members, &[&names]).await.map_err(failed)?;
    let mut members: HashMap<Uuid, Vec<Uuid>> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let (mut picked, mut left) = (Vec::with_capacity(chosen.len()), limit as usize);
    for (mut id, due_at) in chosen {
        let mut of_chunk = members.remove(&id).unwrap_or_default();
        if of_chunk.len() > left {
            of_chunk.truncate(left);
            let part = ids.next();
            let count = i32::try_from(left).unwrap_or(i32::MAX);
            execute(client, DOING, PART, &[&id, &part, &count, &of_chunk]).await?;
            id = part;
        }
        left -= of_chunk.len();
        let chunk = HandedChunk {
            id: ChunkId(id),
            account: stream.account,
            priority: stream.priority,
            batch: stream.batch,
            due_at: from_micros(due_at),
            handed: Vec::new(),
        };
        picked.push((of_chunk, chunk));
        if left == 0 {
            break;
        }
    }
    Ok(picked)
}
