//! HTML that holds template code: what may stand where, and what becomes of it before anything is rendered.
//!
//! Promises: a value stays text wherever this let it stand; the source keeps every piece of its code, in its order; all
//! of it is done once per template version, in time and memory that the limits here bound.

mod flat;
mod links;
mod nesting;
mod rewrite;
mod scan;
mod styles;
mod telegram;
#[cfg(test)]
mod tests;
mod text;

pub(super) use links::{Link, beginnings, check_links};
pub(super) use rewrite::SourceMap;

use self::flat::Flat;
use self::rewrite::Rewriter;
use self::scan::Item;
use super::grammar::Objection;

/// HTML whose code stands where it may.
pub(super) struct Html<'a> {
    source: &'a str,
    flat: Flat,
    items: Vec<Item>,
}

/// The source to render.
pub(super) struct Prepared {
    pub(super) source: String,
    pub(super) map: SourceMap,
    pub(super) links: Vec<Link>,
}

impl<'a> Html<'a> {
    /// `source` has passed `grammar`.
    pub(super) fn parse(source: &'a str) -> Result<Html<'a>, Objection> {
        let invisible = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r');
        if let Some(offset) = source.find(invisible) {
            return Err(Objection { offset, message: "there is a control character here".into() });
        }
        let unreadable = |offset| Objection { offset, message: "this character has no meaning".into() };
        let flat = Flat::of(source).map_err(unreadable)?;
        let items = scan::scan(&flat)?;
        Ok(Html { source, flat, items })
    }

    /// Each `<` that begins no tag. Mail programs guess what was meant: some show it, some hide all that follows.
    pub(super) fn stray_signs(&self) -> Vec<Objection> {
        let text = self.flat.text.as_str();
        let starts = self.items.iter().filter_map(|item| match item {
            Item::Text(range) if text[range.clone()] == *"<" => Some(range.start),
            Item::Comment(start) if text[*start..].starts_with("</") => Some(*start),
            Item::Text(_) | Item::Comment(_) | Item::Start(_) | Item::End { .. } | Item::Raw(_) => None,
        });
        let objection = |start| Objection {
            offset: self.flat.source_offset(start),
            message: "this `<` begins no tag: write `&lt;`".to_owned(),
        };
        starts.map(objection).collect()
    }

    /// Ready to render for Telegram.
    pub(super) fn marked(&self) -> Prepared {
        self.rewritten(|_| None)
    }

    /// Ready to render for an e-mail: styles are in the tags.
    pub(super) fn styled(&self) -> Result<Prepared, String> {
        let styles = styles::inlined(&self.flat, &self.items)?;
        Ok(self.rewritten(|number| styles.get(&number).map(String::as_str)))
    }

    /// Its content as the source of a plain text.
    pub(super) fn text(&self) -> Result<(String, SourceMap), String> {
        text::derived(self.source, &self.flat, &self.items)
    }

    fn rewritten<'s>(&self, style_of: impl Fn(usize) -> Option<&'s str>) -> Prepared {
        let mut page = Rewriter::default();
        let mut links = Vec::new();
        let mut done = 0;
        // What is at these offsets of the flat text is the author's own, so that the place is exact in the source.
        let offset = |at: usize| self.flat.source_offset(at);
        for (number, item) in self.items.iter().enumerate() {
            let Item::Start(tag) = item else { continue };
            let style = style_of(number);
            let mut is_styled = style.is_none();
            for attribute in &tag.attributes {
                let Some(quote) = attribute.quote else { continue };
                // The quote is one byte, and what follows it may be code or a comment.
                let start = offset(attribute.value.start - 1) + 1;
                if links::needs_mark(attribute, &self.flat.text) {
                    page.copy(self.source, done..start);
                    page.insert(&links::mark(links.len()));
                    links.push(Link { offset: start, quote });
                    done = start;
                } else if let Some(style) = style
                    && attribute.name == "style"
                    && !attribute.is_conditional
                    && !is_styled
                {
                    page.copy(self.source, done..start - 1);
                    page.insert(&format!("\"{style}\""));
                    done = offset(attribute.value.end) + 1;
                    is_styled = true;
                }
            }
            if let Some(style) = style
                && !is_styled
            {
                let end = offset(tag.end);
                page.copy(self.source, done..end);
                page.insert(&format!(" style=\"{style}\""));
                done = end;
            }
        }
        page.copy(self.source, done..self.source.len());
        let (source, map) = page.finish();
        Prepared { source, map, links }
    }
}
