//! Claiming, fencing and opening: one statement for a group.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Shared;
use super::accept::{execute, live_epochs};
use super::connection::from_postgres;
use crate::domain::clock::from_micros;
use crate::domain::{Generation, NotificationId};
use crate::store::StoreError;
use crate::store::ledger::{Open, Opened};

const DOING: &str = "opening attempts";
/// A server that is away is asked again after this.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

type Answer = Result<Vec<Opened>, StoreError>;

pub(super) async fn commit(shared: Shared, group: Arc<[Open]>) -> Result<Vec<Answer>, StoreError> {
    // One process has one epoch, so a group is of one; should a test mix two, each is its own transaction.
    let mut answers: Vec<Option<Answer>> = group.iter().map(|_| None).collect();
    let epochs: HashSet<i64> = group.iter().map(|open| open.epoch.0).collect();
    for epoch in epochs {
        let places: Vec<usize> = (0..group.len()).filter(|place| group[*place].epoch.0 == epoch).collect();
        let opened = open_all(&shared, &group, &places, epoch).await?;
        let Some(mut opened) = opened else {
            places.iter().for_each(|place| answers[*place] = Some(Err(StoreError::EpochLost)));
            continue;
        };
        for place in places {
            // Each once, and only to who named its generation: a copy beside it gets nothing.
            let claims = group[place].claims.iter();
            let claimed = claims.filter_map(|claim| opened.remove(&(claim.id, claim.generation))).collect();
            answers[place] = Some(Ok(claimed));
        }
    }
    Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|| Ok(Vec::new()))).collect())
}

type OpenedClaims = HashMap<(NotificationId, Generation), Opened>;

/// What was claimed, or nothing at all when the epoch is lost.
async fn open_all(
    shared: &Shared,
    group: &Arc<[Open]>,
    places: &[usize],
    epoch: i64,
) -> Result<Option<OpenedClaims>, StoreError> {
    // 2 pending, 3 queued → 4 sending. What is held waits for its time, and for another hand-over: of an earlier one
    // only a copy is left. The share lock keeps the epoch from being declared lost until the commit.
    const OPEN: &str = "WITH live AS MATERIALIZED (
            SELECT 1 FROM workers
            WHERE epoch = $1 AND lost_at IS NULL AND lease_until >= vestnik_now() FOR SHARE),
        claimed AS (
            UPDATE work w SET state = 4, hold = NULL, epoch = $1, attempt = w.attempt + 1, opened_at = vestnik_now()
            FROM unnest($2::uuid[], $3::int4[], $5::uuid[]) AS u(id, generation, chunk)
            WHERE w.id = u.id AND w.generation = u.generation AND w.state IN (2, 3) AND w.hold IS NULL
                AND EXISTS (SELECT 1 FROM live)
            RETURNING w.id, w.attempt, w.retry_count, w.resends, w.opened_at, w.generation, u.chunk),
        kept AS (
            INSERT INTO opens (id, epoch, ids) SELECT $4, $1, array_agg(id) FROM claimed HAVING count(*) > 0),
        counted AS (
            UPDATE due d SET outstanding = d.outstanding - c.n
            FROM (SELECT chunk, count(*)::int4 AS n FROM claimed GROUP BY chunk) c
            WHERE d.id = c.chunk AND d.handed_by IS NOT NULL RETURNING d.id AS chunk, d.outstanding)
        SELECT id, attempt, retry_count, resends, opened_at, generation, chunk, outstanding
        FROM claimed LEFT JOIN counted USING (chunk)";
    // In one order for all: processes that claim the same rows seldom wait for each other in a circle.
    let mut claims: Vec<_> = places.iter().flat_map(|place| &group[*place].claims).collect();
    claims.sort_unstable_by_key(|claim| (claim.id, claim.generation));
    let ids: Vec<Uuid> = claims.iter().map(|claim| claim.id.0).collect();
    let generations: Vec<i32> = claims.iter().map(|claim| claim.generation.0).collect();
    let chunks: Vec<Uuid> = claims.iter().map(|claim| claim.chunk.0).collect();
    let set = shared.ids.next();
    let was_sent = Arc::new(AtomicBool::new(false));
    let sent = Arc::clone(&was_sent);
    let rows = shared
        .on_connection(DOING, move |client| {
            Box::pin(async move {
                sent.store(true, Ordering::Release);
                let failed = |error| from_postgres(DOING, error);
                let statement = client.prepare_cached(OPEN).await.map_err(failed)?;
                let rows =
                    client.query(&statement, &[&epoch, &ids, &generations, &set, &chunks]).await.map_err(failed)?;
                if rows.is_empty() && live_epochs(client, &HashSet::from([epoch])).await?.is_empty() {
                    return Ok(None);
                }
                let empty = rows.iter().filter(|row| row.get::<_, Option<i32>>(7).is_some_and(|left| left <= 0));
                // What is open is open; an empty chunk that stays is found when it is counted anew.
                if let Err(error) = drop_empty(client, empty.map(|row| row.get(6)).collect()).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "an empty chunk stays for now");
                }
                Ok(Some(rows))
            })
        })
        .await;
    let rows = match rows {
        Err(error) if was_sent.load(Ordering::Acquire) && is_unknown(&error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "asking what was opened: the answer was lost");
            Some(what_was_opened(shared, set, epoch).await?)
        }
        rows => rows?,
    };
    let Some(rows) = rows else { return Ok(None) };
    let opened: HashMap<_, _> = rows
        .iter()
        .map(|row| {
            let id = NotificationId(row.get(0));
            let opened_at = from_micros(row.get(4));
            let generation = Generation(row.get(5));
            (
                (id, generation),
                Opened { id, attempt: row.get(1), retry_count: row.get(2), resends: row.get(3), opened_at },
            )
        })
        .collect();
    shared.opens.opened(set, opened.keys().map(|(id, _)| *id));
    Ok(Some(opened))
}

/// Whether the statement may have been committed all the same, now or later.
fn is_unknown(error: &StoreError) -> bool {
    let StoreError::Unavailable { source, .. } = error else { return false };
    // Class 40: the server rolled it back, and says so.
    let code = source.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
    code.is_none_or(|code| !code.code().starts_with("40"))
}

/// What a statement opened whose answer was lost, however long the server is away: nobody sends it, and it would stay
/// open as long as this process lives.
async fn what_was_opened(shared: &Shared, set: Uuid, epoch: i64) -> Result<Vec<Row>, StoreError> {
    // The statement may still be running, or begin. Of two with the same set the second waits for the first and fails:
    // after this one it opens nothing any more. A lost epoch that was forgotten opens nothing either.
    const CLOSE: &str = "INSERT INTO opens (id, epoch, ids) SELECT $1, epoch, '{}' FROM workers WHERE epoch = $2
                         ON CONFLICT (id) DO NOTHING";
    const FIND: &str = "SELECT w.id, w.attempt, w.retry_count, w.resends, w.opened_at, w.generation
                        FROM opens o JOIN work w ON w.id = ANY(o.ids) WHERE o.id = $1 AND w.state = 4 AND w.epoch = $2";
    loop {
        let asked = shared.on_connection(DOING, move |client| {
            Box::pin(async move {
                execute(client, DOING, CLOSE, &[&set, &epoch]).await?;
                client.query(FIND, &[&set, &epoch]).await.map_err(|error| from_postgres(DOING, error))
            })
        });
        match asked.await {
            Err(StoreError::Unavailable { .. }) => tokio::time::sleep(ASK_AGAIN_AFTER).await,
            answer => return answer,
        }
    }
}

/// Chunks of which nothing is left go. A statement of its own: in one with the count, a chunk that two processes count
/// down at once would be seen by neither as empty.
pub(super) async fn drop_empty(client: &Object, mut chunks: Vec<Uuid>) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM due WHERE id = ANY($1) AND handed_by IS NOT NULL AND outstanding <= 0";
    chunks.sort_unstable();
    chunks.dedup();
    if chunks.is_empty() {
        return Ok(());
    }
    execute(client, DOING, SQL, &[&chunks]).await.map(|_| ())
}
