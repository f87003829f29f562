//! Addresses that opted out.
//!
//! When a person is erased their opt-outs stay, with a hash where the address was: it is still known that they are
//! not to be written to, and no longer who they are.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::migrations;
use super::sql::{ColumnType, GivenRows, Row, Sql, Statement};
use crate::domain::Channel;
use crate::domain::attempt::words;

words! {
    /// What the person does not want any more.
    SuppressionScope {
        /// Nothing at all on this channel.
        All = 1 "all",
        /// No marketing (WhatsApp's own opt-out); order news still goes.
        Marketing = 2 "marketing",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    pub channel: Channel,
    /// Of an erased person `sha256:` and a hash.
    pub address: String,
    pub scope: SuppressionScope,
    /// Who says so: `opted_out` by the provider's answer, or a person's words.
    pub reason: String,
    pub created_at: Timestamp,
}

#[async_trait]
pub trait Suppressions: Send + Sync {
    /// What is there already, as an address or as its hash, stays as it is.
    async fn suppress(&self, suppression: Suppression) -> Result<(), StoreError>;
    /// Whether anything was lifted, of the address or its hash; the hash itself may be given, too.
    async fn lift_suppression(&self, channel: Channel, address: String) -> Result<bool, StoreError>;
    /// The scopes that hold for these addresses of one channel, each (address, scope).
    async fn suppressed(
        &self,
        channel: Channel,
        addresses: Vec<String>,
    ) -> Result<Vec<(String, SuppressionScope)>, StoreError>;
    /// In order of channel and address, after the given one: `limit` addresses at most, each with all its scopes.
    async fn suppressions(&self, after: Option<(Channel, String)>, limit: u32) -> Result<Vec<Suppression>, StoreError>;
}

#[async_trait]
impl<S: Sql> Suppressions for S {
    async fn suppress(&self, suppression: Suppression) -> Result<(), StoreError> {
        let hashed = hashed(suppression.channel, &suppression.address);
        let insert = Statement::new(
            "INSERT INTO suppressions (channel, address, scope, reason, created_at)
             SELECT $1, $2, $3, $4, $5
             WHERE NOT EXISTS (SELECT 1 FROM suppressions WHERE channel = $1 AND address = $6 AND scope = $3)
             ON CONFLICT DO NOTHING",
            vec![
                suppression.channel.code().into(),
                suppression.address.into(),
                suppression.scope.code().into(),
                suppression.reason.into(),
                suppression.created_at.into(),
                hashed.into(),
            ],
        );
        self.write("suppressing an address", vec![insert]).await.map(|_| ())
    }

    async fn lift_suppression(&self, channel: Channel, address: String) -> Result<bool, StoreError> {
        let delete = Statement::new(
            "DELETE FROM suppressions WHERE channel = $1 AND address IN ($2, $3) RETURNING scope",
            vec![channel.code().into(), address.as_str().into(), hashed(channel, &address).into()],
        );
        let rows = self.write("lifting a suppression", vec![delete]).await?;
        Ok(!rows[0].is_empty())
    }

    async fn suppressed(
        &self,
        channel: Channel,
        addresses: Vec<String>,
    ) -> Result<Vec<(String, SuppressionScope)>, StoreError> {
        const COLUMNS: &[(&str, ColumnType)] = &[("wanted_channel", ColumnType::Small), ("wanted", ColumnType::Text)];
        let hashes: HashMap<_, _> = addresses.iter().map(|address| (hashed(channel, address), address)).collect();
        let wanted = addresses.iter().chain(hashes.keys());
        let rows = wanted.map(|wanted| vec![channel.code().into(), wanted.as_str().into()]).collect();
        let condition = "channel = wanted_channel AND address = wanted";
        let sql = self.look_up("address, scope", "ROWS given", "suppressions", condition);
        let mut found = HashSet::new();
        for row in self.read_rows("checking suppressions", sql, GivenRows { columns: COLUMNS, rows }).await? {
            let (kept, scope) = (row.text(0)?, row.word(1, SuppressionScope::from_code)?);
            found.insert((hashes.get(&kept).map_or(kept, |address| (*address).clone()), scope));
        }
        Ok(found.into_iter().collect())
    }

    async fn suppressions(&self, after: Option<(Channel, String)>, limit: u32) -> Result<Vec<Suppression>, StoreError> {
        let (channel, address) = after.map_or((0, String::new()), |(channel, address)| (channel.code(), address));
        let sql = "SELECT channel, address, scope, reason, created_at FROM suppressions
                   WHERE (channel, address) IN (
                       SELECT DISTINCT channel, address FROM suppressions
                       WHERE (channel, address) > ($1, $2) ORDER BY channel, address LIMIT $3)
                   ORDER BY channel, address, scope";
        let values = vec![channel.into(), address.into(), i64::from(limit).into()];
        self.read("listing suppressions", sql.into(), values).await?.iter().map(suppression).collect()
    }
}

/// What stands for the address of a person who was erased.
fn hashed(channel: Channel, address: &str) -> String {
    format!("sha256:{}", migrations::hash(&format!("{}:{address}", channel.as_str())))
}

/// Puts the hash in the place of an address, and forgets the reason, which a person may have written.
pub(super) fn hash(channel: Channel, address: &str) -> [Statement; 2] {
    [
        Statement::new(
            "INSERT INTO suppressions (channel, address, scope, reason, created_at)
             SELECT channel, $3, scope, '', created_at FROM suppressions WHERE channel = $1 AND address = $2
             ON CONFLICT DO NOTHING",
            vec![channel.code().into(), address.into(), hashed(channel, address).into()],
        ),
        Statement::new(
            "DELETE FROM suppressions WHERE channel = $1 AND address = $2",
            vec![channel.code().into(), address.into()],
        ),
    ]
}

fn suppression(row: &Row) -> Result<Suppression, StoreError> {
    Ok(Suppression {
        channel: row.word(0, Channel::from_code)?,
        address: row.text(1)?,
        scope: row.word(2, SuppressionScope::from_code)?,
        reason: row.text(3)?,
        created_at: row.time(4)?,
    })
}
