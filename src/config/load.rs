//! Laying the layers over each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{Config, Environment, Map, Source, Value, ValueKind};

use super::{ConfigError, Settings, secret};

/// Every setting with its default: the first layer, and the manual.
pub(super) const DEFAULTS: &str = include_str!("../../vestnik.default.toml");

/// Read when it is there and no other file was named.
const USUAL_FILE: &str = "vestnik.toml";

/// Variables that have a name of their own, as other programs know them.
const PLAIN_VARIABLES: [(&str, &str); 3] = [
    ("DATABASE_URL", "ledger.database_url"),
    ("RABBITMQ_URL", "queue.rabbitmq_url"),
    ("VESTNIK_BOOTSTRAP_KEY", "keys.bootstrap_key"),
];

/// Where settings come from, lowest first; below them are the compiled defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config`. Without it `./vestnik.toml`, if it exists.
    pub file: Option<PathBuf>,
    /// The environment. A variable that is empty counts as unset.
    pub environment: BTreeMap<String, String>,
    /// Flags: a setting's path and its value.
    pub overrides: Vec<(String, String)>,
}

impl Sources {
    /// The process' own environment, with what its flags said.
    pub fn of_process(file: Option<PathBuf>, overrides: Vec<(String, String)>) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let file = file.or_else(|| Path::new(USUAL_FILE).exists().then(|| USUAL_FILE.into()));
        Sources { file, environment: std::env::vars_os().filter_map(text).collect(), overrides }
    }
}

impl Settings {
    pub fn load(sources: &Sources) -> Result<Settings, ConfigError> {
        let mut builder =
            Config::builder().add_source(TomlLayer::parse(DEFAULTS, Path::new("vestnik.default.toml"), None)?);
        if let Some(path) = &sources.file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
            builder = builder.add_source(TomlLayer::parse(&text, path, Some(path.display().to_string()))?);
        }
        let environment = Environment::with_prefix("VESTNIK")
            .prefix_separator("__")
            .separator("__")
            .ignore_empty(true)
            .source(Some(sources.environment.clone().into_iter().collect()));
        builder = builder.add_source(PlainVariables::of(&sources.environment)?).add_source(environment);
        for (path, value) in &sources.overrides {
            let value = Value::new(Some(&"a flag".to_owned()), ValueKind::String(value.clone()));
            builder = builder
                .set_override(path, value)
                .map_err(|cause| ConfigError::setting(path, cause.to_string(), None))?;
        }
        let layered = builder.build().map_err(|cause| explain("", &cause, &BTreeMap::new()))?;
        let mut root = layered.cache.into_table().map_err(|cause| explain("", &cause, &BTreeMap::new()))?;
        secret::read_files(&mut root)?;

        let mut origins = BTreeMap::new();
        collect_origins(&root, "", &mut origins);
        let root = Value::new(None, ValueKind::Table(root));
        let mut settings: Settings = serde_path_to_error::deserialize(root)
            .map_err(|error| explain(&error.path().to_string(), error.inner(), &origins))?;
        settings.origins = origins;
        settings.check()?;
        Ok(settings)
    }
}

/// A TOML text as a layer. Parsed here and not by the config crate, whose errors quote the line, and with it perhaps a
/// token.
#[derive(Clone, Debug)]
struct TomlLayer {
    table: toml::Table,
    origin: Option<String>,
}

impl TomlLayer {
    fn parse(text: &str, path: &Path, origin: Option<String>) -> Result<Self, ConfigError> {
        let table = text.parse::<toml::Table>().map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start).min(text.len());
            let before = text.get(..offset).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
            ConfigError::Syntax { path: path.to_owned(), line, column, message: error.message().to_owned() }
        })?;
        Ok(TomlLayer { table, origin })
    }

    fn value(&self, value: &toml::Value) -> Value {
        let kind = match value {
            toml::Value::String(text) => ValueKind::String(text.clone()),
            toml::Value::Integer(whole) => ValueKind::I64(*whole),
            toml::Value::Float(number) => ValueKind::Float(*number),
            toml::Value::Boolean(truth) => ValueKind::Boolean(*truth),
            toml::Value::Datetime(time) => ValueKind::String(time.to_string()),
            toml::Value::Array(items) => ValueKind::Array(items.iter().map(|item| self.value(item)).collect()),
            toml::Value::Table(table) => ValueKind::Table(self.map(table)),
        };
        Value::new(self.origin.as_ref(), kind)
    }

    fn map(&self, table: &toml::Table) -> Map<String, Value> {
        table.iter().map(|(name, value)| (name.clone(), self.value(value))).collect()
    }
}

impl Source for TomlLayer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.map(&self.table))
    }
}

/// `DATABASE_URL` and its like, as a layer.
#[derive(Clone, Debug)]
struct PlainVariables(Map<String, Value>);

impl PlainVariables {
    fn of(environment: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut found = Map::new();
        for (variable, setting) in PLAIN_VARIABLES {
            let Some(value) = environment.get(variable).filter(|value| !value.is_empty()) else { continue };
            let long = format!("VESTNIK__{}", setting.to_uppercase().replace('.', "__"));
            if environment.get(&long).is_some_and(|other| !other.is_empty() && other != value) {
                let message = format!("{variable} and {long} are both set, and differ");
                return Err(ConfigError::setting(setting, message, None));
            }
            found.insert(setting.to_owned(), Value::new(Some(&variable.to_owned()), ValueKind::String(value.clone())));
        }
        Ok(PlainVariables(found))
    }
}

impl Source for PlainVariables {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

fn collect_origins(table: &Map<String, Value>, path: &str, origins: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if let ValueKind::Table(inner) = &value.kind {
            collect_origins(inner, &path, origins);
        } else if let Some(origin) = value.origin() {
            origins.insert(path, origin.to_owned());
        }
    }
}

/// Turns the config crate's error into ours: our path, what was expected, and where the value came from.
fn explain(path: &str, error: &config::ConfigError, origins: &BTreeMap<String, String>) -> ConfigError {
    use config::ConfigError as Cause;
    let origin = |path: &str| origins.get(path).cloned();
    match error {
        Cause::At { error, key, .. } => {
            explain(if path.is_empty() { key.as_deref().unwrap_or("") } else { path }, error, origins)
        }
        Cause::Type { unexpected, expected, .. } => {
            ConfigError::setting(path, format!("expected {expected}, got {unexpected}"), origin(path))
        }
        Cause::NotFound(name) => {
            let name = name.rsplit('.').next().unwrap_or(name);
            let path = if path.is_empty() || path == "." { name.to_owned() } else { format!("{path}.{name}") };
            ConfigError::setting(&path, "is missing", None)
        }
        Cause::Message(message) => {
            let message = if let Some(rest) = message.strip_prefix("unknown field ") {
                let allowed = rest.split_once(", ").map_or("", |(_, allowed)| allowed);
                format!("there is no such setting; {allowed}")
            } else if message.contains("expected struct ") {
                format!("is a section: write [{path}] and its settings below")
            } else {
                message.clone()
            };
            ConfigError::setting(path, message, origin(path))
        }
        other => ConfigError::setting(path, other.to_string(), origin(path)),
    }
}
