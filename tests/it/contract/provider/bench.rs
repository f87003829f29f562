//! One account of each adapter, against one simulator of its own.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use vestnik::channels::{Gateway, HttpClient, Provider, Telegram, Twilio, WhatsApp};
use vestnik::config::sms::SmsSettings;
use vestnik::config::{Settings, Sources};
use vestnik::domain::message::RenderedWhatsAppTemplate;
use vestnik::domain::template::WhatsAppButtonKind;
use vestnik::domain::{Channel, Content, NotificationId, Outcome, OutgoingMessage, Recipient};
use vestnik::simulator::{Scenario, Simulator, SimulatorOptions, telegram, twilio, whatsapp};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);
pub(super) const IMPATIENCE: Duration = Duration::from_millis(400);
const TELEGRAM_CHAT: &str = "123456789";
const PHONE_NUMBER: &str = "+79991234567";
const GATEWAY_PASSWORD: &str = "sim-password";

/// What speaks to a provider; two of them send SMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Adapter {
    WhatsApp,
    Telegram,
    Twilio,
    /// `assets/gateways/smsc.toml`.
    Gateway,
}

/// One account against one simulator of its own.
pub(super) struct Bench {
    adapter: Adapter,
    pub(super) simulator: Simulator,
    pub(super) provider: Arc<dyn Provider>,
}

impl Bench {
    pub(super) async fn start(adapter: Adapter) -> Bench {
        let simulator = Simulator::start(SimulatorOptions::default()).await.unwrap();
        let provider = adapter.account(&simulator.url(), None);
        Bench { adapter, simulator, provider }
    }

    pub(super) fn play(&self, scenario: Value) {
        self.simulator.set_scenario(Scenario::parse(scenario.to_string().as_bytes()).unwrap()).unwrap();
    }

    pub(super) async fn send(&self, content: Content, limit: Duration) -> Outcome {
        self.provider.send(&message(self.adapter, content), limit).await
    }

    /// Sends one message that meets `rule`, and holds the outcome against the record.
    pub(super) async fn send_meeting(&self, rule: Value, limit: Duration) -> String {
        self.play(json!({ self.adapter.path(): { "next": [rule] } }));
        let before = self.simulator.taken_count();
        let outcome = self.send(Content::Text("x".into()), limit).await;
        let taken = self.simulator.taken_count() - before;
        match &outcome {
            Outcome::Accepted { provider_message_id, .. } => {
                assert_eq!(taken, 1, "accepted, and not taken");
                assert_eq!(&self.simulator.taken().pop().unwrap().provider_message_id, provider_message_id);
            }
            // May have been taken or not: that is what it says.
            Outcome::Ambiguous { .. } => {}
            refused => assert_eq!(taken, 0, "taken, and yet {refused:?}"),
        }
        summary(&outcome)
    }

    pub(super) async fn send_to_meet(&self, rule: Value) -> Outcome {
        self.play(json!({ self.adapter.path(): { "next": [rule] } }));
        self.send(Content::Text("x".into()), PATIENCE).await
    }

    /// Puts a live connection into the pool, where that is wanted.
    pub(super) async fn fresh_or_kept(&self, is_kept: bool) {
        if is_kept {
            self.play(json!({}));
            assert_eq!(summary(&self.send(Content::Text("x".into()), PATIENCE).await), "accepted");
        }
    }
}

impl Adapter {
    pub(super) fn channel(self) -> Channel {
        match self {
            Adapter::WhatsApp => Channel::WhatsApp,
            Adapter::Telegram => Channel::Telegram,
            Adapter::Twilio | Adapter::Gateway => Channel::Sms,
        }
    }

    /// Its part of a scenario.
    pub(super) fn path(self) -> &'static str {
        self.channel().as_str()
    }

    /// One of another channel, whose addresses are others.
    pub(super) fn other(self) -> Adapter {
        if self == Adapter::Telegram { Adapter::WhatsApp } else { Adapter::Telegram }
    }

    pub(super) fn account(self, base_url: &str, time_limit: Option<Duration>) -> Arc<dyn Provider> {
        let time_limit = time_limit.unwrap_or(PATIENCE);
        let timeout_ms = time_limit.as_millis() as u64;
        match self {
            Adapter::WhatsApp => {
                let settings = json!({
                    "phone_number_id": whatsapp::DEFAULT_PHONE_NUMBER_ID, "token": whatsapp::DEFAULT_TOKEN,
                    "base_url": base_url, "timeout_ms": timeout_ms,
                });
                Arc::new(WhatsApp::new("main", &serde_json::from_value(settings).unwrap(), HttpClient::new()).unwrap())
            }
            Adapter::Telegram => {
                let settings =
                    json!({ "token": telegram::DEFAULT_TOKEN, "base_url": base_url, "timeout_ms": timeout_ms });
                Arc::new(Telegram::new("main", &serde_json::from_value(settings).unwrap(), HttpClient::new()).unwrap())
            }
            Adapter::Twilio => twilio(base_url, time_limit, json!({})),
            Adapter::Gateway => gateway(base_url, time_limit),
        }
    }

    /// What may never be seen.
    pub(super) fn secret(self) -> &'static str {
        if self == Adapter::Gateway { GATEWAY_PASSWORD } else { "sim-token" }
    }

    /// A scenario that does not let our secret in.
    pub(super) fn with_another_secret(self) -> Value {
        match self {
            Adapter::WhatsApp | Adapter::Telegram => json!({ self.path(): { "tokens": ["1000001:another"] } }),
            Adapter::Twilio => json!({ "sms": { "accounts": [{ "token": "another" }] } }),
            Adapter::Gateway => json!({ "sms": { "gateway": { "password": "another" } } }),
        }
    }

    /// In characters.
    pub(super) fn longest_text(self) -> usize {
        match self {
            Adapter::WhatsApp | Adapter::Telegram => 4096,
            Adapter::Twilio => 1600,
            Adapter::Gateway => 1000,
        }
    }
}

/// An account of the simulator's, its settings changed.
pub(super) fn twilio(base_url: &str, time_limit: Duration, change: Value) -> Arc<dyn Provider> {
    let mut twilio = json!({
        "account_sid": twilio::DEFAULT_ACCOUNT_SID, "auth_token": twilio::DEFAULT_TOKEN, "from": twilio::DEFAULT_SENDER,
        "base_url": base_url,
    });
    twilio.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let settings = json!({ "timeout_ms": time_limit.as_millis() as u64, "twilio": twilio });
    let settings: SmsSettings = serde_json::from_value(settings).unwrap();
    let public_url = Some("https://notify.example.com");
    let twilio = settings.twilio.as_ref().unwrap();
    Arc::new(Twilio::new("main", &settings, twilio, public_url, HttpClient::new()).unwrap())
}

/// The example that users copy, pointed at the simulator.
fn gateway(base_url: &str, time_limit: Duration) -> Arc<dyn Provider> {
    let check_url = "/sys/balance.php?login={secrets.login}&psw={secrets.password}&fmt=3";
    let overrides = [
        ("sms.main.connect_timeout_ms", time_limit.as_millis().to_string()),
        ("sms.main.timeout_ms", time_limit.as_millis().to_string()),
        ("sms.main.http.url", format!("{base_url}/sys/send.php")),
        ("sms.main.http.check_url", format!("{base_url}{check_url}")),
        ("sms.main.http.secrets.login", "sim".to_owned()),
        ("sms.main.http.secrets.password", GATEWAY_PASSWORD.to_owned()),
    ];
    let sources = Sources {
        file: Some(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/gateways/smsc.toml").into()),
        overrides: overrides.map(|(path, value)| (path.to_owned(), value)).to_vec(),
        ..Sources::default()
    };
    let settings = Settings::load(&sources).unwrap();
    let account = &settings.sms["main"];
    Arc::new(Gateway::new("main", account, account.http.as_ref().unwrap(), HttpClient::new()).unwrap())
}

pub(super) fn message(adapter: Adapter, content: Content) -> OutgoingMessage {
    let address = if adapter == Adapter::Telegram { TELEGRAM_CHAT } else { PHONE_NUMBER };
    let recipient = Recipient::parse(adapter.channel(), address, None).unwrap();
    OutgoingMessage { id: NotificationId(uuid::Uuid::from_u128(42)), recipient, content }
}

pub(super) fn template() -> RenderedWhatsAppTemplate {
    RenderedWhatsAppTemplate {
        name: "order_ready".into(),
        language: "ru".into(),
        category: None,
        header: vec!["Заказ".into()],
        body: vec!["Анна".into(), "42".into()],
        buttons: vec![(0, WhatsAppButtonKind::Url, "suffix".into())],
    }
}

/// An outcome in words, as the tables have it.
pub(super) fn summary(outcome: &Outcome) -> String {
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
