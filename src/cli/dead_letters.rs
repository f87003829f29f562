//! `vestnik dead-letters`: what failed for good, why, and what is done about it.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::client::{Client, ServerArgs, counted, field, printable};
use super::confirm::agreed;
use super::undecided::{self, ChosenArgs, FilterArgs};
use super::{Ended, Printer};
use crate::config::Settings;

const EXAMPLES: &str = "\
Examples:
  vestnik dead-letters causes
  vestnik dead-letters replay --cause template --use-template order-ready --rate 5
  vestnik dead-letters replay 0197a2b4-6c1e-7d3f-8a90-1b2c3d4e5f60 --to '+7 999 123-45-67'
  vestnik dead-letters discard --cause recipient --reason 'numbers of the old list'
  vestnik dead-letters export > dead-letters.csv";

/// Why notifications failed; send them again, or give them up.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DeadLettersCommand {
    /// List them, newest first.
    List {
        /// So many at most.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Count them by what they failed for, the most frequent first.
    Causes {
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Print all of them as a table or, with `--json`, one JSON object a line.
    Export {
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Send them again, as new notifications. Says first how many, and what cannot be sent.
    Replay(ReplayArgs),
    /// Give them up for good.
    Discard {
        /// Why; kept with each.
        #[arg(long)]
        reason: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        chosen: ChosenArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Debug, clap::Args)]
struct ReplayArgs {
    /// Send it here instead: a phone number, an email address or a chat id. For one id only.
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    to: Option<String>,
    /// Say what the current version of this template says, instead of the text or version of then.
    #[arg(long, value_name = "ID")]
    use_template: Option<String>,
    /// So many become due in a second at most.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Only say what would happen.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    chosen: ChosenArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(
    args: DeadLettersArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    match args.command {
        DeadLettersCommand::List { filter, limit, server } => {
            let client = Client::find(server, settings)?;
            undecided::list(&client, "/v1/dead-letters", &filter, limit, printer).await?;
        }
        DeadLettersCommand::Causes { filter, server } => {
            let causes = causes(&Client::find(server, settings)?, &filter).await?;
            printer.either(&causes, || causes_in_words(&causes))?;
        }
        DeadLettersCommand::Export { filter, server } => {
            export(&Client::find(server, settings)?, &filter, printer).await?;
        }
        DeadLettersCommand::Replay(args) => return replay(args, settings, printer).await,
        DeadLettersCommand::Discard { chosen, reason, yes, server } => {
            let bodies = chosen.bodies()?;
            let client = Client::find(server, settings)?;
            let count = match chosen.ids() {
                [] => total(&causes(&client, chosen.filter()).await?),
                ids => ids.len() as u64,
            };
            let question = format!("discard {} for good?", counted(count, "dead letter"));
            if !yes && !agreed(&question, "--yes discards without asking")? {
                printer.either(&json!({ "changed": 0 }), || "nothing was discarded\n".into())?;
                return Ok(Ended::Badly);
            }
            let path = "/v1/dead-letters/discard";
            let (changed, skipped) =
                undecided::change_counted(&client, path, bodies, &[("reason", json!(reason))]).await?;
            printer.either(&json!({ "changed": changed, "skipped": skipped }), || {
                let mut text = format!("{} discarded\n", counted(changed, "dead letter"));
                if skipped > 0 {
                    text.push_str(&format!("{skipped} no dead letters (any more), and left as they are\n"));
                }
                text
            })?;
            return Ok(if skipped == 0 { Ended::Well } else { Ended::Badly });
        }
    }
    Ok(Ended::Well)
}

async fn causes(client: &Client, filter: &FilterArgs) -> anyhow::Result<Value> {
    client.get(&filter.path("/v1/dead-letters/causes", &[])).await
}

fn total(causes: &Value) -> u64 {
    causes["items"].as_array().into_iter().flatten().filter_map(|group| group["count"].as_u64()).sum()
}

fn causes_in_words(causes: &Value) -> String {
    let groups = causes["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if groups.is_empty() {
        return "there is none\n".into();
    }
    let line = |group: &Value| {
        let cause = [field(group, "cause"), field(group, "code")].join(" ");
        let template = match field(group, "templateId") {
            template if template.is_empty() => "(text)".to_owned(),
            template => template,
        };
        format!(
            "{:>8}  {:<20}  {:<24}  {template:<20}  {} … {}\n",
            field(group, "count"),
            format!("{}.{}", field(group, "channel"), field(group, "account")),
            cause.trim_end(),
            field(group, "firstAt"),
            field(group, "lastAt"),
        )
    };
    groups.iter().map(line).collect()
}

/// Piece by piece, as it comes: a file may be longer than memory.
async fn export(client: &Client, filter: &FilterArgs, printer: Printer) -> anyhow::Result<()> {
    let format = if printer.is_json() { "ndjson" } else { "csv" };
    let path = filter.path("/v1/dead-letters/export", &[("format", format)]);
    let mut answer = client.download(&path).await?;
    if answer.status != StatusCode::OK {
        let status = answer.status;
        return Err(client.problem(status, &client.read(answer).await?));
    }
    while let Some(piece) = client.next(&mut answer).await? {
        printer.bytes(&piece)?;
    }
    Ok(())
}

async fn replay(
    args: ReplayArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    let bodies = args.chosen.bodies()?;
    let client = Client::find(args.server, settings)?;
    let asked = |dry_run: bool| {
        [
            ("recipient", json!(args.to)),
            ("templateId", json!(args.use_template)),
            ("ratePerSecond", json!(args.rate)),
            ("dryRun", json!(dry_run)),
        ]
    };
    if args.dry_run || !args.yes {
        let trial = all_answers(&client, bodies.clone(), &asked(true)).await?;
        if args.dry_run {
            printer.either(&trial.json(true), || trial.in_words("to send again"))?;
            return Ok(trial.ended());
        }
        if trial.items.is_empty() {
            printer.either(&trial.json(false), || trial.in_words("to send again"))?;
            return Ok(Ended::Badly);
        }
        let question = format!("{}send again?", trial.in_words("to send again"));
        if !agreed(&question, "--yes sends without asking, --dry-run only looks")? {
            printer.either(&json!({ "replayed": 0 }), || "nothing was sent again\n".into())?;
            return Ok(Ended::Badly);
        }
    }
    let done = all_answers(&client, bodies, &asked(false)).await?;
    printer.either(&done.json(false), || done.in_words("put on the way again"))?;
    Ok(done.ended())
}

/// The answers of as many calls as it took.
#[derive(Default)]
struct Answers {
    items: Vec<Value>,
    refused: Vec<Value>,
}

async fn all_answers(
    client: &Client,
    bodies: Vec<serde_json::Map<String, Value>>,
    beside: &[(&str, Value)],
) -> anyhow::Result<Answers> {
    let mut all = Answers::default();
    undecided::change(client, "/v1/dead-letters/replay", bodies, beside, |mut answer| {
        for (name, list) in [("items", &mut all.items), ("refused", &mut all.refused)] {
            if let Value::Array(found) = answer[name].take() {
                list.extend(found);
            }
        }
    })
    .await?;
    Ok(all)
}

impl Answers {
    fn json(&self, dry_run: bool) -> Value {
        json!({ "dryRun": dry_run, "replayed": self.items.len(), "items": self.items, "refused": self.refused })
    }

    fn ended(&self) -> Ended {
        if self.refused.is_empty() { Ended::Well } else { Ended::Badly }
    }

    /// How many, and of those that are not, why: each reason once, with one of its words for it.
    fn in_words(&self, what: &str) -> String {
        let mut text = format!("{} {what}\n", counted(self.items.len() as u64, "dead letter"));
        let mut reasons: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for refused in &self.refused {
            let example = format!("{} ({})", field(refused, "detail"), field(refused, "id"));
            reasons.entry(field(refused, "code")).or_insert((0, example)).0 += 1;
        }
        for (code, (count, example)) in reasons {
            text.push_str(&format!("{count} not, {}: {}\n", printable(&code), printable(&example)));
        }
        text
    }
}
