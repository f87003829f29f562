//! `vestnik bulk`: one message to many, through the queue.

mod recipients;

use anyhow::{Context as _, anyhow};
use hyper::Method;
use serde_json::{Map, Value, json};

use self::recipients::{Recipients, SourceArgs};
use super::about::{DataArgs, time};
use super::client::{Client, ServerArgs, counted, field};
use super::confirm::agreed;
use super::watch::{self, watch};
use super::{Ended, Printer};
use crate::config::Settings;
use crate::domain::{Channel, Policy, Priority};

const EXAMPLES: &str = "\
Examples:
  vestnik bulk --channel whatsapp --template promo-campaign --contact-ids-file ids.txt --watch
  vestnik bulk --channel sms --text 'Скидки до воскресенья' --csv people.csv --priority low
  vestnik bulk --channel email --template promo-campaign --all-contacts --search moscow --dry-run
  vestnik bulk --channel whatsapp --template promo-campaign --all-contacts \\
      --scheduled 2026-01-07T10:00:00+03:00 --idempotency-key new-year-sale

A CSV file has a header: `recipient` (or `phone`, `email`, `telegramChatId`, by the channel) or
`contactId`, and every other column is a variable of the template (`order.number` is a part of a
record). More than 100,000 recipients go in several calls, each a batch of its own.

Each call has an idempotency key, which is shown: the same command with `--idempotency-key KEY`
after a broken connection sends nothing twice.

Exit code: 0 when all of it was accepted (with --watch: when the providers took all of it), 1 when
some failed, 2 when it was not accepted.";

/// Send one message to many contacts or addresses, through the queue.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct BulkArgs {
    /// `whatsapp`, `telegram`, `sms` or `email`.
    #[arg(long)]
    channel: Channel,
    /// A saved template …
    #[arg(long, value_name = "ID", required_unless_present = "text", conflicts_with = "text")]
    template: Option<String>,
    /// … or a text as it is.
    #[arg(long)]
    text: Option<String>,
    /// A named account of the channel; else `main`, or the only one.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// When it is to leave; else now. `2030-01-01T10:00+03:00`, `2030-01-01T10:00[Europe/Moscow]`, or
    /// `2030-01-01T10:00` in the account's time zone.
    #[arg(long, value_name = "TIME", value_parser = time)]
    scheduled: Option<String>,
    /// What has not left by then is not sent any more.
    #[arg(long, value_name = "TIME", value_parser = time)]
    not_after: Option<String>,
    /// `high`, `normal` or `low`.
    #[arg(long)]
    priority: Option<Priority>,
    /// How often each is tried again after a failure that may pass: 0 to 10, else 3.
    #[arg(long, value_name = "N")]
    max_retries: Option<u8>,
    /// What to do when it cannot be known whether one arrived: `at_most_once` or `at_least_once`.
    #[arg(long)]
    policy: Option<Policy>,
    /// Makes it safe to repeat the command: the same key sends once. Else one is made, and shown.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Count the recipients and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before all contacts are written to.
    #[arg(long)]
    yes: bool,
    /// Show how far it is until it is over.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(
    args: BulkArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    let optional = [
        ("templateId", args.template.map(Value::from)),
        ("text", args.text.map(Value::from)),
        ("account", args.account.map(Value::from)),
        ("scheduledAt", args.scheduled.map(Value::from)),
        ("notAfter", args.not_after.map(Value::from)),
        ("priority", args.priority.map(|priority| priority.as_str().into())),
        ("maxRetries", args.max_retries.map(Value::from)),
        ("policy", args.policy.map(|policy| policy.as_str().into())),
        ("data", args.data.read()?),
    ];
    let mut common = json!({ "channel": args.channel });
    for (name, value) in optional {
        if let Some(value) = value {
            common[name] = value;
        }
    }
    let client = Client::find(args.server, settings)?;
    let asks = args.source.is_everybody() && !args.yes;
    let recipients = args.source.read(&client, args.channel).await?;
    let who = counted(recipients.len() as u64, "recipient");
    if args.dry_run {
        let calls = recipients.calls().len();
        printer.either(&json!({ "dryRun": true, "recipients": recipients.len(), "calls": calls }), || {
            format!("{who}, in {}: nothing was sent\n", counted(calls as u64, "batch call"))
        })?;
        return Ok(Ended::Well);
    }
    if asks && !agreed(&format!("write to {who} by {}?", args.channel), "--yes sends without asking")? {
        printer.either(&json!({ "batches": [] }), || "nothing was sent\n".into())?;
        return Ok(Ended::Badly);
    }
    let key = match args.idempotency_key {
        Some(key) => key,
        None => new_key()?,
    };
    let accepted = accept(&client, &common, recipients, &key).await?;
    if !args.watch {
        printer.either(&accepted.json(&key), || accepted.in_words(&key))?;
        return Ok(if accepted.sum("failed") == 0 { Ended::Well } else { Ended::Badly });
    }
    if !printer.is_json() {
        printer.text(&accepted.in_words(&key))?;
    }
    let ids: Vec<_> = accepted.0.iter().map(|batch| field(batch, "batchId")).collect();
    let views = watch(&client, &ids).await?;
    let mut whole = accepted.json(&key);
    whole["progress"] = json!(views);
    printer.either(&whole, || format!("{}\n", watch::in_one_line(&views)))?;
    Ok(watch::ended(&views))
}

/// Batches as they were answered, without the ids of their notifications.
struct AcceptedBatches(Vec<Value>);

async fn accept(client: &Client, common: &Value, recipients: Recipients, key: &str) -> anyhow::Result<AcceptedBatches> {
    let calls = recipients.calls();
    let mut batches = Vec::with_capacity(calls.len());
    let many = calls.len();
    for (n, (name, recipients)) in calls.into_iter().enumerate() {
        let mut body = common.clone();
        body[name] = recipients;
        // The first has the key itself, so that a call that was one stays one.
        let of_call = if n == 0 { key.to_owned() } else { format!("{key}-{}", n + 1) };
        let headers = [("idempotency-key", of_call.as_str())];
        let answer = client.exchange(Method::POST, "/v1/notifications/bulk", Some(&body), &headers).await;
        let (error, is_known) = match answer {
            Ok(answer) if answer.status.is_success() => {
                batches.push(without_ids(&answer.body)?);
                continue;
            }
            Ok(answer) => (client.problem(answer.status, &answer.body), answer.status.is_client_error()),
            Err(error) => (error, false),
        };
        let of_many = if n == 0 { String::new() } else { format!("batch call {} of {many}: ", n + 1) };
        // What was refused is refused again; what else happened may be asked again.
        let hint = if is_known && n == 0 {
            String::new()
        } else {
            format!("\nhint: the same command with --idempotency-key {key} sends nothing twice")
        };
        return Err(anyhow!("{of_many}{error:#}{hint}"));
    }
    Ok(AcceptedBatches(batches))
}

/// An answer without the ids, which are as many as recipients: `notifications list --batch` names them.
fn without_ids(body: &[u8]) -> anyhow::Result<Value> {
    let mut answer: Value = serde_json::from_slice(body).context("the server does not answer as vestnik does")?;
    if let Some(answer) = answer.as_object_mut() {
        answer.remove("messageIds");
    }
    Ok(answer)
}

impl AcceptedBatches {
    fn sum(&self, name: &str) -> u64 {
        self.0.iter().filter_map(|batch| batch[name].as_u64()).sum()
    }

    fn json(&self, key: &str) -> Value {
        json!({
            "accepted": self.sum("accepted"), "duplicates": self.sum("duplicates"), "failed": self.sum("failed"),
            "idempotencyKey": key, "batches": self.0,
        })
    }

    fn in_words(&self, key: &str) -> String {
        let mut text = format!("accepted {}", counted(self.sum("accepted"), "notification"));
        let parts =
            [("duplicates", "given more than once"), ("failed", "failed at once: no address that can be written to")];
        for (name, what) in parts {
            match self.sum(name) {
                0 => {}
                count => text.push_str(&format!("; {count} {what}")),
            }
        }
        text.push_str(&format!("\n  key    {key}\n"));
        for batch in &self.0 {
            text.push_str(&format!("  batch  {}\n", field(batch, "batchId")));
        }
        text
    }
}

fn new_key() -> anyhow::Result<String> {
    let random = getrandom::u64().map_err(|error| anyhow!("{error}")).context("no random numbers for a key")?;
    Ok(format!("bulk-{random:016x}"))
}

/// A row of a request.
type Row = Map<String, Value>;
