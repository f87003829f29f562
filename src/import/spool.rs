//! Rejected rows on their way to whoever sent them.
//!
//! They wait in an anonymous file, which is gone with its last handle: a client that does not read while it sends
//! holds nothing up, and personal data stays nowhere.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Seek as _, Write as _};

use super::Rejected;

/// Beyond it rejected rows are only counted: a disk is not to be filled with what was no use.
const SPOOL_BYTES: u64 = 1024 * 1024 * 1024;

/// Rejected rows, a line of JSON each.
#[derive(Default)]
pub struct Spool {
    /// None before the first row.
    file: Option<BufWriter<File>>,
    bytes: u64,
}

impl Spool {
    /// The file is written through the page cache, so that this costs about what copying does.
    pub fn push(&mut self, rejected: &Rejected) -> io::Result<()> {
        if self.bytes >= SPOOL_BYTES {
            return Ok(());
        }
        let mut line = serde_json::to_vec(rejected)?;
        line.push(b'\n');
        self.bytes += line.len() as u64;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(BufWriter::new(tempfile::tempfile()?)),
        };
        file.write_all(&line)
    }

    /// All lines, from the first; none where no row was rejected.
    pub fn into_file(self) -> io::Result<Option<File>> {
        let Some(file) = self.file else { return Ok(None) };
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(Some(file))
    }

    /// The first rows: `most` of them, and `most_bytes` of text.
    pub fn into_first(self, most: usize, most_bytes: usize) -> io::Result<Vec<Rejected>> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let Some(file) = self.into_file()? else { return Ok(rows) };
        for line in BufReader::new(file).lines().take(most) {
            let line = line?;
            bytes += line.len();
            if bytes > most_bytes {
                break;
            }
            rows.push(serde_json::from_str(&line)?);
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Given;
    use super::*;

    #[test]
    fn rows_come_back_in_order() {
        let mut spool = Spool::default();
        let rows: Vec<_> = (1..=5)
            .map(|line| Rejected { line, reason: "no id".into(), row: Given::Cells(vec!["a\nb".into()]) })
            .collect();
        for row in &rows {
            spool.push(row).unwrap();
        }
        assert_eq!(spool.into_first(3, 1_000_000).unwrap(), rows[..3]);
        assert!(Spool::default().into_file().unwrap().is_none());
    }
}
