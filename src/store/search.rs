//! What a search finds: the words of a record, split here, so that both databases find the same.
//!
//! A word is letters and digits in small letters, ё written as е. Digits that look like one phone number are a word
//! together, too, and so are its last ten, seven and four digits. Each word begins with the digit of its record's
//! kind, so that the index of all records answers for one kind.

use serde_json::Value;

use super::sql::{SearchSyntax, Value as Bound};
use crate::domain::{Record, RecordKind};

/// Longer words are cut: in the index and in the question alike, so that they still meet.
const LONGEST_CHARS: usize = 40;
/// Words of one record that are indexed, in order of its fields: one of 64 KB may have more.
const MOST_WORDS: usize = 2000;
/// Words of a question; the rest narrows nothing.
const MOST_ASKED: usize = 16;
/// Digits of a phone number with its country code (E.164 allows 15).
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 10..=15;
/// Beginnings of a number as people remember them: without country code, without area code, the last four.
const TAILS: [usize; 3] = [10, 7, 4];

/// The words of a record, each after a space.
pub(super) fn words_of(record: &Record) -> String {
    let mut found = Vec::new();
    add_words(record.id.as_str(), &mut found);
    for value in record.fields().values() {
        add_value(value, &mut found);
    }
    found.truncate(MOST_WORDS);
    found.sort_unstable();
    found.dedup();
    let kind = kind_digit(record.kind);
    let mut text = String::with_capacity(found.iter().map(|word| word.len() + 2).sum());
    for word in found {
        text.push(' ');
        text.push(kind);
        text.push_str(&word);
    }
    text
}

/// A question: every part of it must hold.
pub(super) struct Search(Vec<Part>);

/// One of these sets of beginnings must be there.
type Part = Vec<Vec<String>>;

impl Search {
    /// `None` when there is no word in the text: everything matches.
    pub(super) fn parse(kind: RecordKind, text: &str) -> Option<Self> {
        let mut words = split(text);
        words.truncate(MOST_ASKED);
        let kind = kind_digit(kind);
        let beginning = |word: &str| format!("{kind}{word}");
        let parts: Vec<Part> = runs(&words)
            .map(|run| {
                let mut part = vec![run.iter().map(|word| beginning(&word.text)).collect()];
                if is_digits(&run[0].text) {
                    let joined = joined(run);
                    // In Russia 8 stands for the country code 7.
                    let with_code =
                        joined.strip_prefix('8').filter(|rest| rest.len() > 2).map(|rest| format!("7{rest}"));
                    part.extend((run.len() > 1).then(|| vec![beginning(&joined)]));
                    part.extend(with_code.map(|number| vec![beginning(&number)]));
                }
                part
            })
            .collect();
        (!parts.is_empty()).then_some(Search(parts))
    }

    /// In the language of the engine's index. Words are letters and digits only: nothing in them can be read as an
    /// operator.
    pub(super) fn text(&self, syntax: &SearchSyntax) -> String {
        let (before, after) = syntax.asked;
        self.compose(syntax.and, syntax.or, |word| format!("{before}{word}{after}"))
    }

    /// As an SQL condition on a record; what it binds is added to `values`.
    pub(super) fn condition(&self, syntax: &SearchSyntax, values: &mut Vec<Bound>) -> String {
        let (before, after, has) = syntax.has;
        self.compose(" AND ", " OR ", |word| {
            values.push(format!("{before}{word}{after}").into());
            has.replace("PLACE", &format!("${}", values.len()))
        })
    }

    fn compose(&self, and: &str, or: &str, mut one: impl FnMut(&str) -> String) -> String {
        let mut all = |words: &Vec<String>| {
            let words: Vec<_> = words.iter().map(|word| one(word)).collect();
            format!("({})", words.join(and))
        };
        let mut any = |part: &Part| format!("({})", part.iter().map(&mut all).collect::<Vec<_>>().join(or));
        self.0.iter().map(&mut any).collect::<Vec<_>>().join(and)
    }
}

fn kind_digit(kind: RecordKind) -> char {
    char::from_digit(u32::from(kind.code().unsigned_abs()), 10).expect("kinds are numbered from 1 to 4")
}

fn add_value(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => add_words(text, found),
        Value::Number(number) => add_words(&number.to_string(), found),
        Value::Array(items) => items.iter().for_each(|item| add_value(item, found)),
        Value::Object(fields) => fields.values().for_each(|value| add_value(value, found)),
        Value::Null | Value::Bool(_) => {}
    }
}

fn add_words(text: &str, found: &mut Vec<String>) {
    let words = split(text);
    for run in runs(&words).filter(|run| is_digits(&run[0].text)) {
        let number = joined(run);
        if PHONE_DIGITS.contains(&number.len()) {
            found.extend(TAILS.iter().map(|tail| number[number.len() - tail..].to_owned()));
            found.push(number);
        }
    }
    found.extend(words.into_iter().map(|word| word.text));
}

struct Word {
    text: String,
    /// Only what parts the groups of a phone number stands before it.
    goes_on: bool,
}

fn split(text: &str) -> Vec<Word> {
    /// Between the groups of one number; a plus begins another.
    const WITHIN_NUMBERS: [char; 6] = [' ', '\u{a0}', '-', '(', ')', '.'];
    let mut words: Vec<Word> = Vec::new();
    let (mut in_word, mut goes_on, mut length) = (false, false, 0);
    for letter in text.chars().flat_map(char::to_lowercase) {
        let letter = if letter == 'ё' { 'е' } else { letter };
        match words.last_mut().filter(|_| in_word) {
            // An accent typed as a sign of its own: й is a letter, the others only decorate.
            Some(word) if ('\u{300}'..='\u{36f}').contains(&letter) => {
                if letter == '\u{306}' && word.text.ends_with('и') {
                    word.text.pop();
                    word.text.push('й');
                }
            }
            Some(word) if letter.is_alphanumeric() => {
                length += 1;
                if length <= LONGEST_CHARS {
                    word.text.push(letter);
                }
            }
            None if letter.is_alphanumeric() => {
                words.push(Word { text: letter.into(), goes_on });
                (in_word, goes_on, length) = (true, true, 1);
            }
            _ => {
                in_word = false;
                goes_on &= WITHIN_NUMBERS.contains(&letter);
            }
        }
    }
    words
}

/// Digits that follow each other as in a phone number, together; every other word alone.
fn runs(words: &[Word]) -> impl Iterator<Item = &[Word]> {
    words.chunk_by(|before, word| word.goes_on && is_digits(&before.text) && is_digits(&word.text))
}

fn joined(run: &[Word]) -> String {
    run.iter().map(|word| word.text.as_str()).collect()
}

fn is_digits(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::RecordId;

    const SYNTAX: SearchSyntax = SearchSyntax {
        asked: ("", "*"),
        and: " & ",
        or: " | ",
        are_many: "",
        few: ("", ""),
        has: (" ", "", "has(PLACE)"),
    };

    fn words(fields: Value) -> String {
        let Value::Object(fields) = fields else { panic!("fields are an object") };
        let id = RecordId::parse(RecordKind::Contact, "C-7").expect("an id");
        words_of(&Record::from_kept(RecordKind::Contact, id, fields))
    }

    fn asked(text: &str) -> Option<String> {
        Search::parse(RecordKind::Contact, text).map(|search| search.text(&SYNTAX))
    }

    #[test]
    fn words_are_letters_and_digits_in_one_form() {
        assert_eq!(words(json!({"name": "Пётр O'Brien", "on": true})), " 17 1brien 1c 1o 1петр");
        assert_eq!(words(json!({"a": {"b": ["Ёж и\u{306}од"]}, "n": 12.5})), " 112 15 17 1c 1еж 1йод");
        assert_eq!(words(json!({"long": "я".repeat(100)})).chars().filter(|c| *c == 'я').count(), LONGEST_CHARS);
    }

    #[test]
    fn phone_numbers_are_found_by_their_ends() {
        assert_eq!(words(json!({"p": "+79991234567"})), " 11234567 14567 17 179991234567 19991234567 1c");
        let typed = words(json!({"p": "8 (999) 123-45-67, +7 888"}));
        assert!(typed.contains(" 189991234567") && typed.contains(" 19991234567"), "{typed}");
        assert!(!typed.contains("67788"), "a plus begins another number: {typed}");
    }

    #[test]
    fn questions_are_beginnings_of_words() {
        assert_eq!(asked("Пе иВ").expect("words"), "((1пе*)) & ((1ив*))");
        assert_eq!(asked("8 999").expect("words"), "((18* & 1999*) | (18999*) | (17999*))");
        assert_eq!(asked("a* OR \"b' & :(c)").expect("words"), "((1a*)) & ((1or*)) & ((1b*)) & ((1c*))");
        let mut bound = vec![Bound::Null];
        let search = Search::parse(RecordKind::Contact, "пе, 8-9").expect("words");
        assert_eq!(search.condition(&SYNTAX, &mut bound), "((has($2))) AND ((has($3) AND has($4)) OR (has($5)))");
        assert_eq!(bound[4], " 189".into());
        assert_eq!(asked(" *'\":&|!()\0"), None);
    }
}
