//! `vestnik config`: what holds, and who said so.

use std::fmt::Write as _;

use super::Settings;

impl Settings {
    /// All settings as TOML, with secrets as `"***"`. What is not a default says where it came from.
    pub fn effective_toml(&self) -> String {
        let table = toml::Table::try_from(self).expect("settings are tables, texts, numbers and booleans");
        let mut text = String::new();
        self.print(&table, "", &mut text);
        text
    }

    fn print(&self, table: &toml::Table, path: &str, text: &mut String) {
        let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        for (name, value) in table.iter().filter(|(_, value)| !value.is_table()) {
            let origin = self.origins.get(&join(name)).map(|origin| format!("  # {origin}")).unwrap_or_default();
            // Writing to a String does not fail.
            let _ = writeln!(text, "{name} = {value}{origin}");
        }
        for (name, inner) in table.iter().filter_map(|(name, value)| Some((name, value.as_table()?))) {
            let path = join(name);
            // A table that only holds tables needs no header of its own.
            if inner.is_empty() || inner.values().any(|value| !value.is_table()) {
                let separator = if text.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{separator}[{path}]");
            }
            self.print(inner, &path, text);
        }
    }
}
