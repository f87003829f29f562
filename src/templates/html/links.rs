//! Addresses that data completes: `href="{{ url }}"` must not become `javascript:…`.
//!
//! An address whose author wrote how it begins is fine as it is. Any other is marked in the compiled template, and the
//! finished address behind a mark is looked at in every message: whatever put it together, it begins like one of
//! [`BEGINNINGS`], or the message is not sent. A mark is a control character, and values print none.

use super::flat::code_at;
use super::scan::{Attribute, is_address};

/// How an address may begin that data completes.
const BEGINNINGS: &[&str] =
    &["https://", "http://", "mailto:", "tel:", "sms:", "tg://", "viber://", "whatsapp://", "cid:", "#"];

const MARK: char = '\u{1}';
/// Stands behind the mark and counts the links of a part.
const FIRST: u32 = 0xF_0000;

/// A marked address.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Of its value in the source.
    pub(crate) offset: usize,
    pub(crate) quote: char,
}

/// An address that a message cannot have.
pub(crate) struct BadLink {
    pub(crate) offset: usize,
    pub(crate) address: String,
}

/// Whether the attribute's value has to be looked at when it is finished.
pub(super) fn needs_mark(attribute: &Attribute, text: &str) -> bool {
    let value = &text[attribute.value.clone()];
    is_address(&attribute.name)
        && attribute.quote.is_some()
        && value.contains(|c| code_at(c).is_some())
        && !begins_well(value)
}

fn begins_well(address: &str) -> bool {
    let starts =
        |beginning: &&str| address.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning));
    BEGINNINGS.iter().any(starts)
}

pub(super) fn mark(n: usize) -> String {
    let number = u32::try_from(n).ok().and_then(|n| char::from_u32(FIRST + n)).unwrap_or('\u{F0000}');
    [MARK, number].iter().collect()
}

/// Takes the marks out, having looked at what is behind each.
pub(crate) fn check_links(html: String, links: &[Link]) -> Result<String, BadLink> {
    if links.is_empty() || !html.contains(MARK) {
        return Ok(html);
    }
    let mut checked = String::with_capacity(html.len());
    let mut pieces = html.split(MARK);
    checked.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let mut rest = piece.chars();
        let number = rest.next().and_then(code_at).and_then(|n| links.get(n));
        let rest = rest.as_str();
        if let Some(link) = number {
            let address = rest.split(link.quote).next().unwrap_or_default();
            if !begins_well(address.trim_start()) {
                return Err(BadLink { offset: link.offset, address: as_given(address).chars().take(60).collect() });
            }
        }
        checked.push_str(rest);
    }
    Ok(checked)
}

/// What it was before it was escaped.
fn as_given(address: &str) -> String {
    let quotes = address.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
    quotes.replace("&amp;", "&")
}

/// How an address has to begin, for people.
pub(crate) fn beginnings() -> String {
    BEGINNINGS.join(", ")
}
