//! `vestnik notifications`: what was sent, and what became of it.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Client, ServerArgs, field};
use super::watch::time;
use super::{Ended, Printer};
use crate::config::Settings;
use crate::domain::{Channel, Status};

const EXAMPLES: &str = "\
Examples:
  vestnik notifications list --status uncertain
  vestnik notifications list --channel whatsapp --from 2026-01-07T00:00:00+03:00 --limit 200 --json
  vestnik notifications show 0197a2b4-6c1e-7d3f-8a90-1b2c3d4e5f60
  vestnik notifications reschedule 0197a2b4-6c1e-7d3f-8a90-1b2c3d4e5f60 --at 2026-01-07T10:00:00+03:00
  vestnik notifications cancel 0197a2b4-6c1e-7d3f-8a90-1b2c3d4e5f60";

/// See notifications and their history; move and cancel what has not begun.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct NotificationsArgs {
    #[command(subcommand)]
    command: NotificationsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum NotificationsCommand {
    /// List them, newest first.
    List(ListArgs),
    /// Show one with every attempt: when, how it ended, why.
    Show {
        /// Its id.
        id: Uuid,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// End one that has not begun.
    Cancel {
        /// Its id.
        id: Uuid,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Move one that has not begun to another time.
    Reschedule {
        /// Its id.
        id: Uuid,
        /// When it is to leave instead. `2030-01-01T10:00+03:00`, `2030-01-01T10:00[Europe/Moscow]`, or
        /// `2030-01-01T10:00` in the account's time zone.
        #[arg(long, value_name = "TIME", value_parser = super::about::time)]
        at: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only of this channel.
    #[arg(long)]
    channel: Option<Channel>,
    /// Only those that stand so: sent, failed, uncertain, suppressed, pending, …
    #[arg(long)]
    status: Option<Status>,
    /// Only of this batch.
    #[arg(long, value_name = "ID")]
    batch: Option<Uuid>,
    /// Only to this contact.
    #[arg(long, value_name = "ID")]
    contact: Option<String>,
    /// Accepted at this time or later.
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Accepted before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// So many at most.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(
    args: NotificationsArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    match args.command {
        NotificationsCommand::List(args) => list(args, settings, printer).await?,
        NotificationsCommand::Show { id, server } => {
            let view = Client::find(server, settings)?.get(&format!("/v1/notifications/{id}")).await?;
            printer.either(&view, || in_words(&view))?;
        }
        NotificationsCommand::Cancel { id, server } => {
            let path = format!("/v1/notifications/{id}/cancel");
            let view = Client::find(server, settings)?.post(&path, &json!({}), &[]).await?;
            printer.either(&view, || in_words(&view))?;
        }
        NotificationsCommand::Reschedule { id, at, server } => {
            let body = json!({ "scheduledAt": at });
            let view = Client::find(server, settings)?.patch(&format!("/v1/notifications/{id}"), &body).await?;
            printer.either(&view, || in_words(&view))?;
        }
    }
    Ok(Ended::Well)
}

async fn list(
    args: ListArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<()> {
    let query: Vec<(&str, String)> = [
        ("channel", args.channel.map(|channel| channel.to_string())),
        ("status", args.status.map(|status| status.to_string())),
        ("batchId", args.batch.map(|batch| batch.to_string())),
        ("contactId", args.contact),
        ("from", args.from.map(|time| time.to_string())),
        ("until", args.until.map(|time| time.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    let client = Client::find(args.server, settings)?;
    let (items, more) = client.list("/v1/notifications", &query, args.limit as usize).await?;
    printer.either(&json!({ "items": items, "more": more }), || {
        if items.is_empty() {
            return "there is none\n".into();
        }
        let mut text: String = items.iter().map(line).collect();
        if more {
            text.push_str("there are more: --limit shows them\n");
        }
        text
    })
}

fn line(view: &Value) -> String {
    let what = match field(view, "templateId") {
        template if template.is_empty() => "(text)".to_owned(),
        template => template,
    };
    format!(
        "{}  {}  {:<10}  {:<8}  {:<16}  {what}\n",
        field(view, "id"),
        field(view, "createdAt"),
        field(view, "status"),
        field(view, "channel"),
        field(view, "recipient"),
    )
}

/// Whether the provider took it or the queue has it. One that waits to be sent once more, because nobody knows whether
/// it arrived, is not well.
pub fn ended(view: &Value) -> Ended {
    let was_taken = matches!(view["status"].as_str(), Some("sent" | "delivered" | "read"));
    if was_taken || (is_waiting(view) && view["holdReason"] != "resend") { Ended::Well } else { Ended::Badly }
}

fn is_waiting(view: &Value) -> bool {
    matches!(view["status"].as_str(), Some("scheduled" | "pending" | "queued" | "sending"))
}

/// One notification with its history, for people.
pub fn in_words(view: &Value) -> String {
    let mut text = format!("{}  {}\n", field(view, "status"), field(view, "id"));
    let mut say = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("  {name:<10} {value}\n"));
        }
    };
    say("to", format!("{} by {}.{}", field(view, "recipient"), field(view, "channel"), field(view, "account")));
    let version = field(view, "templateVersion");
    let template = field(view, "templateId");
    say("template", if version.is_empty() { template } else { format!("{template}, version {version}") });
    say("accepted", field(view, "createdAt"));
    say("scheduled", field(view, "scheduledAt"));
    say("late", late(view["lateMs"].as_u64().unwrap_or_default()));
    say("policy", field(view, "policy"));
    say("batch", field(view, "batchId"));
    say("waits", [field(view, "holdReason"), field(view, "dueAt")].join(" ").trim().to_owned());
    say("your id", field(view, "externalId"));
    say("error", error(&view["error"]));
    say("resolved", decided(&view["resolution"]));
    say("settled", decided(&view["settled"]));
    say(
        "try again",
        match field(view, "retryAfter") {
            seconds if seconds.is_empty() => seconds,
            seconds => format!("in {seconds} s"),
        },
    );
    let attempts = view["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    for attempt in attempts {
        text.push_str(&attempt_in_words(attempt));
    }
    if attempts.is_empty() {
        text.push_str(if is_waiting(view) { "  no attempt yet\n" } else { "  no attempt: nothing was sent\n" });
    }
    text
}

/// How long after its time it left, if that is worth a word.
fn late(ms: u64) -> String {
    match ms {
        0 => String::new(),
        1..1000 => format!("by {ms} ms"),
        _ => format!("by {}", time(ms / 1000)),
    }
}

/// `discarded by key anna at …: wrong number`; a verdict's word is the status itself.
fn decided(decision: &Value) -> String {
    if !decision.is_object() {
        return String::new();
    }
    let mut text = format!("{} by {} at {}", field(decision, "how"), field(decision, "by"), field(decision, "at"));
    for (before, name) in [(" as ", "replayedAs"), (": ", "reason")] {
        let value = field(decision, name);
        if !value.is_empty() {
            text.push_str(&format!("{before}{value}"));
        }
    }
    text.trim_start().to_owned()
}

fn attempt_in_words(attempt: &Value) -> String {
    let mut text = format!(
        "  attempt {}  {} → {}  {}",
        field(attempt, "n"),
        field(attempt, "openedAt"),
        match field(attempt, "closedAt") {
            time if time.is_empty() => "now".to_owned(),
            time => time,
        },
        field(attempt, "outcome"),
    );
    let provider_id = field(attempt, "providerMessageId");
    if !provider_id.is_empty() {
        text.push_str(&format!("  provider id {provider_id}"));
    }
    let error = error(&attempt["error"]);
    if !error.is_empty() {
        text.push_str(&format!("  {error}"));
    }
    if attempt["flagged"] == true {
        text.push_str("  FLAGGED: this and another attempt may both have arrived");
    }
    text.push('\n');
    text
}

/// `recipient 131026: … (may succeed later)`.
fn error(error: &Value) -> String {
    if !error.is_object() {
        return String::new();
    }
    let (class, code) = (field(error, "class"), field(error, "code"));
    // Where the provider said nothing, the code only repeats the class.
    let mut text = if class == code || code.is_empty() { class } else { format!("{class} {code}") };
    let detail = field(error, "detail");
    if !detail.is_empty() {
        text.push_str(&format!(": {detail}"));
    }
    if error["retryable"] == true {
        text.push_str(" (may succeed later)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_queue_has_is_well_and_what_nobody_knows_is_not() {
        for (view, end) in [
            (json!({ "status": "sent", "mode": "sync" }), Ended::Well),
            (json!({ "status": "scheduled", "mode": "async" }), Ended::Well),
            (json!({ "status": "pending", "mode": "sync", "holdReason": "rate_limit" }), Ended::Well),
            (json!({ "status": "queued", "mode": "sync" }), Ended::Well),
            (json!({ "status": "pending", "mode": "sync", "holdReason": "resend" }), Ended::Badly),
            (json!({ "status": "uncertain", "mode": "sync" }), Ended::Badly),
            (json!({ "status": "failed", "mode": "async" }), Ended::Badly),
        ] {
            assert_eq!(ended(&view), end, "{view}");
        }
    }
}
