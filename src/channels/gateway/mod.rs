//! An SMS gateway with an HTTP interface, described by the settings alone.
//!
//! `[sms.<account>.http]` says what is asked (method, URL, query, headers, a form or JSON) and how the answer is read.
//! Values are written by the place they go to and cannot break out of it. Secrets stand in `secrets.<name>`; they are
//! in no log, and cut out of what an answer repeats of them. Examples: `assets/gateways/`.

mod answer;
mod pattern;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Uri};
use secrecy::ExposeSecret;
use serde_json::Value;

use self::answer::AnswerRules;
use self::pattern::{Allowed, Constants, Pattern, Values};
use super::Provider;
use super::endpoint::{
    ConfigProblem, Endpoint, Request, form, never, percent_encoded, phone, plain_text, printable, uri,
};
use super::http_client::HttpClient;
use super::outcomes::detail;
use crate::config::sms::{GatewayMethod, GatewaySettings, SmsSettings};
use crate::domain::{AccountRef, Channel, Outcome, OutgoingMessage, PermanentReason, PhoneNumber, ProviderError};

/// One account at one gateway.
pub struct Gateway {
    account: AccountRef,
    endpoint: Endpoint,
    url: String,
    query: Vec<(String, Pattern)>,
    headers: Vec<(HeaderName, Pattern)>,
    body: Body,
    answer: AnswerRules,
    /// Its own way out, for it may be on another host.
    check: Option<(Endpoint, Uri)>,
    /// What may never be kept or shown; the longest first, so that none is cut in two by another.
    secrets: Vec<String>,
}

/// What the request carries.
enum Body {
    /// A GET: everything is in the query.
    None,
    Form(Vec<(String, Pattern)>),
    Json(JsonPattern),
}

/// JSON whose texts may hold placeholders.
enum JsonPattern {
    Text(Pattern),
    List(Vec<JsonPattern>),
    Object(Vec<(String, JsonPattern)>),
    Other(Value),
}

impl Gateway {
    pub fn new(
        account_name: &str,
        settings: &SmsSettings,
        gateway: &GatewaySettings,
        client: HttpClient,
    ) -> Result<Self, ConfigProblem> {
        let account = AccountRef { channel: Channel::Sms, name: account_name.into() };
        let constants = Constants { from: gateway.from.as_deref(), secrets: &gateway.secrets };
        let parse = |setting: &str, text: &str, allowed: Allowed| {
            Pattern::parse(text, constants, allowed)
                .map_err(|problem| ConfigProblem::new(&account, &format!("http.{setting}"), problem))
        };
        let pairs = |table: &str, pairs: &std::collections::BTreeMap<String, String>| {
            let pattern = |(name, text): (&String, &String)| {
                Ok((name.clone(), parse(&format!("{table}.{name}"), text, Allowed::Message)?))
            };
            pairs.iter().map(pattern).collect::<Result<Vec<_>, ConfigProblem>>()
        };
        let endpoint = |setting: &str, text: &str| {
            let url = constant(&parse(setting, text, Allowed::Constants)?, percent_encoded);
            if !url.starts_with("http://") && !url.starts_with("https://") {
                let problem = "has to begin with http:// or https://";
                return Err(ConfigProblem::new(&account, &format!("http.{setting}"), problem));
            }
            let parsed = uri(&account, &format!("http.{setting}"), &url)?;
            let (connect_ms, total_ms) = (settings.connect_timeout_ms, settings.timeout_ms);
            Ok((Endpoint::new(&account, client.clone(), &parsed, connect_ms, total_ms)?, url, parsed))
        };
        let headers = gateway.headers.iter().map(|(name, text)| {
            let setting = format!("headers.{name}");
            let parsed = HeaderName::try_from(name)
                .map_err(|_| ConfigProblem::new(&account, &format!("http.{setting}"), "is not the name of a header"))?;
            Ok((parsed, parse(&setting, text, Allowed::Id)?))
        });
        let headers = headers.collect::<Result<Vec<_>, ConfigProblem>>()?;
        let body = match (gateway.method, gateway.form.is_empty(), &gateway.json) {
            (GatewayMethod::Get, true, None) => Body::None,
            (GatewayMethod::Post, false, None) => Body::Form(pairs("form", &gateway.form)?),
            (GatewayMethod::Post, true, Some(json)) => {
                let problem = |text: String| ConfigProblem::new(&account, "http.json", text);
                let json = serde_json::from_str(json).map_err(|error| problem(format!("is not JSON: {error}")))?;
                Body::Json(JsonPattern::new(json, constants).map_err(problem)?)
            }
            (GatewayMethod::Get, _, _) => {
                let problem = "is GET, which carries neither a form nor JSON: put them into query";
                return Err(ConfigProblem::new(&account, "http.method", problem));
            }
            (GatewayMethod::Post, _, _) => {
                return Err(ConfigProblem::new(&account, "http", "needs either a form or json"));
            }
        };
        let answer = AnswerRules::new(&account, &gateway.answer, constants)?;
        let query = pairs("query", &gateway.query)?;
        let (own, url, _) = endpoint("url", &gateway.url)?;
        let check = match &gateway.check_url {
            Some(text) => endpoint("check_url", text).map(|(endpoint, _, uri)| Some((endpoint, uri)))?,
            None => None,
        };
        let mut secrets: Vec<String> =
            gateway.secrets.values().map(|secret| secret.expose_secret().to_owned()).collect();
        secrets.extend(secrets.clone().iter().map(|secret| percent_encoded(secret)));
        secrets.retain(|secret| !secret.is_empty());
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        let gateway = Gateway { account, endpoint: own, url, query, headers, body, answer, check, secrets };
        gateway.headers_for(&NOTHING).map_err(|_| {
            ConfigProblem::new(&gateway.account, "http.headers", "hold what does not fit into a header")
        })?;
        Ok(gateway)
    }

    fn request(&self, values: &Values<'_>) -> Result<Request, Outcome> {
        let uri = self.uri(values)?;
        let mut request = match &self.body {
            Body::None => Request::get(&uri),
            Body::Form(pairs) => {
                let pairs = filled(pairs, values);
                Request::form(&uri, pairs.iter().map(|(name, value)| (*name, value.as_str())))
            }
            Body::Json(json) => Request::json(&uri, &json.filled(values))?,
        };
        let headers = self.headers_for(values);
        request.headers.extend(headers.or_else(|text| never(PermanentReason::Content, text))?);
        Ok(request)
    }

    fn uri(&self, values: &Values<'_>) -> Result<Uri, Outcome> {
        let mut url = self.url.clone();
        if !self.query.is_empty() {
            url.push(if url.contains('?') { '&' } else { '?' });
            let pairs = filled(&self.query, values);
            url.push_str(&form(pairs.iter().map(|(name, value)| (*name, value.as_str()))));
        }
        // Only a text of many kilobytes can make it too long.
        url.parse().or_else(|_| never(PermanentReason::Content, "the message does not fit into a URL"))
    }

    fn headers_for(&self, values: &Values<'_>) -> Result<HeaderMap, &'static str> {
        let header = |(name, pattern): &(HeaderName, Pattern)| {
            let mut value = HeaderValue::from_str(&pattern.filled(values)).map_err(|_| "a header cannot be written")?;
            value.set_sensitive(true);
            Ok((name.clone(), value))
        };
        self.headers.iter().map(header).collect()
    }

    fn without_secrets(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }

    fn outcome_without_secrets(&self, mut outcome: Outcome) -> Outcome {
        match &mut outcome {
            Outcome::Accepted { .. } => {}
            Outcome::Permanent { error, .. }
            | Outcome::Transient { error, .. }
            | Outcome::Throttled { error, .. }
            | Outcome::ChannelDown { error, .. }
            | Outcome::Ambiguous { error } => {
                *error = ProviderError::new(self.without_secrets(&error.code), self.without_secrets(&error.detail));
            }
        }
        outcome
    }
}

#[async_trait]
impl Provider for Gateway {
    fn account(&self) -> &AccountRef {
        &self.account
    }

    async fn send(&self, message: &OutgoingMessage, limit: Duration) -> Outcome {
        let (phone, text) = match phone(message, "SMS").and_then(|phone| Ok((phone, plain_text(message, "SMS")?))) {
            Ok(found) => found,
            Err(outcome) => return outcome,
        };
        let id = message.id.to_string();
        let values = values(phone, text, &id);
        let request = self.request(&values);
        let outcome = self.endpoint.deliver(request, limit, |answer| self.answer.outcome(answer, &values)).await;
        self.outcome_without_secrets(outcome)
    }

    async fn check(&self, limit: Duration) -> Result<String, String> {
        let Some((endpoint, uri)) = &self.check else {
            return Ok("the settings are readable; without http.check_url nothing is asked".to_owned());
        };
        let mut request = Request::get(uri);
        request.headers = self.headers_for(&NOTHING)?;
        let answer = endpoint.ask(request, limit).await?;
        let said = printable(&self.without_secrets(&detail(&answer.body)));
        match self.answer.is_fine(&answer, &NOTHING) {
            true => Ok(format!("answered {}: {said}", answer.status.as_u16())),
            false => Err(format!("the gateway answered {}: {said}", answer.status.as_u16())),
        }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gateway({})", self.account)
    }
}

/// What stands for a message where there is none.
const NOTHING: Values<'static> = Values { to: "", to_digits: "", text: "", id: "" };

fn values<'a>(phone: &'a PhoneNumber, text: &'a str, id: &'a str) -> Values<'a> {
    Values { to: phone.as_str(), to_digits: phone.digits(), text, id }
}

fn filled<'a>(pairs: &'a [(String, Pattern)], values: &Values<'_>) -> Vec<(&'a str, String)> {
    pairs.iter().map(|(name, pattern)| (name.as_str(), pattern.filled(values))).collect()
}

fn constant(pattern: &Pattern, write: fn(&str) -> String) -> String {
    pattern.written(&NOTHING, |value| write(value).into())
}

impl JsonPattern {
    fn new(json: Value, constants: Constants<'_>) -> Result<Self, String> {
        Ok(match json {
            Value::String(text) => JsonPattern::Text(Pattern::parse(&text, constants, Allowed::Message)?),
            Value::Array(items) => {
                let items = items.into_iter().map(|item| JsonPattern::new(item, constants));
                JsonPattern::List(items.collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| Ok((name, JsonPattern::new(value, constants)?)));
                JsonPattern::Object(fields.collect::<Result<_, String>>()?)
            }
            other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => JsonPattern::Other(other),
        })
    }

    fn filled(&self, values: &Values<'_>) -> Value {
        match self {
            JsonPattern::Text(pattern) => pattern.filled(values).into(),
            JsonPattern::List(items) => items.iter().map(|item| item.filled(values)).collect(),
            JsonPattern::Object(fields) => {
                fields.iter().map(|(name, value)| (name.clone(), value.filled(values))).collect()
            }
            JsonPattern::Other(value) => value.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
