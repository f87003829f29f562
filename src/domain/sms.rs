//! How many messages an SMS is billed as (3GPP TS 23.038, 23.040).
//!
//! A text within the GSM alphabet has 160 places, and 153 per part when it takes more than one; characters of the
//! extension table take two. One character outside moves the whole text to UCS-2: 70 UTF-16 units, 67 per part. Neither
//! an extension pair nor a surrogate pair is split over two parts, so that a part may end one place early.

use std::collections::HashSet;

/// An SMS measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmsSize {
    pub encoding: SmsEncoding,
    /// Places taken: septets of the GSM alphabet, or UTF-16 units.
    pub units: usize,
    /// What it is billed as; 0 for an empty text.
    pub parts: usize,
    /// Places free before one more part begins.
    pub left: usize,
    /// The characters that the GSM alphabet lacks, each once, as they come; empty unless the encoding is UCS-2.
    pub outside_gsm: Vec<char>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmsEncoding {
    Gsm7,
    Ucs2,
}

impl SmsEncoding {
    pub const fn as_str(self) -> &'static str {
        match self {
            SmsEncoding::Gsm7 => "GSM-7",
            SmsEncoding::Ucs2 => "UCS-2",
        }
    }

    /// Places in a message alone, and in each of several.
    const fn places(self) -> (usize, usize) {
        match self {
            SmsEncoding::Gsm7 => (160, 153),
            SmsEncoding::Ucs2 => (70, 67),
        }
    }

    fn width(self, c: char) -> usize {
        match self {
            SmsEncoding::Gsm7 => gsm7_width(c).unwrap_or(1),
            SmsEncoding::Ucs2 => c.len_utf16(),
        }
    }
}

const GSM7: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿\
                    abcdefghijklmnopqrstuvwxyzäöñüà";
const GSM7_EXTENSION: &str = "^{}\\[~]|€\u{c}";

fn gsm7_width(c: char) -> Option<usize> {
    if c.is_ascii_alphanumeric() || GSM7.contains(c) { Some(1) } else { GSM7_EXTENSION.contains(c).then_some(2) }
}

impl SmsSize {
    pub fn of(text: &str) -> SmsSize {
        let mut seen = HashSet::new();
        let outside_gsm: Vec<char> = text.chars().filter(|&c| gsm7_width(c).is_none() && seen.insert(c)).collect();
        let encoding = if outside_gsm.is_empty() { SmsEncoding::Gsm7 } else { SmsEncoding::Ucs2 };
        let widths = || text.chars().map(|c| encoding.width(c));
        let (alone, each) = encoding.places();
        let units = widths().sum();
        if units <= alone {
            return SmsSize { encoding, units, parts: usize::from(units > 0), left: alone - units, outside_gsm };
        }
        let (mut parts, mut used) = (1, 0);
        for width in widths() {
            if used + width > each {
                parts += 1;
                used = 0;
            }
            used += width;
        }
        SmsSize { encoding, units, parts, left: each - used, outside_gsm }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_counted_as_operators_count() {
        for (text, parts) in [
            (String::new(), 0),
            ("a".repeat(160), 1),
            ("a".repeat(161), 2),
            ("a".repeat(306), 2),
            ("a".repeat(307), 3),
            ("a".repeat(159) + "€", 2),
            ("a".repeat(158) + "€", 1),
            // The pair does not fit behind the 152nd and moves on.
            ("a".repeat(152) + "€" + &"a".repeat(151), 2),
            ("a".repeat(152) + "€" + &"a".repeat(152), 3),
            ("я".repeat(70), 1),
            ("я".repeat(71), 2),
            ("я".repeat(134), 2),
            ("я".repeat(135), 3),
            ("😀".repeat(35), 1),
            ("😀".repeat(36), 2),
            ("я".repeat(66) + "😀" + &"я".repeat(10), 2),
        ] {
            assert_eq!(SmsSize::of(&text).parts, parts, "{text}");
        }
    }

    #[test]
    fn what_forces_the_dearer_encoding_is_named() {
        let size = SmsSize::of("Order №5: “ok” — ready №");
        assert_eq!((size.encoding, &*size.outside_gsm), (SmsEncoding::Ucs2, &['№', '“', '”', '—'][..]));
        for c in ['ç', '`', '\t', '’', '\u{a0}', 'ё'] {
            assert_eq!(SmsSize::of(&c.to_string()).outside_gsm, [c]);
        }
        let fine = SmsSize::of("Ça {@}€\n");
        assert_eq!((fine.encoding, fine.units, fine.left), (SmsEncoding::Gsm7, 11, 149));
        assert!(fine.outside_gsm.is_empty());
    }

    #[test]
    fn what_is_left_is_what_fits() {
        assert_eq!(SmsSize::of(&"я".repeat(71)).left, 63);
        assert_eq!(SmsSize::of(&"a".repeat(160)).left, 0);
        assert_eq!(SmsSize::of("").left, 160);
    }

    /// Lays the text into parts one character after another, as a phone does.
    fn laid_out(text: &str) -> Vec<Vec<char>> {
        let in_gsm = text.chars().all(|c| GSM7.contains(c) || GSM7_EXTENSION.contains(c));
        let width = |c: char| match in_gsm {
            true if GSM7_EXTENSION.contains(c) => 2,
            true => 1,
            false => c.encode_utf16(&mut [0; 2]).len(),
        };
        let lay = |places: usize| {
            let mut parts: Vec<Vec<char>> = Vec::new();
            for c in text.chars() {
                match parts.last_mut() {
                    Some(last) if last.iter().map(|&c| width(c)).sum::<usize>() + width(c) <= places => last.push(c),
                    _ => parts.push(vec![c]),
                }
            }
            parts
        };
        let alone = lay(if in_gsm { 160 } else { 70 });
        if alone.len() <= 1 { alone } else { lay(if in_gsm { 153 } else { 67 }) }
    }

    proptest! {
        #[test]
        fn counting_is_laying_out(text in "([a-z€^]{0,200}|[а-я😀]{0,100}|[a-z€😀]{0,170}){0,4}") {
            let size = SmsSize::of(&text);
            prop_assert_eq!(size.parts, laid_out(&text).len());
            prop_assume!(!text.is_empty());
            // One more place than is left begins a new part, and the last one that is left does not.
            let filler = if size.encoding == SmsEncoding::Gsm7 { "a" } else { "я" };
            prop_assert_eq!(SmsSize::of(&(text.clone() + &filler.repeat(size.left))).parts, size.parts);
            prop_assert!(SmsSize::of(&(text + &filler.repeat(size.left + 1))).parts > size.parts);
        }
    }
}
