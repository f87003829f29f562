//! Dead letters on their way again: each gets a new notification with the same content, data and records, which waits
//! for its turn like any other.
//!
//! What could not be sent as it is stays a dead letter, and it is said why. A trial run asks all the same questions and
//! writes nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::context::{explain, reader, recipient};
use super::{Delivery, DirectError, Refusal};
use crate::domain::clock::later;
use crate::domain::notification::is_expired;
use crate::domain::template::Template;
use crate::domain::{NotificationId, Recipient, Resolution, Status, TemplateId, TemplateVersion};
use crate::records::RecordSet;
use crate::store::{Decision, ERASED, FoundNotification, Replay, StoreError, UndecidedFilter};

/// Dead letters replayed in one step.
const STEP: usize = 50;
/// Dead letters listed at a time.
const PAGE: usize = 500;

/// Which dead letters are meant.
#[derive(Clone, Debug)]
pub enum Chosen {
    Ids(Vec<NotificationId>),
    /// Newest first, `limit` at most, and only what comes after the one given.
    Filter {
        filter: UndecidedFilter,
        after: Option<NotificationId>,
        limit: usize,
    },
}

/// What a person asks for.
#[derive(Clone, Debug)]
pub struct ReplayRequest {
    pub chosen: Chosen,
    /// Sent here instead of where it was to go.
    pub recipient: Option<String>,
    /// The current version of this template instead of what it was to say; it need not be another one.
    pub template: Option<TemplateId>,
    /// In any second no more than so many become due; the first at `start`.
    pub per_second: Option<f64>,
    pub start: Timestamp,
    /// Only say what would happen.
    pub is_trial: bool,
    pub by: String,
}

/// What became of a request.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Dead letters and what took their place; of a trial run, what would have.
    pub replayed: Vec<(NotificationId, NotificationId)>,
    pub refused: Vec<NotReplayed>,
    /// Where to go on when there are more: after which dead letter, and from which time on.
    pub more: Option<(NotificationId, Timestamp)>,
}

/// One that stays as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReplayed {
    pub id: NotificationId,
    /// A stable word for programs.
    pub code: &'static str,
    pub detail: String,
}

/// Everything a call needs to know only once.
struct Run<'a> {
    request: &'a ReplayRequest,
    /// The template that the request names.
    template: Option<Template>,
    /// Templates as dead letters were to be rendered with.
    known: HashMap<(TemplateId, TemplateVersion), Option<Arc<Template>>>,
    /// How many are on their way again.
    count: u64,
}

impl Run<'_> {
    /// When the next one becomes due: in whole seconds, so that many share a chunk.
    fn due_at(&self) -> Timestamp {
        self.after_start(|seconds| seconds.floor())
    }

    /// The first second that is still empty.
    fn goes_on_at(&self) -> Timestamp {
        self.after_start(|seconds| seconds.ceil())
    }

    fn after_start(&self, round: fn(f64) -> f64) -> Timestamp {
        /// Further away than anybody waits for.
        const LONGEST_SECONDS: f64 = 366.0 * 24.0 * 3600.0;
        #[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
        let seconds = self.request.per_second.map_or(0.0, |per_second| self.count as f64 / per_second);
        later(self.request.start, std::time::Duration::from_secs_f64(round(seconds).clamp(0.0, LONGEST_SECONDS)))
    }
}

impl Delivery {
    /// Replays what is chosen, step by step: what is done when it breaks off stays done, and asking again goes on.
    ///
    /// # Errors
    /// [`DirectError::Refused`] when the template is not there, [`DirectError::Records`] when records cannot be read,
    /// [`DirectError::Store`].
    pub async fn replay_dead_letters(&self, request: &ReplayRequest) -> Result<Replayed, DirectError> {
        let template = match &request.template {
            Some(id) => Some(self.renderer.current(id).await?.map(|saved| saved.template).ok_or_else(|| {
                let detail = format!("there is no template `{id}`");
                DirectError::Refused(vec![Refusal::new("/templateId", "unknown_template", detail)])
            })?),
            None => None,
        };
        let mut run = Run { request, template, known: HashMap::new(), count: 0 };
        let mut done = Replayed::default();
        match &request.chosen {
            Chosen::Ids(ids) => {
                let mut seen = HashSet::new();
                let ids: Vec<_> = ids.iter().copied().filter(|id| seen.insert(*id)).collect();
                for ids in ids.chunks(STEP) {
                    self.replay_some(&mut run, ids, &mut done).await?;
                }
            }
            Chosen::Filter { filter, after, limit } => {
                let (mut after, mut left) = (*after, *limit);
                loop {
                    let limit = u32::try_from(left.min(PAGE)).unwrap_or(1);
                    let page = self.store.dead_letters(filter.clone(), after, limit).await?;
                    let ids: Vec<_> = page.items.iter().map(|letter| letter.id).collect();
                    let Some(last) = ids.last() else { break };
                    for ids in ids.chunks(STEP) {
                        self.replay_some(&mut run, ids, &mut done).await?;
                    }
                    (after, left) = (Some(*last), left.saturating_sub(ids.len()));
                    if !page.more {
                        break;
                    }
                    if left == 0 {
                        done.more = Some((*last, run.goes_on_at()));
                        break;
                    }
                }
            }
        }
        Ok(done)
    }

    async fn replay_some(
        &self,
        run: &mut Run<'_>,
        ids: &[NotificationId],
        done: &mut Replayed,
    ) -> Result<(), DirectError> {
        let found = self.store.notifications(ids.to_vec()).await?;
        let there: HashSet<_> = found.iter().map(|found| found.id).collect();
        let missing = ids.iter().filter(|id| !there.contains(id));
        done.refused.extend(missing.map(|id| refused(*id, "unknown", "there is no notification with this id")));
        let records: Vec<_> = found.iter().map(|found| found.records.clone()).collect();
        let records = self.records_of(&records).await?;
        let mut replays = Vec::with_capacity(found.len());
        for found in &found {
            match self.replay_of(run, found, &records.of(&found.records)).await? {
                Ok(replay) => {
                    replays.push(replay);
                    run.count += 1;
                }
                Err((code, detail)) => done.refused.push(refused(found.id, code, detail)),
            }
        }
        let pairs: Vec<_> = replays.iter().map(|replay| (replay.dead, replay.new)).collect();
        if run.request.is_trial {
            done.replayed.extend(pairs);
            return Ok(());
        }
        let decision = Decision { by: run.request.by.clone(), at: self.clock.now() };
        let replayed: HashSet<_> = self.store.replay(replays, decision).await?.into_iter().collect();
        self.tell_of_due();
        let (ours, others): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(dead, _)| replayed.contains(dead));
        done.replayed.extend(ours);
        if !others.is_empty() {
            let others = others.into_iter().map(|(dead, _)| dead).collect();
            done.refused.extend(self.store.notifications(others).await?.iter().map(|found| {
                let (code, detail) = is_no_dead_letter(found)
                    .unwrap_or_else(|| ("erased", "it is about a person who is being erased".to_owned()));
                refused(found.id, code, detail)
            }));
        }
        Ok(())
    }

    /// What takes the place of one, or why it could not be sent: word and detail.
    async fn replay_of(
        &self,
        run: &mut Run<'_>,
        found: &FoundNotification,
        records: &RecordSet,
    ) -> Result<Result<Replay, (&'static str, String)>, StoreError> {
        if let Some(why_not) = is_no_dead_letter(found) {
            return Ok(Err(why_not));
        }
        if self.account_by_id(found.account).is_none() {
            return Ok(Err(("unknown_account", "its account is not in the settings any more".into())));
        }
        let due_at = run.due_at();
        if is_expired(found.not_after, due_at) {
            return Ok(Err(("expired", "its notAfter is earlier than it would be sent".into())));
        }
        if let Some(given) = &found.template
            && run.template.is_none()
            && !run.known.contains_key(given)
        {
            let template = self.renderer.version(&given.0, given.1).await?;
            run.known.insert(given.clone(), template);
        }
        let template = match (&run.template, &found.template) {
            (Some(template), _) => Some(template),
            (None, Some(given)) => match run.known.get(given) {
                Some(Some(template)) => Some(&**template),
                Some(None) | None => {
                    let detail = format!("version {} of template `{}` is gone", given.1.0, given.0);
                    return Ok(Err(("unknown_template", detail)));
                }
            },
            (None, None) => None,
        };
        let to = run.request.recipient.as_deref().unwrap_or(&found.recipient);
        let (recipient, content) = match self.rendered_again(found, to, template, records) {
            Ok(rendered) => rendered,
            Err(refusal) => return Ok(Err((refusal.code, refusal.detail))),
        };
        let recipient = recipient.to_string();
        if self.suppressions.stops(found.channel, recipient.clone(), &content).await? {
            return Ok(Err(("opted_out", "the recipient opted out".into())));
        }
        Ok(Ok(Replay {
            dead: found.id,
            new: self.ids.notification(),
            account: found.account,
            priority: found.priority,
            due_at,
            recipient: (recipient != found.recipient).then_some(recipient),
            template: run.template.as_ref().map(|template| (template.id.clone(), template.version)),
        }))
    }

    /// The message as it would leave now. One that never had an address takes that of its records.
    fn rendered_again(
        &self,
        found: &FoundNotification,
        to: &str,
        template: Option<&Template>,
        records: &RecordSet,
    ) -> Result<(Recipient, crate::domain::Content), Refusal> {
        let given: Map<String, Value> = match &found.data {
            Some(json) => {
                serde_json::from_str(json).map_err(|error| Refusal::new("/data", "data", error.to_string()))?
            }
            None => Map::new(),
        };
        let recipient = recipient(Some(to), found.channel, records, &given, self.options.default_region)?;
        let data = Value::Object(records.data(&given));
        let content = match (template, &found.text) {
            (Some(template), _) => {
                let to = recipient.to_string();
                let reader = reader(&to, found.channel, records, &data);
                let rendered = self.renderer.render(template, found.channel, &data, reader);
                rendered.map_err(|error| explain(Refusal::of_rendering(&error), records))?
            }
            (None, Some(text)) => {
                self.renderer.given(found.channel, text).map_err(|error| Refusal::of_rendering(&error))?
            }
            (None, None) => return Err(Refusal::new("", "neither", "it has neither a template nor a text")),
        };
        Ok((recipient, content))
    }
}

fn refused(id: NotificationId, code: &'static str, detail: impl Into<String>) -> NotReplayed {
    NotReplayed { id, code, detail: detail.into() }
}

/// Why one is no dead letter that could be sent again.
fn is_no_dead_letter(found: &FoundNotification) -> Option<(&'static str, String)> {
    if found.status != Status::Failed {
        return Some(("not_failed", format!("it is {}", found.status)));
    }
    match &found.resolved {
        Some(resolved) if resolved.how == Resolution::Replayed => {
            let new = resolved.replayed_as.map_or_else(String::new, |id| format!(" as {id}"));
            return Some(("replayed", format!("it was replayed{new} already")));
        }
        Some(_) => return Some(("discarded", "it was discarded".into())),
        None => {}
    }
    (found.recipient == ERASED).then(|| ("erased", "its recipient and content were erased".into()))
}
