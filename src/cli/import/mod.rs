//! `vestnik import`: a file of CRM records, sent to the server as it is read.

mod answer;
mod progress;

use std::path::{Path, PathBuf};
use std::task::Poll;

use anyhow::{Context as _, bail};
use clap::builder::PossibleValuesParser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use self::answer::{RejectedRows, Report};
use self::progress::Progress;
use super::client::{Client, ServerArgs, encode};
use super::records::kind;
use super::{Ended, Printer};
use crate::config::Settings;
use crate::domain::RecordKind;

/// What is read of the file at once.
const PIECE_BYTES: usize = 64 * 1024;

const EXAMPLES: &str = "\
Examples:
  vestnik import contacts contacts.csv --dry-run
  vestnik import contacts contacts.csv --map 'Моб. тел.=phone' --map 'Комментарий=' --rejected rejected.csv
  vestnik import leads leads.ndjson --replace --json
  zcat deals.csv.gz | vestnik import deals -

Exit codes: 0 all rows were taken, 1 some were rejected, 2 the file could not be read to its end.";

/// Bring CRM records in from a file: CSV with a header, or a JSON object a line.
///
/// Encoding and delimiter are recognised. A column becomes a field by its header: `id` (or ИД, код), `phone`
/// (телефон), `email` (почта), `telegramChatId` (телеграм), `locale` (язык), `timezone` (часовой пояс), `name` (имя);
/// any other header is a field of that name. The same file again changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ImportArgs {
    /// `contacts`, `leads`, `deals` or `companies`.
    #[arg(value_parser = kind)]
    records: RecordKind,
    /// The file; `-` reads standard input.
    file: PathBuf,
    /// What the file is; else by its extension, else recognised.
    #[arg(long, value_parser = PossibleValuesParser::new(["csv", "ndjson"]))]
    format: Option<String>,
    /// `utf-8`, `utf-16le`, `utf-16be` or `windows-1251`; else recognised.
    #[arg(long)]
    encoding: Option<String>,
    /// What parts cells: a character, or `comma`, `semicolon`, `tab`, `pipe`; else recognised.
    #[arg(long)]
    delimiter: Option<String>,
    /// The field that a column becomes; `HEADER=` drops it. May be given many times.
    #[arg(long, value_name = "HEADER=FIELD")]
    map: Vec<String>,
    /// Replace whole records: fields that the file does not name go.
    #[arg(long)]
    replace: bool,
    /// Check everything and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Write rejected rows here, with line and reason: `.csv` to mend and import again, or `.ndjson`.
    #[arg(long, value_name = "FILE")]
    rejected: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(
    args: ImportArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    let path = path(&args);
    let content_type = content_type(&args);
    let (input, size) = open(&args.file).await?;
    if let Some(rejected) = &args.rejected
        && is_same_file(&args.file, rejected)
    {
        bail!("{} is the file to import: rejected rows would overwrite it", rejected.display());
    }
    let mut rejected = RejectedRows::create(args.rejected)?;
    let client = Client::find(args.server, settings)?;

    let progress = Progress::new(size);
    let count = progress.counter();
    let end = count.clone();
    let pieces = ReaderStream::with_capacity(input, PIECE_BYTES).inspect_ok(move |piece| count.add(piece.len())).chain(
        stream::poll_fn(move |_| {
            end.end();
            Poll::Ready(None)
        }),
    );
    let headers = [("content-type", content_type), ("accept", "application/x-ndjson, application/problem+json")];
    let mut answer = progress.show(client.upload(&path, &headers, pieces)).await?;
    if answer.status.is_success() {
        let mut report = answer::read(&client, &mut answer, &mut rejected).await?;
        let file = rejected.finish(&mut report)?;
        printer.either(&report.json, || report.in_words(file.as_deref()))?;
        return Ok(if report.count("rejected") == 0 { Ended::Well } else { Ended::Badly });
    }
    let status = answer.status;
    let body = client.read(answer).await?;
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    if problem["report"].is_object() {
        let mut report = Report::of_problem(&problem);
        for row in report.rows() {
            rejected.push(&report, &row)?;
        }
        let file = rejected.finish(&mut report)?;
        printer.either(&report.json, || report.in_words(file.as_deref()))?;
    }
    let error = client.problem(status, &body);
    match problem["line"].as_u64() {
        Some(line) => bail!("{}, line {line}: {error}", shown(&args.file)),
        None => Err(error),
    }
}

fn path(args: &ImportArgs) -> String {
    let mut query =
        vec![format!("mode={}", if args.replace { "replace" } else { "merge" }), format!("dryRun={}", args.dry_run)];
    for (name, value) in [("format", &args.format), ("encoding", &args.encoding), ("delimiter", &args.delimiter)] {
        query.extend(value.iter().map(|value| format!("{name}={}", encode(value))));
    }
    query.extend(args.map.iter().map(|mapping| format!("map={}", encode(mapping))));
    format!("/v1/{}/import?{}", args.records.plural(), query.join("&"))
}

/// By the extension, where it says enough.
fn content_type(args: &ImportArgs) -> &'static str {
    let extension = args.file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "csv" | "tsv" => "text/csv",
        "ndjson" | "jsonl" => "application/x-ndjson",
        _ => "application/octet-stream",
    }
}

/// What to read, and how long it is where that is known.
async fn open(file: &Path) -> anyhow::Result<(Box<dyn AsyncRead + Send + Unpin>, Option<u64>)> {
    if file == Path::new("-") {
        return Ok((Box::new(tokio::io::stdin()), None));
    }
    let failed = || format!("could not read {}", file.display());
    let opened = tokio::fs::File::open(file).await.with_context(failed)?;
    let metadata = opened.metadata().await.with_context(failed)?;
    if metadata.is_dir() {
        bail!("{} is a folder", file.display());
    }
    // A pipe says that it is empty.
    let size = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(opened), size))
}

fn shown(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(one).is_some_and(|one| real(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn arguments_become_a_request() {
        let cli = ["vestnik", "import", "deals", "d.JSONL", "--map", "Моб. тел.=phone", "--map", "a=", "--replace"];
        let Command::Import(args) = Cli::try_parse_from(cli).unwrap().command else { panic!("it is an import") };
        assert_eq!(content_type(&args), "application/x-ndjson");
        assert_eq!(
            path(&args),
            "/v1/deals/import?mode=replace&dryRun=false&map=%D0%9C%D0%BE%D0%B1.%20%D1%82%D0%B5%D0%BB.%3Dphone&map=a%3D"
        );
        assert_eq!((shown(&args.file), shown(Path::new("-"))), ("d.JSONL".to_owned(), "standard input".to_owned()));
        assert!(Cli::try_parse_from(["vestnik", "import", "people", "x.csv"]).is_err());
    }
}
