//! Moves without a send: what is put off, and what ends.

use std::collections::{BTreeMap, HashSet};

use deadpool_postgres::Object;
use futures::try_join;
use uuid::Uuid;

use super::Shared;
use super::accept::{count, execute, insert_chunks};
use super::connection::from_postgres;
use super::open::drop_empty;
use crate::store::StoreError;
use crate::store::ledger::{ChunkId, Postpone, Settle};
use crate::store::plan::{Chunks, Deltas, Slot};

const POSTPONING: &str = "postponing notifications";
const SETTLING: &str = "settling notifications";

pub(super) async fn postpone(
    client: &Object,
    shared: &Shared,
    postpones: &[Postpone],
) -> Result<Vec<bool>, StoreError> {
    // 3 queued → 2 pending: only what is still in this hand.
    const SQL: &str = "UPDATE work w SET state = 2, hold = u.hold, due_at = u.due_at
        FROM unnest($1::uuid[], $2::int4[], $3::int2[], $4::int8[]) AS u(id, generation, hold, due_at)
        WHERE w.id = u.id AND w.generation = u.generation AND w.state = 3 RETURNING w.id";
    let failed = |error| from_postgres(POSTPONING, error);
    let ids: Vec<Uuid> = postpones.iter().map(|one| one.claim.id.0).collect();
    let generations: Vec<i32> = postpones.iter().map(|one| one.claim.generation.0).collect();
    let holds: Vec<i16> = postpones.iter().map(|one| one.hold.code()).collect();
    let due: Vec<i64> = postpones.iter().map(|one| one.due_at.as_microsecond()).collect();
    let begin = async { client.batch_execute("BEGIN").await.map_err(failed) };
    let put_off = async {
        let statement = client.prepare_cached(SQL).await.map_err(failed)?;
        client.query(&statement, &[&ids, &generations, &holds, &due]).await.map_err(failed)
    };
    let ((), rows) = try_join!(begin, put_off)?;
    let mut put_off: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    let done: Vec<bool> = ids.iter().map(|id| put_off.remove(id)).collect();
    let mut chunks = Chunks::default();
    let kept: Vec<&Postpone> = postpones.iter().zip(&done).filter(|(_, done)| **done).map(|(one, _)| one).collect();
    kept.iter().for_each(|one| chunks.postponed(one));
    let chunks = chunks.into_rows(&shared.ids);
    try_join!(insert_chunks(client, &chunks), count_down(client, POSTPONING, kept.iter().map(|one| one.claim.chunk)),)?;
    client.batch_execute("COMMIT").await.map_err(failed)?;
    Ok(done)
}

pub(super) async fn settle(client: &Object, shared: &Shared, settles: &[Settle]) -> Result<Vec<bool>, StoreError> {
    // 1 scheduled, 2 pending, 3 queued: what still waits. Its chunk passes over it.
    const END: &str =
        "UPDATE work w SET state = u.state, hold = NULL FROM unnest($1::uuid[], $2::int2[]) AS u(id, state)
        WHERE w.id = u.id AND w.state IN (1, 2, 3) RETURNING w.id";
    const TELL: &str = "INSERT INTO events (id, notification_id, at, status, actor, reason)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int8[], $4::int2[], $5::text[], $6::text[])";
    let failed = |error| from_postgres(SETTLING, error);
    let ids: Vec<Uuid> = settles.iter().map(|one| one.id.0).collect();
    let states: Vec<i16> = settles.iter().map(|one| one.status.code()).collect();
    let begin = async { client.batch_execute("BEGIN").await.map_err(failed) };
    let end = async {
        let statement = client.prepare_cached(END).await.map_err(failed)?;
        client.query(&statement, &[&ids, &states]).await.map_err(failed)
    };
    let ((), rows) = try_join!(begin, end)?;
    let mut ended: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    let done: Vec<bool> = ids.iter().map(|id| ended.remove(id)).collect();
    let kept: Vec<&Settle> = settles.iter().zip(&done).filter(|(_, done)| **done).map(|(one, _)| one).collect();
    let mut deltas = Deltas::default();
    kept.iter().for_each(|one| deltas.add(one.batch, one.status.code(), 1));
    let tell = async {
        let events: Vec<Uuid> = kept.iter().map(|_| shared.ids.next()).collect();
        let ids: Vec<Uuid> = kept.iter().map(|one| one.id.0).collect();
        let at: Vec<i64> = kept.iter().map(|one| one.at.as_microsecond()).collect();
        let states: Vec<i16> = kept.iter().map(|one| one.status.code()).collect();
        let actors: Vec<&str> = kept.iter().map(|one| one.actor.as_str()).collect();
        let reasons: Vec<&str> = kept.iter().map(|one| one.reason.as_str()).collect();
        execute(client, SETTLING, TELL, &[&events, &ids, &at, &states, &actors, &reasons]).await
    };
    let epoch = settles.first().map_or(0, |one| one.epoch.0);
    try_join!(
        tell,
        count(client, epoch, Slot::Settle, &deltas),
        count_down(client, SETTLING, kept.iter().filter_map(|one| one.chunk)),
    )?;
    client.batch_execute("COMMIT").await.map_err(failed)?;
    Ok(done)
}

/// What was handed over with these chunks is in hand no more, one for each time a chunk is named.
async fn count_down(
    client: &Object,
    doing: &'static str,
    chunks: impl Iterator<Item = ChunkId>,
) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE due d SET outstanding = d.outstanding - u.n
        FROM unnest($1::uuid[], $2::int4[]) AS u(id, n) WHERE d.id = u.id AND d.handed_by IS NOT NULL";
    let mut counts: BTreeMap<Uuid, i32> = BTreeMap::new();
    for chunk in chunks {
        *counts.entry(chunk.0).or_default() += 1;
    }
    if counts.is_empty() {
        return Ok(());
    }
    let (ids, counts): (Vec<Uuid>, Vec<i32>) = counts.into_iter().unzip();
    execute(client, doing, SQL, &[&ids, &counts]).await?;
    drop_empty(client, ids).await
}
