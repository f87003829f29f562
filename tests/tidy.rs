//! Layer and text rules: what the compiler does not check and a review would forget.
//!
//! Each rule is a function from the tree to what is wrong in it, and has a test of its own that shows it can fail.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Path from the root, with `/`, to text.
type Tree = BTreeMap<String, String>;

/// A rule: one line for each thing that is wrong.
type Rule = fn(&Tree) -> Vec<String>;

const RULES: &[(&str, Rule)] = &[
    ("crates stay behind their seam", crates_in_place),
    ("HTTP clients are built in one place", clients_in_place),
    ("modules depend one way", edges_allowed),
    ("the ledger's twins have the same files", store_twins),
    ("both ledgers have the same migrations", migration_twins),
    ("every module says what it is", module_docs),
    ("files stay readable", file_length),
    ("nothing is left for later, no test is switched off", nothing_left_over),
    ("no path of one machine", machine_paths),
    ("the tree speaks of the service only", foreign_words),
];

/// A crate and the folders or files that may name it.
const CRATE_PLACES: &[(&str, &[&str])] = &[
    ("rusqlite", &["src/store/"]),
    ("tokio_postgres", &["src/store/", "src/records/sql"]),
    ("deadpool_postgres", &["src/store/", "src/records/sql"]),
    ("csv", &["src/import/", "src/http/dead_letters/export.rs"]),
    ("csv_core", &["src/import/"]),
    ("encoding_rs", &["src/import/"]),
    ("lapin", &["src/queue/rabbitmq/"]),
    ("lettre", &["src/channels/email"]),
    ("axum", &["src/http/"]),
];

/// The one place that builds clients: the file, and the folder beside it.
const HTTP_CLIENT: &str = "src/channels/http_client";

/// Which top-level module may name which: `cli → app → {http, delivery} → {queue, store, limits, channels, templates} →
/// config → domain`, and the API hands its requests to `delivery`. `lib` only declares.
const EDGES: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &[
            "app",
            "channels",
            "config",
            "delivery",
            "domain",
            "http",
            "import",
            "lifecycle",
            "limits",
            "queue",
            "records",
            "server_url",
            "simulator",
            "store",
            "telemetry",
            "templates",
        ],
    ),
    (
        "app",
        &[
            "channels",
            "config",
            "delivery",
            "domain",
            "http",
            "lifecycle",
            "limits",
            "queue",
            "records",
            "server_url",
            "store",
            "telemetry",
            "templates",
            "upkeep",
        ],
    ),
    ("http", &["config", "delivery", "domain", "import", "lifecycle", "records", "store", "templates", "upkeep"]),
    ("delivery", &["channels", "config", "domain", "lifecycle", "limits", "queue", "records", "store", "templates"]),
    ("import", &["config", "domain", "store"]),
    ("records", &["config", "domain", "store"]),
    ("queue", &["config", "domain", "store"]),
    ("store", &["config", "domain"]),
    ("limits", &["config", "domain"]),
    ("channels", &["config", "domain"]),
    ("templates", &["config", "domain"]),
    ("simulator", &["channels", "domain"]),
    ("upkeep", &["config", "domain", "store"]),
    ("server_url", &[]),
    ("lifecycle", &["config", "domain"]),
    ("telemetry", &["config", "domain"]),
    ("config", &["domain"]),
    ("domain", &[]),
    ("lib", &[]),
];

/// What both ledgers must have: the hot statements and the connection.
const TWINS: &[&str] = &["accept.rs", "connection.rs", "mod.rs", "open.rs", "record.rs", "sql.rs", "take.rs"];

/// Files that only one ledger has, and why.
const ONLY_CHILDREN: &[(&str, &str)] = &[
    ("src/store/sqlite/setup.rs", "a file needs its version, lock and pragmas; a server brings them along"),
    ("src/store/postgres/pool.rs", "reaching a server, which CRM records may be read from, too"),
    ("src/store/postgres/frozen.rs", "the embedded ledger serves one process"),
    ("src/store/postgres/neighbours.rs", "the embedded ledger serves one process"),
    ("src/store/postgres/probe.rs", "what a measurement asks the server, and SQLite has none"),
    ("src/store/postgres/committer.rs", "SQLite's one writer, which gathers commits, is its connection"),
];

const MAX_LINES: usize = 600;

// Written in halves, so that this file holds none of them.
const LEFT_OVER: &[&str] =
    &[concat!("to", "do!("), concat!("unimple", "mented!("), concat!("FIX", "ME"), concat!("#[", "ignore")];
const MACHINE_PATHS: &[&str] =
    &[concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/tmp", "/wt")];
const FOREIGN_WORDS: &[&str] = &[
    concat!("l", "lm"),
    concat!("g", "pt"),
    concat!("cha", "tgpt"),
    concat!("clau", "de"),
    concat!("anthro", "pic"),
    concat!("open", "ai"),
    concat!("co", "pilot"),
    concat!("language", " model"),
    concat!("coding", " agent"),
    concat!("sub", "agent"),
    concat!("sub-", "agent"),
];
/// As it is written only: in small letters it is a part of too many words and names.
const FOREIGN_NAME: &str = concat!("A", "I");

#[test]
fn the_tree_is_tidy() {
    let tree = load();
    assert!(tree.contains_key("src/lib.rs"), "the tree was not found");
    let wrong: Vec<String> = RULES
        .iter()
        .flat_map(|(name, rule)| rule(&tree).into_iter().map(move |found| format!("{name}: {found}")))
        .collect();
    assert!(wrong.is_empty(), "{} untidy:\n{}", wrong.len(), wrong.join("\n"));
}

// --- rules -------------------------------------------------------------------------------------------------------

fn crates_in_place(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, number, line) in code(tree) {
        for (name, places) in CRATE_PLACES {
            let named = has_word(line, &format!("{name}::")) || has_word(line, &format!("use {name}"));
            if named && !places.iter().any(|place| path.starts_with(place)) {
                wrong.push(format!("{path}:{number} names {name}, which belongs in {}", places.join(", ")));
            }
        }
    }
    wrong
}

fn clients_in_place(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in sources(tree).filter(|(path, _)| !path.starts_with(HTTP_CLIENT)) {
        let builds = segments(text, "hyper").contains("client")
            || segments(text, "hyper_util").contains("client")
            || !segments(text, "hyper_rustls").is_empty()
            || !segments(text, "reqwest").is_empty();
        if builds {
            wrong.push(format!("{path} has an HTTP client of its own; {HTTP_CLIENT} builds them"));
        }
    }
    wrong
}

fn edges_allowed(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in sources(tree) {
        let module = top_module(path);
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{path}: the table of edges does not know the module {module}"));
            continue;
        };
        let root = if module == "main" { "vestnik" } else { "crate" };
        for used in segments(text, root) {
            if used != module && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{path}: {module} may not use {used}"));
            }
        }
    }
    wrong
}

fn store_twins(tree: &Tree) -> Vec<String> {
    let sqlite = names_in(tree, "src/store/sqlite/");
    let postgres = names_in(tree, "src/store/postgres/");
    let mut wrong = Vec::new();
    for name in TWINS.iter().filter(|name| !sqlite.contains(**name) && !postgres.contains(**name)) {
        wrong.push(format!("neither ledger has {name}"));
    }
    for (here, there, folder) in
        [(&sqlite, &postgres, "src/store/sqlite/"), (&postgres, &sqlite, "src/store/postgres/")]
    {
        for name in here.difference(there) {
            let path = format!("{folder}{name}");
            if TWINS.contains(name) || !ONLY_CHILDREN.iter().any(|(only, _)| *only == path) {
                wrong.push(format!("{path} has no twin"));
            }
        }
    }
    for (path, _) in ONLY_CHILDREN {
        let name = path.rsplit('/').next().unwrap();
        if sqlite.contains(name) == postgres.contains(name) {
            wrong.push(format!("{path} is no only child: take it off the list"));
        }
    }
    wrong
}

fn migration_twins(tree: &Tree) -> Vec<String> {
    let sqlite = names_in(tree, "migrations/sqlite/");
    let postgres = names_in(tree, "migrations/postgres/");
    let mut wrong: Vec<String> =
        sqlite.symmetric_difference(&postgres).map(|name| format!("{name} is there for one ledger only")).collect();
    for (index, name) in sqlite.iter().enumerate() {
        if !name.starts_with(&format!("{:04}_", index + 1)) || !name.ends_with(".sql") {
            wrong.push(format!("{name} should be {:04}_<name>.sql: numbers run on, each once", index + 1));
        }
    }
    wrong
}

fn module_docs(tree: &Tree) -> Vec<String> {
    sources(tree)
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| format!("{path} does not open with //!"))
        .collect()
}

fn file_length(tree: &Tree) -> Vec<String> {
    sources(tree)
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| format!("{path} has {lines} lines, more than {MAX_LINES}: does it hold two things?"))
        .collect()
}

fn nothing_left_over(tree: &Tree) -> Vec<String> {
    lines_with(tree, |line| LEFT_OVER.iter().find(|word| line.contains(**word)).copied())
}

fn machine_paths(tree: &Tree) -> Vec<String> {
    lines_with(tree, |line| {
        // Part of a longer path or of an address is fine.
        let starts =
            |at: usize| !line[..at].ends_with(|before: char| before.is_alphanumeric() || "./_-".contains(before));
        MACHINE_PATHS.iter().find(|path| line.match_indices(**path).any(|(at, _)| starts(at))).copied()
    })
}

fn foreign_words(tree: &Tree) -> Vec<String> {
    lines_with(tree, |line| {
        let small = line.to_lowercase();
        let word = FOREIGN_WORDS.iter().find(|word| has_whole_word(&small, word)).copied();
        word.or_else(|| has_whole_word(line, FOREIGN_NAME).then_some(FOREIGN_NAME))
    })
}

// --- reading the tree --------------------------------------------------------------------------------------------

/// Everything that people wrote: not what a build, a run or a tool left in the folder.
fn load() -> Tree {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tree = Tree::new();
    for folder in ["src", "tests", "docs", "scripts", "migrations", "assets", ".ci", ".github"] {
        load_folder(root, folder, &mut tree);
    }
    for entry in fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == "Makefile" || name == "openapi.json" || name.ends_with(".md") || name.ends_with(".toml") {
            load_file(root, &name, &mut tree);
        }
    }
    tree
}

fn load_folder(root: &Path, folder: &str, tree: &mut Tree) {
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            load_folder(root, &path, tree);
        } else {
            load_file(root, &path, tree);
        }
    }
}

/// Pictures and the like have no text to look at.
fn load_file(root: &Path, path: &str, tree: &mut Tree) {
    if let Ok(text) = String::from_utf8(fs::read(root.join(path)).unwrap()) {
        tree.insert(path.to_owned(), text);
    }
}

fn sources(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.iter().map(|(path, text)| (path.as_str(), text.as_str())).filter(|(path, _)| is_source(path))
}

fn is_source(path: &str) -> bool {
    path.starts_with("src/") && path.ends_with(".rs")
}

/// Lines of code in `src`, numbered from 1, without comments: a comment may name anything.
fn code(tree: &Tree) -> impl Iterator<Item = (&str, usize, &str)> {
    sources(tree).flat_map(|(path, text)| {
        text.lines().enumerate().filter(|(_, line)| !is_comment(line)).map(move |(index, line)| (path, index + 1, line))
    })
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Lines of any file in which `find` finds something.
fn lines_with<'a>(tree: &Tree, find: impl Fn(&str) -> Option<&'a str>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in tree {
        for (index, line) in text.lines().enumerate() {
            if let Some(found) = find(line) {
                wrong.push(format!("{path}:{} has `{found}`", index + 1));
            }
        }
    }
    wrong
}

fn names_in<'a>(tree: &'a Tree, folder: &str) -> BTreeSet<&'a str> {
    tree.keys().filter_map(|path| path.strip_prefix(folder)).collect()
}

/// `src/store/sqlite/take.rs` and `src/store.rs` belong to `store`.
fn top_module(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap();
    inside.split('/').next().unwrap().trim_end_matches(".rs")
}

/// What follows `root::` in the code: `a` and `b` for `root::a::x` and for `root::{a::{x, y}, b}`.
fn segments(text: &str, root: &str) -> BTreeSet<String> {
    let code: String = text.lines().filter(|line| !is_comment(line)).flat_map(|line| [line, "\n"]).collect();
    let mut found = BTreeSet::new();
    let pattern = format!("{root}::");
    for (at, _) in code.match_indices(&pattern).filter(|(at, _)| starts_word(&code, *at)) {
        let rest = &code[at + pattern.len()..];
        match rest.strip_prefix('{') {
            None => found.extend(first_name(rest)),
            Some(group) => found.extend(top_items(group).into_iter().filter_map(first_name)),
        }
    }
    found
}

/// The items of a `use` group at its outermost level, up to its closing brace.
fn top_items(group: &str) -> Vec<&str> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

/// The name that a path begins with; none for `{`, `*` or nothing.
fn first_name(path: &str) -> Option<String> {
    let name: String = path.trim_start().chars().take_while(|letter| is_name(*letter)).collect();
    (!name.is_empty()).then_some(name)
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn starts_word(line: &str, at: usize) -> bool {
    !line[..at].ends_with(is_name)
}

fn has_word(line: &str, word: &str) -> bool {
    let ends = |at: usize| word.ends_with("::") || !line[at + word.len()..].starts_with(is_name);
    line.match_indices(word).any(|(at, _)| starts_word(line, at) && ends(at))
}

/// Like [`has_word`], but `_` parts words too.
fn has_whole_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(char::is_alphanumeric) && !line[at + word.len()..].starts_with(char::is_alphanumeric)
    })
}

// --- each rule can fail ------------------------------------------------------------------------------------------

fn tree(files: &[(&str, &str)]) -> Tree {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

/// The rule finds something in each of `bad` and nothing in any of `good`.
#[track_caller]
fn check(rule: Rule, bad: &[(&str, &str)], good: &[(&str, &str)]) {
    for file in bad {
        assert_eq!(rule(&tree(&[*file])).len(), 1, "should be found: {file:?}");
    }
    for file in good {
        assert_eq!(rule(&tree(&[*file])), Vec::<String>::new(), "is fine: {file:?}");
    }
}

#[test]
fn a_crate_outside_its_seam_is_found() {
    check(
        crates_in_place,
        &[
            ("src/delivery/work.rs", "use rusqlite::Connection;"),
            ("src/delivery/work.rs", "    let client: tokio_postgres::Client = connect();"),
            ("src/app.rs", "use deadpool_postgres as pool;"),
            ("src/queue/embedded.rs", "use lapin::Channel;"),
            ("src/simulator/mod.rs", "use axum::Router;"),
        ],
        &[
            ("src/store/sqlite/take.rs", "use rusqlite::Connection;"),
            ("src/queue/rabbitmq/mod.rs", "use lapin::Channel;"),
            ("src/http/mod.rs", "use axum::Router;"),
            ("src/cli/openapi.rs", "use utoipa_axum::router::OpenApiRouter;"),
            ("src/delivery/work.rs", "// Unlike rusqlite::Connection."),
        ],
    );
}

#[test]
fn a_client_outside_its_place_is_found() {
    check(
        clients_in_place,
        &[
            ("src/channels/telegram.rs", "use hyper_util::client::legacy::Client;"),
            ("src/channels/telegram.rs", "use hyper_util::{\n    client::legacy::Client,\n    rt::TokioIo,\n};"),
            ("src/simulator/mod.rs", "let stream = hyper::client::conn::http1::handshake(io);"),
            ("src/cli/doctor.rs", "reqwest::get(url)"),
        ],
        &[
            ("src/channels/http_client.rs", "use hyper_util::client::legacy::Client;"),
            ("src/http/server.rs", "use hyper_util::rt::{TokioIo, TokioTimer};"),
            ("src/channels/telegram.rs", "use hyper::header::HeaderValue;"),
        ],
    );
}

#[test]
fn a_dependency_the_wrong_way_is_found() {
    check(
        edges_allowed,
        &[
            ("src/domain/channel.rs", "use crate::store::Store;"),
            ("src/delivery/work.rs", "use crate::http::Problem;"),
            ("src/store/mod.rs", "use crate::{domain::{Status, Outcome}, delivery::Work};"),
            ("src/http/mod.rs", "fn send(to: &crate::channels::Provider) {}"),
            ("src/app.rs", "use crate::cli::Printer;"),
            ("src/main.rs", "use vestnik::store::Store;"),
            ("src/helpers.rs", ""),
        ],
        &[
            ("src/domain/channel.rs", "use crate::domain::Status;\n// As crate::store does."),
            ("src/store/mod.rs", "use crate::{\n    domain::{Status, http},\n    store::keys,\n};"),
            ("src/cli/run.rs", "use crate::app::App;"),
            ("src/main.rs", "use vestnik::cli;\nuse std::process::ExitCode;"),
        ],
    );
}

#[test]
fn the_table_of_edges_has_no_circle() {
    let mut left: Vec<_> = EDGES.to_vec();
    while !left.is_empty() {
        // Take off what depends on nothing that is left; when that is nobody, there is a circle.
        let names: BTreeSet<&str> = left.iter().map(|(name, _)| *name).collect();
        let before = left.len();
        left.retain(|(_, uses)| uses.iter().any(|used| names.contains(used)));
        assert!(left.len() < before, "a circle among {names:?}");
    }
}

#[test]
fn a_missing_twin_is_found() {
    let mut files: Vec<String> = Vec::new();
    for folder in ["src/store/sqlite/", "src/store/postgres/"] {
        files.extend(TWINS.iter().map(|name| format!("{folder}{name}")));
    }
    files.extend(ONLY_CHILDREN.iter().map(|(path, _)| (*path).to_owned()));
    let whole: Tree = files.into_iter().map(|path| (path, String::new())).collect();
    assert_eq!(store_twins(&whole), Vec::<String>::new());

    let mut hot = whole.clone();
    hot.remove("src/store/postgres/take.rs");
    assert_eq!(store_twins(&hot), ["src/store/sqlite/take.rs has no twin"]);
    let mut new = whole.clone();
    new.insert("src/store/postgres/bulk.rs".into(), String::new());
    assert_eq!(store_twins(&new), ["src/store/postgres/bulk.rs has no twin"]);
    let mut gone = whole;
    gone.remove(ONLY_CHILDREN[0].0);
    assert_eq!(store_twins(&gone).len(), 1, "an exception that is not needed any more");
}

#[test]
fn a_missing_migration_is_found() {
    let pair = |name: &str| {
        [(format!("migrations/sqlite/{name}"), String::new()), (format!("migrations/postgres/{name}"), String::new())]
    };
    let mut whole: Tree = pair("0001_ledger.sql").into_iter().chain(pair("0002_campaigns.sql")).collect();
    assert_eq!(migration_twins(&whole), Vec::<String>::new());
    whole.remove("migrations/postgres/0002_campaigns.sql");
    assert_eq!(migration_twins(&whole), ["0002_campaigns.sql is there for one ledger only"]);
    let gap: Tree = pair("0001_ledger.sql").into_iter().chain(pair("0003_campaigns.sql")).collect();
    assert_eq!(migration_twins(&gap).len(), 1, "a number is missing");
}

#[test]
fn a_file_without_docs_or_too_long_is_found() {
    let long = "//! Long.\n".repeat(MAX_LINES + 1);
    check(
        module_docs,
        &[("src/app.rs", "use std::fs;\n")],
        &[("src/app.rs", "//! The app.\n"), ("tests/it/main.rs", "")],
    );
    check(file_length, &[("src/app.rs", &long)], &[("src/app.rs", "//! Short.\n"), ("tests/it/main.rs", &long)]);
}

#[test]
fn forbidden_text_is_found() {
    for word in LEFT_OVER {
        check(nothing_left_over, &[("docs/operations.md", &format!("see {word}"))], &[("README.md", "ignore, to do")]);
    }
    for path in MACHINE_PATHS {
        check(
            machine_paths,
            &[("README.md", &format!("cd {path}x")), ("Makefile", path)],
            &[("README.md", &format!("https://example.org{path}x")), ("README.md", "/var/lib/vestnik")],
        );
    }
    for word in FOREIGN_WORDS {
        check(
            foreign_words,
            &[("src/app.rs", &format!("// by {word}.")), ("CHANGELOG.md", &word.to_uppercase())],
            &[("src/app.rs", &format!("// x{word}x")), ("docs/api.md", "OpenAPI, email, domain, wait, user agent")],
        );
    }
    check(foreign_words, &[("README.md", &format!("({FOREIGN_NAME})"))], &[("README.md", "MAIN, ai")]);
}
