//! Which values a part uses, and where: `contact.name`, `contact["Город"]`.

use minijinja::machinery::{Token, tokenize};

/// One value in the code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Use {
    /// As far as it is constant: of `rows[n].x` only `rows`.
    pub(super) path: Vec<String>,
    pub(super) offset: usize,
    pub(super) end: usize,
    /// It has a default, or an `if` asks for it.
    pub(super) is_optional: bool,
}

/// In their order; of a source that has passed `grammar`. Words of the language and names of a loop are among them.
pub(super) fn uses(source: &str) -> Vec<Use> {
    let tokens = tokenize(source, false, minijinja::syntax::SyntaxConfig::default());
    let tokens: Vec<_> = tokens.map_while(Result::ok).collect();
    let token = |at: usize| tokens.get(at).map(|(token, _)| token);
    let mut uses = Vec::new();
    let mut is_test = false;
    for at in 0..tokens.len() {
        match tokens[at].0 {
            Token::BlockStart => is_test = matches!(token(at + 1), Some(Token::Ident("if" | "elif"))),
            Token::BlockEnd => is_test = false,
            _ => {}
        }
        let before = at.checked_sub(1).and_then(token);
        let Token::Ident(root) = tokens[at].0 else { continue };
        if matches!(before, Some(Token::Dot | Token::Pipe | Token::BlockStart | Token::Ident("is"))) {
            continue;
        }
        let mut path = vec![root.to_owned()];
        let mut last = at;
        loop {
            let next = [1, 2, 3].map(|ahead| token(last + ahead));
            last += match next {
                [Some(Token::Dot), Some(Token::Ident(field)), _] => {
                    path.push((*field).to_owned());
                    2
                }
                [Some(Token::BracketOpen), Some(Token::Str(field)), Some(Token::BracketClose)] => {
                    path.push((*field).to_owned());
                    3
                }
                _ => break,
            };
        }
        let has_default =
            matches!((token(last + 1), token(last + 2)), (Some(Token::Pipe), Some(Token::Ident("default" | "d"))));
        let (offset, end) = (tokens[at].1.start_offset as usize, tokens[last].1.end_offset as usize);
        uses.push(Use { path, offset, end, is_optional: is_test || has_default });
    }
    uses
}

/// The path that a name like `contact.name` or `contact["Город"]` stands for.
pub(super) fn path_of(name: &str) -> Option<Vec<String>> {
    let source = format!("{{{{ {name} }}}}");
    let whole = |found: &Use| found.offset == 3 && found.end == source.len() - 3;
    uses(&source).into_iter().find(whole).map(|found| found.path)
}

/// A path as a template writes it.
pub(super) fn written<S: AsRef<str>>(path: &[S]) -> String {
    let mut name = String::new();
    for (at, field) in path.iter().map(AsRef::as_ref).enumerate() {
        let is_word = field.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !field.starts_with(|c: char| c.is_ascii_digit());
        match (at, is_word) {
            (0, _) => name.push_str(field),
            (_, true) => name.extend([".", field]),
            (_, false) => name.extend(["[\"", field, "\"]"]),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_with_their_fields() {
        let source =
            "{{ contact.name | upper }}{% if not deal.x %}{{ a['Город'].b[n] | default('') }}{% endif %}{{ c | d }}";
        let found: Vec<_> = uses(source).iter().map(|found| (written(&found.path), found.is_optional)).collect();
        let expected = [
            ("contact.name", false),
            ("not", true),
            ("deal.x", true),
            ("a[\"Город\"].b", false),
            ("n", false),
            ("c", true),
        ];
        assert_eq!(found, expected.map(|(name, is_optional)| (name.to_owned(), is_optional)));
        assert_eq!(path_of("a[\"Город\"].b"), Some(["a", "Город", "b"].map(str::to_owned).into()));
        assert_eq!(path_of("items[7]"), None);
        assert_eq!(path_of("a value"), None);
    }
}
