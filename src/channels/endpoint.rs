//! Where the requests of one account go: its settings checked once, its headers and time limits ready to use.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Method, Uri};
use secrecy::{ExposeSecret, SecretString};

use super::http_client::{ANSWER_BODY_LIMIT_BYTES, HttpAnswer, HttpClient, HttpError, HttpLimits, HttpRequest};
use crate::domain::AccountRef;

/// A setting of an account that cannot be used. Names the setting by its full path and never repeats a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{setting}` {problem}")]
pub struct ConfigProblem {
    /// `whatsapp.main.base_url`.
    pub setting: String,
    pub problem: String,
}

impl ConfigProblem {
    pub(super) fn new(account: &AccountRef, setting: &str, problem: impl Into<String>) -> Self {
        ConfigProblem { setting: format!("{account}.{setting}"), problem: problem.into() }
    }
}

/// One account's way out. Headers are made once: a request only copies them.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    client: HttpClient,
    headers: HeaderMap,
    connect: Duration,
    total: Duration,
}

impl Endpoint {
    /// `host` is any of the account's URIs.
    pub(super) fn new(client: HttpClient, host: &Uri, connect: Duration, total: Duration) -> Self {
        let mut headers = HeaderMap::with_capacity(8);
        if let Some(host) = host.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
            headers.insert(HOST, host);
        }
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("vestnik/", env!("CARGO_PKG_VERSION"))));
        Endpoint { client, headers, connect, total }
    }

    pub(super) fn with_header(mut self, name: hyper::header::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(super) async fn post_json(&self, uri: &Uri, body: Bytes, limit: Duration) -> Result<HttpAnswer, HttpError> {
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.send(Method::POST, uri, headers, body, limit).await
    }

    pub(super) async fn get(&self, uri: &Uri, limit: Duration) -> Result<HttpAnswer, HttpError> {
        self.send(Method::GET, uri, self.headers.clone(), Bytes::new(), limit).await
    }

    async fn send(
        &self,
        method: Method,
        uri: &Uri,
        headers: HeaderMap,
        body: Bytes,
        limit: Duration,
    ) -> Result<HttpAnswer, HttpError> {
        let total = self.total.min(limit);
        let limits = HttpLimits { connect: self.connect.min(total), total, body_bytes: ANSWER_BODY_LIMIT_BYTES };
        self.client.send(HttpRequest { method, uri: uri.clone(), headers, body }, &limits).await
    }
}

/// A base URL without its trailing slash: `http` or `https`, a host, perhaps a path, and nothing else.
pub(super) fn base_url<'a>(account: &AccountRef, text: &'a str) -> Result<&'a str, ConfigProblem> {
    let problem = |problem: &str| ConfigProblem::new(account, "base_url", problem);
    let uri: Uri = text.parse().map_err(|_| problem("is not a URL like https://example.com"))?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    match uri.scheme_str() {
        Some("http" | "https") if authority.contains('@') => Err(problem("may not hold a user name or password")),
        Some("http" | "https") if uri.query().is_some() => Err(problem("may not hold a query")),
        Some("http" | "https") => Ok(text.trim_end_matches('/')),
        Some(_) | None => Err(problem("has to begin with http:// or https://")),
    }
}

/// A path below the base URL. It may hold a secret, so the error says nothing of it.
pub(super) fn uri(account: &AccountRef, setting: &str, text: &str) -> Result<Uri, ConfigProblem> {
    text.parse().map_err(|_| ConfigProblem::new(account, setting, "does not fit into a URL"))
}

pub(super) fn time_limit(account: &AccountRef, setting: &str, millis: u64) -> Result<Duration, ConfigProblem> {
    if millis == 0 {
        return Err(ConfigProblem::new(account, setting, "has to be at least 1"));
    }
    Ok(Duration::from_millis(millis))
}

/// A token that is there and consists of what `allowed` says.
pub(super) fn token<'a>(
    account: &AccountRef,
    token: &'a SecretString,
    allowed: impl Fn(char) -> bool,
) -> Result<&'a str, ConfigProblem> {
    let text = token.expose_secret();
    if text.is_empty() {
        return Err(ConfigProblem::new(account, "token", "is empty"));
    }
    if !text.chars().all(allowed) {
        return Err(ConfigProblem::new(account, "token", "holds characters that no token has (a line break, perhaps)"));
    }
    Ok(text)
}

/// Text of a provider's, made fit for a terminal.
pub(super) fn printable(text: &str) -> String {
    const LONGEST_CHARS: usize = 300;
    text.chars().filter(|c| !c.is_control()).take(LONGEST_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Channel;

    #[test]
    fn base_urls_are_checked() {
        let account = AccountRef { channel: Channel::WhatsApp, name: "main".into() };
        for (text, expected) in [
            ("https://graph.facebook.com", "https://graph.facebook.com"),
            ("http://127.0.0.1:8090/wa/", "http://127.0.0.1:8090/wa"),
        ] {
            assert_eq!(base_url(&account, text), Ok(expected));
        }
        for bad in
            ["", "graph.facebook.com", "/x", "ftp://x", "https://", "https://a:b@x", "https://x?y=1", "https://a b"]
        {
            let problem = base_url(&account, bad).expect_err(bad);
            assert_eq!(problem.setting, "whatsapp.main.base_url");
        }
    }
}
