//! What becomes of a message after it was taken, as a plan: which receipts, in which order, how long apart.
//!
//! A plan is a function of the message's own bits and the scenario, so it can be made again for a later look.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::simulator::chance::{self, Purpose};
use crate::simulator::scenario::ReceiptScenario;

/// How far a message gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Nothing is ever heard of it.
    Never,
    Sent,
    Delivered,
    Read,
    /// Sent, then failed.
    Failed,
}

/// What one receipt says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simulator) enum Status {
    Sent,
    Delivered,
    Read,
    Failed,
}

/// One receipt, and how long after the one before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::simulator) struct Step {
    pub(in crate::simulator) status: Status,
    pub(in crate::simulator) after: Duration,
}

/// The fate that a throw stands for.
pub(in crate::simulator) fn fate(scenario: &ReceiptScenario, throw: u64) -> Fate {
    let mut left = chance::unit(throw);
    for (share, fate) in [
        (scenario.failed, Fate::Failed),
        (scenario.never, Fate::Never),
        (scenario.read, Fate::Read),
        (scenario.delivered_share() - scenario.read, Fate::Delivered),
    ] {
        left -= share;
        if left < 0.0 {
            return fate;
        }
    }
    // What is left over by rounding alone is delivered like the rest.
    if scenario.delivered.is_none() { Fate::Delivered } else { Fate::Sent }
}

/// The receipts as they are posted: doubled or in the wrong order where the scenario wants it.
pub(in crate::simulator) fn posted(scenario: &ReceiptScenario, fate: Fate, message_bits: u64) -> Vec<Step> {
    let mut steps = proper(scenario, fate, message_bits);
    if chance::unit(chance::throw(message_bits, 0, Purpose::Shuffled)) < scenario.shuffled {
        let reversed: Vec<_> = steps.iter().rev().map(|step| step.status).collect();
        for (step, status) in steps.iter_mut().zip(reversed) {
            step.status = status;
        }
    }
    if chance::unit(chance::throw(message_bits, 0, Purpose::Doubled)) < scenario.doubled {
        steps = steps.into_iter().flat_map(|step| [step, Step { after: Duration::ZERO, ..step }]).collect();
    }
    steps
}

/// What is true of the message after a time; `None` while it is still queued.
pub(in crate::simulator) fn status_after(
    scenario: &ReceiptScenario,
    fate: Fate,
    message_bits: u64,
    passed: Duration,
) -> Option<Status> {
    let mut due = Duration::ZERO;
    let reached = |step: &Step| {
        due += step.after;
        due <= passed
    };
    proper(scenario, fate, message_bits).into_iter().take_while(reached).last().map(|step| step.status)
}

fn proper(scenario: &ReceiptScenario, fate: Fate, message_bits: u64) -> Vec<Step> {
    let statuses: &[Status] = match fate {
        Fate::Never => &[],
        Fate::Sent => &[Status::Sent],
        Fate::Delivered => &[Status::Sent, Status::Delivered],
        Fate::Read => &[Status::Sent, Status::Delivered, Status::Read],
        Fate::Failed => &[Status::Sent, Status::Failed],
    };
    let step = |(index, status): (usize, &Status)| {
        let latency = match status {
            Status::Sent => scenario.sent_after_ms,
            Status::Delivered | Status::Failed => scenario.delivered_after_ms,
            Status::Read => scenario.read_after_ms,
        };
        let throw = chance::throw(message_bits, index as u64, Purpose::ReceiptDelay);
        Step { status: *status, after: latency.at(throw) }
    };
    statuses.iter().enumerate().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::latency::Latency;

    fn scenario() -> ReceiptScenario {
        ReceiptScenario {
            delivered: Some(0.8),
            read: 0.3,
            failed: 0.1,
            never: 0.05,
            sent_after_ms: Latency::Fixed(10.0),
            delivered_after_ms: Latency::Fixed(20.0),
            read_after_ms: Latency::Fixed(30.0),
            ..ReceiptScenario::NONE
        }
    }

    #[test]
    fn the_shares_come_out() {
        let scenario = scenario();
        let count = |wanted| (0..10_000).filter(|n| fate(&scenario, chance::mixed(*n)) == wanted).count();
        for (wanted, share) in
            [(Fate::Failed, 1000), (Fate::Never, 500), (Fate::Read, 3000), (Fate::Delivered, 5000), (Fate::Sent, 500)]
        {
            assert!(count(wanted).abs_diff(share) < 150, "{wanted:?}: {}", count(wanted));
        }
    }

    #[test]
    fn receipts_come_in_order_unless_they_shall_not() {
        let statuses = |scenario: &ReceiptScenario| -> Vec<_> {
            posted(scenario, Fate::Read, 7).into_iter().map(|step| step.status).collect()
        };
        let mut scenario = scenario();
        assert_eq!(statuses(&scenario), [Status::Sent, Status::Delivered, Status::Read]);
        scenario.shuffled = 1.0;
        assert_eq!(statuses(&scenario), [Status::Read, Status::Delivered, Status::Sent]);
        (scenario.shuffled, scenario.doubled) = (0.0, 1.0);
        use Status::{Delivered, Read, Sent};
        assert_eq!(statuses(&scenario), [Sent, Sent, Delivered, Delivered, Read, Read]);
        let at = |ms| status_after(&scenario, Fate::Read, 7, Duration::from_millis(ms));
        assert_eq!([at(9), at(10), at(30), at(60)], [None, Some(Sent), Some(Delivered), Some(Read)]);
        assert_eq!(status_after(&scenario, Fate::Never, 7, Duration::MAX), None);
    }
}
