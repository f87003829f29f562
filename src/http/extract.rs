//! Bodies, queries and paths, whose mistakes come back as problems that say where.

use std::error::Error as _;

use axum::body::Bytes;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use super::Api;
use super::problem::{FieldError, Problem};

/// A JSON body with its bytes (an idempotency key covers them).
pub(super) struct ValidJson<T> {
    pub(super) value: T,
    pub(super) bytes: Bytes,
}

impl<T: DeserializeOwned> FromRequest<Api> for ValidJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::unsupported_media_type());
        }
        let bytes =
            Bytes::from_request(request, api).await.map_err(|rejection| match rejection.into_response().status() {
                StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(api.options.body_limit_bytes),
                _ => Problem::unreadable("the body broke off before its end"),
            })?;
        let value = parse(&bytes)?;
        Ok(ValidJson { value, bytes })
    }
}

/// A browser's form cannot send this type, so no foreign page can reach us through one.
fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer(error.path());
        let inner = error.into_inner();
        // Where a word is expected, serde_json calls a number a mistake of syntax.
        let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
        if inner.is_syntax() && is_json() {
            Problem::invalid(vec![FieldError::new(pointer, "expected a word here")])
        } else if inner.is_data() {
            let mut detail = inner.to_string();
            // serde_json's "at line 1 column 2" says less than the pointer.
            if let Some(end) = detail.rfind(" at line ") {
                detail.truncate(end);
            }
            Problem::invalid(vec![FieldError::new(pointer, detail)])
        } else {
            Problem::unreadable(format!("the body is not JSON: {inner}"))
        }
    })?;
    deserializer.end().map_err(|error| Problem::unreadable(format!("the body is not one JSON value: {error}")))?;
    Ok(value)
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// Parameters behind the `?`.
pub(super) struct ValidQuery<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Api> for ValidQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, api).await {
            Ok(Query(value)) => Ok(ValidQuery(value)),
            Err(rejection) => Err(Problem::invalid(vec![parameter(&rejection)])),
        }
    }
}

/// Which parameter is wrong, and how.
fn parameter(rejection: &QueryRejection) -> FieldError {
    type Mistake = serde_path_to_error::Error<serde::de::value::Error>;
    let causes = std::iter::successors(rejection.source(), |error| (*error).source());
    let Some(mistake) = causes.filter_map(|error| error.downcast_ref::<Mistake>()).next() else {
        return FieldError::new("", "what follows the `?` cannot be read");
    };
    let said = mistake.inner().to_string();
    if let Some(rest) = said.strip_prefix("unknown field ") {
        let (name, there_are) = rest.split_once(", ").unwrap_or((rest, ""));
        let there_are = there_are.strip_prefix("expected ").map(|names| format!("; expected {names}"));
        return FieldError::new("", format!("there is no parameter {name} here{}", there_are.unwrap_or_default()));
    }
    for (what, how) in [("missing field ", "is missing"), ("duplicate field ", "is given twice")] {
        if let Some(name) = said.strip_prefix(what) {
            return FieldError::new("", format!("the parameter {name} {how}"));
        }
    }
    // How Rust's own numbers say it.
    let is_number =
        said.contains("digit found in string") || said.contains("parse integer") || said.contains("target type");
    let detail = match said.as_str() {
        _ if is_number => "expected a whole number in its range".to_owned(),
        "provided string was not `true` or `false`" => "expected true or false".to_owned(),
        _ => said,
    };
    FieldError::new(pointer(mistake.path()), detail)
}

/// A path that cannot be one of ours.
fn nothing_there(rejection: &PathRejection) -> String {
    let kind = match rejection {
        PathRejection::FailedToDeserializePathParams(inner) => Some(inner.kind()),
        _ => None,
    };
    match kind {
        Some(
            ErrorKind::ParseErrorAtKey { value, .. }
            | ErrorKind::ParseErrorAtIndex { value, .. }
            | ErrorKind::ParseError { value, .. }
            | ErrorKind::DeserializeError { value, .. },
        ) => format!("there is nothing at this path: `{value}` is no id or name of anything here"),
        _ => "there is nothing at this path: a part of it is no id or name of anything here".to_owned(),
    }
}

/// What stands in the path.
pub(super) struct ValidPath<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for ValidPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, api).await {
            Ok(Path(value)) => Ok(ValidPath(value)),
            Err(rejection) => Err(Problem::not_found(nothing_there(&rejection))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only how it is read matters here")]
    struct Body {
        recipients: Vec<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only how it is read matters here")]
    struct Inner {
        to: String,
    }

    #[test]
    fn a_mistake_is_named_by_its_place() {
        let problem = parse::<Body>(br#"{"recipients": [{"to": "a"}, {"to": 5}]}"#).unwrap_err();
        assert_eq!(problem.status, 422);
        assert_eq!(problem.errors[0].pointer, "/recipients/1/to");
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only how it is read matters here")]
    struct Parameters {
        id: String,
        limit: Option<u32>,
        flag: Option<bool>,
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        let said = |query: &str| {
            let uri = format!("http://x/?{query}").parse().unwrap();
            let wrong = parameter(&Query::<Parameters>::try_from_uri(&uri).unwrap_err());
            format!("{}: {}", wrong.pointer, wrong.detail)
        };
        let queries = ["id=1&phone=2", "limit=3", "id=1&id=2", "id=1&limit=x", "id=1&limit=-1", "id=1&flag=1"];
        insta::assert_snapshot!(queries.map(said).join("\n"), @r"
        : there is no parameter `phone` here; expected one of `id`, `limit`, `flag`
        : the parameter `id` is missing
        : the parameter `id` is given twice
        /limit: expected a whole number in its range
        /limit: expected a whole number in its range
        /flag: expected true or false
        ");
    }

    #[test]
    fn a_number_for_a_word_is_no_rubbish() {
        let problem = parse::<Vec<crate::domain::Priority>>(br#"["high", 1]"#).unwrap_err();
        assert_eq!((problem.status, &*problem.errors[0].pointer), (422, "/1"));
    }

    #[test]
    fn rubbish_is_unreadable() {
        for body in ["", "{", "[1", "{} {}", "\u{0}"] {
            let problem = parse::<serde_json::Value>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.status, 400, "{body}");
        }
    }
}
