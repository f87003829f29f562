//! What the queue's measurements need: the service and the simulator as processes of their own, a ledger made for it, and
//! what each of them used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::measure::{
    Latencies, as_float, cpu_of, cpu_of_program, cpu_of_server, fdatasync_times, forget_memory_peak, memory_of,
    memory_peak_of, mib, millis,
};
use super::process::Process;
use super::scratch::Scratch;
use crate::channels::HttpClient;
use crate::channels::http_client::{HttpLimits, HttpRequest};
use crate::domain::SystemClock;
use crate::simulator::whatsapp;
use crate::store::postgres::probe::Probe;
use crate::store::{self, LedgerOptions, VerifyReport};

/// An answer to a bulk call of 100,000 has its ids in it.
const LIMITS: HttpLimits =
    HttpLimits { connect: Duration::from_secs(5), total: Duration::from_secs(120), body_bytes: 16 * 1024 * 1024 };
/// The template of all that is sent.
pub(super) const TEMPLATE: &str = "promo-campaign";
/// Records in one file of an import.
const IMPORTED_AT_ONCE: u64 = 25_000;
/// A measurement in which nothing moves any more for so long has failed.
const STUCK: Duration = Duration::from_secs(60);

/// Where it is measured.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Places {
    /// Which of them: all that are given, if absent.
    #[arg(long, value_delimiter = ',')]
    on: Vec<Place>,
    /// A PostgreSQL server to measure on as well: a database is made on it, and dropped.
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<SecretString>,
    /// A RabbitMQ to measure through as well, beside PostgreSQL: a virtual host of its own, of which the queues stay.
    #[arg(long, value_name = "URL", env = "RABBITMQ_URL", hide_env_values = true)]
    rabbitmq_url: Option<SecretString>,
    /// What kind of queues to make there.
    #[arg(long, default_value = "quorum", value_parser = ["quorum", "classic"])]
    queue_type: String,
    /// Where the scratch ledger and the disk's probe go; removed afterwards.
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_dir: PathBuf,
}

/// A ledger, and what carries its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Place {
    Sqlite,
    Postgres,
    /// PostgreSQL, and the broker between.
    Rabbitmq,
}

impl Place {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Place::Sqlite => "sqlite",
            Place::Postgres => "postgres",
            Place::Rabbitmq => "postgres + rabbitmq",
        }
    }
}

impl Places {
    pub(super) fn chosen(&self) -> anyhow::Result<Vec<Place>> {
        let given = |place: &Place| match place {
            Place::Sqlite => true,
            Place::Postgres => self.database_url.is_some(),
            Place::Rabbitmq => self.database_url.is_some() && self.rabbitmq_url.is_some(),
        };
        let all = [Place::Sqlite, Place::Postgres, Place::Rabbitmq];
        if self.on.is_empty() {
            return Ok(all.into_iter().filter(given).collect());
        }
        ensure!(
            self.on.iter().all(given),
            "postgres needs --database-url (DATABASE_URL), and rabbitmq --rabbitmq-url (RABBITMQ_URL) as well"
        );
        Ok(self.on.clone())
    }
}

/// The service at work on a ledger of its own.
pub(super) struct Stage {
    simulator: Process,
    server: Process,
    client: HttpClient,
    scratch: Scratch,
    database: Option<Database>,
}

struct Database {
    probe: Probe,
    name: String,
    url: SecretString,
}

/// What was used up until a moment.
pub(super) struct Used {
    pub(super) at: Instant,
    own: Duration,
    simulator: Duration,
    postgres: Duration,
    broker: Duration,
    wal_bytes: i64,
    disk: Latencies,
}

/// Per message.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cost {
    pub(super) own_cpu_us: f64,
    pub(super) simulator_cpu_us: f64,
    pub(super) postgres_cpu_us: f64,
    pub(super) broker_cpu_us: f64,
    pub(super) wal_bytes: f64,
    pub(super) fdatasync_p50_ms: f64,
    pub(super) fdatasync_p99_ms: f64,
}

impl Cost {
    pub(super) const HEAD: [&'static str; 7] =
        ["own CPU µs", "simulator µs", "PostgreSQL µs", "broker µs", "WAL B", "fdatasync p50 ms", "p99 ms"];

    pub(super) fn cells(&self) -> Vec<String> {
        vec![
            format!("{:.0}", self.own_cpu_us),
            format!("{:.0}", self.simulator_cpu_us),
            format!("{:.0}", self.postgres_cpu_us),
            format!("{:.0}", self.broker_cpu_us),
            format!("{:.0}", self.wal_bytes),
            format!("{:.2}", self.fdatasync_p50_ms),
            format!("{:.2}", self.fdatasync_p99_ms),
        ]
    }
}

impl Stage {
    /// Starts both, with the template in place.
    pub(super) async fn start(places: &Places, place: Place) -> anyhow::Result<Self> {
        let scratch = Scratch::make(&places.data_dir)?;
        let database = match (place, &places.database_url) {
            (Place::Postgres | Place::Rabbitmq, Some(url)) => Some(Database::make(url).await?),
            _ => None,
        };
        let simulator =
            Process::start("simulator", &["--listen", "127.0.0.1:0", "--no-smtp"], &BTreeMap::new()).await?;
        let data_dir = scratch.path().display().to_string();
        let mut settings = BTreeMap::from([
            ("VESTNIK__WHATSAPP__MAIN__BASE_URL", simulator.url.as_str()),
            ("VESTNIK__WHATSAPP__MAIN__TOKEN", whatsapp::DEFAULT_TOKEN),
            ("VESTNIK__WHATSAPP__MAIN__PHONE_NUMBER_ID", whatsapp::DEFAULT_PHONE_NUMBER_ID),
            ("VESTNIK__WHATSAPP__MAIN__LIMITS__PER_SECOND", "1000000"),
            ("VESTNIK__WHATSAPP__MAIN__LIMITS__BURST", "1000000"),
            ("VESTNIK__LOG__LEVEL", "warn"),
        ]);
        if let Some(database) = &database {
            settings.insert("DATABASE_URL", database.url.expose_secret());
        }
        if let (Place::Rabbitmq, Some(url)) = (place, &places.rabbitmq_url) {
            settings.insert("RABBITMQ_URL", url.expose_secret());
            settings.insert("VESTNIK__QUEUE__QUEUE_TYPE", &places.queue_type);
        }
        let server = Process::start("serve", &["--listen", "127.0.0.1:0", "--data-dir", &data_dir], &settings).await?;
        let stage = Stage { simulator, server, client: HttpClient::new(), scratch, database };
        let text = "{{ contact.name }}, для вас скидка {{ discount }} % до конца недели: https://example.com/promo";
        let template = json!({ "text": text });
        stage.call(Method::PUT, &format!("/v1/templates/{TEMPLATE}"), template.to_string().into()).await?;
        Ok(stage)
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, body.to_string().into()).await
    }

    pub(super) async fn call(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Value> {
        self.request(&self.server.url, method, path, "application/json", body).await
    }

    async fn request(
        &self,
        url: &str,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> anyhow::Result<Value> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        let request = HttpRequest { method, uri: format!("{url}{path}").parse()?, headers, body };
        let answer = self.client.send(request, &LIMITS).await.with_context(|| format!("asking {path}"))?;
        ensure!(
            answer.status.is_success(),
            "{path} was answered {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        answer.json().with_context(|| format!("{path} was not answered in JSON"))
    }

    /// Contacts `c<from>` and so on, each with a number of its own.
    pub(super) async fn import_contacts(&self, contacts: std::ops::Range<u64>) -> anyhow::Result<()> {
        let mut from = contacts.start;
        while from < contacts.end {
            let to = contacts.end.min(from + IMPORTED_AT_ONCE);
            let file: String = (from..to)
                .map(|n| format!("{}\n", json!({ "id": contact(n), "name": "Анна", "phone": phone(n) })))
                .collect();
            let url = &self.server.url;
            let report =
                self.request(url, Method::POST, "/v1/contacts/import", "application/x-ndjson", file.into()).await?;
            ensure!(report["rejected"] == 0, "an import was rejected: {report}");
            from = to;
        }
        Ok(())
    }

    /// One bulk call to these contacts. The id of its batch.
    pub(super) async fn bulk(
        &self,
        contacts: std::ops::Range<u64>,
        priority: &str,
        scheduled_at: Option<jiff::Timestamp>,
    ) -> anyhow::Result<String> {
        let count = contacts.end - contacts.start;
        let ids: Vec<String> = contacts.map(contact).collect();
        let body = json!({
            "channel": "whatsapp", "templateId": TEMPLATE, "contactIds": ids, "priority": priority,
            "data": { "discount": 15 }, "scheduledAt": scheduled_at,
        });
        let answer = self.post("/v1/notifications/bulk", &body).await?;
        ensure!(answer["accepted"] == count, "not all were accepted: {} of {count}", answer["accepted"]);
        Ok(answer["batchId"].as_str().context("a batch has an id")?.to_owned())
    }

    /// How many messages the simulator took.
    pub(super) async fn taken(&self) -> anyhow::Result<u64> {
        let stats = self.simulator("/_sim/stats").await?;
        stats["taken"].as_u64().context("the simulator counts")
    }

    pub(super) async fn simulator(&self, path: &str) -> anyhow::Result<Value> {
        self.request(&self.simulator.url, Method::GET, path, "application/json", Bytes::new()).await
    }

    /// Waits until the simulator took so many.
    pub(super) async fn until_taken(&self, count: u64) -> anyhow::Result<()> {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let taken = self.taken().await?;
            if taken >= count {
                return Ok(());
            }
            if taken > last {
                (last, moved) = (taken, Instant::now());
            }
            ensure!(moved.elapsed() < STUCK, "nothing was sent for {STUCK:?}, after {taken} of {count} messages");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until nothing of these batches is on its way any more.
    pub(super) async fn until_finished(&self, batches: &[String]) -> anyhow::Result<()> {
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        let begun = Instant::now();
        for batch in batches {
            loop {
                let found = self.call(Method::GET, &format!("/v1/batches/{batch}"), Bytes::new()).await?;
                if found["inFlight"] == 0 {
                    break;
                }
                ensure!(begun.elapsed() < STUCK, "a batch is not over: {found}");
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    pub(super) async fn used(&self) -> anyhow::Result<Used> {
        let disk = fdatasync_times(self.scratch.path())?;
        let (mut postgres, mut wal_bytes) = (Duration::ZERO, 0);
        if let Some(database) = &self.database {
            postgres = cpu_of_server(&database.name).unwrap_or_default();
            wal_bytes = database.probe.wal_bytes().await?;
        }
        Ok(Used {
            at: Instant::now(),
            own: cpu_of(self.server.id()?),
            simulator: cpu_of(self.simulator.id()?),
            postgres,
            broker: cpu_of_program("beam.smp"),
            wal_bytes,
            disk,
        })
    }

    /// What `messages` cost since `before`, each.
    pub(super) async fn cost(&self, before: Used, messages: u64) -> anyhow::Result<Cost> {
        let after = self.used().await?;
        let mut disk = before.disk;
        disk.merge(after.disk);
        let each =
            |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / as_float(messages);
        Ok(Cost {
            own_cpu_us: each(before.own, after.own),
            simulator_cpu_us: each(before.simulator, after.simulator),
            postgres_cpu_us: each(before.postgres, after.postgres),
            broker_cpu_us: each(before.broker, after.broker),
            wal_bytes: (after.wal_bytes - before.wal_bytes) as f64 / as_float(messages),
            fdatasync_p50_ms: millis(disk.percentile(0.5)),
            fdatasync_p99_ms: millis(disk.percentile(0.99)),
        })
    }

    /// From here on the server's peak of memory counts.
    pub(super) fn forget_memory_peak(&self) -> anyhow::Result<()> {
        forget_memory_peak(self.server.id()?).context("forgetting the peak of memory")
    }

    pub(super) fn memory_peak_mib(&self) -> anyhow::Result<f64> {
        Ok(mib(memory_peak_of(self.server.id()?)))
    }

    pub(super) fn memory_mib(&self) -> anyhow::Result<f64> {
        Ok(mib(memory_of(self.server.id()?)))
    }

    /// Stops the service, and checks that its books balance and that the provider took what they call sent.
    pub(super) async fn end(self) -> anyhow::Result<VerifyReport> {
        let taken = self.taken().await?;
        self.server.stop().await?;
        self.simulator.stop().await?;
        let verified = verify(self.scratch.path(), self.database.as_ref()).await;
        if let Some(database) = self.database {
            database.remove().await?;
        }
        let report = verified?;
        ensure!(report.balances(), "the books do not balance: {:?}", report.findings);
        let sent = u64::try_from(report.sent + report.delivered + report.read)?;
        ensure!(sent == taken, "the simulator took {taken} messages, and the books say that {sent} were sent");
        Ok(report)
    }
}

async fn verify(data_dir: &Path, database: Option<&Database>) -> anyhow::Result<VerifyReport> {
    let options = LedgerOptions {
        database_url: database.map(|database| database.url.clone()),
        data_dir: data_dir.to_owned(),
        pool_size: 2,
        call_timeout: Duration::from_secs(120),
        sqlite_normal: false,
        lease: Duration::from_secs(60),
    };
    Ok(store::connect_read_only(&options, Arc::new(SystemClock)).await?.verify().await?)
}

impl Database {
    async fn make(url: &SecretString) -> anyhow::Result<Self> {
        let name = format!("vestnik_bench_{}", std::process::id());
        let server = Probe::new(url)?;
        server.drop_database(&name).await?;
        let url = server.create_database(url, &name).await?;
        Ok(Database { probe: server, name, url })
    }

    async fn remove(self) -> anyhow::Result<()> {
        self.probe.drop_database(&self.name).await.context("dropping the database of the measurement")
    }
}

/// In one line: what the books say in the end.
pub(super) fn books(report: &VerifyReport) -> String {
    format!(
        "the books balance: {} accepted, {} sent as the simulator took them, {} in flight, {} invariants hold",
        report.accepted, report.sent, report.in_flight, report.checked
    )
}

/// The id of a contact.
pub(super) fn contact(n: u64) -> String {
    format!("c{n}")
}

/// A valid Russian mobile number of its own for every contact.
pub(super) fn phone(n: u64) -> String {
    format!("+7999{:07}", n % 10_000_000)
}
