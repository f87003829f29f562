//! Rows of CSV, a piece at a time.
//!
//! Quoted cells may hold delimiters, line ends and doubled quotes (RFC 4180); a quote within an unquoted cell is a
//! quote. Line ends are LF, CRLF or CR.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::{Delimiter, FileProblem, MOST_COLUMNS, ROW_BYTES};

/// What the cells of a row take at first; more where one needs it.
const TEXT_BYTES: usize = 4 * 1024;

/// One row: its cells one behind the other, and where each ends.
pub(super) struct Cells<'a> {
    text: &'a [u8],
    ends: &'a [usize],
}

impl<'a> Cells<'a> {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn holds_nul(&self) -> bool {
        self.text.contains(&0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut start = 0;
        let text = self.text;
        self.ends.iter().map(move |end| {
            let cell = &text[start..*end];
            start = *end;
            cell
        })
    }
}

/// Parts text into rows. Lines without a character are no rows.
pub(super) struct Table {
    reader: Reader,
    /// The row that is being read: its cells, …
    text: Vec<u8>,
    text_used: usize,
    /// … where they end, …
    ends: Vec<usize>,
    ends_used: usize,
    /// … its length in the file so far, …
    given_bytes: usize,
    /// … and the line that it begins in.
    first_line: u64,
    line: LineCount,
}

impl Table {
    pub(super) fn new(delimiter: Delimiter) -> Self {
        Table {
            reader: ReaderBuilder::new().delimiter(delimiter.byte()).build(),
            text: vec![0; TEXT_BYTES],
            text_used: 0,
            ends: vec![0; MOST_COLUMNS],
            ends_used: 0,
            given_bytes: 0,
            first_line: 1,
            line: LineCount::default(),
        }
    }

    /// Calls `each` with the line and the cells of every row that ends in `text`.
    pub(super) fn read(
        &mut self,
        mut text: &[u8],
        each: &mut impl FnMut(u64, &Cells<'_>) -> Result<(), FileProblem>,
    ) -> Result<(), FileProblem> {
        loop {
            if self.given_bytes == 0 {
                let row = text.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(text.len());
                self.line.count(&text[..row]);
                text = &text[row..];
                self.first_line = self.line.current();
            }
            // An empty input would be the end of the file to the reader.
            if text.is_empty() {
                return Ok(());
            }
            let (result, read, written, ended) =
                self.reader.read_record(text, &mut self.text[self.text_used..], &mut self.ends[self.ends_used..]);
            self.line.count(&text[..read]);
            text = &text[read..];
            self.text_used += written;
            self.ends_used += ended;
            self.given_bytes += read;
            if self.given_bytes > ROW_BYTES {
                let why = "is there a quote in it that is not closed?";
                return Err(FileProblem::too_long(self.first_line, why));
            }
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => {
                    let detail = format!("there are more than {MOST_COLUMNS} columns: is it the right delimiter?");
                    return Err(FileProblem::new(self.first_line, detail));
                }
                // Only an empty input is an end.
                ReadRecordResult::End => return Ok(()),
                ReadRecordResult::Record => {
                    each(
                        self.first_line,
                        &Cells { text: &self.text[..self.text_used], ends: &self.ends[..self.ends_used] },
                    )?;
                    (self.text_used, self.ends_used, self.given_bytes) = (0, 0, 0);
                }
            }
        }
    }

    /// The last row may have no line end, but no open quote either.
    pub(super) fn finish(
        &mut self,
        each: &mut impl FnMut(u64, &Cells<'_>) -> Result<(), FileProblem>,
    ) -> Result<(), FileProblem> {
        if self.given_bytes == 0 {
            return Ok(());
        }
        // A line end ends every row, unless it is within quotes.
        self.read(b"\n", each)?;
        if self.given_bytes == 0 {
            return Ok(());
        }
        Err(FileProblem::new(
            self.first_line,
            "a quote that is opened in the row that begins here is not closed before the end of the file",
        ))
    }
}

/// Counts the ends of lines as editors do.
#[derive(Default)]
struct LineCount {
    ended: u64,
    /// An LF behind a CR ends the same line.
    after_cr: bool,
}

impl LineCount {
    fn count(&mut self, text: &[u8]) {
        for byte in text {
            match byte {
                b'\n' if self.after_cr => {}
                b'\n' | b'\r' => self.ended += 1,
                _ => {}
            }
            self.after_cr = *byte == b'\r';
        }
    }

    fn current(&self) -> u64 {
        self.ended + 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Rows = Vec<(u64, Vec<String>)>;

    fn rows<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Rows, FileProblem> {
        let (mut table, mut found) = (Table::new(Delimiter(b';')), Vec::new());
        let mut each = |line: u64, cells: &Cells<'_>| {
            found.push((line, cells.iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect()));
            Ok(())
        };
        for piece in pieces {
            table.read(piece, &mut each)?;
        }
        table.finish(&mut each)?;
        Ok(found)
    }

    fn row(line: u64, cells: &[&str]) -> (u64, Vec<String>) {
        (line, cells.iter().map(|cell| (*cell).to_owned()).collect())
    }

    #[test]
    fn rows_have_the_line_they_begin_in() {
        let text = b"a;b\r\n\r\n\"1\r\n2\";\"x\"\"y\"\n\n3;O \"Z\"\n;\n4;5";
        let expected = [
            row(1, &["a", "b"]),
            row(3, &["1\r\n2", "x\"y"]),
            row(6, &["3", "O \"Z\""]),
            row(7, &["", ""]),
            row(8, &["4", "5"]),
        ];
        for size in 1..=text.len() {
            assert_eq!(rows(text.chunks(size)).unwrap(), expected);
        }
        assert_eq!(rows([&b"a\rb\r\rc"[..]]).unwrap(), [row(1, &["a"]), row(2, &["b"]), row(4, &["c"])]);
    }

    #[test]
    fn an_open_quote_is_found() {
        for text in ["a;b\n\"1;2\n3;4\n", "a;b\n\"", "a;b\n1;\"2", "a;b\n1;\"2\"\""] {
            let problem = rows([text.as_bytes()]).unwrap_err();
            assert_eq!(problem.line, 2, "{text:?}");
            assert!(problem.detail.contains("not closed"), "{text:?}");
        }
        for text in ["a;b\n1;\"2\"", "a;b\n1;2", "a;b\n1;\"\"", "a;b\n1;\"2\"\n"] {
            assert_eq!(rows([text.as_bytes()]).unwrap().len(), 2, "{text:?}");
        }
    }

    #[test]
    fn a_row_without_end_is_not_kept() {
        let (mut table, mut each) = (Table::new(Delimiter(b';')), |_: u64, _: &Cells<'_>| Ok(()));
        table.read(b"a;b\n1;2\n\"", &mut each).unwrap();
        let piece = b"1;2\n".repeat(16 * 1024);
        let problem = (0..1000).find_map(|_| table.read(&piece, &mut each).err()).unwrap();
        assert_eq!(problem.line, 3);
        assert!(table.text.len() <= 2 * ROW_BYTES);
    }

    #[test]
    fn columns_are_bounded() {
        let wide = |columns: usize| vec!["x"; columns].join(";");
        assert_eq!(rows([wide(MOST_COLUMNS).as_bytes()]).unwrap()[0].1.len(), MOST_COLUMNS);
        assert!(rows([wide(MOST_COLUMNS + 1).as_bytes()]).unwrap_err().detail.contains("1000 columns"));
        assert!(rows([wide(100_000).as_bytes()]).is_err());
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            table in prop::collection::vec(prop::collection::vec("[a;\"\r\n я]{0,5}", 3), 0..8),
            size in 1_usize..20,
        ) {
            let mut writer = csv::WriterBuilder::new().delimiter(b';').from_writer(Vec::new());
            for row in &table {
                writer.write_record(row).unwrap();
            }
            let text = writer.into_inner().unwrap();
            let read: Vec<_> = rows(text.chunks(size)).unwrap().into_iter().map(|(_, cells)| cells).collect();
            prop_assert_eq!(read, table);
        }
    }
}
