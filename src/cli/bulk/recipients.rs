//! Whom a bulk send goes to: ids from a file, rows of a table, or contacts that the service finds.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::Row;
use crate::cli::client::{Client, field};
use crate::cli::records::AddressArgs;
use crate::domain::Channel;
use crate::import::{TableRecipient, read_recipients};

/// The API takes no more at a time …
const MOST_AT_ONCE: usize = 100_000;
/// … and no more bytes than `http.body_limit_bytes`, 32 MiB unless set; this leaves room for the rest of the body.
const MOST_BYTES: usize = 24 * 1024 * 1024;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "To whom")]
#[group(id = "source", required = true, multiple = false, args = ["contact_ids_file", "csv", "all_contacts"])]
pub(super) struct SourceArgs {
    /// Contacts: a file with an id a line; `-` reads standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["search", "AddressArgs"])]
    contact_ids_file: Option<PathBuf>,
    /// A table with a column for the recipient or the contact, and data of their own; `-` reads standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["search", "AddressArgs"])]
    csv: Option<PathBuf>,
    /// All contacts that the service keeps, or those that are found.
    #[arg(long)]
    all_contacts: bool,
    /// Of all contacts, those with words that begin so, in any field.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    #[command(flatten)]
    address: AddressArgs,
}

/// Each contact or row once or more: the API finds what is given twice.
#[derive(Debug, PartialEq)]
pub(super) enum Recipients {
    Contacts(Vec<String>),
    Rows(Vec<Row>),
}

impl SourceArgs {
    pub(super) fn is_everybody(&self) -> bool {
        self.all_contacts
    }

    pub(super) async fn read(self, client: &Client, channel: Channel) -> anyhow::Result<Recipients> {
        if let Some(file) = &self.contact_ids_file {
            let text = String::from_utf8(read(file).await?)
                .map_err(|_| anyhow!("{} is no text in UTF-8: it holds a contact id a line", file.display()))?;
            return contacts(text.lines(), &format!("{} names no contact", file.display()));
        }
        if let Some(file) = &self.csv {
            let rows = read_recipients(&read(file).await?, channel)
                .map_err(|problem| anyhow!("{}, {problem}", file.display()))?;
            return Ok(Recipients::Rows(rows.into_iter().map(row).collect()));
        }
        let mut query = self.address.into_query();
        query.extend(self.search.map(|text| ("search", text)));
        let (found, _) = client.list("/v1/contacts", &query, usize::MAX).await?;
        let ids: Vec<_> = found.iter().map(|contact| field(contact, "id")).collect();
        contacts(ids.iter().map(String::as_str), "no contact was found\nhint: `vestnik records list contacts` looks")
    }
}

impl Recipients {
    pub(super) fn len(&self) -> usize {
        match self {
            Recipients::Contacts(ids) => ids.len(),
            Recipients::Rows(rows) => rows.len(),
        }
    }

    /// What each call has: the name of its field, and its recipients. The same ones are always parted in the same way.
    pub(super) fn calls(&self) -> Vec<(&'static str, Value)> {
        match self {
            Recipients::Contacts(ids) => ids.chunks(MOST_AT_ONCE).map(|ids| ("contactIds", json!(ids))).collect(),
            Recipients::Rows(rows) => {
                let mut calls: Vec<Vec<&Row>> = Vec::new();
                let mut bytes = MOST_BYTES;
                for row in rows {
                    let size = json!(row).to_string().len() + 1;
                    if bytes + size > MOST_BYTES || calls.last().is_some_and(|call| call.len() >= MOST_AT_ONCE) {
                        calls.push(Vec::new());
                        bytes = 0;
                    }
                    bytes += size;
                    if let Some(call) = calls.last_mut() {
                        call.push(row);
                    }
                }
                calls.into_iter().map(|rows| ("recipients", json!(rows))).collect()
            }
        }
    }
}

fn contacts<'a>(ids: impl Iterator<Item = &'a str>, none: &str) -> anyhow::Result<Recipients> {
    let ids: Vec<_> = ids.map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned).collect();
    if ids.is_empty() {
        bail!("{none}");
    }
    Ok(Recipients::Contacts(ids))
}

fn row(found: TableRecipient) -> Row {
    let mut row = Row::new();
    row.extend(found.recipient.map(|recipient| ("recipient".to_owned(), recipient.into())));
    row.extend(found.contact_id.map(|id| ("contactId".to_owned(), id.into())));
    if !found.data.is_empty() {
        row.insert("data".to_owned(), found.data.into());
    }
    row
}

async fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        tokio::io::stdin().read_to_end(&mut bytes).await.context("could not read standard input")?;
        return Ok(bytes);
    }
    tokio::fs::read(file).await.with_context(|| format!("could not read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_one_call_takes_go_in_several() {
        let ids: Vec<_> = (0..250_000).map(|n| format!("c{n}")).collect();
        let calls = Recipients::Contacts(ids.clone()).calls();
        assert_eq!(
            calls.iter().map(|(_, ids)| ids.as_array().unwrap().len()).collect::<Vec<_>>(),
            [100_000, 100_000, 50_000]
        );
        let text = "x".repeat(1024 * 1024);
        let wide = |n: usize| Row::from_iter([("recipient".to_owned(), json!(format!("{n}{text}")))]);
        let rows = Recipients::Rows((0..50).map(wide).collect());
        let calls = rows.calls();
        assert_eq!(calls.iter().map(|(_, rows)| rows.as_array().unwrap().len()).sum::<usize>(), 50);
        assert_eq!(calls.len(), 3);
        assert!(calls.iter().all(|(_, rows)| rows.to_string().len() <= MOST_BYTES + 2));
    }

    #[test]
    fn a_row_says_only_what_it_has() {
        let found = TableRecipient { recipient: None, contact_id: Some("c1".into()), data: Row::new() };
        assert_eq!(Value::Object(row(found)), json!({ "contactId": "c1" }));
        assert!(contacts(["", " "].into_iter(), "there is none").is_err());
    }
}
