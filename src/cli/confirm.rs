//! The one question that a command asks before it does what cannot be undone.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};

/// Asks, where somebody can answer; `hint` says how to do without.
pub fn agreed(question: &str, hint: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to ask\nhint: {hint}");
    }
    let mut out = std::io::stdout().lock();
    write!(out, "{question} [y/N] ").and_then(|()| out.flush())?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("could not read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
