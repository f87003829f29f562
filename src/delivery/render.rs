//! 4. Template and data become text.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::domain::message::Content;
use crate::domain::template::{Template, TemplateBody};
use crate::domain::{Channel, TemplateId, TemplateVersion};
use crate::store::{SavedTemplate, Store, StoreError};
use crate::templates::{Checked, Engine, Preview, Reader, RenderError, TemplateProblems};

/// Another process's save is seen this much later at most; one's own at once.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// Templates kept; beyond it the memory is emptied and fills again.
const KEPT: usize = 1000;

/// Renders, and remembers which version of a template is current.
pub struct Renderer {
    store: Arc<dyn Store>,
    engine: Arc<Engine>,
    // Held for a lookup in a map, never over an await.
    current: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    templates: HashMap<TemplateId, (Instant, SavedTemplate)>,
    /// Versions never change.
    versions: HashMap<(TemplateId, TemplateVersion), Arc<Template>>,
    /// Grows with every [`Renderer::forget`]: what was read before it is not kept after it.
    forgotten: u64,
}

impl Renderer {
    pub(super) fn new(store: Arc<dyn Store>, engine: Arc<Engine>) -> Self {
        Renderer { store, engine, current: Mutex::default() }
    }

    /// The current version, at most [`FRESH_FOR`] old.
    pub async fn current(&self, id: &TemplateId) -> Result<Option<SavedTemplate>, StoreError> {
        let forgotten = {
            let kept = self.kept();
            match kept.templates.get(id) {
                Some((read_at, saved)) if read_at.elapsed() < FRESH_FOR => return Ok(Some(saved.clone())),
                _ => kept.forgotten,
            }
        };
        let found = self.store.template(id.clone(), None).await?;
        let mut kept = self.kept();
        if kept.forgotten == forgotten {
            if kept.templates.len() >= KEPT {
                kept.templates.clear();
            }
            match &found {
                Some(saved) => kept.templates.insert(id.clone(), (Instant::now(), saved.clone())),
                None => kept.templates.remove(id),
            };
        }
        Ok(found)
    }

    /// A template was saved or deleted here: what is remembered of it is old.
    pub fn forget(&self, id: &TemplateId) {
        let mut kept = self.kept();
        kept.forgotten += 1;
        kept.templates.remove(id);
    }

    /// The version a notification was accepted with.
    pub(super) async fn version(
        &self,
        id: &TemplateId,
        version: TemplateVersion,
    ) -> Result<Option<Arc<Template>>, StoreError> {
        let name = (id.clone(), version);
        if let Some(template) = self.kept().versions.get(&name) {
            return Ok(Some(Arc::clone(template)));
        }
        let Some(saved) = self.store.template(id.clone(), Some(version)).await? else { return Ok(None) };
        let template = Arc::new(saved.template);
        let mut kept = self.kept();
        if kept.versions.len() >= KEPT {
            kept.versions.clear();
        }
        kept.versions.insert(name, Arc::clone(&template));
        Ok(Some(template))
    }

    pub(super) fn render(
        &self,
        template: &Template,
        channel: Channel,
        data: &Value,
        reader: Reader<'_>,
    ) -> Result<Content, RenderError> {
        self.engine.render(template, channel, data, reader)
    }

    /// Syntax, limits, the variables used, and what is worth a look.
    pub fn check(&self, body: &TemplateBody) -> Result<Checked, TemplateProblems> {
        self.engine.check(body)
    }

    /// The variables used, also of a template that would not pass.
    pub fn variables(&self, body: &TemplateBody) -> Vec<String> {
        self.engine.variables(body)
    }

    /// The same, apart from what others wait for: a hostile page takes its time within its limits.
    pub async fn check_apart(&self, body: Arc<TemplateBody>) -> Result<Checked, TemplateProblems> {
        let engine = Arc::clone(&self.engine);
        apart(move || engine.check(&body)).await
    }

    /// What every channel would send, and what is missing for it. `of` is the record that reads it, and `locale` stands
    /// for its own.
    pub(super) async fn preview(
        &self,
        body: TemplateBody,
        data: Value,
        of: Option<&'static str>,
        locale: Option<String>,
    ) -> Result<Preview, RenderError> {
        let engine = Arc::clone(&self.engine);
        apart(move || {
            let reader = Reader::of(&data, of);
            engine.preview(&body, &data, Reader { locale: locale.as_deref().or(reader.locale), ..reader })
        })
        .await
    }

    /// A text that no template made.
    pub(super) fn given(&self, channel: Channel, text: &str) -> Result<Content, RenderError> {
        self.engine.given(channel, text)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs work of the processor's on a thread that may block.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // It panicked, which is a bug and is told as one; such work is never cancelled.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
