//! One mail client's connection, plain or encrypted: lines in, replies out.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::fault::SLOW_REPLY_PAUSE;

/// A mail's average and some commands.
const BUFFER_BYTES: usize = 16 * 1024;

/// A client that says nothing is sent away, as by every mail server.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Between the two; nothing is read or written then.
    Gone,
}

pub(super) struct Wire {
    socket: Socket,
    incoming: BytesMut,
    /// Replies that wait until the client has nothing more to say: pipelined commands are answered together.
    pub(super) outgoing: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Wire {
        Wire { socket: Socket::Plain(stream), incoming: BytesMut::with_capacity(BUFFER_BYTES), outgoing: Vec::new() }
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.socket, Socket::Tls(_))
    }

    /// What was said before and not read yet is forgotten: nobody knows who said it (RFC 3207 §4.2).
    pub(super) async fn start_tls(&mut self, acceptor: &TlsAcceptor) -> io::Result<()> {
        self.incoming.clear();
        match std::mem::replace(&mut self.socket, Socket::Gone) {
            Socket::Plain(stream) => {
                self.socket = Socket::Tls(Box::new(acceptor.accept(stream).await?));
                Ok(())
            }
            Socket::Tls(_) | Socket::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The next line with its end, or what there is when it grows past `limit`. Sends waiting replies before it waits.
    pub(super) async fn line(&mut self, limit: usize) -> io::Result<BytesMut> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.incoming[searched..].iter().position(|byte| *byte == b'\n') {
                return Ok(self.incoming.split_to(searched + end + 1));
            }
            searched = self.incoming.len();
            if searched > limit {
                return Ok(self.incoming.split());
            }
            self.fill().await?;
        }
    }

    /// Reads more. Sends waiting replies first.
    async fn fill(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.incoming.reserve(BUFFER_BYTES);
        let read = async {
            match &mut self.socket {
                Socket::Plain(stream) => stream.read_buf(&mut self.incoming).await,
                Socket::Tls(stream) => stream.read_buf(&mut self.incoming).await,
                Socket::Gone => Ok(0),
            }
        };
        match tokio::time::timeout(IDLE_LIMIT, read).await {
            Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read.map(|_| ()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// A message's lines up to the lone dot, dots unstuffed. Of more than `limit` bytes only the count is kept.
    pub(super) async fn message(&mut self, limit: usize) -> io::Result<Body> {
        let mut body = Body::default();
        let mut at_line_start = true;
        loop {
            while let Some(end) = self.incoming.iter().position(|byte| *byte == b'\n') {
                let line = &self.incoming[..=end];
                if at_line_start && line == b".\r\n" {
                    self.incoming.advance(end + 1);
                    return Ok(body);
                }
                body.add(line, at_line_start, limit);
                at_line_start = true;
                self.incoming.advance(end + 1);
            }
            // A line without an end in sight goes on where it is, so that it is not searched again and again.
            if self.incoming.len() > BUFFER_BYTES {
                let part = self.incoming.split();
                body.add(&part, at_line_start, limit);
                at_line_start = false;
            }
            self.fill().await?;
        }
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        match &mut self.socket {
            Socket::Plain(stream) => stream.write_all(&self.outgoing).await?,
            Socket::Tls(stream) => {
                stream.write_all(&self.outgoing).await?;
                stream.flush().await?;
            }
            Socket::Gone => {}
        }
        self.outgoing.clear();
        Ok(())
    }

    /// Sends a byte at a time.
    pub(super) async fn flush_slowly(&mut self) -> io::Result<()> {
        for byte in std::mem::take(&mut self.outgoing) {
            self.outgoing.push(byte);
            self.flush().await?;
            tokio::time::sleep(SLOW_REPLY_PAUSE).await;
        }
        Ok(())
    }

    /// Closes in order.
    pub(super) async fn close(&mut self) {
        // The client may have gone first.
        let _ = match &mut self.socket {
            Socket::Plain(stream) => stream.shutdown().await,
            Socket::Tls(stream) => stream.shutdown().await,
            Socket::Gone => Ok(()),
        };
    }

    /// Makes the close that follows a reset.
    pub(super) fn reset(&mut self) {
        // A linger of zero does it. A socket that refuses the option is about to fail anyway.
        let _ = match &self.socket {
            Socket::Plain(stream) => stream.set_zero_linger(),
            Socket::Tls(stream) => stream.get_ref().0.set_zero_linger(),
            Socket::Gone => Ok(()),
        };
    }

    /// Takes what comes and says nothing, until the client leaves.
    pub(super) async fn hang(&mut self) {
        while self.fill().await.is_ok() {
            self.incoming.clear();
        }
    }
}

/// A message as it came, and what is wrong with its form.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) size: usize,
    line: usize,
    pub(super) longest_line: usize,
    pub(super) has_bare_line_feed: bool,
    pub(super) has_eight_bits: bool,
}

impl Body {
    fn add(&mut self, part: &[u8], at_line_start: bool, limit: usize) {
        let part = if at_line_start { part.strip_prefix(b".").unwrap_or(part) } else { part };
        let ends = part.ends_with(b"\n");
        self.has_bare_line_feed |= ends && !part.ends_with(b"\r\n");
        self.has_eight_bits |= !part.is_ascii();
        self.line = if at_line_start { part.len() } else { self.line + part.len() };
        self.longest_line = self.longest_line.max(self.line - if ends { 2.min(self.line) } else { 0 });
        self.size += part.len();
        if self.size <= limit {
            self.bytes.extend_from_slice(part);
        }
    }
}
