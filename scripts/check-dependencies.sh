#!/usr/bin/env bash
# Checks the dependency tree against deny.toml: banned crates, licences, sources.
#
# With cargo-deny where it is installed; else with cargo alone, which sees less (its lists, not its other settings).
# Building cargo-deny costs six minutes of CPU, as much as everything else in CI together.
set -euo pipefail
cd "$(dirname "$0")/.."

if cargo deny --version >/dev/null 2>&1 && [[ ${1:-} != --plain ]]; then
  echo "checked with $(cargo deny --version)"
  exec cargo deny check bans licenses sources
fi
echo 'checked with cargo tree; cargo install --locked cargo-deny for more'

# The text of deny.toml's section $1, without comments.
section() { awk -v head="[$1]" '/^\[/ { inside = ($0 == head) } inside && !/^#/' deny.toml; }

banned=$(section bans | sed -n 's/.*{ crate = "\([^"]*\)".*/\1/p')
allowed=$(section licenses | sed -n '/^allow = \[/,/^\]/s/^ *"\([^"]*\)",$/\1/p')
[[ $banned && $allowed ]] || { echo 'deny.toml has no list of banned crates or of licences that this script can read' >&2; exit 1; }

# Every crate on every platform, with its licence.
tree=$(cargo tree --locked --target all --all-features --edges normal,build,dev --prefix none --no-dedupe --format '{p}|{l}' | sort -u)
# Every crate that comes from elsewhere than crates.io.
strangers=$(sed -n 's/^source = "\(.*\)"$/\1/p' Cargo.lock | grep -vxF 'registry+https://github.com/rust-lang/crates.io-index' || true)

awk -F '|' -v banned="$banned" -v allowed="$allowed" -v strangers="$strangers" '
  # SPDX expressions: AND binds closer than OR, WITH closer than both; "/" is an old way to write OR.
  function permitted(text) {
    gsub(/\//, " OR ", text); gsub(/[()]/, " & ", text)
    split(text, words, " "); at = 1
    return any_of()
  }
  function any_of(  yes) { yes = all_of(); while (words[at] == "OR") { at++; yes = all_of() || yes }; return yes }
  function all_of(  yes) { yes = one(); while (words[at] == "AND") { at++; yes = one() && yes }; return yes }
  function one(  yes, name) {
    if (words[at] == "(") { at++; yes = any_of(); at++; return yes }
    name = words[at++]
    if (words[at] == "WITH") { name = name " WITH " words[at + 1]; at += 2 }
    return name in allow
  }
  function wrong(text) { print "error: " text; failed = 1 }
  BEGIN {
    split(banned, list, "\n"); for (i in list) ban[list[i]]
    split(allowed, list, "\n"); for (i in list) allow[list[i]]
    if (strangers != "") wrong("a source other than crates.io: " strangers)
  }
  {
    split($1, crate, " ")
    if (crate[1] in ban) wrong("banned: " crate[1] "; cargo tree -i " crate[1] " says who wants it")
    if (!permitted($2)) wrong("licence: " $1 " has " ($2 == "" ? "none" : $2))
  }
  END {
    if (!failed) print NR " crates: none banned, licences allowed, all from crates.io"
    exit failed
  }
' <<<"$tree"
