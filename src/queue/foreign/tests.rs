//! Bodies as `NestJS` clients (10.4 and 11.2 send the same bytes) and others publish them.

use super::*;

const EMITTED: &str = include_str!("fixtures/nest_emit.json");
const SENT: &str = include_str!("fixtures/nest_send.json");

fn raw(body: &str) -> Raw<'_> {
    Raw { body: body.as_bytes(), source: "notifications", message_id: None, redelivered: false }
}

fn parse(body: &str) -> Result<ForeignNotification, Unreadable> {
    read(raw(body))
}

#[test]
fn what_a_nest_client_emits_is_read() {
    let read = parse(EMITTED).expect("read");
    assert_eq!(read.external_id.as_deref(), Some("11111111-1111-4111-8111-111111111111"));
    assert_eq!((read.channel, read.priority), (Channel::WhatsApp, Priority::Normal));
    assert_eq!((read.template_id.as_deref(), read.recipient.as_deref()), (Some("t1"), Some("+79990000001")));
    assert_eq!(read.records.contact_id.as_deref(), Some("c1"));
    assert_eq!(read.scheduled_at.map(|time| time.to_string()).as_deref(), Some("2026-01-07T10:00:00Z"));
    assert_eq!((read.retry_count, read.max_retries), (0, 3));
}

#[test]
fn the_envelopes_id_is_not_the_notifications() {
    let sent = parse(SENT).expect("read");
    assert_eq!(sent.external_id, None, "its own id is the reply's");
    let named = Raw { message_id: Some("m-1"), ..raw(SENT) };
    assert_eq!(read(named).expect("read").external_id.as_deref(), Some("m-1"));
}

#[test]
fn a_bare_notification_needs_its_channel_only() {
    let read = parse(r#"{"channel":"sms","recipient":"","context":{"contactId":"c2"},"queuedAt":"x"}"#).expect("read");
    assert_eq!((read.channel, read.recipient, read.priority), (Channel::Sms, None, Priority::Normal));
    assert_eq!((read.retry_count, read.max_retries, read.scheduled_at), (0, 3, None));
}

#[test]
fn the_channel_is_that_of_the_data_then_the_pattern_then_the_queue() {
    let telegram = r#"{"pattern":"whatsapp.send","data":{"channel":"telegram"}}"#;
    assert_eq!(parse(telegram).expect("read").channel, Channel::Telegram);
    let pattern = r#"{"pattern":{"cmd":"email.send.low","v":1},"data":{}}"#;
    assert_eq!(parse(pattern).expect("read").channel, Channel::Email);
    let queue = Raw { source: "sms.send.high", ..raw(r#"{"channel":"pigeon"}"#) };
    assert_eq!(read(queue).expect("read").channel, Channel::Sms);
    assert_eq!(parse(r#"{"channel":"pigeon"}"#), Err(Unreadable::UnknownChannel));
}

#[test]
fn figures_are_clamped() {
    let read = parse(r#"{"channel":"sms","retryCount":-5,"maxRetries":1000000}"#).expect("read");
    assert_eq!((read.retry_count, read.max_retries), (0, 10));
}

#[test]
fn poison_has_a_reason_and_shows_no_address() {
    let deep = format!("{}1{}", r#"{"channel":"#.repeat(500), "}".repeat(500));
    let long = " ".repeat(LONGEST_BODY_BYTES + 1);
    for (body, code) in [
        ("", "invalid_json"),
        ("junk", "invalid_json"),
        ("[1]", "invalid_json"),
        (deep.as_str(), "invalid_json"),
        (long.as_str(), "too_large"),
        ("{}", "unknown_shape"),
        (r#"{"id":"1","recipient":"+79990000001"}"#, "unknown_shape"),
        (r#"{"pattern":"notification.dlq","data":{"channel":"sms"}}"#, "unknown_pattern"),
        (r#"{"pattern":7,"data":{}}"#, "unknown_pattern"),
        (r#"{"pattern":"sms.send","data":[1]}"#, "invalid_schema"),
        (r#"{"channel":"sms","recipient":{"a":"+79990000001"}}"#, "invalid_schema: at `recipient`"),
        (r#"{"channel":"sms","scheduledAt":"tomorrow"}"#, "invalid_schema: at `scheduledAt`"),
        (r#"{"channel":"sms","context":{"leadId":"x"}}"#, "invalid_schema: at `context.leadId`"),
        (r#"{"channel":"sms","priority":"urgent"}"#, "invalid_schema: at `priority`"),
        (r#"{"channel":"sms","id":"a\u0000b"}"#, "invalid_schema: at `id`"),
        (r#"{"channel":"sms","context":{"contactId":"c\n1"}}"#, "invalid_schema: at `context.contactId`"),
    ] {
        let said = parse(body).expect_err("is poison").to_string();
        assert!(said.starts_with(code) && !said.contains("7999"), "{code}: {said}");
    }
    let not_text = Raw { body: &[0xff, 0xfe, b'{'], ..raw("") };
    assert_eq!(read(not_text), Err(Unreadable::InvalidJson));
}
