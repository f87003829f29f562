//! What was asked for, and what may become of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::attempt::words;

words! {
    /// Where a notification stands (DESIGN: states). [`Status::may_become`] is the table of legal moves.
    Status {
        /// Waits for the time its sender chose.
        Scheduled = 1 "scheduled",
        /// Waits for its turn: due now, or held until `due_at`.
        Pending = 2 "pending",
        /// Handed over to the queue.
        Queued = 3 "queued",
        /// An attempt is open.
        Sending = 4 "sending",
        /// The provider took it.
        Sent = 5 "sent",
        Delivered = 6 "delivered",
        Read = 7 "read",
        /// Given up; a dead letter until it is replayed or discarded.
        Failed = 8 "failed",
        /// It may or may not have left: nobody can say, and nobody pretends to.
        Uncertain = 9 "uncertain",
        /// The recipient opted out before it left.
        Suppressed = 10 "suppressed",
        Cancelled = 11 "cancelled",
        /// `notAfter` passed before it left.
        Expired = 12 "expired",
    }
}

impl Status {
    /// Whether the ledger accepts the move from `self` to `next`.
    ///
    /// Receipts merge by rank and never move backwards; a late receipt of delivery may still correct a failure or
    /// settle an uncertain send, and a provider may withdraw what it had only accepted.
    pub const fn may_become(self, next: Status) -> bool {
        use Status::{
            Cancelled, Delivered, Expired, Failed, Pending, Queued, Read, Scheduled, Sending, Sent, Suppressed,
            Uncertain,
        };
        match self {
            Scheduled => matches!(next, Pending | Queued | Cancelled | Expired | Suppressed | Failed),
            Pending => matches!(next, Scheduled | Queued | Sending | Cancelled | Expired | Suppressed | Failed),
            Queued => matches!(next, Pending | Sending | Cancelled | Expired | Suppressed | Failed),
            Sending => matches!(next, Pending | Sent | Failed | Uncertain),
            Sent => matches!(next, Delivered | Read | Failed),
            Delivered => matches!(next, Read),
            Failed => matches!(next, Delivered | Read),
            Uncertain => matches!(next, Pending | Sent | Delivered | Read | Failed),
            Read | Suppressed | Cancelled | Expired => false,
        }
    }

    /// A notification may be accepted straight into this status.
    pub const fn may_begin(self) -> bool {
        matches!(
            self,
            Status::Scheduled
                | Status::Pending
                | Status::Sending
                | Status::Suppressed
                | Status::Failed
                | Status::Expired
        )
    }

    /// Still on its way: neither settled nor uncertain.
    pub const fn in_flight(self) -> bool {
        matches!(self, Status::Scheduled | Status::Pending | Status::Queued | Status::Sending)
    }
}

words! {
    /// What a person did about a dead letter.
    Resolution {
        /// A new notification took its place.
        Replayed = 1 "replayed",
        /// It is not to be sent any more.
        Discarded = 2 "discarded",
    }
}

words! {
    /// What a person may say of an uncertain notification; the codes are those of the statuses.
    Verdict {
        /// It did go out: the provider's own list has it, or the recipient says so.
        Sent = 5 "sent",
        /// It did not: it becomes a dead letter.
        Failed = 8 "failed",
    }
}

impl Verdict {
    pub const fn status(self) -> Status {
        match self {
            Verdict::Sent => Status::Sent,
            Verdict::Failed => Status::Failed,
        }
    }
}

words! {
    /// What a waiting notification waits for.
    HoldReason {
        /// A transient failure; the next try comes at `due_at`.
        Retry = 1 "retry",
        RateLimit = 2 "rate_limit",
        ChannelDown = 3 "channel_down",
        Paused = 4 "paused",
        QuietHours = 5 "quiet_hours",
        /// An uncertain send under `at_least_once`: the one resend it is owed.
        Resend = 6 "resend",
        /// The source of the records it is about does not answer.
        Records = 7 "records",
    }
}

words! {
    /// Which of three lanes it takes; urgent never waits behind bulk.
    Priority {
        High = 1 "high",
        Normal = 2 "normal",
        Low = 3 "low",
    }
}

#[expect(clippy::derivable_impls, reason = "the enum comes out of a macro")]
impl Default for Priority {
    fn default() -> Self {
        Priority::Normal
    }
}

words! {
    /// What to do when it cannot be known whether a send reached the provider.
    Policy {
        /// Never send again by ourselves: it stays `uncertain` until a receipt or a person settles it.
        AtMostOnce = 1 "at_most_once",
        /// Send once more and flag both attempts: for codes and alarms, where twice is better than never.
        AtLeastOnce = 2 "at_least_once",
    }
}

#[expect(clippy::derivable_impls, reason = "the enum comes out of a macro")]
impl Default for Policy {
    fn default() -> Self {
        Policy::AtMostOnce
    }
}

words! {
    /// How it was asked for.
    Mode {
        /// Sent in the call, with the provider's answer in the response.
        Sync = 1 "sync",
        /// Accepted now, sent through the queue.
        Async = 2 "async",
    }
}

words! {
    /// What becomes of a direct send that did not get through now and may later. Known only while the call runs: the
    /// ledger keeps what came of it.
    OnFailure {
        /// It has failed, and the caller may try again.
        Fail = 1 "fail",
        /// It waits in the ledger, and goes through the queue.
        Queue = 2 "queue",
    }
}

#[expect(clippy::derivable_impls, reason = "the enum comes out of a macro")]
impl Default for OnFailure {
    fn default() -> Self {
        OnFailure::Fail
    }
}

/// The CRM records a notification is about (the request's `context`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordIds {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead_id: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deal_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub company_id: Option<String>,
}

/// Whether `not_after` has passed at `now`.
pub fn is_expired(not_after: Option<Timestamp>, now: Timestamp) -> bool {
    not_after.is_some_and(|limit| limit < now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_status() -> impl Strategy<Value = Status> {
        proptest::sample::select(Status::ALL)
    }

    proptest! {
        /// Whatever is asked for in whatever order: what has left never waits again, and an end stays an end.
        #[test]
        fn no_sequence_of_legal_moves_forgets_a_send(start in any_status(), asked in proptest::collection::vec(any_status(), 0..40)) {
            prop_assume!(start.may_begin());
            let mut now = start;
            let mut was_taken = false;
            for next in asked {
                if !now.may_become(next) {
                    continue;
                }
                if matches!(now, Status::Read | Status::Suppressed | Status::Cancelled | Status::Expired) {
                    prop_assert!(false, "{now} moved to {next}");
                }
                was_taken |= matches!(next, Status::Sent | Status::Delivered | Status::Read);
                if was_taken {
                    prop_assert!(!next.in_flight(), "{now} went back to {next}");
                    prop_assert!(next != Status::Uncertain);
                }
                // A provider may say only once that it failed, before it says that it was delivered.
                prop_assert!(!(matches!(now, Status::Delivered | Status::Read) && next == Status::Failed));
                now = next;
            }
        }

        /// Sending is entered only from a claimable status, and left only by an outcome.
        #[test]
        fn sending_is_entered_by_a_claim_and_left_by_an_outcome(from in any_status(), to in any_status()) {
            if from.may_become(to) && to == Status::Sending {
                prop_assert!(matches!(from, Status::Pending | Status::Queued));
            }
            if from.may_become(to) && from == Status::Sending {
                prop_assert!(matches!(to, Status::Pending | Status::Sent | Status::Failed | Status::Uncertain));
            }
        }
    }

    #[test]
    fn a_verdict_is_a_legal_move() {
        for verdict in Verdict::ALL {
            let status = verdict.status();
            assert!(Status::Uncertain.may_become(status));
            assert_eq!((verdict.code(), verdict.as_str()), (status.code(), status.as_str()));
        }
    }

    #[test]
    fn nothing_moves_to_itself() {
        for status in Status::ALL {
            assert!(!status.may_become(*status), "{status}");
        }
    }

    #[test]
    fn every_status_can_be_reached() {
        for status in Status::ALL {
            let reachable = status.may_begin() || Status::ALL.iter().any(|from| from.may_become(*status));
            assert!(reachable, "{status}");
        }
    }
}
