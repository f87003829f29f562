//! `vestnik openapi`: the API's description.

use super::{Ended, Printer};
use crate::http;

/// Print the OpenAPI 3.1 document of the API.
#[derive(Debug, clap::Args)]
pub struct OpenapiArgs {}

pub fn run(_: OpenapiArgs, printer: Printer) -> anyhow::Result<Ended> {
    printer.line(http::openapi().to_pretty_json()?)?;
    Ok(Ended::Well)
}
