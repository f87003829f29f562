//! The path of one notification, a file per step.
//!
//! 1. [`accept`]: check what was asked, choose the account, render.
//!    For the queue, [`enqueue`]: one, or a batch; and [`ingress`]: what others publish. [`reschedule`] moves and ends
//!    what has not begun.
//! 2. [`direct`]: a send that somebody waits for: budget, durable row with an open attempt, send, durable outcome,
//!    answer ([`result`]). [`not_now`] is what is not tried, [`unconfirmed`] what the ledger did not confirm.
//! 3. [`relay`]: what the ledger holds and is due now is handed to the queue, a window of it at a time.
//! 4. [`work`]: what was handed over is made ready and opened, a crowd at a time, within the account's budget.
//! 5. [`ready`], [`context`] and [`render`]: records, data and template become text.
//! 6. [`send`]: one hand-off to the provider, within its deadline and this process's lease.
//! 7. [`record`]: what an outcome means, and its durable record; for queued sends many together ([`recorder`]).
//!
//! [`replay`] begins the path anew for what was given up, when a person asks for it.
//! [`queues`] says how all of it stands.
//! [`shared`] makes what several processes know of an account one thing.
//! [`lease`] keeps the process's epoch alive and settles what lost processes left. Whatever is killed between two
//! steps, the ledger says what has to happen next.

pub mod accept;
pub mod context;
mod dead_copies;
pub mod direct;
pub mod enqueue;
mod figures;
mod hand;
pub mod ingress;
pub mod lease;
mod not_now;
pub mod queues;
pub mod ready;
pub mod record;
mod recorder;
pub mod relay;
pub mod render;
pub mod replay;
mod reschedule;
mod result;
pub mod send;
mod shared;
mod suppressed;
mod unconfirmed;
pub mod work;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use accept::{IdempotencyKey, Refusal, SendRequest};
pub use context::Tried;
pub use direct::{DirectError, DirectResult};
pub use enqueue::{AcceptedBatch, BulkRecipient, BulkRequest};
pub use ingress::Door;
pub use lease::Lease;
pub use queues::{AccountDown, AccountNow, LaneNow, QueueNow, QueuesNow};
pub use replay::{Chosen, NotReplayed, ReplayRequest, Replayed};

use self::dead_copies::DeadCopies;
use self::figures::Figures;
use self::hand::{Hand, Held};
use self::recorder::Recorder;
use self::render::Renderer;
use self::suppressed::SuppressionCheck;
use crate::channels::{Accounts, Provider, UnknownAccount};
use crate::config::limits::LimitSettings;
use crate::domain::{AccountId, AccountRef, Channel, Clock, Epoch, IdSource};
use crate::limits::{Budget, Circuit, Meter, ScopeRule};
use crate::queue::Queue;
use crate::records::{Context, Sources};
use crate::store::{NewEpoch, Store, StoreError};
use crate::templates::Engine;

/// How the path behaves; the section `[delivery]` of the settings.
#[derive(Clone, Debug)]
pub struct DeliveryOptions {
    /// A direct send answers within this, unless the request gives its own time.
    pub direct_deadline: Duration,
    /// Recipients of an auto call that are still sent directly.
    pub auto_threshold: usize,
    /// Direct sends in the works at once; more wait their turn within their deadline.
    pub direct_concurrency: usize,
    /// Queued sends of one account in the works at once in this process.
    pub concurrency: usize,
    /// No hand-off of queued work takes longer.
    pub send_deadline: Duration,
    /// How long an at-least-once resend waits for a receipt.
    pub resend_grace: Duration,
    /// A process counts as alive for this long after its last sign of life.
    pub lease: Duration,
    /// How long an idempotency key is remembered.
    pub key_lifetime: Duration,
    /// Where phone numbers without a country code are from.
    pub default_region: Option<phonenumber::country::Id>,
    /// How accounts read times that are given without a zone.
    pub time_zones: HashMap<AccountRef, TimeZone>,
}

/// What this process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Answers requests, and sends directly by any channel.
    pub api: bool,
    /// Hands over what is due.
    pub relay: bool,
    /// Sends what was handed over.
    pub work: bool,
    /// What is queued only of these channels.
    pub channels: BTreeSet<Channel>,
}

impl Roles {
    /// What this process may send by.
    fn sends_by(&self) -> BTreeSet<Channel> {
        match (self.api, self.work) {
            (true, _) => Channel::ALL.into_iter().collect(),
            (false, true) => self.channels.clone(),
            (false, false) => BTreeSet::new(),
        }
    }
}

impl Default for Roles {
    fn default() -> Self {
        Roles { api: true, relay: true, work: true, channels: Channel::ALL.into_iter().collect() }
    }
}

/// One account with its budget.
pub struct SendingAccount {
    pub id: AccountId,
    pub provider: Arc<dyn Provider>,
    pub budget: Budget,
    /// Whether it can send at all.
    pub circuit: Circuit,
    /// Messages per second that the settings allow.
    pub allowed_per_second: f64,
    /// What the provider took from this process lately.
    pub sent: Meter,
    figures: Figures,
    hand: Hand,
    /// Queued sends that may be in the works at once, and the places for them that are free.
    width: usize,
    places: Arc<Semaphore>,
}

impl SendingAccount {
    pub fn name(&self) -> &AccountRef {
        self.provider.account()
    }

    /// Queued sends that this process has in the works.
    pub fn in_the_works(&self) -> usize {
        self.width.saturating_sub(self.places.available_permits())
    }

    /// Tasks that workers of this process have taken and not begun.
    pub fn in_hand(&self) -> usize {
        self.hand.len()
    }
}

/// The path, with everything it needs. One per process.
pub struct Delivery {
    store: Arc<dyn Store>,
    renderer: Renderer,
    records: Arc<Sources>,
    context: Context,
    suppressions: SuppressionCheck,
    accounts: Accounts,
    sending: HashMap<AccountRef, Arc<SendingAccount>>,
    /// Every account the ledger ever numbered, also those that the settings do not name any more.
    names: HashMap<AccountId, AccountRef>,
    lease: Arc<Lease>,
    /// What this process spends goes by it, whatever becomes of the lease.
    first_epoch: Epoch,
    /// There is something to tell other processes of an account.
    news: Arc<tokio::sync::Notify>,
    clock: Arc<dyn Clock>,
    ids: IdSource,
    options: DeliveryOptions,
    direct_permits: Semaphore,
    queue: Arc<dyn Queue>,
    roles: Roles,
    dead_copies: DeadCopies,
    /// Batches of which nothing may begin.
    held: Held,
    /// Outcomes that are known here and not yet in the ledger.
    unrecorded: Arc<AtomicUsize>,
    /// Outcomes of queued sends on their way to the ledger.
    recorder: Recorder,
    /// This process is to look what is due.
    wake: tokio::sync::Notify,
    /// Sends in the works, and the loop that begins them.
    sends: TaskTracker,
    tracker: TaskTracker,
    stopping: CancellationToken,
}

/// What [`Delivery::start`] puts together.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub engine: Arc<Engine>,
    pub records: Arc<Sources>,
    pub providers: Vec<(Arc<dyn Provider>, LimitSettings)>,
    pub queue: Arc<dyn Queue>,
    pub roles: Roles,
    pub clock: Arc<dyn Clock>,
    pub options: DeliveryOptions,
    /// For people: how the ledger lists this process.
    pub process_name: String,
    pub tracker: TaskTracker,
    /// Cancelled when no new work may begin.
    pub stopping: CancellationToken,
}

impl Delivery {
    /// Takes an epoch, settles what lost processes left, and begins to work on what is due.
    pub async fn start(parts: Parts) -> Result<Arc<Self>, StoreError> {
        let Parts { store, engine, records, providers, queue, roles, clock, options, process_name, tracker, stopping } =
            parts;
        let new = NewEpoch { name: process_name, channels: roles.sends_by() };
        let lease = Lease::begin(Arc::clone(&store), new, &options).await?;
        let refs = providers.iter().map(|(provider, _)| provider.account().clone()).collect();
        let numbered = store.accounts(refs).await?;
        let ids_by_name: HashMap<_, _> = numbered.iter().map(|(id, name)| (name.clone(), *id)).collect();
        let now = Instant::now();
        let news = Arc::<tokio::sync::Notify>::default();
        let mut sending = HashMap::new();
        for (provider, limits) in &providers {
            let name = provider.account().clone();
            let Some(id) = ids_by_name.get(&name) else { continue };
            let budget = Budget::new(limits, ScopeRule::of(name.channel), now).telling(Arc::clone(&news));
            // What could not leave at once would wait in the middle of its send, with its time running.
            let width = options.concurrency.min(provider.width().unwrap_or(usize::MAX)).max(1);
            let account = SendingAccount {
                id: *id,
                provider: Arc::clone(provider),
                budget,
                circuit: Circuit::default(),
                allowed_per_second: limits.per_second,
                sent: Meter::new(now),
                figures: Figures::of(&name),
                hand: Hand::default(),
                width,
                places: Arc::new(Semaphore::new(width)),
            };
            sending.insert(name, Arc::new(account));
        }
        let direct_permits = Semaphore::new(options.direct_concurrency);
        let delivery = Arc::new(Delivery {
            renderer: Renderer::new(Arc::clone(&store), engine),
            context: Context::new(Arc::<Sources>::clone(&records)),
            records,
            suppressions: SuppressionCheck::start(Arc::clone(&store)),
            accounts: Accounts::new(providers.into_iter().map(|(provider, _)| provider)),
            sending,
            names: numbered.into_iter().collect(),
            first_epoch: lease.epoch(),
            lease,
            news,
            ids: IdSource::new(Arc::clone(&clock)),
            store,
            clock,
            options,
            direct_permits,
            dead_copies: DeadCopies::start(&queue, &tracker),
            queue,
            roles,
            held: Held::default(),
            unrecorded: Arc::default(),
            recorder: Recorder::default(),
            wake: tokio::sync::Notify::new(),
            sends: TaskTracker::new(),
            tracker,
            stopping,
        });
        delivery.recover().await?;
        delivery.share_budgets().await?;
        // Its settings may have been mended.
        delivery.store.hasten_probes().await?;
        delivery.share_accounts(true).await?;
        lease::keep(&delivery);
        shared::keep(&delivery);
        if delivery.roles.relay {
            relay::start(&delivery);
        }
        if delivery.roles.work {
            work::start(&delivery);
        }
        Ok(delivery)
    }

    /// Ends when no new work may begin and what was running has settled.
    pub async fn settled(&self) {
        self.stopping.cancelled().await;
        self.sends.close();
        self.sends.wait().await;
        self.dead_copies.finish();
    }

    /// Gives back what is in hand. Called when everything that was running has settled.
    pub async fn finish(&self) -> Result<(), StoreError> {
        self.leave_accounts().await?;
        self.store.end_epoch(self.lease.epoch()).await
    }

    /// The templates as they are rendered, for checks at save time.
    pub fn renderer(&self) -> &Renderer {
        &self.renderer
    }

    /// Where CRM records come from.
    pub fn records(&self) -> &Sources {
        &self.records
    }

    /// Where phone numbers without a country code are from.
    pub fn default_region(&self) -> Option<phonenumber::country::Id> {
        self.options.default_region
    }

    /// The name of an account in the ledger.
    pub fn account_name(&self, id: AccountId) -> Option<&AccountRef> {
        self.names.get(&id)
    }

    /// The account named, else the channel's default.
    fn account(&self, channel: Channel, name: Option<&str>) -> Result<&Arc<SendingAccount>, UnknownAccount> {
        let provider = match name {
            Some(name) => self.accounts.get(channel, name)?,
            None => self.accounts.default_for(channel)?,
        };
        self.sending.get(provider.account()).ok_or(UnknownAccount::None(channel))
    }

    /// Something became due or may leave now: whoever relays is to look, in this process or another.
    fn tell_of_due(&self) {
        self.wake.notify_one();
        self.store.tell_of_due();
    }

    fn account_by_id(&self, id: AccountId) -> Option<&Arc<SendingAccount>> {
        self.names.get(&id).and_then(|name| self.sending.get(name))
    }
}
