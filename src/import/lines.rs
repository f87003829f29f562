//! Lines of text, a piece at a time.

use super::{FileProblem, ROW_BYTES};

/// Parts text into its lines that hold something.
#[derive(Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    /// Line ends so far.
    ended: u64,
}

impl Lines {
    /// Calls `each` with the number and the text of every line that ends in `text`.
    pub(super) fn read(
        &mut self,
        mut text: &[u8],
        each: &mut impl FnMut(u64, &[u8]) -> Result<(), FileProblem>,
    ) -> Result<(), FileProblem> {
        while let Some(at) = text.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (&text[..at], &text[at + 1..]);
            if self.begun.is_empty() {
                self.line(line, each)?;
            } else {
                let mut whole = std::mem::take(&mut self.begun);
                whole.extend_from_slice(line);
                self.line(&whole, each)?;
                // Its room serves the next one that is cut in two.
                whole.clear();
                self.begun = whole;
            }
            self.ended += 1;
            text = rest;
        }
        self.check_length(self.begun.len() + text.len())?;
        self.begun.extend_from_slice(text);
        Ok(())
    }

    /// The last line may have no end.
    pub(super) fn finish(
        &mut self,
        each: &mut impl FnMut(u64, &[u8]) -> Result<(), FileProblem>,
    ) -> Result<(), FileProblem> {
        let last = std::mem::take(&mut self.begun);
        self.line(&last, each)
    }

    fn line(
        &self,
        line: &[u8],
        each: &mut impl FnMut(u64, &[u8]) -> Result<(), FileProblem>,
    ) -> Result<(), FileProblem> {
        self.check_length(line.len())?;
        match line.trim_ascii() {
            b"" => Ok(()),
            line => each(self.ended + 1, line),
        }
    }

    fn check_length(&self, bytes: usize) -> Result<(), FileProblem> {
        let why = "a record has 64 KiB at most; is it one JSON object a line?";
        if bytes > ROW_BYTES { Err(FileProblem::too_long(self.ended + 1, why)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Result<Vec<(u64, String)>, FileProblem> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        let mut each = |number: u64, line: &[u8]| {
            found.push((number, String::from_utf8_lossy(line).into_owned()));
            Ok(())
        };
        for piece in pieces {
            lines.read(piece, &mut each)?;
        }
        lines.finish(&mut each)?;
        Ok(found)
    }

    #[test]
    fn lines_have_their_numbers() {
        let found = lines(&[b"a\r\n\n  \nb", b"", b"c\nd"]).unwrap();
        assert_eq!(found, [(1, "a".to_owned()), (4, "bc".to_owned()), (5, "d".to_owned())]);
        assert!(lines(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let piece = vec![b'x'; 64 * 1024];
        let (mut lines, mut each) = (Lines::default(), |_: u64, _: &[u8]| Ok(()));
        lines.read(b"{}\n", &mut each).unwrap();
        let problem = (0..1000).find_map(|_| lines.read(&piece, &mut each).err()).unwrap();
        assert_eq!(problem.line, 2);
        assert!(lines.begun.len() <= ROW_BYTES);
    }
}
