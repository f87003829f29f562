//! `[email.<account>]`: a mail server that takes messages by SMTP.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::limits::LimitSettings;
use super::secret::{masked, masked_option};
use crate::domain::EmailAddress;

/// Keeps the header that holds it within one line (RFC 5322, 2.1.1: 998 bytes).
const LONGEST_URL_BYTES: usize = 900;
const NOT_IN_THE_CLEAR: &str = "none is for this machine only: use starttls or implicit, or set allow_plaintext = true";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailSettings {
    /// The mail server: a name or an address.
    pub host: String,
    /// By default 587 for `starttls`, 465 for `implicit`, 25 for `none`.
    pub port: Option<u16>,
    #[serde(default)]
    pub tls: Tls,
    /// Lets `tls = "none"` reach another machine. Never together with a password.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// A PEM file of the certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Without it the server has to take mail from us as we are.
    pub username: Option<String>,
    #[serde(default, serialize_with = "masked_option")]
    pub password: Option<SecretString>,
    /// Who the message is from: `Север <news@example.com>`.
    pub from: Mailbox,
    /// Where answers go, if not to `from`.
    pub reply_to: Option<Mailbox>,
    /// Where bounces go, if not to `from`. `{id}` becomes the notification's id, so that a bounce names it.
    pub envelope_from: Option<String>,
    /// How we greet the server; by default the domain of `from`.
    pub helo_name: Option<String>,
    /// Where a person unsubscribes by one click (RFC 8058). `{id}` becomes the notification's id.
    pub list_unsubscribe: Option<String>,
    /// Where times without a zone are read: `Europe/Moscow`.
    pub timezone: Option<String>,
    /// Connections at the same time.
    #[serde(default = "default_connections")]
    pub connections: usize,
    /// Giving up on a connection that does not come about, TLS included, in ms.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// Giving up on the answer to one command, in ms.
    #[serde(default = "default_command_timeout_ms")]
    pub command_timeout_ms: u64,
    /// Giving up on the answer to a whole message, in ms. The send is then uncertain.
    #[serde(default = "default_data_timeout_ms")]
    pub data_timeout_ms: u64,
    /// All attachments of one message together, in bytes.
    #[serde(default = "default_attachments_limit_bytes")]
    pub attachments_limit_bytes: usize,
    /// Giving up on fetching one attachment, in ms.
    #[serde(default = "default_attachments_timeout_ms")]
    pub attachments_timeout_ms: u64,
    /// Lets attachments be fetched from private addresses: who may write a template can then read there.
    #[serde(default)]
    pub attachments_allow_private: bool,
    /// Signs messages here. Without it the server may.
    pub dkim: Option<DkimSettings>,
    #[serde(default)]
    pub limits: LimitSettings,
}

/// A DKIM key (RFC 6376, RFC 8463): RSA from 2048 bits, or Ed25519.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DkimSettings {
    /// The public key is at `<selector>._domainkey.<domain>`.
    pub selector: String,
    /// By default the domain of `from`.
    pub domain: Option<String>,
    /// PEM: `PRIVATE KEY` (PKCS #8) or `RSA PRIVATE KEY`.
    #[serde(serialize_with = "masked")]
    pub private_key: SecretString,
}

/// How the connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Tls {
    /// After a greeting in the clear. A server that does not offer it is not spoken to.
    #[default]
    Starttls,
    /// From the first byte.
    Implicit,
    None,
}

impl TryFrom<String> for Tls {
    type Error = String;

    // serde's own message for a wrong name does not say which there are.
    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "starttls" => Ok(Tls::Starttls),
            "implicit" => Ok(Tls::Implicit),
            "none" => Ok(Tls::None),
            _ => Err(format!("expected starttls, implicit or none, got {name:?}")),
        }
    }
}

impl EmailSettings {
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.tls {
            Tls::Starttls => 587,
            Tls::Implicit => 465,
            Tls::None => 25,
        })
    }

    /// The first setting that no type could refuse, by its name within the section, and what is wrong with it.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        let numbers = [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("command_timeout_ms", self.command_timeout_ms),
            ("data_timeout_ms", self.data_timeout_ms),
            ("attachments_timeout_ms", self.attachments_timeout_ms),
            ("connections", self.connections as u64),
            ("port", self.port.unwrap_or(1).into()),
        ];
        if let Some((name, _)) = numbers.into_iter().find(|(_, value)| *value == 0) {
            return Some((name, "must be more than 0".into()));
        }
        let name_like = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        };
        let host_like = |text: &str| name_like(text) || text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let helo_like =
            |text: &str| name_like(text) || (text.starts_with('[') && host_like(&text.replace("IPv6:", "")));
        let refused = |holds: bool, name, message: &str| (!holds).then(|| (name, message.to_owned()));
        let plain = self.tls == Tls::None && !self.is_loopback();
        refused(host_like(&self.host), "host", "expected a mail server's name or address, without port or scheme")
            .or_else(|| refused(!plain || self.allow_plaintext, "tls", NOT_IN_THE_CLEAR))
            .or_else(|| {
                refused(!plain || self.password.is_none(), "password", "would be sent in the clear: tls is none")
            })
            .or_else(|| self.credentials_problem())
            .or_else(|| {
                let helo_name = self.helo_name.as_deref();
                refused(helo_name.is_none_or(helo_like), "helo_name", "expected a host name, or an address in brackets")
            })
            .or_else(|| {
                let fits = |template: &str| EmailAddress::parse(&with_id(template)).is_ok() && template.is_ascii();
                let given = self.envelope_from.as_deref();
                refused(given.is_none_or(fits), "envelope_from", "expected a bare ASCII address, perhaps with {id}")
            })
            .or_else(|| {
                // What may stand between the brackets of a header, and is one URL there.
                let fits = |template: &str| {
                    template.starts_with("https://")
                        && template.contains("{id}")
                        && template.len() <= LONGEST_URL_BYTES
                        && template.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"' | ','))
                };
                let given = self.list_unsubscribe.as_deref();
                refused(given.is_none_or(fits), "list_unsubscribe", "expected https://… in ASCII, with {id} in it")
            })
            .or_else(|| {
                let domain = self.dkim.as_ref().and_then(|dkim| dkim.domain.as_deref());
                refused(domain.is_none_or(name_like), "dkim.domain", "expected a domain, like example.com")
            })
            .or_else(|| {
                let selector = self.dkim.as_ref().map(|dkim| dkim.selector.as_str());
                refused(selector.is_none_or(name_like), "dkim.selector", "expected a name, like s2026")
            })
    }

    fn credentials_problem(&self) -> Option<(&'static str, String)> {
        let password = self.password.as_ref().map(SecretString::expose_secret);
        let whole = |text: &str| !text.is_empty() && !text.contains(char::is_control);
        match (self.username.as_deref(), password) {
            (Some(_), None) => Some(("password", "is missing: username is set".into())),
            (None, Some(_)) => Some(("username", "is missing: password is set".into())),
            (Some(username), _) if !whole(username) => Some(("username", "is empty or holds a line break".into())),
            (_, Some(password)) if !whole(password) => Some(("password", "is empty or holds a line break".into())),
            (None | Some(_), _) => None,
        }
    }

    /// Whether the server is on this machine.
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// An address with the name it is shown under: `Север <news@example.com>`, or the bare address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mailbox {
    pub name: Option<String>,
    pub address: EmailAddress,
}

impl FromStr for Mailbox {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected an address like news@example.com, or Name <news@example.com>".to_owned();
        let (name, address) = match text.trim().strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
            Some((name, address)) => (name.trim().trim_matches('"').trim(), address),
            None => ("", text),
        };
        let address = EmailAddress::parse(address).map_err(|_| expected())?;
        if !address.as_str().is_ascii() {
            return Err("an address of our own has to be ASCII, or few servers would take it".into());
        }
        if name.contains(char::is_control) || name.contains(['<', '>']) {
            return Err(expected());
        }
        Ok(Mailbox { name: (!name.is_empty()).then(|| name.to_owned()), address })
    }
}

impl TryFrom<String> for Mailbox {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Serialize for Mailbox {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let address = self.address.as_str();
        match &self.name {
            Some(name) => serializer.serialize_str(&format!("{name} <{address}>")),
            None => serializer.serialize_str(address),
        }
    }
}

/// `{id}` with something as long as an id in its place.
fn with_id(template: &str) -> String {
    template.replace("{id}", &"0".repeat(32))
}

fn default_connections() -> usize {
    4
}

fn default_connect_timeout_ms() -> u64 {
    5_000
}

fn default_command_timeout_ms() -> u64 {
    10_000
}

fn default_data_timeout_ms() -> u64 {
    60_000
}

fn default_attachments_limit_bytes() -> usize {
    10 * 1024 * 1024
}

fn default_attachments_timeout_ms() -> u64 {
    5_000
}
