//! What the data lacks: found by rendering with a stand-in for each value that was missing, until all is there.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use crate::domain::{Channel, Content};
use crate::templates::compiled::Compiled;
use crate::templates::data::Reader;
use crate::templates::uses::{path_of, uses, written};
use crate::templates::{Engine, RenderError};

/// How often a search renders: a template that misses more values than this says so of most of them.
const RENDERINGS: usize = 200;

/// What is there when the search begins.
pub(super) struct Given<'a> {
    pub(super) compiled: &'a Compiled,
    pub(super) data: &'a Json,
    pub(super) reader: Reader<'a>,
    /// All that the template may read.
    pub(super) variables: &'a [String],
}

/// Tried one after another where a number will not do: a currency, a zone, a region, a moment, an address, a list.
fn others() -> [Json; 7] {
    [
        json!("RUB"),
        json!("UTC"),
        json!("RU"),
        json!("2026-01-07"),
        json!("2026-01-07T12:00:00Z"),
        json!("https://x"),
        json!([]),
    ]
}

struct Search<'a> {
    engine: &'a Engine,
    given: &'a Given<'a>,
    channel: Channel,
    data: Json,
    left: usize,
}

impl Engine {
    /// Adds the variables without which nothing is sent on this channel.
    pub(super) fn find_missing(&self, given: &Given<'_>, channel: Channel, missing: &mut BTreeSet<String>) {
        let mut search = Search { engine: self, given, channel, data: given.data.clone(), left: RENDERINGS };
        let mut found = Vec::new();
        let mut records = Vec::new();
        let mut outcome = search.render();
        loop {
            outcome = match outcome {
                Some(Err(RenderError::Missing { variable, .. })) => {
                    // Of a record that is missing as a whole, its fields are what a person can give.
                    let is_record = given.variables.iter().any(|known| is_within(known, &variable));
                    // A number is what nearly every filter can work with.
                    let stand_in = if is_record { Map::new().into() } else { 1.into() };
                    let is_filled = fill(&mut search.data, &variable, stand_in, false);
                    if is_record { &mut records } else { &mut found }.push(variable);
                    if is_filled { search.render() } else { None }
                }
                Some(Err(failed @ RenderError::Failed { .. })) => search.with_another(&found, &failed),
                other => {
                    outcome = other;
                    break;
                }
            };
            if outcome.is_none() {
                break;
            }
        }
        let is_whole = match outcome {
            Some(Ok(_) | Err(RenderError::NoBody { .. })) => true,
            // Its one text was made.
            Some(Err(RenderError::TooLong { .. })) => matches!(channel, Channel::Sms | Channel::Telegram),
            _ => false,
        };
        missing.extend(found);
        if !is_whole {
            missing.extend(search.unproven());
        }
        records.retain(|record| !missing.iter().any(|found| is_within(found, record)));
        missing.extend(records);
    }
}

impl Search<'_> {
    /// None when it was done often enough.
    fn render(&mut self) -> Option<Result<Content, RenderError>> {
        self.left = self.left.checked_sub(1)?;
        let Given { compiled, reader, .. } = *self.given;
        Some(self.engine.fill_in(compiled, self.channel, &self.data, reader).map(|filled| filled.content))
    }

    /// Puts something else for one of the values, with which the rendering comes further.
    fn with_another(&mut self, found: &[String], failed: &RenderError) -> Option<Result<Content, RenderError>> {
        for variable in found.iter().rev() {
            let before = self.data.clone();
            for other in others() {
                fill(&mut self.data, variable, other, true);
                let outcome = self.render()?;
                if comes_further(&outcome, failed) {
                    return Some(outcome);
                }
            }
            self.data = before;
        }
        None
    }

    /// What is lacking in the texts of this channel and nowhere known to be optional.
    fn unproven(&self) -> BTreeSet<String> {
        let Given { compiled, reader, data, .. } = *self.given;
        let variant = compiled.choose(reader.locale, self.channel);
        let mut lacking = BTreeSet::new();
        for part in variant.into_iter().flat_map(|variant| variant.parts(self.channel)) {
            let Ok(template) = compiled.environment.get_template(&part.name) else { continue };
            let read = template.undeclared_variables(false);
            let lacks =
                |path: &[String]| path.iter().try_fold(data, |at, field| at.get(field)).is_none_or(Json::is_null);
            let uses = uses(template.source());
            let found = uses.iter().filter(|found| read.contains(&found.path[0]) && !found.is_optional);
            lacking.extend(found.filter(|found| lacks(&found.path)).map(|found| written(&found.path)));
        }
        lacking
    }
}

fn comes_further(outcome: &Result<Content, RenderError>, failed: &RenderError) -> bool {
    match (outcome, failed) {
        (Err(RenderError::Failed { place, .. }), RenderError::Failed { place: before, .. }) => {
            place.part == before.part && (place.line, place.column) > (before.line, before.column)
        }
        _ => true,
    }
}

/// Whether it is among what is missing, by itself or by a field that is named in brackets.
pub(super) fn names(missing: &BTreeSet<String>, variable: &str) -> bool {
    let is_field = |found: &String| found.strip_prefix(variable).is_some_and(|rest| rest.starts_with('['));
    missing.contains(variable) || missing.iter().any(is_field)
}

fn is_within(variable: &str, record: &str) -> bool {
    variable.strip_prefix(record).is_some_and(|rest| rest.starts_with('.'))
}

/// What stands at a path like `contact.name`.
pub(super) fn find<'a>(data: &'a Json, variable: &str) -> Option<&'a Json> {
    variable.split('.').try_fold(data, |at, field| at.get(field)).filter(|found| !found.is_null())
}

/// Puts something there. False if it cannot be put there, or something else is and `replaces` is not set.
fn fill(data: &mut Json, variable: &str, stand_in: Json, replaces: bool) -> bool {
    let Some(path) = path_of(variable) else { return false };
    let mut at = data;
    for field in path {
        if at.is_null() {
            *at = Map::new().into();
        }
        let Some(object) = at.as_object_mut() else { return false };
        at = object.entry(field).or_insert(Json::Null);
    }
    let fits = replaces || at.is_null();
    if fits {
        *at = stand_in;
    }
    fits
}
