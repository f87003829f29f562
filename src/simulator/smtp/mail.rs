//! A mail's parts, decoded: encoded words, transfer encodings, character sets.

use mail_parser::{Address, MessageParser, MessagePart, MimeHeaders as _, PartType};

use crate::simulator::record::TakenAttachment;

/// What a person and a test want to know of a mail.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Mail {
    pub(super) subject: Option<String>,
    pub(super) text: Option<String>,
    pub(super) html: Option<String>,
    pub(super) message_id: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    /// Who it says it is from: `Name <address>`.
    pub(super) author: Option<String>,
    pub(super) attachments: Vec<TakenAttachment>,
}

impl Mail {
    /// `None` for bytes that are no mail at all.
    pub(super) fn parse(raw: &[u8]) -> Option<Mail> {
        let message = MessageParser::default().parse(raw)?;
        // A body that was made from the other one is no part of the mail.
        let text = message.text_bodies().find_map(|part| match &part.body {
            PartType::Text(text) if !part.is_content_type("text", "html") => Some(text.to_string()),
            _ => None,
        });
        let html = message.html_bodies().find_map(|part| match &part.body {
            PartType::Html(html) => Some(html.to_string()),
            _ => None,
        });
        Some(Mail {
            subject: message.subject().map(str::to_owned),
            text,
            html,
            message_id: message.message_id().map(str::to_owned),
            headers: message.headers_raw().map(|(name, value)| (name.to_owned(), unfolded(value))).collect(),
            author: message.from().and_then(Address::first).map(|author| {
                let address = author.address().unwrap_or_default();
                author.name().map_or_else(|| address.to_owned(), |name| format!("{name} <{address}>"))
            }),
            attachments: message.attachments().map(attachment).collect(),
        })
    }

    /// How many headers have this name.
    pub(super) fn count(&self, name: &str) -> usize {
        self.headers.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name)).count()
    }
}

fn attachment(part: &MessagePart<'_>) -> TakenAttachment {
    let content_type = part.content_type().map(|kind| match kind.subtype() {
        Some(subtype) => format!("{}/{subtype}", kind.ctype()),
        None => kind.ctype().to_owned(),
    });
    TakenAttachment {
        name: part.attachment_name().unwrap_or_default().to_owned(),
        content_type: content_type.unwrap_or_default(),
        size_bytes: part.contents().len(),
    }
}

fn unfolded(value: &str) -> String {
    value.replace("\r\n", "").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_of_two_parts_is_decoded() {
        let raw = "From: =?UTF-8?B?0JDQvdC90LA=?= <a@example.org>\r\nTo: b@example.org\r\n\
            Subject: =?windows-1251?Q?=CF=F0=E8=E2=E5=F2,?=\r\n =?UTF-8?Q?_=D0=90=D0=BD=D0=BD=D0=B0?=\r\n\
            Message-ID: <1@example.org>\r\nMIME-Version: 1.0\r\n\
            Content-Type: multipart/alternative; boundary=x\r\n\r\n\
            --x\r\nContent-Type: text/plain; charset=koi8-r\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
            =FA=C1=CB=C1=DA =\r\n42\r\n\
            --x\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n\
            PGI+0JfQsNC60LDQtzwvYj4=\r\n--x--\r\n";
        let mail = Mail::parse(raw.as_bytes()).expect("a mail");
        assert_eq!(mail.subject.as_deref(), Some("Привет, Анна"));
        assert_eq!(mail.text.as_deref().map(str::trim), Some("Заказ 42"));
        assert_eq!(mail.html.as_deref(), Some("<b>Заказ</b>"));
        assert_eq!((mail.message_id.as_deref(), mail.attachments.len()), (Some("1@example.org"), 0));
        assert_eq!(mail.author.as_deref(), Some("Анна <a@example.org>"));
        assert_eq!((mail.count("subject"), mail.count("Date")), (1, 0));
        let subject = &mail.headers[2];
        assert_eq!(subject.1, "=?windows-1251?Q?=CF=F0=E8=E2=E5=F2,?= =?UTF-8?Q?_=D0=90=D0=BD=D0=BD=D0=B0?=");
    }

    #[test]
    fn a_mail_of_one_part_has_no_other() {
        let html = "From: a@b.c\r\nContent-Type: text/html\r\n\r\n<p>x</p>\r\n";
        let mail = Mail::parse(html.as_bytes()).expect("a mail");
        assert_eq!((mail.text, mail.html.as_deref()), (None, Some("<p>x</p>\r\n")));
        let text = "From: a@b.c\r\nSubject: x\r\n\r\nhello\r\n";
        let mail = Mail::parse(text.as_bytes()).expect("a mail");
        assert_eq!((mail.text.as_deref(), mail.html), (Some("hello\r\n"), None));
    }

    #[test]
    fn attachments_are_listed_with_their_names() {
        let raw = "From: a@b.c\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n\
            --x\r\nContent-Type: text/plain\r\n\r\nhello\r\n\
            --x\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\
            Content-Disposition: attachment; filename*=utf-8''%D0%A1%D1%87%D1%91%D1%82.pdf\r\n\r\nJVBERg==\r\n--x--\r\n";
        let mail = Mail::parse(raw.as_bytes()).expect("a mail");
        assert_eq!(mail.author.as_deref(), Some("a@b.c"));
        let bill =
            TakenAttachment { name: "Счёт.pdf".into(), content_type: "application/pdf".into(), size_bytes: 4 };
        assert_eq!(mail.attachments, [bill]);
    }
}
