//! A file's bytes as UTF-8, a piece at a time.

use encoding_rs::{DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1251};

/// Stands in the text for bytes that are none in their encoding. No UTF-8 holds it, so the row it is in is found to be
/// no text where it is read.
const NO_TEXT: u8 = 0xFF;

/// How text is written as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextEncoding {
    Utf8,
    Utf16Le,
    Utf16Be,
    Windows1251,
}

impl TextEncoding {
    const ALL: [TextEncoding; 4] =
        [TextEncoding::Utf8, TextEncoding::Utf16Le, TextEncoding::Utf16Be, TextEncoding::Windows1251];

    pub const fn as_str(self) -> &'static str {
        match self {
            TextEncoding::Utf8 => "utf-8",
            TextEncoding::Utf16Le => "utf-16le",
            TextEncoding::Utf16Be => "utf-16be",
            TextEncoding::Windows1251 => "windows-1251",
        }
    }

    /// By one of the names that the web knows it by, such as `utf8` and `cp1251`.
    pub fn parse(name: &str) -> Option<Self> {
        let found = Encoding::for_label(name.trim().as_bytes())?;
        TextEncoding::ALL.into_iter().find(|encoding| encoding.table() == found)
    }

    fn table(self) -> &'static Encoding {
        match self {
            TextEncoding::Utf8 => UTF_8,
            TextEncoding::Utf16Le => UTF_16LE,
            TextEncoding::Utf16Be => UTF_16BE,
            TextEncoding::Windows1251 => WINDOWS_1251,
        }
    }

    /// The mark that may stand before text.
    pub(super) const fn mark(self) -> &'static [u8] {
        match self {
            TextEncoding::Utf8 => b"\xEF\xBB\xBF",
            TextEncoding::Utf16Le => b"\xFF\xFE",
            TextEncoding::Utf16Be => b"\xFE\xFF",
            TextEncoding::Windows1251 => b"",
        }
    }
}

/// Decodes one file, whose mark is gone already.
pub(super) struct Decoder {
    /// None for UTF-8, which is passed on as it is: each row is checked where it is read.
    decoder: Option<encoding_rs::Decoder>,
    text: Vec<u8>,
}

impl Decoder {
    pub(super) fn new(encoding: TextEncoding) -> Self {
        let decoder = match encoding {
            TextEncoding::Utf8 => None,
            other => Some(other.table().new_decoder_without_bom_handling()),
        };
        Decoder { decoder, text: Vec::new() }
    }

    /// The next piece's text; with `is_last`, what an unfinished character leaves, too.
    pub(super) fn decode<'a>(&'a mut self, mut bytes: &'a [u8], is_last: bool) -> &'a [u8] {
        let Some(decoder) = &mut self.decoder else { return bytes };
        self.text.clear();
        loop {
            let start = self.text.len();
            let room = decoder.max_utf8_buffer_length_without_replacement(bytes.len()).unwrap_or(bytes.len());
            self.text.resize(start + room.max(16), 0);
            let (result, read, written) =
                decoder.decode_to_utf8_without_replacement(bytes, &mut self.text[start..], is_last);
            bytes = &bytes[read..];
            self.text.truncate(start + written);
            match result {
                DecoderResult::InputEmpty => return &self.text,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => self.text.push(NO_TEXT),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_make_the_same_text() {
        let text = "ИД;Имя\n1;Анна 🙂\n";
        let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for size in 1..9 {
            let mut decoder = Decoder::new(TextEncoding::Utf16Le);
            let mut whole = Vec::new();
            for piece in utf16.chunks(size) {
                whole.extend_from_slice(decoder.decode(piece, false));
            }
            whole.extend_from_slice(decoder.decode(b"", true));
            assert_eq!(String::from_utf8(whole).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_text_is_marked() {
        let mut decoder = Decoder::new(TextEncoding::Utf16Be);
        // Half of a pair, a letter, half a letter.
        assert_eq!(decoder.decode(b"\xD8\x00\x00a\x00", true), b"\xFFa\xFF");
    }

    #[test]
    fn encodings_have_many_names() {
        for (name, encoding) in [
            ("UTF-8", TextEncoding::Utf8),
            ("cp1251", TextEncoding::Windows1251),
            ("windows-1251", TextEncoding::Windows1251),
            ("utf-16", TextEncoding::Utf16Le),
            ("UTF-16BE", TextEncoding::Utf16Be),
        ] {
            assert_eq!(TextEncoding::parse(name), Some(encoding), "{name}");
        }
        assert_eq!((TextEncoding::parse("koi8-r"), TextEncoding::parse("")), (None, None));
    }
}
