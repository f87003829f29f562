//! API keys: who may call. Only a hash of a key is kept.

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use super::sql::{Row, Sql, Statement};
use crate::domain::attempt::words;
use serde::{Deserialize, Serialize};

words! {
    /// What a key may do. Each of them also allows the ones before it, except that `send` and `read` are apart.
    Scope {
        Send = 1 "send",
        Read = 2 "read",
        Manage = 3 "manage",
        Admin = 4 "admin",
    }
}

impl Scope {
    /// Whether a key with `self` may do what needs `wanted`.
    pub const fn covers(self, wanted: Scope) -> bool {
        match self {
            Scope::Admin => true,
            Scope::Manage => matches!(wanted, Scope::Manage | Scope::Send | Scope::Read),
            Scope::Send => matches!(wanted, Scope::Send),
            Scope::Read => matches!(wanted, Scope::Read),
        }
    }
}

#[derive(Clone, Debug)]
pub struct NewApiKey {
    pub id: Uuid,
    /// For people: whose it is.
    pub name: String,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    pub scopes: Vec<Scope>,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub id: Uuid,
    pub name: String,
    pub scopes: Vec<Scope>,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// Keys are looked up by hash, so no comparison leaks time.
#[async_trait]
pub trait ApiKeys: Send + Sync {
    /// Adds a key; one with the same hash already there stays as it is.
    async fn add_key(&self, key: NewApiKey) -> Result<(), StoreError>;
    /// The key with this hash, revoked or not.
    async fn key_by_hash(&self, hash: [u8; 32]) -> Result<Option<ApiKey>, StoreError>;
    /// All keys, oldest first.
    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError>;
    /// Whether there was such a key to revoke.
    async fn revoke_key(&self, id: Uuid, at: Timestamp) -> Result<bool, StoreError>;
}

#[async_trait]
impl<S: Sql> ApiKeys for S {
    async fn add_key(&self, key: NewApiKey) -> Result<(), StoreError> {
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        let insert = Statement::new(
            "INSERT INTO api_keys (id, name, hash, scopes, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (hash) DO NOTHING",
            vec![
                key.id.into(),
                key.name.into(),
                key.hash.to_vec().into(),
                scopes.join(",").into(),
                key.created_at.into(),
            ],
        );
        self.write("adding an API key", vec![insert]).await.map(|_| ())
    }

    async fn key_by_hash(&self, hash: [u8; 32]) -> Result<Option<ApiKey>, StoreError> {
        let sql = "SELECT id, name, scopes, created_at, revoked_at FROM api_keys WHERE hash = $1";
        let rows = self.read("looking up an API key", sql.into(), vec![hash.to_vec().into()]).await?;
        rows.first().map(api_key).transpose()
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let sql = "SELECT id, name, scopes, created_at, revoked_at FROM api_keys ORDER BY created_at, id";
        self.read("listing API keys", sql.into(), vec![]).await?.iter().map(api_key).collect()
    }

    async fn revoke_key(&self, id: Uuid, at: Timestamp) -> Result<bool, StoreError> {
        let update = Statement::new(
            "UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL RETURNING id",
            vec![id.into(), at.into()],
        );
        let rows = self.write("revoking an API key", vec![update]).await?;
        Ok(!rows[0].is_empty())
    }
}

fn api_key(row: &Row) -> Result<ApiKey, StoreError> {
    Ok(ApiKey {
        id: row.uuid(0)?,
        name: row.text(1)?,
        scopes: row.text(2)?.split(',').filter_map(|scope| scope.parse().ok()).collect(),
        created_at: row.time(3)?,
        revoked_at: row.opt_time(4)?,
    })
}
