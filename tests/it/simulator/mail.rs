//! The mail server: what it offers, takes and refuses.

use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use vestnik::domain::Channel;
use vestnik::simulator::Simulator;

use super::start_with_mail;

/// A conversation, line by line.
pub(super) struct Talk(pub(super) BufReader<TcpStream>);

impl Talk {
    /// Connects, and hears the banner out.
    pub(super) async fn begin(simulator: &Simulator) -> Talk {
        let mut talk = Talk(BufReader::new(TcpStream::connect(simulator.smtp_addr().unwrap()).await.unwrap()));
        assert!(talk.hear().await.starts_with("220 "));
        talk
    }

    /// Connects and says EHLO.
    pub(super) async fn greeted(simulator: &Simulator) -> Talk {
        let mut talk = Talk::begin(simulator).await;
        assert!(talk.say("EHLO client.test").await.starts_with("250-"));
        talk
    }

    pub(super) async fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// A whole reply, its lines joined with `|`; empty at the end of the connection.
    pub(super) async fn hear(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).await.unwrap() == 0 {
                return reply;
            }
            let goes_on = line.as_bytes().get(3) == Some(&b'-');
            reply.push_str(line.trim_end());
            if !goes_on {
                return reply;
            }
            reply.push('|');
        }
    }

    pub(super) async fn say(&mut self, line: &str) -> String {
        self.write(&format!("{line}\r\n")).await;
        self.hear().await
    }
}

pub(super) const MAIL: &str = "From: a@example.org\r\nTo: b@example.org\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n\
    Subject: x\r\nMessage-ID: <7@example.org>\r\n\r\nhello\r\n";

fn letter(to: &str) -> Message {
    let mailbox = |address: &str| -> Mailbox { address.parse().unwrap() };
    Message::builder()
        .from(mailbox("Вестник <from@example.org>"))
        .to(mailbox(&format!("Анна <{to}>")))
        .subject("Заказ готов — приходите")
        .message_id(Some("<id-1@example.org>".to_owned()))
        .multipart(MultiPart::alternative_plain_html(
            "Здравствуйте!\n.строка с точкой\n".to_owned(),
            "<p style=\"color: teal\">Здравствуйте!</p>".to_owned(),
        ))
        .unwrap()
}

fn trusting(simulator: &Simulator) -> TlsParameters {
    let ca = Certificate::from_pem(simulator.smtp_ca_pem().unwrap().as_bytes()).unwrap();
    TlsParameters::builder("localhost".to_owned()).add_root_certificate(ca).build().unwrap()
}

#[tokio::test]
async fn a_mail_client_sends_in_plain_text_by_starttls_and_by_tls() {
    let simulator = start_with_mail(json!({})).await;
    let credentials = || Credentials::new("sim".to_owned(), "sim-password".to_owned());
    let builder =
        |port: u16, tls: Tls| AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("localhost").port(port).tls(tls);
    let (plain, tls) = (simulator.smtp_addr().unwrap().port(), simulator.smtps_addr().unwrap().port());
    for (transport, to) in [
        (builder(plain, Tls::None).build(), "one@example.org"),
        (builder(plain, Tls::Required(trusting(&simulator))).credentials(credentials()).build(), "two@example.org"),
        (builder(tls, Tls::Wrapper(trusting(&simulator))).credentials(credentials()).build(), "Three@Example.org"),
    ] {
        let response = transport.send(letter(to)).await.unwrap();
        assert_eq!(response.code().to_string(), "250");
    }
    let taken = simulator.taken();
    let facts: Vec<_> = taken
        .iter()
        .map(|taken| (taken.recipient.as_str(), taken.account.as_str(), taken.email.as_ref().unwrap().tls))
        .collect();
    assert_eq!(
        facts,
        [("one@example.org", "anonymous", false), ("two@example.org", "sim", true), ("three@example.org", "sim", true)]
    );
    let mail = &taken[1];
    assert_eq!(mail.channel, Channel::Email);
    assert_eq!(mail.subject.as_deref(), Some("Заказ готов — приходите"));
    assert_eq!(mail.text.as_deref().unwrap().replace("\r\n", "\n"), "Здравствуйте!\n.строка с точкой\n");
    assert_eq!(mail.html.as_deref(), Some("<p style=\"color: teal\">Здравствуйте!</p>"));
    assert_eq!(mail.our_id.as_deref(), Some("id-1@example.org"));
    let email = mail.email.as_ref().unwrap();
    assert_eq!(email.from, "from@example.org");
    assert!(email.headers.iter().any(|(name, value)| name == "Subject" && value.starts_with("=?utf-8?")));
}

#[tokio::test]
async fn a_stranger_is_not_trusted() {
    let simulator = start_with_mail(json!({})).await;
    let tls = TlsParameters::builder("localhost".to_owned()).build().unwrap();
    let port = simulator.smtps_addr().unwrap().port();
    let transport =
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("localhost").port(port).tls(Tls::Wrapper(tls)).build();
    assert!(transport.send(letter("a@example.org")).await.is_err());
    assert_eq!(simulator.taken_count(), 0);
}

#[tokio::test]
async fn a_conversation_goes_in_its_order() {
    let simulator = start_with_mail(json!({})).await;
    let mut talk = Talk::begin(&simulator).await;
    assert!(talk.say("MAIL FROM:<a@example.org>").await.starts_with("503 5.5.1"));
    let offer = talk.say("EHLO client.test").await;
    for extension in
        ["SIZE 26214400", "8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES", "STARTTLS", "AUTH PLAIN LOGIN"]
    {
        assert!(offer.contains(extension), "{extension} in {offer}");
    }
    assert!(talk.say("RCPT TO:<b@example.org>").await.starts_with("503"));
    assert!(talk.say("MAIL FROM:<a@example.org> SIZE=30000000").await.starts_with("552 5.3.4"));
    assert!(talk.say("MAIL FROM:<a@example.org> XYZ=1").await.starts_with("555 5.5.4"));
    assert!(talk.say("MAIL FROM:<анна@example.org>").await.starts_with("553 5.6.7"));
    assert!(talk.say("MAIL FROM:<a@example.org> SIZE=100 BODY=8BITMIME").await.starts_with("250 2.1.0"));
    assert!(talk.say("DATA").await.starts_with("503"));
    assert!(talk.say("RCPT TO:<b@example.org>").await.starts_with("250 2.1.5"));
    assert_eq!(talk.say("RSET").await, "250 2.0.0 Ok");
    assert!(talk.say("RCPT TO:<b@example.org>").await.starts_with("503"));
    assert!(talk.say("AUTH PLAIN AHNpbQB3cm9uZw==").await.starts_with("535 5.7.8"));
    assert_eq!(talk.say("AUTH LOGIN").await, "334 VXNlcm5hbWU6");
    assert_eq!(talk.say("c2lt").await, "334 UGFzc3dvcmQ6");
    assert!(talk.say("c2ltLXBhc3N3b3Jk").await.starts_with("235 2.7.0"));
    assert!(talk.say("NOOP").await.starts_with("250"));
    assert!(talk.say("EXPN all").await.starts_with("500 5.5.2"));
    assert!(talk.say("QUIT").await.starts_with("221"));
    assert_eq!(talk.hear().await, "");
    assert_eq!(simulator.taken_count(), 0);
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_order_and_dots_are_unstuffed() {
    let simulator = start_with_mail(json!({})).await;
    let mut talk = Talk::greeted(&simulator).await;
    talk.write("MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<C@Example.org>\r\nDATA\r\n").await;
    for expected in ["250 2.1.0", "250 2.1.5", "250 2.1.5", "354 "] {
        assert!(talk.hear().await.starts_with(expected));
    }
    talk.write(&format!("{MAIL}..one\r\n...\r\n.\r\nQUIT\r\n")).await;
    let queued = talk.hear().await;
    let id = queued.strip_prefix("250 2.0.0 Ok: queued as ").unwrap();
    assert!(talk.hear().await.starts_with("221"));
    let taken = simulator.taken();
    assert_eq!((taken.len(), taken[0].provider_message_id.as_str()), (2, id));
    assert_eq!((taken[1].recipient.as_str(), taken[1].email.as_ref().unwrap().from.as_str()), ("c@example.org", ""));
    assert_eq!(taken[0].text.as_deref(), Some("hello\r\n.one\r\n..\r\n"));
}

#[tokio::test]
async fn a_mail_of_wrong_form_is_refused_after_its_end() {
    let simulator = start_with_mail(json!({ "email": {
        "sizeLimitBytes": 5000, "extensions": ["SIZE", "ENHANCEDSTATUSCODES"],
    } }))
    .await;
    for (mail, expected) in [
        (MAIL.replace("From: a@example.org\r\n", ""), "550 5.6.0"),
        (MAIL.replace("hello\r\n", "a\nb\r\n"), "550 5.6.11"),
        (MAIL.replace("hello", &"x".repeat(999)), "550 5.6.0"),
        (MAIL.replace("hello", "привет"), "554 5.6.1"),
        (MAIL.replace("hello", &"x".repeat(900)) + &format!("{}\r\n", "y".repeat(900)).repeat(5), "552 5.3.4"),
        (MAIL.replace("hello", &"x".repeat(998)), "250 2.0.0"),
    ] {
        let mut talk = Talk::greeted(&simulator).await;
        talk.say("MAIL FROM:<a@example.org>").await;
        talk.say("RCPT TO:<b@example.org>").await;
        assert!(talk.say("DATA").await.starts_with("354"));
        talk.write(&mail).await;
        let reply = talk.say(".").await;
        assert!(reply.starts_with(expected), "{reply}, expected {expected}");
        assert!(talk.say("RSET").await.starts_with("250"));
    }
    assert_eq!(simulator.taken_count(), 1);
}

#[tokio::test]
async fn tls_and_a_login_may_be_required_and_offers_left_out() {
    let simulator =
        start_with_mail(json!({ "email": { "requireTls": true, "requireAuth": true, "extensions": ["starttls"] } }))
            .await;
    let mut talk = Talk::begin(&simulator).await;
    assert_eq!(talk.say("EHLO client.test").await, "250-simulator.test greets client.test|250 STARTTLS");
    assert_eq!(talk.say("MAIL FROM:<a@example.org>").await, "530 Must issue a STARTTLS command first");
    assert!(talk.say("AUTH PLAIN AA==").await.starts_with("502"));
    assert!(talk.say("STARTTLS").await.starts_with("220"));
    let simulator = start_with_mail(json!({ "email": { "requireAuth": true } })).await;
    let mut talk = Talk::greeted(&simulator).await;
    assert_eq!(talk.say("MAIL FROM:<a@example.org>").await, "530 5.7.0 Authentication required");
}
