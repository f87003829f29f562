//! Whose turn it is: decides what becomes of each valid message to one provider.
//!
//! In this order: a queued outcome (`next`), the recipient's own rule, the rate limits, then chance over the error
//! and fault mixes. A message that gets past the limits takes its recipient's next *ordinal*, from 0, and chance is a
//! hash of that ([`chance`]): a refusal for being too fast depends on time and so takes none.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::chance::{self, Purpose};
use super::fault::FaultKind;
use super::receipts::{self, Fate};
use super::scenario::{Behaviour, ErrorCode, Point, Rule};
use crate::domain::Channel;

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    Accept,
    Refuse(ErrorCode),
    Throttle(Throttle),
    Fault { kind: FaultKind, taken: bool },
}

/// Which limit was hit, and when it has room again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Throttle {
    pub(super) scope: LimitScope,
    pub(super) retry_after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LimitScope {
    Account,
    Recipient,
}

/// A verdict with what its answer needs.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) verdict: Verdict,
    pub(super) latency: Duration,
    /// How many messages to this recipient came before, those refused for speed not counted.
    pub(super) ordinal: u64,
    /// What its receipts say, if it is taken.
    pub(super) receipt: Fate,
    /// The message's own 64 bits: what its provider id is made from.
    pub(super) message_bits: u64,
}

/// What a decision is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    pub(super) point: Point,
    /// Whom the account's limit is kept for.
    pub(super) sender: &'a str,
    pub(super) recipient: &'a str,
    /// How much of the limits it takes: 1, or an SMS's segments.
    pub(super) weight: u32,
}

/// The state behind the decisions about one provider. Lives in a lock that is held for one decision.
#[derive(Debug)]
pub(super) struct Turns {
    channel: Channel,
    seed: u64,
    /// Per recipient: the next ordinal.
    ordinals: HashMap<u64, u64>,
    /// Per recipient: how often its rule was used since the scenario was set.
    rule_uses: HashMap<u64, u32>,
    queued: VecDeque<Rule>,
    /// Per limited thing: when its bucket is full again, in Unix microseconds.
    buckets: HashMap<(LimitScope, u64), f64>,
}

impl Turns {
    pub(super) fn new(channel: Channel, seed: u64, next: &[Rule]) -> Self {
        Turns {
            channel,
            seed,
            ordinals: HashMap::new(),
            rule_uses: HashMap::new(),
            queued: next.iter().cloned().collect(),
            buckets: HashMap::new(),
        }
    }

    /// A scenario was set: rules count anew, its queue replaces the old one. Ordinals go on.
    pub(super) fn scenario_changed(&mut self, seed: u64, next: &[Rule]) {
        // Ordinals are kept under hashes of the seed: another one starts them anew.
        self.seed = seed;
        self.rule_uses.clear();
        self.buckets.clear();
        self.queued = next.iter().cloned().collect();
    }

    pub(super) fn enqueue(&mut self, next: Rule) {
        self.queued.push_back(next);
    }

    pub(super) fn queued(&self) -> Vec<Rule> {
        self.queued.iter().cloned().collect()
    }

    pub(super) fn take(&mut self, behaviour: Behaviour<'_>, ask: Ask<'_>, now: Timestamp) -> Turn {
        let key = chance::recipient_key(self.seed, self.channel, ask.recipient);
        let mut rule = self.queued_rule(ask);
        // What is not a message has no recipient, but something in its place that chance goes by.
        if rule.is_none() && ask.point == Point::Message {
            rule = self.recipient_rule(behaviour, ask.recipient, key).cloned();
            if rule.is_none()
                && let Some(throttle) = self.throttled(behaviour, ask, key, now)
            {
                let (verdict, latency) = (Verdict::Throttle(throttle), Duration::ZERO);
                return Turn { verdict, latency, ordinal: 0, receipt: Fate::Never, message_bits: 0 };
            }
        }
        let next_ordinal = self.ordinals.entry(key).or_default();
        let ordinal = *next_ordinal;
        *next_ordinal += 1;
        let latency = rule.as_ref().and_then(|rule| rule.latency_ms).unwrap_or(*behaviour.latency);
        let by_rule = rule.as_ref().and_then(|rule| rule.receipt);
        let by_chance = || receipts::fate(behaviour.receipts, chance::throw(key, ordinal, Purpose::Fate));
        Turn {
            latency: latency.at(chance::throw(key, ordinal, Purpose::Latency)),
            ordinal,
            receipt: by_rule.unwrap_or_else(by_chance),
            message_bits: chance::throw(key, ordinal, Purpose::MessageId),
            verdict: match rule {
                Some(rule) => ruled(rule),
                None => self.by_chance(behaviour, ask.point, chance::throw(key, ordinal, Purpose::Mix)),
            },
        }
    }

    /// The first queued rule that waits for this recipient or for anyone.
    fn queued_rule(&mut self, ask: Ask<'_>) -> Option<Rule> {
        let waits_for = |next: &Rule| {
            self.point_of(next) == ask.point && next.recipient.as_deref().is_none_or(|wanted| wanted == ask.recipient)
        };
        let index = self.queued.iter().position(waits_for)?;
        let next = &mut self.queued[index];
        match next.times {
            Some(times) if times > 1 => {
                next.times = Some(times - 1);
                Some(next.clone())
            }
            Some(_) | None => self.queued.remove(index),
        }
    }

    fn point_of(&self, rule: &Rule) -> Point {
        match (&rule.error, rule.fault) {
            (Some(code), _) => Point::of_error(self.channel, code),
            (None, Some(fault)) => Point::of_fault(fault),
            (None, None) => Point::Message,
        }
    }

    fn recipient_rule<'a>(&mut self, behaviour: Behaviour<'a>, recipient: &str, key: u64) -> Option<&'a Rule> {
        let rule = behaviour.recipients.get(recipient)?;
        if let Some(times) = rule.times {
            let uses = self.rule_uses.entry(key).or_default();
            if *uses >= times {
                return None;
            }
            *uses += 1;
        }
        Some(rule)
    }

    /// Both buckets must have room; a message that is refused by one leaves the other as it was.
    fn throttled(&mut self, behaviour: Behaviour<'_>, ask: Ask<'_>, key: u64, now: Timestamp) -> Option<Throttle> {
        let limits = behaviour.rate_limits;
        let account_key = chance::text_hash(ask.sender);
        let wanted = [
            (LimitScope::Account, account_key, limits.per_second, limits.burst),
            (
                LimitScope::Recipient,
                chance::mixed(account_key) ^ key,
                limits.per_recipient_per_second,
                limits.per_recipient_burst,
            ),
        ];
        let now = now.as_microsecond() as f64;
        let mut filled = [None; 2];
        for (slot, (scope, key, rate, burst)) in wanted.into_iter().enumerate() {
            let Some(rate) = rate else { continue };
            // The generic cell rate algorithm: `full_at` is when the bucket would be full if nothing more came.
            let cost = 1e6 / rate;
            // What is heavier than the bucket goes through a full one, or it never would.
            let weight = f64::from(ask.weight);
            let burst = f64::from(burst.unwrap_or(1)).max(weight);
            let full_at = self.buckets.get(&(scope, key)).copied().unwrap_or(now).max(now) + cost * weight;
            let early = full_at - now - cost * burst;
            // Half a microsecond of rounding is no reason to refuse.
            if early > 0.5 {
                return Some(Throttle { scope, retry_after: Duration::from_secs_f64(early / 1e6) });
            }
            filled[slot] = Some(((scope, key), full_at));
        }
        self.buckets.extend(filled.into_iter().flatten());
        None
    }

    /// The mixes, laid end to end on the line from 0 to 1; what they leave is accepted.
    fn by_chance(&self, behaviour: Behaviour<'_>, point: Point, throw: u64) -> Verdict {
        let mut left = chance::unit(throw);
        for error in behaviour.errors.iter().filter(|error| Point::of_error(self.channel, &error.code) == point) {
            left -= error.share;
            if left < 0.0 {
                return Verdict::Refuse(error.code.clone());
            }
        }
        for fault in behaviour.faults.iter().filter(|fault| Point::of_fault(fault.kind) == point) {
            left -= fault.share;
            if left < 0.0 {
                return Verdict::Fault { kind: fault.kind, taken: fault.taken.unwrap_or(fault.kind.takes()) };
            }
        }
        Verdict::Accept
    }
}

fn ruled(rule: Rule) -> Verdict {
    match (rule.error, rule.fault) {
        (Some(code), _) => Verdict::Refuse(code),
        (None, Some(kind)) => Verdict::Fault { kind, taken: rule.taken.unwrap_or(kind.takes()) },
        (None, None) => Verdict::Accept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::scenario::{RateLimits, Scenario};

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).expect("a time")
    }

    fn ask(recipient: &str, weight: u32) -> Ask<'_> {
        Ask { point: Point::Message, sender: "1", recipient, weight }
    }

    fn verdicts(turns: &mut Turns, scenario: &Scenario, recipient: &str, count: usize) -> Vec<Verdict> {
        let behaviour = scenario.telegram.behaviour();
        (0..count).map(|_| turns.take(behaviour, ask(recipient, 1), at(0)).verdict).collect()
    }

    #[test]
    fn the_order_of_others_changes_nothing() {
        let json = br#"{"telegram":{"errors":[{"code":"blocked","share":0.5}]}}"#;
        let scenario = Scenario::parse(json).expect("a scenario");
        let mut alone = Turns::new(Channel::Telegram, 9, &[]);
        let mut busy = Turns::new(Channel::Telegram, 9, &[]);
        let expected = verdicts(&mut alone, &scenario, "5", 20);
        let mixed: Vec<_> = (0..20)
            .map(|n| {
                verdicts(&mut busy, &scenario, &format!("-{n}"), 3);
                verdicts(&mut busy, &scenario, "5", 1).remove(0)
            })
            .collect();
        assert_eq!(expected, mixed);
        assert!(expected.contains(&Verdict::Accept) && expected.contains(&Verdict::Refuse("blocked".into())));
    }

    #[test]
    fn rules_come_before_chance_and_end_after_their_times() {
        let json = br#"{"telegram":{
            "recipients":{"5":{"error":"blocked","times":2}},
            "next":[{"recipient":"5","fault":"hang"},{"ok":true,"times":2}]}}"#;
        let scenario = Scenario::parse(json).expect("a scenario");
        let mut turns = Turns::new(Channel::Telegram, 1, &scenario.telegram.next);
        let blocked = Verdict::Refuse("blocked".into());
        let hang = Verdict::Fault { kind: FaultKind::Hang, taken: true };
        assert_eq!(verdicts(&mut turns, &scenario, "6", 1), [Verdict::Accept]);
        assert_eq!(
            verdicts(&mut turns, &scenario, "5", 5),
            [hang, Verdict::Accept, blocked.clone(), blocked, Verdict::Accept]
        );
        assert!(turns.queued().is_empty());
    }

    #[test]
    fn a_bucket_refills_and_says_when() {
        let scenario = Scenario {
            telegram: crate::simulator::scenario::TelegramScenario {
                rate_limits: RateLimits {
                    per_second: Some(2.0),
                    burst: Some(3),
                    per_recipient_per_second: Some(1.0),
                    per_recipient_burst: None,
                },
                ..Default::default()
            },
            ..Default::default()
        };
        let behaviour = scenario.telegram.behaviour();
        let mut turns = Turns::new(Channel::Telegram, 1, &[]);
        let mut take = |recipient, now| turns.take(behaviour, ask(recipient, 1), at(now)).verdict;
        let throttle = |scope, ms| Verdict::Throttle(Throttle { scope, retry_after: Duration::from_millis(ms) });
        assert_eq!(take("a", 0), Verdict::Accept);
        assert_eq!(take("a", 0), throttle(LimitScope::Recipient, 1000));
        assert_eq!(take("b", 0), Verdict::Accept);
        assert_eq!(take("c", 0), Verdict::Accept);
        assert_eq!(take("d", 0), throttle(LimitScope::Account, 500));
        assert_eq!(take("d", 500), Verdict::Accept);
        assert_eq!(take("a", 999), throttle(LimitScope::Account, 1));
        assert_eq!(take("a", 1000), Verdict::Accept);
    }

    #[test]
    fn a_heavy_message_takes_more_and_is_never_shut_out() {
        let json = br#"{"telegram":{"rateLimits":{"perSecond":1,"burst":2}}}"#;
        let scenario = Scenario::parse(json).expect("a scenario");
        let behaviour = scenario.telegram.behaviour();
        let mut turns = Turns::new(Channel::Telegram, 1, &[]);
        let mut accepted = |weight, now| turns.take(behaviour, ask("a", weight), at(now)).verdict == Verdict::Accept;
        assert!(accepted(5, 0));
        assert!(!accepted(1, 3999));
        assert!(accepted(1, 4000));
        assert!(!accepted(2, 5999) && accepted(2, 6000));
    }

    #[test]
    fn what_waits_for_another_point_stays() {
        let json = br#"{"email":{"next":[{"fault":"hang_at_banner"},{"error":"mail 450"},{"error":550}]}}"#;
        let scenario = Scenario::parse(json).expect("a scenario");
        let mut turns = Turns::new(Channel::Email, 1, &scenario.email.next);
        let mut take = |point| turns.take(scenario.email.behaviour(), Ask { point, ..ask("a@b.c", 1) }, at(0)).verdict;
        assert_eq!(take(Point::Message), Verdict::Refuse("550".into()));
        assert_eq!(take(Point::Envelope), Verdict::Refuse("mail 450".into()));
        assert!(matches!(take(Point::Connection), Verdict::Fault { taken: false, .. }));
        assert_eq!(take(Point::Connection), Verdict::Accept);
    }
}
