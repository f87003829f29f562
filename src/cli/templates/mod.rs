//! `vestnik templates`: texts with variables, kept by the server.

mod files;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::client::{Client, ServerArgs, encode, field, printable};
use super::{Ended, Printer};
use crate::cli::about::AboutArgs;
use crate::cli::notifications;
use crate::config::Settings;
use crate::domain::Channel;

const EXAMPLES: &str = "\
Examples:
  vestnik templates save order-ready order-ready.json
  echo '{\"text\": \"Здравствуйте, {{ name }}!\"}' | vestnik templates save hello -
  vestnik templates show order-ready --version 1
  vestnik templates list --json
  vestnik templates export templates/         # a file each, to keep in git …
  vestnik templates apply templates/          # … and back: shows the difference first

A file holds the parts of a template: text, smsText, whatsappText, telegramHtml, whatsappTemplate (name, language, header, body, buttons), email (subject, html, text); and under locales the same in other languages.";

/// List, show, save and delete templates.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct TemplatesArgs {
    #[command(subcommand)]
    command: TemplatesCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TemplatesCommand {
    /// List them by name.
    List {
        /// So many at most.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show the current version, or an older one.
    #[command(disable_version_flag = true)]
    Show {
        /// Its name.
        id: String,
        /// An older version.
        #[arg(long = "version", value_name = "N", id = "template_version")]
        version: Option<i32>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Save a file as the next version. Nothing changes for what was accepted before.
    Save {
        /// Its name: letters, digits, `.`, `_`, `-`.
        id: String,
        /// JSON or TOML, by its extension; `-` reads JSON from standard input.
        file: PathBuf,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Send it now to one address of yours, and say what became of it. `vestnik preview` sends nothing.
    Test {
        /// Its name.
        id: String,
        /// `whatsapp`, `telegram`, `sms` or `email`.
        #[arg(long)]
        channel: Channel,
        /// Your own phone number, email address or Telegram chat id.
        #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
        to: String,
        /// A named account of the channel; else `main`, or the only one.
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
        #[command(flatten)]
        about: AboutArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Save what differs in a folder of files, after the difference was shown.
    Apply {
        #[command(flatten)]
        args: files::ApplyArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Write each template to a file of a folder.
    Export {
        #[command(flatten)]
        args: files::ExportArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete one. Its versions stay readable for what was sent with them.
    Delete {
        /// Its name.
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub async fn run(
    args: TemplatesArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    match args.command {
        TemplatesCommand::List { limit, server } => {
            let client = Client::find(server, settings)?;
            let (items, more) = client.list("/v1/templates", &[], limit as usize).await?;
            printer.either(&json!({ "items": items, "more": more }), || list_in_words(&items, more))?;
        }
        TemplatesCommand::Show { id, version, server } => {
            let query = version.map(|version| format!("?version={version}")).unwrap_or_default();
            let saved = Client::find(server, settings)?.get(&format!("{}{query}", path(&id))).await?;
            printer.either(&saved, || in_words(&saved))?;
        }
        TemplatesCommand::Save { id, file, server } => {
            let body = load(&file)?;
            let saved = Client::find(server, settings)?.put(&path(&id), &body).await?;
            printer.either(&saved, || {
                let (id, version) = (field(&saved, "id"), field(&saved, "version"));
                format!("saved {id}, version {version}; {}\n{}", variables(&saved), warnings(&saved))
            })?;
        }
        TemplatesCommand::Test { id, channel, to, account, about, server } => {
            let (context, data) = about.read()?;
            let mut body = json!({ "channel": channel, "recipient": to });
            for (name, value) in [("account", account.map(Value::from)), ("context", context), ("data", data)] {
                if let Some(value) = value {
                    body[name] = value;
                }
            }
            let client = Client::find(server, settings)?;
            let view = client.post(&format!("{}/test", path(&id)), &body, &[]).await?;
            printer.either(&view, || notifications::in_words(&view))?;
            return Ok(notifications::ended(&view));
        }
        TemplatesCommand::Apply { args, server } => {
            return files::apply(args, &Client::find(server, settings)?, printer).await;
        }
        TemplatesCommand::Export { args, server } => {
            return files::export(args, &Client::find(server, settings)?, printer).await;
        }
        TemplatesCommand::Delete { id, server } => {
            Client::find(server, settings)?.delete(&path(&id)).await?;
            printer.either(&json!({ "id": id, "deleted": true }), || format!("deleted {}\n", printable(&id)))?;
        }
    }
    Ok(Ended::Well)
}

fn path(id: &str) -> String {
    format!("/v1/templates/{}", encode(id))
}

/// A template's file, or JSON from standard input.
pub(super) fn load(file: &Path) -> anyhow::Result<Value> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("could not read standard input")?;
        return serde_json::from_str(&text).context("standard input is not JSON");
    }
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("could not read {shown}"))?;
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("json") => serde_json::from_str(&text).with_context(|| format!("{shown} is not JSON")),
        Some("toml") => toml::from_str(&text).with_context(|| format!("{shown} is not TOML")),
        Some(_) | None => bail!("{shown} is neither .json nor .toml\nhint: `-` reads JSON from standard input"),
    }
}

fn list_in_words(items: &[Value], more: bool) -> String {
    if items.is_empty() {
        return "there is none: `vestnik templates save ID FILE` makes one\n".into();
    }
    let line = |saved: &Value| {
        format!(
            "{:<24}  v{:<4}  {}  {:<28}  {}\n",
            field(saved, "id"),
            field(saved, "version"),
            field(saved, "savedAt"),
            parts(saved),
            field(saved, "description"),
        )
    };
    let mut text: String = items.iter().map(line).collect();
    if more {
        text.push_str("there are more: --limit shows them\n");
    }
    text
}

const PARTS: [&str; 6] = ["text", "smsText", "whatsappText", "whatsappTemplate", "telegramHtml", "email"];

/// `text,email ru; text en`.
fn parts(saved: &Value) -> String {
    let of = |variant: &Value| PARTS.into_iter().filter(|name| !variant[*name].is_null()).collect::<Vec<_>>().join(",");
    let mut all = of(saved);
    if let Some(locale) = saved["locale"].as_str() {
        all.push_str(&format!(" {}", printable(locale)));
    }
    for (locale, variant) in saved["locales"].as_object().into_iter().flatten() {
        all.push_str(&format!("; {} {}", of(variant), printable(locale)));
    }
    all
}

/// A line for each thing worth a look.
pub(super) fn warnings(saved: &Value) -> String {
    let line = |warning: &Value| {
        let place = &warning["place"];
        match place["part"].as_str() {
            None | Some("") => format!("warning: {}\n", field(warning, "message")),
            Some(part) => format!(
                "warning: {}, line {}, column {}: {}\n",
                printable(part),
                field(place, "line"),
                field(place, "column"),
                field(warning, "message")
            ),
        }
    };
    saved["warnings"].as_array().into_iter().flatten().map(line).collect()
}

fn variables(saved: &Value) -> String {
    let names: Vec<_> =
        saved["variables"].as_array().into_iter().flatten().filter_map(Value::as_str).map(printable).collect();
    if names.is_empty() { "no variables".into() } else { format!("variables: {}", names.join(", ")) }
}

fn in_words(saved: &Value) -> String {
    let mut text = format!(
        "{}, version {}, saved {}\n{}\n{}",
        field(saved, "id"),
        field(saved, "version"),
        field(saved, "savedAt"),
        variables(saved),
        warnings(saved),
    );
    for part in ["description", "policy", "locale"] {
        part_in_words(&mut text, part, &saved[part]);
    }
    variant_in_words(&mut text, "", saved);
    for (locale, variant) in saved["locales"].as_object().into_iter().flatten() {
        variant_in_words(&mut text, &format!("{} ", printable(locale)), variant);
    }
    text
}

fn variant_in_words(text: &mut String, locale: &str, variant: &Value) {
    for part in PARTS {
        part_in_words(text, &format!("{locale}{part}"), &variant[part]);
    }
    for part in ["subject", "html", "text"] {
        part_in_words(text, &format!("{locale}email {part}"), &variant["email"][part]);
    }
}

fn part_in_words(text: &mut String, name: &str, part: &Value) {
    if let Some(source) = part.as_str() {
        text.push_str(&format!("\n{name}:\n"));
        for line in source.lines() {
            text.push_str(&format!("  {}\n", printable(line)));
        }
    } else if part.is_object() && !name.ends_with("email") {
        // A Value always becomes JSON.
        let json = serde_json::to_string_pretty(part).unwrap_or_default();
        text.push_str(&format!("\n{name}:\n{json}\n"));
    }
}
