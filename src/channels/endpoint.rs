//! What all accounts spoken to over HTTP share: settings checked once, headers and time limits ready to use, and one
//! send from its request to its outcome. An adapter adds its request, how it reads an answer, and its table.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Method, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::http_client::{ANSWER_BODY_LIMIT_BYTES, HttpAnswer, HttpClient, HttpError, HttpLimits, HttpRequest};
use super::outcomes::without_answer;
use crate::domain::{
    AccountRef, Content, Outcome, OutgoingMessage, PermanentReason, PhoneNumber, ProviderError, Recipient,
};

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

/// What is asked of the provider.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) uri: Uri,
    /// Beside the account's own.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Request {
    pub(super) fn get(uri: &Uri) -> Self {
        Request { method: Method::GET, uri: uri.clone(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// A POST of JSON, or why this message can never be one.
    pub(super) fn json(uri: &Uri, body: &impl Serialize) -> Result<Self, Outcome> {
        match serde_json::to_vec(body) {
            Ok(body) => Ok(Request::post(uri, "application/json", body.into())),
            Err(error) => never(PermanentReason::Content, format!("the message cannot be written as JSON: {error}")),
        }
    }

    pub(super) fn form<'a>(uri: &Uri, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Request::post(uri, "application/x-www-form-urlencoded", form(pairs).into())
    }

    fn post(uri: &Uri, content_type: &'static str, body: Bytes) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Request { method: Method::POST, uri: uri.clone(), headers, body }
    }
}

impl Endpoint {
    /// `host` is any of the account's URIs.
    pub(super) fn new(
        account: &AccountRef,
        client: HttpClient,
        host: &Uri,
        connect_timeout_ms: u64,
        timeout_ms: u64,
    ) -> Result<Self, ConfigProblem> {
        let connect = time_limit(account, "connect_timeout_ms", connect_timeout_ms)?;
        let total = time_limit(account, "timeout_ms", timeout_ms)?;
        let mut headers = HeaderMap::with_capacity(8);
        if let Some(host) = host.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
            headers.insert(HOST, host);
        }
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("vestnik/", env!("CARGO_PKG_VERSION"))));
        Ok(Endpoint { client, headers, connect, total })
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// One send. A message that cannot be written has its outcome already; without an answer only what provably never
    /// left may be sent again; what an answer means is the adapter's to `read`.
    pub(super) async fn deliver(
        &self,
        request: Result<Request, Outcome>,
        limit: Duration,
        read: impl FnOnce(&HttpAnswer) -> Outcome,
    ) -> Outcome {
        let request = match request {
            Ok(request) => request,
            Err(outcome) => return outcome,
        };
        match self.exchange(request, limit).await {
            Ok(answer) => read(&answer),
            Err(error) => without_answer(&error),
        }
    }

    /// One question that sends nothing to anyone. The text says why there is no answer.
    pub(super) async fn ask(&self, request: Request, limit: Duration) -> Result<HttpAnswer, String> {
        self.exchange(request, limit).await.map_err(|error| error.chain())
    }

    async fn exchange(&self, request: Request, limit: Duration) -> Result<HttpAnswer, HttpError> {
        let Request { method, uri, headers: own, body } = request;
        let mut headers = self.headers.clone();
        headers.extend(own);
        let total = self.total.min(limit);
        let limits = HttpLimits { connect: self.connect.min(total), total, body_bytes: ANSWER_BODY_LIMIT_BYTES };
        self.client.send(HttpRequest { method, uri, headers, body }, &limits).await
    }
}

/// Why a message can never go by this channel, whatever the provider would say.
pub(super) fn never<T>(reason: PermanentReason, text: impl Into<String>) -> Result<T, Outcome> {
    Err(Outcome::Permanent { reason, error: ProviderError::new("wrong_channel", text) })
}

pub(super) fn phone<'a>(message: &'a OutgoingMessage, who: &str) -> Result<&'a PhoneNumber, Outcome> {
    match &message.recipient {
        Recipient::Phone(phone) => Ok(phone),
        _ => never(PermanentReason::Recipient, format!("{who} needs a phone number")),
    }
}

/// The text of a channel that takes nothing else.
pub(super) fn plain_text<'a>(message: &'a OutgoingMessage, who: &str) -> Result<&'a str, Outcome> {
    match &message.content {
        Content::Text(text) => Ok(text),
        _ => never(PermanentReason::Content, format!("{who} takes plain text only")),
    }
}

/// `a=1&b=2`, with everything written so that it is read back as it was: `application/x-www-form-urlencoded` of the
/// URL standard, spaces as `%20`.
pub(super) fn form<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = pairs.into_iter().map(|(name, value)| format!("{}={}", percent_encoded(name), percent_encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Text as one part of a path, a query or a form.
pub(super) fn percent_encoded(text: &str) -> String {
    const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');
    utf8_percent_encode(text, PLAIN).to_string()
}

/// A base URL without its trailing slash: `http` or `https`, a host, perhaps a path, and nothing else.
pub(super) fn base_url<'a>(account: &AccountRef, setting: &str, text: &'a str) -> Result<&'a str, ConfigProblem> {
    let problem = |problem: &str| ConfigProblem::new(account, setting, problem);
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

fn time_limit(account: &AccountRef, setting: &str, millis: u64) -> Result<Duration, ConfigProblem> {
    if millis == 0 {
        return Err(ConfigProblem::new(account, setting, "has to be at least 1"));
    }
    Ok(Duration::from_millis(millis))
}

/// A token that is there and consists of what `allowed` says.
pub(super) fn token<'a>(
    account: &AccountRef,
    setting: &str,
    token: &'a SecretString,
    allowed: impl Fn(char) -> bool,
) -> Result<&'a str, ConfigProblem> {
    let text = token.expose_secret();
    let problem = |problem: &str| Err(ConfigProblem::new(account, setting, problem));
    if text.is_empty() {
        return problem("is empty");
    }
    if !text.chars().all(allowed) {
        return problem("holds characters that no token has (a line break, perhaps)");
    }
    Ok(text)
}

/// A header's value that no `Debug` of the headers shows.
pub(super) fn secret_header(account: &AccountRef, setting: &str, text: &str) -> Result<HeaderValue, ConfigProblem> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| ConfigProblem::new(account, setting, "does not fit into a header"))?;
    value.set_sensitive(true);
    Ok(value)
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
            assert_eq!(base_url(&account, "base_url", text), Ok(expected));
        }
        for bad in
            ["", "graph.facebook.com", "/x", "ftp://x", "https://", "https://a:b@x", "https://x?y=1", "https://a b"]
        {
            let problem = base_url(&account, "base_url", bad).expect_err(bad);
            assert_eq!(problem.setting, "whatsapp.main.base_url");
        }
    }

    #[test]
    fn a_form_is_read_back_as_it_was_written() {
        let text = "Привет & a=b + 100%\r\n\u{1f600}~!'()*";
        let written = form([("To", "+79991234567"), ("Bo dy", text)]);
        assert!(written.starts_with("To=%2B79991234567&Bo%20dy=%D0%9F"), "{written}");
        assert!(written.chars().all(|c| c.is_ascii_alphanumeric() || "%&=*-._".contains(c)), "{written}");
        let (_, body) = written.split_once("&Bo%20dy=").expect("two pairs");
        let read = percent_encoding::percent_decode_str(body).decode_utf8().expect("UTF-8");
        assert_eq!(read, text);
    }
}
