//! Texts of the settings with `{placeholders}`.
//!
//! What stands around a placeholder is the settings' and goes as it is; what stands for it is somebody else's and is
//! written by the place it goes to, so no value can become a part of the form, the URL or the JSON around it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

/// What differs from message to message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a> {
    /// In E.164, with its `+`.
    pub(super) to: &'a str,
    pub(super) to_digits: &'a str,
    pub(super) text: &'a str,
    pub(super) id: &'a str,
}

/// What is the same for every message of the account.
#[derive(Clone, Copy)]
pub(super) struct Constants<'a> {
    pub(super) from: Option<&'a str>,
    pub(super) secrets: &'a BTreeMap<String, SecretString>,
}

/// What of a message may stand in a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// A URL, which is made once: constants only.
    Constants,
    /// A header, whose lines must stay lines: our id beside them.
    Id,
    /// Everything.
    Message,
}

/// A text taken apart. It may hold secrets, so it has no `Debug`.
pub(super) struct Pattern(Vec<Piece>);

enum Piece {
    Literal(String),
    Constant(String),
    To,
    ToDigits,
    Text,
    Id,
}

impl Pattern {
    /// `{{` and `}}` are braces. The problem says nothing of what the constants hold.
    pub(super) fn parse(text: &str, constants: Constants<'_>, allowed: Allowed) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..at + 1];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let Some((name, after)) = rest.split_once('}').filter(|_| brace == "{") else {
                return Err(format!("has a `{brace}` without its partner: write `{brace}{brace}` for the sign itself"));
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(piece(name, constants, allowed)?);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Pattern(pieces))
    }

    /// For places that write the whole text: a form, JSON, a header.
    pub(super) fn filled(&self, values: &Values<'_>) -> String {
        self.written(values, |value| value.into())
    }

    /// For places where only the values have to be written in another way: a URL, a JSON pointer.
    pub(super) fn written<'a>(&'a self, values: &Values<'a>, write: impl Fn(&'a str) -> Cow<'a, str>) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Constant(constant) => text.push_str(&write(constant)),
                Piece::To => text.push_str(&write(values.to)),
                Piece::ToDigits => text.push_str(&write(values.to_digits)),
                Piece::Text => text.push_str(&write(values.text)),
                Piece::Id => text.push_str(&write(values.id)),
            }
        }
        text
    }
}

fn piece(name: &str, constants: Constants<'_>, allowed: Allowed) -> Result<Piece, String> {
    let known = match allowed {
        Allowed::Constants => "{from} and {secrets.<name>}",
        Allowed::Id => "{id}, {from} and {secrets.<name>}",
        Allowed::Message => "{to}, {to_digits}, {text}, {id}, {from} and {secrets.<name>}",
    };
    match (name, allowed) {
        ("from", _) => match constants.from {
            Some(from) => Ok(Piece::Constant(from.to_owned())),
            None => Err("has {from}, and `from` is not given".to_owned()),
        },
        ("id", Allowed::Id | Allowed::Message) => Ok(Piece::Id),
        ("to", Allowed::Message) => Ok(Piece::To),
        ("to_digits", Allowed::Message) => Ok(Piece::ToDigits),
        ("text", Allowed::Message) => Ok(Piece::Text),
        _ => match name.strip_prefix("secrets.") {
            Some(secret) => match constants.secrets.get(secret) {
                Some(value) => Ok(Piece::Constant(value.expose_secret().to_owned())),
                None => Err(format!("has {{{name}}}, and secrets.{secret} is not given")),
            },
            None => Err(format!("may hold {known}, and not {{{name}}}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'_> = Values { to: "+79991234567", to_digits: "79991234567", text: "{to} & <3", id: "7" };

    fn parse(text: &str, allowed: Allowed) -> Result<Pattern, String> {
        let secrets = BTreeMap::from([("key".to_owned(), SecretString::from("s3cret/{text}"))]);
        Pattern::parse(text, Constants { from: Some("Vestnik"), secrets: &secrets }, allowed)
    }

    #[test]
    fn placeholders_are_filled_and_what_they_hold_is_not_looked_at_again() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("{to}:{to_digits}", "+79991234567:79991234567"),
            ("<{text}> {id}", "<{to} & <3> 7"),
            ("{from}{secrets.key}", "Vestniks3cret/{text}"),
            ("{{to}} {{{to}}}", "{to} {+79991234567}"),
        ] {
            assert_eq!(parse(text, Allowed::Message).expect(text).filled(&VALUES), expected);
        }
        let pattern = parse("/a/{secrets.key}", Allowed::Constants).expect("constants");
        assert_eq!(pattern.written(&VALUES, |value| value.replace('/', "%2F").into()), "/a/s3cret%2F{text}");
    }

    #[test]
    fn what_does_not_belong_is_named_without_any_secret() {
        let said = [
            ("{phone}", Allowed::Message),
            ("{text}", Allowed::Constants),
            ("{to}", Allowed::Id),
            ("{secrets.other}", Allowed::Message),
            ("{to", Allowed::Message),
            ("to}", Allowed::Message),
        ]
        .map(|(text, allowed)| parse(text, allowed).err().unwrap_or_default());
        insta::assert_snapshot!(said.join("\n"), @r"
        may hold {to}, {to_digits}, {text}, {id}, {from} and {secrets.<name>}, and not {phone}
        may hold {from} and {secrets.<name>}, and not {text}
        may hold {id}, {from} and {secrets.<name>}, and not {to}
        has {secrets.other}, and secrets.other is not given
        has a `{` without its partner: write `{{` for the sign itself
        has a `}` without its partner: write `}}` for the sign itself
        ");
    }
}
