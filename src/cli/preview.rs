//! `vestnik preview`: what a template would say, without sending it.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::about::AboutArgs;
use super::client::{Client, ServerArgs, encode, field, printable};
use super::{Ended, Printer, templates};
use crate::config::Settings;
use crate::domain::Channel;

const EXAMPLES: &str = "\
Examples:
  vestnik preview order-ready --deal d-1042
  vestnik preview order-ready --deal d-1042 --locale en --channel sms
  vestnik preview --file order-ready.toml --data deal.number=1042

Exit code: 0 when every channel shown could send it, 1 when one could not.";

/// Fill a template in and show what each channel would send. Sends nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct PreviewArgs {
    /// A saved template …
    #[arg(required_unless_present = "file")]
    template: Option<String>,
    /// … or a draft: a file, JSON or TOML.
    #[arg(long, value_name = "FILE", conflicts_with = "template")]
    file: Option<PathBuf>,
    /// Only this channel.
    #[arg(long)]
    channel: Option<Channel>,
    /// The reader's language; else the contact's.
    #[arg(long, value_name = "LOCALE")]
    locale: Option<String>,
    #[command(flatten)]
    about: AboutArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(
    args: PreviewArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    let draft = args.file.as_deref().map(templates::load).transpose()?;
    let (context, data) = args.about.read()?;
    let mut body = json!({});
    let optional =
        [("template", draft), ("context", context), ("data", data), ("locale", args.locale.map(Value::from))];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    let id = args.template.unwrap_or_else(|| "draft".into());
    let client = Client::find(args.server, settings)?;
    let mut preview = client.post(&format!("/v1/templates/{}/preview", encode(&id)), &body, &[]).await?;
    if let (Some(channel), Some(channels)) = (args.channel, preview["channels"].as_array_mut()) {
        channels.retain(|shown| shown["channel"] == channel.as_str());
        anyhow::ensure!(!channels.is_empty(), "{} holds nothing that {channel} could send", printable(&id));
    }
    printer.either(&preview, || in_words(&preview))?;
    let can_send = channels(&preview).all(|channel| channel["error"].is_null());
    Ok(if can_send { Ended::Well } else { Ended::Badly })
}

fn channels(preview: &Value) -> impl Iterator<Item = &Value> {
    preview["channels"].as_array().into_iter().flatten()
}

/// The preview for people.
pub fn in_words(preview: &Value) -> String {
    let version = match &preview["version"] {
        Value::Null => "draft".to_owned(),
        version => format!("version {version}"),
    };
    let mut text = format!("{}, {version}\n", field(preview, "templateId"));
    for channel in channels(preview) {
        text.push_str(&format!("\n{}\n", head(channel)));
        if let Some(subject) = channel["subject"].as_str() {
            text.push_str(&format!("  │ {}\n  │\n", printable(subject)));
        }
        for line in channel["text"].as_str().unwrap_or_default().lines() {
            text.push_str(&format!("  │ {}\n", printable(line)));
        }
        if !channel["error"].is_null() {
            text.push_str(&format!("  ✗ {}\n", field(&channel["error"], "detail")));
        }
    }
    let list = |name: &str| {
        let items = preview[name].as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(printable).collect::<Vec<_>>().join(", ")
    };
    for (name, words) in [("missing", "missing"), ("unset", "not there, and done without")] {
        let names = list(name);
        if !names.is_empty() {
            text.push_str(&format!("\n{words}: {names}\n"));
        }
    }
    for missing in preview["missingRecords"].as_array().into_iter().flatten() {
        text.push_str(&format!("there is no {} {}\n", field(missing, "kind"), field(missing, "id")));
    }
    text.push_str(&templates::warnings(preview));
    text
}

/// `sms · ru · to +79991234567 · 71 of 1600 characters · UCS-2, 2 parts, 63 characters left`
fn head(channel: &Value) -> String {
    let mut head = vec![field(channel, "channel")];
    let mut add = |words: String| head.push(words);
    if channel["locale"].is_string() {
        add(field(channel, "locale"));
    }
    match (&channel["recipient"], &channel["noRecipient"]) {
        (Value::String(to), _) => add(format!("to {}", printable(to))),
        (_, Value::String(why)) => add(printable(why)),
        _ => {}
    }
    if channel["approved"].is_object() {
        let approved = &channel["approved"];
        add(format!("approved template {} ({})", field(approved, "name"), field(approved, "language")));
    }
    if channel["length"].is_object() {
        let length = &channel["length"];
        let what = if channel["subject"].is_string() { "subject " } else { "" };
        let unit = match &*field(length, "unit") {
            "utf16_units" => "UTF-16 units".to_owned(),
            unit => unit.to_owned(),
        };
        add(format!("{what}{} of {} {unit}", field(length, "length"), field(length, "limit")));
    }
    if channel["sms"].is_object() {
        let sms = &channel["sms"];
        let parts = if sms["parts"] == 1 { "part" } else { "parts" };
        let mut words = format!(
            "{}, {} {parts}, {} characters left",
            field(sms, "encoding"),
            field(sms, "parts"),
            field(sms, "charactersLeft"),
        );
        let because: String =
            sms["ucs2Because"].as_array().into_iter().flatten().filter_map(Value::as_str).take(5).collect();
        if !because.is_empty() {
            words.push_str(&format!(", because of {}", printable(&because)));
        }
        add(words);
    }
    head.join(" · ")
}
