//! What rests after a throttled answer, and for how long.
//!
//! **Growth.** A throttle that comes when its scope was not resting is a strike: the first rests for the step the
//! answer (or the provider's table) gave, each further one twice as long as the one before, until a success. Throttles
//! that come *during* a pause belong to requests that were already on their way and are no strikes.
//!
//! **Scope.** Where the provider states what is too fast ([`ScopeRule::Stated`]), just that rests. Where it does not
//! (Telegram: [`ScopeRule::Guessed`]) the chat rests, and when a second chat is throttled while one rests, it must be
//! the bot, and everything does. The same happens when more recipients rest than are remembered.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::RecipientKey;
use super::shared::Rest;
use crate::domain::{Channel, ThrottleScope};

/// Doubling stops here. A longer step, given by the provider, is kept as it is and does not grow.
const LONGEST_GROWN: u64 = 60 * 60 * SECOND;
/// After this long without another throttle a recipient's strikes are forgotten.
const STRIKES_KEPT: u64 = 10 * 60 * SECOND;
/// Bounds the memory: about 150 KiB per account.
pub(super) const MOST_RECIPIENTS: usize = 4096;
const SECOND: u64 = 1_000_000_000;

/// Whether the provider says what is too fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeRule {
    Stated,
    Guessed,
}

impl ScopeRule {
    pub fn of(channel: Channel) -> Self {
        match channel {
            Channel::Telegram => ScopeRule::Guessed,
            Channel::WhatsApp | Channel::Sms | Channel::Email => ScopeRule::Stated,
        }
    }
}

#[derive(Debug)]
pub(super) struct Pauses {
    rule: ScopeRule,
    whole: Pause,
    recipients: HashMap<RecipientKey, Pause>,
    /// The recipient's pause that ends last.
    latest: Option<(RecipientKey, u64)>,
    /// What other processes were not told of: the whole, or a recipient.
    untold: HashSet<Option<RecipientKey>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pause {
    until: u64,
    strikes: u32,
}

impl Pauses {
    pub(super) fn new(rule: ScopeRule) -> Self {
        Pauses { rule, whole: Pause::default(), recipients: HashMap::new(), latest: None, untold: HashSet::new() }
    }

    pub(super) fn whole_until(&self) -> u64 {
        self.whole.until
    }

    pub(super) fn recipient_until(&self, recipient: RecipientKey) -> u64 {
        // Nearly always empty, and then not worth a hash.
        if self.recipients.is_empty() {
            return 0;
        }
        self.recipients.get(&recipient).map_or(0, |pause| pause.until)
    }

    /// Returns what rests, and until when.
    pub(super) fn throttled(
        &mut self,
        scope: ThrottleScope,
        recipient: RecipientKey,
        step: u64,
        now: u64,
    ) -> (ThrottleScope, u64) {
        match scope {
            // An account here is one sender, so both mean everything that leaves through this budget.
            ThrottleScope::Account | ThrottleScope::Sender => (scope, self.strike_whole(step, now)),
            ThrottleScope::Recipient => {
                let another_rests = self.latest.is_some_and(|(other, until)| other != recipient && until > now);
                let is_remembered = self.recipients.contains_key(&recipient) || self.make_room(now);
                if is_remembered {
                    let until = self.recipients.entry(recipient).or_default().strike(step, now);
                    self.untold.insert(Some(recipient));
                    self.note_latest(recipient, until);
                    if !(another_rests && self.rule == ScopeRule::Guessed) {
                        return (ThrottleScope::Recipient, until);
                    }
                }
                (ThrottleScope::Account, self.strike_whole(step, now))
            }
        }
    }

    fn strike_whole(&mut self, step: u64, now: u64) -> u64 {
        self.untold.insert(None);
        self.whole.strike(step, now)
    }

    fn note_latest(&mut self, recipient: RecipientKey, until: u64) {
        if self.latest.is_none_or(|(_, latest)| latest < until) {
            self.latest = Some((recipient, until));
        }
    }

    /// What other processes were not told of and still rests.
    pub(super) fn take_untold(&mut self, now: u64) -> Vec<Rest> {
        let pause_of = |recipient: &Option<RecipientKey>| match recipient {
            None => Some(&self.whole),
            Some(recipient) => self.recipients.get(recipient),
        };
        let rest = |recipient: &Option<RecipientKey>| {
            let pause = pause_of(recipient).filter(|pause| pause.until > now)?;
            let left = Duration::from_nanos(pause.until - now);
            Some(Rest { recipient: *recipient, left, strikes: pause.strikes })
        };
        let untold = self.untold.iter().filter_map(rest).collect();
        self.untold.clear();
        untold
    }

    pub(super) fn tell_again(&mut self, recipient: Option<RecipientKey>) {
        self.untold.insert(recipient);
    }

    /// Another process's pause holds here, too. Tells whether it is news.
    pub(super) fn learn(&mut self, recipient: Option<RecipientKey>, until: u64, strikes: u32, now: u64) -> bool {
        let pause = match recipient {
            None => &mut self.whole,
            Some(recipient) => {
                if !self.recipients.contains_key(&recipient) && !self.make_room(now) {
                    return false;
                }
                self.note_latest(recipient, until);
                self.recipients.entry(recipient).or_default()
            }
        };
        let is_news = until > pause.until;
        if is_news {
            (pause.until, pause.strikes) = (until, pause.strikes.max(strikes));
        }
        is_news
    }

    /// A message was taken: whatever is not resting just now starts from its first step again. Returns whether there
    /// is still anything to forget.
    pub(super) fn succeeded(&mut self, recipient: RecipientKey, now: u64) -> bool {
        if self.whole.until <= now {
            self.whole.strikes = 0;
        }
        if self.recipients.get(&recipient).is_some_and(|pause| pause.until <= now) {
            self.recipients.remove(&recipient);
        }
        self.whole.strikes > 0 || !self.recipients.is_empty()
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.recipients.len()
    }

    fn make_room(&mut self, now: u64) -> bool {
        // First those long quiet, then all that are not resting: they only lose their strikes.
        for kept_for in [STRIKES_KEPT, 0] {
            if self.recipients.len() < MOST_RECIPIENTS {
                break;
            }
            self.recipients.retain(|_, pause| pause.until.saturating_add(kept_for) > now);
        }
        self.recipients.len() < MOST_RECIPIENTS
    }
}

impl Pause {
    fn strike(&mut self, step: u64, now: u64) -> u64 {
        if now < self.until {
            self.until = self.until.max(now.saturating_add(step));
            return self.until;
        }
        if now > self.until.saturating_add(STRIKES_KEPT) {
            self.strikes = 0;
        }
        let doubled = step.saturating_mul(1_u64.checked_shl(self.strikes).unwrap_or(u64::MAX));
        self.until = now.saturating_add(doubled.min(LONGEST_GROWN.max(step)));
        // Shifting by more would overflow, and the cap was reached long before.
        self.strikes = (self.strikes + 1).min(32);
        self.until
    }
}
