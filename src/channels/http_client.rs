//! The one place that builds HTTP clients.
//!
//! [`HttpClient`] is what messages leave by: a pool of kept-alive HTTP/1.1 connections, with limits on everything
//! that comes back. It never follows a redirect and never repeats a request. Its errors keep apart what decides
//! whether a message may be sent again: [`HttpErrorKind::nothing_left`] is true only where it is *proven* that no byte
//! of the request left us; all else is "may have left".
//!
//! The proof has two halves. No connection was ever assigned to the request (refused, not resolved, TLS failed, too
//! slow): hyper-util tells through its captured connection. Or the pooled connection was found closed before the
//! request was begun: hyper then gives the request back whole. What it took and could not finish is never counted as
//! unsent, not even where the kernel refused the first write.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Incoming};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::{self, CaptureConnection, capture_connection};
use hyper_util::client::legacy::{Client, Error as PoolError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep_until};
use tower_service::Service;

mod upload;

pub use upload::HttpStream;

use super::public_address::{NotPublic, is_public};
use super::tls::Trust;

/// Idle connections kept for one host: as many as we would ever have in flight there.
const IDLE_CONNECTIONS_PER_HOST: usize = 256;
/// An idle connection is dropped after this. Shorter than the 60 s of common load balancers and the 75 s of nginx, so
/// that it is we who close it and not they, in the very moment a request is on its way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Bounds the head of an answer (status line and headers); the providers' are below 4 KiB.
const ANSWER_HEAD_LIMIT_BYTES: usize = 32 * 1024;
/// hyper's own default, written down because a test relies on it.
const ANSWER_HEADERS_LIMIT: usize = 100;
/// Probes on idle sockets, so that a path that died silently is noticed before the next request takes it.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// The bound of an answer's body, unless the request says otherwise. Providers answer in less than 4 KiB.
pub const ANSWER_BODY_LIMIT_BYTES: usize = 64 * 1024;

type BoxError = Box<dyn StdError + Send + Sync>;
type HttpConnector = connect::HttpConnector<Resolver>;
/// A message in one piece, or an upload that comes in many.
type Outgoing = Either<Full<Bytes>, UnsyncBoxBody<Bytes, BoxError>>;

/// The client of everything that leaves by HTTP. Cheap to clone; clones share the connections.
///
/// Building one costs nothing: the system's root certificates (about 0.16 s) are read when the first `https`
/// connection is made. It belongs to the runtime it is first used on, so an application makes one and hands it round.
#[derive(Clone)]
pub struct HttpClient {
    pool: Client<Connector, Outgoing>,
}

/// What is asked.
pub struct HttpRequest {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// How long and how much one request may take.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Until there is a connection: resolving, TCP and TLS.
    pub connect: Duration,
    /// Until the whole answer is read, connecting included.
    pub total: Duration,
    pub body_bytes: usize,
}

/// What came back, read to its end.
pub struct HttpAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl HttpAnswer {
    /// The body as JSON, if it is that. Bounded, for the body is.
    pub fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// No answer. The text says what we were doing; the cause is the source.
#[derive(Debug)]
pub struct HttpError {
    pub kind: HttpErrorKind,
    source: Option<BoxError>,
}

/// Where it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpErrorKind {
    /// Not resolved, refused, or TLS failed.
    Connect,
    /// A client that may only reach public addresses was sent to another.
    NotPublic,
    /// No connection within its time limit.
    ConnectTimeout,
    /// A kept connection had been closed by the other side before the request was begun.
    StaleConnection,
    /// No whole answer within the time limit.
    Timeout,
    /// The connection ended while the request or the answer was under way.
    ConnectionLost,
    /// What came back is not HTTP, or its head exceeds the limit.
    InvalidAnswer,
    /// The answer's body exceeds the limit.
    AnswerTooLarge,
}

impl HttpErrorKind {
    /// Whether it is proven that no byte of the request left us.
    pub fn nothing_left(self) -> bool {
        match self {
            HttpErrorKind::Connect
            | HttpErrorKind::NotPublic
            | HttpErrorKind::ConnectTimeout
            | HttpErrorKind::StaleConnection => true,
            HttpErrorKind::Timeout
            | HttpErrorKind::ConnectionLost
            | HttpErrorKind::InvalidAnswer
            | HttpErrorKind::AnswerTooLarge => false,
        }
    }

    /// The code an attempt keeps, where a provider's own would stand.
    pub fn code(self) -> &'static str {
        match self {
            HttpErrorKind::Connect => "connect",
            HttpErrorKind::NotPublic => "not_public",
            HttpErrorKind::ConnectTimeout => "connect_timeout",
            HttpErrorKind::StaleConnection => "stale_connection",
            HttpErrorKind::Timeout => "timeout",
            HttpErrorKind::ConnectionLost => "connection_lost",
            HttpErrorKind::InvalidAnswer => "invalid_answer",
            HttpErrorKind::AnswerTooLarge => "answer_too_large",
        }
    }
}

impl HttpClient {
    pub fn new() -> Self {
        HttpClient::with(false)
    }

    /// For URLs that users give: connects to public addresses only, whatever a name resolves to at that moment.
    pub fn public_only() -> Self {
        HttpClient::with(true)
    }

    fn with(public_only: bool) -> Self {
        let resolver = Resolver { system: GaiResolver::new(), public_only };
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        // A request is one small write; waiting for more to fill a packet would only delay it.
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        let pool = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(ANSWER_HEAD_LIMIT_BYTES)
            .http1_max_headers(ANSWER_HEADERS_LIMIT)
            // Whether a send may be repeated is the ledger's decision, also when nothing of it left.
            .retry_canceled_requests(false)
            .build(Connector { tcp, tls: Arc::default(), public_only });
        HttpClient { pool }
    }

    /// Sends one request and reads its whole answer, whatever the status.
    ///
    /// Not cancel safe in meaning: dropping the future leaves it unknown whether the request left.
    pub async fn send(&self, request: HttpRequest, limits: &HttpLimits) -> Result<HttpAnswer, HttpError> {
        let mut outgoing = Request::new(Either::Left(Full::new(request.body)));
        *outgoing.method_mut() = request.method;
        *outgoing.uri_mut() = request.uri;
        *outgoing.headers_mut() = request.headers;
        let connection = capture_connection(&mut outgoing);

        let started = Instant::now();
        let (connect_by, answer_by) = (started + limits.connect.min(limits.total), started + limits.total);
        let exchange = async {
            let answer = self.pool.request(outgoing).await.map_err(|error| from_pool(error, &connection))?;
            let (head, body) = answer.into_parts();
            let body = read_body(body, limits.body_bytes).await?;
            Ok(HttpAnswer { status: head.status, headers: head.headers, body })
        };
        let mut exchange = std::pin::pin!(exchange);
        // One timer for both limits: most requests find a connection at once and never see it fire.
        let mut timer = std::pin::pin!(sleep_until(connect_by));
        loop {
            tokio::select! {
                biased;
                result = &mut exchange => return result,
                () = &mut timer => {
                    // The exchange is not polled between this look and its end, so the look holds.
                    if !was_assigned(&connection) {
                        return Err(HttpErrorKind::ConnectTimeout.into());
                    }
                    if timer.deadline() >= answer_by {
                        return Err(HttpErrorKind::Timeout.into());
                    }
                    timer.as_mut().reset(answer_by);
                }
            }
        }
    }
}

impl Default for HttpClient {
    fn default() -> Self {
        HttpClient::new()
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpClient")
    }
}

impl Default for HttpLimits {
    fn default() -> Self {
        HttpLimits {
            connect: Duration::from_secs(3),
            total: Duration::from_secs(15),
            body_bytes: ANSWER_BODY_LIMIT_BYTES,
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            HttpErrorKind::Connect => "connecting failed",
            HttpErrorKind::NotPublic => "connecting was refused by ourselves",
            HttpErrorKind::ConnectTimeout => "no connection within the time limit",
            HttpErrorKind::StaleConnection => "the kept connection was closed before the request was begun",
            HttpErrorKind::Timeout => "no answer within the time limit",
            HttpErrorKind::ConnectionLost => "the connection was lost before an answer was read",
            HttpErrorKind::InvalidAnswer => "the answer is not HTTP",
            HttpErrorKind::AnswerTooLarge => "the answer is larger than the limit",
        })
    }
}

impl StdError for HttpError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

impl HttpError {
    /// The text with its causes, for a place that keeps one string. Neither we nor the causes name the URL.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let part = error.to_string();
            // Layers that only repeat the cause below them add nothing.
            if !text.ends_with(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            cause = error.source();
        }
        text
    }
}

impl From<HttpErrorKind> for HttpError {
    fn from(kind: HttpErrorKind) -> Self {
        HttpError { kind, source: None }
    }
}

/// Whether a connection was ever assigned to the request. Before that nothing of it can have been written.
fn was_assigned(connection: &CaptureConnection) -> bool {
    connection.connection_metadata().is_some()
}

fn was_refused_by_us(error: &PoolError) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<NotPublic>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn from_pool(error: PoolError, connection: &CaptureConnection) -> HttpError {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>());
    let kind = if was_refused_by_us(&error) {
        HttpErrorKind::NotPublic
    } else if !was_assigned(connection) {
        HttpErrorKind::Connect
    } else if cause.is_some_and(hyper::Error::is_canceled) {
        // hyper says so of a request that it never began to encode.
        HttpErrorKind::StaleConnection
    } else {
        kind_of(cause)
    };
    // hyper-util's own text only repeats which of its steps failed; its source says why.
    HttpError { kind, source: Some(error.into()) }
}

fn kind_of(cause: Option<&hyper::Error>) -> HttpErrorKind {
    match cause {
        Some(cause) if cause.is_parse() || cause.is_parse_too_large() => HttpErrorKind::InvalidAnswer,
        Some(_) | None => HttpErrorKind::ConnectionLost,
    }
}

fn from_body(error: hyper::Error) -> HttpError {
    HttpError { kind: kind_of(Some(&error)), source: Some(error.into()) }
}

async fn read_body(mut body: Incoming, limit_bytes: usize) -> Result<Bytes, HttpError> {
    let too_large = || Err(HttpErrorKind::AnswerTooLarge.into());
    // What the answer announces is believed at once, so that nothing is read of a body that is too large anyway.
    if body.size_hint().lower() > limit_bytes as u64 {
        return too_large();
    }
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(from_body)?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + whole.len() + data.len() > limit_bytes {
            return too_large();
        }
        // Nearly every answer is one frame, which is passed on as it is.
        if first.is_empty() && whole.is_empty() {
            first = data;
        } else {
            if whole.is_empty() {
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// Opens connections: plain ones for simulators and proxies nearby, TLS with the system's roots for the rest.
#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    tls: Arc<OnceCell<HttpsConnector<HttpConnector>>>,
    public_only: bool,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let Connector { mut tcp, tls, public_only } = self.clone();
        Box::pin(async move {
            // An address written out is never resolved.
            let literal = destination.host().map(|host| host.trim_matches(['[', ']']).parse::<IpAddr>());
            if let Some(Ok(address)) = literal
                && public_only
                && !is_public(address)
            {
                return Err(NotPublic.into());
            }
            if destination.scheme_str() == Some("http") {
                return Ok(MaybeHttpsStream::Http(tcp.call(destination).await?));
            }
            let mut tls = tls.get_or_try_init(|| with_tls(tcp)).await?.clone();
            tls.call(destination).await
        })
    }
}

async fn with_tls(tcp: HttpConnector) -> Result<HttpsConnector<HttpConnector>, BoxError> {
    Ok(HttpsConnector::from((tcp, Trust::default().config().await?)))
}

/// The system's resolver, whose answers may be sifted. The connection goes to the very address that was looked at.
#[derive(Clone)]
struct Resolver {
    system: GaiResolver,
    public_only: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.system.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (answer, public_only) = (self.system.call(name), self.public_only);
        Box::pin(async move {
            let mut addresses: Vec<SocketAddr> = answer.await?.collect();
            if public_only {
                addresses.retain(|address| is_public(address.ip()));
                if addresses.is_empty() {
                    return Err(NotPublic.into());
                }
            }
            Ok(addresses.into_iter())
        })
    }
}
