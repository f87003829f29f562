//! The words of the service: no I/O, no SQL, no HTTP.
//!
//! Everything here is a plain value with its rules: what a status may become, what one send can end in, how long to
//! wait before the next try, what a valid address looks like. Other modules speak in these words and add none.

pub mod account;
pub mod attempt;
pub mod channel;
pub mod clock;
pub mod given_time;
pub mod ids;
pub mod message;
pub mod notification;
pub mod recipient;
pub mod reconnect;
pub mod record;
pub mod retry;
pub mod sms;
pub mod template;

pub use account::{AccountId, AccountRef, Probe};
pub use attempt::{Attempt, DownReason, Outcome, OutcomeClass, PermanentReason, ProviderError, ThrottleScope};
pub use channel::Channel;
pub use clock::{Clock, ManualClock, SystemClock};
pub use given_time::{GivenTime, GivenTimeError};
pub use ids::{BatchId, Epoch, ErasureId, Generation, IdSource, NotificationId, TemplateId, TemplateVersion};
pub use message::{Attachment, AttachmentSource, Content, EmailContent, OutgoingMessage};
pub use notification::{HoldReason, Mode, OnFailure, Policy, Priority, RecordIds, Resolution, Status, Verdict};
pub use recipient::{ChatId, EmailAddress, PhoneNumber, Recipient, RecipientError};
pub use record::{Record, RecordId, RecordKind};
