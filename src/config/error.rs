//! Why settings cannot be used. Says the setting's full path, and never what a secret holds.

use std::path::PathBuf;

/// A reason not to start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}, line {line}, column {column}: {message}", path.display())]
    Syntax { path: PathBuf, line: usize, column: usize, message: String },
    /// One setting is unknown, of the wrong kind, out of range, or contradicts another.
    #[error("setting `{setting}`{}: {message}", .origin.as_ref().map(|origin| format!(" (from {origin})")).unwrap_or_default())]
    Setting { setting: String, message: String, origin: Option<String> },
}

impl ConfigError {
    pub(super) fn setting(setting: &str, message: impl Into<String>, origin: Option<String>) -> Self {
        ConfigError::Setting { setting: setting.to_owned(), message: message.into(), origin }
    }
}
