//! Reading what was handed over.

use deadpool_postgres::Object;
use uuid::Uuid;

use super::connection::from_postgres;
use super::sql::row_of;
use crate::domain::NotificationId;
use crate::store::StoreError;
use crate::store::ledger::NewNotification;
use crate::store::waiting::{ASKED, asked};

const DOING: &str = "reading what was handed over";

pub(super) async fn load(client: &Object, ids: &[NotificationId]) -> Result<Vec<NewNotification>, StoreError> {
    let failed = |error| from_postgres(DOING, error);
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let sql = format!("SELECT {ASKED} FROM notifications n JOIN work w ON w.id = n.id WHERE n.id = ANY($1)");
    let statement = client.prepare_cached(&sql).await.map_err(failed)?;
    let rows = client.query(&statement, &[&ids]).await.map_err(failed)?;
    rows.iter().map(|row| asked(&row_of(row).map_err(failed)?)).collect()
}
