//! Connections: accepted, bounded, and ended gracefully.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Open connections at most; more wait to be accepted.
const CONNECTIONS: usize = 10_000;
/// Request line and headers together.
const HEADER_BYTES: usize = 32 * 1024;
/// After this failure of `accept` (mostly: out of file descriptors) the next try waits.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Serves `router` until `stopping`; then accepts nothing more, and ends each connection after the request it is
/// working on. Connections are tasks of `tracker`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    header_time_limit: Duration,
    tracker: TaskTracker,
    stopping: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "could not accept a connection");
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        let (router, stopping) = (router.clone(), stopping.clone());
        tracker.spawn(async move {
            let _place = place;
            if let Err(error) = connection(stream, router, header_time_limit, stopping).await {
                tracing::debug!(error = &*error, "a connection broke off");
            }
        });
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    header_time_limit: Duration,
    stopping: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true).map_err(io::Error::other)?;
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_time_limit)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => return Ok(ended?),
        () = stopping.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    Ok(serving.await?)
}
