//! Bodies of any length, both ways: sent as they are made, read as they come.

use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{HeaderMap, Request, StatusCode};

use super::{
    BoxError, HttpClient, HttpError, HttpErrorKind, HttpLimits, HttpRequest, Outgoing, capture_connection, from_body,
    from_pool, read_body, was_assigned,
};

/// An answer that is read as it comes.
pub struct HttpStream {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
}

impl HttpStream {
    /// The next piece; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame.map_err(from_body)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The rest of it.
    pub async fn into_bytes(self, limit_bytes: usize) -> Result<Bytes, HttpError> {
        read_body(self.body, limit_bytes).await
    }
}

impl HttpClient {
    /// Sends `pieces` behind the head of `request`, and gives the answer as soon as it begins, which may be before
    /// all is sent. Nothing but connecting is limited in time.
    pub async fn upload(
        &self,
        request: HttpRequest,
        pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        limits: &HttpLimits,
    ) -> Result<HttpStream, HttpError> {
        let frames = pieces.map(|piece| piece.map(Frame::data).map_err(BoxError::from));
        self.begun(request, Either::Right(StreamBody::new(frames).boxed_unsync()), limits).await
    }

    /// Sends a request, and gives the answer as soon as it begins. Nothing but connecting is limited in time.
    pub async fn download(&self, request: HttpRequest, limits: &HttpLimits) -> Result<HttpStream, HttpError> {
        let body = Either::Left(Full::new(request.body.clone()));
        self.begun(request, body, limits).await
    }

    async fn begun(&self, request: HttpRequest, body: Outgoing, limits: &HttpLimits) -> Result<HttpStream, HttpError> {
        let mut outgoing = Request::new(body);
        *outgoing.method_mut() = request.method;
        *outgoing.uri_mut() = request.uri;
        *outgoing.headers_mut() = request.headers;
        let connection = capture_connection(&mut outgoing);
        let mut answer = std::pin::pin!(self.pool.request(outgoing));
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            () = tokio::time::sleep(limits.connect) => {
                if !was_assigned(&connection) {
                    return Err(HttpErrorKind::ConnectTimeout.into());
                }
                answer.await
            }
        };
        let (head, body) = answer.map_err(|error| from_pool(error, &connection))?.into_parts();
        Ok(HttpStream { status: head.status, headers: head.headers, body })
    }
}
