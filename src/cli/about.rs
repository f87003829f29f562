//! What a notification is about, as arguments: records by id, and values.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use crate::domain::{GivenTime, GivenTimeError};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What it is about")]
pub struct AboutArgs {
    /// A contact; it is written to if no address is given.
    #[arg(long, value_name = "ID")]
    contact: Option<String>,
    /// A lead; brings its contact, company and manager along.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    lead: Option<i64>,
    /// A deal; brings its contact, company and manager along.
    #[arg(long, value_name = "ID")]
    deal: Option<String>,
    /// A company.
    #[arg(long, value_name = "ID")]
    company: Option<String>,
    #[command(flatten)]
    data: DataArgs,
}

/// Values of the call.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What it is about")]
pub struct DataArgs {
    /// A variable of the template; a dot makes it a part of a record: `order.number=1042`. Repeatable.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    data: Vec<(String, String)>,
    /// The variables as a JSON object; `--data` is laid over it.
    #[arg(long, value_name = "JSON")]
    data_json: Option<String>,
}

impl DataArgs {
    /// `data` as the API takes it, where anything was given.
    pub fn read(self) -> anyhow::Result<Option<Value>> {
        let data = data(self.data_json.as_deref(), self.data)?;
        Ok((!data.is_empty()).then_some(Value::Object(data)))
    }
}

impl AboutArgs {
    /// `context` and `data` as the API takes them, where anything was given.
    pub fn read(self) -> anyhow::Result<(Option<Value>, Option<Value>)> {
        let records = [
            ("contactId", self.contact.map(Value::from)),
            ("leadId", self.lead.map(Value::from)),
            ("dealId", self.deal.map(Value::from)),
            ("companyId", self.company.map(Value::from)),
        ];
        let records: Map<_, _> = records.into_iter().filter_map(|(name, id)| Some((name.to_owned(), id?))).collect();
        Ok(((!records.is_empty()).then_some(Value::Object(records)), self.data.read()?))
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("expected NAME=VALUE".to_owned()),
    }
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

/// A time as the API takes it: the account's time zone is the server's to know.
pub fn time(text: &str) -> Result<String, GivenTimeError> {
    text.parse::<GivenTime>().map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
