//! One mail from its sender's name to its end: envelope, what shall go wrong with it, and its taking.

use super::command::Path;
use super::fault::{SmtpFaultKind, SmtpStage};
use super::mail::Mail;
use super::queue_id;
use super::reply::{ScriptedReply, SmtpReply};
use super::wire::Body;
use crate::domain::Channel;
use crate::simulator::fault::FaultKind;
use crate::simulator::record::{Message, TakenEmail};
use crate::simulator::scenario::{EmailScenario, Point};
use crate::simulator::stage::{Stage, Stand};
use crate::simulator::turns::{Ask, Turn, Verdict};

/// Without their ends (RFC 5322 §2.1.1).
const LINE_LIMIT_BYTES: usize = 998;
pub(super) const RECIPIENTS_MOST: usize = 100;

/// What stands in place of the reply at one step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trouble {
    pub(super) stage: SmtpStage,
    pub(super) action: Action,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Refuse(SmtpReply),
    Fault { kind: SmtpFaultKind, taken: bool },
}

/// Asks the scenario what becomes of something, and counts it.
pub(super) fn decide(
    stage: &Stage,
    scenario: &EmailScenario,
    point: Point,
    sender: &str,
    recipient: &str,
) -> (Turn, Option<Trouble>) {
    let stand: &Stand = stage.stand(Channel::Email);
    let ask = Ask { point, sender, recipient, weight: 1 };
    let turn = stand.turns().take(scenario.behaviour(), ask, stage.now());
    let trouble = match &turn.verdict {
        Verdict::Accept => None,
        Verdict::Refuse(code) => {
            stand.refused(&code.0);
            // The scenario was checked when it was set.
            let scripted = ScriptedReply::parse(&code.0).ok();
            scripted.map(|ScriptedReply { stage, reply }| Trouble { stage, action: Action::Refuse(reply) })
        }
        Verdict::Throttle(_) => {
            stand.refused("throttled");
            let reply = SmtpReply::new(451, "4.7.1", "Too many messages, try again later");
            Some(Trouble { stage: SmtpStage::Rcpt, action: Action::Refuse(reply) })
        }
        Verdict::Fault { kind, taken } => {
            stand.figures.fault(*kind);
            match kind {
                FaultKind::Smtp(fault) => {
                    let action = Action::Fault { kind: fault.kind, taken: *taken };
                    Some(Trouble { stage: fault.stage, action })
                }
                // A scenario cannot ask a mail server for the faults of HTTP.
                _ => None,
            }
        }
    };
    (turn, trouble)
}

/// A mail under way.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    from: String,
    is_utf8: bool,
    recipients: Vec<(String, Turn)>,
    /// Where it will go wrong, and how.
    pub(super) troubles: Vec<Trouble>,
}

impl Transaction {
    /// Checks a sender and its parameters.
    pub(super) fn begin(path: Path, scenario: &EmailScenario) -> Result<Transaction, SmtpReply> {
        let mut transaction = Transaction { from: path.address, ..Transaction::default() };
        for (name, value) in &path.parameters {
            let value = value.as_deref();
            match (name.as_str(), value) {
                ("SIZE", Some(size)) if scenario.offers("SIZE") => match size.parse::<usize>() {
                    Ok(size) if size <= scenario.size_limit_bytes => {}
                    Ok(_) => return Err(too_large()),
                    Err(_) => return Err(SmtpReply::new(501, "5.5.4", "SIZE is no number")),
                },
                ("BODY", Some(body)) if scenario.offers("8BITMIME") => match body.to_ascii_uppercase().as_str() {
                    "7BIT" | "8BITMIME" => {}
                    _ => return Err(SmtpReply::new(501, "5.5.4", "BODY is neither 7BIT nor 8BITMIME")),
                },
                ("SMTPUTF8", None) if scenario.offers("SMTPUTF8") => transaction.is_utf8 = true,
                ("AUTH", Some(_)) if scenario.offers("AUTH") => {}
                _ => return Err(SmtpReply::new(555, "5.5.4", format!("Unsupported option: {name}"))),
            }
        }
        transaction.check_address(&transaction.from)?;
        Ok(transaction)
    }

    /// Checks a recipient; returns it as the record and the rules name it.
    pub(super) fn check_recipient(&self, path: &Path) -> Result<String, SmtpReply> {
        if let Some((name, _)) = path.parameters.first() {
            return Err(SmtpReply::new(555, "5.5.4", format!("Unsupported option: {name}")));
        }
        if self.recipients.len() >= RECIPIENTS_MOST {
            return Err(SmtpReply::new(452, "4.5.3", "Too many recipients"));
        }
        self.check_address(&path.address)?;
        Ok(path.address.to_lowercase())
    }

    fn check_address(&self, address: &str) -> Result<(), SmtpReply> {
        if address.is_ascii() || self.is_utf8 {
            return Ok(());
        }
        Err(SmtpReply::new(553, "5.6.7", "Address has other letters than ASCII's, and SMTPUTF8 was not asked for"))
    }

    pub(super) fn from(&self) -> &str {
        &self.from
    }

    pub(super) fn add(&mut self, recipient: String, turn: Turn) {
        self.recipients.push((recipient, turn));
    }

    pub(super) fn has_recipients(&self) -> bool {
        !self.recipients.is_empty()
    }

    /// How long the reply to the end takes.
    pub(super) fn latency(&self) -> std::time::Duration {
        self.recipients.iter().map(|(_, turn)| turn.latency).max().unwrap_or_default()
    }

    /// Reads the mail, or says what is wrong with it.
    pub(super) fn check(&self, body: &Body, scenario: &EmailScenario) -> Result<Mail, SmtpReply> {
        if body.size > scenario.size_limit_bytes {
            return Err(too_large());
        }
        if body.has_bare_line_feed {
            return Err(SmtpReply::new(550, "5.6.11", "Line feed without carriage return"));
        }
        if body.longest_line > LINE_LIMIT_BYTES {
            return Err(SmtpReply::new(550, "5.6.0", "Line longer than 998 bytes"));
        }
        // Who offers it takes it from those, too, who forget to ask.
        if body.has_eight_bits && !scenario.offers("8BITMIME") {
            return Err(SmtpReply::new(554, "5.6.1", "8-bit data, and 8BITMIME is not offered"));
        }
        let mail = Mail::parse(&body.bytes).ok_or_else(|| SmtpReply::new(554, "5.6.0", "Not a mail"))?;
        for header in ["From", "Date"] {
            if mail.count(header) != 1 {
                return Err(SmtpReply::new(550, "5.6.0", format!("Expected one {header} header (RFC 5322)")));
            }
        }
        Ok(mail)
    }

    /// Records the mail for each recipient; returns the id that the reply names.
    pub(super) fn take(&self, stage: &Stage, scenario: &EmailScenario, mail: &Mail, how: How<'_>) -> String {
        let details = TakenEmail {
            from: self.from.clone(),
            client: how.client.to_owned(),
            tls: how.is_tls,
            size_bytes: how.size_bytes,
            author: mail.author.clone(),
            headers: mail.headers.clone(),
            attachments: mail.attachments.clone(),
        };
        let mut message = Message {
            account: how.user.to_owned(),
            text: mail.text.clone(),
            subject: mail.subject.clone(),
            html: mail.html.clone(),
            our_id: mail.message_id.clone(),
            // Only keys that are not text could fail here.
            details: serde_json::to_string(&details).ok(),
            ..Message::default()
        };
        for (recipient, turn) in &self.recipients {
            message.recipient.clone_from(recipient);
            stage.take(Channel::Email, scenario.behaviour(), &message, turn.message_bits, turn, None);
        }
        self.recipients.first().map(|(_, turn)| queue_id(turn.message_bits)).unwrap_or_default()
    }
}

/// How a mail came.
#[derive(Clone, Copy, Debug)]
pub(super) struct How<'a> {
    pub(super) user: &'a str,
    pub(super) client: &'a str,
    pub(super) is_tls: bool,
    pub(super) size_bytes: usize,
}

fn too_large() -> SmtpReply {
    SmtpReply::new(552, "5.3.4", "Message size exceeds the limit")
}
