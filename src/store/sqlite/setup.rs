//! Opening the file: folder, lock, migrations.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::connection::{Connections, from_sqlite, open_writer};
use crate::store::StoreError;
use crate::store::migrations::{self, hash};

const FILE: &str = "ledger.sqlite3";

/// What was applied, in order.
pub(super) const APPLIED: &str = "SELECT version, sha256 FROM schema_migrations ORDER BY version";

/// The file of a ledger that is there already.
pub(super) fn existing(dir: &Path) -> Result<PathBuf, StoreError> {
    let path = dir.join(FILE);
    match fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(StoreError::Setup(format!(
            "there is no ledger at {} ({error}): `vestnik serve` or `vestnik migrate` makes one",
            path.display()
        ))),
    }
}

pub(super) fn open(dir: &Path, normal: bool, now: Timestamp) -> Result<(Connections, File), StoreError> {
    make_private_dir(dir)?;
    let lock = lock(dir)?;
    let path = dir.join(FILE);
    let mut db = open_writer(&path, normal)?;
    migrate(&mut db, now)?;
    Ok((Connections::start(db, &path)?, lock))
}

/// Only its owner may look into it: it holds addresses.
fn make_private_dir(dir: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| StoreError::Setup(format!("cannot make the data folder {}: {error}", dir.display())))
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let setup = |what: &str| StoreError::Setup(format!("{what} {}", path.display()));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| setup(&format!("cannot make the lock file ({error}):")))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(setup(
            "another vestnik process uses this ledger: SQLite serves one at a time. Stop it, choose another \
             ledger.data_dir, or set DATABASE_URL to share a PostgreSQL ledger. Locked:",
        )),
        Err(TryLockError::Error(error)) => Err(setup(&format!("cannot lock ({error}):"))),
    }
}

fn migrate(db: &mut Connection, now: Timestamp) -> Result<(), StoreError> {
    let failed = |error| from_sqlite("migrating the ledger", error);
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_migrations
         (version INTEGER PRIMARY KEY, sha256 TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT",
    )
    .map_err(failed)?;
    let applied: Vec<(i64, String)> = {
        let mut statement = tx.prepare(APPLIED).map_err(failed)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)?
    };
    for migration in migrations::pending(&applied, |migration| migration.sqlite)? {
        tx.execute_batch(migration.sqlite).map_err(failed)?;
        tx.execute(
            "INSERT INTO schema_migrations VALUES (?1, ?2, ?3)",
            params![migration.version, hash(migration.sqlite), now.as_microsecond()],
        )
        .map_err(failed)?;
    }
    tx.commit().map_err(failed)
}
