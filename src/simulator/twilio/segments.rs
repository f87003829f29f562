//! How many SMS a text is sent as.

/// The basic table of GSM 03.38; what it has costs one septet.
const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
/// Its extension; each costs two septets, which stay together.
const EXTENSION: &str = "^{}\\[~]|€\u{c}";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simulator) enum Encoding {
    Gsm7,
    Ucs2,
}

impl Encoding {
    pub(in crate::simulator) const fn as_str(self) -> &'static str {
        match self {
            Encoding::Gsm7 => "GSM-7",
            Encoding::Ucs2 => "UCS-2",
        }
    }
}

/// The encoding of a text, and in how many parts it goes.
pub(in crate::simulator) fn count(text: &str) -> (Encoding, u32) {
    match text.chars().map(septets).collect::<Option<Vec<_>>>() {
        Some(sizes) => (Encoding::Gsm7, parts(sizes, 160, 153)),
        None => (Encoding::Ucs2, parts(text.chars().map(char::len_utf16).collect(), 70, 67)),
    }
}

fn septets(c: char) -> Option<usize> {
    if BASIC.contains(c) { Some(1) } else { EXTENSION.contains(c).then_some(2) }
}

/// `sizes` are of what must not be split.
fn parts(sizes: Vec<usize>, alone: usize, in_parts: usize) -> u32 {
    if sizes.iter().sum::<usize>() <= alone {
        return 1;
    }
    let (mut count, mut filled) = (1, 0);
    for size in sizes {
        if filled + size > in_parts {
            (count, filled) = (count + 1, 0);
        }
        filled += size;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_as_twilio_counts_them() {
        let (a, ya, smile) = ("a", "я", "😀");
        for (text, expected) in [
            (a.repeat(160), 1),
            (a.repeat(161), 2),
            (a.repeat(306), 2),
            (a.repeat(307), 3),
            (a.repeat(159) + "€", 2),
            (a.repeat(158) + "€", 1),
            (a.repeat(152) + "€" + &a.repeat(152), 3),
            (ya.repeat(70), 1),
            (ya.repeat(71), 2),
            (ya.repeat(134), 2),
            (ya.repeat(135), 3),
            (smile.repeat(35), 1),
            (smile.repeat(36), 2),
            (ya.repeat(66) + smile + &ya.repeat(10), 2),
            (String::new(), 1),
        ] {
            assert_eq!(count(&text).1, expected, "{text}");
        }
        assert_eq!((count("Ça").0, count("ça").0, count("`").0), (Encoding::Gsm7, Encoding::Ucs2, Encoding::Ucs2));
    }
}
