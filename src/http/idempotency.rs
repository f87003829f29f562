//! The `Idempotency-Key` header: a POST that may be repeated.

use axum::http::HeaderMap;
use sha2::{Digest as _, Sha256};

use super::auth::Caller;
use super::problem::{FieldError, Problem};
use crate::delivery::IdempotencyKey;

/// Longer keys are refused.
const LONGEST: usize = 255;

/// The key of a request to `route`, if it has one. Keys of different callers are different keys.
pub(super) fn key(
    headers: &HeaderMap,
    caller: &Caller,
    route: &'static str,
    body: &[u8],
) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default().trim();
    if key.is_empty() || key.len() > LONGEST {
        let detail = format!("the Idempotency-Key header is 1 to {LONGEST} printable ASCII characters");
        return Err(Problem::invalid(vec![FieldError::new("", detail)]));
    }
    let mut hasher = Sha256::new();
    hasher.update(route.as_bytes());
    hasher.update([0]);
    hasher.update(body);
    Ok(Some(IdempotencyKey { scope: caller.key_scope(), key: key.to_owned(), request_hash: hasher.finalize().into() }))
}
