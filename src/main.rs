//! The `vestnik` binary: arguments, command, exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use vestnik::cli::{Cli, Ended};

// glibc's allocator keeps what a burst of sends left behind.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A huge page that holds one living value is kept whole: without them a third to a half less is held after a burst.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("could not start the runtime")),
    };
    let ended = runtime.block_on(cli.run());
    // What was cut off is not waited for: the ledger knows it.
    runtime.shutdown_background();
    match ended {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Badly) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

/// The chain of causes on one line; details (indented) and hints on lines of their own.
fn failed(error: &anyhow::Error) -> ExitCode {
    let chain: Vec<_> = error.chain().map(ToString::to_string).collect();
    let chain = chain.join(": ");
    let is_own_line = |line: &&str| line.starts_with("hint: ") || line.starts_with("  ");
    let (own_lines, what): (Vec<_>, Vec<_>) = chain.split('\n').partition(is_own_line);
    let mut text = format!("error: {}\n", what.join(": "));
    for line in own_lines {
        text.push_str(line);
        text.push('\n');
    }
    // Where standard error is gone, nobody can be told.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(2)
}
