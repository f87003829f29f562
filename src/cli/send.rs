//! `vestnik send`: one notification, now.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::client::{Client, ServerArgs};
use super::notifications::in_words;
use super::{Ended, Printer};
use crate::config::Settings;
use crate::domain::{Channel, Policy, Priority};

const EXAMPLES: &str = "\
Examples:
  vestnik send --channel telegram --to 123456789 --text 'Новая заявка'
  vestnik send --channel email --to anna@example.com --text 'Новая заявка'
  vestnik send --channel whatsapp --to '+7 999 123-45-67' --template order-ready \\
      --data name=Анна --data order.number=1042 --idempotency-key order-1042-ready

Exit code: 0 when the provider took it, 1 when it did not or nobody knows, 2 when it was not accepted at all.";

/// Send one notification now, and say what became of it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SendArgs {
    /// `whatsapp`, `telegram` or `email`.
    #[arg(long)]
    channel: Channel,
    /// A phone number, a Telegram chat id, or an email address.
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    to: String,
    /// A saved template …
    #[arg(long, value_name = "ID", required_unless_present = "text", conflicts_with = "text")]
    template: Option<String>,
    /// … or a text as it is.
    #[arg(long)]
    text: Option<String>,
    /// A variable of the template; a dot makes it a part of a record: `order.number=1042`. Repeatable.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    data: Vec<(String, String)>,
    /// The variables as a JSON object; `--data` is laid over it.
    #[arg(long, value_name = "JSON")]
    data_json: Option<String>,
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
    #[arg(long, value_name = "MS")]
    deadline_ms: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("expected NAME=VALUE".to_owned()),
    }
}

pub async fn run(
    args: SendArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    let data = data(args.data_json.as_deref(), args.data)?;
    let optional = [
        ("templateId", args.template.map(Value::from)),
        ("text", args.text.map(Value::from)),
        ("account", args.account.map(Value::from)),
        ("priority", args.priority.map(|priority| priority.as_str().into())),
        ("policy", args.policy.map(|policy| policy.as_str().into())),
        ("deadlineMs", args.deadline_ms.map(Value::from)),
        ("data", (!data.is_empty()).then_some(Value::Object(data))),
    ];
    let mut body = json!({ "channel": args.channel, "recipient": args.to });
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    let headers: Vec<_> = args.idempotency_key.iter().map(|key| ("idempotency-key", key.as_str())).collect();
    let client = Client::find(args.server, settings)?;
    let view = client.post("/v1/notifications", &body, &headers).await?;
    printer.either(&view, || in_words(&view))?;
    let was_taken = matches!(view["status"].as_str(), Some("sent" | "delivered" | "read"));
    Ok(if was_taken { Ended::Well } else { Ended::Badly })
}

/// `order.number=1042` over `{"order": {"items": 2}}` is `{"order": {"items": 2, "number": "1042"}}`.
fn data(given: Option<&str>, pairs: Vec<(String, String)>) -> anyhow::Result<Map<String, Value>> {
    let mut data: Map<String, Value> = match given {
        Some(text) => serde_json::from_str(text).context(
            "--data-json is not a JSON object\nhint: quote it for the shell: --data-json '{\"name\": \"Анна\"}'",
        )?,
        None => Map::new(),
    };
    for (path, value) in pairs {
        let (records, name) = path.rsplit_once('.').map_or(("", path.as_str()), |(records, name)| (records, name));
        let mut place = &mut data;
        for record in records.split('.').filter(|record| !record.is_empty()) {
            let inner = place.entry(record).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(inner) = inner else {
                bail!("--data {path}: `{record}` is a value already, not a record")
            };
            place = inner;
        }
        place.insert(name.to_owned(), value.into());
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_laid_over_the_json() {
        let pairs = vec![("order.number".to_owned(), "7".to_owned()), ("name".to_owned(), "Анна=".to_owned())];
        let merged = data(Some(r#"{"order": {"items": 2}, "name": "x"}"#), pairs).unwrap();
        assert_eq!(Value::Object(merged), json!({ "order": { "items": 2, "number": "7" }, "name": "Анна=" }));
        assert!(data(Some("[1]"), vec![]).is_err());
        assert!(data(Some(r#"{"a": 1}"#), vec![("a.b".to_owned(), String::new())]).is_err());
    }
}
