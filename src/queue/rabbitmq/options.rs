//! The settings as the client takes them: read once, before the first connection.

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;
use secrecy::ExposeSecret as _;

use super::tls;
use crate::config::queue::{QueueSettings, QueueType};

/// Where the broker is and how we treat it. Its `Debug` shows no password.
#[derive(Clone)]
pub struct Options {
    pub(super) uri: AMQPUri,
    /// PEM of certificates to trust beside the system's.
    pub(super) ca: Option<String>,
    pub(super) queue_type: QueueType,
    pub(super) declare: bool,
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("queue.rabbitmq_url is not set")]
    NoUrl,
    // Its parser's own words may quote the URL, password included.
    #[error(
        "queue.rabbitmq_url cannot be read: expected amqp://user:password@host:5672/%2f, with %-codes for special signs"
    )]
    Url,
    #[error("queue.ca_file: cannot read {path}")]
    CaFile { path: String, source: Box<dyn std::error::Error + Send + Sync> },
}

impl Options {
    /// Reads the URL and the file it needs. The settings have been checked.
    pub fn read(settings: &QueueSettings) -> Result<Self, OptionsError> {
        let url = settings.rabbitmq_url.as_ref().ok_or(OptionsError::NoUrl)?;
        let mut uri: AMQPUri = url.expose_secret().parse().map_err(|_| OptionsError::Url)?;
        uri.query.heartbeat.get_or_insert(settings.heartbeat_seconds);
        let read = |path: &std::path::PathBuf| {
            tls::read_ca(path).map_err(|source| OptionsError::CaFile { path: path.display().to_string(), source })
        };
        let ca = settings.ca_file.as_ref().map(read).transpose()?;
        Ok(Options { uri, ca, queue_type: settings.queue_type, declare: settings.declare })
    }

    /// Where it is, for people: host, port and virtual host.
    pub fn place(&self) -> String {
        format!("{}:{}, virtual host `{}`", self.uri.authority.host, self.uri.authority.port, self.uri.vhost)
    }

    pub(super) fn tls(&self) -> OwnedTLSConfig {
        OwnedTLSConfig { cert_chain: self.ca.clone(), ..OwnedTLSConfig::default() }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Options({})", self.place())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Options, OptionsError> {
        Options::read(&QueueSettings {
            rabbitmq_url: Some(url.into()),
            queue_type: QueueType::Quorum,
            declare: true,
            ca_file: None,
            heartbeat_seconds: 15,
        })
    }

    #[test]
    fn the_parts_of_a_url_are_decoded_and_its_password_is_not_shown() {
        let options = read("amqp://me:top%40secret@broker/%2f").expect("fine");
        assert_eq!(options.uri.authority.userinfo.password, "top@secret");
        assert_eq!(options.place(), "broker:5672, virtual host `/`");
        assert!(!format!("{options:?}").contains("secret"));
        assert_eq!(options.uri.query.heartbeat, Some(15));
        assert_eq!(read("amqps://broker/v?heartbeat=20").expect("fine").uri.query.heartbeat, Some(20));
        let error = read("amqp://me:topsecret@bro ker").expect_err("no host name");
        assert!(!format!("{error} {error:?}").contains("topsecret"));
    }
}
