//! The plain text of an e-mail that only has HTML.
//!
//! Made from the source, once, so that the text is a template like any other. Tables and lists become lines: a block that
//! repeats a row or an item has to stay around it, and HTML would move it.

use super::flat::{CodeKind, Flat, code_at};
use super::rewrite::{Rewriter, SourceMap};
use super::scan::{Attribute, Item, StartTag};

/// Wider than any line: where to break is the reader's.
const COLUMNS: usize = 100_000;

/// The source of the text, or why there is none.
pub(super) fn derived(source: &str, flat: &Flat, items: &[Item]) -> Result<(String, SourceMap), String> {
    let lines = html2text::config::plain_no_decorate()
        .link_footnotes(false)
        .no_link_wrapping()
        .allow_width_overflow()
        .string_from_read(plain_html(source, flat, items).as_bytes(), COLUMNS)
        .map_err(|error| format!("no text can be made of it: {error}"))?;
    Ok(with_code(&lines, source, flat))
}

/// The same content in the few tags that matter to a text, one block after another and none within another.
fn plain_html(source: &str, flat: &Flat, items: &[Item]) -> String {
    let mut page = Page { html: String::from("<!DOCTYPE html><body><div>"), block: "div", links: Vec::new() };
    let mut head_depth = 0_usize;
    for item in items {
        match item {
            Item::Start(tag) if tag.name == "head" => head_depth += 1,
            Item::End { name, .. } if name == "head" => head_depth = head_depth.saturating_sub(1),
            // What prints nothing a person reads still has to be there: a block that began here ends elsewhere.
            Item::Text(range) if head_depth > 0 => {
                page.html.extend(flat.text[range.clone()].chars().filter(|&c| code_at(c).is_some()));
            }
            Item::Text(range) => page.html.push_str(&flat.text[range.clone()].replace('<', "&lt;")),
            Item::Raw(_) | Item::Comment(_) => {}
            Item::Start(tag) => page.start(flat, tag),
            Item::End { name, .. } if name == "a" => page.end_link(|text| with_code(text.trim(), source, flat).0),
            Item::End { name, .. } => page.end(name),
        }
    }
    page.html
}

struct Page {
    html: String,
    /// The block that is open.
    block: &'static str,
    /// The address of each `<a>` around, and where its content begins.
    links: Vec<Option<(String, usize)>>,
}

impl Page {
    fn begin(&mut self, block: &'static str) {
        self.html.push_str(&format!("</{}><{block}>", self.block));
        self.block = block;
    }

    fn start(&mut self, flat: &Flat, tag: &StartTag) {
        let attribute = |name: &str| tag.attributes.iter().find(|attribute| attribute.name == name);
        let value = |attribute: &Attribute| flat.text[attribute.value.clone()].replace('<', "&lt;");
        match tag.name.as_str() {
            "br" => self.html.push_str("<br>"),
            "hr" => self.begin("div"),
            "li" => {
                self.begin("div");
                self.html.push_str("* ");
            }
            "a" => self.links.push(attribute("href").map(|href| (value(href), self.html.len()))),
            "img" => self.html.extend(attribute("alt").map(value)),
            name => {
                if let Some(block) = block_of(name) {
                    self.begin(block);
                }
            }
        }
    }

    fn end(&mut self, name: &str) {
        match name {
            "td" | "th" => self.html.push(' '),
            _ if block_of(name).is_some() || name == "li" => self.begin("div"),
            _ => {}
        }
    }

    fn end_link(&mut self, written: impl Fn(&str) -> String) {
        let Some(Some((address, start))) = self.links.pop() else { return };
        let is_shown = written(&self.html[start..]) == written(&address);
        if !is_shown && !address.trim().is_empty() && !address.starts_with('#') {
            self.html.push_str(&format!(" ({})", address.trim()));
        }
    }
}

/// A paragraph has an empty line around it, the others none.
fn block_of(name: &str) -> Option<&'static str> {
    match name {
        "p" | "blockquote" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => Some("p"),
        "pre" => Some("pre"),
        "div" | "table" | "tr" | "center" | "section" | "ul" | "ol" | "dl" | "dt" | "dd" => Some("div"),
        _ => None,
    }
}

/// Puts the code back. A line of nothing but blocks goes up in the next one, or every round of a loop would leave an
/// empty line.
fn with_code(lines: &str, source: &str, flat: &Flat) -> (String, SourceMap) {
    let prints = |c: char| !c.is_whitespace() && code_at(c).is_none_or(|n| flat.code[n].kind == CodeKind::Expression);
    let mut text = Rewriter::default();
    for line in lines.trim().lines() {
        let line = line.trim_end();
        let is_code_only = !line.is_empty() && !line.contains(prints);
        let mut letters = line.chars().peekable();
        while let Some(c) = letters.next() {
            match code_at(c) {
                Some(n) => text.copy(source, flat.code[n].range.clone()),
                // Not code here either.
                None if c == '{' && matches!(letters.peek(), Some('{' | '%' | '#')) => text.insert("{{ '{' }}"),
                None => text.insert(c.encode_utf8(&mut [0; 4])),
            }
        }
        if !is_code_only {
            text.insert("\n");
        }
    }
    text.finish()
}
