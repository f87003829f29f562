//! Reads HTML as a browser's tokenizer does, and says where template code may stand.
//!
//! Printed values have `<`, `>`, `&` and both quotes escaped. That makes them text in two places only: between tags and
//! inside a quoted attribute. Code anywhere else is refused. Whatever way a template goes, it must come through each of
//! its `if`s and `for`s in the place where it went in, so that reading the source once is reading every page that it
//! can make.

use std::ops::Range;

use super::flat::{CodeKind, Flat, code_at};
use super::nesting::Nesting;
use crate::templates::grammar::Objection;

/// What the HTML consists of, in its order. Ranges are of the flattened text.
pub(super) enum Item {
    Text(Range<usize>),
    Start(StartTag),
    /// Its name, in small letters.
    End {
        name: String,
        start: usize,
    },
    /// What is inside `style` and `script`.
    Raw(Range<usize>),
    /// Where a comment or a declaration begins.
    Comment(usize),
}

pub(super) struct StartTag {
    /// In small letters.
    pub(super) name: String,
    pub(super) attributes: Vec<Attribute>,
    pub(super) start: usize,
    /// Where its `>` or `/>` is.
    pub(super) end: usize,
}

pub(super) struct Attribute {
    /// In small letters.
    pub(super) name: String,
    /// Without quotes.
    pub(super) value: Range<usize>,
    pub(super) quote: Option<char>,
    /// Inside an `if` that began within the tag.
    pub(super) is_conditional: bool,
}

/// Elements in which nothing is what it looks like, and that no message needs.
const REFUSED: &[&str] = &[
    "applet",
    "embed",
    "frameset",
    "iframe",
    "math",
    "noembed",
    "noframes",
    "noscript",
    "object",
    "plaintext",
    "svg",
    "template",
    "xmp",
];

/// Attributes whose value is an address.
const ADDRESSES: &[&str] =
    &["action", "background", "cite", "data", "formaction", "href", "longdesc", "poster", "src", "xlink:href"];

pub(super) fn is_address(attribute: &str) -> bool {
    ADDRESSES.contains(&attribute)
}

/// A place that code can stand in, told from the next one like it by where it begins.
#[derive(Clone, Copy, PartialEq)]
enum Spot {
    Text,
    Raw(usize),
    Tag(usize),
    Value(usize),
}

pub(super) fn scan(flat: &Flat) -> Result<Vec<Item>, Objection> {
    let mut scan = Scan { flat, at: 0, blocks: Vec::new(), nesting: Nesting::default(), items: Vec::new() };
    scan.page()?;
    Ok(scan.items)
}

struct Scan<'a> {
    flat: &'a Flat,
    at: usize,
    /// Where the blocks around began, and whether they capture text.
    blocks: Vec<(Spot, bool)>,
    nesting: Nesting,
    items: Vec<Item>,
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a str {
        &self.flat.text[self.at..]
    }

    fn next(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn no<T>(&self, at: usize, message: impl Into<String>) -> Result<T, Objection> {
        Err(Objection { offset: self.flat.source_offset(at), message: message.into() })
    }

    fn is_code(&self) -> bool {
        self.at < self.flat.text.len() && self.flat.code_at(self.at).is_some()
    }

    fn skip(&mut self, matches: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.at += rest.find(|c| !matches(c)).unwrap_or(rest.len());
    }

    /// Takes the code that stands here, in a place where it may stand.
    fn code(&mut self, spot: Spot) -> Result<(), Objection> {
        let Some(code) = self.flat.code_at(self.at) else { return Ok(()) };
        let begun = self.blocks.last().map(|&(begun, _)| begun);
        match code.kind {
            CodeKind::Open => self.blocks.push((spot, false)),
            CodeKind::Capture => self.blocks.push((spot, true)),
            CodeKind::Middle | CodeKind::Close | CodeKind::EndCapture => {
                if begun.is_some_and(|begun| begun != spot) {
                    return self.no(
                        self.at,
                        "this block began elsewhere in the HTML: it has to begin and end in the same text, the same \
                         quotes or the same tag",
                    );
                }
                if code.kind != CodeKind::Middle {
                    self.blocks.pop();
                }
            }
            CodeKind::Expression | CodeKind::Statement => {}
        }
        self.at += self.next().map_or(0, char::len_utf8);
        Ok(())
    }

    /// A captured text may be printed into an attribute, unescaped: it can hold nothing that ends one.
    fn plain_if_captured(&self, range: Range<usize>) -> Result<(), Objection> {
        if !self.blocks.iter().any(|&(_, captures)| captures) {
            return Ok(());
        }
        match self.flat.text[range.clone()].find(['<', '>', '"', '\'']) {
            Some(at) => self.no(
                range.start + at,
                "a text kept with `set` holds no tags or quotes in HTML: write `&quot;` or `&#39;`, or print it here",
            ),
            None => Ok(()),
        }
    }

    fn page(&mut self) -> Result<(), Objection> {
        while let Some(c) = self.next() {
            if self.is_code() {
                self.items.push(Item::Text(self.at..self.at + c.len_utf8()));
                self.code(Spot::Text)?;
                continue;
            }
            let rest = self.rest();
            let letter = |skipped: usize| rest[skipped..].starts_with(|c: char| c.is_ascii_alphabetic());
            if c != '<' {
                let start = self.at;
                self.skip(|c| c != '<' && code_at(c).is_none());
                self.plain_if_captured(start..self.at)?;
                self.items.push(Item::Text(start..self.at));
            } else if letter(1) {
                self.plain_if_captured(self.at..self.at + 1)?;
                self.start_tag()?;
            } else if rest.starts_with("</") && letter(2) {
                self.plain_if_captured(self.at..self.at + 1)?;
                self.end_tag()?;
            } else if rest.starts_with("<!--") {
                self.comment()?;
            } else if rest.starts_with("<!") || rest.starts_with("<?") || rest.starts_with("</") {
                self.declaration()?;
            } else {
                self.plain_if_captured(self.at..self.at + 1)?;
                let start = self.at;
                self.at += 1;
                if self.is_code() {
                    return self.no(start, "a value right after `<` could become a tag: write `&lt;` for the sign");
                }
                self.items.push(Item::Text(start..self.at));
            }
        }
        Ok(())
    }

    /// Takes everything up to the end of the mark found at `end`, in which no code may stand.
    fn up_to(&mut self, end: Option<usize>, length: usize, what: &str) -> Result<(), Objection> {
        let Some(end) = end else {
            return self.no(self.at, format!("this {what} is never closed"));
        };
        if let Some(code) = self.rest()[..end].find(|c| code_at(c).is_some()) {
            return self.no(self.at + code, format!("a value cannot be kept from doing harm inside a {what}"));
        }
        self.at += end + length;
        Ok(())
    }

    fn comment(&mut self) -> Result<(), Objection> {
        self.items.push(Item::Comment(self.at));
        self.plain_if_captured(self.at..self.at + 1)?;
        let opening = self.rest();
        // Two ways to write a comment that ends at once.
        for short in ["<!-->", "<!--->"] {
            if opening.starts_with(short) {
                self.at += short.len();
                return Ok(());
            }
        }
        self.at += "<!--".len();
        let rest = self.rest();
        let ends = rest.match_indices("--").map(|(at, _)| at).find_map(|at| match &rest.as_bytes()[at + 2..] {
            [b'>', ..] => Some((at, "-->".len())),
            [b'!', b'>', ..] => Some((at, "--!>".len())),
            // Of three in a row the last two may be the end.
            [b'-', b'>', ..] => Some((at + 1, "-->".len())),
            [b'-', b'!', b'>', ..] => Some((at + 1, "--!>".len())),
            _ => None,
        });
        let (end, length) = ends.map_or((None, 0), |(end, length)| (Some(end), length));
        self.up_to(end, length, "comment (`{# … #}` is one that is not sent)")
    }

    fn declaration(&mut self) -> Result<(), Objection> {
        self.items.push(Item::Comment(self.at));
        self.plain_if_captured(self.at..self.at + 1)?;
        self.up_to(self.rest().find('>'), 1, "declaration")
    }

    fn name(&mut self, ends: &[char]) -> Result<String, Objection> {
        let start = self.at;
        self.skip(|c| !c.is_ascii_whitespace() && !ends.contains(&c) && code_at(c).is_none());
        if self.is_code() {
            return self.no(self.at, "code cannot be part of a name: what it prints could be anything");
        }
        Ok(self.flat.text[start..self.at].to_ascii_lowercase())
    }

    fn end_tag(&mut self) -> Result<(), Objection> {
        let start = self.at;
        self.at += 2;
        let name = self.name(&['/', '>'])?;
        self.up_to(self.rest().find('>'), 1, "closing tag")?;
        if self.flat.text[start + 1..self.at].contains(['"', '\'', '<']) {
            return self.no(start, "a closing tag holds only its name");
        }
        self.nesting.close(&name);
        self.items.push(Item::End { name, start });
        Ok(())
    }

    fn start_tag(&mut self) -> Result<(), Objection> {
        let start = self.at;
        self.at += 1;
        let name = self.name(&['/', '>'])?;
        if REFUSED.contains(&name.as_str()) {
            return self.no(start, format!("`<{name}>` has no place in a message"));
        }
        if let Err(message) = self.nesting.open(&name) {
            return self.no(start, message);
        }
        let around = self.blocks.len();
        let mut attributes = Vec::new();
        let end = loop {
            self.skip(|c| c.is_ascii_whitespace() || c == '/');
            if self.is_code() {
                if self.flat.code_at(self.at).is_some_and(|code| code.kind == CodeKind::Expression) {
                    return self.no(self.at, "inside a tag a value may only stand within quotes: name=\"{{ … }}\"");
                }
                self.code(Spot::Tag(start))?;
                continue;
            }
            match self.next() {
                None => return self.no(start, "this tag is never closed"),
                Some('>') => break self.at,
                Some('=' | '"' | '\'' | '<' | '`') => {
                    return self.no(self.at, "this does not belong here in a tag: is a quote missing before it?");
                }
                Some(_) => attributes.push(self.attribute(&name, around)?),
            }
        };
        let end = if self.flat.text[..end].ends_with('/') { end - 1 } else { end };
        self.at = end + self.flat.text[end..].find('>').map_or(0, |at| at + 1);
        self.items.push(Item::Start(StartTag { name: name.clone(), attributes, start, end }));
        match name.as_str() {
            "style" | "script" => self.raw(&name, false),
            "title" | "textarea" => self.raw(&name, true),
            _ => Ok(()),
        }
    }

    fn attribute(&mut self, tag: &str, around: usize) -> Result<Attribute, Objection> {
        let name = self.name(&['/', '>', '='])?;
        let is_conditional = self.blocks.len() > around;
        let after_name = self.at;
        self.skip(|c| c.is_ascii_whitespace());
        if self.next() != Some('=') {
            let value = after_name..after_name;
            return Ok(Attribute { name, value, quote: None, is_conditional });
        }
        self.at += 1;
        self.skip(|c| c.is_ascii_whitespace());
        let quote = self.next().filter(|c| matches!(c, '"' | '\''));
        let Some(quote) = quote else {
            let start = self.at;
            self.skip(|c| !c.is_ascii_whitespace() && c != '>' && code_at(c).is_none());
            if self.is_code() {
                return self.no(self.at, format!("put quotes around the value: {name}=\"{{{{ … }}}}\""));
            }
            return Ok(Attribute { name, value: start..self.at, quote: None, is_conditional });
        };
        self.at += 1;
        let start = self.at;
        loop {
            self.skip(|c| c != quote && code_at(c).is_none());
            match self.next() {
                None => return self.no(start - 1, "this quote is never closed"),
                Some(c) if c == quote => break,
                Some(_) => {
                    if let Some(why) = why_not(tag, &name) {
                        return self.no(self.at, why);
                    }
                    self.code(Spot::Value(start))?;
                }
            }
        }
        let value = start..self.at;
        self.at += 1;
        Ok(Attribute { name, value, quote: Some(quote), is_conditional })
    }

    /// What no tag ends but the element's own. In `title` and `textarea` entities are read, in the others nothing is.
    fn raw(&mut self, name: &str, escapes: bool) -> Result<(), Objection> {
        let start = self.at;
        let small = self.rest().to_ascii_lowercase();
        let closing = format!("</{name}");
        let ends =
            |at: usize| small[at + closing.len()..].starts_with(|c: char| c.is_ascii_whitespace() || "/>".contains(c));
        let Some(end) = small.match_indices(&closing).map(|(at, _)| at).find(|&at| ends(at)) else {
            return self.no(start, format!("this `<{name}>` is never closed"));
        };
        if name == "script" && small[..end].contains("<!--") {
            return self.no(start, "a script cannot hold a comment of HTML");
        }
        if let Some(at) = small[..end]
            .match_indices('<')
            .map(|(at, _)| at)
            .find(|&at| small[at + 1..].trim_start_matches('/').starts_with(|c| code_at(c).is_some()))
        {
            return self.no(start + at, "a value right after `<` could become a tag: write `&lt;` for the sign");
        }
        let end = start + end;
        loop {
            self.skip(|c| code_at(c).is_none());
            if self.at >= end {
                break;
            }
            if !escapes {
                return self.no(self.at, format!("a value cannot be kept from doing harm inside `<{name}>`"));
            }
            self.code(Spot::Raw(start))?;
        }
        self.at = end;
        self.items.push(Item::Raw(start..end));
        Ok(())
    }
}

/// Why no value may stand in this attribute, if that is so.
fn why_not(tag: &str, attribute: &str) -> Option<String> {
    if attribute.starts_with("on") {
        return Some(format!("a value cannot be kept from running inside `{attribute}`"));
    }
    match attribute {
        "style" => {
            Some("a value cannot be kept from doing harm inside `style`: use a class or another attribute".into())
        }
        "srcdoc" | "srcset" | "imagesrcset" | "http-equiv" | "ping" => {
            Some(format!("a value cannot be kept from doing harm inside `{attribute}`"))
        }
        _ if tag == "meta" || tag == "base" || tag == "link" => {
            Some(format!("a value cannot be kept from doing harm inside `<{tag}>`"))
        }
        _ => None,
    }
}
