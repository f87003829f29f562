//! Bytes to and from a mail server: what comes back is bounded, and nothing waits longer than it may.

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use futures::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use super::reply::Reply;

/// RFC 5321, 4.5.3.1.5 allows 512 bytes for a line of a reply; some servers explain themselves at length.
const LINE_LIMIT_BYTES: usize = 4 * 1024;
/// All lines of one reply together. The longest seen is that to EHLO, below 1 KiB.
const REPLY_LIMIT_BYTES: usize = 16 * 1024;

/// A connection, encrypted or not.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// One connection and what was read of it beyond the last reply.
pub(super) struct Wire {
    stream: Box<dyn Duplex>,
    unread: BytesMut,
}

/// How long things may take: each by itself, and all of one send together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) connect: Duration,
    pub(super) command: Duration,
    pub(super) data: Duration,
    pub(super) deadline: Instant,
}

/// The conversation ended in the middle: nobody can say more by this connection.
#[derive(Debug)]
pub(super) enum Broken {
    Lost(io::Error),
    Timeout,
    /// Not SMTP, not the code that belongs here, or far too long.
    Unreadable(&'static str),
}

impl Broken {
    /// The code an attempt keeps, where the server's own would stand.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Broken::Lost(_) => "connection_lost",
            Broken::Timeout => "timeout",
            Broken::Unreadable(_) => "invalid_answer",
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Lost(error) => write!(f, "the connection was lost: {error}"),
            Broken::Timeout => f.write_str("no answer within the time limit"),
            Broken::Unreadable(what) => f.write_str(what),
        }
    }
}

impl Patience {
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = io::Result<T>>,
    ) -> Result<T, Broken> {
        match timeout_at(self.deadline.min(Instant::now() + limit), work).await {
            Ok(result) => result.map_err(Broken::Lost),
            Err(_) => Err(Broken::Timeout),
        }
    }
}

impl Wire {
    pub(super) fn new(stream: impl Duplex + 'static) -> Self {
        Wire { stream: Box::new(stream), unread: BytesMut::new() }
    }

    /// The bare stream, to be encrypted. What the server, or whoever sits between, sent ahead of the encryption would
    /// be taken for its words within: RFC 3207, 6 wants it thrown away, and honest servers send nothing.
    pub(super) fn into_stream(self) -> Result<Box<dyn Duplex>, Broken> {
        if self.unread.is_empty() { Ok(self.stream) } else { Err(Broken::Unreadable("the server spoke out of turn")) }
    }

    /// Writes all of `bytes`; what is left in it at an error or a time-out has provably not been sent.
    pub(super) async fn write(&mut self, bytes: &mut &[u8]) -> io::Result<()> {
        self.stream.write_all_buf(bytes).await?;
        self.stream.flush().await
    }

    /// Whether the server has nothing to say, as it should between two messages: no farewell, no end.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.unread.is_empty() && self.stream.read_buf(&mut self.unread).now_or_never().is_none()
    }

    /// The next reply, all of its lines.
    pub(super) async fn reply(&mut self, limit: Duration, patience: &Patience) -> Result<Reply, Broken> {
        match timeout_at(patience.deadline.min(Instant::now() + limit), self.read_reply()).await {
            Ok(result) => result,
            Err(_) => Err(Broken::Timeout),
        }
    }

    async fn read_reply(&mut self) -> Result<Reply, Broken> {
        let mut reply = Reply::default();
        let mut length = 0;
        loop {
            let line = self.line().await?;
            length += line.len();
            if length > REPLY_LIMIT_BYTES {
                return Err(Broken::Unreadable("the reply is longer than any that makes sense"));
            }
            if reply.add(&line)? {
                return Ok(reply);
            }
        }
    }

    async fn line(&mut self) -> Result<BytesMut, Broken> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.unread[searched..].iter().position(|&byte| byte == b'\n') {
                return Ok(self.unread.split_to(searched + at + 1));
            }
            searched = self.unread.len();
            if searched > LINE_LIMIT_BYTES {
                return Err(Broken::Unreadable("a line of the reply is longer than any that makes sense"));
            }
            if self.stream.read_buf(&mut self.unread).await.map_err(Broken::Lost)? == 0 {
                return Err(Broken::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// The other side says this, and is gone.
    async fn reply_to(said: &[u8]) -> (Result<Reply, Broken>, Wire) {
        let (ours, mut theirs) = tokio::io::duplex(1024 * 1024);
        theirs.write_all(said).await.expect("written");
        drop(theirs);
        let mut wire = Wire::new(ours);
        let patience = Patience { connect: LIMIT, command: LIMIT, data: LIMIT, deadline: Instant::now() + LIMIT };
        (wire.reply(LIMIT, &patience).await, wire)
    }

    #[tokio::test]
    async fn what_comes_back_is_bounded() {
        for said in [vec![b'2'; 100_000], b"250-x\r\n".repeat(10_000), b"\r\n".repeat(5)] {
            assert!(matches!(reply_to(&said).await.0, Err(Broken::Unreadable(_))));
        }
        for said in [&b""[..], b"250", b"250-x\r\n"] {
            assert!(matches!(reply_to(said).await.0, Err(Broken::Lost(_))), "{said:?}");
        }
        // Words may be in any encoding.
        assert_eq!(reply_to(b"250 \xcf\xf0\xe8\r\n").await.0.expect("a reply").code, 250);
    }

    #[tokio::test]
    async fn words_sent_ahead_of_the_encryption_end_the_conversation() {
        let (reply, wire) = reply_to(b"220 go ahead\r\n250 injected\r\n").await;
        assert_eq!(reply.expect("a reply").code, 220);
        assert!(wire.into_stream().is_err());
        assert!(reply_to(b"220 go ahead\r\n").await.1.into_stream().is_ok());
    }

    #[tokio::test]
    async fn a_farewell_or_an_end_is_heard_without_asking() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut wire = Wire::new(ours);
        assert!(wire.is_quiet());
        theirs.write_all(b"421 idle too long\r\n").await.expect("written");
        assert!(!wire.is_quiet());
        let (ours, theirs) = tokio::io::duplex(64);
        drop(theirs);
        assert!(!Wire::new(ours).is_quiet());
    }
}
