//! A mail server that takes messages by SMTP.
//!
//! Taken is not delivered: the server says only that it will try, and what comes of it may come back as a bounce.
//! SMTP deduplicates nothing; our Message-ID is the same at every attempt, which lets many mailboxes merge two copies.
//! The file of each part says where its facts come from: `session` (the protocol), `replies` (what refusals mean),
//! `compose` (the message), `dkim` (the signature), `attach` (files), `pool` (kept connections).

mod attach;
mod compose;
mod dkim;
mod pool;
mod replies;
mod reply;
mod session;
mod wire;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::time::Instant;

use self::attach::Fetcher;
use self::compose::{Letter, Stationery, domain};
use self::dkim::Dkim;
use self::pool::Pool;
use self::session::{Server, Session};
use self::wire::Patience;
use super::Provider;
use super::endpoint::{ConfigProblem, printable};
use super::http_client::HttpClient;
use super::tls::Trust;
use crate::config::email::{DkimSettings, EmailSettings, Tls};
use crate::domain::{
    AccountRef, Channel, Clock, Content, EmailContent, Outcome, OutgoingMessage, PermanentReason, ProviderError,
    Recipient,
};

/// One sender at one mail server.
pub struct Email {
    account: AccountRef,
    stationery: Stationery,
    fetcher: Fetcher,
    pool: Pool,
    clock: Arc<dyn Clock>,
    connect: Duration,
    command: Duration,
    data: Duration,
}

impl Email {
    pub fn new(account_name: &str, settings: &EmailSettings, clock: Arc<dyn Clock>) -> Result<Self, ConfigProblem> {
        let account = AccountRef { channel: Channel::Email, name: account_name.into() };
        let problem = |setting: &str, text: String| ConfigProblem::new(&account, setting, text);
        let host = settings.host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|_| problem("host", "is no name that TLS knows".into()))?;
        let trust = match &settings.ca_file {
            Some(path) => Trust::of_file(path)
                .map_err(|error| problem("ca_file", format!("cannot be read ({}): {error}", path.display())))?,
            None => Trust::default(),
        };
        let own_domain = domain(settings.from.address.as_str());
        let server = Server {
            host: settings.host.clone(),
            port: settings.port(),
            tls: settings.tls,
            name,
            trust,
            credentials: settings.username.clone().zip(settings.password.clone()),
            helo_name: settings.helo_name.clone().unwrap_or_else(|| own_domain.to_owned()),
        };
        let dkim = |dkim: &DkimSettings| {
            let domain = dkim.domain.as_deref().unwrap_or(own_domain);
            Dkim::new(&dkim.selector, domain, dkim.private_key.expose_secret())
        };
        let dkim = settings.dkim.as_ref().map(dkim).transpose();
        let stationery = Stationery {
            from: settings.from.clone(),
            reply_to: settings.reply_to.clone(),
            envelope_from: settings.envelope_from.clone(),
            list_unsubscribe: settings.list_unsubscribe.clone(),
            dkim: dkim.map_err(|error| problem("dkim.private_key", error))?,
        };
        let allow_private = settings.attachments_allow_private;
        let fetcher = Fetcher {
            client: if allow_private { HttpClient::new() } else { HttpClient::public_only() },
            limit_bytes: settings.attachments_limit_bytes,
            timeout: Duration::from_millis(settings.attachments_timeout_ms),
        };
        Ok(Email {
            stationery,
            fetcher,
            pool: Pool::new(server, settings.connections),
            clock,
            connect: Duration::from_millis(settings.connect_timeout_ms),
            command: Duration::from_millis(settings.command_timeout_ms),
            data: Duration::from_millis(settings.data_timeout_ms),
            account,
        })
    }

    fn patience(&self, time_limit: Duration) -> Patience {
        let deadline = Instant::now() + time_limit;
        Patience { connect: self.connect, command: self.command, data: self.data, deadline }
    }

    async fn letter(&self, message: &OutgoingMessage, patience: &Patience) -> Result<Letter, Outcome> {
        let never = |reason, text: &str| {
            Err(Outcome::Permanent { reason, error: ProviderError::new("wrong_channel", text.to_owned()) })
        };
        let Recipient::Email(to) = &message.recipient else {
            return never(PermanentReason::Recipient, "an email needs an email address");
        };
        let content = match &message.content {
            Content::Email(content) => Cow::Borrowed(content),
            Content::Text(text) => Cow::Owned(titled(text)),
            Content::TelegramHtml(_) => return never(PermanentReason::Content, "email takes no Telegram HTML"),
            Content::WhatsAppTemplate(_) => return never(PermanentReason::Content, "email takes no WhatsApp template"),
        };
        let files = self.fetcher.bring(&content.attachments, patience.deadline).await?;
        Ok(self.stationery.compose(message.id, to.as_str(), &content, files, self.clock.now()))
    }
}

#[async_trait]
impl Provider for Email {
    fn account(&self) -> &AccountRef {
        &self.account
    }

    fn width(&self) -> Option<usize> {
        Some(self.pool.connections())
    }

    async fn send(&self, message: &OutgoingMessage, limit: Duration) -> Outcome {
        let patience = self.patience(limit);
        let letter = match self.letter(message, &patience).await {
            Ok(letter) => letter,
            Err(outcome) => return outcome,
        };
        let mut taken = match self.pool.take(&patience).await {
            Ok(taken) => taken,
            Err(outcome) => return outcome,
        };
        let carried = taken.session.carry(&letter, &patience).await;
        if carried.is_usable {
            self.pool.give_back(taken, &patience).await;
        }
        carried.outcome
    }

    async fn check(&self, limit: Duration) -> Result<String, String> {
        let patience = self.patience(limit);
        let server = self.pool.server();
        let mut session = Session::open(server, &patience).await.map_err(|outcome| in_words(&outcome))?;
        if !session.is_alive(&patience).await {
            return Err("the server let us in, and then did not answer NOOP".into());
        }
        let offers = session.offers.clone();
        session.quit(&patience).await;
        let mut said = vec![format!("{}:{}", server.host, server.port)];
        said.push(match server.tls {
            Tls::Starttls => "encrypted by STARTTLS".into(),
            Tls::Implicit => "encrypted".into(),
            Tls::None => "not encrypted".into(),
        });
        said.push(if server.credentials.is_some() { "signed in".into() } else { "without signing in".into() });
        said.extend(offers.size_bytes.map(|size| format!("takes {size} bytes")));
        let addresses = if offers.utf8 { "addresses in any letters" } else { "ASCII addresses only" };
        said.push(addresses.into());
        Ok(said.join(", "))
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Email({})", self.account)
    }
}

/// A text that no template made has no subject: its first line becomes it.
fn titled(text: &str) -> EmailContent {
    const LONGEST_SUBJECT_CHARS: usize = 100;
    let first = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let subject = first.chars().take(LONGEST_SUBJECT_CHARS).collect();
    EmailContent { subject, text: text.to_owned(), ..EmailContent::default() }
}

/// Why nobody can send, for a person at a terminal.
fn in_words(outcome: &Outcome) -> String {
    let error = outcome.error().map(|error| format!("{} ({})", printable(&error.detail), error.code));
    error.unwrap_or_else(|| outcome.class().to_string())
}
