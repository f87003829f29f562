//! WhatsApp's free text: `*bold*`, `_italic_`, `~struck~` and `` `code` `` are its author's to use, not the values'.
//!
//! WhatsApp has no way to escape a mark. It reads one only where a word begins or ends (Meta's help pages show the marks
//! that way, and `snake_case` comes through), so a mark inside a value is parted from its surroundings by word joiners
//! (U+2060), which show nothing. That they are enough is what clients do today, not something Meta promises. A mark
//! between two letters or digits stays as it is, and so does an address: a link with joiners in it leads nowhere.

use minijinja::{Error, Output};

const MARKS: [char; 4] = ['*', '_', '~', '`'];
const WORD_JOINER: char = '\u{2060}';

/// Prints a value.
pub(super) fn write_without_formatting(output: &mut Output<'_>, text: &str) -> Result<(), Error> {
    if text.contains(MARKS) {
        output.write_str(&without_formatting(text)).map_err(Error::from)
    } else {
        output.write_str(text).map_err(Error::from)
    }
}

fn without_formatting(text: &str) -> String {
    let mut plain = String::with_capacity(text.len() + 16);
    for word in text.split_inclusive(char::is_whitespace) {
        if word.starts_with("https://") || word.starts_with("http://") {
            plain.push_str(word);
            continue;
        }
        let mut before = None;
        let mut letters = word.chars().peekable();
        while let Some(c) = letters.next() {
            let is_inside =
                before.is_some_and(char::is_alphanumeric) && letters.peek().is_some_and(|c| c.is_alphanumeric());
            if MARKS.contains(&c) && !is_inside {
                plain.extend([WORD_JOINER, c, WORD_JOINER]);
            } else {
                plain.push(c);
            }
            before = Some(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn marks_within_words_and_addresses_stay() {
        for text in ["ivan_petrov@x.ru", "snake_case", "2*2", "https://x.ru/_a_/*b*", "просто текст"] {
            assert_eq!(without_formatting(text), text);
        }
        assert_eq!(without_formatting("*a*"), "\u{2060}*\u{2060}a\u{2060}*\u{2060}");
        assert_eq!(without_formatting("a_ b"), "a\u{2060}_\u{2060} b");
    }

    proptest! {
        /// Nothing but joiners is added, and no mark is left that has a border of a word beside it.
        #[test]
        fn no_mark_begins_or_ends_a_word(text in "([a-zа-я0-9 \n.,@-]|[*_~`]){0,40}") {
            let plain = without_formatting(&text);
            prop_assert_eq!(plain.replace(WORD_JOINER, ""), text);
            let letters: Vec<char> = plain.chars().collect();
            for at in (0..letters.len()).filter(|&at| MARKS.contains(&letters[at])) {
                let beside = [at.checked_sub(1), Some(at + 1)].map(|at| at.and_then(|at| letters.get(at)).copied());
                let is_fine = |c: Option<char>| c.is_some_and(|c| c == WORD_JOINER || c.is_alphanumeric());
                prop_assert!(beside.iter().all(|&c| is_fine(c)), "{plain:?}");
            }
        }
    }
}
