//! `[queue]`: what carries work between processes.

use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::secret::masked_option;

/// Below, a busy machine is taken for a dead one; above, a dead one is believed in for minutes.
const HEARTBEAT_SECONDS: std::ops::RangeInclusive<u16> = 5..=300;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    /// RabbitMQ instead of the queue within the process. Also as `RABBITMQ_URL`.
    #[serde(default, serialize_with = "masked_option")]
    pub rabbitmq_url: Option<SecretString>,
    pub queue_type: QueueType,
    /// Whether to make the exchanges and queues that are missing, where the broker lets us; else they are only looked
    /// for.
    pub declare: bool,
    /// A PEM file of certificates to trust beside the system's, for `amqps://`.
    pub ca_file: Option<PathBuf>,
    /// A broker that is silent for twice as long counts as gone. In the URL as `?heartbeat=`, that one holds.
    pub heartbeat_seconds: u16,
}

/// How RabbitMQ keeps what is in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum QueueType {
    /// Copied to a majority of the nodes before it is confirmed.
    Quorum,
    /// On one node.
    Classic,
}

impl TryFrom<String> for QueueType {
    type Error = String;

    // serde's own message for a wrong name does not say which there are.
    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "quorum" => Ok(QueueType::Quorum),
            "classic" => Ok(QueueType::Classic),
            _ => Err(format!("expected quorum or classic, got {name:?}")),
        }
    }
}

impl QueueSettings {
    /// What is wrong with them, as the setting's name and what to do.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        if !HEARTBEAT_SECONDS.contains(&self.heartbeat_seconds) {
            let (least, most) = (HEARTBEAT_SECONDS.start(), HEARTBEAT_SECONDS.end());
            return Some(("heartbeat_seconds", format!("must be from {least} to {most}")));
        }
        let url = self.rabbitmq_url.as_ref().map(SecretString::expose_secret);
        if let Some(message) = url.and_then(url_problem) {
            return Some(("rabbitmq_url", message.into()));
        }
        let encrypted = url.is_none_or(|url| url.starts_with("amqps://"));
        (!encrypted && self.ca_file.is_some()).then(|| ("ca_file", "is for amqps://, and rabbitmq_url is not".into()))
    }
}

/// What the client would get wrong without a word, and what it cannot read. Never quotes the URL.
fn url_problem(url: &str) -> Option<&'static str> {
    let rest = ["amqp://", "amqps://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let Some(rest) = rest else { return Some("expected amqp://… or amqps://…") };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.starts_with('[') {
        return Some("an IPv6 address would be read as localhost: give the host a name");
    }
    if host.contains(',') {
        return Some("expected one host: several need a name or a load balancer that stands for them");
    }
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    if name.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Some("expected a host and perhaps a port: amqp://user:password@host:5672/%2f");
    }
    match path {
        Some("") => {
            return Some("ends in `/`, which is a virtual host without a name: leave it out, or write /%2f for `/`");
        }
        Some(path) if path.contains('/') => return Some("a `/` in the virtual host's name is written %2f"),
        Some(_) | None => {}
    }
    let heartbeats = query.split('&').filter_map(|pair| pair.strip_prefix("heartbeat="));
    heartbeats
        .map(|value| value.parse::<u16>().is_ok_and(|seconds| HEARTBEAT_SECONDS.contains(&seconds)))
        .any(|fits| !fits)
        .then_some("its heartbeat must be from 5 to 300 s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_would_be_misread_are_refused() {
        for (url, word) in [
            ("http://secret@host", "amqp://"),
            ("amqp://u:secret@[::1]:5672/%2f", "IPv6"),
            ("amqp://u:secret@a,b/%2f", "one host"),
            ("amqp://u:secret@:5672", "a host"),
            ("amqp://u:secret@host:port", "a host"),
            ("amqp://u:secret@host/", "%2f"),
            ("amqp://u:secret@host/a/b", "%2f"),
            ("amqp://u:secret@host/%2f?heartbeat=abc", "heartbeat"),
            ("amqps://u:secret@host/%2f?heartbeat=0", "heartbeat"),
        ] {
            let said = url_problem(url).unwrap_or_else(|| panic!("{url} was taken"));
            assert!(said.contains(word) && !said.contains("secret"), "{url}: {said}");
        }
        for url in ["amqp://q", "amqp://u:p%40x@host:5672/%2f", "amqps://host/vestnik?heartbeat=20"] {
            assert_eq!(url_problem(url), None, "{url}");
        }
    }
}
