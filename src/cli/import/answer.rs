//! What the server says of an import: a report, and rejected rows as they come.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::channels::http_client::HttpStream;
use crate::cli::client::{Client, field, printable};
use crate::import::{Column, Delimiter, Rejected, RejectedFile};

/// Rejected rows that are told about without a file to write them to.
const TOLD: usize = 10;
/// A row's 64 KiB, escaped as badly as can be, with room for its reason; the report has 1,000 columns.
const LINE_BYTES: usize = 8 * 1024 * 1024;

/// The server's report.
pub(super) struct Report {
    pub(super) json: Value,
}

impl Report {
    /// Of an import that ended early; it says so itself.
    pub(super) fn of_problem(problem: &Value) -> Self {
        let mut json = problem["report"].clone();
        json["error"] = json!({ "line": problem["line"], "detail": problem["detail"] });
        Report { json }
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        self.json[name].as_u64().unwrap_or_default()
    }

    /// Rejected rows that are in the report itself.
    pub(super) fn rows(&self) -> Vec<Rejected> {
        serde_json::from_value(self.json["rejectedRows"].clone()).unwrap_or_default()
    }

    pub(super) fn in_words(&self, rejected_file: Option<&Path>) -> String {
        let mut text = String::new();
        if self.json["dryRun"] == true {
            text.push_str("a dry run: nothing was written\n");
        }
        text.push_str(&format!(
            "{} rows of {}: {} created, {} updated, {} unchanged, {} rejected, in {} s\n",
            self.count("rows"),
            field(&self.json, "kind"),
            self.count("created"),
            self.count("updated"),
            self.count("unchanged"),
            self.count("rejected"),
            field(&self.json, "seconds"),
        ));
        let columns = self.json["columns"].as_array().map(Vec::as_slice).unwrap_or_default();
        let as_field = |column: &Value| match column["field"].as_str() {
            Some(name) if name == column["header"] => printable(name),
            Some(name) => format!("{} as {}", field(column, "header"), printable(name)),
            None => format!("{} dropped", field(column, "header")),
        };
        if !columns.is_empty() {
            let columns: Vec<_> = columns.iter().map(as_field).collect();
            text.push_str(&format!("columns: {}\n", columns.join(", ")));
        }
        match rejected_file {
            Some(file) => text.push_str(&format!("rejected rows are in {}\n", file.display())),
            None => {
                for row in self.rows().iter().take(TOLD) {
                    text.push_str(&format!("  line {}: {}\n", row.line, printable(&row.reason)));
                }
                if self.count("rejected") > TOLD as u64 {
                    text.push_str("  … --rejected FILE.csv takes all of them\n");
                }
            }
        }
        text
    }

    fn columns(&self) -> Vec<Column> {
        serde_json::from_value(self.json["columns"].clone()).unwrap_or_default()
    }
}

/// Where rejected rows go.
pub(super) enum RejectedRows {
    /// The first ones into the report.
    Told(Vec<Rejected>),
    Written {
        path: PathBuf,
        is_csv: bool,
        to: To,
    },
}

/// A file, and from the first row on what writes it: a table begins with the columns, which the report names.
pub(super) enum To {
    Empty(File),
    Rows(RejectedFile<BufWriter<File>>),
}

impl RejectedRows {
    /// A path that cannot be written to is said before anything is sent.
    pub(super) fn create(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(RejectedRows::Told(Vec::new())) };
        let is_csv = match path.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => true,
            Some("ndjson" | "jsonl") => false,
            Some(_) | None => bail!("{} is neither .csv nor .ndjson", path.display()),
        };
        let file = File::create(&path).with_context(|| format!("could not write {}", path.display()))?;
        Ok(RejectedRows::Written { path, is_csv, to: To::Empty(file) })
    }

    pub(super) fn push(&mut self, report: &Report, row: &Rejected) -> anyhow::Result<()> {
        match self {
            RejectedRows::Told(rows) if rows.len() < TOLD => rows.push(row.clone()),
            RejectedRows::Told(_) => {}
            RejectedRows::Written { path, is_csv, to } => {
                let failed = || format!("could not write {}", path.display());
                if let To::Empty(file) = to {
                    let file = BufWriter::new(file.try_clone().with_context(failed)?);
                    let delimiter = report.json["delimiter"].as_str().and_then(Delimiter::parse);
                    *to = To::Rows(if *is_csv {
                        RejectedFile::csv(file, &report.columns(), delimiter).with_context(failed)?
                    } else {
                        RejectedFile::ndjson(file)
                    });
                }
                if let To::Rows(rows) = to {
                    rows.write(row).with_context(failed)?;
                }
            }
        }
        Ok(())
    }

    /// The file, if there is anything in it; else it is removed. Without one, the rows join the report.
    pub(super) fn finish(self, report: &mut Report) -> anyhow::Result<Option<PathBuf>> {
        match self {
            RejectedRows::Told(rows) => {
                report.json["rejectedRows"] = serde_json::to_value(rows)?;
                Ok(None)
            }
            RejectedRows::Written { path, to: To::Rows(rows), .. } => {
                rows.finish().with_context(|| format!("could not write {}", path.display()))?;
                Ok(Some(path))
            }
            RejectedRows::Written { path, to: To::Empty(_), .. } => {
                // What stays is an empty file, which says the same.
                let _ = std::fs::remove_file(path);
                Ok(None)
            }
        }
    }
}

/// Reads an answer line by line: the report, then a rejected row each.
pub(super) async fn read(
    client: &Client,
    answer: &mut HttpStream,
    rejected: &mut RejectedRows,
) -> anyhow::Result<Report> {
    let mut begun: Vec<u8> = Vec::new();
    let mut report = None;
    let mut each = |line: &[u8]| -> anyhow::Result<()> {
        let strange = || format!("{} does not answer as vestnik does", client.base());
        match &report {
            None => report = Some(Report { json: serde_json::from_slice(line).with_context(strange)? }),
            Some(report) => rejected.push(report, &serde_json::from_slice(line).with_context(strange)?)?,
        }
        Ok(())
    };
    while let Some(piece) = answer.next().await.context("the answer broke off: importing the file again is safe")? {
        begun.extend_from_slice(&piece);
        let Some(end) = begun.iter().rposition(|byte| *byte == b'\n') else {
            if begun.len() > LINE_BYTES {
                bail!("{} answers with a line longer than any report or row", client.base());
            }
            continue;
        };
        let rest = begun.split_off(end + 1);
        begun[..end].split(|byte| *byte == b'\n').try_for_each(&mut each)?;
        begun = rest;
    }
    report.with_context(|| format!("{} does not answer as vestnik does", client.base()))
}
