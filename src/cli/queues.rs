//! `vestnik queues`: what waits, where it is, and who cannot send, at one glance.

use std::io::IsTerminal as _;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::client::{Client, ServerArgs, field};
use super::watch::time;
use super::{Ended, Printer};
use crate::config::Settings;

const EXAMPLES: &str = "\
Examples:
  vestnik queues
  vestnik queues --all
  vestnik queues --watch
  vestnik queues --json

Exit code: 0 when all is well, 1 when the queue is down or blocked, or an account cannot send.";

/// A glance often enough to see it move.
const EVERY: Duration = Duration::from_secs(1);
/// Where nothing can be drawn over.
const EVERY_ELSEWHERE: Duration = Duration::from_secs(5);

/// See what waits, how fast it goes, and what holds it up.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct QueuesArgs {
    /// Also lanes in which nothing is.
    #[arg(long)]
    all: bool,
    /// Show it anew every second, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(
    args: QueuesArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    let client = Client::find(args.server, settings)?;
    let draws_over = std::io::stdout().is_terminal() && !printer.is_json();
    loop {
        let view = client.get("/v1/queues").await?;
        printer.either(&view, || {
            // From the top left, and nothing of what stood there stays.
            let before = if args.watch && draws_over { "\u{1b}[H\u{1b}[J" } else { "" };
            format!("{before}{}", in_words(&view, args.all))
        })?;
        if !args.watch {
            return Ok(if is_well(&view) { Ended::Well } else { Ended::Badly });
        }
        if !printer.is_json() && !draws_over {
            printer.line("")?;
        }
        tokio::time::sleep(if draws_over { EVERY } else { EVERY_ELSEWHERE }).await;
    }
}

fn is_well(view: &Value) -> bool {
    let accounts = view["accounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    view["queue"]["condition"] == "up" && accounts.iter().all(|account| account["down"].is_null())
}

fn in_words(view: &Value, all: bool) -> String {
    let queue = &view["queue"];
    let mut text = format!("queue {}: {}", field(queue, "kind"), field(queue, "condition"));
    let reason = field(queue, "reason");
    if !reason.is_empty() {
        text.push_str(&format!(" ({reason}); what is accepted waits in the ledger"));
    }
    text.push_str("\n\n");
    let lanes: Vec<_> = view["lanes"].as_array().into_iter().flatten().filter(|lane| all || is_in_use(lane)).collect();
    if lanes.is_empty() {
        text.push_str("nothing waits\n");
    } else {
        let header = ["lane", "due", "later", "retries", "paused", "handed", "queue", "consumers", "in hand", "oldest"];
        text.push_str(&line(header.map(str::to_owned)));
        let at = view["at"].as_str().and_then(|at| at.parse().ok());
        for lane in lanes {
            text.push_str(&line(cells(lane, at)));
        }
    }
    text.push('\n');
    let accounts = view["accounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    text.push_str(&format!(
        "{:<22}{:>9}{:>9}{:>9}{:>14}\n",
        "account", "allowed/s", "sent/s", "sending", "dead letters"
    ));
    for account in accounts {
        text.push_str(&format!(
            "{:<22}{:>9}{:>9}{:>9}{:>14}{}\n",
            format!("{}.{}", field(account, "channel"), field(account, "account")),
            or_dash(field(account, "allowedPerSecond")),
            field(account, "sentPerSecond"),
            field(account, "sending"),
            field(account, "deadLetters"),
            trouble(account),
        ));
    }
    text
}

fn is_in_use(lane: &Value) -> bool {
    let counts = [&lane["waiting"]["due"], &lane["waiting"]["later"], &lane["waiting"]["paused"]];
    let beside = [&lane["handedOver"], &lane["ready"], &lane["inHand"]];
    counts.into_iter().chain(beside).any(|count| count.as_u64().unwrap_or_default() > 0)
}

fn cells(lane: &Value, at: Option<Timestamp>) -> [String; 10] {
    let waiting = &lane["waiting"];
    let oldest: Option<Timestamp> = lane["oldestDueAt"].as_str().and_then(|due| due.parse().ok());
    let age = at.zip(oldest).map(|(at, oldest)| time(u64::try_from(at.duration_since(oldest).as_secs()).unwrap_or(0)));
    [
        field(lane, "name"),
        field(waiting, "due"),
        field(waiting, "later"),
        or_dash(field(waiting, "retrying")),
        field(waiting, "paused"),
        field(lane, "handedOver"),
        or_dash(field(lane, "ready")),
        or_dash(field(lane, "consumers")),
        field(lane, "inHand"),
        or_dash(age.unwrap_or_default()),
    ]
}

fn line([name, rest @ ..]: [String; 10]) -> String {
    let rest: String = rest.iter().map(|cell| format!("{cell:>10}")).collect();
    format!("{name:<20}{rest}\n")
}

fn trouble(account: &Value) -> String {
    let (down, until) = (&account["down"], field(account, "pausedUntil"));
    if down.is_object() {
        let why = [field(down, "reason"), field(down, "code")].join(" ");
        return format!("  DOWN since {}: {}", field(down, "since"), why.trim_end());
    }
    if !until.is_empty() {
        return format!("  rests until {until} ({})", field(account, "pausedFor"));
    }
    if account["allowedPerSecond"].is_null() { "  not in the settings".to_owned() } else { String::new() }
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_glance_says_what_holds_it_up() {
        let view = json!({
            "at": "2026-01-07T09:05:00Z",
            "queue": { "kind": "rabbitmq", "condition": "down", "reason": "connection refused" },
            "lanes": [
                { "name": "whatsapp.send", "waiting": { "due": 1200, "later": 40, "retrying": 12, "paused": 0 },
                  "handedOver": 160, "inHand": 96, "oldestDueAt": "2026-01-07T09:00:00Z" },
                { "name": "whatsapp.send.low", "waiting": { "due": 0, "later": 0, "paused": 0 }, "handedOver": 0,
                  "inHand": 0 },
            ],
            "accounts": [
                { "channel": "telegram", "account": "old", "sentPerSecond": 0.0, "sending": 0, "deadLetters": 3 },
                { "channel": "whatsapp", "account": "main", "allowedPerSecond": 80.0, "sentPerSecond": 0.0,
                  "sending": 1, "deadLetters": 0,
                  "down": { "since": "2026-01-07T09:01:00Z", "reason": "credentials", "code": "190" } },
            ],
        });
        insta::assert_snapshot!(in_words(&view, false));
        assert!(!is_well(&view));
        assert_eq!(in_words(&view, true).matches("whatsapp.send").count(), 2);
    }
}
