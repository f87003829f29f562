//! The ledger's form, embedded: forward only, the same numbers and names for both databases.

use sha2::{Digest, Sha256};

use super::StoreError;

pub(crate) struct Migration {
    pub(crate) version: i64,
    pub(crate) name: &'static str,
    pub(crate) sqlite: &'static str,
    pub(crate) postgres: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal),* $(,)?) => {
        &[$(Migration {
            version: $version,
            name: $name,
            sqlite: include_str!(concat!("../../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../../migrations/postgres/", $name, ".sql")),
        }),*]
    };
}

pub(crate) const MIGRATIONS: &[Migration] = migrations![1 "0001_ledger", 2 "0002_records", 3 "0003_erasures", 4 "0004_dead_letters", 5 "0005_queue", 6 "0006_quarantine", 7 "0007_accounts", 8 "0008_moves", 9 "0009_senders"];

pub(crate) fn hash(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is left to apply, given what was applied: `(version, hash)` in order.
///
/// # Errors
/// [`StoreError::Setup`] when the ledger is newer than this program, or an applied migration is not the one we know.
pub(crate) fn pending(
    applied: &[(i64, String)],
    text: fn(&Migration) -> &'static str,
) -> Result<&'static [Migration], StoreError> {
    for (position, (version, applied_hash)) in applied.iter().enumerate() {
        let Some(known) = MIGRATIONS.get(position).filter(|known| known.version == *version) else {
            return Err(StoreError::Setup(format!(
                "the ledger has migration {version}, which this version of vestnik does not know: start the newer \
                 vestnik that wrote it"
            )));
        };
        if *applied_hash != hash(text(known)) {
            return Err(StoreError::Setup(format!(
                "migration {} of the ledger is not the one this vestnik was built with: its text changed after it \
                 was applied",
                known.name
            )));
        }
    }
    Ok(&MIGRATIONS[applied.len()..])
}

/// For whoever only reads.
///
/// # Errors
/// [`StoreError::Setup`] when the ledger is older or newer than this program.
pub(crate) fn must_be_current(
    applied: &[(i64, String)],
    text: fn(&Migration) -> &'static str,
) -> Result<(), StoreError> {
    if pending(applied, text)?.is_empty() {
        return Ok(());
    }
    Err(StoreError::Setup("the ledger is of an older version: run `vestnik migrate` first".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_or_unknown_migration_stops_the_start() {
        let first = hash(MIGRATIONS[0].sqlite);
        assert_eq!(pending(&[], |m| m.sqlite).expect("a new ledger").len(), MIGRATIONS.len());
        assert_eq!(pending(&[(1, first.clone())], |m| m.sqlite).expect("known").len(), MIGRATIONS.len() - 1);
        assert!(pending(&[(1, "another".into())], |m| m.sqlite).is_err());
        let mut applied: Vec<_> = MIGRATIONS.iter().map(|m| (m.version, hash(m.sqlite))).collect();
        applied.push((999, String::new()));
        assert!(pending(&applied, |m| m.sqlite).is_err());
    }
}
