//! What the start of a file says about the whole: its encoding, its format, its delimiter.

use super::table::Table;
use super::{Delimiter, FileProblem, Format, TextEncoding};

/// So much of a file is looked at before anything is read of it.
pub(super) const START_BYTES: usize = 64 * 1024;
/// Rows by which a delimiter is recognised.
const ROWS: usize = 20;

const SEPARATOR: &[u8] = b"sep=";

/// What begins so is no text, and what it is.
const NO_TEXT: &[(&[u8], &str)] = &[
    (b"PK\x03\x04", "an Excel workbook (.xlsx) or another ZIP archive"),
    (b"\xD0\xCF\x11\xE0", "an Excel workbook (.xls)"),
    (b"\x1F\x8B", "a gzip archive"),
    (b"%PDF", "a PDF"),
];

/// Some files are recognised as what they should not be.
pub(super) fn check_is_text(start: &[u8]) -> Result<(), FileProblem> {
    match NO_TEXT.iter().find(|(magic, _)| start.starts_with(magic)) {
        None => Ok(()),
        Some((_, what)) => Err(FileProblem::new(1, format!("this is {what}, no text: export it as CSV in UTF-8"))),
    }
}

/// The encoding of a file that starts so; `is_whole` when nothing follows.
///
/// A mark settles it. Without one, UTF-16 shows by its halves of characters, UTF-8 by being UTF-8, and what is
/// neither is taken for Windows-1251, in which most of the other files in Russian are.
pub(super) fn encoding(start: &[u8], is_whole: bool) -> TextEncoding {
    for encoding in [TextEncoding::Utf8, TextEncoding::Utf16Le, TextEncoding::Utf16Be] {
        if start.starts_with(encoding.mark()) {
            return encoding;
        }
    }
    if is_utf16(start, u16::from_le_bytes) {
        return TextEncoding::Utf16Le;
    }
    if is_utf16(start, u16::from_be_bytes) {
        return TextEncoding::Utf16Be;
    }
    match std::str::from_utf8(start) {
        Ok(_) => TextEncoding::Utf8,
        // The start may end within a character.
        Err(error) if !is_whole && error.error_len().is_none() => TextEncoding::Utf8,
        Err(_) => TextEncoding::Windows1251,
    }
}

/// Latin and Russian text in UTF-16 is of few blocks, and holds spaces, digits or delimiters. Other text that is read
/// so is scattered over all blocks.
fn is_utf16(start: &[u8], unit: fn([u8; 2]) -> u16) -> bool {
    /// Latin, Cyrillic, punctuation, №.
    const BLOCKS: [u16; 4] = [0x00, 0x04, 0x20, 0x21];
    let (mut all, mut usual, mut ascii) = (0_usize, 0_usize, 0_usize);
    for pair in start.chunks_exact(2) {
        let unit = unit([pair[0], pair[1]]);
        all += 1;
        usual += usize::from(BLOCKS.contains(&(unit >> 8)) && unit != 0);
        ascii += usize::from((1..0x80).contains(&unit));
    }
    ascii > 0 && usual * 100 >= all * 95
}

/// The format of text that starts so.
pub(super) fn format(text: &[u8], given: Option<Format>) -> Result<Format, FileProblem> {
    let mut bytes = text.iter().filter(|byte| !byte.is_ascii_whitespace());
    let (first, second) = (bytes.next(), bytes.next());
    let is_array = first == Some(&b'[') && matches!(second, Some(b'{' | b']'));
    if is_array && given != Some(Format::Csv) {
        let detail = "this is one JSON array: write one object a line instead, as `jq -c '.[]'` does";
        return Err(FileProblem::new(1, detail));
    }
    let seen = if first == Some(&b'{') { Format::Ndjson } else { Format::Csv };
    Ok(given.unwrap_or(seen))
}

/// The delimiter of a table that starts so: the one by which most rows have as many cells as the header, and of these
/// the one by which they have most. The comma for a single column.
///
/// Excel's first line `sep=;` says it.
pub(super) fn delimiter(text: &[u8], is_whole: bool) -> Delimiter {
    if let Some(delimiter) = separator(text.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default()) {
        return delimiter;
    }
    let fit = |delimiter: Delimiter| {
        let mut cells: Vec<usize> = Vec::new();
        let mut each = |line: u64, row: &super::table::Cells<'_>| {
            cells.push(row.len());
            if cells.len() < ROWS { Ok(()) } else { Err(FileProblem::new(line, "enough")) }
        };
        let mut table = Table::new(delimiter);
        // A row that cannot be read is found again when the whole is read.
        let read = table.read(text, &mut each);
        if is_whole && read.is_ok() {
            let _ = table.finish(&mut each);
        }
        let header = cells.first().copied().filter(|cells| *cells > 1)?;
        let alike = cells.iter().filter(|cells| **cells == header).count();
        Some((alike * 100 / cells.len(), header))
    };
    let fits = Delimiter::USUAL.into_iter().filter_map(|delimiter| Some((fit(delimiter)?, delimiter)));
    fits.max_by_key(|(fit, _)| *fit).map_or(Delimiter::USUAL[0], |(_, delimiter)| delimiter)
}

/// What Excel's line `sep=;` names.
fn separator(line: &[u8]) -> Option<Delimiter> {
    let (name, named) = line.split_at_checked(SEPARATOR.len())?;
    let [byte] = named else { return None };
    name.eq_ignore_ascii_case(SEPARATOR).then(|| Delimiter::parse(char::from(*byte).encode_utf8(&mut [0; 4])))?
}

/// Whether these cells are that line, parted by what it names or by something else.
pub(super) fn is_separator_row(cells: &[String]) -> bool {
    match cells {
        [line] => separator(line.as_bytes()).is_some(),
        [name, rest] => name.as_bytes().eq_ignore_ascii_case(SEPARATOR) && rest.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn encodings_are_recognised_without_a_mark() {
        let table = "ИД;Имя;Телефон\r\n1;Анна;+7 999 123-45-67\r\n2;Пётр — №2;\r\n";
        let of = |bytes: &[u8]| encoding(bytes, true);
        assert_eq!(of(table.as_bytes()), TextEncoding::Utf8);
        assert_eq!(of(b"id,name\n1,Anna\n"), TextEncoding::Utf8);
        assert_eq!(of(b""), TextEncoding::Utf8);
        assert_eq!(of(&utf16(table, u16::to_le_bytes)), TextEncoding::Utf16Le);
        assert_eq!(of(&utf16(table, u16::to_be_bytes)), TextEncoding::Utf16Be);
        assert_eq!(of(&utf16("{\"id\": 1}\n", u16::to_le_bytes)), TextEncoding::Utf16Le);
        assert_eq!(of(&encoding_rs::WINDOWS_1251.encode(table).0), TextEncoding::Windows1251);
        // Cut within a letter.
        let cut = &"id;имя".as_bytes()[..4];
        assert_eq!((encoding(cut, false), encoding(cut, true)), (TextEncoding::Utf8, TextEncoding::Windows1251));
        // A NUL in plain text does not make it UTF-16.
        assert_eq!(of(b"id,name\n1,An\0na\n"), TextEncoding::Utf8);
    }

    #[test]
    fn a_mark_settles_the_encoding() {
        for other in [TextEncoding::Utf8, TextEncoding::Utf16Le, TextEncoding::Utf16Be] {
            assert_eq!(encoding(&[other.mark(), b"\xD4\xC8"].concat(), true), other);
        }
    }

    #[test]
    fn delimiters_are_recognised_outside_quotes() {
        for (text, byte) in [
            ("id,name\n1,\"a;b;c\"\n", b','),
            ("id;name\n1;a,b\n2;c,d\n", b';'),
            ("id;name, full\n1;Anna\n2;Boris\n", b';'),
            ("id\tname\n1\ta,b;c|d\n", b'\t'),
            ("id|name|phone\n1|a,b|c\n", b'|'),
            ("sep=;\r\nid;a,b,c\r\n1;a,b,c\r\n", b';'),
            ("SEP=\t\nid,a,b\n", b'\t'),
            ("sep=^\nid^a\n", b'^'),
            ("id\n1\n", b','),
            ("", b','),
        ] {
            assert_eq!(delimiter(text.as_bytes(), true).byte(), byte, "{text:?}");
        }
        assert_eq!(delimiter(b"id;name\n1;a", false).byte(), b';');
    }

    #[test]
    fn formats_are_recognised() {
        assert_eq!(format(b" \n{\"id\": 1}", None), Ok(Format::Ndjson));
        assert_eq!(format(b"id,name", None), Ok(Format::Csv));
        assert_eq!(format(b"{id},name", Some(Format::Csv)), Ok(Format::Csv));
        assert!(format(b"[\n {\"id\": 1}]", None).is_err());
        assert!(check_is_text(b"PK\x03\x04rest").unwrap_err().detail.contains("xlsx"));
    }
}
