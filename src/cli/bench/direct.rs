//! `vestnik bench direct`: direct sends through the whole service, over real HTTP on both sides.
//!
//! Server and simulator are processes of their own, so that each one's CPU is told apart. The simulator alone is
//! measured first: what the service adds is the difference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use futures::future::join_all;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use serde::Serialize;
use serde_json::json;

use super::measure::{Latencies, as_float, cpu_of, cpu_of_backends, fdatasync_times, memory_of, mib, millis, table};
use super::process::Process;
use super::scratch::Scratch;
use crate::channels::HttpClient;
use crate::channels::http_client::{HttpLimits, HttpRequest};
use crate::cli::{Ended, Printer};
use crate::simulator::{telegram, whatsapp};

/// No request of a measurement takes longer.
const LIMITS: HttpLimits =
    HttpLimits { connect: Duration::from_secs(5), total: Duration::from_secs(30), body_bytes: 64 * 1024 };

/// Direct sends: latency, throughput, CPU per message, memory.
#[derive(Debug, clap::Args)]
pub struct DirectArgs {
    /// Sends of each round.
    #[arg(long, default_value_t = 20_000)]
    pub requests: u64,
    /// How many are in flight, round by round.
    #[arg(long, value_delimiter = ',', default_value = "32,256")]
    pub in_flight: Vec<usize>,
    /// Where the scratch ledger and the disk's probe go; removed afterwards.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub data_dir: PathBuf,
    /// Measure on this PostgreSQL instead of the embedded ledger: an empty database made for it.
    #[arg(long, value_name = "URL", env = "VESTNIK_BENCH_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
}

/// One round.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Round {
    target: String,
    in_flight: usize,
    requests: u64,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    service_cpu_us: f64,
    simulator_cpu_us: f64,
    postgres_cpu_us: f64,
    memory_mib: f64,
    fdatasync_p50_ms: f64,
    fdatasync_p99_ms: f64,
}

pub async fn run(args: DirectArgs, printer: Printer) -> anyhow::Result<Ended> {
    ensure!(args.requests > 0 && args.in_flight.iter().all(|n| *n > 0), "nothing to measure");
    let scratch = Scratch::make(&args.data_dir)?;
    let simulator = Process::start("simulator", &["--listen", "127.0.0.1:0"], &BTreeMap::new()).await?;
    let starting = Instant::now();
    let server = start_server(&args, scratch.path(), &simulator.url).await?;
    let client = HttpClient::new();
    let first = one(&client, &send_request(&server.url, 0)?).await?;
    let start_to_first_answer = starting.elapsed();
    ensure!(first == StatusCode::OK, "the first send was answered {first}");

    let mut rounds = Vec::new();
    for in_flight in &args.in_flight {
        for target in [&simulator, &server] {
            rounds.push(round(&client, target, &simulator, &server, *in_flight, &args, scratch.path()).await?);
        }
    }
    // The allocator gives back what it kept, and the ledger's writer its cache, after a few seconds without work.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let idle = memory_of(server.id()?);
    let summary = json!({
        "rounds": rounds,
        "ledger": if args.database_url.is_some() { "postgres" } else { "sqlite" },
        "idleMemoryMib": mib(idle),
        "startToFirstAnswerMs": millis(start_to_first_answer),
    });
    printer.either(&summary, || {
        format!(
            "{}idle afterwards {:.1} MiB; start to first answer {:.0} ms\nthe service adds p99 {} over the \
             simulator alone\n",
            rounds_in_words(&rounds),
            mib(idle),
            millis(start_to_first_answer),
            rounds
                .chunks(2)
                .map(|pair| format!(
                    "{:.1} ms at {} in flight ({:.1} × fdatasync p99)",
                    pair[1].p99_ms - pair[0].p99_ms,
                    pair[0].in_flight,
                    (pair[1].p99_ms - pair[0].p99_ms) / pair[1].fdatasync_p99_ms.max(0.01)
                ))
                .collect::<Vec<_>>()
                .join(", ")
        )
    })?;
    server.stop().await?;
    simulator.stop().await?;
    Ok(Ended::Well)
}

fn rounds_in_words(rounds: &[Round]) -> String {
    let row = |round: &Round| {
        vec![
            round.target.clone(),
            round.in_flight.to_string(),
            format!("{:.0}", round.per_second),
            format!("{:.2}", round.p50_ms),
            format!("{:.2}", round.p99_ms),
            format!("{:.0}", round.service_cpu_us),
            format!("{:.0}", round.simulator_cpu_us),
            format!("{:.0}", round.postgres_cpu_us),
            format!("{:.0}", round.memory_mib),
            format!("{:.2}", round.fdatasync_p50_ms),
            format!("{:.2}", round.fdatasync_p99_ms),
        ]
    };
    let head = [
        "sends to",
        "in flight",
        "a second",
        "p50 ms",
        "p99 ms",
        "own CPU µs",
        "simulator µs",
        "PG backends µs",
        "own MiB",
        "fdatasync p50 ms",
        "p99 ms",
    ];
    table(&head, &rounds.iter().map(row).collect::<Vec<_>>())
}

/// The database's name in its URL.
fn database_of(url: &str) -> Option<String> {
    let config: hyper::Uri = url.parse().ok()?;
    Some(config.path().trim_start_matches('/').to_owned()).filter(|name| !name.is_empty())
}

/// Sends `requests` to the target, so many in flight all the time.
async fn round(
    client: &HttpClient,
    target: &Process,
    simulator: &Process,
    server: &Process,
    in_flight: usize,
    args: &DirectArgs,
    dir: &Path,
) -> anyhow::Result<Round> {
    let mut disk = fdatasync_times(dir)?;
    let database = args.database_url.as_deref().and_then(database_of);
    let cpu = || -> anyhow::Result<[Duration; 3]> {
        let postgres = database.as_deref().map_or(Duration::ZERO, cpu_of_backends);
        Ok([cpu_of(server.id()?), cpu_of(simulator.id()?), postgres])
    };
    let before = cpu()?;
    let started = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let senders = (0..in_flight).map(|_| {
        let (client, next, target) = (client.clone(), Arc::clone(&next), target);
        async move {
            let mut latencies = Latencies::default();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= args.requests {
                    return Ok::<_, anyhow::Error>(latencies);
                }
                let request = if target.is_simulator() {
                    simulator_request(&target.url, n)
                } else {
                    send_request(&target.url, n)
                }?;
                let sent = Instant::now();
                let status = one(&client, &request).await?;
                latencies.add(sent.elapsed());
                ensure!(status == StatusCode::OK, "a send was answered {status}");
            }
        }
    });
    let mut latencies = Latencies::default();
    for sender in join_all(senders).await {
        latencies.merge(sender?);
    }
    let took = started.elapsed();
    let after = cpu()?;
    disk.merge(fdatasync_times(dir)?);
    let requests = as_float(args.requests);
    let per_send = |place: usize| after[place].saturating_sub(before[place]).as_secs_f64() * 1e6 / requests;
    Ok(Round {
        target: if target.is_simulator() { "simulator".into() } else { "service".into() },
        in_flight,
        requests: args.requests,
        per_second: requests / took.as_secs_f64(),
        p50_ms: millis(latencies.percentile(0.5)),
        p99_ms: millis(latencies.percentile(0.99)),
        service_cpu_us: per_send(0),
        simulator_cpu_us: per_send(1),
        postgres_cpu_us: per_send(2),
        memory_mib: mib(memory_of(server.id()?)),
        fdatasync_p50_ms: millis(disk.percentile(0.5)),
        fdatasync_p99_ms: millis(disk.percentile(0.99)),
    })
}

struct Call {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

async fn one(client: &HttpClient, call: &Call) -> anyhow::Result<StatusCode> {
    let request = HttpRequest {
        method: Method::POST,
        uri: call.uri.clone(),
        headers: call.headers.clone(),
        body: call.body.clone(),
    };
    Ok(client.send(request, &LIMITS).await?.status)
}

/// One direct send over the API.
fn send_request(url: &str, n: u64) -> anyhow::Result<Call> {
    let body = json!({ "channel": "whatsapp", "recipient": phone(n), "text": format!("Заказ {n} готов") });
    call(format!("{url}/v1/notifications"), &body, None)
}

/// What the service would send to the provider for it.
fn simulator_request(url: &str, n: u64) -> anyhow::Result<Call> {
    let body = json!({
        "messaging_product": "whatsapp", "recipient_type": "individual", "to": phone(n).trim_start_matches('+'),
        "type": "text", "text": { "body": format!("Заказ {n} готов"), "preview_url": false }
    });
    let uri = format!("{url}/v23.0/{}/messages", whatsapp::DEFAULT_PHONE_NUMBER_ID);
    call(uri, &body, Some(whatsapp::DEFAULT_TOKEN))
}

fn call(uri: String, body: &serde_json::Value, token: Option<&str>) -> anyhow::Result<Call> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(token) = token {
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}"))?);
    }
    Ok(Call { uri: uri.parse()?, headers, body: body.to_string().into() })
}

/// A valid Russian mobile number of its own for every send.
fn phone(n: u64) -> String {
    format!("+7999{:07}", n % 10_000_000)
}

async fn start_server(args: &DirectArgs, dir: &Path, simulator: &str) -> anyhow::Result<Process> {
    let dir = dir.display().to_string();
    let mut settings = BTreeMap::from([
        ("VESTNIK__WHATSAPP__MAIN__BASE_URL", simulator),
        ("VESTNIK__WHATSAPP__MAIN__TOKEN", whatsapp::DEFAULT_TOKEN),
        ("VESTNIK__WHATSAPP__MAIN__PHONE_NUMBER_ID", whatsapp::DEFAULT_PHONE_NUMBER_ID),
        ("VESTNIK__WHATSAPP__MAIN__LIMITS__PER_SECOND", "1000000"),
        ("VESTNIK__WHATSAPP__MAIN__LIMITS__BURST", "1000000"),
        ("VESTNIK__TELEGRAM__MAIN__BASE_URL", simulator),
        ("VESTNIK__TELEGRAM__MAIN__TOKEN", telegram::DEFAULT_TOKEN),
        ("VESTNIK__DELIVERY__DIRECT_CONCURRENCY", "4096"),
        ("VESTNIK__LOG__LEVEL", "warn"),
    ]);
    if let Some(url) = &args.database_url {
        settings.insert("DATABASE_URL", url);
    }
    Process::start("serve", &["--listen", "127.0.0.1:0", "--data-dir", &dir], &settings).await
}
