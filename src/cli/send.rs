//! `vestnik send`: one notification, now or through the queue.

use serde_json::{Value, json};

use super::about::{AboutArgs, time};
use super::client::{Client, ServerArgs};
use super::notifications::{ended, in_words};
use super::{Ended, Printer};
use crate::config::Settings;
use crate::domain::{Channel, OnFailure, Policy, Priority};

const EXAMPLES: &str = "\
Examples:
  vestnik send --channel telegram --to 123456789 --text 'Новая заявка'
  vestnik send --channel email --to anna@example.com --text 'Новая заявка'
  vestnik send --channel whatsapp --to '+7 999 123-45-67' --template order-ready \\
      --data name=Анна --data order.number=1042 --idempotency-key order-1042-ready
  vestnik send --channel whatsapp --template order-ready --deal d-1042     # to the deal's contact
  vestnik send --channel telegram --to 123456789 --text 'Новая заявка' --on-failure queue
  vestnik send --channel telegram --to 123456789 --text 'Доброе утро' --scheduled 2026-01-07T09:00:00+03:00

Exit code: 0 when the provider took it, or the queue has it; 1 when it failed or nobody knows;
2 when it was not accepted at all.";

/// Send one notification now, and say what became of it; or hand it to the queue.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SendArgs {
    /// `whatsapp`, `telegram`, `sms` or `email`.
    #[arg(long)]
    channel: Channel,
    /// A phone number, an email address or a Telegram chat id; else the address of the contact.
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    to: Option<String>,
    /// A saved template …
    #[arg(long, value_name = "ID", required_unless_present = "text", conflicts_with = "text")]
    template: Option<String>,
    /// … or a text as it is.
    #[arg(long)]
    text: Option<String>,
    /// A named account of the channel; else `main`, or the only one.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// `high`, `normal` or `low`.
    #[arg(long)]
    priority: Option<Priority>,
    /// What to do when it cannot be known whether it arrived: `at_most_once` or `at_least_once`.
    #[arg(long)]
    policy: Option<Policy>,
    /// Makes it safe to repeat the command: the same key sends once.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// How long it may take, in ms.
    #[arg(long, value_name = "MS", conflicts_with_all = ["queued", "scheduled"])]
    deadline_ms: Option<u64>,
    /// What becomes of it when it does not get through now and may later: `fail`, or `queue`, where it waits and is
    /// tried again.
    #[arg(long, value_name = "WHAT")]
    on_failure: Option<OnFailure>,
    /// Do not wait for the provider: it goes through the queue, and is tried again where that may help.
    #[arg(long = "async")]
    queued: bool,
    /// When it is to leave, through the queue. `2030-01-01T10:00+03:00`, `2030-01-01T10:00[Europe/Moscow]`, or
    /// `2030-01-01T10:00` in the account's time zone.
    #[arg(long, value_name = "TIME", value_parser = time)]
    scheduled: Option<String>,
    #[command(flatten)]
    about: AboutArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(
    args: SendArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    let (context, data) = args.about.read()?;
    let optional = [
        ("templateId", args.template.map(Value::from)),
        ("text", args.text.map(Value::from)),
        ("account", args.account.map(Value::from)),
        ("priority", args.priority.map(|priority| priority.as_str().into())),
        ("policy", args.policy.map(|policy| policy.as_str().into())),
        ("deadlineMs", args.deadline_ms.map(Value::from)),
        ("onFailure", args.on_failure.map(|on_failure| on_failure.as_str().into())),
        ("mode", args.queued.then(|| "async".into())),
        ("scheduledAt", args.scheduled.map(Value::from)),
        ("recipient", args.to.map(Value::from)),
        ("context", context),
        ("data", data),
    ];
    let mut body = json!({ "channel": args.channel });
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    let headers: Vec<_> = args.idempotency_key.iter().map(|key| ("idempotency-key", key.as_str())).collect();
    let client = Client::find(args.server, settings)?;
    let view = client.post("/v1/notifications", &body, &headers).await?;
    printer.either(&view, || in_words(&view))?;
    Ok(ended(&view))
}
