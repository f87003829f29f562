//! `POST /v1/{contacts,leads,deals,companies}/import`: a file of CRM records, streamed in.
//!
//! One rule for the answer: 200 means that the whole file was read, whatever became of its rows. Anything else is a
//! problem, and if reading had begun, its `report` says what was saved until then and its `line` where it ended.

mod options;

use std::io;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use futures::{Stream, StreamExt as _, stream};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use self::options::{ImportQuery, options};
use super::Api;
use super::auth::Caller;
use super::extract::{ValidPath, ValidQuery};
use super::problem::Problem;
use super::records::{Records, built_in};
use crate::domain::RecordKind;
use crate::import::{Counts, Delimiter, Ended, FileProblem, Format, Found, Rejected, Spool, import};
use crate::store::Scope;

/// Imports at the same time: more would only wait for the ledger.
const IMPORTS: usize = 4;
/// A client for which we wait so long …
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// … without so much from it is gone, or keeps a place for nothing.
const LEAST_BYTES: usize = 1024;
/// An answer before the end of a body is lost to clients that send first and read then: so long the rest is taken and
/// thrown away.
const LINGER: Duration = Duration::from_secs(5);
/// Rejected rows in a JSON answer, …
const LISTED_ROWS: usize = 1_000;
/// … and what they take there at most.
const LISTED_BYTES: usize = 8 * 1024 * 1024;

/// Read of the temporary file at once.
const PIECE_BYTES: usize = 64 * 1024;

const NDJSON: &str = "application/x-ndjson";

/// Room for imports.
pub struct ImportPlaces(Semaphore);

impl Default for ImportPlaces {
    fn default() -> Self {
        ImportPlaces(Semaphore::new(IMPORTS))
    }
}

/// What became of a file.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImportReport {
    /// `contacts`, `leads`, `deals` or `companies`.
    kind: &'static str,
    /// Nothing was written, and the counts say what would have been.
    dry_run: bool,
    /// `csv` or `ndjson`; absent when the file ended before that was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    /// Of CSV.
    #[serde(skip_serializing_if = "Option::is_none")]
    delimiter: Option<char>,
    /// Of CSV, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    columns: Vec<ColumnView>,
    /// created + updated + unchanged + rejected.
    rows: u64,
    created: u64,
    updated: u64,
    unchanged: u64,
    rejected: u64,
    seconds: f64,
    /// The first 1,000 of them; absent with `Accept: application/x-ndjson`, where all of them follow line by line.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected_rows: Option<Vec<RejectedRow>>,
}

/// A column of CSV, and the field that it became.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ColumnView {
    header: String,
    /// `null` for a column that was dropped.
    field: Option<String>,
}

/// A row that was not taken.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct RejectedRow {
    /// Where it begins in the file, from 1.
    line: u64,
    reason: String,
    /// As it was given: an array of cells, or a line of JSON as text.
    row: Value,
}

/// An import that ended early.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ImportProblem {
    #[serde(flatten)]
    problem: Problem,
    #[serde(flatten)]
    how_far: HowFar,
}

/// Where an import ended, and what it had done by then.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct HowFar {
    /// The line that cannot be read, when it is the file's fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    report: ImportReport,
}

/// Brings records in from a file of any size: CSV with a header, or a JSON object a line.
///
/// The body is the file itself. Rows that are wrong are rejected with their line and reason, and the rest is taken.
/// Importing the same file again changes nothing.
///
/// 200 means that the whole file was read. A file that cannot be read further is a problem with the `line` and a
/// `report` of what was saved before. With `Accept: application/x-ndjson` the first line of a 200 is the report, and
/// every rejected row follows on a line of its own.
#[utoipa::path(
    post, path = "/v1/{records}/import", tag = "records", security(("key" = [])),
    params(("records" = Records, Path, description = "Their kind"), ImportQuery),
    request_body(content((String = "text/csv"), (String = "application/x-ndjson"), (String = "application/octet-stream"))),
    responses(
        (status = 200, description = "The whole file was read", content(
            (ImportReport = "application/json"),
            (String = "application/x-ndjson")
        )),
        (status = 408, body = ImportProblem, description = "Less than 1 KiB came in 30 seconds"),
        (status = 409, body = Problem, description = "Records of this kind are read from the CRM's own database"),
        (status = 415, body = Problem, description = "A Content-Type that files do not have"),
        (status = 422, body = ImportProblem, description = "From some line on the file cannot be read, or a parameter is wrong"),
        (status = 429, body = Problem, description = "Too many imports at once"),
        (status = 503, body = ImportProblem, description = "The ledger is away, or the service is stopping")
    )
)]
pub(super) async fn import_records(
    State(api): State<Api>,
    caller: Caller,
    ValidPath(records): ValidPath<Records>,
    ValidQuery(query): ValidQuery<Vec<(String, String)>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.may(Scope::Manage)?;
    let kind = built_in(&api, records)?;
    let options = options(kind, api.delivery.default_region(), query, &headers)?;
    let is_dry_run = options.is_dry_run;
    let Ok(place) = api.imports.0.try_acquire() else {
        return Err(Problem::too_many(format!("{IMPORTS} imports are running: try again when one has ended")));
    };
    let started = Instant::now();
    let mut pieces = pieces(api.stopping.clone(), body);
    let mut spool = Spool::default();
    let imported = import(&mut pieces, options, &*api.store, &*api.clock, |rejected| spool.push(rejected)).await;
    let mut report = report(kind, is_dry_run, imported.counts, imported.found, started.elapsed());
    tracing::info!(
        records = report.kind,
        rows = report.rows,
        rejected = report.rejected,
        seconds = report.seconds,
        whole = imported.ended.is_ok(),
        "a file was imported"
    );
    let is_ndjson = headers.get(header::ACCEPT).is_some_and(|value| value.as_bytes().starts_with(NDJSON.as_bytes()));
    let (line, problem) = match imported.ended {
        Ok(()) if is_ndjson => return line_by_line(&report, spool).map_err(|error| lost_rows(&error)),
        Ok(()) => {
            report.rejected_rows = Some(listed(spool)?);
            return Ok(Json(report).into_response());
        }
        Err(ended) => in_words(ended),
    };
    // Lingering is no import.
    drop(place);
    linger(&mut pieces).await;
    report.rejected_rows = Some(listed(spool)?);
    Ok(problem.respond(&HowFar { line, report }))
}

/// Why no more of a file came.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NoMore {
    Idle,
    BrokenOff,
    Stopping,
}

/// How long we waited for the client since it last sent [`LEAST_BYTES`], and what it sent since.
#[derive(Default)]
struct Patience {
    waited: Duration,
    bytes: usize,
}

impl Patience {
    fn left(&self) -> Duration {
        IDLE_LIMIT.saturating_sub(self.waited)
    }

    fn count(&mut self, waited: Duration, bytes: usize) {
        self.waited += waited;
        self.bytes += bytes;
        if self.bytes >= LEAST_BYTES {
            *self = Patience::default();
        }
    }
}

/// The body, as far as it comes. Only the time in which we wait for the client counts as its silence.
fn pieces(stopping: CancellationToken, body: Body) -> impl Stream<Item = Result<Bytes, NoMore>> + Unpin {
    let start = (body.into_data_stream(), stopping, Patience::default());
    let pieces = stream::unfold(start, |(mut data, stopping, mut patience)| async move {
        let since = Instant::now();
        let next = tokio::select! {
            biased;
            () = stopping.cancelled() => Some(Err(NoMore::Stopping)),
            next = timeout(patience.left(), data.next()) => match next {
                Ok(Some(Ok(piece))) => {
                    patience.count(since.elapsed(), piece.len());
                    Some(Ok(piece))
                }
                Ok(Some(Err(_))) => Some(Err(NoMore::BrokenOff)),
                Ok(None) => None,
                Err(_) => Some(Err(NoMore::Idle)),
            },
        };
        next.map(|next| (next, (data, stopping, patience)))
    });
    // Lingering asks again after the end.
    Box::pin(pieces.fuse())
}

async fn linger(pieces: &mut (impl Stream<Item = Result<Bytes, NoMore>> + Unpin)) {
    let until = Instant::now() + LINGER;
    while let Ok(Some(Ok(_))) = timeout_at(until, pieces.next()).await {}
}

fn in_words(ended: Ended<NoMore>) -> (Option<u64>, Problem) {
    match ended {
        Ended::File(FileProblem { line, detail }) => (Some(line), Problem::unreadable_file(detail)),
        Ended::Input(NoMore::Idle) => {
            let detail = format!("less than {LEAST_BYTES} bytes came in {} seconds", IDLE_LIMIT.as_secs());
            (None, Problem::silence(detail))
        }
        Ended::Input(NoMore::BrokenOff) => (None, Problem::unreadable("the body broke off before its end")),
        Ended::Input(NoMore::Stopping) => {
            (None, Problem::unavailable("the service is stopping: import the same file again, later"))
        }
        Ended::Store(error) => (None, error.into()),
        Ended::Rejected(error) => (None, lost_rows(&error)),
    }
}

fn lost_rows(error: &io::Error) -> Problem {
    tracing::error!(error = error as &dyn std::error::Error, "rejected rows could not be kept in a temporary file");
    Problem::internal()
}

fn report(kind: RecordKind, dry_run: bool, counts: Counts, found: Option<Found>, elapsed: Duration) -> ImportReport {
    let Counts { rows, created, updated, unchanged, rejected } = counts;
    ImportReport {
        kind: kind.plural(),
        dry_run,
        format: found.as_ref().map(|found| match found.format {
            Format::Csv => "csv",
            Format::Ndjson => "ndjson",
        }),
        encoding: found.as_ref().map(|found| found.encoding.as_str()),
        delimiter: found.as_ref().and_then(|found| found.delimiter).map(Delimiter::as_char),
        columns: found
            .into_iter()
            .flat_map(|found| found.columns)
            .map(|column| ColumnView { header: column.header, field: column.field })
            .collect(),
        rows,
        created,
        updated,
        unchanged,
        rejected,
        // To the millisecond.
        seconds: (elapsed.as_secs_f64() * 1e3).round() / 1e3,
        rejected_rows: None,
    }
}

fn listed(spool: Spool) -> Result<Vec<RejectedRow>, Problem> {
    let view = |rejected: Rejected| RejectedRow {
        line: rejected.line,
        reason: rejected.reason,
        // Cells and lines always become JSON.
        row: serde_json::to_value(rejected.row).unwrap_or_default(),
    };
    let rows = spool.into_first(LISTED_ROWS, LISTED_BYTES).map_err(|error| lost_rows(&error))?;
    Ok(rows.into_iter().map(view).collect())
}

/// The report, then every rejected row.
fn line_by_line(report: &ImportReport, spool: Spool) -> io::Result<Response> {
    let mut first = serde_json::to_vec(report)?;
    first.push(b'\n');
    let first = stream::iter([Ok(Bytes::from(first))]);
    let body = match spool.into_file()? {
        None => Body::from_stream(first),
        Some(file) => {
            Body::from_stream(first.chain(ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE_BYTES)))
        }
    };
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON))], body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(stopping: CancellationToken, body: Body) -> Vec<Result<Bytes, NoMore>> {
        pieces(stopping, body).take(3).collect().await
    }

    #[tokio::test(start_paused = true)]
    async fn only_silence_and_trickles_are_limited() {
        let start = Instant::now();
        let slow = |piece: Bytes| {
            Body::from_stream(stream::iter(0..3).then(move |_| {
                let piece = piece.clone();
                async {
                    tokio::time::sleep(IDLE_LIMIT - Duration::from_secs(1)).await;
                    Ok::<_, io::Error>(piece)
                }
            }))
        };
        let enough = Bytes::from(vec![b'x'; LEAST_BYTES]);
        assert_eq!(all(CancellationToken::new(), slow(enough.clone())).await, vec![Ok(enough); 3]);
        assert!(start.elapsed() > IDLE_LIMIT);
        let start = Instant::now();
        let trickle = all(CancellationToken::new(), slow(Bytes::from("x"))).await;
        assert_eq!(trickle[..2], [Ok(Bytes::from("x")), Err(NoMore::Idle)]);
        assert!(start.elapsed() < IDLE_LIMIT * 3);
        let silent = Body::from_stream(stream::iter([Ok::<_, io::Error>("x")]).chain(stream::pending()));
        let expected = [Ok(Bytes::from("x")), Err(NoMore::Idle), Err(NoMore::Idle)];
        assert_eq!(all(CancellationToken::new(), silent).await, expected);
        let stopping = CancellationToken::new();
        stopping.cancel();
        assert_eq!(all(stopping, Body::from("x")).await[0], Err(NoMore::Stopping));
        let broken = Body::from_stream(stream::iter([Err::<Bytes, _>(io::Error::other("gone"))]));
        assert_eq!(all(CancellationToken::new(), broken).await, [Err(NoMore::BrokenOff)]);
    }
}
