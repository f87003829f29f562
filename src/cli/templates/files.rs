//! `vestnik templates apply` and `export`: a team keeps its templates as files, in git.
//!
//! A file is one template, `ID.toml` or `ID.json`. Nothing is saved before all files were checked by the server and
//! the difference was shown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};

use super::{load, path};
use crate::cli::client::{Client, counted, printable};
use crate::cli::confirm::agreed;
use crate::cli::{Ended, Printer};
use crate::domain::TemplateId;
use crate::domain::template::TemplateBody;

/// What the server adds to a template's own parts.
const NOT_OF_THE_AUTHOR: [&str; 5] = ["id", "version", "savedAt", "variables", "warnings"];
/// Unchanged lines shown around a change.
const CONTEXT_LINES: usize = 2;

#[derive(Debug, clap::Args)]
pub(super) struct ApplyArgs {
    /// A folder of `ID.toml` and `ID.json`.
    pub(super) dir: PathBuf,
    /// Do not ask.
    #[arg(long, conflicts_with = "check")]
    pub(super) yes: bool,
    /// Only show the difference; exit code 1 if there is one.
    #[arg(long)]
    pub(super) check: bool,
    /// Delete templates that have no file.
    #[arg(long)]
    pub(super) prune: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// The folder to write `ID.toml` to; made if it is not there.
    pub(super) dir: PathBuf,
    /// Overwrite files that say something else.
    #[arg(long)]
    pub(super) force: bool,
}

/// What the server and the files say differently of one template; one of the two may have none.
struct Change {
    old: Option<TemplateBody>,
    new: Option<TemplateBody>,
}

impl Change {
    fn word(&self) -> &'static str {
        match (&self.old, &self.new) {
            (None, _) => "new",
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "deleted",
        }
    }
}

pub(super) async fn apply(args: ApplyArgs, client: &Client, printer: Printer) -> anyhow::Result<Ended> {
    let files = read_folder(&args.dir)?;
    let kept = all(client).await?;
    let changes = changes(files, &kept, args.prune)?;
    let summary: Vec<_> = changes.iter().map(|(id, change)| json!({ "id": id, "change": change.word() })).collect();
    if changes.is_empty() {
        printer.either(&json!({ "changes": summary, "applied": false }), || "nothing differs\n".into())?;
        return Ok(Ended::Well);
    }
    let warnings = check_all(client, &changes).await?;
    if !printer.is_json() {
        for (id, change) in &changes {
            printer.text(&difference(id, change)?)?;
        }
        printer.text(&warnings)?;
    }
    if args.check {
        printer.either(&json!({ "changes": summary, "applied": false }), String::new)?;
        return Ok(Ended::Badly);
    }
    let question = format!("apply {}?", counted(changes.len() as u64, "change"));
    if !args.yes && !agreed(&question, "--yes applies the difference, --check only shows it")? {
        printer.either(&json!({ "changes": summary, "applied": false }), || "nothing was changed\n".into())?;
        return Ok(Ended::Badly);
    }
    for (id, change) in &changes {
        match &change.new {
            Some(body) => {
                client.put(&path(id), &serde_json::to_value(body)?).await.with_context(|| format!("saving {id}"))?;
            }
            None => {
                client.delete(&path(id)).await.with_context(|| format!("deleting {id}"))?;
            }
        }
    }
    printer.either(&json!({ "changes": summary, "applied": true }), || {
        changes.iter().map(|(id, change)| format!("{:<8} {id}\n", change.word())).collect()
    })?;
    Ok(Ended::Well)
}

pub(super) async fn export(args: ExportArgs, client: &Client, printer: Printer) -> anyhow::Result<Ended> {
    let dir = args.dir.display();
    std::fs::create_dir_all(&args.dir).with_context(|| format!("could not make {dir}"))?;
    let (mut written, mut same, mut refused) = (Vec::new(), 0, Vec::new());
    for (id, body) in all(client).await? {
        let file = args.dir.join(format!("{id}.toml"));
        let text = as_toml(&body)?;
        match std::fs::read_to_string(&file) {
            Ok(there) if there == text => same += 1,
            Ok(_) if !args.force => refused.push(id),
            Ok(_) | Err(_) => {
                std::fs::write(&file, text).with_context(|| format!("could not write {}", file.display()))?;
                written.push(id);
            }
        }
    }
    printer.either(&json!({ "written": written, "unchanged": same, "refused": refused }), || {
        let mut text = format!("{} written to {dir}, {same} unchanged\n", written.len());
        for id in &refused {
            text.push_str(&format!("{id}.toml says something else: left alone (--force overwrites it)\n"));
        }
        text
    })?;
    Ok(if refused.is_empty() { Ended::Well } else { Ended::Badly })
}

/// Every template of a folder, by id; or all that is wrong there.
fn read_folder(dir: &Path) -> anyhow::Result<BTreeMap<String, TemplateBody>> {
    let failed = || format!("could not read the folder {}", dir.display());
    let entries = std::fs::read_dir(dir).with_context(failed)?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().with_context(failed)?;
    files.sort();
    let (mut found, mut wrong) = (BTreeMap::new(), Vec::new());
    for file in files.into_iter().filter(|file| may_be_template(file)) {
        match read_file(&file) {
            Ok((id, body)) => {
                if found.insert(id.to_string(), body).is_some() {
                    wrong.push(format!("{id} is there twice in {}: as .toml and as .json", dir.display()));
                }
            }
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    if wrong.is_empty() { Ok(found) } else { bail!("nothing was changed:\n{}", wrong.join("\n")) }
}

/// Notes beside the templates are left alone, and so is what is hidden (`.git`).
fn may_be_template(file: &Path) -> bool {
    let is_hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
    let says_so = ["toml", "json", "yaml", "yml"].iter().any(|known| extension == *known);
    !is_hidden && (says_so || file.is_dir())
}

fn read_file(file: &Path) -> anyhow::Result<(TemplateId, TemplateBody)> {
    let shown = file.display();
    if file.is_dir() {
        bail!("{shown} is a folder: templates are files beside each other");
    }
    if !matches!(file.extension().and_then(|extension| extension.to_str()), Some("toml" | "json")) {
        bail!("{shown} cannot be read: a template's file is only .toml or .json");
    }
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let id = TemplateId::parse(stem).with_context(|| format!("{shown} has no template's name"))?;
    let body = serde_json::from_value(load(file)?).with_context(|| format!("{shown} is no template"))?;
    Ok((id, body))
}

/// Every template of the server, by id.
async fn all(client: &Client) -> anyhow::Result<BTreeMap<String, TemplateBody>> {
    let (items, _) = client.list("/v1/templates", &[], usize::MAX).await?;
    items
        .into_iter()
        .map(|mut item| {
            let id = item["id"].as_str().context("a template without an id")?.to_owned();
            if let Value::Object(parts) = &mut item {
                parts.retain(|name, _| !NOT_OF_THE_AUTHOR.contains(&name.as_str()));
            }
            let body = serde_json::from_value(item).with_context(|| {
                format!("template {id} of the server is not understood\nhint: is it a newer vestnik?")
            })?;
            Ok((id, body))
        })
        .collect()
}

fn changes(
    files: BTreeMap<String, TemplateBody>,
    kept: &BTreeMap<String, TemplateBody>,
    prune: bool,
) -> anyhow::Result<BTreeMap<String, Change>> {
    if prune && files.is_empty() && !kept.is_empty() {
        bail!(
            "the folder holds no template, and --prune would delete all {}\nhint: is it the right folder?",
            kept.len()
        );
    }
    let gone = kept.iter().filter(|(id, _)| prune && !files.contains_key(*id));
    let gone = gone.map(|(id, body)| (id.clone(), Change { old: Some(body.clone()), new: None }));
    let mut changes: BTreeMap<_, _> = gone.collect();
    for (id, new) in files {
        let old = kept.get(&id).cloned();
        if old.as_ref() != Some(&new) {
            changes.insert(id, Change { old, new: Some(new) });
        }
    }
    Ok(changes)
}

/// The server looks at all of them before the first is saved. Gives what it warns of.
async fn check_all(client: &Client, changes: &BTreeMap<String, Change>) -> anyhow::Result<String> {
    let (mut wrong, mut warnings) = (Vec::new(), String::new());
    for (id, change) in changes {
        let Some(body) = &change.new else { continue };
        match client.put(&format!("{}?dryRun=true", path(id)), &serde_json::to_value(body)?).await {
            Ok(checked) => warnings.extend(super::warnings(&checked).lines().map(|line| format!("{id}: {line}\n"))),
            Err(error) => wrong.push(format!("{id}: {error:#}")),
        }
    }
    if wrong.is_empty() {
        return Ok(warnings);
    }
    bail!("nothing was changed:\n{}", wrong.join("\n"))
}

fn as_toml(body: &TemplateBody) -> anyhow::Result<String> {
    toml::to_string_pretty(body).context("a template has no form in TOML")
}

/// The change as lines with `+` and `-`.
fn difference(id: &str, change: &Change) -> anyhow::Result<String> {
    let toml = |body: &Option<TemplateBody>| body.as_ref().map_or_else(|| Ok(String::new()), as_toml);
    let (old, new) = (toml(&change.old)?, toml(&change.new)?);
    let diff = TextDiff::from_lines(&old, &new);
    let mut text = format!("{} {}\n", change.word(), printable(id));
    for (at, group) in diff.grouped_ops(CONTEXT_LINES).iter().enumerate() {
        if at > 0 {
            text.push_str("    …\n");
        }
        for line in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match line.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            text.push_str(&format!("  {sign} {}\n", printable(line.value().trim_end_matches('\n'))));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::template::TemplateVariant;

    fn text(source: &str) -> TemplateBody {
        TemplateVariant { text: Some(source.into()), ..TemplateVariant::default() }.into()
    }

    fn folder(of: &[(&str, &str)]) -> BTreeMap<String, TemplateBody> {
        of.iter().map(|(id, source)| ((*id).to_owned(), text(source))).collect()
    }

    #[test]
    fn a_difference_names_what_changed_and_nothing_else() {
        let kept = folder(&[("a", "one"), ("b", "two"), ("c", "three")]);
        let files = folder(&[("a", "one"), ("b", "TWO\nlines"), ("d", "four")]);
        let words = |prune| {
            let found = changes(files.clone(), &kept, prune).expect("fine");
            found.iter().map(|(id, change)| difference(id, change).expect("TOML")).collect::<String>()
        };
        insta::assert_snapshot!(words(true), @r#"
        changed b
          - text = "two"
          + text = """
          + TWO
          + lines"""
        deleted c
          - text = "three"
        new d
          + text = "four"
        "#);
        assert!(!words(false).contains("deleted"));
    }

    #[test]
    fn everything_wrong_in_a_folder_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
        write("a.toml", "text = 'x'");
        write("README.md", "notes");
        std::fs::create_dir(dir.path().join(".git")).expect("made");
        assert_eq!(read_folder(dir.path()).expect("fine").len(), 1);
        write("b.yaml", "text: x");
        write("c.YML", "text: x");
        write("d.toml", "text = ");
        write("e.json", "{\"txt\": \"x\"}");
        write("a.json", "{\"text\": \"x\"}");
        std::fs::create_dir(dir.path().join("more")).expect("made");
        let error = read_folder(dir.path()).expect_err("it is wrong").to_string();
        for named in ["a is there twice", "b.yaml", "c.YML", "d.toml", "e.json", "more is a folder"] {
            assert!(error.contains(named), "{named}: {error}");
        }
        assert!(error.contains("only .toml or .json"), "{error}");
    }

    #[test]
    fn an_empty_folder_deletes_nothing() {
        assert!(changes(BTreeMap::new(), &folder(&[("a", "one")]), true).is_err());
    }

    #[test]
    fn what_is_exported_is_read_back_as_it_was() {
        for source in ["{{ name }}", "two\nlines\n", "'''\"\"\"\\ \t ok", "№ {{ x | default('«?»') }}\n\n"] {
            let body = text(source);
            let toml = as_toml(&body).expect("TOML");
            assert_eq!(toml::from_str::<TemplateBody>(&toml).expect("it is ours"), body, "{toml}");
        }
    }
}
