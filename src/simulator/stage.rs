//! Where a scenario is played: the state that all connections share, and the one way a valid message goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::answer::{Answer, HTML, JSON, Reply};
use super::fault::FaultKind;
use super::figures::Figures;
use super::receipts::{self, Receipts, Target};
use super::record::{Message, Record};
use super::request::Request;
use super::scenario::{Behaviour, ErrorCode, Point, Rule, Scenario, Timeline};
use super::turns::{Ask, Throttle, Turn, Turns, Verdict};
use super::{control, gateway, inbox, telegram, twilio, whatsapp};
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
    /// Whom the account's limit is kept for.
    fn sender<'a>(&'a self, message: &'a Message) -> &'a str {
        &message.account
    }
    /// How much of the limits the message takes.
    fn weight(&self) -> u32 {
        1
    }
    /// Where the message's receipts go, if anywhere.
    fn target(&self, _message: &Message, _id_bits: u64) -> Option<Target> {
        None
    }
}

/// One provider's part of the state.
#[derive(Debug)]
pub(super) struct Stand {
    pub(super) channel: Channel,
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
    timeline: ArcSwap<Timeline>,
    /// One for each of [`Channel::ALL`].
    stands: [Stand; 4],
    pub(super) record: Record,
    pub(super) receipts: Arc<Receipts>,
}

impl Stage {
    /// `scenario` has been checked; its own seed comes before `seed`.
    pub(super) fn new(seed: u64, scenario: Scenario, clock: Arc<dyn Clock>, record: Record) -> Self {
        let seed = scenario.seed.unwrap_or(seed);
        Stage {
            seed: AtomicU64::new(seed),
            stands: Channel::ALL.map(|channel| Stand::new(channel, seed, scenario.next(channel))),
            timeline: ArcSwap::from_pointee(Timeline::new(scenario, clock.now())),
            record,
            receipts: Arc::default(),
            clock,
        }
    }

    /// What holds now.
    pub(super) fn scenario(&self) -> Arc<Scenario> {
        Arc::clone(self.timeline.load().at(self.clock.now()))
    }

    /// As it was set, with its phases.
    pub(super) fn whole_scenario(&self) -> Arc<Scenario> {
        Arc::clone(self.timeline.load().whole())
    }

    pub(super) fn stand(&self, channel: Channel) -> &Stand {
        match channel {
            Channel::WhatsApp => &self.stands[0],
            Channel::Telegram => &self.stands[1],
            Channel::Sms => &self.stands[2],
            Channel::Email => &self.stands[3],
        }
    }

    pub(super) fn stands(&self) -> &[Stand] {
        &self.stands
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed.load(Ordering::Relaxed)
    }

    /// `scenario` has been checked. Ordinals and the record go on, unless it brings a seed of its own; its `next`
    /// replaces what was queued, and its time begins.
    pub(super) fn set_scenario(&self, scenario: Scenario) {
        let seed = scenario.seed.unwrap_or(self.seed());
        self.seed.store(seed, Ordering::Relaxed);
        let timeline = Timeline::new(scenario, self.clock.now());
        let scenario = Arc::clone(timeline.whole());
        self.timeline.store(Arc::new(timeline));
        for stand in &self.stands {
            stand.turns().scenario_changed(seed, scenario.next(stand.channel));
        }
    }

    /// As freshly started with the scenario that is set.
    pub(super) fn reset(&self, seed: Option<u64>) {
        let seed = seed.unwrap_or(self.seed());
        self.seed.store(seed, Ordering::Relaxed);
        let scenario = self.whole_scenario();
        self.timeline.store(Arc::new(Timeline::new(Scenario::clone(&scenario), self.clock.now())));
        for stand in &self.stands {
            *stand.turns() = Turns::new(stand.channel, seed, scenario.next(stand.channel));
            stand.figures.clear();
        }
        self.record.clear(self.clock.now());
        self.receipts.clear();
    }

    pub(super) fn reply(&self, request: &Request) -> Reply {
        let path = request.path();
        if whatsapp::owns(path) {
            self.stand(Channel::WhatsApp).figures.request();
            whatsapp::reply(self, request)
        } else if telegram::owns(path) {
            self.stand(Channel::Telegram).figures.request();
            telegram::reply(self, request)
        } else if twilio::owns(path) {
            self.stand(Channel::Sms).figures.request();
            twilio::reply(self, request)
        } else if gateway::owns(path) {
            self.stand(Channel::Sms).figures.request();
            gateway::reply(self, request)
        } else if inbox::owns(path) {
            inbox::answer(self, request).into()
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
        channel: Channel,
        behaviour: Behaviour<'_>,
        dialect: &impl Dialect,
        message: &Message,
    ) -> Reply {
        let now = self.clock.now();
        let stand = self.stand(channel);
        let ask = Ask {
            point: Point::Message,
            sender: dialect.sender(message),
            recipient: &message.recipient,
            weight: dialect.weight(),
        };
        let turn = stand.turns().take(behaviour, ask, now);
        let id_bits = dialect.id_bits(&turn);
        let take = || self.take(channel, behaviour, message, id_bits, &turn, dialect.target(message, id_bits));
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
                    // A scenario cannot ask an HTTP provider for a mail server's faults.
                    FaultKind::Smtp(_)
                    | FaultKind::ResetBeforeRead
                    | FaultKind::ResetAfterRead
                    | FaultKind::CloseAfterRead
                    | FaultKind::Hang => Answer::new(200, JSON, ""),
                };
                Reply { after: turn.latency, fault: Some(*kind), answer }
            }
        }
    }

    /// A message is taken: recorded, and its receipts planned.
    pub(super) fn take(
        &self,
        channel: Channel,
        behaviour: Behaviour<'_>,
        message: &Message,
        id_bits: u64,
        turn: &Turn,
        target: Option<Target>,
    ) {
        let now = self.clock.now();
        self.stand(channel).figures.taken();
        self.record.append(channel, message, id_bits, turn.receipt, now);
        if let Some(target) = target {
            let steps = receipts::posted(behaviour.receipts, turn.receipt, id_bits);
            self.receipts.schedule(target, steps, behaviour.receipts);
        }
    }
}

/// What a proxy in between shows, in the form most of them do.
const BAD_GATEWAY_PAGE: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
    <center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n";
