//! What waits for a person: found, counted, and decided about once, on SQLite and PostgreSQL alike.

mod deciding;
mod replaying;
mod settling;

use vestnik::domain::{AccountRef, Channel, NotificationId, ProviderError, Status};
use vestnik::store::{Begin, Close, Decision, NewNotification, Next, Undecided, UndecidedFilter};

use crate::support::ledger::TestLedger;

/// The accounts that the tests send from: 1 is `whatsapp.main`, 2 `telegram.bot`.
async fn number_accounts(ledger: &TestLedger) {
    let name = |channel, name: &str| AccountRef { channel, name: name.into() };
    let accounts = vec![name(Channel::WhatsApp, "main"), name(Channel::Telegram, "bot")];
    let numbered = ledger.store().accounts(accounts).await.unwrap();
    assert_eq!(numbered.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [1, 2]);
}

fn failed(ledger: &TestLedger, cause: &'static str, code: &str) -> NewNotification {
    let error = ProviderError::new(code, "what the provider said");
    ledger.notification(Begin::Ended { status: Status::Failed, cause, error })
}

/// So many that were sent, of which nobody knows.
async fn uncertain(ledger: &TestLedger, news: Vec<NewNotification>) -> Vec<NotificationId> {
    ledger.accept(news.clone()).await;
    let closes = news.iter().map(|new| ledger.close_of(new, 1, Next::Uncertain)).collect::<Vec<Close>>();
    assert!(ledger.record(closes).await.iter().all(|closed| *closed));
    news.iter().map(|new| new.id).collect()
}

fn by(ledger: &TestLedger, name: &str) -> Decision {
    Decision { by: name.into(), at: ledger.now() }
}

async fn letters(ledger: &TestLedger, filter: UndecidedFilter) -> Vec<NotificationId> {
    ids(ledger.store().dead_letters(filter, None, 1000).await.unwrap().items)
}

async fn all_letters(ledger: &TestLedger) -> Vec<NotificationId> {
    letters(ledger, UndecidedFilter::default()).await
}

fn ids(found: Vec<Undecided>) -> Vec<NotificationId> {
    found.into_iter().map(|found| found.id).collect()
}

fn sorted(mut ids: Vec<NotificationId>) -> Vec<NotificationId> {
    ids.sort_unstable();
    ids
}

/// What a receipt does that corrects a failure.
async fn delivered_after_all(ledger: &TestLedger, id: NotificationId) {
    let (id, nil, event) = (ledger.literal(id.0), ledger.literal(uuid::Uuid::nil()), ledger.literal(ledger.ids.next()));
    let now = ledger.now().as_microsecond() + 1;
    ledger
        .raw(&format!(
            "UPDATE work SET state = 6 WHERE id = {id};
             INSERT INTO events (id, notification_id, at, status, actor, reason)
                 VALUES ({event}, {id}, {now}, 6, 'worker', 'receipt');
             INSERT INTO counters (batch_id, epoch, slot, status, n) VALUES ({nil}, 0, 9, 8, -1), ({nil}, 0, 9, 6, 1);"
        ))
        .await;
}
