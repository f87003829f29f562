//! What comes out: bounded while it is written, free of invisible characters, measured as its channel measures it.

use std::io;

use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Error, ErrorKind, Output, State, Value};

use super::filters::plain;
use super::whatsapp::write_without_formatting;

/// Collects a rendered part and refuses to grow past its limit.
pub(super) struct BoundedWriter {
    pub(super) bytes: Vec<u8>,
    limit_bytes: usize,
    pub(super) overflowed: bool,
}

impl BoundedWriter {
    pub(super) fn new(limit_bytes: usize) -> Self {
        BoundedWriter { bytes: Vec::new(), limit_bytes, overflowed: false }
    }
}

impl io::Write for BoundedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit_bytes - self.bytes.len() {
            self.overflowed = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints one value: as it is, as text within HTML, or as text between WhatsApp's marks. Lists and records are refused:
/// printed as code they help nobody, and what they cost is not bounded.
pub(super) fn print(output: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            match state.auto_escape() {
                AutoEscape::Html if value.is_safe() => write_unmarked(output, text),
                AutoEscape::Html => write_escaped(output, text),
                AutoEscape::Custom(_) if !value.is_safe() => write_without_formatting(output, text),
                _ => output.write_str(text).map_err(Error::from),
            }
        }
        ValueKind::Number => output.write_fmt(format_args!("{value}")).map_err(Error::from),
        ValueKind::Bool => output.write_str(if value.is_true() { "true" } else { "false" }).map_err(Error::from),
        // `x if y` without an else; a missing variable never gets here.
        ValueKind::Undefined | ValueKind::None => Ok(()),
        _ => plain(value).and_then(|()| Err(Error::new(ErrorKind::InvalidOperation, "this cannot be printed"))),
    }
}

/// What is escaped already; only the mark of a link that has to be looked at is never a value's.
fn write_unmarked(output: &mut Output<'_>, text: &str) -> Result<(), Error> {
    text.split('\u{1}').try_for_each(|piece| output.write_str(piece).map_err(Error::from))
}

/// `<`, `>`, `&` and both quotes: enough within text and within a quoted attribute. No value marks a link.
fn write_escaped(output: &mut Output<'_>, text: &str) -> Result<(), Error> {
    let mut written = 0;
    for (at, byte) in text.bytes().enumerate() {
        let entity = match byte {
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'&' => "&amp;",
            b'"' => "&quot;",
            b'\'' => "&#39;",
            1 => "",
            _ => continue,
        };
        output.write_str(&text[written..at])?;
        output.write_str(entity)?;
        written = at + 1;
    }
    output.write_str(&text[written..]).map_err(Error::from)
}

/// Drops control characters but newline and tab: nobody sees them, imported records are full of them, and some
/// providers refuse the message for them. Line ends of Windows and of old become newlines.
pub fn without_controls(mut text: String) -> String {
    let dropped = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains('\r') {
        text = text.replace("\r\n", "\n").replace('\r', "\n");
    }
    if text.contains(dropped) { text.replace(dropped, "") } else { text }
}

/// A parameter of an approved WhatsApp template: Meta refuses newlines, tabs and more than four spaces in a row, so
/// that every run of whitespace becomes one space, and none is left at the ends.
pub(super) fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Never more than one empty line, and none at the ends.
pub(super) fn without_gaps(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut gap = 0;
    for line in text.trim().lines().map(str::trim_end) {
        gap = if line.is_empty() { gap + 1 } else { 0 };
        if gap <= 1 {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept.truncate(kept.trim_end().len());
    kept
}

/// Whether a person would see anything.
pub(super) fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

pub(super) fn utf16_units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// The length Telegram counts: UTF-16 units of the text that is left when tags and entities were read.
pub(super) fn telegram_html_units(html: &str) -> usize {
    let mut units = 0;
    read_telegram_html(html, |c| units += c.len_utf16());
    units
}

/// The text that is left.
pub(super) fn telegram_html_text(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    read_telegram_html(html, |c| text.push(c));
    text
}

fn read_telegram_html(html: &str, mut read: impl FnMut(char)) {
    let mut rest = html;
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '<' => rest.find('>').map(|end| (end + 1, None)),
            '&' => rest.find(';').and_then(|end| Some((end + 1, Some(entity_char(&rest[1..end])?)))),
            _ => None,
        };
        let (length, shown) = skipped.unwrap_or((c.len_utf8(), Some(c)));
        shown.into_iter().for_each(&mut read);
        rest = &rest[length..];
    }
}

/// The entities that Telegram reads: four names, and numbers.
fn entity_char(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_go_and_lines_stay() {
        assert_eq!(without_controls("a\u{0}b\r\nc\td\u{85}e\u{7f}".into()), "ab\nc\tde");
    }

    #[test]
    fn parameters_are_one_line() {
        assert_eq!(on_one_line("  ул. Ленина,\n\tдом 5 \u{a0}      кв. 7 "), "ул. Ленина, дом 5 кв. 7");
    }

    #[test]
    fn telegram_counts_what_is_read() {
        assert_eq!(telegram_html_units("<b>a&lt;b</b>"), 3);
        assert_eq!(telegram_html_units("&#39;&#x1F600;&unknown; & <"), 1 + 2 + 9 + 4);
        assert_eq!(telegram_html_units("😀<a href=\"https://x\">я</a>"), 3);
    }
}
