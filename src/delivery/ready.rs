//! 4. From tasks to messages: load what was asked, load its records, render. A crowd at a time.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::context::reader;
use super::hand::Holding;
use super::record::is_poison;
use super::suppressed;
use super::work::patiently;
use super::{Delivery, SendingAccount};
use crate::domain::clock::later;
use crate::domain::message::{Content, OutgoingMessage};
use crate::domain::notification::is_expired;
use crate::domain::{
    Attempt, Channel, HoldReason, NotificationId, Outcome, PermanentReason, ProviderError, Recipient, RecordIds, Status,
};
use crate::queue::{Delivery as Delivered, Task};
use crate::records::{Loaded, RecordSet};
use crate::store::{Claim, NewNotification, Postpone, Settle, StoreError, SuppressionScope};

/// The code of an attempt that came to nothing because making it ready panicked.
const PANICKED: &str = "render_panic";
/// What cannot be rendered because its records cannot be read is tried again after this.
const RECORDS_AWAY: std::time::Duration = std::time::Duration::from_secs(5);

/// A task that can begin: what was asked for, and the message, or why there is none.
pub(super) struct Ready {
    pub(super) claim: Claim,
    pub(super) new: NewNotification,
    pub(super) message: Result<OutgoingMessage, Outcome>,
    /// How often it had broken the rendering before, where it did so again.
    pub(super) panics: Option<u32>,
}

/// Tasks sorted by what becomes of them.
#[derive(Default)]
pub(super) struct Sorted {
    pub(super) ready: Vec<Ready>,
    pub(super) postponed: Vec<Postpone>,
    pub(super) settled: Vec<Settle>,
}

impl Sorted {
    pub(super) fn extend(&mut self, other: Sorted) {
        self.ready.extend(other.ready);
        self.postponed.extend(other.postponed);
        self.settled.extend(other.settled);
    }

    pub(super) fn postpone(&mut self, claim: Claim, new: &NewNotification, due_at: jiff::Timestamp, hold: HoldReason) {
        let (account, priority, batch) = (new.account, new.priority, new.batch);
        self.postponed.push(Postpone { claim, account, priority, batch, due_at, hold });
    }
}

pub(super) fn claim_of(task: &Task) -> Claim {
    Claim { id: task.id, generation: task.generation, chunk: task.chunk }
}

impl Delivery {
    /// Loads and renders. Tasks of paused batches go back, those of cancelled ones end; what the ledger does not know
    /// is dropped.
    pub(super) async fn make_ready(
        &self,
        account: &SendingAccount,
        deliveries: &[Delivered],
    ) -> Result<Sorted, StoreError> {
        let mut sorted = Sorted::default();
        let mut paused = Vec::new();
        let mut tasks: Vec<&Task> = Vec::with_capacity(deliveries.len());
        for task in deliveries.iter().map(|delivery| &delivery.task) {
            match self.held.of(task.batch) {
                None => tasks.push(task),
                Some(Holding::Paused) => paused.push(task.chunk),
                Some(Holding::Cancelled) => sorted.settled.push(self.end(
                    task.id,
                    claim_of(task),
                    task.batch,
                    Status::Cancelled,
                    "its batch was cancelled",
                )),
            }
        }
        self.give_back_all(paused).await;
        if tasks.is_empty() {
            return Ok(sorted);
        }
        let ids: Vec<NotificationId> = tasks.iter().map(|task| task.id).collect();
        let found = patiently(&self.stopping, || self.store.load(ids.clone())).await?;
        let mut found: HashMap<_, _> = found.into_iter().map(|new| (new.id, new)).collect();
        if found.len() < tasks.len() {
            drop_copies(&mut tasks);
        }
        let loaded: Vec<(Claim, NewNotification)> =
            tasks.iter().filter_map(|task| Some((claim_of(task), found.remove(&task.id)?))).collect();
        let ids: Vec<RecordIds> = loaded.iter().map(|(_, new)| new.records.clone()).collect();
        let records = self.records_of(&ids).await;
        let unwanted = self.unwanted(account.name().channel, &loaded).await?;
        let now = self.clock.now();
        for (n, (claim, new)) in loaded.into_iter().enumerate() {
            // Rendering takes the processor: others have their turn between.
            if n % 32 == 31 {
                tokio::task::yield_now().await;
            }
            if is_expired(new.not_after, now) {
                let reason = "notAfter passed before it left";
                sorted.settled.push(self.end(new.id, claim, new.batch, Status::Expired, reason));
                continue;
            }
            let set = match &records {
                Ok(loaded) => Loaded::of(loaded, &new.records),
                Err(_) if new.template.is_some() && new.records != RecordIds::default() => {
                    sorted.postpone(claim, &new, later(now, RECORDS_AWAY), HoldReason::Records);
                    continue;
                }
                Err(_) => RecordSet::default(),
            };
            let content = self.content(&new, &set).await?;
            if let (Some(scopes), Ok(content)) = (unwanted.get(&new.recipient), &content)
                && suppressed::stop(scopes, content)
            {
                sorted.settled.push(self.end(new.id, claim, new.batch, Status::Suppressed, "opted_out"));
                continue;
            }
            let message = message(&new, content);
            sorted.ready.push(Ready { claim, new, message, panics: None });
        }
        Ok(sorted)
    }

    /// One that broke the rendering, which is a bug: it is tried again, as its records or the release may be others
    /// then, and the third time it is poison. Its attempts in the ledger say how often that was.
    pub(super) async fn broken(&self, task: &Task) -> Result<Option<Ready>, StoreError> {
        tracing::error!(notification.id = %task.id, "its rendering panicked: it is a bug");
        let found = patiently(&self.stopping, || self.store.load(vec![task.id])).await?.pop();
        let known = patiently(&self.stopping, || self.store.notifications(vec![task.id])).await?.pop();
        let (Some(new), Some(known)) = (found, known) else { return Ok(None) };
        let panicked = |attempt: &&Attempt| attempt.error.as_ref().is_some_and(|error| error.code.as_str() == PANICKED);
        let before = u32::try_from(known.attempts.iter().filter(panicked).count()).unwrap_or(u32::MAX);
        let outcome = if is_poison(before) {
            let error = ProviderError::new(PANICKED, "rendering it panicked again and again: it is a bug");
            Outcome::Permanent { reason: PermanentReason::Template, error }
        } else {
            let error = ProviderError::new(PANICKED, "rendering it panicked: it is a bug");
            Outcome::Transient { handed_off: false, error }
        };
        Ok(Some(Ready { claim: claim_of(task), new, message: Err(outcome), panics: Some(before) }))
    }

    /// Who of them does not want to hear from us.
    async fn unwanted(
        &self,
        channel: Channel,
        loaded: &[(Claim, NewNotification)],
    ) -> Result<HashMap<String, Vec<SuppressionScope>>, StoreError> {
        let addresses: Vec<String> = loaded.iter().map(|(_, new)| new.recipient.clone()).collect();
        let found = patiently(&self.stopping, || self.store.suppressed(channel, addresses.clone())).await?;
        let mut unwanted: HashMap<String, Vec<SuppressionScope>> = HashMap::new();
        for (address, scope) in found {
            unwanted.entry(address).or_default().push(scope);
        }
        Ok(unwanted)
    }

    fn end(
        &self,
        id: NotificationId,
        claim: Claim,
        batch: Option<crate::domain::BatchId>,
        status: Status,
        reason: &str,
    ) -> Settle {
        Settle {
            epoch: self.lease.epoch(),
            id,
            batch,
            chunk: Some(claim.chunk),
            status,
            at: self.clock.now(),
            actor: "worker".into(),
            reason: reason.into(),
        }
    }

    async fn content(
        &self,
        new: &NewNotification,
        records: &RecordSet,
    ) -> Result<Result<Content, ProviderError>, StoreError> {
        if let Some(text) = &new.text {
            let given = self.renderer.given(new.channel, text);
            return Ok(given.map_err(|error| ProviderError::new("text", error.to_string())));
        }
        let Some((id, version)) = &new.template else {
            return Ok(Err(ProviderError::new("template", "it has neither a template nor a text")));
        };
        let template = patiently(&self.stopping, || self.renderer.version(id, *version)).await?;
        let Some(template) = template else {
            let gone = format!("version {} of template `{id}` is gone", version.0);
            return Ok(Err(ProviderError::new("template", gone)));
        };
        let given: Map<String, Value> = match new.data.as_deref().map(serde_json::from_str).transpose() {
            Ok(given) => given.unwrap_or_default(),
            Err(error) => return Ok(Err(ProviderError::new("data", error.to_string()))),
        };
        let data = Value::Object(records.data(&given));
        let reader = reader(&new.recipient, new.channel, records, &data);
        let rendered = self.renderer.render(&template, new.channel, &data, reader);
        Ok(rendered.map_err(|error| ProviderError::new("template", error.to_string())))
    }
}

/// Of several hand-overs of the same, only the last can be taken: an earlier one must not stand in its way.
fn drop_copies(tasks: &mut Vec<&Task>) {
    let mut last = HashMap::new();
    for task in tasks.iter() {
        let generation = last.entry(task.id).or_insert(task.generation);
        *generation = task.generation.max(*generation);
    }
    tasks.retain(|task| last.get(&task.id) == Some(&task.generation));
}

fn message(new: &NewNotification, content: Result<Content, ProviderError>) -> Result<OutgoingMessage, Outcome> {
    let recipient = Recipient::kept(new.channel, &new.recipient);
    match (content, recipient) {
        (Ok(content), Ok(recipient)) => Ok(OutgoingMessage { id: new.id, recipient, content }),
        (Err(error), _) => Err(Outcome::Permanent { reason: PermanentReason::Template, error }),
        (_, Err(error)) => {
            let error = ProviderError::new("address", error.to_string());
            Err(Outcome::Permanent { reason: PermanentReason::Recipient, error })
        }
    }
}
