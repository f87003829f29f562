//! Handing out what is due, by the server's clock.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::Object;
use futures::TryFutureExt as _;

use super::accept::live_epochs;
use super::connection::from_postgres;
use crate::domain::clock::from_micros;
use crate::domain::{AccountId, BatchId, Generation, NotificationId, Priority};
use crate::store::StoreError;
use crate::store::ledger::{ChunkId, Handed, HandedChunk, TakeDue};

const DOING: &str = "taking due work";

pub(super) async fn take_due(client: &Object, take: TakeDue) -> Result<Vec<HandedChunk>, StoreError> {
    // SKIP LOCKED: two processes never wait for, nor get, the same chunk.
    const PICK: &str = "WITH picked AS (
            SELECT id FROM due
            WHERE handed_by IS NULL AND ($3::int2 IS NULL OR account = $3) AND due_at <= vestnik_now()
            ORDER BY priority, due_at LIMIT $2 FOR UPDATE SKIP LOCKED)
        UPDATE due d SET handed_by = $1, handed_at = vestnik_now() FROM picked WHERE d.id = picked.id
        RETURNING d.id, d.account, d.priority, d.batch_id, d.due_at, d.ids";
    // 1 scheduled, 2 pending → 3 queued.
    const MARK: &str = "UPDATE work w SET state = 3, hold = NULL, generation = generation + 1
        FROM unnest($1::uuid[]) AS u(id)
        WHERE w.id = u.id AND w.state IN (1, 2) AND w.due_at <= vestnik_now() RETURNING w.id, w.generation";
    let failed = |error| from_postgres(DOING, error);
    let (pick, mark) = (client.prepare_cached(PICK), client.prepare_cached(MARK));
    let (pick, mark) = futures::try_join!(pick, mark).map_err(failed)?;
    let begin = client.batch_execute("BEGIN").map_err(failed);
    let epoch = HashSet::from([take.epoch.0]);
    let ((), live) = futures::try_join!(begin, live_epochs(client, &epoch))?;
    if live.is_empty() {
        return Err(StoreError::EpochLost);
    }
    let chunks = i64::from(take.chunks);
    let rows = client.query(&pick, &[&take.epoch.0, &chunks, &take.account.map(|a| a.0)]).await.map_err(failed)?;
    let mut taken = Vec::with_capacity(rows.len());
    for row in &rows {
        let row = super::sql::row_of(row).map_err(failed)?;
        taken.push((
            row.ids(5)?,
            HandedChunk {
                id: ChunkId(row.uuid(0)?),
                account: AccountId(row.small(1)?),
                priority: row.word(2, Priority::from_code)?,
                batch: row.opt_uuid(3)?.map(BatchId),
                due_at: from_micros(row.int(4)?),
                handed: Vec::new(),
            },
        ));
    }
    let all: Vec<_> = taken.iter().flat_map(|(ids, _)| ids.iter().copied()).collect();
    let mut marked = HashMap::with_capacity(all.len());
    if !all.is_empty() {
        for row in client.query(&mark, &[&all]).await.map_err(failed)? {
            marked.insert(row.get::<_, uuid::Uuid>(0), row.get::<_, i32>(1));
        }
    }
    client.batch_execute("COMMIT").await.map_err(failed)?;
    let mut chunks: Vec<_> = taken
        .into_iter()
        .map(|(ids, mut chunk)| {
            chunk.handed = ids
                .into_iter()
                .filter_map(|id| {
                    let generation = Generation(marked.remove(&id)?);
                    Some(Handed { id: NotificationId(id), generation })
                })
                .collect();
            chunk
        })
        .collect();
    chunks.sort_by_key(|chunk| (chunk.priority.code(), chunk.due_at));
    Ok(chunks)
}
