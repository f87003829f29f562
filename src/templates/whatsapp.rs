//! WhatsApp's free text: `*bold*`, `_italic_`, `~struck~` and `` `code` `` are its author's to use, not the values'.
//!
//! WhatsApp has no way to escape a mark. It reads one only where a word begins or ends (Meta's help pages show the marks
//! that way, and `snake_case` comes through), so a mark inside a value is parted from its surroundings by word joiners
//! (U+2060), which show nothing; and one goes before what would begin a quote or a list. That they are enough is what
//! clients do today, not something Meta promises. A mark between two letters or digits stays as it is. A link with
//! joiners in it leads nowhere, so in an address the other marks are percent-encoded, which it means the same with.

use minijinja::{Error, Output};

use super::output::without_controls;

const MARKS: [char; 4] = ['*', '_', '~', '`'];
const WORD_JOINER: char = '\u{2060}';

/// Prints a value.
pub(super) fn write_without_formatting(output: &mut Output<'_>, text: &str) -> Result<(), Error> {
    output.write_str(&without_formatting(text)).map_err(Error::from)
}

fn without_formatting(text: &str) -> String {
    // What is dropped later would part nothing.
    let text = without_controls(text.to_owned());
    let mut plain = String::with_capacity(text.len() + 16);
    for (at, line) in text.split_inclusive(['\n', '\u{2028}', '\u{2029}']).enumerate() {
        let indent = line.len() - line.trim_start().len();
        let (indent, line) = line.split_at(indent);
        plain.push_str(indent);
        if begins_block(line) || at == 0 && continues_number(line) {
            plain.push(WORD_JOINER);
        }
        line.split_inclusive(char::is_whitespace).for_each(|word| push_word(&mut plain, word));
    }
    plain
}

/// A quote, or an item of a list. What follows the value is not known, and may be a space.
fn begins_block(line: &str) -> bool {
    let ends = |rest: &str| rest.chars().next().is_none_or(char::is_whitespace);
    let after_digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_number = after_digits.len() < line.len() && after_digits.strip_prefix('.').is_some_and(ends);
    line.starts_with('>') || line.strip_prefix(['-', '*']).is_some_and(ends) || is_number
}

/// Of a value behind another one that ended in a digit.
fn continues_number(line: &str) -> bool {
    line.strip_prefix('.').is_some_and(|rest| rest.chars().next().is_none_or(char::is_whitespace))
}

fn push_word(plain: &mut String, word: &str) {
    let is_address = word.starts_with("https://") || word.starts_with("http://");
    let mut before = None;
    let mut letters = word.chars().peekable();
    while let Some(c) = letters.next() {
        let is_inside =
            before.is_some_and(char::is_alphanumeric) && letters.peek().is_some_and(|c| c.is_alphanumeric());
        if !MARKS.contains(&c) || is_inside {
            plain.push(c);
        } else if is_address {
            plain.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            plain.extend([WORD_JOINER, c, WORD_JOINER]);
        }
        before = Some(c);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn marks_within_words_and_addresses_stay() {
        for text in
            ["ivan_petrov@x.ru", "snake_case", "2*2", "https://x.ru/a_b/2*2", "просто текст", "07.01.2026", "-5"]
        {
            assert_eq!(without_formatting(text), text);
        }
        assert_eq!(without_formatting("*a*"), "\u{2060}*\u{2060}a\u{2060}*\u{2060}");
        assert_eq!(without_formatting("a_ b"), "a\u{2060}_\u{2060} b");
        assert_eq!(without_formatting("https://x/*a https://y/b*"), "https://x/%2Aa https://y/b%2A");
    }

    #[test]
    fn nothing_begins_a_quote_or_a_list() {
        for text in ["> цитата", ">", "- a", "-", "* a", "1. один", "12.", "  > a", ". a", "\u{0}> a", "\r> a"]
        {
            let plain = without_formatting(text);
            assert!(plain.trim_start().starts_with(WORD_JOINER), "{text:?}: {plain:?}");
        }
        assert_eq!(without_formatting("a\n> b\r\n1. c"), "a\n\u{2060}> b\n\u{2060}1. c");
    }

    proptest! {
        /// Nothing but joiners is added outside of addresses, no mark is left that has a border of a word beside it, and no
        /// line begins a quote or a list.
        #[test]
        fn no_mark_begins_or_ends_a_word(
            text in "([a-zа-я0-9 \n.,@-]|[*_~`]|\n?>|\n[0-9]\\. |\n[-*] |[ \n]https://x/|\r|\u{2028}){0,40}"
        ) {
            let plain = without_formatting(&text);
            let decoded = |text: &str| {
                let text = text.replace(WORD_JOINER, "").replace("%2A", "*").replace("%5F", "_");
                text.replace("%7E", "~").replace("%60", "`")
            };
            prop_assert_eq!(decoded(&plain), without_controls(text));
            let letters: Vec<char> = plain.chars().collect();
            for at in (0..letters.len()).filter(|&at| MARKS.contains(&letters[at])) {
                let beside = [at.checked_sub(1), Some(at + 1)].map(|at| at.and_then(|at| letters.get(at)).copied());
                let is_fine = |c: Option<char>| c.is_some_and(|c| c == WORD_JOINER || c.is_alphanumeric());
                prop_assert!(beside.iter().all(|&c| is_fine(c)), "{plain:?}");
            }
            for line in plain.split(['\n', '\u{2028}']).map(str::trim_start) {
                let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
                let is_item = number.len() < line.len() && (number == "." || number.starts_with(". "));
                prop_assert!(!line.starts_with(['>', '*']) && !line.starts_with("- ") && line != "-" && !is_item, "{plain:?}");
            }
        }
    }
}
