//! What the server says of an import: a report, and rejected rows as they come.

use std::fs::Permissions;
use std::io::{self, BufWriter};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::channels::http_client::HttpStream;
use crate::cli::client::{Client, counted, field, printable};
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
            "{} of {}: {} created, {} updated, {} unchanged, {} rejected, in {} s\n",
            counted(self.count("rows"), "row"),
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
        /// As it was given, …
        path: PathBuf,
        /// … and where that is. Nothing is there before all rows are.
        place: PathBuf,
        is_csv: bool,
        /// From the first row on: a table begins with the columns, which the report names.
        to: Option<RejectedFile<BufWriter<NamedTempFile>>>,
    },
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
        if path.is_dir() {
            bail!("{} is a folder", path.display());
        }
        // Where the file is a link, what it leads to is replaced.
        let place = path.canonicalize().unwrap_or_else(|_| path.clone());
        drop(beside(&place).with_context(|| format!("could not write {}", path.display()))?);
        Ok(RejectedRows::Written { path, place, is_csv, to: None })
    }

    pub(super) fn push(&mut self, report: &Report, row: &Rejected) -> anyhow::Result<()> {
        match self {
            RejectedRows::Told(rows) if rows.len() < TOLD => rows.push(row.clone()),
            RejectedRows::Told(_) => {}
            RejectedRows::Written { path, place, is_csv, to } => {
                let failed = || format!("could not write {}", path.display());
                let rows = match to {
                    Some(rows) => rows,
                    none => {
                        let file = BufWriter::new(beside(place).with_context(failed)?);
                        let delimiter = report.json["delimiter"].as_str().and_then(Delimiter::parse);
                        none.insert(if *is_csv {
                            RejectedFile::csv(file, &report.columns(), delimiter).with_context(failed)?
                        } else {
                            RejectedFile::ndjson(file)
                        })
                    }
                };
                rows.write(row).with_context(failed)?;
            }
        }
        Ok(())
    }

    /// The file, if there is anything in it; else none stays there. Without one, the rows join the report.
    pub(super) fn finish(self, report: &mut Report) -> anyhow::Result<Option<PathBuf>> {
        match self {
            RejectedRows::Told(rows) => {
                report.json["rejectedRows"] = serde_json::to_value(rows)?;
                Ok(None)
            }
            RejectedRows::Written { path, place, to: Some(rows), .. } => {
                let save = || -> io::Result<()> {
                    let file = rows.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
                    file.persist(&place)?;
                    Ok(())
                };
                save().with_context(|| format!("could not write {}", path.display()))?;
                Ok(Some(path))
            }
            RejectedRows::Written { place, to: None, .. } => {
                // Rows of another import would pass for rows of this one.
                let _ = std::fs::remove_file(place);
                Ok(None)
            }
        }
    }
}

/// A file that takes the place of another when it is whole, and is gone if it never is.
fn beside(place: &Path) -> io::Result<NamedTempFile> {
    let dir = place.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Who may read it is said by the umask, as of any file.
    tempfile::Builder::new().prefix(".rejected-").permissions(Permissions::from_mode(0o666)).tempfile_in(dir)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::Given;

    #[test]
    fn a_file_is_replaced_by_a_whole_one_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rejected.csv");
        std::fs::write(&path, "mended").unwrap();
        let read = || std::fs::read_to_string(&path).unwrap();
        let create = || RejectedRows::create(Some(path.clone())).unwrap();
        drop(create());
        assert_eq!(read(), "mended");
        let row = Rejected { line: 2, reason: "no id".into(), row: Given::Cells(vec!["1".into()]) };
        let mut report = Report { json: json!({ "columns": [{ "header": "ИД", "field": "id" }] }) };
        let mut broken_off = create();
        broken_off.push(&report, &row).unwrap();
        drop(broken_off);
        assert_eq!((read().as_str(), std::fs::read_dir(dir.path()).unwrap().count()), ("mended", 1));
        let mut whole = create();
        whole.push(&report, &row).unwrap();
        assert_eq!(whole.finish(&mut report).unwrap(), Some(path.clone()));
        assert_eq!(read(), "\u{feff}rejected line,rejected because,id\n2,no id,1\n");
        assert_eq!(create().finish(&mut report).unwrap(), None);
        assert!(!path.exists());
    }
}
