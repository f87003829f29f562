//! `vestnik records`: contacts, leads, deals and companies, one by one.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::client::{Client, ServerArgs, encode, field, printable};
use super::{Ended, Printer};
use crate::config::Settings;
use crate::domain::RecordKind;

const EXAMPLES: &str = "\
Examples:
  vestnik records put contacts c1 --field name=Анна --field phone='+7 999 123-45-67'
  vestnik records put leads 42 --json-body '{\"contactId\": \"c1\", \"tags\": [\"vip\"]}'
  vestnik records list contacts --search 'анна' --limit 20
  vestnik records list contacts --phone '+7 999 123-45-67'
  vestnik records show contacts c1 --json
  vestnik records delete contacts c1

`vestnik import` brings many in from a file.";

/// What a listing shows of a record beside its id, of every kind.
const SHOWN: [&str; 4] = ["name", "phone", "email", "telegramChatId"];

/// List, show, save and delete contacts, leads, deals and companies.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct RecordsArgs {
    #[command(subcommand)]
    command: RecordsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum RecordsCommand {
    /// List them by id.
    List {
        /// `contacts`, `leads`, `deals` or `companies`.
        #[arg(value_parser = kind)]
        records: RecordKind,
        /// Those with words that begin so, in any field.
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        #[command(flatten)]
        address: AddressArgs,
        /// So many at most.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one with all its fields.
    Show {
        /// `contacts`, `leads`, `deals` or `companies`.
        #[arg(value_parser = kind)]
        records: RecordKind,
        /// Its id in the CRM.
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Save one. It replaces what was there under its id.
    Put {
        /// `contacts`, `leads`, `deals` or `companies`.
        #[arg(value_parser = kind)]
        records: RecordKind,
        /// Its id in the CRM.
        id: String,
        /// Its fields as a JSON object.
        #[arg(long, value_name = "JSON")]
        json_body: Option<String>,
        /// A field with a text; may be given many times. Laid over --json-body.
        #[arg(long = "field", value_name = "NAME=TEXT")]
        fields: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete one. What was sent about it stays.
    Delete {
        /// `contacts`, `leads`, `deals` or `companies`.
        #[arg(value_parser = kind)]
        records: RecordKind,
        /// Its id in the CRM.
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// A kind of record by the name of many.
pub fn kind(text: &str) -> Result<RecordKind, String> {
    RecordKind::from_plural(text).ok_or_else(|| "expected contacts, leads, deals or companies".to_owned())
}

/// An address that records have.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub struct AddressArgs {
    /// Those with this phone number.
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    phone: Option<String>,
    /// Those with this email address.
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Those with this Telegram chat.
    #[arg(long, value_name = "CHAT", allow_hyphen_values = true)]
    chat: Option<String>,
}

impl AddressArgs {
    /// As the API's list is narrowed.
    pub fn into_query(self) -> Vec<(&'static str, String)> {
        let given = [("sms", self.phone), ("email", self.email), ("telegram", self.chat)];
        let given = given.into_iter().find_map(|(channel, address)| Some((channel, address?)));
        given.map_or_else(Vec::new, |(channel, address)| vec![("channel", channel.to_owned()), ("address", address)])
    }
}

pub async fn run(
    args: RecordsArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    let path = |kind: RecordKind, id: &str| format!("/v1/{}/{}", kind.plural(), encode(id));
    match args.command {
        RecordsCommand::List { records, search, address, limit, server } => {
            let client = Client::find(server, settings)?;
            let mut query = address.into_query();
            query.extend(search.map(|text| ("search", text)));
            let path = format!("/v1/{}", records.plural());
            let (items, more) = client.list(&path, &query, limit as usize).await?;
            printer.either(&json!({ "items": items, "more": more }), || list_in_words(&items, more))?;
        }
        RecordsCommand::Show { records, id, server } => {
            let record = Client::find(server, settings)?.get(&path(records, &id)).await?;
            printer.either(&record, || in_words(&record))?;
        }
        RecordsCommand::Put { records, id, json_body, fields, server } => {
            let body = body(json_body.as_deref(), &fields)?;
            let saved = Client::find(server, settings)?.put(&path(records, &id), &body).await?;
            printer.either(&saved, || in_words(&saved))?;
        }
        RecordsCommand::Delete { records, id, server } => {
            Client::find(server, settings)?.delete(&path(records, &id)).await?;
            printer.either(&json!({ "id": id, "deleted": true }), || format!("deleted {}\n", printable(&id)))?;
        }
    }
    Ok(Ended::Well)
}

fn body(json_body: Option<&str>, fields: &[String]) -> anyhow::Result<Value> {
    let mut body = match json_body.map(serde_json::from_str).transpose().context("--json-body is not JSON")? {
        Some(Value::Object(body)) => body,
        Some(_) => bail!("--json-body is not a JSON object"),
        None if fields.is_empty() => bail!("a record has fields: give --field NAME=TEXT or --json-body"),
        None => Map::new(),
    };
    for given in fields {
        let (name, text) = given.split_once('=').with_context(|| format!("--field {given} is not NAME=TEXT"))?;
        body.insert(name.trim().to_owned(), text.into());
    }
    Ok(body.into())
}

fn list_in_words(items: &[Value], more: bool) -> String {
    if items.is_empty() {
        return "there is none\n".into();
    }
    let mut text = String::new();
    for record in items {
        let shown = SHOWN.map(|name| field(record, name)).into_iter().filter(|text| !text.is_empty());
        let line = format!("{:<16}  {}", field(record, "id"), shown.collect::<Vec<_>>().join("  "));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if more {
        text.push_str("there are more: --limit shows them\n");
    }
    text
}

/// The id first, times last.
fn in_words(record: &Value) -> String {
    let mut text = format!("id: {}\n", field(record, "id"));
    let names = record.as_object().into_iter().flat_map(Map::keys).map(String::as_str);
    for name in names.filter(|name| !["id", "_meta"].contains(name) && !record[*name].is_null()) {
        text.push_str(&format!("{}: {}\n", printable(name), field(record, name)));
    }
    let meta = &record["_meta"];
    text.push_str(&format!("saved {}, first {}\n", field(meta, "updatedAt"), field(meta, "createdAt")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_laid_over_the_body() {
        let fields = ["name=Анна=2".to_owned(), "age=31".to_owned()];
        let body = body(Some(r#"{"age": 30, "tags": []}"#), &fields).unwrap();
        assert_eq!(body, json!({ "name": "Анна=2", "age": "31", "tags": [] }));
        for (json_body, fields) in [(None, vec![]), (Some("[]"), vec![]), (Some("{"), vec![]), (None, vec!["x".into()])]
        {
            assert!(super::body(json_body, &fields).is_err());
        }
    }

    #[test]
    fn a_record_is_shown_on_lines() {
        let record = json!({
            "_meta": { "createdAt": "t1", "updatedAt": "t2" }, "id": "c1", "name": "Анна\u{1b}",
            "address": { "city": "Омск" },
        });
        insta::assert_snapshot!(in_words(&record), @r#"
        id: c1
        address: {"city":"Омск"}
        name: Анна 
        saved t2, first t1
        "#);
        assert_eq!(list_in_words(&[record], false), "c1                Анна \n".replace(" \n", "\n"));
    }
}
