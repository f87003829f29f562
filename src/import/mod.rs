//! Bringing CRM records in: a file of any size, in pieces, becomes records in the ledger.
//!
//! The way of a piece: **decode → rows → records → save**. The start of a file says what it is (`start`), `decode`
//! makes it UTF-8, `table` and `lines` part it into rows, `columns` says what a column means, `reader` makes records
//! of rows, and `run` saves them in batches while it reads on. Every buffer is bounded, so that a file of a million
//! rows takes no more memory than one of a thousand.
//!
//! A row that is wrong is rejected with its line and the rest goes on. What makes a file unreadable from some line on
//! is a [`FileProblem`]: the import ends there, and every row before that line is saved. How a file is cut into pieces
//! changes nothing of all this.

mod columns;
mod decode;
mod known;
mod lines;
mod reader;
mod recipients;
mod rejected;
mod run;
mod spool;
mod start;
mod table;

use std::fmt;

use phonenumber::country;
use serde::{Deserialize, Serialize};

pub use columns::Column;
pub use decode::TextEncoding;
pub use recipients::{TableRecipient, read_recipients};
pub use rejected::{Given, Rejected, RejectedFile};
pub use run::{Ended, Import, import};
pub use spool::Spool;

use crate::domain::RecordKind;
use crate::store::SaveHow;

/// A row as it is in the file. A record has 64 KiB at most, and escapes make text longer.
pub const ROW_BYTES: usize = 1024 * 1024;
/// Columns of a table.
pub const MOST_COLUMNS: usize = 1_000;

/// What a file's rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A header, then a row for each record.
    Csv,
    /// A line with a JSON object for each record, its id in it.
    Ndjson,
}

/// What is brought in, and how. Where something is `None`, the file's start says it.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    pub kind: RecordKind,
    pub how: SaveHow,
    /// Checks everything and writes nothing.
    pub is_dry_run: bool,
    pub format: Option<Format>,
    pub encoding: Option<TextEncoding>,
    pub delimiter: Option<Delimiter>,
    pub map: Vec<Mapping>,
    /// Where phone numbers without a country code are from.
    pub region: Option<country::Id>,
}

/// What stands between two cells: one ASCII character that is no letter, digit, quote or line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delimiter(u8);

impl Delimiter {
    /// Those that are recognised.
    const USUAL: [Delimiter; 4] = [Delimiter(b','), Delimiter(b';'), Delimiter(b'\t'), Delimiter(b'|')];

    /// Itself, or its name: `comma`, `semicolon`, `tab`, `pipe`.
    pub fn parse(text: &str) -> Option<Self> {
        let byte = match text {
            "comma" => b',',
            "semicolon" => b';',
            "tab" | "\\t" => b'\t',
            "pipe" => b'|',
            text => match text.as_bytes() {
                [byte @ (b'\t' | b' '..=b'~')] if !byte.is_ascii_alphanumeric() && *byte != b'"' => *byte,
                _ => return None,
            },
        };
        Some(Delimiter(byte))
    }

    pub fn byte(self) -> u8 {
        self.0
    }

    pub fn as_char(self) -> char {
        self.0.into()
    }
}

/// Which field a column becomes, where its header does not say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub header: String,
    /// `None` drops the column.
    pub field: Option<String>,
}

impl Mapping {
    /// `Моб. тел.=phone`, or `Unused=` to drop a column. A header may hold a `=`, a field may not.
    pub fn parse(text: &str) -> Option<Self> {
        let (header, field) = text.rsplit_once('=')?;
        let (header, field) = (header.trim(), field.trim());
        let field = (!field.is_empty()).then(|| field.to_owned());
        (!header.is_empty()).then(|| Mapping { header: header.to_owned(), field })
    }
}

/// What became of a file's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub rows: u64,
    pub created: u64,
    pub updated: u64,
    pub unchanged: u64,
    pub rejected: u64,
}

/// What a file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub format: Format,
    pub encoding: TextEncoding,
    /// Of a table.
    pub delimiter: Option<Delimiter>,
    /// Of a table, in order.
    pub columns: Vec<Column>,
}

/// Why a file cannot be read further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// From 1; where the row begins that cannot be read.
    pub line: u64,
    /// What is wrong, and what to do.
    pub detail: String,
}

impl FileProblem {
    fn new(line: u64, detail: impl Into<String>) -> Self {
        FileProblem { line, detail: detail.into() }
    }

    /// A row longer than [`ROW_BYTES`].
    fn too_long(line: u64, why: &str) -> Self {
        Self::new(line, format!("the row that begins here is longer than {} KiB: {why}", ROW_BYTES / 1024))
    }

    fn nul(line: u64) -> Self {
        Self::new(
            line,
            "there are NUL bytes here: this is no text, or text in UTF-16 that was not recognised; save it as CSV in \
             UTF-8, or say its encoding",
        )
    }
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_and_mappings_are_read() {
        for (text, byte) in [(";", b';'), ("tab", b'\t'), ("\t", b'\t'), ("pipe", b'|'), ("^", b'^')] {
            assert_eq!(Delimiter::parse(text).map(Delimiter::byte), Some(byte), "{text}");
        }
        for text in ["", "a", "1", "\"", "\n", ";;", "ы"] {
            assert_eq!(Delimiter::parse(text), None, "{text:?}");
        }
        let mapping = |text| Mapping::parse(text).map(|mapping| (mapping.header, mapping.field));
        assert_eq!(mapping("Моб. тел. = phone"), Some(("Моб. тел.".into(), Some("phone".into()))));
        assert_eq!(mapping("a=b=c"), Some(("a=b".into(), Some("c".into()))));
        assert_eq!(mapping("Unused="), Some(("Unused".into(), None)));
        assert_eq!((mapping("phone"), mapping("=phone")), (None, None));
    }
}
