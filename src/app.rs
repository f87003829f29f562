//! Composition root: the one place that picks implementations.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;

use crate::channels::{Email, Gateway, HttpClient, Provider, Telegram, Twilio, WhatsApp};
use crate::config::Settings;
use crate::config::limits::LimitSettings;
use crate::delivery::{Delivery, DeliveryOptions, Door, Parts, Roles};
use crate::domain::{Clock, IdSource, PhoneNumber, SystemClock};
use crate::http::{ApiParts, HttpOptions, ImportPlaces, KeyCheck, Pace, hash_key, router, serve};
use crate::lifecycle::{Lifecycle, Stopped};
use crate::queue::{self, Ingress, Queue};
use crate::records::{BuiltIn, RecordSource, Sources, SqlSource};
use crate::server_url::Announced;
use crate::store::{self, LedgerOptions, NewApiKey, Scope, Store};
use crate::telemetry;
use crate::templates::{Engine, Limits};
use crate::upkeep::Upkeep;

/// How long an idempotency key is remembered.
const KEY_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// A bootstrap key shorter than this can be guessed.
const SHORTEST_KEY: usize = 24;

/// The running service.
pub struct App {
    /// Where it answers requests, if it does.
    pub addr: Option<SocketAddr>,
    pub store: Arc<dyn Store>,
    pub delivery: Arc<Delivery>,
    pub queue: Arc<dyn Queue>,
    /// Whether requests need a key.
    pub needs_key: bool,
    lifecycle: Lifecycle,
    grace: Duration,
    /// Where clients on this machine find us; with the embedded ledger only, whose folder is nobody else's.
    announced: Option<Announced>,
}

impl App {
    /// Opens the ledger, settles what an earlier life left, and begins to do its part.
    pub async fn start(settings: &Settings, roles: Roles, lifecycle: Lifecycle) -> anyhow::Result<App> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = store::connect(&ledger_options(settings), Arc::clone(&clock)).await?;
        let ids = IdSource::new(Arc::clone(&clock));
        let needs_key = set_up_keys(settings, &*store, &ids, &*clock).await?;
        let listener = if roles.api { Some(listen(settings, needs_key).await?) } else { None };
        let addr = listener.as_ref().map(TcpListener::local_addr).transpose();
        let addr = addr.context("cannot tell the address listened on")?;
        let records = Arc::new(record_sources(settings, &store)?);
        let elsewhere = Arc::clone(&records);
        lifecycle.tracker().spawn(async move {
            // The log says at start what is wrong with a query, and not with the first message. Nobody waits for it.
            for kind in elsewhere.elsewhere() {
                let _ = elsewhere.fields(kind).await;
            }
        });
        let door = Arc::new(Door::default());
        // What others publish is taken in where the lanes are read, too.
        let ingress = (roles.relay || roles.work).then(|| Arc::<Door>::clone(&door) as Arc<dyn Ingress>);
        let queue = queue::connect(&settings.queue, Arc::clone(&clock), ingress)?;
        // Before anything is counted.
        let metrics = telemetry::figures();
        keep_figures(&metrics, &lifecycle);
        let place = addr.map_or_else(|| "worker".to_owned(), |addr| addr.to_string());
        let delivery = Delivery::start(Parts {
            store: Arc::clone(&store),
            engine: Arc::new(Engine::new(Limits::from(&settings.templates))),
            records: Arc::clone(&records),
            providers: providers(settings)?,
            queue: Arc::clone(&queue),
            roles,
            clock: Arc::clone(&clock),
            options: delivery_options(settings),
            process_name: format!("{place} (pid {})", std::process::id()),
            tracker: lifecycle.tracker().clone(),
            stopping: lifecycle.soft().clone(),
        })
        .await?;
        door.open(&delivery);
        // The numbering plans of all countries are read with the first number: not while somebody waits for it.
        lifecycle.tracker().spawn_blocking(|| PhoneNumber::parse("+79991234567", None).is_ok());
        let upkeep = Upkeep::start(
            Arc::clone(&store),
            Arc::clone(&clock),
            settings.retention,
            lifecycle.tracker(),
            lifecycle.soft(),
        );
        if let (Some(listener), Some(addr)) = (listener, addr) {
            let options = http_options(settings, addr);
            let header_time_limit = options.header_time_limit;
            let (paced, read_by) = (Arc::clone(&store), Arc::clone(&clock));
            let pace = Pace::start(paced, read_by, lifecycle.tracker(), lifecycle.soft());
            let api = Arc::new(ApiParts {
                delivery: Arc::clone(&delivery),
                keys: KeyCheck::new(Arc::clone(&store)),
                store: Arc::clone(&store),
                clock,
                ids,
                options,
                imports: ImportPlaces::default(),
                metrics,
                upkeep,
                pace,
                stopping: lifecycle.soft().clone(),
            });
            let (tracker, soft) = (lifecycle.tracker().clone(), lifecycle.soft().clone());
            lifecycle.tracker().spawn(serve(listener, router(api), header_time_limit, tracker, soft));
        }
        let grace = Duration::from_millis(settings.http.shutdown_grace_ms);
        let announced = match (&settings.ledger.database_url, addr) {
            (None, Some(addr)) => announce(&settings.ledger.data_dir, addr),
            _ => None,
        };
        Ok(App { addr, store, delivery, queue, needs_key, lifecycle, grace, announced })
    }

    /// Runs until told to stop, then settles what runs.
    pub async fn run(self) -> anyhow::Result<Stopped> {
        self.lifecycle.soft().cancelled().await;
        // Nothing new is taken from here on, so nobody is to find us.
        drop(self.announced);
        let stopped = self.lifecycle.stop(self.delivery.settled(), self.grace).await;
        if stopped == Stopped::Finished {
            self.delivery.finish().await.context("could not give back what was in hand")?;
        }
        self.queue.close().await;
        Ok(stopped)
    }
}

/// Requests may come from here on.
async fn listen(settings: &Settings, needs_key: bool) -> anyhow::Result<TcpListener> {
    let listen = settings.http.listen;
    if !needs_key && !listen.ip().is_loopback() {
        bail!(
            "{listen} can be reached by others, and there is no API key yet\nhint: make one with `vestnik keys \
             create`, or set VESTNIK_BOOTSTRAP_KEY, or listen on 127.0.0.1"
        );
    }
    TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}\nhint: --listen or VESTNIK__HTTP__LISTEN takes another address")
    })
}

/// The exporter keeps every sample of a histogram until somebody folds them.
fn keep_figures(metrics: &PrometheusHandle, lifecycle: &Lifecycle) {
    const UPKEEP: Duration = Duration::from_secs(5);
    let (metrics, soft) = (metrics.clone(), lifecycle.soft().clone());
    lifecycle.tracker().spawn(async move {
        while tokio::time::timeout(UPKEEP, soft.cancelled()).await.is_err() {
            metrics.run_upkeep();
        }
    });
}

/// A service that cannot say where it is serves all the same.
fn announce(data_dir: &std::path::Path, addr: SocketAddr) -> Option<Announced> {
    Announced::write(data_dir, addr)
        .inspect_err(|error| tracing::warn!(error = %error, "could not write server.url: clients need VESTNIK_URL"))
        .ok()
}

/// Where the ledger is, by the settings.
pub fn ledger_options(settings: &Settings) -> LedgerOptions {
    LedgerOptions {
        database_url: settings.ledger.database_url.clone(),
        data_dir: settings.ledger.data_dir.clone(),
        pool_size: settings.ledger.pool_size,
        call_timeout: Duration::from_millis(settings.ledger.call_timeout_ms),
        sqlite_normal: settings.ledger.synchronous.is_normal(),
        lease: Duration::from_millis(settings.delivery.lease_ms),
    }
}

fn delivery_options(settings: &Settings) -> DeliveryOptions {
    let delivery = &settings.delivery;
    DeliveryOptions {
        direct_deadline: Duration::from_millis(delivery.direct_deadline_ms),
        auto_threshold: delivery.auto_threshold,
        direct_concurrency: delivery.direct_concurrency,
        concurrency: delivery.concurrency,
        send_deadline: Duration::from_millis(delivery.send_deadline_ms),
        resend_grace: Duration::from_millis(delivery.resend_grace_ms),
        lease: Duration::from_millis(delivery.lease_ms),
        key_lifetime: KEY_LIFETIME,
        default_region: delivery.region(),
        time_zones: settings.time_zones().collect(),
    }
}

fn http_options(settings: &Settings, addr: SocketAddr) -> HttpOptions {
    HttpOptions {
        body_limit_bytes: settings.http.body_limit_bytes,
        header_time_limit: Duration::from_millis(settings.http.header_time_limit_ms),
        request_time_limit: Duration::from_millis(settings.http.request_time_limit_ms),
        is_loopback: addr.ip().is_loopback(),
    }
}

/// Where each kind of record comes from, by the settings.
pub fn record_sources(settings: &Settings, store: &Arc<dyn Store>) -> anyhow::Result<Sources> {
    let sources = Sources::new(Arc::new(BuiltIn::new(Arc::<dyn Store>::clone(store))));
    Ok(match sql_source(settings)? {
        Some(sql) => {
            let kinds: Vec<_> = sql.kinds().collect();
            let sql: Arc<dyn RecordSource> = Arc::new(sql);
            sources.with(kinds, &sql)
        }
        None => sources,
    })
}

/// The CRM's database, if the settings name one.
pub fn sql_source(settings: &Settings) -> anyhow::Result<Option<SqlSource>> {
    let region = settings.delivery.region();
    Ok(settings.records.sql.as_ref().map(|sql| SqlSource::new(sql, region)).transpose()?)
}

/// Every account of the settings, with its budget.
pub fn providers(settings: &Settings) -> anyhow::Result<Vec<(Arc<dyn Provider>, LimitSettings)>> {
    let client = HttpClient::new();
    let mut providers: Vec<(Arc<dyn Provider>, LimitSettings)> = Vec::new();
    for (name, account) in &settings.whatsapp {
        providers.push((Arc::new(WhatsApp::new(name, account, client.clone())?), account.limits.clone()));
    }
    for (name, account) in &settings.telegram {
        providers.push((Arc::new(Telegram::new(name, account, client.clone())?), account.limits.clone()));
    }
    for (name, account) in &settings.sms {
        let provider: Arc<dyn Provider> = match (&account.twilio, &account.http) {
            (Some(twilio), _) => {
                let public_url = settings.http.public_url.as_deref();
                Arc::new(Twilio::new(name, account, twilio, public_url, client.clone())?)
            }
            (None, Some(gateway)) => Arc::new(Gateway::new(name, account, gateway, client.clone())?),
            (None, None) => continue,
        };
        providers.push((provider, account.limits.clone()));
    }
    for (name, account) in &settings.email {
        providers.push((Arc::new(Email::new(name, account, Arc::new(SystemClock))?), account.limits.clone()));
    }
    Ok(providers)
}

/// Takes the bootstrap key, if one is set. Returns whether requests need a key.
async fn set_up_keys(
    settings: &Settings,
    store: &dyn Store,
    ids: &IdSource,
    clock: &dyn Clock,
) -> anyhow::Result<bool> {
    if let Some(key) = &settings.keys.bootstrap_key {
        let key = key.expose_secret();
        if key.len() < SHORTEST_KEY {
            bail!("VESTNIK_BOOTSTRAP_KEY is shorter than {SHORTEST_KEY} characters: it could be guessed");
        }
        let scopes = vec![Scope::Admin];
        let key = NewApiKey {
            id: ids.next(),
            name: "bootstrap".into(),
            hash: hash_key(key),
            scopes,
            created_at: clock.now(),
        };
        store.add_key(key).await?;
    }
    Ok(!store.keys().await?.is_empty())
}
