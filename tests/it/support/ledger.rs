//! A ledger of its own for each test, on either engine, with a clock that the test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use tempfile::TempDir;
use vestnik::domain::clock::from_micros;
use vestnik::domain::{
    AccountId, BatchId, Channel, Clock, Epoch, HoldReason, IdSource, ManualClock, Mode, NotificationId, OutcomeClass,
    Policy, Priority, ProviderError, RecordIds, Status, TemplateId, TemplateVersion,
};
use vestnik::store::{
    self, Accept, Accepted, Begin, Claim, Close, Counts, FoundNotification, HandedChunk, LedgerOptions, NewEpoch,
    NewKey, NewNotification, Next, Open, Opened, Record, Recover, Recovered, Store, StoreError, Stream, TakeDue,
    TakeFrom, Urgency,
};

use super::postgres::{self, TestDatabase};

/// Longer than a send may take, and than any call of a test: what the tests tell `recover`.
pub(crate) const SEND_DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const RESEND_GRACE: Duration = Duration::from_secs(120);
pub(crate) const LEASE: Duration = Duration::from_secs(20);
pub(crate) const ACCOUNT: AccountId = AccountId(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// Writes each promise as two tests, one per engine.
macro_rules! promises {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($crate::support::ledger::TestLedger::sqlite().await).await;
                }
            )*
        }

        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    if let Some(ledger) = $crate::support::ledger::TestLedger::postgres().await {
                        super::$name(ledger).await;
                    }
                }
            )*
        }
    };
}
pub(crate) use promises;

/// A process that may send by all channels.
pub(crate) fn new_epoch(name: &str) -> NewEpoch {
    NewEpoch { name: name.into(), channels: Channel::ALL.into() }
}

pub(crate) struct TestLedger {
    pub(crate) engine: Engine,
    store: Option<Arc<dyn Store>>,
    pub(crate) options: LedgerOptions,
    pub(crate) clock: Arc<ManualClock>,
    /// What the server's clock was set to last.
    server_micros: AtomicI64,
    pub(crate) ids: Arc<IdSource>,
    pub(crate) epoch: Epoch,
    pub(crate) database: Option<TestDatabase>,
    pub(crate) dir: TempDir,
}

impl TestLedger {
    pub(crate) async fn sqlite() -> Self {
        Self::start(Engine::Sqlite, None).await
    }

    pub(crate) async fn postgres() -> Option<Self> {
        Some(Self::start(Engine::Postgres, Some(TestDatabase::create().await?)).await)
    }

    async fn start(engine: Engine, database: Option<TestDatabase>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = LedgerOptions {
            database_url: database.as_ref().map(|database| SecretString::from(database.url())),
            data_dir: dir.path().join("data"),
            pool_size: 8,
            call_timeout: Duration::from_secs(20),
            sqlite_normal: false,
            lease: LEASE,
        };
        let clock = Arc::new(ManualClock::at(start_of_tests()));
        let ids = Arc::new(IdSource::new(clock.clone()));
        let mut ledger = TestLedger {
            engine,
            store: None,
            options,
            clock,
            server_micros: AtomicI64::new(0),
            ids,
            epoch: Epoch(0),
            database,
            dir,
        };
        ledger.store = Some(ledger.connect().await.unwrap());
        ledger.set_server_clock().await;
        ledger.epoch = ledger.begin_epoch().await;
        ledger
    }

    pub(crate) async fn connect(&self) -> Result<Arc<dyn Store>, StoreError> {
        store::connect(&self.options, self.clock.clone()).await
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().expect("the ledger is open")
    }

    pub(crate) async fn begin_epoch(&self) -> Epoch {
        self.store().begin_epoch(new_epoch("test")).await.unwrap()
    }

    /// Closes the ledger and opens it again, as a new process would. The epoch stays the old one.
    pub(crate) async fn reopen(&mut self) {
        self.close();
        self.store = Some(self.connect().await.unwrap());
    }

    pub(crate) fn close(&mut self) {
        let store = self.store.take().expect("the ledger is open");
        assert_eq!(Arc::strong_count(&store), 1, "somebody else still holds the store");
    }

    /// Moves our clock and the server's.
    pub(crate) async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.set_server_clock().await;
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// PostgreSQL compares with its own clock; in tests that one, too, stands still until it is moved.
    async fn set_server_clock(&self) {
        let now = self.now().as_microsecond();
        if self.engine == Engine::Postgres && self.server_micros.swap(now, Ordering::SeqCst) != now {
            self.raw(&format!(
                "CREATE OR REPLACE FUNCTION vestnik_now() RETURNS bigint LANGUAGE sql VOLATILE AS
                 $$ SELECT {now}::bigint $$"
            ))
            .await;
        }
    }

    /// Runs SQL behind the ledger's back, on a connection of its own.
    pub(crate) async fn raw(&self, sql: &str) {
        match &self.database {
            None => self.raw_sqlite().execute_batch(sql).unwrap(),
            Some(database) => postgres::connect(&database.url()).await.unwrap().batch_execute(sql).await.unwrap(),
        }
    }

    /// The first column of a query's rows, as text.
    pub(crate) async fn raw_column(&self, sql: &str) -> Vec<String> {
        match &self.database {
            None => {
                let db = self.raw_sqlite();
                let mut statement = db.prepare(&format!("SELECT CAST(c AS TEXT) FROM ({sql}) AS t")).unwrap();
                let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
                rows.map(|row| row.unwrap().unwrap_or_default()).collect()
            }
            Some(database) => {
                let client = postgres::connect(&database.url()).await.unwrap();
                let sql = format!("SELECT CAST(c AS TEXT) FROM ({sql}) AS t");
                let rows = client.query(sql.as_str(), &[]).await.unwrap();
                rows.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect()
            }
        }
    }

    /// `SELECT count(*) FROM {rest}`.
    pub(crate) async fn raw_count(&self, rest: &str) -> usize {
        self.raw_column(&format!("SELECT count(*) AS c FROM {rest}")).await[0].parse().unwrap()
    }

    fn raw_sqlite(&self) -> rusqlite::Connection {
        let db = rusqlite::Connection::open(self.options.data_dir.join("ledger.sqlite3")).unwrap();
        db.busy_timeout(Duration::from_secs(10)).unwrap();
        db
    }

    /// An id as a literal of this engine's SQL.
    pub(crate) fn literal(&self, id: uuid::Uuid) -> String {
        match self.engine {
            Engine::Sqlite => format!("x'{}'", id.simple()),
            Engine::Postgres => format!("'{id}'::uuid"),
        }
    }

    /// A list of ids as a literal of this engine's SQL.
    pub(crate) fn list_literal(&self, ids: &[uuid::Uuid]) -> String {
        match self.engine {
            Engine::Sqlite => format!("x'{}'", ids.iter().map(|id| id.simple().to_string()).collect::<String>()),
            Engine::Postgres => {
                format!("ARRAY[{}]::uuid[]", ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(","))
            }
        }
    }

    /// Due now.
    pub(crate) fn due_now(&self) -> Begin {
        Begin::Due { at: self.now(), scheduled: false }
    }

    pub(crate) fn notification(&self, begin: Begin) -> NewNotification {
        NewNotification {
            id: self.ids.notification(),
            batch: None,
            channel: Channel::WhatsApp,
            account: ACCOUNT,
            template: Some((TemplateId::parse("greeting").unwrap(), TemplateVersion(1))),
            text: None,
            recipient: "+79991234567".into(),
            records: RecordIds { contact_id: Some("c1".into()), ..RecordIds::default() },
            data: Some(r#"{"name":"Ann"}"#.into()),
            metadata: None,
            external_id: None,
            priority: Priority::Normal,
            policy: Policy::AtMostOnce,
            mode: Mode::Async,
            max_retries: 3,
            scheduled_at: None,
            not_after: None,
            created_at: self.now(),
            begin,
        }
    }

    /// As many as asked, in one batch, due now.
    pub(crate) fn batch(&self, count: usize) -> (BatchId, Vec<NewNotification>) {
        let batch = self.ids.batch();
        let new = |_| NewNotification { batch: Some(batch), ..self.notification(self.due_now()) };
        (batch, (0..count).map(new).collect())
    }

    pub(crate) fn accept_of(&self, notifications: Vec<NewNotification>) -> Accept {
        Accept { epoch: self.epoch, notifications, key: None, urgency: Urgency::Bulk, unseen: false }
    }

    pub(crate) async fn accept(&self, notifications: Vec<NewNotification>) {
        assert_eq!(self.store().accept(self.accept_of(notifications)).await.unwrap(), Accepted::Stored);
    }

    pub(crate) fn key(&self, key: &str) -> NewKey {
        NewKey {
            scope: "caller".into(),
            key: key.into(),
            request_hash: [7; 32],
            expires_at: self.now() + Duration::from_secs(24 * 3600),
        }
    }

    /// Takes all that is due, of any account.
    pub(crate) async fn take(&self) -> Vec<HandedChunk> {
        self.take_as(self.epoch).await
    }

    pub(crate) async fn take_as(&self, epoch: Epoch) -> Vec<HandedChunk> {
        let mut taken = Vec::new();
        loop {
            let more = self.take_some(self.store().as_ref(), epoch, u32::MAX).await;
            if more.is_empty() {
                return taken;
            }
            taken.extend(more);
        }
    }

    /// Up to `limit` of each stream, most urgent first.
    pub(crate) async fn take_some(&self, store: &dyn Store, epoch: Epoch, limit: u32) -> Vec<HandedChunk> {
        let waiting = store.waiting().await.unwrap();
        let from = waiting.streams.iter().map(|waiting| TakeFrom { stream: waiting.stream, limit }).collect();
        store.take_due(TakeDue { epoch, from, early: false }).await.unwrap()
    }

    /// The stream of what is accepted by itself.
    pub(crate) fn stream(&self) -> Stream {
        Stream { priority: Priority::Normal, account: ACCOUNT, batch: None }
    }

    /// Opens all of some chunks and gives the chunks back.
    pub(crate) async fn open(&self, chunks: &[HandedChunk]) -> Vec<Opened> {
        self.store().open(self.open_of(chunks)).await.unwrap()
    }

    pub(crate) fn open_of(&self, chunks: &[HandedChunk]) -> Open {
        Open { epoch: self.epoch, claims: claims(chunks), urgency: Urgency::Bulk }
    }

    /// Takes and opens one that is due alone.
    pub(crate) async fn take_and_open(&self) -> Opened {
        let opened = self.open(&self.take().await).await;
        assert_eq!(opened.len(), 1, "one is due");
        opened[0]
    }

    pub(crate) async fn record(&self, closes: Vec<Close>) -> Vec<bool> {
        self.record_as(self.epoch, closes).await
    }

    pub(crate) async fn record_as(&self, epoch: Epoch, closes: Vec<Close>) -> Vec<bool> {
        self.store().record(Record { epoch, closes, urgency: Urgency::Urgent }).await.unwrap()
    }

    /// The close of an attempt as the work does it.
    pub(crate) fn close_of(&self, new: &NewNotification, attempt: i16, next: Next) -> Close {
        let (class, cause) = match next {
            Next::Sent => (OutcomeClass::Accepted, "accepted"),
            Next::Failed => (OutcomeClass::Permanent, "recipient"),
            Next::Uncertain => (OutcomeClass::Ambiguous, "ambiguous"),
            Next::Again { counts: Counts::Nothing, .. } => (OutcomeClass::Throttled, "throttled"),
            Next::Again { counts: Counts::Resend, .. } => (OutcomeClass::Ambiguous, "ambiguous"),
            Next::Again { counts: Counts::Retry, .. } | Next::Reopen { .. } => (OutcomeClass::Transient, "transient"),
        };
        let is_accepted = class == OutcomeClass::Accepted;
        Close {
            id: new.id,
            batch: new.batch,
            account: new.account,
            channel: new.channel,
            priority: new.priority,
            recipient: new.recipient.clone(),
            template: new.template.clone(),
            attempt,
            opened_at: self.now(),
            closed_at: self.now(),
            class,
            cause,
            provider_message_id: is_accepted.then(|| format!("wamid.{}", new.id)),
            error: (!is_accepted).then(|| ProviderError::new("131026", "no such recipient")),
            text_hash: Some([3; 32]),
            flagged: false,
            suppress: None,
            next,
        }
    }

    /// Waits `after` before the next try.
    pub(crate) fn again(&self, after: Duration, hold: HoldReason, counts: Counts) -> Next {
        Next::Again { due_at: self.now() + after, hold, counts }
    }

    pub(crate) async fn find(&self, id: NotificationId) -> FoundNotification {
        let mut found = self.store().notifications(vec![id]).await.unwrap();
        found.pop().expect("it was accepted")
    }

    pub(crate) async fn status(&self, id: NotificationId) -> Status {
        self.find(id).await.status
    }

    pub(crate) async fn recover(&self) -> Recovered {
        self.recover_as(self.epoch).await
    }

    pub(crate) async fn recover_as(&self, epoch: Epoch) -> Recovered {
        self.try_recover_as(epoch).await.unwrap()
    }

    pub(crate) async fn try_recover_as(&self, epoch: Epoch) -> Result<Recovered, StoreError> {
        let recover = Recover { epoch, now: self.now(), send_deadline: SEND_DEADLINE, resend_grace: RESEND_GRACE };
        self.store().recover(recover).await
    }

    /// This process dies without a word, and a new one starts, long enough afterwards to know that it is dead.
    pub(crate) async fn crash(&mut self) -> Epoch {
        let lost = self.epoch;
        self.reopen().await;
        self.advance(LEASE + SEND_DEADLINE + Duration::from_secs(1)).await;
        self.epoch = self.begin_epoch().await;
        lost
    }

    pub(crate) async fn assert_balances(&self) {
        let report = self.store().verify().await.unwrap();
        assert!(report.balances(), "the books do not balance: {report:#?}");
    }
}

pub(crate) fn claims(chunks: &[HandedChunk]) -> Vec<Claim> {
    let of_chunk = |chunk: &HandedChunk| {
        let id = chunk.id;
        let handed = chunk.handed.clone().into_iter();
        handed.map(move |handed| Claim { id: handed.id, generation: handed.generation, chunk: id })
    };
    chunks.iter().flat_map(of_chunk).collect()
}

pub(crate) fn ids_of(chunks: &[HandedChunk]) -> Vec<NotificationId> {
    chunks.iter().flat_map(|chunk| &chunk.handed).map(|handed| handed.id).collect()
}

/// The causes of an error, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Some time of day with microseconds in it.
fn start_of_tests() -> Timestamp {
    from_micros(1_767_776_400_123_456)
}
