//! What can go wrong in a conversation with a mail server, and at which of its steps.

use std::fmt;
use std::str::FromStr;

/// A step of the conversation, named by what the client has sent. A fault stands in place of the reply to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SmtpStage {
    /// The connection itself: the reply is the banner.
    Banner,
    Ehlo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// The end of the message.
    Dot,
}

impl SmtpStage {
    const ALL: [SmtpStage; 8] = [
        SmtpStage::Banner,
        SmtpStage::Ehlo,
        SmtpStage::StartTls,
        SmtpStage::Auth,
        SmtpStage::Mail,
        SmtpStage::Rcpt,
        SmtpStage::Data,
        SmtpStage::Dot,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            SmtpStage::Banner => "banner",
            SmtpStage::Ehlo => "ehlo",
            SmtpStage::StartTls => "starttls",
            SmtpStage::Auth => "auth",
            SmtpStage::Mail => "mail",
            SmtpStage::Rcpt => "rcpt",
            SmtpStage::Data => "data",
            SmtpStage::Dot => "dot",
        }
    }

    pub(in crate::simulator) fn parse(word: &str) -> Option<SmtpStage> {
        SmtpStage::ALL.into_iter().find(|stage| stage.as_str() == word)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SmtpFaultKind {
    /// The connection is closed in order (FIN).
    Drop,
    /// The connection is reset (RST).
    Reset,
    /// Nothing more comes; the connection stays until the client leaves.
    Hang,
    /// The proper reply, a byte every [`SLOW_REPLY_PAUSE`].
    Slow,
    /// A line that is no reply.
    Rubbish,
    /// 421, then the connection is closed.
    Shutdown,
}

impl SmtpFaultKind {
    const ALL: [SmtpFaultKind; 6] = [
        SmtpFaultKind::Drop,
        SmtpFaultKind::Reset,
        SmtpFaultKind::Hang,
        SmtpFaultKind::Slow,
        SmtpFaultKind::Rubbish,
        SmtpFaultKind::Shutdown,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            SmtpFaultKind::Drop => "drop",
            SmtpFaultKind::Reset => "reset",
            SmtpFaultKind::Hang => "hang",
            SmtpFaultKind::Slow => "slow",
            SmtpFaultKind::Rubbish => "rubbish",
            SmtpFaultKind::Shutdown => "shutdown",
        }
    }
}

/// Between two bytes of a slow reply.
pub const SLOW_REPLY_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// One way for a conversation to go wrong, written as in `drop_at_dot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SmtpFault {
    pub kind: SmtpFaultKind,
    pub stage: SmtpStage,
}

impl SmtpFault {
    /// Whether the message counts as taken: it does once its end was read, unless the server says that it shuts down.
    pub const fn takes(self) -> bool {
        matches!(self.stage, SmtpStage::Dot) && !matches!(self.kind, SmtpFaultKind::Shutdown)
    }
}

impl fmt::Display for SmtpFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_at_{}", self.kind.as_str(), self.stage.as_str())
    }
}

impl FromStr for SmtpFault {
    /// The words there are.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = text.split_once("_at_").and_then(|(kind, stage)| {
            let kind = SmtpFaultKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
            Some(SmtpFault { kind, stage: SmtpStage::parse(stage)? })
        });
        known.ok_or_else(|| {
            let names = |words: Vec<&str>| words.join(", ");
            format!(
                "<what>_at_<step> with one of {} and one of {}",
                names(SmtpFaultKind::ALL.map(SmtpFaultKind::as_str).to_vec()),
                names(SmtpStage::ALL.map(SmtpStage::as_str).to_vec())
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_written_as_what_at_where() {
        let fault: SmtpFault = "hang_at_rcpt".parse().expect("a fault");
        assert_eq!(fault, SmtpFault { kind: SmtpFaultKind::Hang, stage: SmtpStage::Rcpt });
        assert_eq!(fault.to_string(), "hang_at_rcpt");
        assert!("hang_at_lunch".parse::<SmtpFault>().expect_err("no stage").contains("banner, ehlo"));
        assert!("drop_at_dot".parse::<SmtpFault>().expect("a fault").takes());
        assert!(!"shutdown_at_dot".parse::<SmtpFault>().expect("a fault").takes());
    }
}
