//! Secrets: where they may stand, how they come from files, and that nothing prints them.

use std::collections::BTreeMap;
use std::path::Path;

use config::{Map, Value, ValueKind};
use secrecy::SecretString;
use serde::Serializer;

use super::ConfigError;

/// Paths of all secrets; `*` is an account's name, or at the end a secret's own.
const SECRETS: [&str; 11] = [
    "ledger.database_url",
    "keys.bootstrap_key",
    "queue.rabbitmq_url",
    "records.sql.url",
    "whatsapp.*.token",
    "telegram.*.token",
    "sms.*.twilio.auth_token",
    "sms.*.twilio.api_key_secret",
    "sms.*.http.secrets.*",
    "email.*.password",
    "email.*.dkim.private_key",
];

/// What a secret's name ends with where a file holds it.
const IN_FILE: &str = "_file";

/// Larger than any token or URL; keeps a wrong path from filling the memory.
const LONGEST_SECRET_BYTES: u64 = 64 * 1024;

pub(super) fn masked<S: Serializer>(_: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("***")
}

pub(super) fn masked_option<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => masked(secret, serializer),
        None => serializer.serialize_none(),
    }
}

pub(super) fn masked_map<S: Serializer>(
    secrets: &BTreeMap<String, SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(secrets.keys().map(|name| (name, "***")))
}

/// Replaces every `x_file` beside a secret `x` by what the file holds.
pub(super) fn read_files(root: &mut Map<String, Value>) -> Result<(), ConfigError> {
    for pattern in SECRETS {
        let segments: Vec<&str> = pattern.split('.').collect();
        read_files_at(root, &segments, "")?;
    }
    Ok(())
}

fn read_files_at(table: &mut Map<String, Value>, pattern: &[&str], path: &str) -> Result<(), ConfigError> {
    let joined = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match pattern {
        ["*"] => {
            let in_files = table.keys().filter_map(|name| name.strip_suffix(IN_FILE));
            let names: Vec<String> = in_files.map(str::to_owned).collect();
            names.iter().try_for_each(|name| read_file_of(table, name, &joined(name)))
        }
        [name] => read_file_of(table, name, &joined(name)),
        ["*", rest @ ..] => {
            for (name, value) in table {
                if let ValueKind::Table(inner) = &mut value.kind {
                    read_files_at(inner, rest, &joined(name))?;
                }
            }
            Ok(())
        }
        [name, rest @ ..] => match table.get_mut(*name).map(|value| &mut value.kind) {
            Some(ValueKind::Table(inner)) => read_files_at(inner, rest, &joined(name)),
            _ => Ok(()),
        },
        [] => Ok(()),
    }
}

fn read_file_of(table: &mut Map<String, Value>, name: &str, path: &str) -> Result<(), ConfigError> {
    let Some(file) = table.remove(&format!("{name}{IN_FILE}")) else { return Ok(()) };
    let origin = file.origin().map(str::to_owned);
    if table.contains_key(name) {
        return Err(ConfigError::setting(path, format!("give either {name} or {name}_file, not both"), origin));
    }
    let file_path = format!("{path}{IN_FILE}");
    let file = file
        .into_string()
        .map_err(|_| ConfigError::setting(&file_path, "expected the path of a file", origin.clone()))?;
    let secret = read_secret(Path::new(&file))
        .map_err(|cause| ConfigError::setting(&file_path, format!("cannot read {file}: {cause}"), origin.clone()))?;
    table.insert(name.to_owned(), Value::new(Some(&format!("file {file}")), ValueKind::String(secret)));
    Ok(())
}

/// A file's text without the line end that editors put there.
fn read_secret(path: &Path) -> Result<String, std::io::Error> {
    if std::fs::metadata(path)?.len() > LONGEST_SECRET_BYTES {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    let text = std::fs::read_to_string(path)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
