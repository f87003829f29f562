//! What Telegram reads of HTML (core.telegram.org/bots/api#html-style): it refuses a message with any other tag, and with
//! one that is not closed in its turn.
//!
//! A tag has to be closed in the block that it was opened in, so that whatever way a template goes, its tags match.

use super::Html;
use super::flat::CodeKind;
use super::scan::{Item, StartTag};
use crate::templates::grammar::Objection;

const TAGS: &[&str] = &[
    "b",
    "strong",
    "i",
    "em",
    "u",
    "ins",
    "s",
    "strike",
    "del",
    "span",
    "tg-spoiler",
    "a",
    "tg-emoji",
    "code",
    "pre",
    "blockquote",
];
/// Never closed, in HTML.
const VOID: &[&str] = &["br", "hr", "img", "input", "link", "meta"];
const ENTITIES: &[&str] = &["lt", "gt", "amp", "quot"];

struct Reading<'a> {
    html: &'a Html<'a>,
    /// Names of the tags that are open, and where each begins.
    open: Vec<(&'a str, usize)>,
    /// How many were open where each block around began.
    blocks: Vec<usize>,
    objections: Vec<Objection>,
}

impl Html<'_> {
    /// All that Telegram would refuse, in its order.
    pub(in crate::templates) fn unfit_for_telegram(&self) -> Vec<Objection> {
        let mut reading = Reading { html: self, open: Vec::new(), blocks: Vec::new(), objections: Vec::new() };
        self.items.iter().for_each(|item| reading.item(item));
        reading.close_to(0, "is never closed");
        reading.entities();
        reading.objections.sort_by_key(|objection| objection.offset);
        reading.objections
    }
}

impl<'a> Reading<'a> {
    fn no(&mut self, at: usize, message: impl Into<String>) {
        self.objections.push(Objection { offset: self.html.flat.source_offset(at), message: message.into() });
    }

    fn item(&mut self, item: &'a Item) {
        match item {
            Item::Text(range) => match self.html.flat.code_at(range.start) {
                Some(code) => self.code(code.kind),
                None if self.html.flat.text[range.clone()] == *"<" => {
                    self.no(range.start, "Telegram takes this `<` for a tag: write `&lt;`");
                }
                None => {}
            },
            Item::Start(tag) => self.start(tag),
            Item::End { name, start } => self.end(name, *start),
            Item::Raw(_) => {}
            Item::Comment(start) => self.no(*start, "Telegram knows no comments: `{# … #}` is one that is not sent"),
        }
    }

    fn code(&mut self, kind: CodeKind) {
        let outside = self.blocks.last().copied().unwrap_or_default();
        match kind {
            CodeKind::Open | CodeKind::Capture => self.blocks.push(self.open.len()),
            CodeKind::Middle => self.close_to(outside, "is not closed in the block that it was opened in"),
            CodeKind::Close | CodeKind::EndCapture => {
                self.close_to(outside, "is not closed in the block that it was opened in");
                self.blocks.pop();
            }
            CodeKind::Expression | CodeKind::Statement => {}
        }
    }

    fn close_to(&mut self, outside: usize, why: &str) {
        for (name, start) in self.open.split_off(outside.min(self.open.len())) {
            self.no(start, format!("this `<{name}>` {why}"));
        }
    }

    fn start(&mut self, tag: &'a StartTag) {
        let name = tag.name.as_str();
        let value = |attribute: &str| {
            let found = tag.attributes.iter().find(|found| found.name == attribute);
            found.map(|found| &self.html.flat.text[found.value.clone()])
        };
        let objection = match name {
            _ if !TAGS.contains(&name) => {
                Some(format!("Telegram knows no `<{name}>`: there are {}; a new line is a line break", TAGS.join(", ")))
            }
            "span" if value("class") != Some("tg-spoiler") => {
                Some("Telegram knows `<span>` only as `<span class=\"tg-spoiler\">`".to_owned())
            }
            "a" if value("href").is_none() => Some("a link needs its address: `<a href=\"…\">`".to_owned()),
            "tg-emoji" if value("emoji-id").is_none() => {
                Some("an emoji needs its number: `<tg-emoji emoji-id=\"…\">`".to_owned())
            }
            _ if self.html.flat.text[tag.end..].starts_with('/') => {
                Some(format!("Telegram knows no tag that closes itself: write `<{name}></{name}>`"))
            }
            _ => None,
        };
        let closes_itself = self.html.flat.text[tag.end..].starts_with('/');
        if let Some(objection) = objection {
            self.no(tag.start, objection);
        }
        if !closes_itself && !VOID.contains(&name) {
            self.open.push((name, tag.start));
        }
    }

    fn end(&mut self, name: &str, start: usize) {
        let outside = self.blocks.last().copied().unwrap_or_default();
        match self.open.iter().rposition(|(open, _)| *open == name) {
            Some(at) if at >= outside => {
                self.close_to(at + 1, &format!("is still open where `</{name}>` is"));
                self.open.truncate(at);
            }
            Some(_) => self.no(start, format!("this `</{name}>` closes a tag that was opened outside of its block")),
            None => self.no(start, format!("this `</{name}>` closes nothing")),
        }
    }

    fn entities(&mut self) {
        let text = self.html.flat.text.as_str();
        for (at, _) in text.match_indices('&') {
            let rest = &text[at + 1..];
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let name = &rest[..length];
            let is_entity = name.starts_with(|c: char| c.is_ascii_alphabetic()) && rest[length..].starts_with(';');
            if is_entity && !ENTITIES.contains(&name) {
                let message = format!(
                    "Telegram shows `&{name};` as it is: there are &lt; &gt; &amp; &quot; and numbers like &#160;"
                );
                self.no(at, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(source: &str) -> Vec<(usize, String)> {
        let found =
            Html::parse(source).unwrap_or_else(|objection| panic!("{source}: {objection:?}")).unfit_for_telegram();
        found.into_iter().map(|objection| (objection.offset, objection.message)).collect()
    }

    #[test]
    fn what_telegram_reads_may_be_written() {
        for source in [
            "<b>a <i>b</i></b> <strong>c</strong><em>d</em><u>e</u><ins>f</ins><s>g</s><strike>h</strike><del>i</del>",
            "<span class=\"tg-spoiler\">a</span><tg-spoiler>b</tg-spoiler><tg-emoji emoji-id=\"1\">👍</tg-emoji>",
            "<a href=\"https://x?a=1&b={{ b }}\">x</a> <pre><code class=\"language-rust\">x</code></pre>",
            "<blockquote expandable>x</blockquote><B>x</B> &lt;&gt;&amp;&quot;&#39;&#xA0; a & b > c",
            "{% if x %}<b>x</b>{% else %}<i>y</i>{% endif %}<u>{% for r in rows %}<s>{{ r }}</s>{% endfor %}</u>",
            "{# <p> #}",
        ] {
            assert_eq!(said(source), [], "{source}");
        }
    }

    #[test]
    fn and_nothing_else() {
        for (source, places) in [
            ("x<p>y</p>", &[1][..]),
            ("a<br>b<br/>c", &[1, 6]),
            ("<h1>x</h1><ul><li>y</li></ul><table></table><div></div>", &[0, 10, 14, 29, 44]),
            ("<b>x", &[0]),
            ("<b>x<i>y</b>z</i>", &[4, 13]),
            ("x</b>", &[1]),
            ("<b/>x", &[0]),
            ("я <3 {{ x }}", &[3]),
            ("a<!-- c -->b<!x>", &[1, 12]),
            ("<span>x</span><a>y</a>", &[0, 14]),
            ("&nbsp;&laquo;x", &[0, 6]),
            ("{% if x %}<b>{% endif %}y", &[10]),
            ("<b>{% if x %}</b>{% endif %}y</b>", &[13]),
            ("{% if x %}<b>{% else %}</b>{% endif %}", &[10, 23]),
        ] {
            let found: Vec<usize> = said(source).iter().map(|(at, _)| *at).collect();
            assert_eq!(found, places, "{source}: {:?}", said(source));
        }
    }
}
