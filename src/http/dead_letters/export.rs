//! `GET /v1/dead-letters/export`: all of them as a file, written as it is read.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use serde::Deserialize;

use super::super::Api;
use super::super::auth::Caller;
use super::super::extract::ValidQuery;
use super::super::problem::{FieldError, Problem};
use super::super::undecided::{UndecidedView, narrowed};
use crate::domain::NotificationId;
use crate::store::{Scope, StoreError, UndecidedFilter};

/// Dead letters held in memory at a time.
const STEP: u32 = 500;

const COLUMNS: [&str; 13] = [
    "id",
    "since",
    "channel",
    "account",
    "recipient",
    "cause",
    "code",
    "detail",
    "templateId",
    "batchId",
    "contactId",
    "externalId",
    "createdAt",
];

#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// With a line of column names; UTF-8.
    #[default]
    Csv,
    /// A JSON object on each line.
    Ndjson,
}

narrowed! {
    /// Which ones, and as what.
    #[derive(utoipa::IntoParams)]
    #[into_params(parameter_in = Query)]
    ExportQuery {
        /// `csv`, or `ndjson`.
        #[param(inline)]
        format: Format,
    }
}

/// All dead letters as a file, newest first.
///
/// In CSV a cell that a spreadsheet would take for a formula (it begins with `=`, `+`, `-`, `@`, a tab or a line end)
/// has an apostrophe before it. A sign with digits alone, like a phone number or the id of a Telegram group, is a number
/// to a spreadsheet and stays as it is.
#[utoipa::path(
    get, path = "/v1/dead-letters/export", tag = "dead-letters", security(("key" = [])),
    params(ExportQuery),
    responses((status = 200, content_type = "text/csv", description = "The file; one that breaks off is not whole"))
)]
pub(in crate::http) async fn export(
    State(api): State<Api>,
    caller: Caller,
    ValidQuery(query): ValidQuery<ExportQuery>,
) -> Result<Response, Problem> {
    caller.may(Scope::Read)?;
    let filter = query.filter("").map_err(Problem::invalid)?;
    let format = query.format;
    let step = Step { api, filter, format, after: None, is_first: true };
    // A ledger that is away is a problem, and not a file without an end.
    let Some((first, rest)) = step.next().await? else { return Ok(Body::empty().into_response()) };
    let rest = stream::try_unfold(rest, |step| async move {
        let Some(step) = step else { return Ok(None) };
        step.next().await.inspect_err(|error| {
            tracing::error!(error = error as &dyn std::error::Error, "an export of dead letters broke off");
        })
    });
    let body = Body::from_stream(futures::StreamExt::chain(stream::iter([Ok::<_, StoreError>(first)]), rest));
    let (content_type, disposition) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"dead-letters.csv\""),
        Format::Ndjson => ("application/x-ndjson", "attachment; filename=\"dead-letters.ndjson\""),
    };
    Ok(([(header::CONTENT_TYPE, content_type), (header::CONTENT_DISPOSITION, disposition)], body).into_response())
}

/// Where an export stands.
struct Step {
    api: Api,
    filter: UndecidedFilter,
    format: Format,
    after: Option<NotificationId>,
    is_first: bool,
}

impl Step {
    /// The next piece, and what follows it.
    async fn next(mut self) -> Result<Option<(Bytes, Option<Step>)>, StoreError> {
        let page = self.api.store.dead_letters(self.filter.clone(), self.after, STEP).await?;
        self.after = page.items.last().map(|last| last.id);
        let letters: Vec<_> = page.items.into_iter().map(UndecidedView::from).collect();
        let piece = match self.format {
            Format::Csv => csv_lines(&letters, self.is_first),
            Format::Ndjson => json_lines(&letters),
        };
        let piece = piece.map_err(|error| StoreError::refused("writing an export", error))?;
        self.is_first = false;
        Ok(Some((piece.into(), page.more.then_some(self))))
    }
}

fn json_lines(letters: &[UndecidedView]) -> std::io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for letter in letters {
        serde_json::to_writer(&mut lines, letter)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

fn csv_lines(letters: &[UndecidedView], with_names: bool) -> std::io::Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    if with_names {
        writer.write_record(COLUMNS)?;
    }
    for letter in letters {
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        let cells: [String; COLUMNS.len()] = [
            letter.id.to_string(),
            letter.since.to_string(),
            letter.channel.to_string(),
            letter.account.clone(),
            letter.recipient.clone(),
            letter.cause.clone(),
            letter.code.clone(),
            letter.detail.clone(),
            or_empty(&letter.template_id.as_ref().map(ToString::to_string)),
            or_empty(&letter.batch_id.map(|batch| batch.to_string())),
            or_empty(&letter.contact_id),
            or_empty(&letter.external_id),
            letter.created_at.to_string(),
        ];
        writer.write_record(cells.map(no_formula))?;
    }
    writer.into_inner().map_err(|error| error.into_error())
}

/// A cell that no spreadsheet takes for a formula.
fn no_formula(cell: String) -> String {
    let is_number = || cell.len() > 1 && cell[1..].bytes().all(|byte| byte.is_ascii_digit());
    match cell.bytes().next() {
        Some(b'+' | b'-') if is_number() => cell,
        Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r' | b'\n') => format!("'{cell}"),
        _ => cell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        for (cell, shown) in [
            ("=1+1", "'=1+1"),
            ("+7 999", "'+7 999"),
            ("-2+3", "'-2+3"),
            ("@durov_news", "'@durov_news"),
            ("\t=1", "'\t=1"),
            ("\r=1", "'\r=1"),
            ("+", "'+"),
            ("+79991234567", "+79991234567"),
            ("-1001234567890", "-1001234567890"),
            ("Анна = да", "Анна = да"),
            ("", ""),
        ] {
            assert_eq!(no_formula(cell.into()), shown);
        }
    }
}
