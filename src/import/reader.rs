//! Records of one file's bytes, a piece at a time.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::columns::Columns;
use super::decode::Decoder;
use super::lines::Lines;
use super::rejected;
use super::start::{self, START_BYTES};
use super::table::{Cells, Table};
use super::{FileProblem, Format, Found, Given, ImportOptions};
use crate::domain::record::FieldProblem;
use crate::domain::{Record, RecordId};

/// A row of the file, and the record that it is or why it is none.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) given: Given,
    pub(super) record: Result<Record, String>,
}

/// Reads one file.
pub(super) struct Reader {
    options: Arc<ImportOptions>,
    state: State,
}

enum State {
    /// What came so far of a start that is not there yet.
    Start(Vec<u8>),
    Open(Box<Open>),
}

struct Open {
    found: Found,
    decoder: Decoder,
    rows: Rows,
}

enum Rows {
    /// Without columns until the header was read.
    Table(Box<Table>, Option<Columns>),
    Lines(Lines),
}

impl Reader {
    pub(super) fn new(options: Arc<ImportOptions>) -> Self {
        Reader { options, state: State::Start(Vec::new()) }
    }

    /// Adds to `rows` every row that ends in `bytes`, also those before a problem.
    pub(super) fn read(&mut self, mut bytes: &[u8], rows: &mut Vec<Row>) -> Result<(), FileProblem> {
        if let State::Start(start) = &mut self.state {
            let (wanted, rest) = bytes.split_at(bytes.len().min(START_BYTES - start.len()));
            start.extend_from_slice(wanted);
            if start.len() < START_BYTES {
                return Ok(());
            }
            bytes = rest;
            self.open(false, rows)?;
        }
        match &mut self.state {
            State::Open(open) => open.read(bytes, false, &self.options, rows),
            State::Start(_) => Ok(()),
        }
    }

    /// The file ends here.
    pub(super) fn finish(&mut self, rows: &mut Vec<Row>) -> Result<(), FileProblem> {
        if let State::Start(_) = self.state {
            self.open(true, rows)?;
        }
        match &mut self.state {
            State::Open(open) => {
                open.read(b"", true, &self.options, rows)?;
                open.finish(&self.options, rows)
            }
            State::Start(_) => Ok(()),
        }
    }

    /// What the file is; none before that was seen.
    pub(super) fn found(self) -> Option<Found> {
        match self.state {
            State::Start(_) => None,
            State::Open(open) => Some(open.found),
        }
    }

    fn open(&mut self, is_whole: bool, rows: &mut Vec<Row>) -> Result<(), FileProblem> {
        let State::Start(start) = &mut self.state else { return Ok(()) };
        let start = std::mem::take(start);
        start::check_is_text(&start)?;
        let encoding = self.options.encoding.unwrap_or_else(|| start::encoding(&start, is_whole));
        let text = start.strip_prefix(encoding.mark()).unwrap_or(&start);
        let mut decoder = Decoder::new(encoding);
        let decoded = decoder.decode(text, false);
        let format = start::format(decoded, self.options.format)?;
        let (delimiter, as_rows) = match format {
            Format::Ndjson => (None, Rows::Lines(Lines::default())),
            Format::Csv => {
                let delimiter = self.options.delimiter.unwrap_or_else(|| start::delimiter(decoded, is_whole));
                (Some(delimiter), Rows::Table(Box::new(Table::new(delimiter)), None))
            }
        };
        let found = Found { format, encoding, delimiter, columns: Vec::new() };
        // Decoded once more, in the order of reading.
        let mut open = Box::new(Open { found, decoder: Decoder::new(encoding), rows: as_rows });
        let read = open.read(text, false, &self.options, rows);
        self.state = State::Open(open);
        read
    }
}

impl Open {
    fn read(
        &mut self,
        bytes: &[u8],
        is_last: bool,
        options: &ImportOptions,
        rows: &mut Vec<Row>,
    ) -> Result<(), FileProblem> {
        let text = self.decoder.decode(bytes, is_last);
        match &mut self.rows {
            Rows::Lines(lines) => lines.read(text, &mut |line, text| object(line, text, options, rows)),
            Rows::Table(table, columns) => {
                let found = &mut self.found;
                table.read(text, &mut |line, cells| row(line, cells, columns, found, options, rows))
            }
        }
    }

    fn finish(&mut self, options: &ImportOptions, rows: &mut Vec<Row>) -> Result<(), FileProblem> {
        match &mut self.rows {
            Rows::Lines(lines) => lines.finish(&mut |line, text| object(line, text, options, rows)),
            Rows::Table(table, columns) => {
                let found = &mut self.found;
                table.finish(&mut |line, cells| row(line, cells, columns, found, options, rows))?;
                match columns {
                    Some(_) => Ok(()),
                    None => Err(FileProblem::new(1, "there is no header: the first row names the columns")),
                }
            }
        }
    }
}

/// A row of a table, whose first is the header. One without any text is as good as none.
fn row(
    line: u64,
    cells: &Cells<'_>,
    columns: &mut Option<Columns>,
    found: &mut Found,
    options: &ImportOptions,
    rows: &mut Vec<Row>,
) -> Result<(), FileProblem> {
    if cells.holds_nul() {
        return Err(FileProblem::nul(line));
    }
    if cells.iter().all(|cell| cell.trim_ascii().is_empty()) {
        return Ok(());
    }
    let is_text = cells.iter().all(|cell| std::str::from_utf8(cell).is_ok());
    let mut texts: Vec<String> = cells.iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect();
    if columns.as_ref().map_or_else(|| rejected::is_ours(&texts), |columns| columns.is_ours) {
        for text in &mut texts {
            if rejected::as_given(text) != text {
                // What is taken off is the quote in front.
                text.remove(0);
            }
        }
    }
    let Some(columns) = columns else {
        if start::is_separator_row(&texts) {
            return Ok(());
        }
        if !is_text {
            return Err(FileProblem::new(line, no_text(found)));
        }
        let read = Columns::read(options.kind, &texts, &options.map).map_err(|why| FileProblem::new(line, why))?;
        found.columns.clone_from(&read.all);
        *columns = Some(read);
        return Ok(());
    };
    let record = if !is_text {
        Err(no_text(found))
    } else if texts.len() != columns.all.len() {
        Err(format!("{} cells; the header has {}", texts.len(), columns.all.len()))
    } else {
        let (id, fields) = columns.fields(&texts);
        record(id, fields, options)
    };
    rows.push(Row { line, given: Given::Cells(texts), record });
    Ok(())
}

fn no_text(found: &Found) -> String {
    format!("there are bytes here that are no text in {}", found.encoding.as_str())
}

/// A line of JSON.
fn object(line: u64, text: &[u8], options: &ImportOptions, rows: &mut Vec<Row>) -> Result<(), FileProblem> {
    if text.contains(&0) {
        return Err(FileProblem::nul(line));
    }
    let given = Given::Line(String::from_utf8_lossy(text).into_owned());
    rows.push(Row { line, given, record: from_json(text, options) });
    Ok(())
}

fn from_json(text: &[u8], options: &ImportOptions) -> Result<Record, String> {
    let mut fields = match serde_json::from_slice(text) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Err("this is JSON, but no object".to_owned()),
        Err(error) => {
            let why = error.to_string();
            // Its line is always the first.
            return Err(format!("this is no JSON: {}", why.replace(" at line 1 column ", " at character ")));
        }
    };
    for mapping in &options.map {
        let Some(value) = fields.remove(&mapping.header) else { continue };
        let Some(field) = &mapping.field else { continue };
        if fields.insert(field.clone(), value).is_some() {
            return Err(format!(
                "{field}: there is a field of this name beside “{}”, which becomes it",
                mapping.header
            ));
        }
    }
    let id = match fields.remove("id") {
        Some(Value::String(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        None | Some(Value::Null) => return Err("there is no id".to_owned()),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            return Err("id: expected a text or a number".to_owned());
        }
    };
    record(&id, fields, options)
}

fn record(id: &str, fields: Map<String, Value>, options: &ImportOptions) -> Result<Record, String> {
    if id.trim().is_empty() {
        return Err("there is no id".to_owned());
    }
    let id = RecordId::parse(options.kind, id).map_err(|error| format!("id: {error}"))?;
    let words = |problems: Vec<FieldProblem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Record::parse(options.kind, id, fields, options.region).map_err(words)
}

#[cfg(test)]
mod tests;
