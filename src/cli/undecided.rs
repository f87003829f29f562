//! What `dead-letters` and `uncertain` have in common: which ones are meant, and how they are shown.

use anyhow::bail;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Printer;
use super::client::{Client, encode, field};
use crate::domain::Channel;

/// Ids that the API takes at a time.
const IDS_AT_ONCE: usize = 1000;

/// Those that have everything that is given.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Which ones")]
pub struct FilterArgs {
    /// Only of this channel.
    #[arg(long)]
    channel: Option<Channel>,
    /// Only of the account with this name.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Only of this cause: recipient, template, transient, ambiguous, …
    #[arg(long)]
    cause: Option<String>,
    /// Only with this code of the provider.
    #[arg(long)]
    code: Option<String>,
    /// Only of this template.
    #[arg(long, value_name = "ID")]
    template: Option<String>,
    /// Only of this batch.
    #[arg(long, value_name = "ID")]
    batch: Option<Uuid>,
    /// Given up, or uncertain, since this time or later.
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Given up, or uncertain, before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
}

impl FilterArgs {
    pub fn query(&self) -> Vec<(&'static str, String)> {
        [
            ("channel", self.channel.map(|channel| channel.to_string())),
            ("account", self.account.clone()),
            ("cause", self.cause.clone()),
            ("code", self.code.clone()),
            ("templateId", self.template.clone()),
            ("batchId", self.batch.map(|batch| batch.to_string())),
            ("from", self.from.map(|time| time.to_string())),
            ("until", self.until.map(|time| time.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }

    /// The path with the filter behind it.
    pub fn path(&self, path: &str, more: &[(&str, &str)]) -> String {
        let given = self.query();
        let given = given.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied());
        let parts: Vec<_> = given.map(|(name, value)| format!("{name}={}", encode(value))).collect();
        if parts.is_empty() { path.to_owned() } else { format!("{path}?{}", parts.join("&")) }
    }
}

/// Which ones a change is about.
#[derive(Clone, Debug, clap::Args)]
pub struct ChosenArgs {
    /// Their ids; or name them by what they have in common, or all.
    ids: Vec<Uuid>,
    /// All there are.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

impl ChosenArgs {
    pub fn filter(&self) -> &FilterArgs {
        &self.filter
    }

    pub fn ids(&self) -> &[Uuid] {
        &self.ids
    }

    /// The bodies that name them: one for a filter, and as many as it takes for ids.
    pub fn bodies(&self) -> anyhow::Result<Vec<Map<String, Value>>> {
        let query = self.filter.query();
        let body = |name: &str, value: Value| Map::from_iter([(name.to_owned(), value)]);
        match (self.ids.is_empty(), query.is_empty(), self.all) {
            (false, true, false) => Ok(self.ids.chunks(IDS_AT_ONCE).map(|ids| body("ids", json!(ids))).collect()),
            (true, false, false) | (true, true, true) => {
                let filter = query.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value)));
                Ok(vec![body("filter", Value::Object(filter.collect()))])
            }
            (true, true, false) => {
                bail!("which ones?\nhint: give ids, or what they have in common (--cause, …), or --all")
            }
            _ => bail!("give one of ids, what they have in common (--cause, …), and --all"),
        }
    }
}

/// Makes a change of all that are meant, call by call. Whoever waits sees how far it came.
pub async fn change(
    client: &Client,
    path: &str,
    bodies: Vec<Map<String, Value>>,
    beside: &[(&str, Value)],
    mut each: impl FnMut(Value),
) -> anyhow::Result<()> {
    for mut body in bodies {
        body.extend(
            beside
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );
        loop {
            let answer = client.post(path, &Value::Object(body.clone()), &[]).await?;
            let next = answer["nextCursor"].clone();
            each(answer);
            if next.is_null() {
                break;
            }
            body.insert("cursor".into(), next);
        }
    }
    Ok(())
}

/// Makes a change that only counts.
pub async fn change_counted(
    client: &Client,
    path: &str,
    bodies: Vec<Map<String, Value>>,
    beside: &[(&str, Value)],
) -> anyhow::Result<(u64, u64)> {
    let (mut changed, mut skipped) = (0, 0);
    change(client, path, bodies, beside, |answer| {
        changed += answer["changed"].as_u64().unwrap_or_default();
        skipped += answer["skipped"].as_u64().unwrap_or_default();
    })
    .await?;
    Ok((changed, skipped))
}

/// Lists what a path has.
pub async fn list(
    client: &Client,
    path: &str,
    filter: &FilterArgs,
    limit: u32,
    printer: Printer,
) -> anyhow::Result<()> {
    let (items, more) = client.list(path, &filter.query(), limit as usize).await?;
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

fn line(item: &Value) -> String {
    let cause = [field(item, "cause"), field(item, "code"), field(item, "detail")];
    let cause: Vec<_> = cause.into_iter().filter(|part| !part.is_empty()).collect();
    format!(
        "{}  {}  {:<8}  {:<16}  {}\n",
        field(item, "id"),
        field(item, "since"),
        field(item, "channel"),
        field(item, "recipient"),
        cause.join(" "),
    )
}
