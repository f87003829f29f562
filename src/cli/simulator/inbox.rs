//! `vestnik simulator inbox`: what a running simulator took.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use hyper::{HeaderMap, Method};
use serde::Deserialize;

use crate::channels::HttpClient;
use crate::channels::http_client::{HttpLimits, HttpRequest};
use crate::cli::Printer;
use crate::cli::client::{encode, printable};
use crate::domain::Channel;
use crate::simulator::Taken;

/// List the messages that a running simulator took, as their recipients would see them.
#[derive(Debug, clap::Args)]
pub struct InboxArgs {
    /// Where the simulator is.
    #[arg(long, env = "VESTNIK_SIMULATOR_URL", value_name = "URL", default_value = "http://127.0.0.1:8090")]
    url: String,
    /// One channel only: whatsapp, telegram, sms or email.
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<Channel>,
    /// Only messages with this in their recipient or text.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// How many of the newest to show.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    /// Go on showing what comes, until Ctrl-C.
    #[arg(long)]
    follow: bool,
}

/// Between two looks at what is new.
const PAUSE: Duration = Duration::from_millis(300);
/// A page of ten thousand long mails.
const LIMITS: HttpLimits =
    HttpLimits { connect: Duration::from_secs(5), total: Duration::from_secs(30), body_bytes: 512 * 1024 * 1024 };

#[derive(Deserialize)]
struct Page {
    items: Vec<Taken>,
    next: Option<u64>,
}

pub(super) async fn run(args: InboxArgs, printer: Printer) -> anyhow::Result<()> {
    let http = HttpClient::new();
    let filter = filter(&args);
    // What is taken between the two is shown by the second.
    let mut after = last(&http, &args.url).await?;
    let mut page = get(&http, &args.url, &format!("newest=true&limit={}{filter}", args.limit)).await?;
    page.items.retain(|taken| taken.n <= after);
    page.items.reverse();
    for taken in &page.items {
        print(taken, printer)?;
    }
    if page.items.is_empty() && !args.follow && !printer.is_json() {
        printer.line("nothing was taken that fits")?;
    }
    if !args.follow {
        return Ok(());
    }
    loop {
        let page = get(&http, &args.url, &format!("after={after}&limit=1000{filter}")).await?;
        for taken in &page.items {
            print(taken, printer)?;
        }
        match page.next {
            Some(next) => after = next,
            None => {
                after = page.items.last().map_or(after, |taken| taken.n);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn filter(args: &InboxArgs) -> String {
    let mut filter = String::new();
    if let Some(channel) = args.channel {
        filter.push_str(&format!("&channel={channel}"));
    }
    if let Some(search) = &args.search {
        filter.push_str(&format!("&search={}", encode(search)));
    }
    filter
}

/// The number of the newest message.
async fn last(http: &HttpClient, url: &str) -> anyhow::Result<u64> {
    let page = get(http, url, "newest=true&limit=1").await?;
    Ok(page.items.first().map_or(0, |taken| taken.n))
}

async fn get(http: &HttpClient, url: &str, query: &str) -> anyhow::Result<Page> {
    let base = url.trim_end_matches('/');
    let uri = format!("{base}/_sim/taken?{query}");
    let uri = uri.parse().map_err(|_| anyhow!("{url} is no address\nhint: give it as http://HOST:PORT"))?;
    let request = HttpRequest { method: Method::GET, uri, headers: HeaderMap::new(), body: Bytes::new() };
    let answer = http.send(request, &LIMITS).await.map_err(|error| {
        anyhow!(
            "no simulator answers at {base}: {}\nhint: start it with `vestnik simulator`, or say --url",
            error.chain()
        )
    })?;
    if !answer.status.is_success() {
        bail!("{base} answered {}: {}", answer.status, printable(&String::from_utf8_lossy(&answer.body)));
    }
    serde_json::from_slice(&answer.body).with_context(|| format!("{base} does not answer as a simulator does"))
}

fn print(taken: &Taken, printer: Printer) -> anyhow::Result<()> {
    printer.either(taken, || text(taken))
}

/// A line of facts, then what the person reads, indented.
fn text(taken: &Taken) -> String {
    let sender = match (&taken.email, &taken.sms) {
        (Some(email), _) => email.from.as_str(),
        (None, Some(sms)) => sms.from.as_deref().unwrap_or(&taken.account),
        (None, None) => taken.account.as_str(),
    };
    let mut text = format!(
        "{}  {}  {:<8}  {} → {}\n",
        taken.n,
        taken.at.strftime("%Y-%m-%d %H:%M:%SZ"),
        taken.channel.as_str(),
        printable(sender),
        printable(&taken.recipient)
    );
    if let Some(subject) = &taken.subject {
        text.push_str(&format!("    {}\n", printable(subject)));
    }
    let shown = match (&taken.text, &taken.template) {
        (Some(text), _) => text.clone(),
        (None, Some(template)) => format!("template {template}"),
        (None, None) => "(HTML only)".to_owned(),
    };
    for line in shown.trim_end().lines() {
        text.push_str(&format!("    {}\n", printable(line)));
    }
    for file in taken.email.iter().flat_map(|email| &email.attachments) {
        let (name, kind) = (printable(&file.name), printable(&file.content_type));
        text.push_str(&format!("    attached: {name}, {kind}, {} bytes\n", file.size_bytes));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_shown_without_its_control_characters() {
        let taken = serde_json::json!({
            "n": 7, "channel": "email", "account": "sim", "recipient": "a@b.c", "text": "one\ntwo\u{1b}[2J\n",
            "subject": "Hello", "ourId": null, "providerMessageId": "F", "at": "2026-01-01T00:00:00Z",
            "email": { "from": "x@y.z", "client": "c", "tls": false, "sizeBytes": 3, "headers": [],
                "attachments": [{ "name": "Bill.pdf", "contentType": "application/pdf", "sizeBytes": 4 }] },
        });
        let taken: Taken = serde_json::from_value(taken).expect("an entry");
        let expected = "7  2026-01-01 00:00:00Z  email     x@y.z → a@b.c\n    Hello\n    one\n    two [2J\n    \
                        attached: Bill.pdf, application/pdf, 4 bytes\n";
        assert_eq!(text(&taken), expected);
    }
}
