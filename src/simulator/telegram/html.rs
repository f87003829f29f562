//! Telegram's HTML: the few tags it knows, its three entities, and its complaints with byte offsets.
//!
//! Behaves as the Bot API server's own parser: an entity it does not know stays as text, `</>` closes whatever is
//! open, attributes it does not need are read and dropped.

const TAGS: [&str; 16] = [
    "a",
    "b",
    "strong",
    "i",
    "em",
    "s",
    "strike",
    "del",
    "u",
    "ins",
    "tg-spoiler",
    "tg-emoji",
    "span",
    "pre",
    "code",
    "blockquote",
];

/// The text that a person sees, or the complaint (what follows `can't parse entities: `).
pub(in crate::simulator) fn visible_text(html: &str) -> Result<String, String> {
    let mut parser = Parser { html: html.as_bytes(), at: 0 };
    let mut visible = String::with_capacity(html.len());
    let mut open: Vec<&'static str> = Vec::new();
    // Where the text that has not been copied yet starts.
    let mut plain_from = 0;
    while let Some(byte) = parser.peek() {
        if byte != b'<' && byte != b'&' {
            parser.at += 1;
            continue;
        }
        visible.push_str(&html[plain_from..parser.at]);
        if byte == b'&' {
            match decode_entity(&html[parser.at..]) {
                Some((c, length)) => {
                    visible.push(c);
                    parser.at += length;
                }
                None => {
                    visible.push('&');
                    parser.at += 1;
                }
            }
        } else if parser.html.get(parser.at + 1) == Some(&b'/') {
            parser.end_tag(&mut open)?;
        } else {
            open.push(parser.start_tag()?);
        }
        plain_from = parser.at;
    }
    visible.push_str(&html[plain_from..]);
    match open.last() {
        Some(tag) => Err(format!("Can't find end tag corresponding to start tag \"{tag}\"")),
        None => Ok(visible),
    }
}

struct Parser<'a> {
    html: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.html.get(self.at).copied()
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
    }

    fn word(&self, from: usize) -> String {
        String::from_utf8_lossy(&self.html[from..self.at]).to_ascii_lowercase()
    }

    fn start_tag(&mut self) -> Result<&'static str, String> {
        let begin = self.at;
        self.at += 1;
        let name_from = self.at;
        self.skip_while(|byte| !byte.is_ascii_whitespace() && byte != b'>');
        if self.peek().is_none() {
            return Err(format!("Unclosed start tag at byte offset {begin}"));
        }
        let name = self.word(name_from);
        let Some(tag) = TAGS.into_iter().find(|tag| *tag == name) else {
            return Err(format!("Unsupported start tag \"{name}\" at byte offset {begin}"));
        };
        let mut is_spoiler = false;
        loop {
            self.skip_while(|byte| byte.is_ascii_whitespace());
            match self.peek() {
                Some(b'>') => break,
                Some(_) => {}
                None => return Err(format!("Unclosed start tag \"{tag}\" at byte offset {begin}")),
            }
            let (attribute, value) = self.attribute(tag, begin)?;
            is_spoiler |= attribute == "class" && value == "tg-spoiler";
        }
        self.at += 1;
        if tag == "span" && !is_spoiler {
            return Err(format!("Tag \"span\" must have class \"tg-spoiler\" at byte offset {begin}"));
        }
        Ok(tag)
    }

    fn attribute(&mut self, tag: &str, begin: usize) -> Result<(String, String), String> {
        let name_from = self.at;
        self.skip_while(|byte| !byte.is_ascii_whitespace() && byte != b'=' && byte != b'>');
        if self.at == name_from {
            return Err(format!("Empty attribute name in the tag \"{tag}\" at byte offset {begin}"));
        }
        let name = self.word(name_from);
        self.skip_while(|byte| byte.is_ascii_whitespace());
        if self.peek() != Some(b'=') {
            // `<blockquote expandable>` is the one attribute without a value.
            if tag == "blockquote" && name == "expandable" {
                return Ok((name, String::new()));
            }
            return Err(format!(
                "Expected equal sign in declaration of an attribute of the tag \"{tag}\" at byte offset {begin}"
            ));
        }
        self.at += 1;
        self.skip_while(|byte| byte.is_ascii_whitespace());
        let unclosed = || format!("Unclosed start tag \"{tag}\" at byte offset {begin}");
        let value_from = self.at;
        match self.peek() {
            None => Err(unclosed()),
            Some(quote @ (b'"' | b'\'')) => {
                self.at += 1;
                self.skip_while(|byte| byte != quote);
                let value = String::from_utf8_lossy(&self.html[value_from + 1..self.at]).into_owned();
                if self.peek().is_none() {
                    return Err(unclosed());
                }
                self.at += 1;
                Ok((name, value))
            }
            Some(_) => {
                self.skip_while(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-');
                match self.peek() {
                    Some(byte) if byte.is_ascii_whitespace() || byte == b'>' => Ok((name, self.word(value_from))),
                    Some(_) => Err(format!("Unexpected end of name token at byte offset {value_from}")),
                    None => Err(unclosed()),
                }
            }
        }
    }

    fn end_tag(&mut self, open: &mut Vec<&'static str>) -> Result<(), String> {
        let begin = self.at;
        self.at += 2;
        let name_from = self.at;
        self.skip_while(|byte| !byte.is_ascii_whitespace() && byte != b'>');
        let name = self.word(name_from);
        self.skip_while(|byte| byte.is_ascii_whitespace());
        if self.peek() != Some(b'>') {
            return Err(format!("Unclosed end tag at byte offset {begin}"));
        }
        self.at += 1;
        match open.pop() {
            None => Err(format!("Unexpected end tag at byte offset {begin}")),
            Some(tag) if !name.is_empty() && name != tag => {
                Err(format!("Unmatched end tag at byte offset {begin}, expected \"</{tag}>\", found \"</{name}>\""))
            }
            Some(_) => Ok(()),
        }
    }
}

/// The character an entity at the start of `text` stands for, and how many bytes it takes.
fn decode_entity(text: &str) -> Option<(char, usize)> {
    let rest = &text[1..];
    let (c, length) = if let Some(number) = rest.strip_prefix('#') {
        let (digits, radix, prefix) = match number.strip_prefix(['x', 'X']) {
            Some(hexadecimal) => (hexadecimal, 16, 3),
            None => (number, 10, 2),
        };
        let length = digits.bytes().take_while(|byte| char::from(*byte).is_digit(radix)).count();
        let code = u32::from_str_radix(&digits[..length], radix).ok().filter(|code| *code != 0)?;
        (char::from_u32(code)?, prefix + length)
    } else {
        let length = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let c = match &rest[..length] {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            _ => return None,
        };
        (c, 1 + length)
    };
    let semicolon = usize::from(text.as_bytes().get(length) == Some(&b';'));
    Some((c, length + semicolon))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_vanishes_and_entities_are_read() {
        for (html, expected) in [
            ("plain — текст", "plain — текст"),
            ("<b>Анна</b> &lt;3 &amp; &quot;x&quot;", "Анна <3 & \"x\""),
            ("<a href=\"https://e.org/?a=1&amp;b=2\">ссылка</a>", "ссылка"),
            ("<b>a<i>b</i></b>c<code class=\"language-rust\">d</code>", "abcd"),
            ("<blockquote expandable>q</blockquote><span class=tg-spoiler>s</span>", "qs"),
            ("<B>x</b><i>y</>", "xy"),
            ("&nbsp; &#1071;&#x42f; a & b &", "&nbsp; ЯЯ a & b &"),
        ] {
            assert_eq!(visible_text(html).as_deref(), Ok(expected), "{html}");
        }
    }

    #[test]
    fn mistakes_are_named_as_telegram_names_them() {
        for (html, expected) in [
            ("Я <anna@example.org> x", "Unsupported start tag \"anna@example.org\" at byte offset 3"),
            ("a <b", "Unclosed start tag at byte offset 2"),
            ("a < b", "Unsupported start tag \"\" at byte offset 2"),
            ("a < b > c", "Unsupported start tag \"\" at byte offset 2"),
            ("<b>x", "Can't find end tag corresponding to start tag \"b\""),
            ("<b>x</i>", "Unmatched end tag at byte offset 4, expected \"</b>\", found \"</i>\""),
            ("x</b>", "Unexpected end tag at byte offset 1"),
            ("<b>x</b", "Unclosed end tag at byte offset 4"),
            ("<a href>x</a>", "Expected equal sign in declaration of an attribute of the tag \"a\" at byte offset 0"),
            ("<a href=\"x>y</a>", "Unclosed start tag \"a\" at byte offset 0"),
            ("<span>x</span>", "Tag \"span\" must have class \"tg-spoiler\" at byte offset 0"),
            ("<br>", "Unsupported start tag \"br\" at byte offset 0"),
        ] {
            assert_eq!(visible_text(html), Err(expected.to_owned()), "{html}");
        }
    }
}
