//! What goes back to a client: an HTTP answer, at once or later, or a fault in its place.

use std::io::Write as _;
use std::time::Duration;

use super::fault::FaultKind;

/// What a request ends in.
#[derive(Debug)]
pub(super) struct Reply {
    /// How long to wait before anything is written.
    pub(super) after: Duration,
    /// What happens to the connection instead of the plain answer.
    pub(super) fault: Option<FaultKind>,
    /// The answer; under a fault, what there is of it.
    pub(super) answer: Answer,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Reply { after: Duration::ZERO, fault: None, answer }
    }
}

/// One HTTP answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
    pub(super) retry_after_seconds: Option<u64>,
    pub(super) location: Option<String>,
    /// What a page may load and do.
    pub(super) security_policy: Option<String>,
}

pub(super) const JSON: &str = "application/json; charset=UTF-8";
pub(super) const HTML: &str = "text/html";

impl Answer {
    pub(super) fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Answer {
            status,
            content_type,
            body: body.into(),
            retry_after_seconds: None,
            location: None,
            security_policy: None,
        }
    }

    pub(super) fn json(status: u16, body: &impl serde::Serialize) -> Self {
        // Only maps with other keys than text can fail here, and no answer holds one.
        Answer::new(status, JSON, serde_json::to_vec(body).unwrap_or_default())
    }

    /// Appends the head, with its blank line. `length` is `None` for a body that is sent in chunks.
    pub(super) fn write_head(&self, out: &mut Vec<u8>, length: Option<usize>, keep_alive: bool) {
        let status = self.status;
        // Writing to a Vec cannot fail.
        let _ = write!(out, "HTTP/1.1 {status} {}\r\nContent-Type: {}\r\n", reason_phrase(status), self.content_type);
        let _ = match length {
            Some(length) => write!(out, "Content-Length: {length}\r\n"),
            None => write!(out, "Transfer-Encoding: chunked\r\n"),
        };
        if let Some(seconds) = self.retry_after_seconds {
            let _ = write!(out, "Retry-After: {seconds}\r\n");
        }
        if let Some(location) = &self.location {
            let _ = write!(out, "Location: {location}\r\n");
        }
        if let Some(policy) = &self.security_policy {
            let _ = write!(out, "Content-Security-Policy: {policy}\r\nX-Content-Type-Options: nosniff\r\n");
        }
        if !keep_alive {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}
