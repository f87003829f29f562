//! Reading what was handed over.

use rusqlite::Connection;

use crate::domain::NotificationId;
use crate::store::StoreError;
use crate::store::ledger::NewNotification;
use crate::store::waiting::{ASKED, asked};

pub(super) fn load(db: &Connection, ids: &[NotificationId]) -> Result<Vec<NewNotification>, StoreError> {
    let sql = format!("SELECT {ASKED} FROM notifications n JOIN work w ON w.id = n.id WHERE n.id = ?1");
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        for row in super::sql::query(db, "reading what was handed over", &sql, &[id.0.into()])? {
            found.push(asked(&row)?);
        }
    }
    Ok(found)
}
