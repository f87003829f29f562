//! The one way to standard output.

use std::io::Write as _;

use anyhow::Context as _;
use serde::Serialize;

/// Prints for people or, with `--json`, for programs.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    is_json: bool,
}

impl Printer {
    pub fn new(is_json: bool) -> Self {
        Printer { is_json }
    }

    pub fn is_json(self) -> bool {
        self.is_json
    }

    /// As it is, with no line end added. A reader that went away (`| head -1`) is no reason to fail.
    pub fn text(self, text: &str) -> anyhow::Result<()> {
        self.bytes(text.as_bytes())
    }

    /// A piece of something that is printed as it comes.
    pub fn bytes(self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(error).context("could not write to stdout")
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub fn line(self, line: impl AsRef<str>) -> anyhow::Result<()> {
        self.text(&format!("{}\n", line.as_ref()))
    }

    /// `value` for programs, `text` for people.
    pub fn either(self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        if self.is_json { self.line(serde_json::to_string(value)?) } else { self.text(&text()) }
    }
}
