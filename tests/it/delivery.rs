//! What the real program cannot be brought to do from outside: the path within the test's own process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vestnik::channels::Provider;
use vestnik::config::limits::LimitSettings;
use vestnik::delivery::{Delivery, DeliveryOptions, Parts, Roles};
use vestnik::domain::{
    AccountRef, Channel, HoldReason, NotificationId, Outcome, OutcomeClass, OutgoingMessage, Record, RecordId,
    RecordIds, RecordKind, Status,
};
use vestnik::queue::embedded::Embedded;
use vestnik::records::{RecordSource, SourceError, Sources};
use vestnik::store::{FoundNotification, NewNotification};
use vestnik::templates::{Engine, Limits};

use crate::support::eventually::{LONG, eventually};
use crate::support::ledger::{LEASE, RESEND_GRACE, SEND_DEADLINE, TestLedger, promises};

promises!(
    what_panics_three_times_is_poison_however_many_retries_it_has,
    what_panicked_twice_is_sent_when_the_bug_is_gone,
);

/// Looking at this contact panics, while `panics` says so.
const POISON: &str = "poison";

struct Contacts {
    panics: AtomicBool,
}

#[async_trait]
impl RecordSource for Contacts {
    async fn load(&self, _: RecordKind, ids: Vec<RecordId>) -> Result<Vec<Record>, SourceError> {
        let is_bug = self.panics.load(Ordering::SeqCst) && ids.iter().any(|id| id.as_str() == POISON);
        assert!(!is_bug, "as asked");
        Ok(Vec::new())
    }

    async fn fields(&self, _: RecordKind) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }
}

/// Takes everything.
struct Account {
    name: AccountRef,
    taken: Mutex<Vec<NotificationId>>,
}

#[async_trait]
impl Provider for Account {
    fn account(&self) -> &AccountRef {
        &self.name
    }

    async fn send(&self, message: &OutgoingMessage, _: Duration) -> Outcome {
        self.taken.lock().unwrap().push(message.id);
        Outcome::Accepted { provider_message_id: format!("wamid.{}", message.id), note: None }
    }

    async fn check(&self, _: Duration) -> Result<String, String> {
        Ok("it takes everything".into())
    }
}

/// What surrounds the path.
struct Stand {
    contacts: Arc<Contacts>,
    account: Arc<Account>,
}

/// One life of the path.
struct Life {
    delivery: Arc<Delivery>,
    tracker: TaskTracker,
    stopping: CancellationToken,
}

impl Stand {
    fn new() -> Self {
        let name = AccountRef { channel: Channel::WhatsApp, name: "main".into() };
        Stand {
            contacts: Arc::new(Contacts { panics: AtomicBool::new(true) }),
            account: Arc::new(Account { name, taken: Mutex::default() }),
        }
    }

    async fn start(&self, ledger: &TestLedger) -> Life {
        let (tracker, stopping) = (TaskTracker::new(), CancellationToken::new());
        let provider: Arc<dyn Provider> = Arc::<Account>::clone(&self.account);
        let limits = LimitSettings { per_second: 1_000.0, burst: 1_000, ..LimitSettings::default() };
        let delivery = Delivery::start(Parts {
            store: Arc::clone(ledger.store()),
            engine: Arc::new(Engine::new(Limits::default())),
            records: Arc::new(Sources::new(Arc::<Contacts>::clone(&self.contacts))),
            providers: vec![(provider, limits)],
            queue: Arc::new(Embedded::new()),
            roles: Roles::default(),
            clock: ledger.clock.clone(),
            options: DeliveryOptions {
                direct_deadline: SEND_DEADLINE,
                auto_threshold: 10,
                direct_concurrency: 10,
                concurrency: 10,
                send_deadline: SEND_DEADLINE,
                resend_grace: RESEND_GRACE,
                lease: LEASE,
                key_lifetime: Duration::from_secs(3600),
                default_region: None,
                time_zones: std::collections::HashMap::new(),
            },
            process_name: "test".into(),
            tracker: tracker.clone(),
            stopping: stopping.clone(),
        });
        Life { delivery: delivery.await.unwrap(), tracker, stopping }
    }

    fn taken(&self) -> Vec<NotificationId> {
        self.account.taken.lock().unwrap().clone()
    }
}

impl Life {
    async fn end(self) {
        self.stopping.cancel();
        self.delivery.settled().await;
        self.delivery.finish().await.unwrap();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// About a contact, due now.
fn about(ledger: &TestLedger, contact: &str, max_retries: i16) -> NewNotification {
    NewNotification {
        template: None,
        text: Some("Hello".into()),
        records: RecordIds { contact_id: Some(contact.into()), ..RecordIds::default() },
        max_retries,
        ..ledger.notification(ledger.due_now())
    }
}

/// Waits until so many attempts of it are over.
async fn tried(ledger: &TestLedger, id: NotificationId, times: usize) -> FoundNotification {
    eventually(LONG, "it was tried", async || {
        let found = ledger.find(id).await;
        // Attempts are read after the state, and may be newer.
        (found.open.is_none() && usize::try_from(found.attempt) == Ok(times)).then_some(found)
    })
    .await
}

fn classes(found: &FoundNotification) -> Vec<OutcomeClass> {
    found.attempts.iter().map(|attempt| attempt.class).collect()
}

async fn what_panics_three_times_is_poison_however_many_retries_it_has(ledger: TestLedger) {
    let stand = Stand::new();
    let poison = [about(&ledger, POISON, 0), about(&ledger, POISON, 10)];
    let fine = about(&ledger, "fine", 3);
    ledger.accept([&poison[..], std::slice::from_ref(&fine)].concat()).await;
    let life = stand.start(&ledger).await;
    for new in &poison {
        let found = tried(&ledger, new.id, 1).await;
        assert_eq!((found.status, found.hold), (Status::Pending, Some(HoldReason::Retry)));
        assert_eq!((found.retry_count, classes(&found)), (0, vec![OutcomeClass::Transient]));
        assert!(found.due_at > ledger.now(), "it waits first");
    }
    tried(&ledger, fine.id, 1).await;
    assert_eq!(stand.taken(), [fine.id], "it takes no other with it");
    // The ledger counts, not the process.
    life.end().await;
    ledger.assert_balances().await;
    let life = stand.start(&ledger).await;
    for times in 2..=3 {
        ledger.advance(Duration::from_secs(5)).await;
        for new in &poison {
            tried(&ledger, new.id, times).await;
        }
    }
    for new in &poison {
        let found = ledger.find(new.id).await;
        assert_eq!(found.status, Status::Failed);
        assert_eq!(
            classes(&found),
            [OutcomeClass::Transient, OutcomeClass::Transient, OutcomeClass::Permanent],
            "{found:#?}"
        );
        let (cause, error) = found.failure.unwrap();
        assert_eq!((cause.as_str(), error.code.as_str()), ("template", "render_panic"));
    }
    assert_eq!(stand.taken(), [fine.id]);
    life.end().await;
    ledger.assert_balances().await;
}

async fn what_panicked_twice_is_sent_when_the_bug_is_gone(ledger: TestLedger) {
    let stand = Stand::new();
    let new = about(&ledger, POISON, 0);
    ledger.accept(vec![new.clone()]).await;
    let life = stand.start(&ledger).await;
    tried(&ledger, new.id, 1).await;
    ledger.advance(Duration::from_secs(5)).await;
    tried(&ledger, new.id, 2).await;
    stand.contacts.panics.store(false, Ordering::SeqCst);
    ledger.advance(Duration::from_secs(5)).await;
    let found = tried(&ledger, new.id, 3).await;
    assert_eq!((found.status, stand.taken()), (Status::Sent, vec![new.id]));
    life.end().await;
    ledger.assert_balances().await;
}
