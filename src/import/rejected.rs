//! Rows that were not taken, for whoever mends them.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::{Column, Delimiter};
use crate::domain::Record;

/// The columns that a table of rejected rows has more than the rows: a mended one can be imported as it is.
const OUR_COLUMNS: [&str; 2] = ["rejected line", "rejected because"];
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

pub(super) fn is_our_column(header: &str) -> bool {
    OUR_COLUMNS.contains(&header)
}

/// A file of rejected rows.
pub enum RejectedFile<W: Write> {
    /// A table with the columns of the import, for a spreadsheet to open.
    Csv(Box<csv::Writer<W>>),
    /// A line of JSON for each row, for programs.
    Ndjson(W),
}

impl<W: Write> RejectedFile<W> {
    /// A table with `columns`, or one with the row in one cell when there are none.
    pub fn csv(mut to: W, columns: &[Column], delimiter: Option<Delimiter>) -> io::Result<Self> {
        // Without the mark, Excel takes UTF-8 for the encoding of the machine.
        to.write_all("\u{feff}".as_bytes())?;
        let delimiter = delimiter.map_or(b',', Delimiter::byte);
        let mut writer = csv::WriterBuilder::new().delimiter(delimiter).flexible(true).from_writer(to);
        let mut header = OUR_COLUMNS.map(str::to_owned).to_vec();
        match columns {
            [] => header.push("row".to_owned()),
            columns => header.extend(columns.iter().map(|column| harmless(&column.header))),
        }
        writer.write_record(&header)?;
        Ok(RejectedFile::Csv(Box::new(writer)))
    }

    pub fn ndjson(to: W) -> Self {
        RejectedFile::Ndjson(to)
    }

    pub fn write(&mut self, rejected: &Rejected) -> io::Result<()> {
        match self {
            RejectedFile::Csv(writer) => {
                let line = rejected.line.to_string();
                let cells: Vec<&str> = match &rejected.row {
                    Given::Cells(cells) => cells.iter().map(String::as_str).collect(),
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

    pub fn finish(self) -> io::Result<()> {
        match self {
            RejectedFile::Csv(mut writer) => writer.flush(),
            RejectedFile::Ndjson(mut to) => to.flush(),
        }
    }
}

/// A cell that a spreadsheet does not take for a formula. Phone numbers and amounts stay as they are: what is only
/// signs and digits computes nothing.
fn harmless(cell: &str) -> String {
    let is_number = |text: &str| {
        text.contains(|letter: char| letter.is_ascii_digit())
            && text.chars().all(|letter| letter.is_ascii_digit() || " +-().,".contains(letter))
    };
    match cell.chars().next() {
        Some('=' | '@' | '\t' | '\r') => format!("'{cell}"),
        Some('+' | '-') if !is_number(cell) => format!("'{cell}"),
        _ => cell.to_owned(),
    }
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
            ("-", "'-"),
            ("Анна", "Анна"),
            ("", ""),
        ] {
            assert_eq!(harmless(cell), expected);
        }
    }

    #[test]
    fn a_table_has_the_columns_of_the_import() {
        let columns = ["ИД", "Имя"].map(|header| Column { header: header.into(), field: Some(header.into()) });
        let mut text = Vec::new();
        let mut file = RejectedFile::csv(&mut text, &columns, Delimiter::parse(";")).unwrap();
        let row = Given::Cells(vec!["1".into(), "=x;\"y\"".into(), "too many".into()]);
        file.write(&Rejected { line: 2, reason: "3 cells".into(), row }).unwrap();
        file.finish().unwrap();
        let expected = "\u{feff}rejected line;rejected because;ИД;Имя\n2;3 cells;1;\"'=x;\"\"y\"\"\";too many\n";
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
