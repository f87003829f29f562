//! Reads HTTP/1 requests from a connection, with bounds on everything.
//!
//! Written here and not left to a server library, because the faults need the bare socket between a request and its
//! answer, and because a stand-in must never be what limits: one request costs one read and one write.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::control;

/// Request line and headers together.
const HEAD_LIMIT_BYTES: usize = 16 * 1024;
const HEADERS_LIMIT: usize = 64;
/// A message: several times what either provider's largest text needs.
const BODY_LIMIT_BYTES: usize = 64 * 1024;
/// A scenario, which may name very many recipients.
const CONTROL_BODY_LIMIT_BYTES: usize = 16 * 1024 * 1024;
/// A chunk's size line: sixteen hexadecimal digits and some room for extensions.
const CHUNK_HEAD_LIMIT_BYTES: usize = 256;

/// Some messages with their heads, in all but extreme cases.
const BUFFER_BYTES: usize = 8 * 1024;
/// Room for one read: a message and its head in one call, without which a full buffer would be read in driblets.
const READ_BYTES: usize = 4 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Put,
    Other,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    target: String,
    pub(super) authorization: Option<String>,
    content_type: Option<String>,
    pub(super) keep_alive: bool,
    pub(super) body: Bytes,
}

impl Request {
    pub(super) fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    pub(super) fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// Whether the media type is this one, whatever its parameters.
    pub(super) fn content_type_is(&self, wanted: &str) -> bool {
        let given = self.content_type.as_deref().unwrap_or_default();
        given.split(';').next().is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(wanted))
    }
}

/// The pairs of a query or a form, decoded.
pub(super) fn form_pairs(form: &str) -> impl Iterator<Item = (String, String)> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    form.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

/// Why there is no request.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The client is done, or the connection broke.
    Gone,
    /// What came is no request; it gets this status, and then the connection ends.
    Bad(u16, &'static str),
}

impl From<io::Error> for ReadError {
    fn from(_: io::Error) -> Self {
        ReadError::Gone
    }
}

/// How a body is delimited.
enum Framing {
    Length(usize),
    Chunked,
}

/// One connection's incoming side.
#[derive(Debug)]
pub(super) struct RequestReader {
    buffer: BytesMut,
}

impl RequestReader {
    pub(super) fn new() -> Self {
        RequestReader { buffer: BytesMut::with_capacity(BUFFER_BYTES) }
    }

    /// The next request. Not cancel safe: what was read of a body is lost.
    pub(super) async fn next(&mut self, stream: &mut TcpStream) -> Result<Request, ReadError> {
        let (mut request, framing, expects_continue) = loop {
            if !self.buffer.is_empty()
                && let Some((head_length, request, framing, expects_continue)) = parse_head(&self.buffer)?
            {
                self.buffer.advance(head_length);
                break (request, framing, expects_continue);
            }
            if self.buffer.len() > HEAD_LIMIT_BYTES {
                return Err(ReadError::Bad(431, "the request head is longer than 16 KiB"));
            }
            self.fill(stream).await?;
        };
        let limit = if control::owns(request.path()) { CONTROL_BODY_LIMIT_BYTES } else { BODY_LIMIT_BYTES };
        if matches!(framing, Framing::Length(length) if length > limit) {
            return Err(TOO_LARGE);
        }
        if expects_continue {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        request.body = match framing {
            Framing::Length(0) => Bytes::new(),
            Framing::Length(length) => self.exactly(stream, length).await?,
            Framing::Chunked => self.chunked(stream, limit).await?,
        };
        Ok(request)
    }

    async fn fill(&mut self, stream: &mut TcpStream) -> Result<(), ReadError> {
        self.buffer.reserve(READ_BYTES);
        if stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(ReadError::Gone);
        }
        Ok(())
    }

    async fn exactly(&mut self, stream: &mut TcpStream, length: usize) -> Result<Bytes, ReadError> {
        // All at once: a large body must not be moved again and again as it grows.
        self.buffer.reserve(length.saturating_sub(self.buffer.len()) + READ_BYTES);
        while self.buffer.len() < length {
            self.fill(stream).await?;
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    async fn chunked(&mut self, stream: &mut TcpStream, limit: usize) -> Result<Bytes, ReadError> {
        const BROKEN: ReadError = ReadError::Bad(400, "the chunked body is broken");
        let mut body = BytesMut::new();
        loop {
            let size = loop {
                match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete((consumed, size))) => {
                        self.buffer.advance(consumed);
                        break usize::try_from(size).unwrap_or(usize::MAX);
                    }
                    Ok(httparse::Status::Partial) if self.buffer.len() <= CHUNK_HEAD_LIMIT_BYTES => {
                        self.fill(stream).await?;
                    }
                    Ok(httparse::Status::Partial) | Err(_) => return Err(BROKEN),
                }
            };
            if size > limit - body.len() {
                return Err(TOO_LARGE);
            }
            if size == 0 {
                self.trailers(stream).await?;
                return Ok(body.freeze());
            }
            let chunk = self.exactly(stream, size + 2).await?;
            if !chunk.ends_with(b"\r\n") {
                return Err(BROKEN);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    /// Skips what may follow the last chunk, up to the blank line.
    async fn trailers(&mut self, stream: &mut TcpStream) -> Result<(), ReadError> {
        loop {
            match self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                Some(0) => {
                    self.buffer.advance(2);
                    return Ok(());
                }
                Some(end) => self.buffer.advance(end + 2),
                None if self.buffer.len() > HEAD_LIMIT_BYTES => {
                    return Err(ReadError::Bad(431, "the trailers are longer than 16 KiB"));
                }
                None => self.fill(stream).await?,
            }
        }
    }
}

const TOO_LARGE: ReadError = ReadError::Bad(413, "the body is too large");

/// `None`: the head is not whole yet.
fn parse_head(buffer: &[u8]) -> Result<Option<(usize, Request, Framing, bool)>, ReadError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_LIMIT];
    let mut head = httparse::Request::new(&mut headers);
    let head_length = match head.parse(buffer) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_LIMIT_BYTES => length,
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
            return Err(ReadError::Bad(431, "the request head is longer than 16 KiB or 64 headers"));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(ReadError::Bad(400, "not an HTTP/1 request")),
    };
    let mut request = Request {
        method: match head.method {
            Some("GET") => Method::Get,
            Some("POST") => Method::Post,
            Some("PUT") => Method::Put,
            Some(_) | None => Method::Other,
        },
        target: head.path.unwrap_or_default().to_owned(),
        authorization: None,
        content_type: None,
        // HTTP/1.0 ends after one request.
        keep_alive: head.version == Some(1),
        body: Bytes::new(),
    };
    let (mut length, mut chunked, mut expects_continue) = (None, false, false);
    for header in head.headers.iter() {
        let value = || String::from_utf8_lossy(header.value).into_owned();
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let given = std::str::from_utf8(header.value).ok().and_then(|value| value.trim().parse().ok());
            let Some(given) = given.filter(|given| length.is_none_or(|earlier| earlier == *given)) else {
                return Err(ReadError::Bad(400, "the Content-Length is not one number"));
            };
            length = Some(given);
        } else if is("authorization") {
            request.authorization = Some(value());
        } else if is("content-type") {
            request.content_type = Some(value());
        } else if is("transfer-encoding") {
            if !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err(ReadError::Bad(501, "the only transfer coding taken is chunked"));
            }
            chunked = true;
        } else if is("connection") {
            request.keep_alive &= !header.value.eq_ignore_ascii_case(b"close");
        } else if is("expect") {
            expects_continue = header.value.eq_ignore_ascii_case(b"100-continue");
        }
    }
    let framing = match (length, chunked) {
        // Two lengths are how requests are smuggled.
        (Some(_), true) => return Err(ReadError::Bad(400, "both Content-Length and Transfer-Encoding are given")),
        (_, true) => Framing::Chunked,
        (length, false) => Framing::Length(length.unwrap_or(0)),
    };
    Ok(Some((head_length, request, framing, expects_continue)))
}
