//! The rules of an e-mail's `<style>`, written into its tags, because most mail programs read no other styles.
//!
//! What decides which rule applies is the author's tags, not the data. So the rules are applied once to a page of the
//! tags alone, and the style that each tag got is written into the source; everything else of the source stays as it
//! is, code and all. `<style>` stays too, for media queries.

use std::collections::{HashMap, HashSet};

use css_inline::InlineOptions;

use super::flat::{Flat, code_at};
use super::scan::{Attribute, Item, StartTag};

/// Numbers the tags while the rules are applied.
const NUMBER: &str = "data-vestnik-tag";

// What applying rules costs, measured on the worst pages: within these bounds, a few hundredths of a second.
/// Rules, in bytes.
const RULE_BYTES: usize = 24 * 1024;
/// Bytes of rules by tags: every rule is tried on every tag, and may write itself into it.
const RULES_BY_TAGS: usize = 3 * 1024 * 1024;
/// Different properties: each one of a tag is looked up among those it has.
const PROPERTIES: usize = 80;
/// Selectors that look at a tag's neighbours, by tags, by tags: for each tag they go through the others.
const NEIGHBOURS: usize = 3_000_000;

/// The style of each start tag by its number among the items; none for tags that no rule is for.
pub(super) fn inlined(flat: &Flat, items: &[Item]) -> Result<HashMap<usize, String>, String> {
    let mut page = String::from("<!DOCTYPE html>");
    let mut rules = String::new();
    let mut tags = 0;
    let mut in_style = false;
    for (number, item) in items.iter().enumerate() {
        match item {
            Item::Start(tag) if is_skipped(&tag.name) => {}
            Item::Start(tag) => {
                in_style = tag.name == "style";
                tags += 1;
                open(&mut page, flat, tag, number);
            }
            Item::End { name, .. } if is_skipped(name) => {}
            Item::End { name, .. } => page.push_str(&format!("</{name}>")),
            Item::Raw(range) if in_style => {
                rules.push_str(&flat.text[range.clone()]);
                page.push_str(&flat.text[range.clone()]);
                in_style = false;
            }
            Item::Raw(_) | Item::Text(_) | Item::Comment(_) => {}
        }
    }
    if rules.is_empty() {
        return Ok(HashMap::new());
    }
    check_cost(&rules, tags)?;
    let options = InlineOptions { load_remote_stylesheets: false, ..InlineOptions::default() };
    let styled = options.build().inline(&page).map_err(|error| format!("its styles cannot be read: {error}"))?;
    Ok(read_back(&styled))
}

fn check_cost(rules: &str, tags: usize) -> Result<(), String> {
    let bytes = rules.len();
    if bytes > RULE_BYTES {
        return Err(format!("the rules in its `<style>` are {bytes} bytes long; at most {RULE_BYTES}"));
    }
    if bytes * tags > RULES_BY_TAGS {
        return Err(format!("{bytes} bytes of rules for {tags} tags are too much: use fewer of either"));
    }
    let declarations = rules.split('{').skip(1).filter_map(|body| body.split('}').next());
    let properties: HashSet<&str> =
        declarations.flat_map(|body| body.split(';')).filter_map(|one| Some(one.split_once(':')?.0.trim())).collect();
    if properties.len() > PROPERTIES {
        return Err(format!("the rules in its `<style>` set more than {PROPERTIES} different properties"));
    }
    let looks =
        ["~", "nth-", "-of-type", "-child", ":has"].map(|sign| rules.matches(sign).count()).iter().sum::<usize>();
    if looks * tags * tags > NEIGHBOURS {
        return Err(format!("rules with `~`, `:nth-child` and their kind are too many for {tags} tags"));
    }
    Ok(())
}

/// Scripts are nothing to style, and sheets from elsewhere are not read.
fn is_skipped(name: &str) -> bool {
    matches!(name, "script" | "link" | "meta" | "base" | "title" | "textarea")
}

fn open(page: &mut String, flat: &Flat, tag: &StartTag, number: usize) {
    page.push_str(&format!("<{} {NUMBER}=\"{number}\"", tag.name));
    for attribute in tag.attributes.iter().filter(|attribute| !attribute.is_conditional) {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':');
        if attribute.name == NUMBER || !attribute.name.chars().all(fine) {
            continue;
        }
        // No rule asks for these signs, and they would blur where a tag begins.
        let value = settled(flat, attribute).replace(['"', '<'], "");
        page.push_str(&format!(" {}=\"{value}\"", attribute.name));
    }
    page.push('>');
}

/// The part of a value that is there in every message.
fn settled(flat: &Flat, attribute: &Attribute) -> String {
    use super::flat::CodeKind::{Capture, Close, EndCapture, Open};
    let mut depth = 0_usize;
    let mut kept = String::new();
    for c in flat.text[attribute.value.clone()].chars() {
        match code_at(c).map(|n| flat.code[n].kind) {
            Some(Open | Capture) => depth += 1,
            Some(Close | EndCapture) => depth = depth.saturating_sub(1),
            Some(_) => {}
            None if depth == 0 => kept.push(c),
            None => {}
        }
    }
    kept
}

/// Numbers and styles out of the styled page, which is written by one hand: every value in double quotes.
fn read_back(page: &str) -> HashMap<usize, String> {
    let mut styles = HashMap::new();
    let numbered = format!(" {NUMBER}=\"");
    for tag in page.split('<').skip(1) {
        let value = |name: &str| {
            let start = tag.find(name)? + name.len();
            Some(&tag[start..start + tag[start..].find('"')?])
        };
        if let (Some(number), Some(style)) = (value(&numbered), value(" style=\""))
            && let Ok(number) = number.parse()
        {
            // The rules may hold braces, and here the template's code is read.
            let style = style.replace("{{", "&#123;&#123;").replace("{%", "&#123;%").replace("{#", "&#123;#");
            styles.entry(number).or_insert(style);
        }
    }
    styles
}
