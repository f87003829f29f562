//! Files that go along with an email: checked when the template is saved, named and addressed when it is filled in.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::compiled::CompiledPart;
use super::limits::ATTACHED_BYTES;
use super::parts::at_start;
use super::{TemplateProblem, limits};
use crate::domain::template::{AttachmentBody, EmailBody};

/// An attachment of a compiled template.
pub(super) struct AttachmentParts {
    pub(super) name: CompiledPart,
    pub(super) source: AttachmentPart,
}

pub(super) enum AttachmentPart {
    Url(CompiledPart),
    Inline { content_type: String, bytes: Arc<[u8]> },
}

/// Where an attachment comes from, as its author wrote it.
pub(super) enum Written<'a> {
    Url(&'a str),
    Inline { content_type: &'a str, bytes: Vec<u8> },
}

/// Reads one attachment, or says what is wrong with it.
pub(super) fn read(attachment: &AttachmentBody) -> Result<Written<'_>, &'static str> {
    match (&attachment.url, &attachment.content_type, &attachment.content_base64) {
        (Some(url), None, None) => Ok(Written::Url(url)),
        (None, Some(content_type), Some(base64)) => {
            let bytes = BASE64_STANDARD.decode(base64).map_err(|_| "contentBase64 is not base64")?;
            if is_media_type(content_type) {
                Ok(Written::Inline { content_type, bytes })
            } else {
                Err("contentType is like application/pdf")
            }
        }
        _ => Err("give either url, or contentType and contentBase64"),
    }
}

/// What is wrong with the attachments of one email.
pub(super) fn check(at: &str, email: &EmailBody, problems: &mut Vec<TemplateProblem>) {
    let mut inline_bytes = 0;
    for (n, attachment) in email.attachments.iter().enumerate() {
        match read(attachment) {
            Ok(Written::Inline { bytes, .. }) => inline_bytes += bytes.len(),
            Ok(Written::Url(_)) => {}
            Err(problem) => problems.push(at_start(&format!("{at}/{n}"), problem)),
        }
    }
    if email.attachments.len() > limits::ATTACHMENTS {
        problems.push(at_start(at, format!("at most {} attachments", limits::ATTACHMENTS)));
    }
    if inline_bytes > ATTACHED_BYTES {
        problems.push(at_start(at, format!("the files are {inline_bytes} bytes long; at most {ATTACHED_BYTES}")));
    }
}

fn is_media_type(text: &str) -> bool {
    let is_token = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_'))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

/// Whether a filled-in URL is one that can be fetched: whole, and nothing else.
pub(super) fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && text.chars().all(|c| c.is_ascii_graphic()))
}
