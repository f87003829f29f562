//! `vestnik doctor`: what was tried, what was seen, what to do. Sends nothing and changes nothing.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::client::{Client, ServerArgs, printable};
use super::{Ended, Printer};
use crate::app::{ledger_options, providers, sql_source};
use crate::config::Settings;
use crate::domain::{Channel, Clock as _, SystemClock};
use crate::queue::rabbitmq::{Options, look};
use crate::store::{self, Store, StoreError};

/// A provider gets this long to say that the account works.
const ACCOUNT_TIME: Duration = Duration::from_secs(10);
/// Clocks further apart than this make times in the ledger hard to believe.
const CLOCKS_APART: Duration = Duration::from_secs(2);
/// A disk that takes longer than this for a flush holds up every direct send.
const SLOW_FLUSH: Duration = Duration::from_millis(50);

const EXAMPLES: &str = "\
Examples:
  vestnik doctor
  vestnik doctor --json
  DATABASE_URL=postgres://vestnik@db/vestnik vestnik doctor

Exit code: 0 when everything is well, 1 when anything is not.";

/// Check settings, ledger, broker, accounts and server; say what to do about what is not well. Sends nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// One thing that was tried.
#[derive(Debug, Serialize)]
struct Check {
    /// What was looked at: `ledger`, `account whatsapp.main`, ….
    check: String,
    ok: bool,
    seen: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Check {
    fn ok(check: impl Into<String>, seen: impl Into<String>) -> Self {
        Check { check: check.into(), ok: true, seen: seen.into(), hint: None }
    }

    fn problem(check: impl Into<String>, seen: impl Into<String>, hint: impl Into<String>) -> Self {
        Check { check: check.into(), ok: false, seen: seen.into(), hint: Some(hint.into()) }
    }
}

pub async fn run(args: DoctorArgs, settings: anyhow::Result<Settings>, printer: Printer) -> anyhow::Result<Ended> {
    let mut checks = Vec::new();
    match settings {
        Ok(settings) => {
            checks.push(Check::ok("settings", settings_in_words(&settings)));
            ledger(&settings, &mut checks).await;
            broker(&settings, &mut checks).await;
            records(&settings, &mut checks).await;
            accounts(&settings, &mut checks).await;
            server(args.server, settings, &mut checks).await;
        }
        Err(error) => {
            checks.push(Check::problem(
                "settings",
                chain(error.as_ref()),
                "mend it; `vestnik config check` says when they are fine",
            ));
        }
    }
    let well = checks.iter().all(|check| check.ok);
    printer.either(&json!({ "ok": well, "checks": checks }), || checks.iter().map(in_words).collect())?;
    Ok(if well { Ended::Well } else { Ended::Badly })
}

fn in_words(check: &Check) -> String {
    let state = if check.ok { "ok" } else { "problem" };
    let hint = check.hint.as_ref().map(|hint| format!("         hint: {hint}\n")).unwrap_or_default();
    format!("{state:<8} {}: {}\n{hint}", check.check, printable(&check.seen))
}

fn settings_in_words(settings: &Settings) -> String {
    let given = settings.origins().len();
    format!("readable, {given} of them given")
}

async fn ledger(settings: &Settings, checks: &mut Vec<Check>) {
    let options = ledger_options(settings);
    let store = match store::connect_read_only(&options, Arc::new(SystemClock)).await {
        Ok(store) => store,
        Err(error) => {
            let hint = match (&error, &settings.ledger.database_url) {
                (StoreError::Unavailable { .. }, Some(_)) => "is PostgreSQL running, and is DATABASE_URL right?",
                (_, Some(_)) => "`vestnik migrate` brings the database to this version",
                (_, None) => {
                    "`vestnik migrate` makes the ledger and brings it to this version; so does `vestnik serve`"
                }
            };
            checks.push(Check::problem("ledger", chain(&error), hint));
            return;
        }
    };
    let asked_at = Instant::now();
    let before = SystemClock.now();
    let condition = match store.condition().await {
        Ok(condition) => condition,
        Err(error) => {
            checks.push(Check::problem(
                "ledger",
                chain(&error),
                "the database opened but does not answer: see its log",
            ));
            return;
        }
    };
    let half_way = asked_at.elapsed() / 2;
    let place = match &settings.ledger.database_url {
        Some(_) => "ledger.database_url".to_owned(),
        None => settings.ledger.data_dir.display().to_string(),
    };
    let opened = format!("opens: {} {} at {place}", store.engine(), condition.version);
    checks.push(match totals(&*store).await {
        Ok(totals) => Check::ok("ledger", format!("{opened}, {totals}")),
        Err(error) => Check::problem("ledger", format!("{opened}; {}", chain(&error)), "see the database's log"),
    });

    let mut durability: Vec<_> = condition.durability.iter().map(|(name, value)| format!("{name} {value}")).collect();
    if settings.ledger.database_url.is_none() {
        let synchronous = if options.sqlite_normal { "NORMAL" } else { "FULL" };
        durability.push(format!("synchronous {synchronous}"));
    }
    let durability = durability.join(", ");
    checks.push(if !condition.is_durable {
        Check::problem("durability", durability, "none of these may be off: what is committed would not be on disk")
    } else if settings.ledger.database_url.is_none() && options.sqlite_normal {
        Check::ok("durability", format!("{durability}: chosen so; a power cut may take the last moments"))
    } else {
        Check::ok("durability", durability)
    });

    match condition.clock {
        Some(theirs) => {
            let ours = crate::domain::clock::later(before, half_way);
            let apart = Duration::from_micros(theirs.as_microsecond().abs_diff(ours.as_microsecond()));
            let seen = format!("PostgreSQL's differs from ours by {} ms", apart.as_millis());
            checks.push(if apart > CLOCKS_APART {
                Check::problem("clock", seen, "set both machines' clocks by NTP")
            } else {
                Check::ok("clock", seen)
            });
        }
        // The disk is ours only where the ledger is.
        None => checks.push(disk(&settings.ledger.data_dir)),
    }
}

async fn totals(store: &dyn Store) -> Result<String, StoreError> {
    let totals = store.totals().await?;
    Ok(format!("{} accepted, {} in flight", totals.accepted, totals.in_flight()))
}

/// How long the disk takes to say that something is on it.
fn disk(dir: &Path) -> Check {
    const FLUSHES: usize = 20;
    let path = dir.join(format!(".doctor-{}", std::process::id()));
    let measured = flushes(&path, FLUSHES);
    // Left behind, it is a small file that nobody reads.
    let _ = fs::remove_file(&path);
    match measured {
        Ok(mut times) => {
            times.sort();
            let (median, longest) = (times[FLUSHES / 2], times[FLUSHES - 1]);
            let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
            let seen = format!(
                "fdatasync takes {:.1} ms (median of {FLUSHES}), {:.1} ms at most",
                milliseconds(median),
                milliseconds(longest)
            );
            if median > SLOW_FLUSH {
                Check::problem("disk", seen, "every send waits for this twice: put ledger.data_dir on a faster disk")
            } else {
                Check::ok("disk", seen)
            }
        }
        Err(error) => Check::problem(
            "disk",
            format!("cannot write to {}: {error}", dir.display()),
            "the folder has to belong to the user that runs vestnik, on a disk with room",
        ),
    }
}

fn flushes(path: &Path, count: usize) -> std::io::Result<Vec<Duration>> {
    /// A page of the database.
    const PAGE: [u8; 4096] = [0; 4096];
    let mut file = File::create(path)?;
    (0..count)
        .map(|_| {
            let started = Instant::now();
            file.write_all(&PAGE)?;
            file.sync_data()?;
            Ok(started.elapsed())
        })
        .collect()
}

/// RabbitMQ, if the settings name one.
async fn broker(settings: &Settings, checks: &mut Vec<Check>) {
    const NAME: &str = "rabbitmq";
    if settings.queue.rabbitmq_url.is_none() {
        return;
    }
    let options = match Options::read(&settings.queue) {
        Ok(options) => options,
        Err(error) => {
            checks.push(Check::problem(NAME, chain(&error), "mend this setting"));
            return;
        }
    };
    let seen = match look(&options).await {
        Ok(seen) => seen,
        Err(error) => {
            let hint = "is it running, are host, port and virtual host of RABBITMQ_URL right, and may this user enter?";
            checks.push(Check::problem(NAME, chain(&error), hint));
            return;
        }
    };
    let product = seen.product.as_deref().unwrap_or("a broker");
    let answers = format!("{product} answers at {}", options.place());
    let missing: Vec<_> = seen.topology.missing().map(|(item, _)| item.name.as_str()).collect();
    // Policies cannot be seen with a user's rights.
    checks.push(match missing[..] {
        [] => {
            let policies = "assets/rabbitmq/definitions.json has the policies that go with it";
            Check::ok(NAME, format!("{answers}, and every exchange and queue is there; {policies}"))
        }
        [first, ..] if settings.queue.declare => {
            let count = missing.len();
            Check::ok(
                NAME,
                format!("{answers}; {count} exchanges and queues ({first}, …) are made when the service starts"),
            )
        }
        [first, ..] => Check::problem(
            NAME,
            format!("{answers}; {} exchanges and queues are missing: {first}, …", missing.len()),
            "set queue.declare = true for one start with a user who may make them",
        ),
    });
}

/// The CRM's own database, if there is one: all of its queries, without ids.
async fn records(settings: &Settings, checks: &mut Vec<Check>) {
    const NAME: &str = "records.sql";
    let source = match sql_source(settings) {
        Ok(Some(source)) => source,
        Ok(None) => return,
        Err(error) => {
            checks.push(Check::problem(NAME, chain(error.as_ref()), "mend this setting"));
            return;
        }
    };
    let checked = source.check().await;
    checks.push(match checked.server {
        Ok(version) => Check::ok(NAME, format!("connects, and reads only: PostgreSQL {version}")),
        Err(trouble) => Check::problem(NAME, trouble.seen, trouble.hint),
    });
    for (kind, tried) in checked.queries {
        let name = format!("{NAME}.{kind}");
        checks.push(match tried {
            Ok(seen) => Check::ok(name, seen),
            Err(trouble) => Check::problem(name, trouble.seen, trouble.hint),
        });
    }
}

async fn accounts(settings: &Settings, checks: &mut Vec<Check>) {
    let providers = match providers(settings) {
        Ok(providers) => providers,
        Err(error) => {
            checks.push(Check::problem("accounts", chain(error.as_ref()), "mend this setting"));
            return;
        }
    };
    if providers.is_empty() {
        checks.push(Check::problem(
            "accounts",
            "there is none: nothing can be sent",
            "give a [whatsapp.main], [telegram.main], [sms.main] or [email.main] section; `vestnik simulator` prints \
             settings to try with",
        ));
    }
    // Each has its own time limit; one after the other keeps the order of the lines.
    for (provider, _) in providers {
        let name = format!("account {}", provider.account());
        checks.push(match provider.check(ACCOUNT_TIME).await {
            Ok(said) => Check::ok(name, said),
            Err(said) => {
                let settings = match provider.account().channel {
                    Channel::Email => "host, port, tls, ca_file, username and password",
                    Channel::WhatsApp | Channel::Telegram | Channel::Sms => "the credentials and the address",
                };
                let hint = format!("look at {settings} of [{}]", provider.account());
                Check::problem(name, said, hint)
            }
        });
    }
}

async fn server(args: ServerArgs, settings: Settings, checks: &mut Vec<Check>) {
    let answered = match Client::find(args, || Ok(settings)) {
        Ok(client) => client.exchange(Method::GET, "/health/ready", None, &[]).await.map(|answer| (client, answer)),
        Err(error) => Err(error),
    };
    checks.push(match answered {
        Ok((client, answer)) => {
            let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let base = client.base();
            match (answer.status, said["ready"].as_bool()) {
                (StatusCode::OK, Some(true)) => Check::ok("server", format!("{base} is ready")),
                (_, Some(_)) => Check::problem(
                    "server",
                    format!("{base} is not ready: its ledger {}, stopping: {}", said["ledger"], said["stopping"]),
                    "its log says why",
                ),
                (status, None) => Check::problem(
                    "server",
                    format!("{base} answered {status}, and not as vestnik does"),
                    "something else listens there: set VESTNIK_URL, or http.listen",
                ),
            }
        }
        Err(error) => {
            let text = error.to_string();
            let (seen, hint) = text.split_once("\nhint: ").unwrap_or((&text, "start it with `vestnik serve`"));
            Check::problem("server", seen, hint)
        }
    });
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
