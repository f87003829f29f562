//! What an email account promises, held against the simulator's mail server: what an outcome says of the message has
//! to agree with what the server's record says it took, wherever the conversation ends.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vestnik::channels::{Email, Provider};
use vestnik::domain::{
    Attachment, AttachmentSource, Channel, Content, EmailContent, NotificationId, Outcome, OutgoingMessage, Recipient,
    SystemClock,
};
use vestnik::simulator::{Scenario, Simulator, SimulatorOptions, SmtpOptions, Taken};

const PATIENCE: Duration = Duration::from_secs(10);
const IMPATIENCE: Duration = Duration::from_millis(400);
const ANNA: &str = "anna@example.org";

#[tokio::test]
async fn an_accepted_message_is_the_one_that_was_taken() {
    let bench = Bench::start(json!({})).await;
    let outcome = bench.send(ANNA, email("Заказ 42", "Здравствуйте!\n.\n..\nline\r\nline\n"), PATIENCE).await;
    let Outcome::Accepted { provider_message_id, note } = outcome else { panic!("{outcome:?}") };
    let taken = bench.last();
    assert_eq!((taken.channel, taken.recipient.as_str(), note), (Channel::Email, ANNA, None));
    assert_eq!(taken.subject.as_deref(), Some("Заказ 42"));
    assert_eq!(written(&taken), "Здравствуйте!\n.\n..\nline\nline\n");
    let id = "<00000000-0000-0000-0000-00000000002a@example.com>";
    assert_eq!(provider_message_id, format!("{id} 2.0.0 Ok: queued as {}", queue_id(&provider_message_id)));
    assert_eq!(header(&taken, "Message-ID"), Some(id));
    assert_eq!(header(&taken, "From"), Some("=?utf-8?B?0KHQtdCy0LXRgA==?= <news@example.com>"));
    assert_eq!(header(&taken, "Auto-Submitted"), Some("auto-generated"));
    let mail = taken.email.unwrap();
    assert_eq!((mail.from.as_str(), mail.client.as_str(), mail.tls), ("news@example.com", "example.com", false));
}

#[tokio::test]
async fn hard_texts_arrive_as_they_were_written() {
    for extensions in [json!(["SIZE", "8BITMIME", "AUTH"]), json!(["PIPELINING", "SMTPUTF8", "8BITMIME", "AUTH"])] {
        let bench = Bench::start(json!({})).await;
        bench.play(json!({ "extensions": extensions }));
        let long = format!("{}\n{}", "x".repeat(5000), "я".repeat(3000));
        for text in [".", "..\n.\n", "a\rb\nc\r\n\r\nd", "\r\n.\r\nQUIT\r\n", " trailing \t\n", &long] {
            let content =
                Content::Email(EmailContent { html: Some(format!("<p>{text}</p>")), ..email_content("S", text) });
            assert_eq!(summary(&bench.send(ANNA, content, PATIENCE).await), "accepted", "{text:?}");
            let taken = bench.last();
            let lines = text.replace("\r\n", "\n").replace('\r', "\n");
            assert_eq!(written(&taken).trim_end_matches('\n'), lines.trim_end_matches('\n'));
            assert_eq!(taken.html.unwrap().replace("\r\n", "\n").trim_end(), format!("<p>{lines}</p>"));
        }
    }
}

#[tokio::test]
async fn the_message_id_is_the_same_at_every_attempt() {
    let bench = Bench::start(json!({})).await;
    assert_eq!(bench.send_meeting(json!({ "error": "dot 451 4.3.0 Later" })).await, "transient, handed off");
    for _ in 0..2 {
        assert_eq!(bench.send_meeting(json!({ "ok": true })).await, "accepted");
    }
    let ids: Vec<_> = bench.simulator.taken().into_iter().map(|taken| taken.our_id.unwrap()).collect();
    assert_eq!(ids, ["00000000-0000-0000-0000-00000000002a@example.com"; 2]);
}

#[tokio::test]
async fn a_refused_connection_is_transient_and_not_handed_off() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let outcome = account(closed, json!({})).send(&message(ANNA, email("S", "x")), PATIENCE).await;
    assert_eq!(summary(&outcome), "transient, not handed off");
    assert_eq!(outcome.error().unwrap().code, "connect");
    let nowhere = account(closed, json!({ "host": "no-such-host.invalid" }));
    assert_eq!(summary(&nowhere.send(&message(ANNA, email("S", "x")), PATIENCE).await), "transient, not handed off");
}

/// The last thing known of the message decides: it may have been taken only once its end was written.
#[tokio::test]
async fn wherever_the_conversation_ends_the_outcome_says_what_is_known() {
    for pipelining in [true, false] {
        for stage in ["banner", "ehlo", "auth", "mail", "rcpt", "data", "dot"] {
            for fault in ["drop", "reset", "hang", "rubbish", "shutdown"] {
                let bench = Bench::start(json!({ "username": "sim", "password": "sim-password" })).await;
                let said =
                    bench.send_meeting_offered(json!({ "fault": format!("{fault}_at_{stage}") }), pipelining).await;
                let expected = match (stage, fault) {
                    ("dot", "drop" | "reset") => "ambiguous connection_lost",
                    ("dot", "hang") => "ambiguous timeout",
                    ("dot", "rubbish") => "ambiguous invalid_answer",
                    ("dot", _) => "transient, handed off",
                    (_, _) => "transient, not handed off",
                };
                assert_eq!(said, expected, "{fault} at {stage}, pipelining: {pipelining}");
                // Whatever happened, the next message finds a conversation that works.
                assert_eq!(bench.send_meeting(json!({ "ok": true })).await, "accepted", "after {fault} at {stage}");
            }
        }
    }
}

#[tokio::test]
async fn slow_answers_within_the_time_limit_are_waited_for() {
    for stage in ["banner", "ehlo", "auth", "mail", "rcpt", "data", "dot"] {
        let bench = Bench::start(json!({ "username": "sim", "password": "sim-password" })).await;
        bench.play(json!({ "next": [{ "fault": format!("slow_at_{stage}") }] }));
        assert_eq!(summary(&bench.send(ANNA, email("S", "x"), PATIENCE).await), "accepted", "{stage}");
    }
}

#[tokio::test]
async fn the_settings_time_limits_hold_where_the_callers_is_longer() {
    for (stage, setting, expected) in
        [("rcpt", "command_timeout_ms", "transient, not handed off"), ("dot", "data_timeout_ms", "ambiguous timeout")]
    {
        let bench = Bench::start(json!({ setting: 300 })).await;
        bench.play(json!({ "next": [{ "fault": format!("hang_at_{stage}") }] }));
        let started = Instant::now();
        assert_eq!(summary(&bench.send(ANNA, email("S", "x"), PATIENCE).await), expected);
        assert!(started.elapsed() < PATIENCE / 2);
    }
}

#[tokio::test]
async fn refusals_have_the_outcome_of_their_row_and_leave_the_conversation_usable() {
    let bench = Bench::start(json!({})).await;
    assert_eq!(bench.send_meeting(json!({ "ok": true })).await, "accepted");
    for (error, expected) in [
        ("mail 451 4.3.0 Later", "transient, not handed off"),
        ("mail 454 4.7.0 Throttling failure", "throttled account 1"),
        ("mail 550 No", "channel_down config"),
        ("rcpt 550 5.1.1 No such user", "permanent recipient"),
        ("rcpt 550 No such user", "permanent recipient"),
        ("rcpt 450 4.7.1 Greylisted", "throttled recipient 300"),
        ("rcpt 452 4.2.2 Full", "transient, not handed off"),
        ("rcpt 554 5.7.1 Relay access denied", "channel_down config"),
        ("rcpt 550 5.7.1 Blocked", "permanent policy"),
        ("data 451 4.3.0 Later", "transient, not handed off"),
        ("data 554 No", "permanent content"),
        ("dot 451 4.3.0 Later", "transient, handed off"),
        ("dot 552 5.3.4 Too big", "permanent content"),
        ("dot 554 5.7.1 Spam", "permanent policy"),
        ("dot 550 5.7.26 DMARC", "permanent policy"),
    ] {
        assert_eq!(bench.send_meeting(json!({ "error": error })).await, expected, "{error}");
        // On the same conversation: a new one would end at its banner.
        bench.play(json!({ "next": [{ "fault": "drop_at_banner" }] }));
        assert_eq!(summary(&bench.send(ANNA, email("S", "x"), PATIENCE).await), "accepted", "after {error}");
    }
    let outcome = bench.send_to_meet(json!({ "error": "rcpt 550 5.1.1 No such user" })).await;
    let error = outcome.error().unwrap();
    assert_eq!((error.code.as_str(), error.detail.as_str()), ("550 5.1.1", "5.1.1 No such user"));
}

#[tokio::test]
async fn a_server_that_left_while_idle_is_noticed_before_the_message() {
    let bench = Bench::start(json!({})).await;
    assert_eq!(bench.send_meeting(json!({ "ok": true })).await, "accepted");
    let Bench { simulator, account: kept } = bench;
    simulator.stop().await;
    let outcome = kept.send(&message(ANNA, email("S", "x")), PATIENCE).await;
    assert_eq!(
        (summary(&outcome).as_str(), outcome.error().unwrap().code.as_str()),
        ("transient, not handed off", "connect")
    );
}

#[tokio::test]
async fn a_wrong_password_stops_the_account_and_is_shown_nowhere() {
    let bench = Bench::start(json!({ "username": "sim", "password": "wrong-secret" })).await;
    let outcome = bench.send(ANNA, email("S", "x"), PATIENCE).await;
    assert_eq!(summary(&outcome), "channel_down auth");
    let said = bench.account.check(PATIENCE).await.unwrap_err();
    assert!(said.contains("535"), "{said}");
    assert!(!format!("{outcome:?} {said} {:?}", bench.account).contains("secret"));
    assert_eq!(bench.simulator.taken_count(), 0);
}

#[tokio::test]
async fn an_account_signs_in_where_that_is_asked_or_is_stopped() {
    let bench = Bench::start(json!({ "username": "sim", "password": "sim-password" })).await;
    bench.play(json!({ "requireAuth": true }));
    assert_eq!(summary(&bench.send(ANNA, email("S", "x"), PATIENCE).await), "accepted");
    assert_eq!(bench.last().account, "sim");
    let bench = Bench::start(json!({ "username": "sim", "password": "sim-password" })).await;
    bench.play(json!({ "extensions": ["PIPELINING"] }));
    assert_eq!(summary(&bench.send(ANNA, email("S", "x"), PATIENCE).await), "channel_down config");
    let bench = Bench::start(json!({})).await;
    bench.play(json!({ "requireAuth": true }));
    assert_eq!(summary(&bench.send(ANNA, email("S", "x"), PATIENCE).await), "channel_down auth");
}

#[tokio::test]
async fn messages_leave_encrypted_or_not_at_all() {
    let bench = Bench::start(json!({})).await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, bench.simulator.smtp_ca_pem().unwrap()).unwrap();
    let (starttls, implicit) = (bench.simulator.smtp_addr().unwrap(), bench.simulator.smtps_addr().unwrap());
    let credentials = json!({ "username": "sim", "password": "sim-password", "ca_file": ca_file });
    let with = |tls: &str, more: &Value| {
        let mut settings = json!({ "tls": tls });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    };
    bench.play(json!({ "requireTls": true, "requireAuth": true }));
    for (address, tls) in [(starttls, "starttls"), (implicit, "implicit")] {
        let outcome = account(address, with(tls, &credentials)).send(&message(ANNA, email("S", "x")), PATIENCE).await;
        assert_eq!(summary(&outcome), "accepted", "{tls}: {outcome:?}");
        assert!(bench.last().email.unwrap().tls);
        // The system does not know this authority.
        let untrusted = account(address, with(tls, &json!({})));
        let outcome = untrusted.send(&message(ANNA, email("S", "x")), PATIENCE).await;
        assert_eq!(summary(&outcome), "channel_down config", "{tls}: {outcome:?}");
        assert_eq!(outcome.error().unwrap().code, "certificate");
    }
    for fault in ["drop", "reset", "hang", "rubbish", "shutdown"].map(|fault| format!("{fault}_at_starttls")) {
        bench.play(json!({ "next": [{ "fault": fault }] }));
        let outcome =
            account(starttls, with("starttls", &credentials)).send(&message(ANNA, email("S", "x")), PATIENCE).await;
        assert_eq!(summary(&outcome), "transient, not handed off", "{fault}");
    }
    let taken = bench.simulator.taken_count();
    bench.play(json!({ "extensions": ["AUTH", "SIZE"] }));
    let outcome =
        account(starttls, with("starttls", &credentials)).send(&message(ANNA, email("S", "x")), PATIENCE).await;
    assert_eq!((summary(&outcome).as_str(), bench.simulator.taken_count()), ("channel_down config", taken));
}

#[tokio::test]
async fn letters_beyond_ascii_need_a_server_that_takes_them() {
    let bench = Bench::start(json!({})).await;
    let address = "анна@почта.рф";
    assert_eq!(summary(&bench.send(address, email("S", "x"), PATIENCE).await), "accepted");
    assert_eq!(bench.last().recipient, "анна@xn--80a1acny.xn--p1ai");
    let bench = Bench::start(json!({})).await;
    bench.play(json!({ "extensions": ["PIPELINING", "8BITMIME"] }));
    let outcome = bench.send(address, email("S", "x"), PATIENCE).await;
    assert_eq!(
        (summary(&outcome).as_str(), outcome.error().unwrap().code.as_str()),
        ("permanent recipient", "smtputf8")
    );
}

#[tokio::test]
async fn a_message_that_the_server_said_is_too_large_is_not_sent() {
    let bench = Bench::start(json!({})).await;
    bench.play(json!({ "sizeLimitBytes": 1000 }));
    let outcome = bench.send(ANNA, email("S", &"x".repeat(2000)), PATIENCE).await;
    assert_eq!(
        (summary(&outcome).as_str(), outcome.error().unwrap().code.as_str()),
        ("permanent content", "too_large")
    );
    assert_eq!(bench.simulator.figures(Channel::Email).requests, 0);
}

#[tokio::test]
async fn attachments_come_along_or_nothing_does() {
    let bench = Bench::start(json!({ "attachments_allow_private": true, "attachments_limit_bytes": 5000 })).await;
    let url = |path: &str| AttachmentSource::Url(format!("{}{path}", bench.simulator.url()));
    let inline = |bytes: &[u8]| AttachmentSource::Inline { content_type: "text/csv".into(), bytes: bytes.into() };
    let send = |source: AttachmentSource| {
        let attachments = vec![Attachment { name: "Счёт 42.csv".into(), source }];
        bench.send(ANNA, Content::Email(EmailContent { attachments, ..email_content("S", "x") }), PATIENCE)
    };
    for source in [inline(b"a;b"), url("/_sim/scenario")] {
        assert_eq!(summary(&send(source.clone()).await), "accepted", "{source:?}");
        assert_eq!(bench.last().email.unwrap().attachments.len(), 1);
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (source, expected) in [
        (inline(&[0; 5001]), "permanent content"),
        (url("/no/such/thing"), "permanent content"),
        (AttachmentSource::Url("file:///etc/passwd".into()), "permanent content"),
        (AttachmentSource::Url(format!("http://{closed}/secret")), "transient, not handed off"),
    ] {
        let outcome = send(source).await;
        assert_eq!(summary(&outcome), expected, "{outcome:?}");
        assert!(!format!("{outcome:?}").contains("secret"));
    }
    // Unless the settings say otherwise, nothing is read from where only we may.
    let careful = account(bench.simulator.smtp_addr().unwrap(), json!({}));
    let port = bench.simulator.addr().port();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"] {
        let source = AttachmentSource::Url(format!("http://{host}:{port}/_sim/scenario"));
        let attachments = vec![Attachment { name: "x".into(), source }];
        let content = Content::Email(EmailContent { attachments, ..email_content("S", "x") });
        let outcome = careful.send(&message(ANNA, content), PATIENCE).await;
        assert_eq!(summary(&outcome), "permanent content", "{host}: {outcome:?}");
        assert!(outcome.error().unwrap().detail.contains("private"), "{outcome:?}");
    }
    assert_eq!(bench.simulator.taken_count(), 2);
}

#[tokio::test]
async fn a_text_without_a_template_has_its_first_line_as_subject() {
    let bench = Bench::start(json!({})).await;
    assert_eq!(summary(&bench.send(ANNA, Content::Text("\nПривет\nкак дела".into()), PATIENCE).await), "accepted");
    assert_eq!(bench.last().subject.as_deref(), Some("Привет"));
}

#[tokio::test]
async fn content_of_another_channel_is_refused_and_not_sent() {
    let bench = Bench::start(json!({})).await;
    assert_eq!(summary(&bench.send(ANNA, Content::TelegramHtml("x".into()), PATIENCE).await), "permanent content");
    let mut stray = message(ANNA, email("S", "x"));
    stray.recipient = Recipient::parse(Channel::Telegram, "5", None).unwrap();
    assert_eq!(summary(&bench.account.send(&stray, PATIENCE).await), "permanent recipient");
    assert_eq!(bench.simulator.figures(Channel::Email).requests, 0);
}

#[tokio::test]
async fn a_check_signs_in_and_sends_nothing() {
    let bench = Bench::start(json!({ "username": "sim", "password": "sim-password" })).await;
    let said = bench.account.check(PATIENCE).await.unwrap();
    assert!(said.contains("not encrypted, signed in, takes 26214400 bytes, addresses in any letters"), "{said}");
    assert_eq!((bench.simulator.taken_count(), bench.simulator.figures(Channel::Email).requests), (0, 0));
}

#[tokio::test]
async fn many_at_once_are_each_taken_once_over_few_connections() {
    let bench = Bench::start(json!({ "connections": 3 })).await;
    let sends = (0..300).map(|n| bench.send(ANNA, email(&format!("n {n}"), "x"), PATIENCE));
    let outcomes = futures::future::join_all(sends).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted { .. })));
    let mut subjects: Vec<_> = bench.simulator.taken().into_iter().map(|taken| taken.subject.unwrap()).collect();
    subjects.sort_unstable();
    subjects.dedup();
    assert_eq!(subjects.len(), 300);
}

#[tokio::test]
async fn whoever_gets_no_connection_in_time_was_not_handed_off() {
    let bench = Bench::start(json!({ "connections": 1 })).await;
    bench.play(json!({ "next": [{ "fault": "hang_at_dot" }] }));
    let both = [IMPATIENCE * 2, IMPATIENCE].map(|limit| bench.send(ANNA, email("S", "x"), limit));
    let outcomes = futures::future::join_all(both).await;
    assert_eq!(summary(&outcomes[0]), "ambiguous timeout");
    assert_eq!(
        (summary(&outcomes[1]).as_str(), outcomes[1].error().unwrap().code.as_str()),
        ("transient, not handed off", "no_connection")
    );
}

/// One account against one mail server of its own.
struct Bench {
    simulator: Simulator,
    account: Arc<Email>,
}

impl Bench {
    async fn start(settings: Value) -> Bench {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let smtp = Some(SmtpOptions { listen: any, tls_listen: Some(any), ca_file: None });
        let simulator = Simulator::start(SimulatorOptions { smtp, ..SimulatorOptions::default() }).await.unwrap();
        let account = account(simulator.smtp_addr().unwrap(), settings);
        Bench { simulator, account }
    }

    fn play(&self, email: Value) {
        let scenario = json!({ "email": email }).to_string();
        self.simulator.set_scenario(Scenario::parse(scenario.as_bytes()).unwrap()).unwrap();
    }

    fn last(&self) -> Taken {
        self.simulator.taken().pop().unwrap()
    }

    async fn send(&self, to: &str, content: Content, limit: Duration) -> Outcome {
        self.account.send(&message(to, content), limit).await
    }

    async fn send_to_meet(&self, rule: Value) -> Outcome {
        self.play(json!({ "next": [rule] }));
        self.send(ANNA, email("S", "x"), PATIENCE).await
    }

    async fn send_meeting(&self, rule: Value) -> String {
        self.send_meeting_offered(rule, true).await
    }

    /// Sends one message that meets `rule`, and holds the outcome against the record.
    async fn send_meeting_offered(&self, rule: Value, pipelining: bool) -> String {
        let mut extensions = vec!["SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "AUTH"];
        extensions.extend(pipelining.then_some("PIPELINING"));
        self.play(json!({ "extensions": extensions, "next": [rule] }));
        let before = self.simulator.taken_count();
        let outcome = self.send(ANNA, email("S", "x"), IMPATIENCE).await;
        let taken = self.simulator.taken_count() - before;
        match &outcome {
            Outcome::Accepted { .. } => assert_eq!(taken, 1, "accepted, and not taken"),
            // May have been taken or not: that is what it says.
            Outcome::Ambiguous { .. } => {}
            refused => assert_eq!(taken, 0, "taken, and yet {refused:?}"),
        }
        summary(&outcome)
    }
}

fn account(address: SocketAddr, settings: Value) -> Arc<Email> {
    let mut all = json!({
        "host": address.ip(), "port": address.port(), "tls": "none", "from": "Север <news@example.com>",
    });
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    Arc::new(Email::new("main", &serde_json::from_value(all).unwrap(), Arc::new(SystemClock)).unwrap())
}

fn message(to: &str, content: Content) -> OutgoingMessage {
    let recipient = Recipient::parse(Channel::Email, to, None).unwrap();
    OutgoingMessage { id: NotificationId(uuid::Uuid::from_u128(42)), recipient, content }
}

fn email(subject: &str, text: &str) -> Content {
    Content::Email(email_content(subject, text))
}

fn email_content(subject: &str, text: &str) -> EmailContent {
    EmailContent { subject: subject.into(), text: text.into(), ..EmailContent::default() }
}

/// The text, with line ends as people write them.
fn written(taken: &Taken) -> String {
    taken.text.as_deref().unwrap_or_default().replace("\r\n", "\n")
}

fn header<'a>(taken: &'a Taken, name: &str) -> Option<&'a str> {
    let headers = &taken.email.as_ref()?.headers;
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// What the simulator named the message.
fn queue_id(provider_message_id: &str) -> &str {
    provider_message_id.rsplit(' ').next().unwrap()
}

/// An outcome in words, as the tables have it.
fn summary(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted { .. } => "accepted".into(),
        Outcome::Permanent { reason, .. } => format!("permanent {reason}"),
        Outcome::Transient { handed_off: true, .. } => "transient, handed off".into(),
        Outcome::Transient { handed_off: false, .. } => "transient, not handed off".into(),
        Outcome::Throttled { scope, after, .. } => format!("throttled {scope} {}", after.as_secs()),
        Outcome::ChannelDown { reason, .. } => format!("channel_down {reason}"),
        Outcome::Ambiguous { error } => format!("ambiguous {}", error.code),
    }
}
