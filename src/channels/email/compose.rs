//! From a rendered email to the bytes of its message.
//!
//! Source: RFC 5322, MIME (RFC 2045 to 2049, 2231), RFC 8058. No text becomes a header by itself: a subject, a name or
//! an id is encoded or refused here, whatever it holds, so that nobody's data can add a header. The message is ASCII
//! all through, in lines of at most 998 bytes, unless the address itself is not ASCII; so no server has to be asked
//! whether it takes eight bits.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Attachment as AttachedPart, Body, MultiPart, SinglePart};

use super::dkim::Dkim;
use super::reply::Reply;
use crate::channels::outcomes::word;
use crate::config::email::Mailbox;
use crate::domain::{EmailContent, NotificationId};

/// What all messages of one account have in common.
pub(super) struct Stationery {
    pub(super) from: Mailbox,
    pub(super) reply_to: Option<Mailbox>,
    /// `{id}` stands for the notification's.
    pub(super) envelope_from: Option<String>,
    pub(super) list_unsubscribe: Option<String>,
    pub(super) dkim: Option<Dkim>,
}

/// An attachment whose bytes are here.
#[derive(Debug)]
pub(super) struct AttachedFile {
    pub(super) name: String,
    pub(super) content_type: String,
    pub(super) bytes: Vec<u8>,
}

/// A message ready to leave.
pub(super) struct Letter {
    /// The envelope: where bounces go.
    pub(super) from: String,
    pub(super) to: String,
    /// Whether the server has to take addresses, and so headers, that are not ASCII.
    pub(super) needs_utf8: bool,
    /// `<id@domain>`.
    pub(super) message_id: String,
    /// The message as it goes over the wire: dots doubled, the end mark included.
    pub(super) as_sent: Vec<u8>,
}

impl Letter {
    /// What is remembered of a message that was taken: our id, and the server's words, which hold its queue's id.
    pub(super) fn taken_as(&self, reply: &Reply) -> String {
        /// Enough for `2.0.0 Ok: queued as 4WbTqX0Gz3z9rwd` and its like.
        const LONGEST_WORDS_BYTES: usize = 200;
        match word(reply.text().trim(), LONGEST_WORDS_BYTES) {
            Some(words) => format!("{} {words}", self.message_id),
            None => self.message_id.clone(),
        }
    }
}

impl Stationery {
    /// The id a message has in every mailbox. It is the same at every attempt, so that many mail systems show only one
    /// of two copies.
    pub(super) fn message_id(&self, id: NotificationId) -> String {
        format!("<{id}@{}>", domain(self.from.address.as_str()))
    }

    /// Writes the message. Whoever calls has fetched the attachments.
    pub(super) fn compose(
        &self,
        id: NotificationId,
        to: &str,
        content: &EmailContent,
        files: Vec<AttachedFile>,
        now: Timestamp,
    ) -> Letter {
        let message_id = self.message_id(id);
        let with_id = |template: &String| template.replace("{id}", &id.0.simple().to_string());
        let mut head = Head(String::with_capacity(1024));
        head.line("Date", &jiff::fmt::rfc2822::to_string(&now.to_zoned(TimeZone::UTC)).unwrap_or_default());
        head.mailbox("From", &self.from);
        if let Some(reply_to) = &self.reply_to {
            head.mailbox("Reply-To", reply_to);
        }
        head.line("To", to);
        head.text("Subject", &content.subject);
        head.line("Message-ID", &message_id);
        head.line("Auto-Submitted", "auto-generated");
        if let Some(url) = self.list_unsubscribe.as_ref().map(with_id) {
            head.line("List-Unsubscribe", &format!("<{url}>"));
            head.line("List-Unsubscribe-Post", "List-Unsubscribe=One-Click");
        }
        head.line("MIME-Version", "1.0");
        let mut message = head.0.into_bytes();
        // Its own headers follow, of which the first is Content-Type.
        message.extend_from_slice(&parts(content, files));
        if let Some(signature) = self.dkim.as_ref().map(|dkim| dkim.sign(&message, now)) {
            message.splice(..0, signature.into_bytes());
        }
        let from = self.envelope_from.as_ref().map_or_else(|| self.from.address.as_str().to_owned(), with_id);
        Letter { from, to: to.to_owned(), needs_utf8: !to.is_ascii(), message_id, as_sent: as_sent(&message) }
    }
}

/// What follows the last `@`.
pub(super) fn domain(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}

/// Text, or text and HTML, and beside them the files.
fn parts(content: &EmailContent, files: Vec<AttachedFile>) -> Vec<u8> {
    let text = SinglePart::plain(lines(&content.text));
    let html = content.html.as_ref().map(|html| SinglePart::html(lines(html)));
    if files.is_empty() {
        return match html {
            None => text.formatted(),
            Some(html) => MultiPart::alternative().singlepart(text).singlepart(html).formatted(),
        };
    }
    let mixed = MultiPart::mixed();
    let mut mixed = match html {
        None => mixed.singlepart(text),
        Some(html) => mixed.multipart(MultiPart::alternative().singlepart(text).singlepart(html)),
    };
    for file in files {
        let part = AttachedPart::new(file_name(&file.name));
        // Left to itself, lettre sends bytes that happen to be ASCII as they are, bare line feeds and all.
        let body =
            Body::new_with_encoding(file.bytes, ContentTransferEncoding::Base64).expect("base64 takes any bytes");
        mixed = mixed.singlepart(part.body(body, content_type(&file.content_type)));
    }
    mixed.formatted()
}

/// A name for a file: one line, that nothing reads as encoded.
fn file_name(name: &str) -> String {
    match one_line(name).replace("=?", "_") {
        name if name.is_empty() => "attachment".to_owned(),
        name => name,
    }
}

/// The type that was stated, if it can be, without its parameters: what a server states is not ours to trust.
fn content_type(stated: &str) -> ContentType {
    /// RFC 6838, 4.2 bounds both halves; it also keeps the line within its limit.
    const LONGEST_BYTES: usize = 255;
    let essence = stated.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // Of a message within a message the encoding may not be chosen freely (RFC 2046, 5.2.1).
    let foreign = essence.starts_with("multipart/") || essence.starts_with("message/");
    let kind = if foreign || essence.len() > LONGEST_BYTES { None } else { ContentType::parse(&essence).ok() };
    kind.unwrap_or_else(|| ContentType::parse("application/octet-stream").expect("a media type"))
}

/// The same lines, each ended as mail wants it: bare CR and LF are for no server to guess at, and NUL for none to see.
fn lines(text: &str) -> String {
    let mut lines = String::with_capacity(text.len() + text.len() / 32);
    let mut rest = text;
    while let Some(at) = rest.find(['\r', '\n']) {
        lines.push_str(&rest[..at]);
        lines.push_str("\r\n");
        rest = rest[at..].strip_prefix("\r\n").unwrap_or(&rest[at + 1..]);
    }
    lines.push_str(rest);
    lines.retain(|c| c != '\0');
    lines
}

/// Doubles the dots that begin a line, and puts the end mark (RFC 5321, 4.5.2).
fn as_sent(message: &[u8]) -> Vec<u8> {
    let mut sent = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            sent.push(b'.');
        }
        sent.extend_from_slice(line);
    }
    if !sent.ends_with(b"\r\n") {
        sent.extend_from_slice(b"\r\n");
    }
    sent.extend_from_slice(b".\r\n");
    sent
}

/// Text without what could end or hide a line.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
        .collect::<Vec<_>>()
        .join(" ")
        .trim()
        .to_owned()
}

/// Headers, one after another. Whatever is put in becomes exactly one.
struct Head(String);

impl Head {
    /// A value of our own making. That it stays one line is made sure all the same.
    fn line(&mut self, name: &str, value: &str) {
        self.0.push_str(name);
        self.0.push_str(": ");
        self.0.extend(value.chars().filter(|c| !c.is_control()));
        self.0.push_str("\r\n");
    }

    /// A value that people wrote: as it is where that is short ASCII, else in encoded words.
    fn text(&mut self, name: &str, value: &str) {
        let value = one_line(value);
        if fits(&value) {
            self.line(name, &value);
        } else {
            self.0.push_str(&format!("{name}: {}\r\n", encoded_words(&value)));
        }
    }

    fn mailbox(&mut self, name: &str, mailbox: &Mailbox) {
        match &mailbox.name {
            Some(shown) => {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == ' ';
                // Anything else would have to be quoted; an encoded word needs no quotes.
                let shown = one_line(shown);
                let address = format!(" <{}>", mailbox.address.as_str());
                if shown.chars().all(plain) && fits(&shown) {
                    self.line(name, &format!("{shown}{address}"));
                } else {
                    self.0.push_str(&format!("{name}: {}\r\n{address}\r\n", encoded_words(&shown)));
                }
            }
            None => self.line(name, mailbox.address.as_str()),
        }
    }
}

/// Whether a value may stand as it is: short enough for one line, and nothing in it would be read as encoded.
fn fits(value: &str) -> bool {
    const LONGEST_BYTES: usize = 60;
    value.len() <= LONGEST_BYTES && value.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !value.contains("=?")
}

/// RFC 2047: words of at most 75 bytes, each on a line of its own.
fn encoded_words(text: &str) -> String {
    /// 60 bytes in base64, with `=?utf-8?B?…?=` around them 72.
    const WORD_BYTES: usize = 45;
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.floor_char_boundary(WORD_BYTES));
        words.push(format!("=?utf-8?B?{}?=", BASE64_STANDARD.encode(word)));
        rest = after;
    }
    words.join("\r\n ")
}

#[cfg(test)]
mod tests;
