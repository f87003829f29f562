//! Where a scenario is played: the state that all connections share, and the one way a valid message goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::answer::{Answer, HTML, JSON, Reply};
use super::fault::FaultKind;
use super::figures::Figures;
use super::record::{Message, Record};
use super::request::Request;
use super::scenario::{Behaviour, ErrorCode, Rule, Scenario};
use super::turns::{Throttle, Turn, Turns, Verdict};
use super::{control, telegram, whatsapp};
use crate::domain::{Channel, Clock};

/// A provider's way of answering one message.
pub(super) trait Dialect {
    /// What the message's id at the provider is made from.
    fn id_bits(&self, turn: &Turn) -> u64;
    fn accepted(&self, recipient: &str, id_bits: u64, at: Timestamp) -> Answer;
    /// A refusal that the scenario asks for.
    fn refused(&self, code: &ErrorCode) -> Answer;
    /// The answer to one too many, and its name in the figures.
    fn throttled(&self, throttle: Throttle) -> (Answer, &'static str);
    /// The provider's own 500.
    fn server_error(&self) -> Answer;
}

/// One provider's part of the state.
#[derive(Debug)]
pub(super) struct Stand {
    channel: Channel,
    // Held for one decision, never over an await. A lock and not shards: a decision takes well under a microsecond.
    turns: Mutex<Turns>,
    pub(super) figures: Figures,
}

impl Stand {
    fn new(channel: Channel, seed: u64, next: &[Rule]) -> Self {
        Stand { channel, turns: Mutex::new(Turns::new(channel, seed, next)), figures: Figures::default() }
    }

    /// A request was refused for what it says.
    pub(super) fn refused(&self, code: &str) {
        self.figures.refused(code);
    }

    pub(super) fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Stage {
    clock: Arc<dyn Clock>,
    seed: AtomicU64,
    scenario: ArcSwap<Scenario>,
    whatsapp: Stand,
    telegram: Stand,
    pub(super) record: Record,
}

impl Stage {
    /// `scenario` has been checked.
    pub(super) fn new(seed: u64, scenario: Scenario, clock: Arc<dyn Clock>, record: Record) -> Self {
        Stage {
            clock,
            seed: AtomicU64::new(seed),
            whatsapp: Stand::new(Channel::WhatsApp, seed, &scenario.whatsapp.next),
            telegram: Stand::new(Channel::Telegram, seed, &scenario.telegram.next),
            scenario: ArcSwap::from_pointee(scenario),
            record,
        }
    }

    pub(super) fn scenario(&self) -> Arc<Scenario> {
        self.scenario.load_full()
    }

    pub(super) fn whatsapp(&self) -> &Stand {
        &self.whatsapp
    }

    pub(super) fn telegram(&self) -> &Stand {
        &self.telegram
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed.load(Ordering::Relaxed)
    }

    /// `scenario` has been checked. Ordinals and the record go on; its `next` replaces what was queued.
    pub(super) fn set_scenario(&self, scenario: Scenario) {
        let scenario = Arc::new(scenario);
        self.scenario.store(Arc::clone(&scenario));
        self.whatsapp.turns().scenario_changed(&scenario.whatsapp.next);
        self.telegram.turns().scenario_changed(&scenario.telegram.next);
    }

    /// As freshly started with the scenario that is set.
    pub(super) fn reset(&self, seed: Option<u64>) {
        let seed = seed.unwrap_or(self.seed());
        self.seed.store(seed, Ordering::Relaxed);
        let scenario = self.scenario();
        for (stand, next) in [(&self.whatsapp, &scenario.whatsapp.next), (&self.telegram, &scenario.telegram.next)] {
            *stand.turns() = Turns::new(stand.channel, seed, next);
            stand.figures.clear();
        }
        self.record.clear(self.clock.now());
    }

    pub(super) fn reply(&self, request: &Request) -> Reply {
        let path = request.path();
        if whatsapp::owns(path) {
            self.whatsapp.figures.request();
            whatsapp::reply(self, request)
        } else if telegram::owns(path) {
            self.telegram.figures.request();
            telegram::reply(self, request)
        } else if control::owns(path) {
            control::answer(self, request).into()
        } else {
            Answer::json(404, &serde_json::json!({ "error": format!("nothing is at {path}") })).into()
        }
    }

    /// Plays the scenario for a message that the provider has nothing to say against.
    ///
    /// What is taken is recorded here, before any waiting: a client that gives up meanwhile has sent its message all
    /// the same.
    pub(super) fn play(
        &self,
        stand: &Stand,
        behaviour: Behaviour<'_>,
        dialect: &impl Dialect,
        message: &Message,
    ) -> Reply {
        let now = self.clock.now();
        let turn = stand.turns().take(behaviour, &message.account, &message.recipient, now);
        let id_bits = dialect.id_bits(&turn);
        let take = || {
            stand.figures.taken();
            self.record.append(stand.channel, message, id_bits, now);
        };
        match &turn.verdict {
            Verdict::Accept => {
                take();
                let answer = dialect.accepted(&message.recipient, id_bits, now);
                Reply { after: turn.latency, fault: None, answer }
            }
            Verdict::Refuse(code) => {
                stand.figures.refused(&code.0);
                Reply { after: turn.latency, fault: None, answer: dialect.refused(code) }
            }
            Verdict::Throttle(throttle) => {
                let (answer, name) = dialect.throttled(*throttle);
                stand.figures.refused(name);
                Reply { after: Duration::ZERO, fault: None, answer }
            }
            Verdict::Fault { kind, taken } => {
                stand.figures.fault(*kind);
                if *taken {
                    take();
                }
                let answer = match kind {
                    FaultKind::SlowHeaders => dialect.accepted(&message.recipient, id_bits, now),
                    FaultKind::ServerErrorJson => dialect.server_error(),
                    FaultKind::Rubbish200 => Answer::new(200, JSON, "<<< thank you, come again >>>"),
                    FaultKind::BadGateway => Answer::new(502, HTML, BAD_GATEWAY_PAGE),
                    FaultKind::Redirect => {
                        let location = Some("/elsewhere".to_owned());
                        Answer { location, ..Answer::new(302, HTML, "") }
                    }
                    FaultKind::EndlessBody => Answer::new(200, JSON, r#"{"ok":true,"padding":""#),
                    FaultKind::ResetBeforeRead
                    | FaultKind::ResetAfterRead
                    | FaultKind::CloseAfterRead
                    | FaultKind::Hang => Answer::new(200, JSON, ""),
                };
                Reply { after: turn.latency, fault: Some(*kind), answer }
            }
        }
    }
}

/// What a proxy in between shows, in the form most of them do.
const BAD_GATEWAY_PAGE: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
    <center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n";
