//! The text of a query: one statement, wrapped so that its rows come as JSON; and what PostgreSQL has against it.

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, ErrorPosition, SqlState};

const AS_JSON: &str = "select to_jsonb(r)::text from (";
const AS_COLUMNS: &str = "select * from (";
/// On a line of its own: the query may end in a comment.
const END: &str = "\n) r";

/// One kind's query.
#[derive(Clone, Debug)]
pub(super) struct Query {
    /// Gives each row as one JSON text.
    pub(super) as_json: String,
    /// Gives the rows as they are: what is prepared to learn the columns.
    pub(super) as_columns: String,
    length: usize,
}

impl Query {
    /// # Errors
    /// When it is empty, or more than one statement. Everything else is for PostgreSQL to say.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (statement, rest) = text.split_at(end_of_statement(text));
        if without_comments(statement).trim().is_empty() {
            return Err("is empty".into());
        }
        if without_comments(rest).contains(|c: char| c != ';' && !c.is_whitespace()) {
            return Err("holds more than one statement".into());
        }
        Ok(Query {
            as_json: format!("{AS_JSON}{statement}{END}"),
            as_columns: format!("{AS_COLUMNS}{statement}{END}"),
            length: statement.chars().count(),
        })
    }

    /// What PostgreSQL has against it, with the place in the text that was configured.
    pub(super) fn objection(&self, error: &Error, sent: &str) -> String {
        let Some(refused) = error.as_db_error() else { return error.to_string() };
        let wrapping = if sent == self.as_json { AS_JSON } else { AS_COLUMNS };
        let place = match refused.position() {
            Some(ErrorPosition::Original(at)) => {
                let at = (*at as usize).saturating_sub(wrapping.len());
                if at <= self.length { format!(", at character {at}") } else { ", at its end".to_owned() }
            }
            Some(ErrorPosition::Internal { .. }) | None => String::new(),
        };
        format!("{}{place}", message(refused))
    }
}

/// A message about a value quotes it, and it may be somebody's address: then only the code is told.
fn message(refused: &DbError) -> String {
    let code = refused.code();
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        return format!("it writes, and only reading is allowed ({})", refused.message());
    }
    match &code.code()[..2] {
        "22" | "23" => format!("a value in it does not fit (SQLSTATE {})", code.code()),
        _ => refused.message().to_owned(),
    }
}

/// Whether the query is at fault, and not the moment: classes 0A feature, 21 cardinality, 22 data, 23 constraint,
/// 25 transaction state, 2F, 38, 39 and P0 routines, 42 syntax or access
/// (postgresql.org/docs/current/errcodes-appendix.html).
pub(super) fn is_at_fault(error: &Error) -> bool {
    const CLASSES: [&str; 10] = ["0A", "21", "22", "23", "25", "2F", "38", "39", "42", "P0"];
    // 25P is a transaction that failed or waited too long.
    error.code().is_some_and(|code| CLASSES.contains(&&code.code()[..2]) && !code.code().starts_with("25P"))
}

/// Where the first semicolon stands that is in no text, name or comment; else the end.
fn end_of_statement(text: &str) -> usize {
    let mut at = 0;
    while at < text.len() {
        match skip(&text[at..]) {
            Some(Skipped { bytes, .. }) => at += bytes,
            None if text[at..].starts_with(';') => return at,
            None => at += text[at..].chars().next().map_or(1, char::len_utf8),
        }
    }
    text.len()
}

fn without_comments(text: &str) -> String {
    let (mut kept, mut at) = (String::new(), 0);
    while at < text.len() {
        match skip(&text[at..]) {
            Some(Skipped { bytes, is_comment }) => {
                kept.push_str(if is_comment { " " } else { &text[at..at + bytes] });
                at += bytes;
            }
            None => {
                let next = text[at..].chars().next().unwrap_or_default();
                kept.push(next);
                at += next.len_utf8();
            }
        }
    }
    kept
}

struct Skipped {
    bytes: usize,
    is_comment: bool,
}

/// The text, quoted name or comment that `text` begins with, up to its end
/// (postgresql.org/docs/current/sql-syntax-lexical.html). A backslash quotes nothing here: in an `E'…\'…'` a semicolon
/// may be taken for the end, and PostgreSQL then says what it thinks of the rest.
fn skip(text: &str) -> Option<Skipped> {
    let up_to = |from: usize, end: &str| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    let (bytes, is_comment) = match text.as_bytes() {
        [b'\'', ..] => (up_to(1, "'"), false),
        [b'"', ..] => (up_to(1, "\""), false),
        [b'-', b'-', ..] => (up_to(2, "\n"), true),
        [b'/', b'*', ..] => (block_comment(text), true),
        [b'$', ..] => {
            let tag = text[1..].find('$').map(|at| &text[..at + 2])?;
            // `$1` is a parameter, and `$1 and $2` no tag.
            let is_tag = tag[1..tag.len() - 1]
                .chars()
                .enumerate()
                .all(|(at, c)| c == '_' || c.is_alphabetic() || (at > 0 && c.is_ascii_digit()));
            if !is_tag {
                return None;
            }
            (up_to(tag.len(), tag), false)
        }
        _ => return None,
    };
    Some(Skipped { bytes, is_comment })
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left between the wrapping.
    fn statement(text: &str) -> Result<String, String> {
        let query = Query::parse(text)?;
        Ok(query.as_json[AS_JSON.len()..query.as_json.len() - END.len()].to_owned())
    }

    #[test]
    fn one_statement_is_taken_with_what_may_follow_it() {
        for (text, kept) in [
            ("select 1", "select 1"),
            ("select 1;", "select 1"),
            ("select 1 ; \n ;", "select 1 "),
            ("select 1; -- done; really", "select 1"),
            ("select 1 -- no; not yet", "select 1 -- no; not yet"),
            ("select ';' ; /* a /* b */ ; c */", "select ';' "),
            ("select 'it''s; fine', \";\", $$;$$, $x$ $$;' $x$;", "select 'it''s; fine', \";\", $$;$$, $x$ $$;' $x$"),
            ("select id = any($1); ", "select id = any($1)"),
            ("select 'Анна;' from клиенты;", "select 'Анна;' from клиенты"),
        ] {
            assert_eq!(statement(text).as_deref(), Ok(kept), "{text}");
        }
    }

    #[test]
    fn none_or_several_are_refused() {
        for text in ["", " ;", "-- nothing", "/* select 1"] {
            assert_eq!(statement(text), Err("is empty".into()), "{text}");
        }
        for text in ["select 1; drop table clients", "select '1'; /* */ select 2;", "select 1;;x"] {
            assert_eq!(statement(text), Err("holds more than one statement".into()), "{text}");
        }
    }
}
