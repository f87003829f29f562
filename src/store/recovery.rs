//! Lives of processes: numbering accounts, ending an epoch, and settling what a lost one left.
//!
//! What a lost process had open is named by its rows in `opens`, what it had in hand by its rows in `due`. Every step
//! can be repeated: closing is a compare-and-set, and the rows that name the work go last.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use super::ledger::{ChunkId, Close, Counts, HandedLong, Ledger, Next, Record, Recover, Recovered, Urgency};
use super::sql::{ColumnType, Row, RowsStatement, Sql, Statement, Value};
use crate::domain::clock::later;
use crate::domain::{
    AccountId, AccountRef, BatchId, Channel, Epoch, HoldReason, NotificationId, OutcomeClass, Policy, Priority,
    ProviderError, TemplateId, TemplateVersion,
};

/// Where new ids come from.
pub(super) trait HasIds {
    fn next_id(&self) -> Uuid;
}

/// Whose clock decides about leases.
pub(super) trait LedgerClock {
    /// An SQL expression for now, in Unix microseconds.
    fn now_sql(&self) -> String;
}

pub(super) async fn number_accounts(
    sql: &impl Sql,
    accounts: Vec<AccountRef>,
) -> Result<Vec<(AccountId, AccountRef)>, StoreError> {
    const DOING: &str = "numbering accounts";
    /// More than processes that start in the same moment: each round at least one of them is done.
    const TRIES: u32 = 50;
    let statements: Vec<_> = accounts
        .iter()
        .map(|account| {
            Statement::new(
                "INSERT INTO accounts (id, channel, name)
                 VALUES ((SELECT coalesce(max(id), 0) + 1 FROM accounts), $1, $2) ON CONFLICT (channel, name) DO NOTHING",
                vec![account.channel.code().into(), account.name.as_ref().into()],
            )
        })
        .collect();
    // Two processes that start at once may choose the same next number; the second chooses again.
    let mut tries = 0;
    while let Err(error) = sql.write(DOING, statements.clone()).await {
        tries += 1;
        if tries == TRIES || !matches!(error, StoreError::Refused { .. }) {
            return Err(error);
        }
    }
    let rows = sql.read(DOING, "SELECT id, channel, name FROM accounts ORDER BY id".into(), vec![]).await?;
    rows.iter()
        .map(|row| {
            let channel = row.word(1, Channel::from_code)?;
            Ok((AccountId(row.small(0)?), AccountRef { channel, name: row.text(2)?.into() }))
        })
        .collect()
}

/// A bit for each channel.
pub(super) fn bits(channels: &BTreeSet<Channel>) -> i16 {
    channels.iter().map(|channel| 1 << channel.code()).sum()
}

/// See [`Ledger::senders`].
pub(super) async fn senders<S: Sql + LedgerClock>(store: &S) -> Result<HashMap<Channel, u32>, StoreError> {
    let query = format!("SELECT channels FROM workers WHERE lost_at IS NULL AND lease_until >= {}", store.now_sql());
    let mut senders = HashMap::new();
    for row in store.read("counting processes", query, vec![]).await? {
        let bits = row.small(0)?;
        for channel in Channel::ALL.into_iter().filter(|channel| bits & (1 << channel.code()) != 0) {
            *senders.entry(channel).or_default() += 1;
        }
    }
    Ok(senders)
}

/// Gives back what is in hand. An epoch that still has open attempts stays until they are settled.
pub(super) async fn end_epoch(sql: &impl Sql, epoch: Epoch) -> Result<(), StoreError> {
    const DOING: &str = "ending an epoch";
    // First of all it is lost, so that it takes nothing more; nobody waits for a lease that nobody renews.
    let lose = Statement::new(
        "UPDATE workers SET lost_at = $2, lease_until = 0 WHERE epoch = $1 AND lost_at IS NULL",
        vec![epoch.0.into(), Value::Int(0)],
    );
    sql.write(DOING, vec![lose]).await?;
    give_back(sql, epoch).await?;
    let forget = Statement::new(
        "DELETE FROM workers WHERE epoch = $1 AND NOT EXISTS (SELECT 1 FROM opens WHERE epoch = $1)",
        vec![epoch.0.into()],
    );
    sql.write(DOING, vec![forget]).await.map(|_| ())
}

pub(super) async fn recover<S: Sql + Ledger + LedgerClock>(
    store: &S,
    recover: Recover,
) -> Result<Recovered, StoreError> {
    let mut recovered = Recovered::default();
    for epoch in lost_epochs(store, &recover).await? {
        let (uncertain, to_resend) = settle_open(store, epoch, &recover).await?;
        recovered.uncertain += uncertain;
        recovered.to_resend += to_resend;
        recovered.due_again += give_back(store, epoch).await?;
        let forget = vec![
            Statement::new("DELETE FROM opens WHERE epoch = $1", vec![epoch.0.into()]),
            Statement::new("DELETE FROM workers WHERE epoch = $1", vec![epoch.0.into()]),
        ];
        store.write("forgetting a lost epoch", forget).await?;
        recovered.epochs.push(epoch);
    }
    Ok(recovered)
}

/// Declares lost whose lease ran out, and names those whose open attempts cannot be on their way any more.
async fn lost_epochs<S: Sql + LedgerClock>(store: &S, recover: &Recover) -> Result<Vec<Epoch>, StoreError> {
    const DOING: &str = "looking for lost processes";
    let now = store.now_sql();
    let overdue = store
        .read(
            DOING,
            format!("SELECT epoch FROM workers WHERE lost_at IS NULL AND lease_until < {now} AND epoch <> $1"),
            vec![recover.epoch.0.into()],
        )
        .await?;
    for row in &overdue {
        // The lease is looked at again: it may have been renewed since.
        let declare = Statement::new(
            "UPDATE workers SET lost_at = $2 WHERE epoch = $1 AND lost_at IS NULL AND lease_until = $3",
            vec![row.int(0)?.into(), recover.now.into(), lease_of(store, row.int(0)?).await?],
        );
        store.write(DOING, vec![declare]).await?;
    }
    let settled = store
        .read(
            DOING,
            format!("SELECT epoch FROM workers WHERE lost_at IS NOT NULL AND lease_until + $1 < {now} AND epoch <> $2"),
            vec![
                i64::try_from(recover.send_deadline.as_micros()).unwrap_or(i64::MAX / 2).into(),
                recover.epoch.0.into(),
            ],
        )
        .await?;
    settled.iter().map(|row| row.int(0).map(Epoch)).collect()
}

/// The lease as it stands if it has run out; nothing if it was renewed.
async fn lease_of<S: Sql + LedgerClock>(store: &S, epoch: i64) -> Result<Value, StoreError> {
    let sql = format!("SELECT lease_until FROM workers WHERE epoch = $1 AND lease_until < {}", store.now_sql());
    let rows = store.read("reading a lease", sql, vec![epoch.into()]).await?;
    rows.first().map_or(Ok(Value::Null), |row| row.int(0).map(Value::Int))
}

/// Open attempts of a lost epoch: nobody knows whether they left. Returns how many became uncertain, and how many
/// wait for their one resend.
async fn settle_open<S: Sql + Ledger>(store: &S, epoch: Epoch, recover: &Recover) -> Result<(u64, u64), StoreError> {
    const DOING: &str = "settling what a lost process had open";
    let sets = store.read(DOING, "SELECT ids FROM opens WHERE epoch = $1".into(), vec![epoch.0.into()]).await?;
    let (mut uncertain, mut to_resend) = (0, 0);
    for set in &sets {
        let closes = open_rows(store, epoch, &set.ids(0)?, recover).await?;
        if closes.is_empty() {
            continue;
        }
        let nexts: Vec<_> = closes.iter().map(|close| close.next).collect();
        let closed = store.record(Record { epoch, closes, urgency: Urgency::Bulk }).await?;
        for next in nexts.iter().zip(closed).filter(|(_, closed)| *closed).map(|(next, _)| next) {
            match next {
                Next::Uncertain => uncertain += 1,
                _ => to_resend += 1,
            }
        }
    }
    Ok((uncertain, to_resend))
}

async fn open_rows<S: Sql>(store: &S, epoch: Epoch, ids: &[Uuid], recover: &Recover) -> Result<Vec<Close>, StoreError> {
    const QUERY: &str = "SELECT w.id, n.batch_id, w.account, n.channel, n.priority, n.recipient, n.template_id,
                                n.template_version, w.attempt, w.opened_at, n.policy, w.resends
                         FROM work w JOIN notifications n ON n.id = w.id
                         WHERE w.id = $1 AND w.state = 4 AND w.epoch = $2";
    let mut closes = Vec::new();
    for id in ids {
        let rows = store.read("reading open attempts", QUERY.into(), vec![(*id).into(), epoch.0.into()]).await?;
        for row in rows {
            closes.push(lost_close(&row, recover)?);
        }
    }
    Ok(closes)
}

fn lost_close(row: &Row, recover: &Recover) -> Result<Close, StoreError> {
    let channel = row.word(3, Channel::from_code)?;
    let template = match (row.opt_text(6)?, row.opt_int(7)?) {
        (Some(id), Some(version)) => {
            let id = TemplateId::parse(&id).map_err(|error| StoreError::refused("reading a template id", error))?;
            Some((id, TemplateVersion(i32::try_from(version).unwrap_or(i32::MAX))))
        }
        _ => None,
    };
    let (policy, resends) = (row.word(10, Policy::from_code)?, row.small(11)?);
    let next = after_unknown(policy, resends, channel, recover.now, recover.resend_grace);
    Ok(Close {
        id: NotificationId(row.uuid(0)?),
        batch: row.opt_uuid(1)?.map(BatchId),
        account: AccountId(row.small(2)?),
        channel,
        priority: row.word(4, Priority::from_code)?,
        recipient: row.text(5)?,
        template,
        attempt: row.small(8)?,
        opened_at: row.time(9)?,
        closed_at: recover.now,
        class: OutcomeClass::Lost,
        cause: OutcomeClass::Lost.as_str(),
        provider_message_id: None,
        error: Some(ProviderError::new("lost", "the process that was sending it is gone")),
        text_hash: None,
        flagged: next != Next::Uncertain || resends > 0,
        suppress: None,
        next,
    })
}

/// What follows a send of which nobody knows whether it arrived: at-most-once stops here, at-least-once sends once
/// more, after a grace where a receipt may still come.
pub fn after_unknown(policy: Policy, resends: i16, channel: Channel, now: Timestamp, resend_grace: Duration) -> Next {
    if policy == Policy::AtMostOnce || resends > 0 {
        return Next::Uncertain;
    }
    let grace = if channel.has_receipts() { resend_grace } else { Duration::ZERO };
    Next::Again { due_at: later(now, grace), hold: HoldReason::Resend, counts: Counts::Resend }
}

/// Chunks in an epoch's hand become due again, with those of their notifications that nobody opened.
async fn give_back(sql: &impl Sql, epoch: Epoch) -> Result<u64, StoreError> {
    let in_hand = "SELECT id, ids FROM due WHERE handed_by = $1";
    let chunks = sql.read(GIVING_BACK, in_hand.into(), vec![epoch.0.into()]).await?;
    let mut due_again = 0;
    for chunk in &chunks {
        due_again += give_back_chunk(sql, epoch, chunk).await?;
    }
    Ok(due_again)
}

/// See [`Ledger::give_back`].
pub(super) async fn give_back_one(sql: &impl Sql, chunk: ChunkId) -> Result<u64, StoreError> {
    let in_hand = "SELECT id, ids, handed_by FROM due WHERE id = $1 AND handed_by IS NOT NULL";
    let chunks = sql.read(GIVING_BACK, in_hand.into(), vec![chunk.0.into()]).await?;
    match chunks.first() {
        Some(chunk) => give_back_chunk(sql, Epoch(chunk.int(2)?), chunk).await,
        None => Ok(0),
    }
}

/// See [`Ledger::recount`].
pub(super) async fn recount(
    sql: &impl Sql,
    before: Timestamp,
    by: Option<Epoch>,
) -> Result<Vec<HandedLong>, StoreError> {
    const DOING: &str = "counting what was handed over";
    /// Looked at in one go.
    const CHUNKS: i64 = 64;
    let old = "SELECT id, ids, account, priority, outstanding, handed_at FROM due
               WHERE handed_by IS NOT NULL AND handed_at < $1 AND handed_by = coalesce($2, handed_by)
               ORDER BY handed_at LIMIT $3";
    let by = by.map(|epoch| epoch.0);
    let mut left_over = Vec::new();
    for row in sql.read(DOING, old.into(), vec![before.into(), by.into(), CHUNKS.into()]).await? {
        let (chunk, members) = (row.uuid(0)?, row.ids(1)?);
        let places: Vec<_> = (1..=members.len()).map(|n| format!("${n}")).collect();
        // 3 queued; held by a direct call that has not opened it: 2 pending, in its first generation.
        let count = format!(
            "SELECT count(CASE WHEN state = 3 THEN 1 END), count(CASE WHEN state = 2 AND generation = 0 THEN 1 END)
             FROM work WHERE id IN ({})",
            places.join(", ")
        );
        let counted = sql.read(DOING, count, members.into_iter().map(Value::from).collect()).await?;
        let (queued, held) = counted.first().map_or(Ok((0, 0)), |row| Ok((row.int(0)?, row.int(1)?)))?;
        // Only of the hand-over that was looked at, and only if nothing was counted down meanwhile.
        let (seen, handed_at) = (row.int(4)?, row.int(5)?);
        if queued == 0 && held == 0 {
            let delete =
                "DELETE FROM due WHERE id = $1 AND handed_by IS NOT NULL AND handed_at = $2 AND outstanding = $3";
            let values = vec![chunk.into(), handed_at.into(), seen.into()];
            sql.write_as(DOING, Urgency::Bulk, vec![Statement::new(delete, values)]).await?;
        } else if queued > 0 {
            if queued != seen {
                let update = "UPDATE due SET outstanding = $4
                              WHERE id = $1 AND handed_by IS NOT NULL AND handed_at = $2 AND outstanding = $3";
                let values = vec![chunk.into(), handed_at.into(), seen.into(), queued.into()];
                sql.write_as(DOING, Urgency::Bulk, vec![Statement::new(update, values)]).await?;
            }
            left_over.push(HandedLong {
                chunk: ChunkId(chunk),
                account: AccountId(row.small(2)?),
                priority: row.word(3, Priority::from_code)?,
            });
        }
    }
    Ok(left_over)
}

const GIVING_BACK: &str = "giving back what was in hand";

async fn give_back_chunk(sql: &impl Sql, epoch: Epoch, chunk: &Row) -> Result<u64, StoreError> {
    // 3 queued → 2 pending; what is pending already (held by a direct call) just waits.
    const GIVE_BACK: RowsStatement = RowsStatement {
        sql: "UPDATE work SET state = 2 FROM ROWS given WHERE work.id = given.id AND work.state IN (2, 3) RETURNING work.id",
        columns: &[("id", ColumnType::Id)],
    };
    let members = chunk.ids(1)?.into_iter().map(|id| vec![id.into()]).collect();
    let statements = vec![
        Statement::of_rows(GIVE_BACK, members),
        Statement::new(
            "UPDATE due SET handed_by = NULL, handed_at = NULL WHERE id = $1 AND handed_by = $2",
            vec![chunk.uuid(0)?.into(), epoch.0.into()],
        ),
    ];
    let given_back = sql.write_as(GIVING_BACK, Urgency::Bulk, statements).await?;
    Ok(given_back.first().map_or(0, |rows| rows.len() as u64))
}
