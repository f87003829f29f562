//! Who may call, and what.
//!
//! A key is a bearer token, looked up by its hash. While no key exists at all, the server only listens on loopback,
//! and then guards against what a browser on the same machine could be made to send: foreign `Host` and `Origin`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use super::Api;
use super::problem::Problem;
use crate::store::{ApiKey, Scope, Store, StoreError};

/// A revoked key works this much longer at most, on other servers than the one that revoked it.
const REMEMBERED: Duration = Duration::from_secs(2);
/// Keys remembered; beyond it the memory is emptied.
const KEPT: usize = 10_000;

/// The hash a key is stored as.
pub fn hash_key(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Remembers keys for a moment, so that a request costs no lookup of its own.
pub struct KeyCheck {
    store: Arc<dyn Store>,
    // Held for a lookup in a map, never over an await.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    keys: HashMap<[u8; 32], (Instant, Option<ApiKey>)>,
    any: Option<(Instant, bool)>,
}

impl KeyCheck {
    pub fn new(store: Arc<dyn Store>) -> Self {
        KeyCheck { store, seen: Mutex::default() }
    }

    /// Whether any key was ever made; if none was, loopback is trusted.
    pub async fn any(&self) -> Result<bool, StoreError> {
        if let Some((at, any)) = self.seen().any
            && at.elapsed() < REMEMBERED
        {
            return Ok(any);
        }
        // Also a revoked one: revoking the last key must not open the doors.
        let any = !self.store.keys().await?.is_empty();
        self.seen().any = Some((Instant::now(), any));
        Ok(any)
    }

    async fn find(&self, key: &str) -> Result<Option<ApiKey>, StoreError> {
        let hash = hash_key(key);
        if let Some((at, found)) = self.seen().keys.get(&hash)
            && at.elapsed() < REMEMBERED
        {
            return Ok(found.clone());
        }
        let found = self.store.key_by_hash(hash).await?.filter(|key| key.revoked_at.is_none());
        let mut seen = self.seen();
        if seen.keys.len() >= KEPT {
            seen.keys.clear();
        }
        seen.keys.insert(hash, (Instant::now(), found.clone()));
        Ok(found)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever sent the request.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    key: Option<(Uuid, String)>,
    scopes: Vec<Scope>,
}

impl Caller {
    /// Who it was, for people: the key's name.
    pub(super) fn name(&self) -> String {
        self.key.as_ref().map_or_else(|| "local".to_owned(), |(_, name)| format!("key {name}"))
    }

    pub(super) fn may(&self, wanted: Scope) -> Result<(), Problem> {
        if self.scopes.iter().any(|scope| scope.covers(wanted)) {
            return Ok(());
        }
        Err(Problem::forbidden(format!("this key has not the scope `{wanted}`")))
    }

    /// Whose idempotency keys these are.
    pub(super) fn key_scope(&self) -> String {
        self.key.as_ref().map_or_else(String::new, |(id, _)| id.to_string())
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        // Put there by `layer`, which every route of the API goes through.
        parts.extensions.get::<Caller>().cloned().ok_or_else(Problem::internal)
    }
}

/// Lets nobody in who may not be.
pub(super) async fn layer(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    match caller(&api, request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn caller(api: &Api, headers: &HeaderMap) -> Result<Caller, Problem> {
    let given = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    let Some(given) = given else {
        if api.keys.any().await? || !api.options.is_loopback {
            return Err(Problem::unauthorized(
                "send the header Authorization: Bearer vk_…; `vestnik keys create` makes a key",
            ));
        }
        check_local(headers)?;
        return Ok(Caller { key: None, scopes: vec![Scope::Admin] });
    };
    let key =
        given.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key.trim());
    let Some(key) = key else {
        return Err(Problem::unauthorized("the Authorization header is not of the form: Bearer vk_…"));
    };
    match api.keys.find(key).await? {
        Some(key) => Ok(Caller { key: Some((key.id, key.name)), scopes: key.scopes }),
        None => Err(Problem::unauthorized("this key is not known, or was revoked")),
    }
}

/// Without keys, only what comes from this machine and means this machine: a page of another site, or a name that was
/// made to point here, is refused.
fn check_local(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(host) = text(header::HOST)
        && !is_local(host)
    {
        return Err(Problem::forbidden(
            "without API keys only the Host names localhost, 127.0.0.1 and [::1] are served",
        ));
    }
    if let Some(origin) = text(header::ORIGIN) {
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")).unwrap_or("?");
        if !is_local(host) {
            return Err(Problem::forbidden("without API keys pages of other sites are not served"));
        }
    }
    Ok(())
}

fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("?", |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    matches!(name, "localhost" | "127.0.0.1" | "::1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080"] {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "", "null", "[::1"]
        {
            assert!(!is_local(host), "{host}");
        }
    }
}
