//! One conversation with a mail client.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio_rustls::TlsAcceptor;

use super::command::{Command, Path};
use super::fault::{SmtpFaultKind, SmtpStage};
use super::reply::SmtpReply;
use super::transaction::{Action, How, Transaction, Trouble, decide};
use super::wire::Wire;
use crate::domain::Channel;
use crate::simulator::chance::{self, Purpose};
use crate::simulator::scenario::{Point, Scenario};
use crate::simulator::stage::Stage;

/// RFC 5321 wants 512; some clients' AUTH lines are longer.
const LINE_LIMIT_BYTES: usize = 4096;
/// Refused commands until the client is sent away.
const MISTAKES_MOST: u32 = 50;
/// Stands for the recipient where chance decides about a connection. No address has a space.
const CONNECTION: &str = "the connection";
/// Whom the record names for mail from nobody in particular.
const NOBODY: &str = "anonymous";

pub(super) struct Session<'a> {
    wire: Wire,
    stage: &'a Stage,
    acceptor: TlsAcceptor,
    /// What holds for the mail that is under way.
    scenario: Arc<Scenario>,
    /// What the client calls itself; `None` before it has.
    client: Option<String>,
    user: Option<String>,
    /// What shall go wrong with the connection.
    trouble: Option<Trouble>,
    transaction: Option<Transaction>,
    mistakes: u32,
}

/// Whether the conversation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    On,
    End,
}

/// What comes of a step at which something may go wrong.
enum Step {
    /// The proper reply is due; slowly, if so.
    Proper {
        slow: bool,
    },
    Done(Flow),
}

impl<'a> Session<'a> {
    pub(super) fn new(wire: Wire, stage: &'a Stage, acceptor: TlsAcceptor) -> Session<'a> {
        let scenario = stage.scenario();
        Session {
            wire,
            stage,
            acceptor,
            scenario,
            client: None,
            user: None,
            trouble: None,
            transaction: None,
            mistakes: 0,
        }
    }

    pub(super) async fn run(mut self) -> io::Result<()> {
        let (turn, trouble) = decide(self.stage, &self.scenario.email, Point::Connection, CONNECTION, CONNECTION);
        self.trouble = trouble;
        let latency = self.scenario.email.banner_latency_ms;
        tokio::time::sleep(latency.at(chance::mixed(turn.message_bits ^ Purpose::Latency as u64))).await;
        let banner = format!("{} ESMTP Vestnik simulator", self.scenario.email.host_name);
        let mut flow = match self.step(SmtpStage::Banner).await? {
            Step::Proper { slow } => self.say(SmtpReply { code: 220, enhanced: None, text: banner }, slow).await?,
            // A server that refuses to talk does not go on to talk.
            Step::Done(_) => Flow::End,
        };
        while flow == Flow::On {
            let line = self.wire.line(LINE_LIMIT_BYTES).await?;
            let text = std::str::from_utf8(&line).ok().and_then(|text| text.strip_suffix("\r\n"));
            flow = match text {
                Some(text) if line.len() <= LINE_LIMIT_BYTES => self.obey(Command::parse(text)).await?,
                _ => self.refuse(500, "5.5.2", "Line too long, not UTF-8, or without CR LF").await?,
            };
        }
        self.wire.flush().await?;
        self.wire.close().await;
        Ok(())
    }

    async fn obey(&mut self, command: Command) -> io::Result<Flow> {
        match command {
            Command::Hello { extended, client } => self.hello(extended, client).await,
            Command::StartTls => self.start_tls().await,
            Command::Auth { mechanism, initial } => self.auth(&mechanism, initial).await,
            Command::Mail(path) => self.mail(path).await,
            Command::Rcpt(path) => self.rcpt(path).await,
            Command::Data => self.data().await,
            Command::Rset => {
                self.transaction = None;
                self.say(SmtpReply::new(250, "2.0.0", "Ok"), false).await
            }
            Command::Noop => self.say(SmtpReply::new(250, "2.0.0", "Ok"), false).await,
            Command::Vrfy => self.say(SmtpReply::new(252, "2.5.0", "Send some mail and see"), false).await,
            Command::Quit => {
                self.say(SmtpReply::new(221, "2.0.0", "Bye"), false).await?;
                Ok(Flow::End)
            }
            Command::Malformed(detail) => self.refuse(501, "5.5.4", detail).await,
            Command::Unknown => self.refuse(500, "5.5.2", "Command not recognized").await,
        }
    }

    async fn hello(&mut self, extended: bool, client: String) -> io::Result<Flow> {
        let slow = match self.step(SmtpStage::Ehlo).await? {
            Step::Proper { slow } => slow,
            Step::Done(flow) => return Ok(flow),
        };
        self.scenario = self.stage.scenario();
        self.transaction = None;
        let email = &self.scenario.email;
        let mut lines = vec![format!("{} greets {client}", email.host_name)];
        self.client = Some(client);
        if extended {
            let may_log_in = self.wire.is_tls() || !email.require_tls;
            lines.extend(email.extensions.iter().filter_map(|extension| match extension.as_str() {
                "SIZE" => Some(format!("SIZE {}", email.size_limit_bytes)),
                "STARTTLS" => (!self.wire.is_tls()).then(|| "STARTTLS".to_owned()),
                "AUTH" => may_log_in.then(|| "AUTH PLAIN LOGIN".to_owned()),
                other => Some(other.to_owned()),
            }));
        }
        let last = lines.len() - 1;
        for (index, line) in lines.iter().enumerate() {
            let dash = if index == last { ' ' } else { '-' };
            self.wire.outgoing.extend_from_slice(format!("250{dash}{line}\r\n").as_bytes());
        }
        if slow {
            self.wire.flush_slowly().await?;
        }
        Ok(Flow::On)
    }

    async fn start_tls(&mut self) -> io::Result<Flow> {
        if self.wire.is_tls() || !self.scenario.email.offers("STARTTLS") {
            return self.refuse(502, "5.5.1", "Not offered").await;
        }
        let slow = match self.step(SmtpStage::StartTls).await? {
            Step::Proper { slow } => slow,
            Step::Done(flow) => return Ok(flow),
        };
        self.say(SmtpReply::new(220, "2.0.0", "Ready to start TLS"), slow).await?;
        self.wire.flush().await?;
        self.wire.start_tls(&self.acceptor).await?;
        // What was said in plain text counts for nothing.
        (self.client, self.user, self.transaction) = (None, None, None);
        Ok(Flow::On)
    }

    async fn auth(&mut self, mechanism: &str, initial: Option<String>) -> io::Result<Flow> {
        let email = &self.scenario.email;
        if self.client.is_none() || self.user.is_some() || self.transaction.is_some() {
            return self.refuse(503, "5.5.1", "Not now").await;
        }
        if !email.offers("AUTH") {
            return self.refuse(502, "5.5.1", "Not offered").await;
        }
        if email.require_tls && !self.wire.is_tls() {
            return self.refuse(538, "5.7.11", "Encryption required for requested authentication mechanism").await;
        }
        let said = match mechanism {
            "PLAIN" => {
                let Some(response) = self.response("", initial).await? else { return self.cancelled().await };
                let mut parts = response.split('\0').map(str::to_owned);
                (parts.next(), parts.next().zip(parts.next())).1
            }
            "LOGIN" => {
                let Some(user) = self.response("Username:", initial).await? else { return self.cancelled().await };
                let Some(password) = self.response("Password:", None).await? else { return self.cancelled().await };
                Some((user, password))
            }
            _ => return self.refuse(504, "5.5.4", "Only PLAIN and LOGIN").await,
        };
        let slow = match self.step(SmtpStage::Auth).await? {
            Step::Proper { slow } => slow,
            Step::Done(flow) => return Ok(flow),
        };
        let users = &self.scenario.email.users;
        match said.filter(|(user, password)| users.get(user).is_some_and(|known| known == password)) {
            Some((user, _)) => {
                self.user = Some(user);
                self.say(SmtpReply::new(235, "2.7.0", "Authentication successful"), slow).await
            }
            None => {
                self.stage.stand(Channel::Email).refused("535");
                self.refuse(535, "5.7.8", "Authentication credentials invalid").await
            }
        }
    }

    /// A part of a login, asked for if it did not come along. `None`: the client gave up, or it was no base64.
    async fn response(&mut self, challenge: &str, initial: Option<String>) -> io::Result<Option<String>> {
        let encoded = match initial {
            Some(initial) => initial,
            None => {
                let line = format!("334 {}\r\n", BASE64.encode(challenge));
                self.wire.outgoing.extend_from_slice(line.as_bytes());
                String::from_utf8_lossy(&self.wire.line(LINE_LIMIT_BYTES).await?).into_owned()
            }
        };
        // `=` is how an empty one is written.
        let encoded = encoded.trim().trim_start_matches('=');
        Ok(BASE64.decode(encoded).ok().and_then(|decoded| String::from_utf8(decoded).ok()))
    }

    async fn cancelled(&mut self) -> io::Result<Flow> {
        self.refuse(501, "5.5.2", "Not base64").await
    }

    async fn mail(&mut self, path: Path) -> io::Result<Flow> {
        self.scenario = self.stage.scenario();
        self.stage.stand(Channel::Email).figures.request();
        let email = &self.scenario.email;
        if self.client.is_none() || self.transaction.is_some() {
            return self.refuse(503, "5.5.1", "Not now: EHLO, MAIL, RCPT, DATA is the order").await;
        }
        if email.require_tls && !self.wire.is_tls() {
            return self.refuse(530, "5.7.0", "Must issue a STARTTLS command first").await;
        }
        if email.require_auth && self.user.is_none() {
            return self.refuse(530, "5.7.0", "Authentication required").await;
        }
        let mut transaction = match Transaction::begin(path, email) {
            Ok(transaction) => transaction,
            Err(reply) => return self.refuse_with(reply).await,
        };
        let (_, trouble) = decide(self.stage, email, Point::Envelope, CONNECTION, transaction.from());
        transaction.troubles.extend(trouble);
        self.transaction = Some(transaction);
        match self.step(SmtpStage::Mail).await? {
            Step::Proper { slow } => self.say(SmtpReply::new(250, "2.1.0", "Ok"), slow).await,
            Step::Done(flow) => {
                self.transaction = None;
                Ok(flow)
            }
        }
    }

    async fn rcpt(&mut self, path: Path) -> io::Result<Flow> {
        let Some(transaction) = &mut self.transaction else {
            return self.refuse(503, "5.5.1", "Not now: EHLO, MAIL, RCPT, DATA is the order").await;
        };
        let recipient = match transaction.check_recipient(&path) {
            Ok(recipient) => recipient,
            Err(reply) => return self.refuse_with(reply).await,
        };
        let sender = self.user.as_deref().unwrap_or(NOBODY);
        let (turn, trouble) = decide(self.stage, &self.scenario.email, Point::Message, sender, &recipient);
        transaction.troubles.extend(trouble);
        match self.step(SmtpStage::Rcpt).await? {
            Step::Proper { slow } => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.add(recipient, turn);
                }
                self.say(SmtpReply::new(250, "2.1.5", "Ok"), slow).await
            }
            Step::Done(flow) => Ok(flow),
        }
    }

    async fn data(&mut self) -> io::Result<Flow> {
        if !self.transaction.as_ref().is_some_and(Transaction::has_recipients) {
            return self.refuse(503, "5.5.1", "No valid recipients").await;
        }
        let slow = match self.step(SmtpStage::Data).await? {
            Step::Proper { slow } => slow,
            Step::Done(flow) => return Ok(flow),
        };
        self.say(SmtpReply { code: 354, enhanced: None, text: "End data with <CR><LF>.<CR><LF>".to_owned() }, slow)
            .await?;
        let body = self.wire.message(self.scenario.email.size_limit_bytes).await?;
        let Some(mut transaction) = self.transaction.take() else { return Ok(Flow::End) };
        let email = &self.scenario.email;
        let mail = match transaction.check(&body, email) {
            Ok(mail) => mail,
            Err(reply) => {
                self.stage.stand(Channel::Email).refused(&reply.code.to_string());
                return self.refuse_with(reply).await;
            }
        };
        let trouble = take_trouble(&mut transaction.troubles, SmtpStage::Dot);
        let how = How {
            user: self.user.as_deref().unwrap_or(NOBODY),
            client: self.client.as_deref().unwrap_or_default(),
            is_tls: self.wire.is_tls(),
            size_bytes: body.size,
        };
        let is_taken = match &trouble {
            None => true,
            Some(Trouble { action: Action::Fault { taken, .. }, .. }) => *taken,
            Some(Trouble { action: Action::Refuse(_), .. }) => false,
        };
        let id = if is_taken { transaction.take(self.stage, email, &mail, how) } else { String::new() };
        let latency = transaction.latency();
        if !latency.is_zero() {
            self.wire.flush().await?;
            tokio::time::sleep(latency).await;
        }
        let step = match trouble {
            Some(trouble) => self.play(trouble.action).await?,
            None => Step::Proper { slow: false },
        };
        match step {
            Step::Proper { slow } => self.say(SmtpReply::new(250, "2.0.0", format!("Ok: queued as {id}")), slow).await,
            Step::Done(flow) => Ok(flow),
        }
    }

    /// Plays what the scenario wants in place of the reply at this step.
    async fn step(&mut self, stage: SmtpStage) -> io::Result<Step> {
        let of_mail = self.transaction.as_mut().and_then(|mail| take_trouble(&mut mail.troubles, stage));
        match of_mail.or_else(|| self.trouble.take_if(|trouble| trouble.stage == stage)) {
            Some(trouble) => self.play(trouble.action).await,
            None => Ok(Step::Proper { slow: false }),
        }
    }

    async fn play(&mut self, action: Action) -> io::Result<Step> {
        let kind = match action {
            Action::Refuse(reply) => {
                // 421 announces that the server closes the connection.
                let flow = if reply.code == 421 { Flow::End } else { Flow::On };
                self.say(reply, false).await?;
                return Ok(Step::Done(flow));
            }
            Action::Fault { kind, .. } => kind,
        };
        // Replies to commands that went well before must not be lost with the connection.
        self.wire.flush().await?;
        match kind {
            SmtpFaultKind::Slow => return Ok(Step::Proper { slow: true }),
            SmtpFaultKind::Rubbish => {
                self.wire.outgoing.extend_from_slice(b"<<< thank you, come again >>>\r\n");
                return Ok(Step::Done(Flow::On));
            }
            SmtpFaultKind::Drop => {}
            SmtpFaultKind::Reset => self.wire.reset(),
            SmtpFaultKind::Hang => self.wire.hang().await,
            SmtpFaultKind::Shutdown => {
                let text = format!("{} Service shutting down", self.scenario.email.host_name);
                self.say(SmtpReply::new(421, "4.3.2", text), false).await?;
            }
        }
        if kind == SmtpFaultKind::Reset {
            // A close in order would come first and spoil it.
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(Step::Done(Flow::End))
    }

    async fn say(&mut self, reply: SmtpReply, slow: bool) -> io::Result<Flow> {
        reply.write(&mut self.wire.outgoing, self.scenario.email.offers("ENHANCEDSTATUSCODES"));
        if slow {
            self.wire.flush_slowly().await?;
        }
        Ok(Flow::On)
    }

    async fn refuse(&mut self, code: u16, enhanced: &str, text: &str) -> io::Result<Flow> {
        self.refuse_with(SmtpReply::new(code, enhanced, text)).await
    }

    async fn refuse_with(&mut self, reply: SmtpReply) -> io::Result<Flow> {
        self.mistakes += 1;
        self.say(reply, false).await?;
        if self.mistakes > MISTAKES_MOST {
            return self.say(SmtpReply::new(421, "4.7.0", "Too many errors"), false).await.map(|_| Flow::End);
        }
        Ok(Flow::On)
    }
}

fn take_trouble(troubles: &mut Vec<Trouble>, stage: SmtpStage) -> Option<Trouble> {
    let index = troubles.iter().position(|trouble| trouble.stage == stage)?;
    Some(troubles.remove(index))
}
