//! What was built is read back by another library's parser: it finds what was put in, and nothing else.

use mail_parser::{MessageParser, MimeHeaders as _};
use proptest::prelude::*;

use super::*;
use crate::domain::EmailAddress;

const NOW: i64 = 1_767_225_600;

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).expect(text)
}

fn stationery(name: Option<&str>) -> Stationery {
    Stationery {
        from: Mailbox { name: name.map(Into::into), address: address("news@example.com") },
        reply_to: None,
        envelope_from: None,
        list_unsubscribe: None,
        dkim: None,
    }
}

fn compose(stationery: &Stationery, to: &str, content: &EmailContent, files: Vec<AttachedFile>) -> Letter {
    let now = Timestamp::from_second(NOW).expect("a time");
    stationery.compose(NotificationId(uuid::Uuid::from_u128(7)), to, content, files, now)
}

/// What the server stores: dots undoubled, the end mark gone.
fn received(letter: &Letter) -> Vec<u8> {
    let sent = letter.as_sent.strip_suffix(b".\r\n").expect("an end mark");
    let lines = sent.split_inclusive(|&byte| byte == b'\n');
    lines.flat_map(|line| if line.starts_with(b".") { &line[1..] } else { line }).copied().collect()
}

fn text_of(letter: &Letter) -> String {
    String::from_utf8(received(letter)).expect("text")
}

fn plain(subject: &str, text: &str) -> EmailContent {
    EmailContent { subject: subject.into(), text: text.into(), ..EmailContent::default() }
}

/// Before boundaries, which are random.
fn head_of(letter: &Letter) -> String {
    text_of(letter).split("\r\n\r\n").next().expect("headers").replace("\r\n", "\n")
}

#[test]
fn a_plain_message_is_written_as_the_standards_describe() {
    let letter =
        compose(&stationery(Some("Север")), "anna@example.org", &plain("Заказ 42 готов", "Hello\n.\nbye"), vec![]);
    insta::assert_snapshot!(text_of(&letter).replace("\r\n", "\n"), @r"
    Date: Thu, 1 Jan 2026 00:00:00 +0000
    From: =?utf-8?B?0KHQtdCy0LXRgA==?=
     <news@example.com>
    To: anna@example.org
    Subject: =?utf-8?B?0JfQsNC60LDQtyA0MiDQs9C+0YLQvtCy?=
    Message-ID: <00000000-0000-0000-0000-000000000007@example.com>
    Auto-Submitted: auto-generated
    MIME-Version: 1.0
    Content-Type: text/plain; charset=utf-8
    Content-Transfer-Encoding: 7bit

    Hello
    .
    bye
    ");
    assert!(letter.as_sent.ends_with(b"\r\nHello\r\n..\r\nbye\r\n.\r\n"));
    assert_eq!((letter.from.as_str(), letter.to.as_str()), ("news@example.com", "anna@example.org"));
}

#[test]
fn what_the_account_says_is_in_the_headers() {
    let mut stationery = stationery(Some("North \"N\" <x@y.z>"));
    stationery.reply_to = Some(Mailbox { name: Some("Sales team".into()), address: address("sales@example.com") });
    stationery.envelope_from = Some("bounce+{id}@bounces.example.com".into());
    stationery.list_unsubscribe = Some("https://example.com/u/{id}?a=1".into());
    let content = EmailContent { html: Some("<p>x".into()), ..plain("S", "x") };
    let letter = compose(&stationery, "anna@example.org", &content, vec![]);
    assert_eq!(letter.from, "bounce+00000000000000000000000000000007@bounces.example.com");
    let head = head_of(&letter);
    let (head, boundary) = head.split_once("boundary=").expect("a boundary");
    assert_eq!(boundary.len(), 42);
    insta::assert_snapshot!(head, @r#"
    Date: Thu, 1 Jan 2026 00:00:00 +0000
    From: =?utf-8?B?Tm9ydGggIk4iIDx4QHkuej4=?=
     <news@example.com>
    Reply-To: Sales team <sales@example.com>
    To: anna@example.org
    Subject: S
    Message-ID: <00000000-0000-0000-0000-000000000007@example.com>
    Auto-Submitted: auto-generated
    List-Unsubscribe: <https://example.com/u/00000000000000000000000000000007?a=1>
    List-Unsubscribe-Post: List-Unsubscribe=One-Click
    MIME-Version: 1.0
    Content-Type: multipart/alternative;
    "#);
}

#[test]
fn an_address_beyond_ascii_stands_in_the_header_as_it_is() {
    let letter = compose(&stationery(None), "анна@xn--80a1acny.xn--p1ai", &plain("S", "x"), vec![]);
    assert!(letter.needs_utf8);
    assert!(text_of(&letter).contains("\r\nTo: анна@xn--80a1acny.xn--p1ai\r\n"));
}

#[test]
fn a_taken_message_is_remembered_by_our_id_and_the_servers_words() {
    let letter = compose(&stationery(None), "a@example.org", &plain("S", "x"), vec![]);
    let id = "<00000000-0000-0000-0000-000000000007@example.com>";
    for (reply, expected) in [
        ("250 2.0.0 Ok: queued as 4Wb", format!("{id} 2.0.0 Ok: queued as 4Wb")),
        ("250", id.into()),
        (&format!("250 {}", "x".repeat(300)), id.into()),
        ("250 a\u{0}b", id.into()),
    ] {
        assert_eq!(letter.taken_as(&Reply::of(reply)), expected);
    }
}

#[test]
fn a_message_within_a_message_is_attached_as_bytes() {
    let file = AttachedFile { name: "a.eml".into(), content_type: "message/rfc822".into(), bytes: vec![0, 1] };
    let letter = compose(&stationery(None), "a@example.org", &plain("S", "x"), vec![file]);
    assert!(text_of(&letter).contains("Content-Type: application/octet-stream\r\n"));
}

#[test]
fn a_file_is_never_sent_as_it_is() {
    let file = AttachedFile { name: "a.txt".into(), content_type: "text/plain".into(), bytes: b"a\nb\r.\r\n".to_vec() };
    let letter = compose(&stationery(None), "a@example.org", &plain("S", "x"), vec![file]);
    assert!(text_of(&letter).contains("\r\n\r\nYQpiDS4NCg=="));
}

/// Anything that anybody could put into a field, with what could do harm more often than by chance.
fn hostile() -> impl Strategy<Value = String> {
    let harm = prop_oneof![
        Just("\r\nBcc: x@example.net\r\n".to_owned()),
        Just("\nX-Evil: 1".to_owned()),
        Just("\r".to_owned()),
        Just("\r\n\r\n.\r\nQUIT\r\n".to_owned()),
        Just("\"; filename=x; a=\"".to_owned()),
        Just("=?utf-8?Q?a=0D=0ABcc:_x?=".to_owned()),
        Just("\u{0}\u{1b}\u{7f}\u{85}\u{2028}".to_owned()),
        Just("x".repeat(1500)),
        Just("я ".repeat(400)),
        Just("  \t  ".to_owned()),
        ".{0,40}",
        "[ -~]{0,100}",
    ];
    proptest::collection::vec(harm, 0..4).prop_map(|parts| parts.concat())
}

fn recipient() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("anna@example.org".to_owned()),
        Just("!#$%&'*+-/=?^_`{|}~@example.org".to_owned()),
        Just(format!("{}@example.org", "a".repeat(64))),
        "[a-z]{1,10}[.+_-][a-z]{1,10}@[a-z]{1,20}\\.[a-z]{2,5}",
    ]
    .prop_filter("an address", |text| EmailAddress::parse(text).is_ok())
}

proptest! {
    #[test]
    fn nobodys_data_adds_a_header_or_gets_lost(
        subject in hostile(),
        name in proptest::option::of(hostile()),
        to in recipient(),
        text in hostile(),
        html in proptest::option::of(hostile()),
        files in proptest::collection::vec((hostile(), hostile(), proptest::collection::vec(any::<u8>(), 0..200)), 0..3),
    ) {
        let content = EmailContent { html: html.clone(), ..plain(&subject, &text) };
        let attached = |(name, content_type, bytes): &(String, String, Vec<u8>)| AttachedFile {
            name: name.clone(),
            content_type: content_type.clone(),
            bytes: bytes.clone(),
        };
        let letter = compose(&stationery(name.as_deref()), &to, &content, files.iter().map(attached).collect());
        let message = received(&letter);

        // On the wire: only whole lines, short ones, and one end.
        prop_assert!(letter.as_sent.is_ascii());
        let wire = String::from_utf8(letter.as_sent.clone()).expect("ASCII");
        prop_assert_eq!(wire.matches("\r\n.\r\n").count(), 1);
        for line in wire.split_terminator("\r\n") {
            prop_assert!(line.len() <= 998 && !line.contains(['\r', '\n', '\0']), "{}", line);
        }

        let parsed = MessageParser::default().parse(&message).expect("a message");
        let mut expected = vec!["Date", "From", "To", "Subject", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"];
        if html.is_none() && files.is_empty() {
            expected.push("Content-Transfer-Encoding");
        }
        let found: Vec<_> = parsed.headers().iter().map(|header| header.name().to_owned()).collect();
        let small = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>();
        let expected: Vec<String> = expected.into_iter().map(Into::into).collect();
        prop_assert_eq!(small(&found), small(&expected));

        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        prop_assert_eq!(words(parsed.subject().unwrap_or_default()), words(&one_line(&subject)));
        let to_found = parsed.to().and_then(|to| to.first()).and_then(|to| to.address());
        prop_assert_eq!(to_found, Some(to.as_str()));
        let from = parsed.from().and_then(|from| from.first()).expect("from");
        prop_assert_eq!(from.address(), Some("news@example.com"));
        prop_assert_eq!(words(from.name().unwrap_or_default()), words(&one_line(name.as_deref().unwrap_or_default())));

        let body = |text: &str| lines(text).trim_end_matches("\r\n").to_owned();
        let found_text = parsed.body_text(0).unwrap_or_default();
        prop_assert_eq!(found_text.trim_end_matches("\r\n"), body(&text));
        if let Some(html) = &html {
            let found_html = parsed.body_html(0).unwrap_or_default();
            prop_assert_eq!(found_html.trim_end_matches("\r\n"), body(html));
        }
        prop_assert_eq!(parsed.attachments().count(), files.len());
        for (part, (name, _, bytes)) in parsed.attachments().zip(&files) {
            prop_assert_eq!(part.contents(), bytes.as_slice());
            prop_assert_eq!(words(part.attachment_name().unwrap_or_default()), words(&file_name(name)));
        }
    }

    #[test]
    fn lines_stay_lines(text in "[a\r\n]{0,20}") {
        let normal = lines(&text);
        prop_assert!(!normal.replace("\r\n", "").contains(['\r', '\n']));
        let count = text.replace("\r\n", "\n").matches(['\r', '\n']).count();
        prop_assert_eq!(normal.matches("\r\n").count(), count);
    }
}
