//! What can go wrong between a provider and us, and whether the message was taken all the same.
//!
//! The simulator has always read a request before it decides on a fault, since only the body says whom it is for.
//! What a client sees is the same.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::smtp::{SmtpFault, SmtpStage};

/// One way for a request to end without a proper answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FaultKind {
    /// The connection is reset (RST) as if nobody had read the request. Not taken.
    ResetBeforeRead,
    /// The request is read, then the connection is reset (RST). **Taken.**
    ResetAfterRead,
    /// The request is read, then the connection is closed in order (FIN) without an answer. **Taken.**
    CloseAfterRead,
    /// The request is read and never answered; the connection stays until the client leaves. **Taken.**
    Hang,
    /// 200 whose body is not JSON. **Taken.**
    Rubbish200,
    /// 200 whose body goes on and on: [`ENDLESS_BODY_BYTES`] in pieces, then the connection closes. **Taken.**
    EndlessBody,
    /// The proper answer, its head written byte by byte with [`SLOW_HEADER_PAUSE`] between them. **Taken.**
    SlowHeaders,
    /// 502 with a proxy's HTML page. Not taken, unless set otherwise (`"taken": true`).
    BadGateway,
    /// 500 with the provider's own error JSON. Not taken.
    ServerErrorJson,
    /// 302 to another path. Not taken.
    Redirect,
    /// Email's, which has no requests and answers.
    Smtp(SmtpFault),
}

impl FaultKind {
    const OF_HTTP: [FaultKind; 10] = [
        FaultKind::ResetBeforeRead,
        FaultKind::ResetAfterRead,
        FaultKind::CloseAfterRead,
        FaultKind::Hang,
        FaultKind::Rubbish200,
        FaultKind::EndlessBody,
        FaultKind::SlowHeaders,
        FaultKind::BadGateway,
        FaultKind::ServerErrorJson,
        FaultKind::Redirect,
    ];

    /// Whether the message counts as taken.
    pub const fn takes(self) -> bool {
        match self {
            FaultKind::Smtp(fault) => fault.takes(),
            FaultKind::ResetAfterRead
            | FaultKind::CloseAfterRead
            | FaultKind::Hang
            | FaultKind::Rubbish200
            | FaultKind::EndlessBody
            | FaultKind::SlowHeaders => true,
            FaultKind::ResetBeforeRead | FaultKind::BadGateway | FaultKind::ServerErrorJson | FaultKind::Redirect => {
                false
            }
        }
    }

    /// The name in scenarios and figures.
    pub fn name(self) -> Cow<'static, str> {
        let name = match self {
            FaultKind::ResetBeforeRead => "reset_before_read",
            FaultKind::ResetAfterRead => "reset_after_read",
            FaultKind::CloseAfterRead => "close_after_read",
            FaultKind::Hang => "hang",
            FaultKind::Rubbish200 => "rubbish_200",
            FaultKind::EndlessBody => "endless_body",
            FaultKind::SlowHeaders => "slow_headers",
            FaultKind::BadGateway => "bad_gateway",
            FaultKind::ServerErrorJson => "server_error_json",
            FaultKind::Redirect => "redirect",
            FaultKind::Smtp(fault) => return Cow::Owned(fault.to_string()),
        };
        Cow::Borrowed(name)
    }

    /// Whether a scenario may say itself if the message was taken.
    pub(super) fn takes_as_told(self) -> bool {
        matches!(self, FaultKind::BadGateway) || matches!(self, FaultKind::Smtp(fault) if fault.stage == SmtpStage::Dot)
    }
}

impl TryFrom<String> for FaultKind {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(kind) = FaultKind::OF_HTTP.into_iter().find(|kind| kind.name() == text) {
            return Ok(kind);
        }
        text.parse().map(FaultKind::Smtp).map_err(|ours: String| {
            format!(
                "no such fault; known are {}, and for mail {ours}",
                FaultKind::OF_HTTP.map(FaultKind::name).join(", ")
            )
        })
    }
}

impl From<FaultKind> for String {
    fn from(kind: FaultKind) -> String {
        kind.name().into_owned()
    }
}

/// How much an endless body sends before it gives up: far more than any answer a client should read.
pub const ENDLESS_BODY_BYTES: usize = 8 * 1024 * 1024;
/// One piece of an endless body.
pub(super) const ENDLESS_BODY_PIECE_BYTES: usize = 4 * 1024;
/// Between two pieces: about ten seconds for the whole.
pub(super) const ENDLESS_BODY_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);
/// Between two bytes of a slow head: some seconds for the whole.
pub const SLOW_HEADER_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);
