//! What all processes know of provider accounts: what rests, what cannot send, and what the day has left.
//!
//! A process tells what it sees at once, and looks at all of it every second. Times are the ledger's own: told and
//! asked for as durations, so that no process's clock matters. Nothing here outlives whoever said it: a pause ends, a
//! probe's claim runs out, a reserve that nobody renews is forgotten after a day.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::StoreError;
use super::recovery::LedgerClock;
use super::sql::{Row, Sql, Statement, Value};
use crate::domain::{AccountId, Epoch, Probe};

/// What is known of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountState {
    /// The account itself, or recipients of it.
    pub pauses: Vec<KnownPause>,
    pub down: Option<KnownDown>,
    /// What was spent within the day, oldest first: how much, and when it is a day ago.
    pub spent: Vec<(u64, Duration)>,
    /// What other processes may still spend: it counts as spent.
    pub reserved: u64,
    /// The part of it that may be given back, because whoever has it lives.
    pub reserved_by_living: u64,
}

/// Something rests after a throttled answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownPause {
    /// A recipient's hash; the whole account without one.
    pub recipient: Option<i64>,
    pub left: Duration,
    /// How often it was throttled in a row.
    pub strikes: u32,
}

/// An account that cannot send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDown {
    pub since: Timestamp,
    pub reason: String,
    pub code: String,
    /// What the next try waits from the last one.
    pub wait: Duration,
    /// Until the next try.
    pub probe_in: Duration,
}

/// What one process has seen of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountNews {
    /// It rests at least so long from now.
    Paused(KnownPause),
    /// It cannot send: it is tried after `wait`. Says nothing of one that is known to be down.
    Down { reason: String, code: String, wait: Duration },
    /// The probe was refused: the next comes after `wait`. Says nothing if another began since.
    StillDown { probe: Probe, reason: String, code: String, wait: Duration },
    /// It sent something.
    Works,
}

/// What a process spent of an account's day, and what it wants to be able to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayDemand {
    pub account: AccountId,
    /// Since the last demand.
    pub spent: u64,
    /// Without one nothing is reserved.
    pub limit: Option<u64>,
    /// What it may still spend of what it was granted; it keeps that.
    pub held: u64,
    /// What it would like to have; no less than it holds.
    pub want: u64,
}

/// Accounts as all processes know them.
#[async_trait]
pub trait AccountStates: Send + Sync {
    /// What is known of each account of which anything is known, as seen by the process whose first epoch is `me`.
    async fn account_states(&self, me: Epoch) -> Result<BTreeMap<AccountId, AccountState>, StoreError>;

    /// Writes down what was seen; of two that say how long something rests, the longer holds.
    async fn tell_of_accounts(&self, news: Vec<(AccountId, AccountNews)>) -> Result<(), StoreError>;

    /// Lets one message try an account that is down and whose time has come. No two callers get the same probe; after
    /// `wait` another may be had, whatever became of this one.
    async fn claim_probe(&self, account: AccountId, wait: Duration) -> Result<Option<Probe>, StoreError>;

    /// Accounts that are down may be tried at once: whoever starts may have been given what was missing.
    async fn hasten_probes(&self) -> Result<(), StoreError>;

    /// Counts what was spent, and grants what there is room for: the answer is what each may spend now, in order. All
    /// processes together are never granted more than the limit within a day. After an error what was spent may have
    /// been counted; counted twice it is on the safe side.
    async fn spend_day(&self, me: Epoch, demands: Vec<DayDemand>) -> Result<Vec<u64>, StoreError>;
}

const READING: &str = "reading what is known of accounts";
const TELLING: &str = "telling what is known of accounts";
/// Spending is counted in quarters of an hour.
const QUARTER_MICROS: i64 = 15 * 60 * 1_000_000;
/// The present one and those of the 24 hours before it: what was spent counts for a day, and a quarter more at most.
const QUARTERS: i64 = 97;
/// What was spent in a quarter that began so long ago counts no more, nor does a reserve of then.
const WINDOW_MICROS: i64 = QUARTERS * QUARTER_MICROS;
/// Nothing rests for longer: whoever says so is asked again.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

#[async_trait]
impl<S: Sql + LedgerClock> AccountStates for S {
    async fn account_states(&self, me: Epoch) -> Result<BTreeMap<AccountId, AccountState>, StoreError> {
        let now = self.now_sql();
        // One question: it is asked every second.
        let query = format!(
            "SELECT 1, account, paused_until - {now}, CAST(strikes AS BIGINT), down_since, probe_at - {now}, probe_wait,
                 down_reason, down_code FROM account_states
             UNION ALL
             SELECT 2, account, paused_until - {now}, CAST(strikes AS BIGINT), recipient, 0, 0, '', ''
                 FROM account_pauses WHERE paused_until > {now}
             UNION ALL
             SELECT 3, account, quarter * {QUARTER_MICROS} + {WINDOW_MICROS} - {now}, spent, 0, 0, 0, '', ''
                 FROM account_spent WHERE quarter > {now} / {QUARTER_MICROS} - {QUARTERS}
             UNION ALL
             SELECT 4, account, CAST(0 AS BIGINT), CAST(sum(reserve) AS BIGINT), 0,
                 CAST(coalesce(sum(CASE WHEN EXISTS (SELECT 1 FROM workers
                     WHERE epoch = spender AND lost_at IS NULL AND lease_until >= {now}) THEN reserve END), 0) AS BIGINT),
                 0, '', '' FROM account_reserves
                 WHERE spender <> $1 AND renewed_at > {now} - {WINDOW_MICROS} GROUP BY account
             ORDER BY 1, 2, 3"
        );
        let mut states: BTreeMap<AccountId, AccountState> = BTreeMap::new();
        for row in self.read(READING, query, vec![me.0.into()]).await? {
            let state = states.entry(AccountId(row.small(1)?)).or_default();
            match row.int(0)? {
                1 => {
                    let paused = pause(&row, None)?;
                    state.pauses.extend(Some(paused).filter(|paused| !paused.left.is_zero()));
                    state.down = down(&row)?;
                }
                2 => state.pauses.push(pause(&row, row.opt_int(4)?)?),
                3 => state.spent.push((count(row.int(3)?), micros(row.int(2)?))),
                _ => (state.reserved, state.reserved_by_living) = (count(row.int(3)?), count(row.int(5)?)),
            }
        }
        Ok(states)
    }

    async fn tell_of_accounts(&self, mut news: Vec<(AccountId, AccountNews)>) -> Result<(), StoreError> {
        let now = now(self).await?;
        // In one order for all, so that no two processes wait for each other.
        news.sort_by_key(|(account, news)| (*account, recipient_of(news)));
        let statements = news.into_iter().flat_map(|(account, news)| told(account, news, now)).collect();
        self.write(TELLING, statements).await.map(drop)
    }

    async fn claim_probe(&self, account: AccountId, wait: Duration) -> Result<Option<Probe>, StoreError> {
        let now = now(self).await?;
        let claim = Statement::new(
            "UPDATE account_states SET probe = probe + 1, probe_at = $3
             WHERE account = $1 AND down_since IS NOT NULL AND probe_at <= $2 RETURNING probe",
            vec![account.0.into(), now.into(), (now + in_micros(wait)).into()],
        );
        let rows = self.write("claiming a probe of an account", vec![claim]).await?;
        rows[0].first().map(|row| row.int(0).map(Probe)).transpose()
    }

    async fn hasten_probes(&self) -> Result<(), StoreError> {
        let now = now(self).await?;
        let hasten = Statement::new(
            "UPDATE account_states SET probe_at = $1 WHERE down_since IS NOT NULL AND probe_at > $1",
            vec![now.into()],
        );
        self.write(TELLING, vec![hasten]).await.map(drop)
    }

    async fn spend_day(&self, me: Epoch, demands: Vec<DayDemand>) -> Result<Vec<u64>, StoreError> {
        let now = now(self).await?;
        let mut order: Vec<usize> = (0..demands.len()).collect();
        // As above.
        order.sort_by_key(|n| demands[*n].account);
        let (mut statements, mut asked) = (Vec::new(), Vec::new());
        for n in order {
            statements.extend(spent(&demands[n], now));
            if let Some(limit) = demands[n].limit {
                // Whoever counts what is left first waits for those who are at it.
                statements.push(Statement::new(LOCK, vec![demands[n].account.0.into()]));
                asked.push((n, statements.len()));
                statements.push(reserve(&demands[n], limit, me, now));
            }
        }
        let rows = self.write("counting what accounts spend", statements).await?;
        let mut granted = vec![0; demands.len()];
        for (n, place) in asked {
            granted[n] = rows[place].first().map_or(Ok(0), |row| row.int(0)).map(count)?;
        }
        Ok(granted)
    }
}

const LOCK: &str = "INSERT INTO account_states (account) VALUES ($1)
    ON CONFLICT (account) DO UPDATE SET account = excluded.account";

/// The ledger's clock, in Unix microseconds.
async fn now(store: &(impl Sql + LedgerClock)) -> Result<i64, StoreError> {
    let rows = store.read(READING, format!("SELECT {}", store.now_sql()), vec![]).await?;
    rows.first().map_or_else(|| Err(StoreError::refused(READING, "it does not know the time")), |row| row.int(0))
}

fn told(account: AccountId, news: AccountNews, now: i64) -> Vec<Statement> {
    let id: Value = account.0.into();
    match news {
        AccountNews::Paused(KnownPause { recipient, left, strikes }) => {
            let until: Value = (now + in_micros(left.min(LONGEST_PAUSE))).into();
            let strikes: Value = i64::from(strikes).into();
            let Some(recipient) = recipient else {
                return vec![Statement::new(
                    "INSERT INTO account_states (account, paused_until, strikes) VALUES ($1, $2, $3)
                     ON CONFLICT (account) DO UPDATE
                         SET paused_until = excluded.paused_until, strikes = excluded.strikes
                         WHERE account_states.paused_until < excluded.paused_until",
                    vec![id, until, strikes],
                )];
            };
            let forget = Statement::new(
                "DELETE FROM account_pauses WHERE account = $1 AND paused_until <= $2",
                vec![id.clone(), now.into()],
            );
            let keep = Statement::new(
                "INSERT INTO account_pauses (account, recipient, paused_until, strikes) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (account, recipient) DO UPDATE
                     SET paused_until = excluded.paused_until, strikes = excluded.strikes
                     WHERE account_pauses.paused_until < excluded.paused_until",
                vec![id, recipient.into(), until, strikes],
            );
            vec![forget, keep]
        }
        AccountNews::Down { reason, code, wait } => vec![Statement::new(
            "INSERT INTO account_states (account, down_since, down_reason, down_code, probe_wait, probe_at)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (account) DO UPDATE
                 SET down_since = excluded.down_since, down_reason = excluded.down_reason,
                     down_code = excluded.down_code, probe_wait = excluded.probe_wait, probe_at = excluded.probe_at
                 WHERE account_states.down_since IS NULL",
            vec![id, now.into(), reason.into(), code.into(), in_micros(wait).into(), (now + in_micros(wait)).into()],
        )],
        AccountNews::StillDown { probe, reason, code, wait } => vec![Statement::new(
            "UPDATE account_states SET down_reason = $3, down_code = $4, probe_wait = $5, probe_at = $6
             WHERE account = $1 AND probe = $2 AND down_since IS NOT NULL",
            vec![
                id,
                probe.0.into(),
                reason.into(),
                code.into(),
                in_micros(wait).into(),
                (now + in_micros(wait)).into(),
            ],
        )],
        AccountNews::Works => vec![Statement::new(
            "UPDATE account_states SET down_since = NULL, down_reason = NULL, down_code = NULL
             WHERE account = $1 AND down_since IS NOT NULL",
            vec![id],
        )],
    }
}

/// Counts what was spent, and forgets what was spent long ago.
fn spent(demand: &DayDemand, now: i64) -> Vec<Statement> {
    if demand.spent == 0 {
        return Vec::new();
    }
    let id: Value = demand.account.0.into();
    let quarter = now.div_euclid(QUARTER_MICROS);
    let add = Statement::new(
        "INSERT INTO account_spent (account, quarter, spent) VALUES ($1, $2, $3)
         ON CONFLICT (account, quarter) DO UPDATE SET spent = account_spent.spent + excluded.spent",
        vec![id.clone(), quarter.into(), saturated(demand.spent).into()],
    );
    let forget = Statement::new(
        "DELETE FROM account_spent WHERE account = $1 AND quarter <= $2",
        vec![id.clone(), (quarter - QUARTERS).into()],
    );
    let unused = Statement::new(
        "DELETE FROM account_reserves WHERE account = $1 AND renewed_at <= $2",
        vec![id, (now - WINDOW_MICROS).into()],
    );
    vec![add, forget, unused]
}

/// Grants what is wanted, as far as there is room.
fn reserve(demand: &DayDemand, limit: u64, me: Epoch, now: i64) -> Statement {
    Statement::new(
        "INSERT INTO account_reserves (account, spender, reserve, renewed_at)
         SELECT CAST($1 AS SMALLINT), CAST($2 AS BIGINT),
             CASE WHEN left_over < CAST($3 AS BIGINT) THEN CAST($3 AS BIGINT)
                  WHEN left_over < CAST($4 AS BIGINT) THEN left_over ELSE CAST($4 AS BIGINT) END,
             CAST($5 AS BIGINT)
         FROM (SELECT CAST($6 AS BIGINT)
             - coalesce((SELECT CAST(sum(spent) AS BIGINT) FROM account_spent
                         WHERE account = CAST($1 AS SMALLINT) AND quarter > CAST($7 AS BIGINT)), 0)
             - coalesce((SELECT CAST(sum(reserve) AS BIGINT) FROM account_reserves
                         WHERE account = CAST($1 AS SMALLINT) AND spender <> CAST($2 AS BIGINT)
                             AND renewed_at > CAST($8 AS BIGINT)), 0) AS left_over) w
         WHERE true
         ON CONFLICT (account, spender) DO UPDATE SET reserve = excluded.reserve, renewed_at = excluded.renewed_at
         RETURNING reserve",
        vec![
            demand.account.0.into(),
            me.0.into(),
            saturated(demand.held).into(),
            saturated(demand.want.max(demand.held)).into(),
            now.into(),
            saturated(limit).into(),
            (now.div_euclid(QUARTER_MICROS) - QUARTERS).into(),
            (now - WINDOW_MICROS).into(),
        ],
    )
}

fn pause(row: &Row, recipient: Option<i64>) -> Result<KnownPause, StoreError> {
    let left = micros(row.int(2)?).min(LONGEST_PAUSE);
    Ok(KnownPause { recipient, left, strikes: u32::try_from(row.int(3)?).unwrap_or(0) })
}

fn down(row: &Row) -> Result<Option<KnownDown>, StoreError> {
    let Some(since) = row.opt_time(4)? else { return Ok(None) };
    Ok(Some(KnownDown {
        since,
        reason: row.opt_text(7)?.unwrap_or_default(),
        code: row.opt_text(8)?.unwrap_or_default(),
        wait: micros(row.int(6)?),
        probe_in: micros(row.int(5)?),
    }))
}

fn recipient_of(news: &AccountNews) -> Option<i64> {
    match news {
        AccountNews::Paused(pause) => pause.recipient,
        AccountNews::Down { .. } | AccountNews::StillDown { .. } | AccountNews::Works => None,
    }
}

/// Nothing, when the time has passed.
fn micros(micros: i64) -> Duration {
    Duration::from_micros(count(micros))
}

fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn saturated(n: u64) -> i64 {
    // A hundredth of the largest, so that sums of them stay numbers.
    i64::try_from(n).unwrap_or(i64::MAX).min(i64::MAX / 100)
}

fn in_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}
