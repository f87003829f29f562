//! The API as the commands see it: where the server is, one call, and its problems in words.

use std::io;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use futures::Stream;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use crate::channels::HttpClient;
use crate::channels::http_client::{HttpAnswer, HttpError, HttpLimits, HttpRequest, HttpStream};
use crate::config::Settings;
use crate::server_url;

/// A direct send may take 60 s, and its durable record 10 s more.
const PATIENCE: Duration = Duration::from_secs(75);
/// A page of 500 templates of the greatest length.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// The longest page that the API gives.
const PAGE: usize = 500;
/// What RFC 3986 leaves as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where the server is, and who asks.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// The server; else the one that runs on this machine's ledger, else the address of `http.listen`.
    #[arg(long, env = "VESTNIK_URL", hide_env_values = true, value_name = "URL")]
    url: Option<String>,
    /// An API key. The environment is the better place: other users of this machine see arguments.
    #[arg(long, env = "VESTNIK_KEY", hide_env_values = true, value_name = "KEY", value_parser = secret)]
    key: Option<SecretString>,
}

#[expect(clippy::unnecessary_wraps, reason = "clap's parsers may fail")]
fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(text.into())
}

/// A server to ask.
#[derive(Debug)]
pub struct Client {
    http: HttpClient,
    base: String,
    /// Who said that the server is there.
    said_by: String,
    key: Option<SecretString>,
}

impl Client {
    /// `settings` are read only where the arguments do not say which server is meant.
    pub fn find(args: ServerArgs, settings: impl FnOnce() -> anyhow::Result<Settings>) -> anyhow::Result<Client> {
        let (base, said_by) = match args.url.filter(|url| !url.is_empty()) {
            Some(url) => (url, "by --url or VESTNIK_URL".to_owned()),
            None => Self::local(&settings()?),
        };
        Ok(Client::at(&base, said_by, args.key.filter(|key| !key.expose_secret().is_empty())))
    }

    pub fn at(base: &str, said_by: impl Into<String>, key: Option<SecretString>) -> Client {
        let base = base.trim_end_matches('/').to_owned();
        Client { http: HttpClient::new(), base, said_by: said_by.into(), key }
    }

    /// The server of these settings, and how we know.
    pub fn local(settings: &Settings) -> (String, String) {
        let data_dir = &settings.ledger.data_dir;
        let announced = match &settings.ledger.database_url {
            None => server_url::load(data_dir),
            Some(_) => None,
        };
        match announced {
            Some(url) => (url, format!("by {}", server_url::path(data_dir).display())),
            None => (server_url::of(settings.http.listen), "by the setting http.listen".to_owned()),
        }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, None, &[]).await
    }

    pub async fn post(&self, path: &str, body: &Value, headers: &[(&'static str, &str)]) -> anyhow::Result<Value> {
        self.call(Method::POST, path, Some(body), headers).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::PUT, path, Some(body), &[]).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::PATCH, path, Some(body), &[]).await
    }

    pub async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::DELETE, path, None, &[]).await
    }

    /// Items of a paged list, `limit` at most, and whether there are more.
    pub async fn list(&self, path: &str, query: &[(&str, String)], limit: usize) -> anyhow::Result<(Vec<Value>, bool)> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = (limit - items.len()).clamp(1, PAGE);
            let mut parts: Vec<_> = query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
            parts.push(format!("limit={page}"));
            parts.extend(cursor.iter().map(|cursor| format!("cursor={}", encode(cursor))));
            let mut answer = self.get(&format!("{path}?{}", parts.join("&"))).await?;
            if let Value::Array(found) = answer["items"].take() {
                items.extend(found);
            }
            cursor = answer["nextCursor"].as_str().map(str::to_owned);
            if cursor.is_none() || items.len() >= limit {
                return Ok((items, cursor.is_some()));
            }
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&'static str, &str)],
    ) -> anyhow::Result<Value> {
        let answer = self.exchange(method, path, body, headers).await?;
        if answer.status.is_success() {
            if answer.body.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_slice(&answer.body)
                .with_context(|| format!("{} ({}) does not answer as vestnik does", self.base, self.said_by));
        }
        Err(self.problem(answer.status, &answer.body))
    }

    /// One request and its answer, whatever the status.
    pub async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&'static str, &str)],
    ) -> anyhow::Result<HttpAnswer> {
        let mut request = self.request(method, path, headers)?;
        if let Some(body) = body {
            request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request.body = Bytes::from(body.to_string());
        }
        let limits = HttpLimits { total: PATIENCE, body_bytes: ANSWER_BYTES, ..HttpLimits::default() };
        self.http.send(request, &limits).await.map_err(|error| {
            self.unanswered(&error, "what was asked may have happened: `vestnik notifications list` shows it")
        })
    }

    /// Sends a file of any size, and gives the answer as it begins, whatever the status.
    pub async fn upload(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> anyhow::Result<HttpStream> {
        let request = self.request(Method::POST, path, headers)?;
        let sent = self.http.upload(request, pieces, &HttpLimits::default()).await;
        sent.map_err(|error| self.unanswered(&error, "a part may have been taken: sending all of it again is safe"))
    }

    /// An answer of any size as it begins, whatever the status.
    pub async fn download(&self, path: &str) -> anyhow::Result<HttpStream> {
        let request = self.request(Method::GET, path, &[])?;
        let begun = self.http.download(request, &HttpLimits::default()).await;
        begun.map_err(|error| self.unanswered(&error, "ask again"))
    }

    /// The next piece of an answer; none at its end.
    pub async fn next(&self, answer: &mut HttpStream) -> anyhow::Result<Option<Bytes>> {
        answer.next().await.map_err(|error| self.unanswered(&error, "ask again: what came is not all"))
    }

    /// The whole of an answer.
    pub async fn read(&self, answer: HttpStream) -> anyhow::Result<Bytes> {
        answer.into_bytes(ANSWER_BYTES).await.map_err(|error| self.unanswered(&error, "ask again"))
    }

    fn request(&self, method: Method, path: &str, headers: &[(&'static str, &str)]) -> anyhow::Result<HttpRequest> {
        let url = format!("{}{path}", self.base);
        let uri = match url.parse::<hyper::Uri>() {
            Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) => uri,
            Ok(_) | Err(_) => bail!(
                "{} ({}) is not the address of a server\nhint: give it as http://HOST:PORT",
                self.base,
                self.said_by
            ),
        };
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let value =
                HeaderValue::from_str(value).map_err(|_| anyhow!("{name} holds characters that no header takes"))?;
            all.insert(*name, value);
        }
        if let Some(key) = &self.key {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
                .map_err(|_| anyhow!("the API key holds characters that no key has"))?;
            value.set_sensitive(true);
            all.insert(AUTHORIZATION, value);
        }
        Ok(HttpRequest { method, uri, headers: all, body: Bytes::new() })
    }

    fn unanswered(&self, error: &HttpError, otherwise: &str) -> anyhow::Error {
        let hint =
            if error.kind.nothing_left() { "start it with `vestnik serve`, or set VESTNIK_URL" } else { otherwise };
        anyhow!("no answer from {} (named {}): {}\nhint: {hint}", self.base, self.said_by, error.chain())
    }

    /// A problem document in words: what and why on one line, each mistake on its own.
    pub fn problem(&self, status: StatusCode, body: &[u8]) -> anyhow::Error {
        let problem: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
        let Some(title) = problem.get("title").and_then(Value::as_str) else {
            return anyhow!(
                "{} (named {}) answered {status}, and not as vestnik does\nhint: is the address right?",
                self.base,
                self.said_by
            );
        };
        let mut message = printable(title);
        let errors = problem.get("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let detail = problem.get("detail").and_then(Value::as_str).unwrap_or_default();
        // With a list of mistakes the detail only repeats the first.
        if errors.is_empty() && !detail.is_empty() {
            message.push_str(&format!(": {}", printable(detail)));
        }
        for error in errors {
            message.push_str(&format!("\n  {}", mistake(error)));
        }
        match status {
            StatusCode::UNAUTHORIZED => {
                message.push_str("\nhint: set VESTNIK_KEY (or --key); `vestnik keys create NAME` makes a key");
            }
            StatusCode::FORBIDDEN if self.key.is_some() => {
                message.push_str("\nhint: `vestnik keys list` shows what each key may do");
            }
            StatusCode::INTERNAL_SERVER_ERROR => {
                let id = problem.get("instance").and_then(Value::as_str).unwrap_or("?");
                message.push_str(&format!("\nhint: the server's log has the cause under {}", printable(id)));
            }
            _ => {}
        }
        anyhow!(message)
    }
}

/// `/data: the variable … (part /text, line 1, column 9)`.
fn mistake(error: &Value) -> String {
    let text = |name: &str| error[name].as_str().map(printable).unwrap_or_default();
    // A rendering's detail names the place already.
    let place = match &error["template"] {
        Value::Object(place) if !text("detail").contains(", line ") => format!(
            " (template {}, line {}, column {})",
            place.get("part").and_then(Value::as_str).map(printable).unwrap_or_default(),
            place.get("line").unwrap_or(&Value::Null),
            place.get("column").unwrap_or(&Value::Null),
        ),
        _ => String::new(),
    };
    match text("pointer") {
        pointer if pointer.is_empty() => format!("{}{place}", text("detail")),
        pointer => format!("{pointer}: {}{place}", text("detail")),
    }
}

/// For a path or a query.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// Words from elsewhere, fit for a terminal: one line, no control characters.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `1 row`, `2 rows`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A field of an answer, fit for a terminal; empty when it is not there.
pub fn field(value: &Value, name: &str) -> String {
    match &value[name] {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "row")), ["0 rows", "1 row", "2 rows"]);
    }

    #[test]
    fn each_mistake_has_its_own_line() {
        let client = Client::at("http://x/", "by a test", None);
        let body = json!({
            "type": "urn:vestnik:invalid", "title": "The request is wrong", "detail": "first",
            "errors": [
                { "pointer": "/recipient", "detail": "not a valid phone number\u{1b}[2J" },
                { "pointer": "/data", "detail": "`name` is missing", "template": { "part": "/text", "line": 2, "column": 7 } },
            ],
        });
        let error = client.problem(StatusCode::UNPROCESSABLE_ENTITY, body.to_string().as_bytes());
        assert_eq!(
            error.to_string(),
            "The request is wrong\n  /recipient: not a valid phone number [2J\n  /data: `name` is missing (template \
             /text, line 2, column 7)"
        );
        let error = client.problem(StatusCode::BAD_GATEWAY, b"<html>");
        assert!(error.to_string().contains("answered 502 Bad Gateway, and not as vestnik does"), "{error}");
    }
}
