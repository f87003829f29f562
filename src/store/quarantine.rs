//! What came by the broker and could not be read: kept as it came, until a person has looked at it.

use async_trait::async_trait;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::lookup::Page;
use super::sql::{Row, Sql, Statement, Value};
use super::{StoreError, Urgency};

/// A message that is no notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    pub received_at: Timestamp,
    /// The queue it came by.
    pub source: String,
    /// A code, perhaps with more after a colon.
    pub reason: String,
    pub content_type: Option<String>,
    /// The beginning of it. May hold personal data.
    pub body: Vec<u8>,
    /// Of the whole, in bytes.
    pub body_size: u64,
    /// How often the same came.
    pub times: u64,
}

/// Messages in quarantine.
#[async_trait]
pub trait Quarantine: Send + Sync {
    /// Keeps them. The same from the same queue again is counted, and kept once.
    async fn quarantine(&self, poison: Vec<Quarantined>) -> Result<(), StoreError>;

    /// In the order of their ids, which say nothing, after the given one.
    async fn quarantined(&self, after: Option<Uuid>, limit: u32) -> Result<Page<(Uuid, Quarantined)>, StoreError>;

    /// How many there are.
    async fn quarantined_count(&self) -> Result<u64, StoreError>;

    /// Those that last came before then go, up to `limit` of them: their bodies may hold personal data. Returns how many.
    async fn drop_old_quarantined(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;

    /// A person has seen to it. `false` if it is not there.
    async fn drop_quarantined(&self, id: Uuid) -> Result<bool, StoreError>;
}

#[async_trait]
impl<S: Sql> Quarantine for S {
    async fn quarantine(&self, poison: Vec<Quarantined>) -> Result<(), StoreError> {
        let keep = |one: &Quarantined| {
            Statement::new(
                "INSERT INTO quarantine (id, received_at, source, reason, content_type, body, body_size, times)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, 1)
                 ON CONFLICT (id) DO UPDATE SET times = quarantine.times + 1, received_at = excluded.received_at",
                vec![
                    id_of(one).into(),
                    one.received_at.into(),
                    one.source.clone().into(),
                    one.reason.clone().into(),
                    one.content_type.clone().into(),
                    one.body.clone().into(),
                    i64::try_from(one.body_size).unwrap_or(i64::MAX).into(),
                ],
            )
        };
        self.write("keeping what could not be read", poison.iter().map(keep).collect()).await.map(drop)
    }

    async fn quarantined(&self, after: Option<Uuid>, limit: u32) -> Result<Page<(Uuid, Quarantined)>, StoreError> {
        let sql = "SELECT id, received_at, source, reason, content_type, body, body_size, times FROM quarantine
                   WHERE id > $1 ORDER BY id LIMIT $2";
        let values = vec![after.unwrap_or(Uuid::nil()).into(), (i64::from(limit) + 1).into()];
        let mut rows = self.read(READING, sql.into(), values).await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        Ok(Page { items: rows.iter().map(quarantined).collect::<Result<_, _>>()?, more })
    }

    async fn quarantined_count(&self) -> Result<u64, StoreError> {
        let rows = self.read(READING, "SELECT count(*) FROM quarantine".into(), vec![]).await?;
        rows.first().map_or(Ok(0), |row| row.int(0).map(|n| u64::try_from(n).unwrap_or(0)))
    }

    async fn drop_old_quarantined(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let old = "SELECT id FROM quarantine WHERE received_at < $1 LIMIT $2";
        let values = vec![before.into(), i64::from(limit).into()];
        let old = self.read(READING, old.into(), values).await?;
        if old.is_empty() {
            return Ok(0);
        }
        // One that came again meanwhile is not old any more.
        let delete = |row: &Row| {
            let sql = "DELETE FROM quarantine WHERE id = $1 AND received_at < $2 RETURNING id";
            Ok(Statement::new(sql, vec![row.uuid(0)?.into(), before.into()]))
        };
        let deletes = old.iter().map(delete).collect::<Result<_, StoreError>>()?;
        let dropped = self.write_as(DROPPING, Urgency::Bulk, deletes).await?;
        Ok(dropped.iter().map(|rows| rows.len() as u64).sum())
    }

    async fn drop_quarantined(&self, id: Uuid) -> Result<bool, StoreError> {
        let delete = Statement::new("DELETE FROM quarantine WHERE id = $1 RETURNING id", vec![Value::Uuid(id)]);
        Ok(!self.write(DROPPING, vec![delete]).await?[0].is_empty())
    }
}

const READING: &str = "reading what is in quarantine";
const DROPPING: &str = "dropping what could not be read";

/// The same message has the same id.
fn id_of(one: &Quarantined) -> Uuid {
    let mut hasher = Sha256::new();
    for part in [one.source.as_bytes(), one.reason.as_bytes(), &one.body_size.to_be_bytes(), one.body.as_slice()] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let hash = hasher.finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    Uuid::from_bytes(id)
}

fn quarantined(row: &Row) -> Result<(Uuid, Quarantined), StoreError> {
    let size = |column| row.int(column).map(|n| u64::try_from(n).unwrap_or(0));
    let one = Quarantined {
        received_at: row.time(1)?,
        source: row.text(2)?,
        reason: row.text(3)?,
        content_type: row.opt_text(4)?,
        body: row.bytes(5)?,
        body_size: size(6)?,
        times: size(7)?,
    };
    Ok((row.uuid(0)?, one))
}
