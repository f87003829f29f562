//! Everything that stands anywhere in a ledger, to look for what must not be there any more.

use crate::support::ledger::{Engine, TestLedger};

/// The tables that hold any of the words, in text, in JSON, in an index or in bytes, whatever the case of letters.
pub(super) async fn tables_with(ledger: &TestLedger, words: &[&str]) -> Vec<String> {
    let tables = match ledger.engine {
        Engine::Sqlite => "SELECT name AS c FROM sqlite_master WHERE type = 'table'",
        Engine::Postgres => "SELECT table_name AS c FROM information_schema.tables WHERE table_schema = 'public'",
    };
    let mut found = Vec::new();
    let tables = ledger.raw_column(tables).await;
    assert!(tables.len() > 20, "the whole ledger is looked at: {tables:?}");
    for table in tables {
        let row = match ledger.engine {
            Engine::Postgres => "t::text".to_owned(),
            Engine::Sqlite => {
                let columns = ledger.raw_column(&format!("SELECT name AS c FROM pragma_table_info('{table}')")).await;
                columns.iter().map(|column| format!("hex(\"{column}\")")).collect::<Vec<_>>().join(" || '.' || ")
            }
        };
        for row in ledger.raw_column(&format!("SELECT {row} AS c FROM {table} t")).await {
            let text = match ledger.engine {
                Engine::Postgres => row.clone(),
                Engine::Sqlite => row.split('.').map(of_hex).collect::<Vec<_>>().join(" "),
            };
            let text = text.to_lowercase();
            found.extend(words.iter().filter(|word| text.contains(&word.to_lowercase())).map(|_| table.clone()));
        }
    }
    found.sort();
    found.dedup();
    found
}

fn of_hex(hex: &str) -> String {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
