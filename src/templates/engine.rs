//! The engine: its language, its limits, and the compiled templates it keeps.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde_json::Value as Json;

use super::cache::Cache;
use super::compiled::Compiled;
use super::data::Reader;
use super::output::print;
use super::parts::Form;
use super::{Limits, RenderError, TemplateProblems, filters, limits};
use crate::domain::template::Template;
use crate::domain::{Channel, Content};

/// Checks and renders templates. One for the whole process, shared.
pub struct Engine {
    limits: Limits,
    /// Without templates; a clone of it shares everything else.
    language: Environment<'static>,
    // Read at every message, written once per template version: readers take no lock.
    compiled: ArcSwap<Cache>,
}

impl Engine {
    pub fn new(limits: Limits) -> Self {
        Engine { limits, language: language(&limits), compiled: ArcSwap::default() }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn language(&self) -> &Environment<'static> {
        &self.language
    }

    /// Makes what `channel` sends, in the variant nearest to the reader's locale that has something for the channel. WhatsApp takes the approved template, else its free text;
    /// Telegram its HTML; SMS its text; and all three the common text where there is none. An e-mail takes only its own.
    /// `data` is an object, and a null in it counts as missing.
    pub fn render(
        &self,
        template: &Template,
        channel: Channel,
        data: &Json,
        reader: Reader<'_>,
    ) -> Result<Content, RenderError> {
        let compiled = self.compiled(template)?;
        self.fill_in(&compiled, channel, data, reader).map(|filled| filled.content)
    }

    fn compiled(&self, template: &Template) -> Result<Arc<Compiled>, RenderError> {
        let key = (template.id.clone(), template.version);
        if let Some(compiled) = self.compiled.load().get(&key) {
            return Ok(compiled);
        }
        let broken = |problem| RenderError::Broken(TemplateProblems(vec![problem]));
        let compiled = Arc::new(self.compile(&template.body).map_err(broken)?);
        self.compiled.rcu(|cache| cache.with(key.clone(), compiled.clone()));
        Ok(compiled)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The language of `grammar`, with its limits, and no template yet.
fn language(limits: &Limits) -> Environment<'static> {
    let mut language = Environment::new();
    language.set_fuel(Some(limits.fuel));
    language.set_recursion_limit(limits::RECURSION);
    language.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    // Keeps where an undefined value came from, which is how an error names the variable.
    language.set_debug(true);
    language.set_formatter(print);
    language.set_auto_escape_callback(|part| {
        if part.ends_with(Form::EmailHtml.suffix()) {
            AutoEscape::Html
        } else if part.ends_with(Form::WhatsApp.suffix()) {
            AutoEscape::Custom("whatsapp".into())
        } else {
            AutoEscape::None
        }
    });
    for name in ["range", "dict", "debug", "namespace"] {
        language.remove_global(name);
    }
    // `map('safe')` names a filter in a string, where `grammar` does not see it.
    for name in ["attr", "batch", "chain", "groupby", "indent", "pprint", "safe", "slice", "zip"] {
        language.remove_filter(name);
    }
    // These turn what they test into text.
    for name in ["endingwith", "lower", "startingwith", "upper"] {
        language.remove_test(name);
    }
    filters::install(&mut language);
    language
}

#[cfg(test)]
mod tests;
