//! Rows that were not taken, for whoever mends them.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::{Column, Delimiter};
use crate::domain::Record;

/// The columns that a table of rejected rows has more than the rows: a mended one can be imported as it is.
const OUR_COLUMNS: [&str; 2] = ["rejected line", "rejected because"];
/// Goes before the header of a column that was dropped, so that it is dropped again.
const DROPPED: &str = "dropped: ";
/// What a row that is too long is cut to, cell by cell.
const CUT_CHARACTERS: usize = 60;

/// A row that was not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Where it begins, from 1.
    pub line: u64,
    pub reason: String,
    pub row: Given,
}

/// A row as it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Given {
    /// The cells of a table's row.
    Cells(Vec<String>),
    /// A line of JSON.
    Line(String),
}

impl Given {
    pub(super) fn len_bytes(&self) -> usize {
        match self {
            Given::Cells(cells) => cells.iter().map(String::len).sum(),
            Given::Line(line) => line.len(),
        }
    }

    /// What is longer than any record is shown by its beginning.
    pub(super) fn cut(self) -> Self {
        fn short(text: &str) -> String {
            match text.char_indices().nth(CUT_CHARACTERS) {
                Some((at, _)) => format!("{}…", &text[..at]),
                None => text.to_owned(),
            }
        }
        if self.len_bytes() <= Record::LONGEST_BYTES {
            return self;
        }
        match &self {
            Given::Cells(cells) => Given::Cells(cells.iter().map(|cell| short(cell)).collect()),
            Given::Line(line) => Given::Line(short(line)),
        }
    }
}

/// Whether a table with this header is one of ours: its other headers are fields, not names for them.
pub(super) fn is_ours(header: &[String]) -> bool {
    OUR_COLUMNS.iter().all(|ours| header.iter().any(|header| header.trim() == *ours))
}

/// The field that a column of a table of ours becomes.
pub(super) fn field(header: &str) -> Option<&str> {
    (!is_our_column(header) && !header.starts_with(DROPPED.trim_end())).then_some(header)
}

fn is_our_column(header: &str) -> bool {
    OUR_COLUMNS.contains(&header)
}

/// A file of rejected rows.
pub enum RejectedFile<W: Write> {
    /// A table with the fields of the import, for a spreadsheet to open.
    Csv {
        writer: Box<csv::Writer<W>>,
        /// Columns that are there already, as ours.
        left_out: Vec<usize>,
    },
    /// A line of JSON for each row, for programs.
    Ndjson(W),
}

impl<W: Write> RejectedFile<W> {
    /// A table with `columns`, or one with the row in one cell when there are none.
    pub fn csv(mut to: W, columns: &[Column], delimiter: Option<Delimiter>) -> io::Result<Self> {
        // Without the mark, Excel takes UTF-8 for the encoding of the machine.
        to.write_all("\u{feff}".as_bytes())?;
        // One that is recognised when the file comes back.
        let delimiter = delimiter.filter(|delimiter| Delimiter::USUAL.contains(delimiter));
        let delimiter = delimiter.map_or(b',', Delimiter::byte);
        let mut writer = csv::WriterBuilder::new().delimiter(delimiter).flexible(true).from_writer(to);
        let mut header = OUR_COLUMNS.map(str::to_owned).to_vec();
        match columns {
            [] => header.push("row".to_owned()),
            columns => header.extend(columns.iter().filter(|column| !is_left_out(column)).map(heading)),
        }
        writer.write_record(&header)?;
        let left_out = columns.iter().enumerate().filter(|(_, column)| is_left_out(column)).map(|(at, _)| at);
        Ok(RejectedFile::Csv { writer: Box::new(writer), left_out: left_out.collect() })
    }

    pub fn ndjson(to: W) -> Self {
        RejectedFile::Ndjson(to)
    }

    pub fn write(&mut self, rejected: &Rejected) -> io::Result<()> {
        match self {
            RejectedFile::Csv { writer, left_out } => {
                let line = rejected.line.to_string();
                let cells: Vec<&str> = match &rejected.row {
                    Given::Cells(cells) => {
                        let kept = cells.iter().enumerate().filter(|(at, _)| !left_out.contains(at));
                        kept.map(|(_, cell)| cell.as_str()).collect()
                    }
                    Given::Line(line) => vec![line],
                };
                let all = [line.as_str(), &rejected.reason].into_iter().chain(cells);
                Ok(writer.write_record(all.map(harmless))?)
            }
            RejectedFile::Ndjson(to) => {
                serde_json::to_writer(&mut *to, rejected)?;
                to.write_all(b"\n")
            }
        }
    }

    /// What was written to, with every row in it.
    pub fn finish(self) -> io::Result<W> {
        match self {
            RejectedFile::Csv { writer, .. } => writer.into_inner().map_err(csv::IntoInnerError::into_error),
            RejectedFile::Ndjson(mut to) => {
                to.flush()?;
                Ok(to)
            }
        }
    }
}

fn is_left_out(column: &Column) -> bool {
    column.field.is_none() && is_our_column(&column.header)
}

/// A header that means the same wherever it is read: the field itself.
fn heading(column: &Column) -> String {
    match &column.field {
        Some(field) => harmless(field),
        None if column.header.is_empty() || column.header.starts_with(DROPPED.trim_end()) => column.header.clone(),
        None => format!("{DROPPED}{}", column.header),
    }
}

/// A cell that a spreadsheet does not take for a formula. Phone numbers and amounts stay as they are: what is only
/// signs and digits computes nothing. [`as_given`] takes back what this adds, and nothing else.
fn harmless(cell: &str) -> String {
    let is_number = |text: &str| text.chars().all(|letter| letter.is_ascii_digit() || " +-().,".contains(letter));
    match cell.chars().next() {
        Some('=' | '@' | '\t' | '\r') => format!("'{cell}"),
        Some('+' | '-') if !is_number(cell) => format!("'{cell}"),
        Some('\'') if begins_with_sign(cell) => format!("'{cell}"),
        _ => cell.to_owned(),
    }
}

/// A cell of a table of ours, as it was before.
pub(super) fn as_given(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|rest| begins_with_sign(rest)).unwrap_or(cell)
}

/// Behind any number of quotes.
fn begins_with_sign(cell: &str) -> bool {
    cell.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_become_text_and_numbers_stay() {
        for (cell, expected) in [
            ("=HYPERLINK(\"x\")", "'=HYPERLINK(\"x\")"),
            ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
            ("-2+3+cmd", "'-2+3+cmd"),
            ("@SUM(1)", "'@SUM(1)"),
            ("\t=1", "'\t=1"),
            ("+7999", "+7999"),
            ("+7 (999) 123-45-67", "+7 (999) 123-45-67"),
            ("-12,50", "-12,50"),
            ("-", "-"),
            ("'", "'"),
            ("'=1", "''=1"),
            ("'-5", "''-5"),
            ("'Анна", "'Анна"),
            ("Анна", "Анна"),
            ("", ""),
        ] {
            assert_eq!(harmless(cell), expected);
            assert_eq!(as_given(expected), cell);
        }
    }

    #[test]
    fn a_table_has_the_fields_of_the_import() {
        let columns = [("ИД", Some("id")), ("Имя", None), ("rejected line", None), ("", None), ("dropped: x", None)];
        let columns = columns.map(|(header, field)| Column { header: header.into(), field: field.map(str::to_owned) });
        let mut text = Vec::new();
        let mut file = RejectedFile::csv(&mut text, &columns, Delimiter::parse(";")).unwrap();
        let row = Given::Cells(vec!["1".into(), "=x;\"y\"".into(), "9".into(), "too few".into()]);
        file.write(&Rejected { line: 2, reason: "3 cells".into(), row }).unwrap();
        file.finish().unwrap();
        let expected = "\u{feff}rejected line;rejected because;id;dropped: Имя;;dropped: x\n\
            2;3 cells;1;\"'=x;\"\"y\"\"\";too few\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn long_rows_are_cut() {
        let Given::Line(line) = Given::Line("я".repeat(70_000)).cut() else { panic!("it stays a line") };
        assert_eq!(line.chars().count(), CUT_CHARACTERS + 1);
        let short = Given::Cells(vec!["x".repeat(1000)]);
        assert_eq!(short.clone().cut(), short);
    }
}
