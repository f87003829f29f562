//! One conversation with a mail server: greeting, encryption, signing in, and messages one after another.
//!
//! Source: RFC 5321; STARTTLS RFC 3207, AUTH RFC 4954, SIZE RFC 1870, 8BITMIME RFC 6152, SMTPUTF8 RFC 6531, PIPELINING
//! RFC 2920. One recipient per message, so that each has an outcome of its own.
//!
//! What may be said of a message follows from how far its conversation came. Until the last byte of its end mark was
//! given to the system, a server may not have taken it (RFC 5321, 4.1.1.4): transient, and `handed_off` once the first
//! byte of the message itself was written. From then on only a readable reply says what happened.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::compose::Letter;
use super::replies::{Stage, verdict};
use super::reply::Reply;
use super::wire::{Broken, Duplex, Patience, Wire};
use crate::channels::outcomes::Verdict;
use crate::channels::tls;
use crate::config::email::Tls;
use crate::domain::{DownReason, Outcome, PermanentReason, ProviderError};

/// How a server is reached.
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Tls,
    pub(super) name: ServerName<'static>,
    pub(super) trust: tls::Trust,
    pub(super) credentials: Option<(String, SecretString)>,
    pub(super) helo_name: String,
}

/// What the server said it can do, the last time it was greeted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offers {
    pub(super) pipelining: bool,
    pub(super) eight_bit: bool,
    pub(super) utf8: bool,
    pub(super) starttls: bool,
    pub(super) auth_plain: bool,
    pub(super) auth_login: bool,
    /// The largest message, where it says so.
    pub(super) size_bytes: Option<u64>,
}

/// A conversation that is ready for messages.
pub(super) struct Session {
    wire: Wire,
    pub(super) offers: Offers,
    /// Messages it carried.
    pub(super) carried: u32,
    pub(super) idle_since: Instant,
}

/// How one message ended, and whether the conversation can go on.
pub(super) struct Carried {
    pub(super) outcome: Outcome,
    pub(super) is_usable: bool,
}

impl Session {
    /// Connects, encrypts, signs in. Nothing of any message leaves here.
    pub(super) async fn open(server: &Server, patience: &Patience) -> Result<Session, Outcome> {
        let mut wire = Wire::new(connect(server, patience).await?);
        if server.tls == Tls::Implicit {
            wire = encrypt(wire, server, patience).await?;
        }
        let greeting = wire.reply(patience.command, patience).await.map_err(unsent)?;
        positive(Stage::Greeting, greeting)?;
        let mut offers = greet(&mut wire, server, patience).await?;
        if server.tls == Tls::Starttls {
            if !offers.starttls {
                return Err(down(
                    DownReason::Config,
                    "starttls",
                    "the server does not offer STARTTLS: is the port right?",
                ));
            }
            positive(Stage::Greeting, ask(&mut wire, "STARTTLS\r\n", patience).await?)?;
            wire = encrypt(wire, server, patience).await?;
            offers = greet(&mut wire, server, patience).await?;
        }
        if let Some((username, password)) = &server.credentials {
            sign_in(&mut wire, &offers, username, password, patience).await?;
        }
        Ok(Session { wire, offers, carried: 0, idle_since: Instant::now() })
    }

    /// Whether the server said nothing since, not even its farewell. Costs no round trip.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.wire.is_quiet()
    }

    /// Asks whether the server is still there.
    pub(super) async fn is_alive(&mut self, patience: &Patience) -> bool {
        ask(&mut self.wire, "NOOP\r\n", patience).await.is_ok_and(|reply| reply.is_positive())
    }

    /// Takes leave, and does not wait for the answer.
    pub(super) async fn quit(mut self, patience: &Patience) {
        let mut farewell = b"QUIT\r\n".as_slice();
        // The connection is dropped whether or not the server hears of it.
        let _ = patience.within(patience.command, self.wire.write(&mut farewell)).await;
    }

    /// Hands one message over.
    pub(super) async fn carry(&mut self, letter: &Letter, patience: &Patience) -> Carried {
        if let Err(outcome) = self.offers.check(letter) {
            return Carried { outcome, is_usable: true };
        }
        self.carried += 1;
        match self.ask_leave(letter, patience).await {
            Ok(()) => self.hand_over(letter, patience).await,
            Err(ended) => ended,
        }
    }

    /// Everything before the message itself: who it is from, who it is to, and whether it may come.
    async fn ask_leave(&mut self, letter: &Letter, patience: &Patience) -> Result<(), Carried> {
        let commands = [
            (Stage::Mail, self.offers.mail_from(letter)),
            (Stage::Rcpt, format!("RCPT TO:<{}>\r\n", letter.to)),
            (Stage::Data, "DATA\r\n".to_owned()),
        ];
        let at_once = if self.offers.pipelining { commands.len() } else { 1 };
        for together in commands.chunks(at_once) {
            let text: String = together.iter().map(|(_, command)| command.as_str()).collect();
            let written = patience.within(patience.command, self.wire.write(&mut text.as_bytes())).await;
            written.map_err(|broken| Carried { outcome: unsent(broken), is_usable: false })?;
            let mut refused: Option<Outcome> = None;
            let mut is_usable = true;
            for (stage, _) in together {
                let is_data = *stage == Stage::Data;
                match self.wire.reply(patience.command, patience).await {
                    Ok(reply) if reply.code / 100 == if is_data { 3 } else { 2 } => {
                        // Asked along with what was refused, it waits for a message all the same. We rather go.
                        is_usable &= !(is_data && refused.is_some());
                    }
                    Ok(reply) => {
                        // Of a farewell, and of a yes in the wrong place, nothing good follows.
                        is_usable &= reply.code >= 400 && reply.code != 421;
                        refused = refused.or_else(|| Some(refusal(*stage, &reply)));
                    }
                    Err(broken) => {
                        is_usable = false;
                        refused = refused.or_else(|| Some(unsent(broken)));
                    }
                }
                if !is_usable {
                    break;
                }
            }
            if let Some(outcome) = refused {
                let is_usable =
                    is_usable && ask(&mut self.wire, "RSET\r\n", patience).await.is_ok_and(|r| r.is_positive());
                return Err(Carried { outcome, is_usable });
            }
        }
        Ok(())
    }

    async fn hand_over(&mut self, letter: &Letter, patience: &Patience) -> Carried {
        let mut rest = letter.as_sent.as_slice();
        let broken = match patience.within(patience.data, self.wire.write(&mut rest)).await {
            Ok(()) => match self.wire.reply(patience.data, patience).await {
                Ok(reply) if reply.is_positive() => {
                    let outcome = Outcome::Accepted { provider_message_id: letter.taken_as(&reply), note: None };
                    return Carried { outcome, is_usable: true };
                }
                Ok(reply) => {
                    let is_usable = reply.code >= 400 && reply.code != 421;
                    return Carried { outcome: refusal(Stage::Message, &reply), is_usable };
                }
                Err(broken) => broken,
            },
            Err(broken) => broken,
        };
        let error = ProviderError::new(broken.code(), broken.to_string());
        let outcome = if rest.is_empty() {
            Outcome::Ambiguous { error }
        } else {
            Outcome::Transient { handed_off: rest.len() < letter.as_sent.len(), error }
        };
        Carried { outcome, is_usable: false }
    }
}

impl Offers {
    /// Reads the reply to EHLO; its first line is the server's name.
    fn read(reply: &Reply) -> Offers {
        let mut offers = Offers::default();
        for line in reply.lines.iter().skip(1) {
            let line = line.to_ascii_uppercase();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("PIPELINING") => offers.pipelining = true,
                Some("8BITMIME") => offers.eight_bit = true,
                Some("SMTPUTF8") => offers.utf8 = true,
                Some("STARTTLS") => offers.starttls = true,
                // Zero says that there is no limit.
                Some("SIZE") => {
                    offers.size_bytes = words.next().and_then(|size| size.parse().ok()).filter(|&size| size > 0);
                }
                Some("AUTH") => {
                    for mechanism in words {
                        offers.auth_plain |= mechanism == "PLAIN";
                        offers.auth_login |= mechanism == "LOGIN";
                    }
                }
                Some(_) | None => {}
            }
        }
        offers
    }

    /// Whether the server can take this message at all.
    fn check(&self, letter: &Letter) -> Result<(), Outcome> {
        let never = |reason, code: &str, detail: String| {
            Err(Outcome::Permanent { reason, error: ProviderError::new(code, detail) })
        };
        if letter.needs_utf8 && !(self.utf8 && self.eight_bit) {
            let detail = "the address has letters that are not ASCII, and the mail server does not offer SMTPUTF8";
            return never(PermanentReason::Recipient, "smtputf8", detail.into());
        }
        let size_bytes = letter.as_sent.len() as u64;
        match self.size_bytes {
            Some(limit) if size_bytes > limit => {
                let detail = format!("the message has {size_bytes} bytes, and the mail server takes {limit}");
                never(PermanentReason::Content, "too_large", detail)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn mail_from(&self, letter: &Letter) -> String {
        let size = self.size_bytes.map(|_| format!(" SIZE={}", letter.as_sent.len())).unwrap_or_default();
        // Without it a message is all ASCII: nothing else has to be said of its body.
        let utf8 = if letter.needs_utf8 { " BODY=8BITMIME SMTPUTF8" } else { "" };
        format!("MAIL FROM:<{}>{size}{utf8}\r\n", letter.from)
    }
}

async fn connect(server: &Server, patience: &Patience) -> Result<TcpStream, Outcome> {
    let host = server.host.trim_matches(['[', ']']);
    let stream = patience.within(patience.connect, TcpStream::connect((host, server.port))).await;
    let stream = stream.map_err(|broken| match broken {
        Broken::Lost(error) => not_sent("connect", format!("connecting failed: {error}")),
        Broken::Timeout | Broken::Unreadable(_) => not_sent("connect_timeout", "no connection within the time limit"),
    })?;
    // Commands are small, and each waits for its answer.
    stream.set_nodelay(true).map_err(|error| not_sent("connect", format!("connecting failed: {error}")))?;
    Ok(stream)
}

async fn encrypt(wire: Wire, server: &Server, patience: &Patience) -> Result<Wire, Outcome> {
    let stream: Box<dyn Duplex> = wire.into_stream().map_err(unsent)?;
    let config = server.trust.config().await.map_err(|error| not_sent("connect", format!("TLS: {error}")))?;
    let connector = TlsConnector::from(Arc::clone(&config));
    match patience.within(patience.connect, connector.connect(server.name.clone(), stream)).await {
        Ok(stream) => Ok(Wire::new(stream)),
        Err(Broken::Lost(error)) => {
            let detail = format!("TLS failed: {error}");
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            match cause {
                // No waiting makes it another server.
                Some(rustls::Error::InvalidCertificate(_)) => Err(down(DownReason::Config, "certificate", detail)),
                Some(_) | None => Err(not_sent("connect", detail)),
            }
        }
        Err(broken) => Err(unsent(broken)),
    }
}

async fn greet(wire: &mut Wire, server: &Server, patience: &Patience) -> Result<Offers, Outcome> {
    let reply = ask(wire, &format!("EHLO {}\r\n", server.helo_name), patience).await?;
    positive(Stage::Greeting, reply).map(|reply| Offers::read(&reply))
}

async fn sign_in(
    wire: &mut Wire,
    offers: &Offers,
    username: &str,
    password: &SecretString,
    patience: &Patience,
) -> Result<(), Outcome> {
    let in_base64 = |text: &str| BASE64_STANDARD.encode(text);
    let lines = if offers.auth_plain {
        vec![format!("AUTH PLAIN {}\r\n", in_base64(&format!("\0{username}\0{}", password.expose_secret())))]
    } else if offers.auth_login {
        let answers = [username, password.expose_secret()].map(|text| format!("{}\r\n", in_base64(text)));
        std::iter::once("AUTH LOGIN\r\n".to_owned()).chain(answers).collect()
    } else {
        return Err(down(DownReason::Config, "auth", "the server offers neither AUTH PLAIN nor AUTH LOGIN"));
    };
    let last = lines.len() - 1;
    for (index, line) in lines.iter().enumerate() {
        let reply = ask(wire, line, patience).await?;
        let expected = if index == last { 2 } else { 3 };
        if reply.code / 100 != expected {
            return Err(refusal(Stage::Auth, &reply));
        }
    }
    Ok(())
}

/// One command and its reply, before any message.
async fn ask(wire: &mut Wire, command: &str, patience: &Patience) -> Result<Reply, Outcome> {
    patience.within(patience.command, wire.write(&mut command.as_bytes())).await.map_err(unsent)?;
    wire.reply(patience.command, patience).await.map_err(unsent)
}

fn positive(stage: Stage, reply: Reply) -> Result<Reply, Outcome> {
    if reply.is_positive() { Ok(reply) } else { Err(refusal(stage, &reply)) }
}

fn refusal(stage: Stage, reply: &Reply) -> Outcome {
    let error = ProviderError::new(reply.codes(), reply.text());
    match verdict(stage, reply) {
        Verdict::Transient => Outcome::Transient { handed_off: stage == Stage::Message, error },
        verdict => verdict.into_outcome(None, error),
    }
}

fn unsent(broken: Broken) -> Outcome {
    not_sent(broken.code(), broken.to_string())
}

fn not_sent(code: &str, detail: impl Into<String>) -> Outcome {
    Outcome::Transient { handed_off: false, error: ProviderError::new(code, detail) }
}

fn down(reason: DownReason, code: &str, detail: impl Into<String>) -> Outcome {
    Outcome::ChannelDown { reason, error: ProviderError::new(code, detail) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

    use super::*;

    #[test]
    fn offers_are_read_in_any_case() {
        let reply =
            Reply::of("250-mx.example.com\n250-pipelining\n250-SIZE 1000\n250-AUTH LOGIN PLAIN XOAUTH2\n250 SMTPUTF8");
        let offers = Offers::read(&reply);
        assert_eq!(
            offers,
            Offers {
                pipelining: true,
                utf8: true,
                auth_plain: true,
                auth_login: true,
                size_bytes: Some(1000),
                ..Offers::default()
            }
        );
        assert_eq!(Offers::read(&Reply::of("250-PIPELINING\n250 SIZE 0")), Offers::default());
    }

    /// A server that answers each of these lines with what stands beside it.
    async fn scripted(stream: tokio::io::DuplexStream, script: &[(&str, &str)]) {
        let mut stream = BufReader::new(stream);
        for (expected, answer) in script {
            let mut line = String::new();
            stream.read_line(&mut line).await.expect("a line");
            assert_eq!(line.trim_end(), *expected);
            stream.write_all(format!("{answer}\r\n").as_bytes()).await.expect("written");
        }
    }

    #[tokio::test]
    async fn a_server_without_plain_is_told_name_and_password_one_after_the_other() {
        let limit = Duration::from_secs(5);
        let patience = Patience { connect: limit, command: limit, data: limit, deadline: Instant::now() + limit };
        let offers = Offers { auth_login: true, ..Offers::default() };
        for (last, is_in) in [("235 2.7.0 welcome", true), ("535 5.7.8 no", false), ("334 more?", false)] {
            let (ours, theirs) = tokio::io::duplex(1024);
            let script = [("AUTH LOGIN", "334 VXNlcm5hbWU6"), ("bmV3cw==", "334 UGFzc3dvcmQ6"), ("cGFzcw==", last)];
            let mut wire = Wire::new(ours);
            let password = "pass".into();
            let signed_in = sign_in(&mut wire, &offers, "news", &password, &patience);
            let (result, ()) = futures::join!(signed_in, scripted(theirs, &script));
            assert_eq!(result.is_ok(), is_in, "{last}: {result:?}");
        }
    }
}
