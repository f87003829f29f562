//! `vestnik keys`: who may call the API.

use std::sync::Arc;

use anyhow::bail;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use uuid::Uuid;

use super::{Ended, Printer};
use crate::app::ledger_options;
use crate::config::Settings;
use crate::domain::{Clock as _, IdSource, SystemClock};
use crate::http::hash_key;
use crate::store::{self, ApiKey, NewApiKey, Scope};

/// Make, list and revoke API keys. With the embedded ledger, while the service is stopped.
#[derive(Debug, clap::Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, clap::Subcommand)]
enum KeysCommand {
    /// Make a key; it is shown once.
    Create {
        /// For people: whose it is.
        name: String,
        /// What it may do: send, read, manage (templates, suppressions), admin (everything).
        #[arg(long, value_delimiter = ',', default_value = "send,read", value_parser = scope)]
        scopes: Vec<Scope>,
    },
    /// List the keys.
    List,
    /// End a key.
    Revoke {
        /// Its id, from the list.
        id: Uuid,
    },
}

fn scope(text: &str) -> Result<Scope, String> {
    text.parse()
}

pub async fn run(args: KeysArgs, settings: Settings, printer: Printer) -> anyhow::Result<Ended> {
    let clock = Arc::new(SystemClock);
    let store = store::connect(&ledger_options(&settings), clock.clone()).await?;
    match args.command {
        KeysCommand::Create { name, scopes } => {
            let key = new_key()?;
            let id = IdSource::new(clock.clone()).next();
            let new = NewApiKey { id, name, hash: hash_key(&key), scopes, created_at: clock.now() };
            store.add_key(new).await?;
            printer.either(&json!({ "id": id, "key": key }), || {
                format!("{key}\n\nThis is the only time it is shown. Its id, to revoke it: {id}\n")
            })?;
        }
        KeysCommand::List => {
            let keys = store.keys().await?;
            let lines: Vec<_> = keys.iter().map(as_json).collect();
            printer.either(&json!({ "items": lines }), || in_words(&keys))?;
        }
        KeysCommand::Revoke { id } => {
            if !store.revoke_key(id, clock.now()).await? {
                bail!("there is no key {id} in force\nhint: `vestnik keys list` shows them");
            }
            printer.either(&json!({ "id": id, "revoked": true }), || format!("revoked {id}\n"))?;
        }
    }
    Ok(Ended::Well)
}

/// 256 random bits: nobody guesses it, so a plain hash of it is enough to keep.
fn new_key() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(format!("vk_{}", URL_SAFE_NO_PAD.encode(bytes)))
}

fn as_json(key: &ApiKey) -> serde_json::Value {
    json!({
        "id": key.id, "name": key.name, "scopes": key.scopes, "createdAt": key.created_at, "revokedAt": key.revoked_at
    })
}

fn in_words(keys: &[ApiKey]) -> String {
    if keys.is_empty() {
        return "there is no key: `vestnik keys create NAME` makes one\n".into();
    }
    let line = |key: &ApiKey| {
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        let state = if key.revoked_at.is_some() { "revoked" } else { "in force" };
        format!("{}  {state:<8}  {:<20}  {}\n", key.id, scopes.join(","), key.name)
    };
    keys.iter().map(line).collect()
}
