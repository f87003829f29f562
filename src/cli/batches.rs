//! `vestnik batches`: campaigns, how far they are, and stopping them.

use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Client, ServerArgs, field};
use super::confirm::agreed;
use super::watch::{self, in_one_line, time, watch};
use super::{Ended, Printer};
use crate::config::Settings;

const EXAMPLES: &str = "\
Examples:
  vestnik batches list
  vestnik batches watch 0197a2b4-6c1e-7d3f-8a90-1b2c3d4e5f60
  vestnik batches pause 0197a2b4-6c1e-7d3f-8a90-1b2c3d4e5f60
  vestnik batches reschedule 0197a2b4-6c1e-7d3f-8a90-1b2c3d4e5f60 --at 2026-01-07T12:00:00+03:00
  vestnik batches cancel 0197a2b4-6c1e-7d3f-8a90-1b2c3d4e5f60 --yes
  vestnik notifications list --batch 0197a2b4-6c1e-7d3f-8a90-1b2c3d4e5f60 --status failed

Exit code of watch: 0 when the providers took all of it, 1 when they did not.";

/// See how far campaigns are; pause, resume, move and cancel them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct BatchesArgs {
    #[command(subcommand)]
    command: BatchesCommand,
}

#[derive(Debug, clap::Subcommand)]
enum BatchesCommand {
    /// List them, newest first.
    List {
        /// So many at most.
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one and how far it is.
    Show(OneArgs),
    /// Show some until nothing of them is on its way any more.
    Watch {
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<Uuid>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Hold one up: within two seconds nothing more of it leaves.
    Pause(OneArgs),
    /// Let a paused one go on where it stopped.
    Resume(OneArgs),
    /// Move one whose time has not come to another time.
    Reschedule {
        #[command(flatten)]
        one: OneArgs,
        /// When it is to leave instead. `2030-01-01T10:00+03:00`, `2030-01-01T10:00[Europe/Moscow]`, or
        /// `2030-01-01T10:00` in the account's time zone.
        #[arg(long, value_name = "TIME", value_parser = super::about::time)]
        at: String,
    },
    /// End what has not begun of one. It cannot be taken back.
    Cancel {
        #[command(flatten)]
        one: OneArgs,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
struct OneArgs {
    /// Its id.
    id: Uuid,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(
    args: BatchesArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    let path = |id: Uuid, rest: &str| format!("/v1/batches/{id}{rest}");
    let show = |view: Value| printer.either(&view, || in_words(&view));
    match args.command {
        BatchesCommand::List { limit, server } => {
            let client = Client::find(server, settings)?;
            let (items, more) = client.list("/v1/batches", &[], limit as usize).await?;
            printer.either(&json!({ "items": items, "more": more }), || list_in_words(&items, more))?;
        }
        BatchesCommand::Show(OneArgs { id, server }) => {
            show(Client::find(server, settings)?.get(&path(id, "")).await?)?;
        }
        BatchesCommand::Watch { ids, server } => {
            let ids: Vec<_> = ids.iter().map(Uuid::to_string).collect();
            let views = watch(&Client::find(server, settings)?, &ids).await?;
            printer.either(&json!({ "items": views }), || views.iter().map(in_words).collect())?;
            return Ok(watch::ended(&views));
        }
        BatchesCommand::Pause(OneArgs { id, server }) => {
            show(Client::find(server, settings)?.post(&path(id, "/pause"), &json!({}), &[]).await?)?;
        }
        BatchesCommand::Resume(OneArgs { id, server }) => {
            show(Client::find(server, settings)?.post(&path(id, "/resume"), &json!({}), &[]).await?)?;
        }
        BatchesCommand::Reschedule { one: OneArgs { id, server }, at } => {
            let body = json!({ "scheduledAt": at });
            show(Client::find(server, settings)?.patch(&path(id, ""), &body).await?)?;
        }
        BatchesCommand::Cancel { one: OneArgs { id, server }, yes } => {
            let client = Client::find(server, settings)?;
            let view = client.get(&path(id, "")).await?;
            let question = format!("{}end the {} that are on their way?", in_words(&view), field(&view, "inFlight"));
            if !yes && !agreed(&question, "--yes cancels without asking")? {
                printer.either(&view, || "nothing was cancelled\n".into())?;
                return Ok(Ended::Badly);
            }
            show(client.post(&path(id, "/cancel"), &json!({}), &[]).await?)?;
        }
    }
    Ok(Ended::Well)
}

fn list_in_words(items: &[Value], more: bool) -> String {
    if items.is_empty() {
        return "there is none: `vestnik bulk` makes one\n".into();
    }
    let line = |view: &Value| {
        format!(
            "{}  {}  {:<10}  {:<8}  {:<6}  {:<16}  {}\n",
            field(view, "id"),
            field(view, "createdAt"),
            field(view, "state"),
            field(view, "channel"),
            field(view, "priority"),
            what(view),
            in_one_line(std::slice::from_ref(view)),
        )
    };
    let mut text: String = items.iter().map(line).collect();
    if more {
        text.push_str("there are more: --limit shows them\n");
    }
    text
}

fn what(view: &Value) -> String {
    match field(view, "templateId") {
        template if template.is_empty() => "(text)".to_owned(),
        template => template,
    }
}

/// One batch, for people.
pub fn in_words(view: &Value) -> String {
    let mut text = format!("{}  {}\n", field(view, "state"), field(view, "id"));
    let mut say = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("  {name:<10} {value}\n"));
        }
    };
    say("what", what(view));
    say("by", format!("{}.{}, {} priority", field(view, "channel"), field(view, "account"), field(view, "priority")));
    let duplicates = view["duplicates"].as_u64().unwrap_or_default();
    let beside = if duplicates == 0 { String::new() } else { format!(", beside {duplicates} given more than once") };
    say("accepted", format!("{}{beside} at {}", field(view, "accepted"), field(view, "createdAt")));
    for (name, at) in [("scheduled", "scheduledAt"), ("paused", "pausedAt"), ("cancelled", "cancelledAt")] {
        let by = field(view, "cancelledBy");
        let by = if at == "cancelledAt" && !by.is_empty() { format!(" by {by}") } else { String::new() };
        say(name, format!("{}{by}", field(view, at)));
    }
    for (status, count) in view["settled"].as_object().into_iter().flatten() {
        say(status, count.to_string());
    }
    if view["inFlight"] != 0 {
        say("in flight", field(view, "inFlight"));
    }
    if let (Some(rate), Some(left)) = (view["ratePerSecond"].as_f64(), view["secondsLeft"].as_u64()) {
        say("speed", format!("{rate} a second, {} left", time(left)));
    }
    text
}
