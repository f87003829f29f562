//! A bot on the Telegram Bot API.
//!
//! Source: core.telegram.org/bots/api (Bot API 10.1). Telegram carries no correlation id, deduplicates nothing and
//! reports nothing later: a yes is the last that is ever heard of a message, and an uncertain one can only be settled
//! by a person. The token is part of every path, so no URI of this module is ever printed.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use hyper::Uri;
use serde::{Deserialize, Serialize};

use super::Provider;
use super::endpoint::{ConfigProblem, Endpoint, Request, base_url, never, printable, token, uri};
use super::http_client::{HttpAnswer, HttpClient};
use super::outcomes::Refusal;
use super::telegram_codes;
use crate::config::telegram::TelegramSettings;
use crate::domain::{AccountRef, Channel, ChatId, Content, Outcome, OutgoingMessage, PermanentReason, Recipient};

/// One bot.
pub struct Telegram {
    account: AccountRef,
    endpoint: Endpoint,
    send_message: Uri,
    get_me: Uri,
}

impl Telegram {
    pub fn new(account_name: &str, settings: &TelegramSettings, client: HttpClient) -> Result<Self, ConfigProblem> {
        let account = AccountRef { channel: Channel::Telegram, name: account_name.into() };
        let base = base_url(&account, "base_url", &settings.base_url)?;
        // `123456:ABC…`: what stands here becomes part of the path.
        let token = token(&account, "token", &settings.token, |c| c.is_ascii_alphanumeric() || ":_-".contains(c))?;
        let send_message = uri(&account, "token", &format!("{base}/bot{token}/sendMessage"))?;
        let get_me = uri(&account, "token", &format!("{base}/bot{token}/getMe"))?;
        let (connect_ms, total_ms) = (settings.connect_timeout_ms, settings.timeout_ms);
        let endpoint = Endpoint::new(&account, client, &send_message, connect_ms, total_ms)?;
        Ok(Telegram { account, endpoint, send_message, get_me })
    }
}

#[async_trait]
impl Provider for Telegram {
    fn account(&self) -> &AccountRef {
        &self.account
    }

    async fn send(&self, message: &OutgoingMessage, limit: Duration) -> Outcome {
        let request = body(message).and_then(|body| Request::json(&self.send_message, &body));
        self.endpoint.deliver(request, limit, outcome).await
    }

    async fn check(&self, limit: Duration) -> Result<String, String> {
        let answer = self.endpoint.ask(Request::get(&self.get_me), limit).await?;
        match answer.json() {
            Some(Answer::<Bot> { ok: true, result: Some(bot), .. }) => {
                Ok(format!("@{}, id {}", printable(bot.username.as_deref().unwrap_or("?")), bot.id))
            }
            Some(Answer { description: Some(description), .. }) => {
                Err(format!("Telegram answered {}: {}", answer.status.as_u16(), printable(&description)))
            }
            Some(_) | None => {
                Err(format!("not Telegram's answer: status {}, is base_url right?", answer.status.as_u16()))
            }
        }
    }
}

impl fmt::Debug for Telegram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Telegram({})", self.account)
    }
}

/// The request's body, or why this message can never go by Telegram.
fn body(message: &OutgoingMessage) -> Result<SendBody<'_>, Outcome> {
    let Recipient::Chat(chat) = &message.recipient else {
        return never(PermanentReason::Recipient, "Telegram needs a chat id");
    };
    let (text, parse_mode) = match &message.content {
        Content::Text(text) => (text, None),
        Content::TelegramHtml(html) => (html, Some("HTML")),
        Content::WhatsAppTemplate(_) => return never(PermanentReason::Content, "Telegram takes no WhatsApp template"),
        Content::Email(_) => return never(PermanentReason::Content, "Telegram takes no email"),
    };
    let chat_id = match chat {
        ChatId::Numeric(id) => ChatIdBody::Numeric(*id),
        ChatId::Name(name) => ChatIdBody::Name(name),
    };
    Ok(SendBody { chat_id, text, parse_mode, link_preview_options: LinkPreview { is_disabled: true } })
}

fn outcome(answer: &HttpAnswer) -> Outcome {
    let body = answer.json::<Answer<Sent>>();
    if answer.status.is_success()
        && let Some(Answer { ok: true, result: Some(sent), .. }) = &body
    {
        // The message's id alone is unique only within its chat.
        let provider_message_id = format!("{}:{}", sent.chat.id, sent.message_id);
        return Outcome::Accepted { provider_message_id, note: None };
    }
    let refusal = body.filter(|body| !body.ok && body.description.is_some());
    // The same number stands in both places; the provider's own word goes first.
    let code = refusal.as_ref().and_then(|body| body.error_code).unwrap_or(answer.status.as_u16());
    let row =
        refusal.as_ref().and_then(|body| telegram_codes::row(code, body.description.as_deref().unwrap_or_default()));
    Refusal {
        code: Some(code.to_string()),
        verdict: row.map(|row| row.verdict),
        from_provider: refusal.is_some(),
        stated: refusal.and_then(|body| body.parameters?.retry_after).map(Duration::from_secs),
    }
    .into_outcome(answer)
}

#[derive(Serialize)]
struct SendBody<'a> {
    chat_id: ChatIdBody<'a>,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parse_mode: Option<&'static str>,
    link_preview_options: LinkPreview,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ChatIdBody<'a> {
    Numeric(i64),
    Name(&'a str),
}

#[derive(Serialize)]
struct LinkPreview {
    is_disabled: bool,
}

#[derive(Deserialize)]
struct Answer<T> {
    ok: bool,
    // Written out, for the derive would ask `T: Default`.
    #[serde(default = "Option::default")]
    result: Option<T>,
    error_code: Option<u16>,
    description: Option<String>,
    parameters: Option<Parameters>,
}

#[derive(Deserialize)]
struct Parameters {
    retry_after: Option<u64>,
}

#[derive(Deserialize)]
struct Sent {
    message_id: i64,
    chat: Chat,
}

#[derive(Deserialize)]
struct Chat {
    id: i64,
}

#[derive(Deserialize)]
struct Bot {
    id: i64,
    username: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DownReason, NotificationId, ThrottleScope};
    use bytes::Bytes;
    use hyper::{HeaderMap, StatusCode};
    use serde_json::{Value, json};

    const TOKEN: &str = "123456:AA-secret_token";

    fn body_of(chat: &str, content: Content) -> Value {
        let recipient = Recipient::Chat(ChatId::parse(chat).expect("a chat"));
        let message = OutgoingMessage { id: NotificationId(uuid::Uuid::nil()), recipient, content };
        serde_json::to_value(body(&message).expect("a body")).expect("JSON")
    }

    fn answered(status: u16, body: &str) -> Outcome {
        outcome(&HttpAnswer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        })
    }

    fn refused(code: u16, description: &str) -> Outcome {
        answered(code, &json!({ "ok": false, "error_code": code, "description": description }).to_string())
    }

    #[test]
    fn texts_and_html_are_written_as_the_bot_api_describes() {
        assert_eq!(
            body_of("-100123", Content::Text("<3".into())),
            json!({ "chat_id": -100123, "text": "<3", "link_preview_options": { "is_disabled": true } })
        );
        assert_eq!(
            body_of("@durov_news", Content::TelegramHtml("<b>x</b>".into())),
            json!({ "chat_id": "@durov_news", "text": "<b>x</b>", "parse_mode": "HTML",
                    "link_preview_options": { "is_disabled": true } })
        );
    }

    #[test]
    fn only_a_message_id_is_a_yes() {
        let yes = r#"{"ok":true,"result":{"message_id":4711,"date":1767225600,"chat":{"id":-5,"type":"group"}}}"#;
        let Outcome::Accepted { provider_message_id, .. } = answered(200, yes) else { panic!("not accepted") };
        assert_eq!(provider_message_id, "-5:4711");
        for no in
            ["", "{}", "null", r#"{"ok":true}"#, r#"{"ok":true,"result":true}"#, r#"{"ok":false,"description":"?"}"#]
        {
            assert!(matches!(answered(200, no), Outcome::Ambiguous { .. }), "{no}");
        }
    }

    #[test]
    fn refusals_are_told_apart_by_phrase() {
        let blocked = refused(403, "Forbidden: bot was blocked by the user");
        assert!(matches!(blocked, Outcome::Permanent { reason: PermanentReason::OptedOut, .. }));
        assert_eq!(blocked.error().map(|error| &*error.code), Some("403"));
        assert!(matches!(refused(401, "Unauthorized"), Outcome::ChannelDown { reason: DownReason::Auth, .. }));
        assert!(matches!(refused(404, "Not Found"), Outcome::ChannelDown { reason: DownReason::Config, .. }));
        assert!(matches!(refused(500, "Internal Server Error"), Outcome::Transient { handed_off: true, .. }));
        assert!(matches!(refused(502, "Bad Gateway"), Outcome::Ambiguous { .. }));
        assert!(matches!(answered(500, "<html>"), Outcome::Ambiguous { .. }));
        assert!(matches!(answered(404, "<html>"), Outcome::ChannelDown { reason: DownReason::Config, .. }));
    }

    #[test]
    fn a_429_rests_the_chat_for_as_long_as_it_says() {
        let body = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 7","parameters":{"retry_after":7}}"#;
        let Outcome::Throttled { scope, after, .. } = answered(429, body) else { panic!("not throttled") };
        assert_eq!((scope, after), (ThrottleScope::Recipient, Duration::from_secs(7)));
    }

    #[test]
    fn settings_are_checked_and_the_token_is_never_shown() {
        let settings = |edit: fn(&mut TelegramSettings)| {
            let text = json!({ "token": TOKEN }).to_string();
            let mut settings: TelegramSettings = serde_json::from_str(&text).expect("settings");
            edit(&mut settings);
            Telegram::new("alerts", &settings, HttpClient::new())
        };
        let good = settings(|_| {}).expect("good settings");
        assert!(!format!("{good:?} {:?}", good.endpoint).contains("secret"));
        for (edit, name) in [
            ((|s| s.token = "".into()) as fn(&mut TelegramSettings), "token"),
            (|s| s.token = "123:secret/../x".into(), "token"),
            (|s| s.token = "123:secret\n".into(), "token"),
            (|s| s.base_url = "api.telegram.org".into(), "base_url"),
            (|s| s.connect_timeout_ms = 0, "connect_timeout_ms"),
        ] {
            let problem = settings(edit).expect_err(name);
            assert_eq!(problem.setting, format!("telegram.alerts.{name}"));
            assert!(!format!("{problem} {problem:?}").contains("secret"));
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_back_only_a_message_id_is_a_yes(
            status in 100..1000_u16,
            junk in ".{0,100}",
            code in proptest::num::i64::ANY,
            shape in 0..6_u8,
        ) {
            let body = match shape {
                0 => junk,
                1 => json!({ "ok": false, "error_code": code, "description": junk }).to_string(),
                2 => json!({ "ok": false, "description": junk, "parameters": { "retry_after": code } }).to_string(),
                3 => json!({ "ok": true, "description": junk }).to_string(),
                4 => json!({ "ok": code }).to_string(),
                _ => json!({ "ok": true, "result": { "message_id": code, "chat": { "id": code } } }).to_string(),
            };
            let is_yes = matches!(answered(status, &body), Outcome::Accepted { .. });
            proptest::prop_assert_eq!(is_yes, shape == 5 && (200..300).contains(&status));
        }
    }
}
