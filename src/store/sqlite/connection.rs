//! The one writer and the few readers of the file.
//!
//! One thread owns the only writable connection. It takes all that waits, urgent jobs first and bulk jobs for at most
//! [`BULK_SLICE`], runs them in one transaction and answers after its commit: many durable changes for one fsync.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Semaphore, oneshot};

use crate::store::{StoreError, Urgency};

/// Bulk jobs share a commit for no longer than this, so that a direct send never waits long for the writer.
const BULK_SLICE: Duration = Duration::from_millis(5);
/// Jobs in one commit at most: bounds what a failed commit takes with it.
const JOBS_PER_COMMIT: usize = 512;
/// Readers at once. SQLite's readers never wait for the writer.
const READERS: usize = 4;
/// Kept prepared on each connection: more than there are in turn on the way of a notification.
const STATEMENTS: usize = 64;
/// After this long without work the writer gives its page cache back, and empties the write-ahead log: what was deleted
/// is in it until then.
const IDLE: Duration = Duration::from_secs(5);
/// Somebody else has the file: another program that looks into it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// 3.51.3 mended the reset of the write-ahead log, which could corrupt a file (sqlite.org/wal.html#walresetbug).
const OLDEST_SQLITE: i32 = 3_051_003;

/// A change waiting for its turn: runs inside the transaction, is told how the commit went.
trait Job: Send {
    fn run(&mut self, db: &Connection) -> Result<(), ()>;
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Change<F, U, T> {
    doing: &'static str,
    run: Option<F>,
    undo: U,
    outcome: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, U, T> Job for Change<F, U, T>
where
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
    U: FnOnce(T) + Send,
    T: Send,
{
    fn run(&mut self, db: &Connection) -> Result<(), ()> {
        let run = self.run.take().expect("a job runs once");
        // A panic in one job must not take the writer, and with it everybody, along; what it did is rolled back.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(db)))
            .unwrap_or_else(|_| Err(StoreError::refused(self.doing, "a bug: the change panicked")));
        let ok = outcome.is_ok();
        self.outcome = Some(outcome);
        if ok { Ok(()) } else { Err(()) }
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let Change { doing, undo, outcome, answer, .. } = *self;
        let result = match (outcome, committed) {
            (Some(Ok(value)), Err(error)) => {
                undo(value);
                Err(error)
            }
            (Some(outcome), _) => outcome,
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Err(StoreError::refused(doing, "the writer did not run the job")),
        };
        // Whoever asked may have gone; the change stands all the same.
        let _ = answer.send(result);
    }
}

#[derive(Default)]
struct Queue {
    urgent: VecDeque<Box<dyn Job>>,
    bulk: VecDeque<Box<dyn Job>>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// The connections to one ledger file.
pub(super) struct Connections {
    shared: Arc<Shared>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    readers: Arc<Mutex<Vec<Connection>>>,
    reader_permits: Arc<Semaphore>,
    path: PathBuf,
}

impl Connections {
    /// Takes a connection that is ready for writing, and starts its thread.
    pub(super) fn start(writer: Connection, path: &Path) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared { queue: Mutex::new(Queue::default()), wake: Condvar::new() });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("ledger-writer".into())
            .spawn(move || write_loop(&for_thread, &writer))
            .map_err(|error| StoreError::refused("starting the writer", error))?;
        Ok(Connections {
            shared,
            writer: Mutex::new(Some(thread)),
            readers: Arc::new(Mutex::new(Vec::new())),
            reader_permits: Arc::new(Semaphore::new(READERS)),
            path: path.into(),
        })
    }

    /// Without a writer: every change is refused.
    pub(super) fn read_only(path: &Path) -> Self {
        Connections {
            shared: Arc::new(Shared {
                queue: Mutex::new(Queue { closed: true, ..Queue::default() }),
                wake: Condvar::new(),
            }),
            writer: Mutex::new(None),
            readers: Arc::new(Mutex::new(Vec::new())),
            reader_permits: Arc::new(Semaphore::new(READERS)),
            path: path.into(),
        }
    }

    /// Runs `run` in the writer's next transaction; `Ok` means committed. If the commit fails after `run` succeeded,
    /// `undo` gets what it returned. The change happens even if the returned future is dropped.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        doing: &'static str,
        urgency: Urgency,
        run: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        undo: impl FnOnce(T) + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(Change { doing, run: Some(run), undo, outcome: None, answer });
        {
            let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.closed {
                return Err(StoreError::unavailable(doing, "the ledger is closed"));
            }
            match urgency {
                Urgency::Urgent => queue.urgent.push_back(job),
                Urgency::Bulk => queue.bulk.push_back(job),
            }
        }
        self.shared.wake.notify_one();
        answered.await.map_err(|_| StoreError::unavailable(doing, "the writer stopped"))?
    }

    /// Runs `run` on a read-only connection, in a snapshot of its own and outside the async threads.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        run: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.reader_permits)
            .acquire_owned()
            .await
            .map_err(|_| StoreError::unavailable(doing, "the ledger is closed"))?;
        let (readers, path) = (Arc::clone(&self.readers), self.path.clone());
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let idle = readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => open_reader(&path)?,
            };
            // Each query alone would take its own locks, and forget the pages that the last one read.
            let result = match connection.transaction() {
                Ok(snapshot) => run(&snapshot),
                Err(error) => Err(from_sqlite(doing, error)),
            };
            readers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            result
        });
        done.await.map_err(|error| StoreError::refused(doing, error))?
    }
}

impl Drop for Connections {
    /// Finishes what waits, then closes the file.
    fn drop(&mut self) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

fn write_loop(shared: &Shared, db: &Connection) {
    while let Some(jobs) = next_jobs(shared, db) {
        commit(db, shared, jobs);
    }
    let _ = db.execute_batch("PRAGMA optimize");
}

/// Waits for work. `None` when closed and empty.
fn next_jobs(shared: &Shared, db: &Connection) -> Option<VecDeque<Box<dyn Job>>> {
    let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rested = false;
    loop {
        if !queue.urgent.is_empty() {
            return Some(std::mem::take(&mut queue.urgent));
        }
        if let Some(job) = queue.bulk.pop_front() {
            return Some(VecDeque::from([job]));
        }
        if queue.closed {
            return None;
        }
        if rested {
            queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        } else {
            let (back, timeout) = shared.wake.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = back;
            if timeout.timed_out() {
                rested = true;
                drop(queue);
                rest(db);
                queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// A reader that is in the way is not waited for: the next rest will do.
fn rest(db: &Connection) {
    let _ = db.execute_batch("PRAGMA shrink_memory");
    let _ = db.busy_timeout(Duration::ZERO);
    let _ = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    let _ = db.busy_timeout(BUSY_TIMEOUT);
}

/// One transaction: `jobs`, then whatever is urgent or fits into the bulk slice meanwhile.
fn commit(db: &Connection, shared: &Shared, mut jobs: VecDeque<Box<dyn Job>>) {
    let mut done: Vec<Box<dyn Job>> = Vec::with_capacity(jobs.len());
    if let Err(error) = db.execute_batch("BEGIN IMMEDIATE") {
        let error = error.to_string();
        for job in jobs {
            job.finish(Err(StoreError::unavailable("starting a commit", error.clone())));
        }
        return;
    }
    let started = Instant::now();
    let mut broken = None;
    while let Some(mut job) = jobs.pop_front() {
        // Each in a savepoint: it may fail alone.
        let ran = db.execute_batch("SAVEPOINT job").map_err(|_| ()).and_then(|()| job.run(db));
        let closed = match ran {
            Ok(()) => db.execute_batch("RELEASE job"),
            Err(()) => db.execute_batch("ROLLBACK TO job; RELEASE job"),
        };
        done.push(job);
        if let Err(error) = closed {
            broken = Some(error.to_string());
            break;
        }
        if jobs.is_empty() && done.len() < JOBS_PER_COMMIT {
            let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if !queue.urgent.is_empty() {
                jobs = std::mem::take(&mut queue.urgent);
            } else if started.elapsed() < BULK_SLICE {
                jobs.extend(queue.bulk.pop_front());
            }
        }
    }
    // What a job that failed has left behind must not be committed with the others.
    let failure = broken.or_else(|| db.execute_batch("COMMIT").err().map(|error| error.to_string()));
    if failure.is_some() && !db.is_autocommit() {
        let _ = db.execute_batch("ROLLBACK");
    }
    for job in done.into_iter().chain(jobs) {
        job.finish(match &failure {
            None => Ok(()),
            Some(text) => Err(StoreError::unavailable("committing", text.clone())),
        });
    }
}

pub(super) fn open_writer(path: &Path, normal: bool) -> Result<Connection, StoreError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(StoreError::Setup(format!(
            "SQLite {} is too old: 3.51.3 is the oldest safe one",
            rusqlite::version()
        )));
    }
    let db = Connection::open(path).map_err(|error| from_sqlite("opening the ledger", error))?;
    let synchronous = if normal { "NORMAL" } else { "FULL" };
    db.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA foreign_keys = ON;
         PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4000; PRAGMA temp_store = MEMORY;
         PRAGMA secure_delete = ON;"
    ))
    .and_then(|()| db.busy_timeout(BUSY_TIMEOUT))
    .map_err(|error| from_sqlite("opening the ledger", error))?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(db)
}

fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(|error| from_sqlite("opening the ledger", error))?;
    db.execute_batch("PRAGMA cache_size = -2048; PRAGMA temp_store = MEMORY;")
        .and_then(|()| db.busy_timeout(BUSY_TIMEOUT))
        .map_err(|error| from_sqlite("opening the ledger", error))?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(db)
}

/// Busy, full or failing disks may pass; the rest is a bug or damage.
pub(super) fn from_sqlite(doing: &'static str, error: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, SystemIoFailure};
    match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked | DiskFull | SystemIoFailure | CannotOpen | OutOfMemory) => {
            StoreError::unavailable(doing, error)
        }
        _ => StoreError::refused(doing, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_one_change_harms_no_other() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ledger.sqlite3");
        let connections = Connections::start(open_writer(&path, true).expect("a file"), &path).expect("a writer");
        let insert = |panics: bool| {
            connections.write(
                "testing",
                Urgency::Bulk,
                move |db| {
                    db.execute_batch("CREATE TABLE IF NOT EXISTS t (n INTEGER); INSERT INTO t VALUES (1)")
                        .map_err(|error| from_sqlite("testing", error))?;
                    assert!(!panics, "as asked");
                    Ok(())
                },
                drop,
            )
        };
        let (good, bad, neighbour) = tokio::join!(insert(false), insert(true), insert(false));
        good.expect("it is committed");
        neighbour.expect("it is committed, too");
        assert!(matches!(bad, Err(StoreError::Refused { .. })));
        let count = |db: &Connection| {
            db.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))
                .map_err(|error| from_sqlite("testing", error))
        };
        assert_eq!(connections.read("testing", count).await.expect("a count"), 2);
    }
}
