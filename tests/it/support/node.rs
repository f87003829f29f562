//! A `NestJS` program of the code in docs/nestjs.md and of `tests/nest/main.ts`: its packages are installed once into
//! `target/nest`, and it is compiled anew for each run of the tests.
#![expect(clippy::disallowed_methods, reason = "whether skipping is allowed comes from the environment, as in CI")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// 30 packages of 46 MB, over a slow line.
const INSTALL_LIMIT: Duration = Duration::from_secs(240);
/// 5 s on an idle machine.
const COMPILE_LIMIT: Duration = Duration::from_secs(120);

/// The compiled program, to be run with [`run`]; `None` only when skipping was allowed.
///
/// # Panics
/// When the code of the page does not compile.
pub(crate) async fn nest_program() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = root.join("target/nest");
    if let Err(reason) = install(&root.join("tests/nest"), &dir).await {
        if std::env::var("VESTNIK_TEST_ALLOW_SKIP").is_ok_and(|value| value == "1") {
            eprintln!("SKIPPED: no NestJS client to test with ({reason}), and VESTNIK_TEST_ALLOW_SKIP=1");
            return None;
        }
        panic!(
            "no NestJS client to test with: {reason}. Install Debian's packages nodejs and npm \
             (`scripts/test-services.sh --amqp run …` does) and let npm reach its registry, or set \
             VESTNIK_TEST_ALLOW_SKIP=1"
        );
    }
    let sources = dir.join("src");
    // What an older page had must not hide what this one lacks.
    for folder in ["src", "built"] {
        let _ = std::fs::remove_dir_all(dir.join(folder));
    }
    std::fs::create_dir(&sources).unwrap();
    let page = std::fs::read_to_string(root.join("docs/nestjs.md")).unwrap();
    for (name, code) in blocks(&page) {
        std::fs::write(sources.join(name), code).unwrap();
    }
    for (from, to) in [("main.ts", sources.join("main.ts")), ("tsconfig.json", dir.join("tsconfig.json"))] {
        std::fs::copy(root.join("tests/nest").join(from), to).unwrap();
    }
    let mut compiler = Command::new("node");
    compiler.current_dir(&dir).args(["node_modules/typescript/bin/tsc", "-p", "."]);
    run(compiler, COMPILE_LIMIT).await.unwrap_or_else(|reason| panic!("docs/nestjs.md does not compile: {reason}"));
    Some(dir.join("built/main.js"))
}

/// What a command printed.
///
/// # Errors
/// What it said instead, when it failed or took longer than `limit`.
pub(crate) async fn run(mut command: Command, limit: Duration) -> Result<String, String> {
    let program = format!("{:?}", command.as_std().get_program());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(limit, output)
        .await
        .map_err(|_| format!("{program} has not ended within {} s", limit.as_secs()))?
        .map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{program}: {}: {}{}", output.status, text(&output.stdout), text(&output.stderr))),
    }
}

/// Nothing is done where exactly these packages are there.
async fn install(from: &Path, to: &Path) -> Result<(), String> {
    let version = {
        let mut node = Command::new("node");
        node.arg("--version");
        run(node, COMPILE_LIMIT).await?
    };
    let lock = std::fs::read_to_string(from.join("package-lock.json")).unwrap();
    let (mark, wanted) = (to.join("installed"), format!("{version}{lock}"));
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    std::fs::create_dir_all(to).unwrap();
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let mut npm = Command::new("npm");
    npm.current_dir(to).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    run(npm, INSTALL_LIMIT).await?;
    std::fs::write(mark, wanted).unwrap();
    Ok(())
}

/// Blocks of TypeScript with the names that their first lines give.
fn blocks(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.split("```ts\n").skip(1).map(|rest| {
        let code = rest.split("```").next().unwrap();
        let name = code.lines().next().and_then(|line| line.strip_prefix("// ")).expect("a block begins with its name");
        (name, code)
    })
}
