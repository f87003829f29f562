//! How deep elements nest, counted so that it is never less than what an HTML parser will see.
//!
//! Parsers are generous: a `<b>` that nobody closes is opened again in every paragraph after it, so that a few kilobytes
//! make millions of elements, and what works on the result recurses over it. So only what is closed in its turn counts
//! as closed, apart from what HTML closes by itself.

/// Elements in one page.
const TAGS: usize = 4_000;
/// Layouts of nested tables are 40 deep.
const DEPTH: usize = 100;
/// `b`, `i`, `a` and their kind, which parsers open again.
const FORMATTING_DEPTH: usize = 16;

const VOID: &[&str] =
    &["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"];
const FORMATTING: &[&str] =
    &["a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"];
/// Whose end HTML finds by itself, when the next of its group begins or what is around them ends.
const SELF_CLOSING: &[&[&str]] = &[
    &["p"],
    &["li"],
    &["dd", "dt"],
    &["optgroup", "option"],
    &["colgroup", "tbody", "td", "tfoot", "th", "thead", "tr"],
];
/// What may end over them.
const CONTAINERS: &[&str] =
    &["blockquote", "body", "center", "div", "dl", "form", "html", "ol", "section", "select", "table", "ul"];

#[derive(Default)]
pub(super) struct Nesting {
    open: Vec<String>,
    tags: usize,
}

impl Nesting {
    pub(super) fn open(&mut self, name: &str) -> Result<(), String> {
        self.tags += 1;
        if self.tags > TAGS {
            return Err(format!("more than {TAGS} tags"));
        }
        if VOID.contains(&name) {
            return Ok(());
        }
        if let Some(group) = group_of(name) {
            self.close_over(name, |open| open == "p" || group.contains(&open));
        }
        self.open.push(name.to_owned());
        let is_formatting = |name: &str| FORMATTING.contains(&name);
        if self.open.len() > DEPTH {
            return Err(format!("elements nest deeper than {DEPTH}: are they closed in the order they were opened?"));
        }
        if is_formatting(name) && self.open.iter().filter(|name| is_formatting(name)).count() > FORMATTING_DEPTH {
            return Err(format!(
                "`<{name}>` and its kind nest deeper than {FORMATTING_DEPTH}: are they closed in the order they were \
                 opened?"
            ));
        }
        Ok(())
    }

    pub(super) fn close(&mut self, name: &str) {
        let ends_over = CONTAINERS.contains(&name) || group_of(name).is_some();
        self.close_over(name, |open| ends_over && group_of(open).is_some());
    }

    /// Closes the innermost `name`, if all that is inside it `gives_way`.
    fn close_over(&mut self, name: &str, gives_way: impl Fn(&str) -> bool) {
        let found = self.open.iter().rposition(|open| open == name || !gives_way(open));
        if let Some(at) = found
            && self.open[at] == name
        {
            self.open.truncate(at);
        }
    }
}

fn group_of(name: &str) -> Option<&'static [&'static str]> {
    SELF_CLOSING.iter().copied().find(|group| group.contains(&name))
}
