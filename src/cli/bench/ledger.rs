//! `vestnik bench ledger`: what one message costs in the books, stage by stage.
//!
//! Each stage is measured alone, several calls in flight, and then all of them at once on as many rows again. The
//! stages are those of the hot path: accept, take, open, record.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use secrecy::SecretString;
use serde::Serialize;

use super::measure::{
    Latencies, cpu_of_backends, cpu_of_server, fdatasync_times, millis, own_cpu, own_memory_bytes, table,
};
use super::scratch::Scratch;
use crate::cli::{Ended, Printer};
use crate::domain::{
    AccountId, BatchId, Channel, Clock, Epoch, IdSource, Mode, OutcomeClass, Policy, Priority, RecordIds, SystemClock,
    TemplateId, TemplateVersion,
};
use crate::store::postgres::probe::Probe;
use crate::store::{
    self, Accept, Begin, Claim, Close, Handed, HandedChunk, LedgerOptions, NewEpoch, NewNotification, Next, Open,
    Opened, Record, Store, Stream, TakeDue, TakeFrom, Urgency,
};

#[derive(Debug, Args)]
pub struct LedgerArgs {
    /// Notifications, for the stages one by one and again for all at once.
    #[arg(long, default_value_t = 40_000)]
    rows: usize,
    /// Notifications in one call.
    #[arg(long, default_value_t = 500)]
    batch: usize,
    /// Calls of a stage that are under way at once.
    #[arg(long, default_value_t = 4)]
    in_flight: usize,
    /// A PostgreSQL server: a database is made on it, and dropped.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<SecretString>,
    /// Where the SQLite ledger is made, and removed.
    #[arg(long, default_value = ".")]
    data_dir: PathBuf,
    /// Leaves SQLite out.
    #[arg(long, requires = "database_url")]
    no_sqlite: bool,
}

/// All of it, as `--json` prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    rows: usize,
    batch: usize,
    in_flight: usize,
    fdatasync_p50_ms: f64,
    fdatasync_p99_ms: f64,
    memory_mb: f64,
    stages: Vec<Stage>,
    postgres: Option<PostgresFigures>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stage {
    engine: &'static str,
    stage: &'static str,
    rows: usize,
    rows_per_second: f64,
    call_p50_ms: f64,
    call_p99_ms: f64,
    /// All per message.
    own_cpu_us: f64,
    postgres_cpu_us: Option<f64>,
    /// Only of the processes that served us.
    backend_cpu_us: Option<f64>,
    wal_bytes: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PostgresFigures {
    updates_of_work: i64,
    hot_share: f64,
    /// Of the whole run: not 0 if a checkpoint, or another user of the server, came in between.
    full_page_images: i64,
    bytes_per_message: f64,
}

pub async fn run(args: LedgerArgs, printer: Printer) -> anyhow::Result<Ended> {
    ensure!(args.rows > 0 && args.batch > 0 && args.in_flight > 0, "rows, batch and in-flight are at least 1");
    fs::create_dir_all(&args.data_dir).with_context(|| format!("making {}", args.data_dir.display()))?;
    let disk = fdatasync_times(&args.data_dir).context("measuring the disk")?;
    let mut stages = Vec::new();
    if !args.no_sqlite {
        stages.extend(on_sqlite(&args).await.context("measuring SQLite")?);
    }
    let mut postgres = None;
    if let Some(url) = &args.database_url {
        let (figures, more) = on_postgres(&args, url).await.context("measuring PostgreSQL")?;
        postgres = Some(figures);
        stages.extend(more);
    }
    let report = Report {
        rows: args.rows,
        batch: args.batch,
        in_flight: args.in_flight,
        fdatasync_p50_ms: millis(disk.percentile(0.5)),
        fdatasync_p99_ms: millis(disk.percentile(0.99)),
        memory_mb: own_memory_bytes() as f64 / 1e6,
        stages,
        postgres,
    };
    printer.either(&report, || in_words(&report))?;
    Ok(Ended::Well)
}

fn in_words(report: &Report) -> String {
    let figure = |value: Option<f64>| value.map_or_else(|| "–".into(), |value| format!("{value:.1}"));
    let row = |stage: &Stage| {
        vec![
            format!("{} {}", stage.engine, stage.stage),
            format!("{:.0}", stage.rows_per_second),
            format!("{:.1}", stage.call_p50_ms),
            format!("{:.1}", stage.call_p99_ms),
            format!("{:.1}", stage.own_cpu_us),
            figure(stage.postgres_cpu_us),
            figure(stage.backend_cpu_us),
            stage.wal_bytes.map_or_else(|| "–".into(), |bytes| format!("{bytes:.0}")),
        ]
    };
    let mut text = format!(
        "{} messages in calls of {}, {} calls in flight; per message:\n",
        report.rows, report.batch, report.in_flight
    );
    text.push_str(&table(
        &["stage", "rows/s", "call p50 ms", "p99 ms", "own CPU µs", "PG CPU µs", "its backends µs", "WAL B"],
        &report.stages.iter().map(row).collect::<Vec<_>>(),
    ));
    if let Some(postgres) = &report.postgres {
        text.push_str(&format!(
            "PostgreSQL: {:.1} % of {} updates of work stayed on their page (HOT); {:.0} B on disk per message; {} \
             full-page images. A checkpoint was made before the first stage, so that images of pages that were there \
             before do not count; CPU and WAL are the whole server's, whoever else uses it.\n",
            postgres.hot_share * 100.0,
            postgres.updates_of_work,
            postgres.bytes_per_message,
            postgres.full_page_images,
        ));
    }
    text.push_str(&format!(
        "fdatasync of the data folder: p50 {:.1} ms, p99 {:.1} ms. Memory at the end: {:.0} MB\n",
        report.fdatasync_p50_ms, report.fdatasync_p99_ms, report.memory_mb
    ));
    text
}

fn options(data_dir: PathBuf, database_url: Option<SecretString>) -> LedgerOptions {
    LedgerOptions {
        database_url,
        data_dir,
        pool_size: 8,
        call_timeout: Duration::from_secs(60),
        sqlite_normal: false,
        lease: Duration::from_secs(3600),
    }
}

async fn on_sqlite(args: &LedgerArgs) -> anyhow::Result<Vec<Stage>> {
    let folder = Scratch::make(&args.data_dir)?;
    let clock = Arc::new(SystemClock);
    let store = store::connect(&options(folder.path().to_owned(), None), clock).await?;
    Subject { store, server: None }.stages(args).await
}

async fn on_postgres(args: &LedgerArgs, url: &SecretString) -> anyhow::Result<(PostgresFigures, Vec<Stage>)> {
    let server = Probe::new(url)?;
    let name = format!("vestnik_bench_{}", std::process::id());
    let scratch = server.create_database(url, &name).await?;
    let measured = tokio::select! {
        measured = in_database(args, &scratch, &name) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped")),
    };
    server.drop_database(&name).await?;
    measured
}

async fn in_database(
    args: &LedgerArgs,
    scratch: &SecretString,
    name: &str,
) -> anyhow::Result<(PostgresFigures, Vec<Stage>)> {
    let store = store::connect(&options(args.data_dir.clone(), Some(scratch.clone())), Arc::new(SystemClock)).await?;
    let probe = Probe::new(scratch)?;
    probe.checkpoint().await.context("a checkpoint needs a superuser")?;
    let images_before = probe.full_page_images().await?;
    let subject = Subject { store, server: Some(Server { probe, database: name.into() }) };
    let stages = subject.stages(args).await?;
    let probe = subject.server.as_ref().map(|server| &server.probe).context("it is there")?;
    let full_page_images = probe.full_page_images().await? - images_before;
    let mut bytes = 0;
    for table in ["notifications", "work", "attempts", "due", "opens", "counters"] {
        bytes += probe.size_bytes(table).await?;
    }
    // Its processes tell their figures when they end.
    let probe = Probe::new(scratch)?;
    drop(subject);
    let (mut updates, mut hot) = (0, 0);
    for _ in 0..50 {
        (updates, hot) = probe.updates("work").await?;
        // Taken, opened and recorded once each, in two runs.
        if updates >= i64::try_from(args.rows * 6)? {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let figures = PostgresFigures {
        updates_of_work: updates,
        hot_share: hot as f64 / (updates.max(1)) as f64,
        full_page_images,
        bytes_per_message: bytes as f64 / (args.rows * 2) as f64,
    };
    Ok((figures, stages))
}

struct Server {
    probe: Probe,
    database: String,
}

/// The ledger that is measured, and the server behind it.
struct Subject {
    store: Arc<dyn Store>,
    server: Option<Server>,
}

/// What has been used up so far.
struct Used {
    at: Instant,
    own: Duration,
    postgres: Duration,
    backends: Duration,
    wal_bytes: i64,
}

impl Subject {
    async fn used(&self) -> anyhow::Result<Used> {
        let (mut postgres, mut backends, mut wal_bytes) = Default::default();
        if let Some(server) = &self.server {
            postgres = cpu_of_server(&server.database).context("PostgreSQL is not on this machine")?;
            backends = cpu_of_backends(&server.database);
            wal_bytes = server.probe.wal_bytes().await?;
        }
        Ok(Used { at: Instant::now(), own: own_cpu(), postgres, backends, wal_bytes })
    }

    async fn stage(&self, stage: &'static str, rows: usize, before: &Used, calls: &Latencies) -> anyhow::Result<Stage> {
        let took = before.at.elapsed();
        let after = self.used().await?;
        let per_message = |duration: Duration| duration.as_secs_f64() * 1e6 / rows as f64;
        let on_server = |value: f64| self.server.as_ref().map(|_| value);
        Ok(Stage {
            engine: self.store.engine(),
            stage,
            rows,
            rows_per_second: rows as f64 / took.as_secs_f64(),
            call_p50_ms: millis(calls.percentile(0.5)),
            call_p99_ms: millis(calls.percentile(0.99)),
            own_cpu_us: per_message(after.own.saturating_sub(before.own)),
            postgres_cpu_us: on_server(per_message(after.postgres.saturating_sub(before.postgres))),
            backend_cpu_us: on_server(per_message(after.backends.saturating_sub(before.backends))),
            wal_bytes: on_server((after.wal_bytes - before.wal_bytes) as f64 / rows as f64),
        })
    }

    async fn stages(&self, args: &LedgerArgs) -> anyhow::Result<Vec<Stage>> {
        let epoch = self
            .store
            .begin_epoch(NewEpoch { name: "bench".into(), channels: BTreeSet::from([Channel::WhatsApp]) })
            .await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ids = IdSource::new(Arc::clone(&clock));
        let campaign =
            Campaign { batch: ids.batch(), template: TemplateId::parse("promo-campaign").expect("a plain name") };
        let work = Work { store: &self.store, epoch, in_flight: args.in_flight, campaign };
        let mut stages = Vec::new();

        // What a caller spends on making up notifications is not the ledger's.
        let accepts = work.campaign.requests(args, epoch, &ids, &clock);
        let before = self.used().await?;
        let calls = work.accept(accepts).await?;
        stages.push(self.stage("accept", args.rows, &before, &calls).await?);

        let before = self.used().await?;
        let (claims, calls) = work.take(args.rows).await?;
        stages.push(self.stage("take", args.rows, &before, &calls).await?);

        let before = self.used().await?;
        let (opened, calls) = work.open(&claims, args.batch).await?;
        stages.push(self.stage("open", args.rows, &before, &calls).await?);
        ensure!(opened.len() == args.rows, "{} of {} were opened", opened.len(), args.rows);

        let before = self.used().await?;
        let calls = work.record(&opened, args.batch).await?;
        stages.push(self.stage("record", args.rows, &before, &calls).await?);
        stages.push(in_total(&stages));

        let accepts = work.campaign.requests(args, epoch, &ids, &clock);
        let before = self.used().await?;
        let calls = work.all_at_once(accepts, args).await?;
        stages.push(self.stage("all at once", args.rows, &before, &calls).await?);

        let before = self.used().await?;
        let mut calls = Latencies::default();
        let report = self.store.verify().await?;
        calls.add(before.at.elapsed());
        stages.push(self.stage("verify", args.rows * 2, &before, &calls).await?);
        ensure!(report.balances(), "the books do not balance: {:?}", report.findings);
        self.store.end_epoch(epoch).await?;
        Ok(stages)
    }
}

struct Work<'a> {
    store: &'a Arc<dyn Store>,
    epoch: Epoch,
    in_flight: usize,
    campaign: Campaign,
}

impl Work<'_> {
    /// Runs the calls, several in flight; their answers and how long each took.
    async fn timed<T>(
        &self,
        calls: impl IntoIterator<Item = impl Future<Output = Result<T, store::StoreError>>>,
    ) -> anyhow::Result<(Vec<T>, Latencies)> {
        let timed = calls.into_iter().map(|call| async {
            let started = Instant::now();
            call.await.map(|answer| (answer, started.elapsed()))
        });
        let answers: Vec<_> = stream::iter(timed).buffer_unordered(self.in_flight).try_collect().await?;
        let mut latencies = Latencies::default();
        let answers = answers.into_iter().map(|(answer, took)| {
            latencies.add(took);
            answer
        });
        let answers = answers.collect();
        Ok((answers, latencies))
    }

    async fn accept(&self, accepts: Vec<Accept>) -> anyhow::Result<Latencies> {
        let (_, latencies) = self.timed(accepts.into_iter().map(|accept| self.store.accept(accept))).await?;
        Ok(latencies)
    }

    async fn take(&self, rows: usize) -> anyhow::Result<(Vec<Claim>, Latencies)> {
        let (mut taken, mut latencies, mut left) = (Vec::new(), Latencies::default(), rows);
        while left > 0 {
            let started = Instant::now();
            let chunks = self.store.take_due(self.some_of_it(2_000)).await?;
            latencies.add(started.elapsed());
            ensure!(!chunks.is_empty(), "{left} are not due");
            for chunk in chunks {
                left -= chunk.handed.len();
                taken.extend(claims_of(&chunk));
            }
        }
        Ok((taken, latencies))
    }

    /// So many of the campaign, from its beginning.
    fn some_of_it(&self, limit: u32) -> TakeDue {
        let stream = Stream { priority: Priority::Normal, account: AccountId(1), batch: Some(self.campaign.batch) };
        TakeDue { epoch: self.epoch, from: vec![TakeFrom { stream, limit }], early: false }
    }

    async fn open(&self, claims: &[Claim], batch: usize) -> anyhow::Result<(Vec<Opened>, Latencies)> {
        let calls = claims
            .chunks(batch)
            .map(|claims| self.store.open(Open { epoch: self.epoch, claims: claims.into(), urgency: Urgency::Bulk }));
        let (opened, latencies) = self.timed(calls).await?;
        Ok((opened.into_iter().flatten().collect(), latencies))
    }

    async fn record(&self, opened: &[Opened], batch: usize) -> anyhow::Result<Latencies> {
        let calls = opened.chunks(batch).map(|opened| {
            let closes = opened.iter().map(|opened| self.campaign.close_of(opened)).collect();
            self.store.record(Record { epoch: self.epoch, closes, urgency: Urgency::Bulk })
        });
        let (closed, latencies) = self.timed(calls).await?;
        ensure!(closed.iter().flatten().all(|closed| *closed), "some were not closed");
        Ok(latencies)
    }

    /// Accepts on one side, while the other takes, opens and records chunk by chunk, several chunks in flight.
    async fn all_at_once(&self, accepts: Vec<Accept>, args: &LedgerArgs) -> anyhow::Result<Latencies> {
        let accepting = self.accept(accepts);
        let sending = async {
            let (mut left, mut latencies) = (args.rows, Latencies::default());
            // Ends by itself: a call that is given up would close its connection.
            let taking = stream::unfold(args.rows, |left| async move {
                if left == 0 {
                    return None;
                }
                let chunks = self.store.take_due(self.some_of_it(1_000)).await;
                let taken = chunks.iter().flatten().map(|chunk| chunk.handed.len()).sum::<usize>();
                if taken == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Some((chunks, left - taken))
            });
            let chunks = taking.map(|chunks| {
                stream::iter(
                    chunks.map_or_else(|error| vec![Err(error)], |chunks| chunks.into_iter().map(Ok).collect()),
                )
            });
            let sent = chunks
                .flatten()
                .map(|chunk| async move {
                    let chunk = chunk?;
                    let started = Instant::now();
                    let claims: Vec<_> = claims_of(&chunk).collect();
                    let (opened, _) = self.open(&claims, args.batch.max(claims.len())).await?;
                    self.record(&opened, args.batch).await?;
                    anyhow::Ok((opened.len(), started.elapsed()))
                })
                .buffer_unordered(self.in_flight);
            let mut sent = std::pin::pin!(sent);
            while let Some(sent) = sent.next().await {
                let (count, took) = sent?;
                left -= count;
                latencies.add(took);
            }
            ensure!(left == 0, "{left} were not sent");
            Ok(latencies)
        };
        let (_, latencies) = futures::try_join!(accepting, sending)?;
        Ok(latencies)
    }
}

fn claims_of(chunk: &HandedChunk) -> impl Iterator<Item = Claim> {
    let of_chunk = |handed: &Handed| Claim { id: handed.id, generation: handed.generation, chunk: chunk.id };
    chunk.handed.iter().map(of_chunk)
}

/// What is asked for and how it ends.
struct Campaign {
    batch: BatchId,
    template: TemplateId,
}

impl Campaign {
    /// All of it, in calls of one batch each.
    fn requests(&self, args: &LedgerArgs, epoch: Epoch, ids: &IdSource, clock: &Arc<dyn Clock>) -> Vec<Accept> {
        let new = |n: usize| NewNotification {
            id: ids.notification(),
            batch: Some(self.batch),
            channel: Channel::WhatsApp,
            account: AccountId(1),
            template: Some((self.template.clone(), TemplateVersion(1))),
            text: None,
            recipient: format!("+79{n:09}"),
            records: RecordIds { contact_id: Some(format!("contact-{n}")), ..RecordIds::default() },
            data: Some(format!(
                r#"{{"firstName":"Екатерина","orderId":{n},"amount":"12 300 ₽","link":"https://shop.example/orders/{n}"}}"#
            )),
            metadata: None,
            external_id: None,
            priority: Priority::Normal,
            policy: Policy::AtMostOnce,
            mode: Mode::Async,
            max_retries: 3,
            scheduled_at: None,
            not_after: None,
            created_at: clock.now(),
            begin: Begin::Due { at: clock.now(), scheduled: false },
        };
        let numbers: Vec<_> = (0..args.rows).collect();
        let calls = numbers.chunks(args.batch).map(|numbers| {
            // One time for one call: what becomes due together shares chunks.
            let at = clock.now();
            let due = |n: &usize| NewNotification { begin: Begin::Due { at, scheduled: false }, ..new(*n) };
            let notifications = numbers.iter().map(due).collect();
            Accept { epoch, notifications, key: None, urgency: Urgency::Bulk, unseen: false }
        });
        calls.collect()
    }

    /// Sent, as WhatsApp answers.
    fn close_of(&self, opened: &Opened) -> Close {
        Close {
            id: opened.id,
            batch: Some(self.batch),
            account: AccountId(1),
            channel: Channel::WhatsApp,
            priority: Priority::Normal,
            recipient: String::new(),
            template: Some((self.template.clone(), TemplateVersion(1))),
            attempt: opened.attempt,
            opened_at: opened.opened_at,
            closed_at: opened.opened_at,
            class: OutcomeClass::Accepted,
            cause: "accepted",
            provider_message_id: Some(format!("wamid.{}", opened.id.0.simple())),
            error: None,
            text_hash: Some([7; 32]),
            flagged: false,
            suppress: None,
            next: Next::Sent,
        }
    }
}

/// The stages one after the other.
fn in_total(stages: &[Stage]) -> Stage {
    let sum = |pick: fn(&Stage) -> f64| stages.iter().map(pick).sum::<f64>();
    let sum_of_some = |pick: fn(&Stage) -> Option<f64>| stages.iter().map(pick).sum::<Option<f64>>();
    Stage {
        engine: stages[0].engine,
        stage: "in total",
        rows: stages[0].rows,
        rows_per_second: 1.0 / sum(|stage| 1.0 / stage.rows_per_second),
        call_p50_ms: 0.0,
        call_p99_ms: 0.0,
        own_cpu_us: sum(|stage| stage.own_cpu_us),
        postgres_cpu_us: sum_of_some(|stage| stage.postgres_cpu_us),
        backend_cpu_us: sum_of_some(|stage| stage.backend_cpu_us),
        wal_bytes: sum_of_some(|stage| stage.wal_bytes),
    }
}
