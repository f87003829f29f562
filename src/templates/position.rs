//! From a byte offset in a template's source to the line, the column and the variable that a person looks for.

use std::ops::Range;

use super::Place;

/// The place of the byte at `offset`; past the end it is the end.
pub(super) fn place(part: &str, source: &str, offset: usize) -> Place {
    let mut end = offset.min(source.len());
    while !source.is_char_boundary(end) {
        end -= 1;
    }
    let before = &source[..end];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    let column = before[line_start..].chars().count() + 1;
    Place { part: part.into(), line: saturating(line), column: saturating(column) }
}

fn saturating(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Where minijinja says that it failed.
pub(super) fn place_of_error(part: &str, source: &str, error: &minijinja::Error) -> Place {
    place(part, source, offset_of_error(source, error))
}

/// The same as an offset: its range where it has one, else the start of its line.
pub(super) fn offset_of_error(source: &str, error: &minijinja::Error) -> usize {
    match error.range() {
        Some(range) => variable_range(source, range).start,
        None => {
            let lines_before = error.line().unwrap_or(1).saturating_sub(1);
            source.split_inclusive('\n').take(lines_before).map(str::len).sum()
        }
    }
}

/// What was missing, from the error of using it.
///
/// The engine tracks where an undefined value came from and names it between backticks; where it does not, the source
/// text at the error is the expression.
pub(super) fn missing_variable(source: &str, error: &minijinja::Error) -> Option<String> {
    let named = error.detail().and_then(|detail| {
        let end = detail.find("` is undefined")?;
        let start = detail[..end].rfind('`')? + 1;
        Some(detail[start..end].to_owned())
    });
    if named.is_some() {
        return named;
    }
    if error.kind() != minijinja::ErrorKind::UndefinedError {
        return None;
    }
    let text = error.range().and_then(|range| source.get(variable_range(source, range)));
    Some(text.map_or_else(|| "a value".to_owned(), |text| text.trim().to_owned()))
}

/// The range, begun where the dotted path begins: minijinja marks `.b.c` of `a.b.c`.
fn variable_range(source: &str, range: Range<usize>) -> Range<usize> {
    let Some(before) = source.get(..range.start) else { return range };
    if !source.get(range.clone()).is_some_and(|text| text.starts_with(['.', '['])) {
        return range;
    }
    let in_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    let start = before.char_indices().rev().take_while(|&(_, c)| in_path(c)).last().map_or(range.start, |(at, _)| at);
    start..range.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_not_bytes() {
        let source = "Привет,\nмир {{ x }}";
        let offset = source.find('x').expect("is there");
        let found = place("/text", source, offset);
        assert_eq!((found.line, found.column), (2, 8));
    }

    #[test]
    fn past_the_end_is_the_end() {
        let found = place("/text", "ab\n", 999);
        assert_eq!((found.line, found.column), (2, 1));
    }
}
