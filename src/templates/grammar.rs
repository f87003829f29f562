//! The part of minijinja's language that a message may use.
//!
//! minijinja bounds the work of a rendering, but not how deep its parser recurses, nor what it costs to print lists of
//! lists of lists: `{% set x = [x, x] %}` thirty times over, or some thousand `not`, ends the process. So what builds
//! values out of values is left out (lists and maps written in the template, but for lists of constants; macros,
//! recursive loops, `namespace`, `range`), what turns lists into text (`~`; see `filters`), and what would switch
//! escaping off. Read with minijinja's own tokenizer
//! before anything is parsed, so that both see the same code.

use std::ops::Range;

use minijinja::machinery::{Token, tokenize};

use super::limits::{ADDITIONS, BLOCK_DEPTH, PART_TOKENS, TAG_TOKENS};

/// Filters whose result is a plain value or a flat list, and whose work is paid with fuel.
pub(super) const FILTERS: &[&str] = &[
    "abs",
    "bool",
    "capitalize",
    "count",
    "d",
    "date",
    "datetime",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "money",
    "phone",
    "plural",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sort",
    "split",
    "string",
    "sum",
    "time",
    "title",
    "trim",
    "unique",
    "upper",
    "urlencode",
];

/// Something in the source that is not part of the language.
#[derive(Debug)]
pub(super) struct Objection {
    pub(super) offset: usize,
    pub(super) message: String,
}

/// The first objection to `source`, if there is one. What this passes is safe to parse.
pub(super) fn objection(source: &str) -> Option<Objection> {
    let mut tag: Vec<(Token<'_>, Range<usize>)> = Vec::new();
    let mut is_block = false;
    let mut tokens_seen = 0;
    let mut additions = 0;
    let mut depth = 0_usize;
    for token in tokenize(source, false, minijinja::syntax::SyntaxConfig::default()) {
        let (token, span) = match token {
            Ok((token, span)) => (token, span.start_offset as usize..span.end_offset as usize),
            Err(error) => {
                let offset = error.range().map_or(source.len(), |range| range.start);
                let message = field_in_brackets(source, offset);
                let message = message.unwrap_or_else(|| error.detail().unwrap_or("unreadable").to_owned());
                return Some(Objection { offset, message });
            }
        };
        let no = |message: String| Some(Objection { offset: span.start, message });
        if !matches!(token, Token::TemplateData(_)) {
            tokens_seen += 1;
            if tokens_seen > PART_TOKENS {
                return no(format!("too much code: more than {PART_TOKENS} tokens"));
            }
        }
        if matches!(token, Token::Plus) {
            additions += 1;
            if additions > ADDITIONS {
                return no(format!("too many additions: more than {ADDITIONS}"));
            }
        }
        match token {
            Token::TemplateData(_) => {}
            Token::VariableStart | Token::BlockStart => {
                is_block = matches!(token, Token::BlockStart);
                tag.clear();
            }
            Token::VariableEnd | Token::BlockEnd => {
                let checked = if is_block { check_block(&tag, &mut depth) } else { check_expression(&tag, 0) };
                if let Err(objection) = checked {
                    return Some(objection);
                }
                tag.clear();
            }
            _ if tag.len() >= TAG_TOKENS => {
                return no(format!("too long an expression: more than {TAG_TOKENS} tokens"));
            }
            _ => tag.push((token, span)),
        }
    }
    None
}

/// What to write instead of `contact.Город`, if that is what stops the tokenizer.
fn field_in_brackets(source: &str, offset: usize) -> Option<String> {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    let (before, after) = (source.get(..offset)?, source.get(offset..)?);
    let letters = |text: &str| text.find(|c| !in_name(c)).unwrap_or(text.len());
    if !after.starts_with(char::is_alphabetic) {
        return None;
    }
    let (path, begun) = before.rsplit_once('.').filter(|(_, begun)| begun.chars().all(in_name))?;
    let path = &path[path
        .rfind(|c| !in_name(c) && c != '.')
        .map_or(0, |at| at + path[at..].chars().next().map_or(1, char::len_utf8))..];
    let field = format!("{begun}{}", &after[..letters(after)]);
    (!path.is_empty())
        .then(|| format!("a field whose name is not of a-z, 0-9 and _ goes in brackets: {path}[\"{field}\"]"))
}

/// The filters named in `source`, each with its offset; of a source that has passed.
pub(super) fn filters_used(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut after_pipe = false;
    let tokens = tokenize(source, false, minijinja::syntax::SyntaxConfig::default());
    tokens.map_while(Result::ok).filter_map(move |(token, span)| {
        let is_filter = std::mem::replace(&mut after_pipe, matches!(token, Token::Pipe));
        match token {
            Token::Ident(name) if is_filter => Some((span.start_offset as usize, name)),
            _ => None,
        }
    })
}

type Tokens<'a> = [(Token<'a>, Range<usize>)];

fn refuse<T>(tokens: &Tokens<'_>, at: usize, message: impl Into<String>) -> Result<T, Objection> {
    let offset = tokens.get(at).map_or(0, |(_, span)| span.start);
    Err(Objection { offset, message: message.into() })
}

fn check_block(tag: &Tokens<'_>, depth: &mut usize) -> Result<(), Objection> {
    // An empty `{% %}`, or one that starts with no word: the parser says so better.
    let Some((Token::Ident(keyword), _)) = tag.first() else { return Ok(()) };
    let opens = match *keyword {
        "if" | "for" => true,
        "set" => !matches!(tag.get(2), Some((Token::Assign, _))),
        "endif" | "endfor" | "endset" => {
            *depth = depth.saturating_sub(1);
            false
        }
        "elif" | "else" => false,
        other => return refuse(tag, 0, format!("unknown statement {other}: there are if, for and set")),
    };
    if opens {
        *depth += 1;
        if *depth > BLOCK_DEPTH {
            return refuse(tag, 0, format!("blocks nest deeper than {BLOCK_DEPTH}"));
        }
    }
    let mut expression_start = 1;
    if *keyword == "for" {
        // `for a, b in …`: the names before `in` may have commas between them.
        let is_in = |(token, _): &(Token<'_>, _)| matches!(token, Token::Ident("in"));
        expression_start = tag.iter().position(is_in).map_or(tag.len(), |at| at + 1);
        if let Some(at) = tag[1..expression_start].iter().position(|(token, _)| matches!(token, Token::ParenOpen)) {
            return refuse(tag, at + 1, "name loop variables without brackets");
        }
        let last = tag.len() - 1;
        if last > expression_start && matches!(tag[last].0, Token::Ident("recursive")) {
            return refuse(tag, last, "loops cannot be recursive");
        }
    }
    check_expression(tag, expression_start)
}

/// What the bracket around a token is for.
#[derive(Clone, Copy, PartialEq)]
enum Bracket {
    Group,
    Call,
    Index,
    Constants,
}

fn check_expression(tag: &Tokens<'_>, start: usize) -> Result<(), Objection> {
    let mut open: Vec<Bracket> = Vec::new();
    for at in start..tag.len() {
        let token = &tag[at].0;
        let before = |back: usize| at.checked_sub(back).filter(|&at| at >= start).map(|at| &tag[at].0);
        if open.last() == Some(&Bracket::Constants) && !is_constant(token) {
            return refuse(tag, at, "a list written in a template holds constants only");
        }
        match token {
            Token::Tilde => {
                return refuse(tag, at, "there is no `~`: put two `{{ … }}` side by side, or use `+` on texts");
            }
            Token::BraceOpen => return refuse(tag, at, "maps cannot be written in a template"),
            Token::BracketOpen if before(1).is_some_and(ends_operand) => open.push(Bracket::Index),
            Token::BracketOpen => open.push(Bracket::Constants),
            Token::ParenOpen if matches!(before(1), Some(Token::Ident(word)) if !is_operator(word)) => {
                check_call(tag, at, before(2), before(3))?;
                open.push(Bracket::Call);
            }
            Token::ParenOpen if before(1).is_some_and(ends_operand) => {
                return refuse(tag, at, "only filters and tests can be called");
            }
            Token::ParenOpen => open.push(Bracket::Group),
            Token::ParenClose | Token::BracketClose => {
                open.pop();
            }
            Token::Comma if matches!(open.last(), None | Some(Bracket::Group | Bracket::Index)) => {
                return refuse(tag, at, "lists cannot be written without square brackets");
            }
            Token::Ident(name) if matches!(before(1), Some(Token::Pipe)) && !FILTERS.contains(name) => {
                return refuse(tag, at, format!("there is no filter `{name}`"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// `name(`: a filter's, a test's, or one of a loop's two functions.
fn check_call(
    tag: &Tokens<'_>,
    at: usize,
    second: Option<&Token<'_>>,
    third: Option<&Token<'_>>,
) -> Result<(), Objection> {
    let Token::Ident(name) = tag[at - 1].0 else { return Ok(()) };
    let is_test = matches!(second, Some(Token::Ident("is")))
        || matches!((second, third), (Some(Token::Ident("not")), Some(Token::Ident("is"))));
    match second {
        Some(Token::Pipe) => Ok(()),
        _ if is_test => Ok(()),
        Some(Token::Dot) if matches!(third, Some(Token::Ident("loop"))) && matches!(name, "cycle" | "changed") => {
            Ok(())
        }
        Some(Token::Dot) => refuse(tag, at - 1, format!("there is no function `{name}`: values have none")),
        _ => refuse(tag, at - 1, format!("there is no function `{name}`")),
    }
}

fn is_operator(word: &str) -> bool {
    matches!(word, "and" | "or" | "not" | "in" | "if" | "else" | "is")
}

/// Whether a bracket after this token belongs to it, rather than opening something of its own.
fn ends_operand(token: &Token<'_>) -> bool {
    match token {
        Token::Ident(word) => !is_operator(word),
        Token::Str(_) | Token::String(_) | Token::BracketClose | Token::ParenClose => true,
        _ => false,
    }
}

fn is_constant(token: &Token<'_>) -> bool {
    matches!(
        token,
        Token::Str(_)
            | Token::String(_)
            | Token::Int(_)
            | Token::Int128(_)
            | Token::Float(_)
            | Token::Minus
            | Token::Comma
            | Token::BracketClose
            | Token::Ident("true" | "false" | "True" | "False")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(source: &str) -> Option<String> {
        objection(source).map(|objection| objection.message)
    }

    #[test]
    fn what_messages_need_is_there() {
        for source in [
            "{{ a.b['c'][0] | default('x') | upper }}",
            "{% for key, value in deal|items %}{{ loop.index }}. {{ key }}{% else %}-{% endfor %}",
            "{% if status in ['won', 'lost', 3, -1.5, true] and not (a or b) %}x{% elif a is divisibleby(3) %}y{% endif %}",
            "{% set total = price * (count + 1) %}{% set text %}{{ total|round(2) }}{% endset %}{{ text }}",
            "{{ name[:1] }}. {{ 'a' if x is not defined else 'b' }} {{ loop.cycle('a', 'b') }} {{ x if (y) else z }}",
            "{# {% macro %} #}{% raw %}{{ [x, x] }} {% include %}{% endraw %} 50 %}",
            "{{ rows | selectattr('open') | map(attribute='name') | join(', ') }}",
        ] {
            assert_eq!(said(source), None, "{source}");
        }
    }

    #[test]
    fn a_field_in_other_letters_goes_in_brackets() {
        for (source, meant) in [
            ("{{ contact.Город }}", "contact[\"Город\"]"),
            ("я {% if deal.x.UTM_метка|upper %}", "deal.x[\"UTM_метка\"]"),
        ] {
            let message = said(source).expect("not of the language");
            assert!(message.ends_with(meant), "{source}: {message}");
        }
        assert!(said("{{ имя }}").is_some_and(|message| !message.contains("brackets")));
    }

    #[test]
    fn what_runs_away_is_not() {
        for source in [
            "{{ [x] }}",
            "{{ [[1]] }}",
            "{{ {'a': x} }}",
            "{{ (x, x) }}",
            "{% set x = x, x %}",
            "{% set x = (x, x) %}",
            "{{ x, x }}",
            "{{ x[1, 2] }}",
            "{% for x in y, y %}{% endfor %}",
            "{% for (((a))) in x %}{% endfor %}",
            "{% for x in y recursive %}{% endfor %}",
            "{% for x in y if x recursive %}{% endfor %}",
            "{% macro m() %}{% endmacro %}",
            "{% autoescape false %}{% endautoescape %}",
            "{% include 'x' %}",
            "{{ x | safe }}",
            "{{ x | tojson }}",
            "{{ x | zip(x) }}",
            "{{ range(9) }}",
            "{{ namespace(a=1) }}",
            "{{ debug() }}",
            "{{ x.format(1) }}",
            "{{ x ~ y }}",
            "{{ x | indent }}",
            "{{ x()() }}",
            "{{ loop(x) }}",
            "{{ 'a'('b') }}",
            &format!("{{{{ {}x }}}}", "not ".repeat(300)),
            &"{{ x }}".repeat(1_000),
            &"{% if x %}".repeat(20),
        ] {
            assert!(said(source).is_some(), "{source} passed");
        }
    }
}
