//! One reply of a mail server: a code, perhaps an enhanced one, and words.

use super::wire::Broken;

/// RFC 5321, 4.2: three digits; RFC 3463: `5.1.1` before the words, on servers that have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) enhanced: Option<Enhanced>,
    /// The words of all lines, with the enhanced code.
    pub(super) lines: Vec<String>,
}

/// Class, subject and detail of an enhanced code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Enhanced(pub(super) u8, pub(super) u16, pub(super) u16);

impl Reply {
    /// Takes one line. Answers whether it was the last.
    pub(super) fn add(&mut self, line: &[u8]) -> Result<bool, Broken> {
        // Words may be in any encoding; only the digits have to be right.
        let line = String::from_utf8_lossy(line.trim_ascii_end());
        let bytes = line.as_bytes();
        let code = match bytes {
            [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return Err(Broken::Unreadable("the answer is not SMTP")),
        };
        let is_last = match bytes.get(3) {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return Err(Broken::Unreadable("the answer is not SMTP")),
        };
        if self.lines.is_empty() {
            self.code = code;
        } else if self.code != code {
            return Err(Broken::Unreadable("the lines of the answer have different codes"));
        }
        let words = line.get(4..).unwrap_or_default();
        self.enhanced = self.enhanced.or_else(|| enhanced(words, code));
        self.lines.push(words.to_owned());
        Ok(is_last)
    }

    pub(super) fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// `550 5.1.1`, as an attempt keeps it.
    pub(super) fn codes(&self) -> String {
        match self.enhanced {
            Some(Enhanced(class, subject, detail)) => format!("{} {class}.{subject}.{detail}", self.code),
            None => self.code.to_string(),
        }
    }

    /// All words in one line.
    pub(super) fn text(&self) -> String {
        self.lines.join(" ")
    }
}

/// `5.1.1` at the beginning of `words`, where it agrees with the code.
fn enhanced(words: &str, code: u16) -> Option<Enhanced> {
    let mut parts = words.split_ascii_whitespace().next()?.split('.');
    let mut number = || {
        let part = parts.next()?;
        let plain = (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        if plain { part.parse::<u16>().ok() } else { None }
    };
    let (class, subject, detail) = (number()?, number()?, number()?);
    let agrees = class == code / 100 && parts.next().is_none();
    agrees.then_some(Enhanced(u8::try_from(class).ok()?, subject, detail))
}

#[cfg(test)]
impl Reply {
    pub(super) fn of(text: &str) -> Reply {
        let mut reply = Reply::default();
        for line in text.lines() {
            reply.add(line.as_bytes()).expect(text);
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_from_one_line_or_many() {
        let reply = Reply::of("550-5.7.25 [203.0.113.1] has no\r\n550 5.7.25 PTR record\r\n");
        assert_eq!(
            (reply.codes(), reply.text()),
            ("550 5.7.25".into(), "5.7.25 [203.0.113.1] has no 5.7.25 PTR record".into())
        );
        for (line, codes) in [
            ("250", "250"),
            ("250 2.0.0 Ok", "250 2.0.0"),
            ("250 4.0.0 does not agree", "250"),
            ("550 5.1 no", "550"),
            ("550 5.1.1.1 no", "550"),
            ("550 5.1.1000 no", "550"),
            ("550 5.1.1", "550 5.1.1"),
        ] {
            assert_eq!(Reply::of(line).codes(), codes, "{line}");
        }
    }

    #[test]
    fn what_is_not_smtp_is_said_so() {
        for junk in ["", "\r\n", "25\r\n", "HTTP/1.1 400 Bad Request\r\n", "250x\r\n", "199 \r\n", "650 x\r\n", "2é0 x"]
        {
            assert!(Reply::default().add(junk.as_bytes()).is_err(), "{junk:?} was taken");
        }
        let mut mixed = Reply::default();
        assert!(!mixed.add(b"250-a\r\n").expect("a line"));
        assert!(mixed.add(b"550 b\r\n").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(line in proptest::collection::vec(proptest::num::u8::ANY, 0..50), digits in "[2-5][0-9]{2}[ -]?") {
            let _ = Reply::default().add(&line);
            let _ = Reply::default().add(&[digits.as_bytes(), &line].concat());
        }
    }
}
