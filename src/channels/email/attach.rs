//! Brings the bytes of attachments together before anything is sent: within a size, within a time, and only from where
//! a template's author may read.

use std::time::Duration;

use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Method, StatusCode, Uri};
use tokio::time::Instant;

use super::compose::AttachedFile;
use crate::channels::http_client::{HttpClient, HttpError, HttpErrorKind, HttpLimits, HttpRequest};
use crate::domain::{Attachment, AttachmentSource, Outcome, PermanentReason, ProviderError};

/// Where attachments come from, and how much of them.
pub(super) struct Fetcher {
    pub(super) client: HttpClient,
    /// All of one message together.
    pub(super) limit_bytes: usize,
    /// For one.
    pub(super) timeout: Duration,
}

impl Fetcher {
    /// All of them, in their order. Nothing of the message has left when this fails.
    pub(super) async fn bring(
        &self,
        attachments: &[Attachment],
        deadline: Instant,
    ) -> Result<Vec<AttachedFile>, Outcome> {
        let mut left = self.limit_bytes;
        let mut files = Vec::with_capacity(attachments.len());
        for attachment in attachments {
            let file = match &attachment.source {
                AttachmentSource::Inline { bytes, .. } if bytes.len() > left => return Err(self.too_large(attachment)),
                AttachmentSource::Inline { content_type, bytes } => AttachedFile {
                    name: attachment.name.clone(),
                    content_type: content_type.clone(),
                    bytes: bytes.to_vec(),
                },
                AttachmentSource::Url(url) => self.fetch(attachment, url, left, deadline).await?,
            };
            left -= file.bytes.len();
            files.push(file);
        }
        Ok(files)
    }

    async fn fetch(
        &self,
        attachment: &Attachment,
        url: &str,
        limit_bytes: usize,
        deadline: Instant,
    ) -> Result<AttachedFile, Outcome> {
        let uri: Option<Uri> = url.parse().ok();
        let is_fetchable = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        let uri = uri.filter(is_fetchable).ok_or_else(|| never(attachment, "is no http or https URL"))?;
        let total = self.timeout.min(deadline.saturating_duration_since(Instant::now()));
        let limits = HttpLimits { connect: total, total, body_bytes: limit_bytes };
        let mut headers = HeaderMap::new();
        if let Some(host) = uri.authority().and_then(|authority| authority.as_str().rsplit('@').next()?.parse().ok()) {
            headers.insert(hyper::header::HOST, host);
        }
        let request = HttpRequest { method: Method::GET, uri, headers, body: bytes::Bytes::new() };
        let answer = self.client.send(request, &limits).await.map_err(|error| self.not_fetched(attachment, &error))?;
        match answer.status {
            StatusCode::OK => {}
            status if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) => {
                return Err(later(attachment, &format!("was answered {}", status.as_u16())));
            }
            // A redirect, too: it would lead where nobody looked.
            status => return Err(never(attachment, &format!("was answered {}", status.as_u16()))),
        }
        let content_type = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        Ok(AttachedFile {
            name: attachment.name.clone(),
            content_type: content_type.unwrap_or_default().to_owned(),
            bytes: answer.body.to_vec(),
        })
    }

    fn not_fetched(&self, attachment: &Attachment, error: &HttpError) -> Outcome {
        match error.kind {
            HttpErrorKind::AnswerTooLarge => self.too_large(attachment),
            HttpErrorKind::NotPublic => {
                never(attachment, "is at a private address, and attachments_allow_private is not set")
            }
            _ => later(attachment, &format!("cannot be fetched: {}", error.chain())),
        }
    }

    fn too_large(&self, attachment: &Attachment) -> Outcome {
        never(attachment, &format!("exceeds attachments_limit_bytes = {}, all together", self.limit_bytes))
    }
}

fn never(attachment: &Attachment, problem: &str) -> Outcome {
    Outcome::Permanent { reason: PermanentReason::Content, error: error(attachment, problem) }
}

fn later(attachment: &Attachment, problem: &str) -> Outcome {
    Outcome::Transient { handed_off: false, error: error(attachment, problem) }
}

/// Never the URL: it may hold a secret.
fn error(attachment: &Attachment, problem: &str) -> ProviderError {
    ProviderError::new("attachment", format!("the attachment `{}` {problem}", attachment.name))
}
