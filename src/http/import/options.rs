//! How a file is to be read: the query and the Content-Type of an import.

use axum::http::{HeaderMap, header};
use phonenumber::country;

use super::NDJSON;
use crate::domain::RecordKind;
use crate::http::problem::{FieldError, Problem};
use crate::import::{Delimiter, Format, ImportOptions, Mapping, TextEncoding};
use crate::store::SaveHow;

/// How a file is to be read. Only its description: `map` may come more than once.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "for the description only: a repeated parameter is read by hand")]
pub(in crate::http) struct ImportQuery {
    /// `csv` or `ndjson`; else by the Content-Type, else by the first character: `{` begins NDJSON.
    format: Option<String>,
    /// `utf-8`, `utf-16le`, `utf-16be` or `windows-1251`; else by the Content-Type's `charset`, else recognised.
    encoding: Option<String>,
    /// What parts the cells of CSV: a character, or `comma`, `semicolon`, `tab`, `pipe`; else recognised.
    delimiter: Option<String>,
    /// `HEADER=field`, once for each column whose header does not say what it is; `HEADER=` drops a column.
    map: Option<Vec<String>>,
    /// `merge`, which is the default, leaves fields as they are that the file does not name; `replace` replaces whole
    /// records.
    mode: Option<String>,
    /// `true` checks everything and writes nothing.
    #[param(rename = "dryRun")]
    dry_run: Option<bool>,
}

/// What the query and the Content-Type say; every mistake at once.
pub(super) fn options(
    kind: RecordKind,
    region: Option<country::Id>,
    query: Vec<(String, String)>,
    headers: &HeaderMap,
) -> Result<ImportOptions, Problem> {
    let (format, encoding) = content_type(headers)?;
    let mut options = ImportOptions {
        kind,
        how: SaveHow::Merge,
        is_dry_run: false,
        format,
        encoding,
        delimiter: None,
        map: Vec::new(),
        region,
    };
    let mut errors = Vec::new();
    for (name, value) in query {
        let is_read = match name.as_str() {
            "format" => keep(&mut options.format, format_named(&value).map(Some)),
            "encoding" => keep(&mut options.encoding, TextEncoding::parse(&value).map(Some)),
            "delimiter" => keep(&mut options.delimiter, Delimiter::parse(&value).map(Some)),
            "map" => Mapping::parse(&value).map(|mapping| options.map.push(mapping)).is_some(),
            "mode" => keep(&mut options.how, mode_named(&value)),
            "dryRun" => keep(&mut options.is_dry_run, value.parse().ok()),
            _ => {
                errors.push(FieldError::new("", format!("there is no parameter `{name}` here")));
                continue;
            }
        };
        if !is_read {
            errors.push(FieldError::new(format!("/{name}"), expected(&name)));
        }
    }
    if errors.is_empty() { Ok(options) } else { Err(Problem::invalid(errors)) }
}

/// False when there is nothing to keep.
fn keep<T>(place: &mut T, read: Option<T>) -> bool {
    read.map(|read| *place = read).is_some()
}

fn format_named(name: &str) -> Option<Format> {
    match name {
        "csv" => Some(Format::Csv),
        "ndjson" | "jsonl" => Some(Format::Ndjson),
        _ => None,
    }
}

fn mode_named(name: &str) -> Option<SaveHow> {
    match name {
        "merge" => Some(SaveHow::Merge),
        "replace" => Some(SaveHow::Replace),
        _ => None,
    }
}

fn expected(parameter: &str) -> &'static str {
    match parameter {
        "format" => "expected csv or ndjson",
        "encoding" => "expected utf-8, utf-16le, utf-16be or windows-1251",
        "delimiter" => "expected one character, or comma, semicolon, tab or pipe",
        "map" => "expected HEADER=field, or HEADER= to drop a column",
        "mode" => "expected merge or replace",
        _ => "expected true or false",
    }
}

/// What the body is said to be. None of these types can be sent by a browser's form, so no foreign page can reach us
/// through one.
fn content_type(headers: &HeaderMap) -> Result<(Option<Format>, Option<TextEncoding>), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = given.split(';').map(|part| part.trim().to_ascii_lowercase());
    let format = match parts.next().unwrap_or_default().as_str() {
        "text/csv" => Some(Format::Csv),
        NDJSON | "application/ndjson" | "application/jsonl" => Some(Format::Ndjson),
        "application/octet-stream" => None,
        _ => {
            return Err(Problem::wrong_media_type(
                "The body is no file of records",
                "send the file itself with the header Content-Type: text/csv, application/x-ndjson, or \
                 application/octet-stream to have it recognised",
            ));
        }
    };
    let charset = parts.find_map(|part| part.strip_prefix("charset=").map(|name| name.trim_matches('"').to_owned()));
    let Some(charset) = charset else { return Ok((format, None)) };
    let unknown = || format!("the Content-Type names the charset {charset}; {}", expected("encoding"));
    let encoding =
        TextEncoding::parse(&charset).ok_or_else(|| Problem::invalid(vec![FieldError::new("", unknown())]))?;
    Ok((format, Some(encoding)))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_content_type_says_what_a_body_is() {
        let of = |given: &'static str| {
            content_type(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(given))]))
        };
        assert_eq!(of("text/csv").unwrap(), (Some(Format::Csv), None));
        assert_eq!(of("TEXT/CSV; charset=cp1251").unwrap(), (Some(Format::Csv), Some(TextEncoding::Windows1251)));
        assert_eq!(of("application/x-ndjson").unwrap(), (Some(Format::Ndjson), None));
        assert_eq!(of("application/octet-stream").unwrap(), (None, None));
        assert_eq!(of("text/csv; charset=koi8-r").unwrap_err().status, 422);
        for form in ["", "text/plain", "text/plain;text/csv", "multipart/form-data", "application/json"] {
            assert_eq!(of(form).unwrap_err().status, 415, "{form}");
        }
    }
}
