//! An import from its first byte to its last: reads and saves at the same time.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;

use super::reader::{Reader, Row};
use super::{Counts, FileProblem, Found, Given, ImportOptions, Rejected};
use crate::domain::{Clock, Record};
use crate::store::{RECORDS_AT_ONCE, Records, SaveHow, Saved, StoreError};

/// So much is parsed without a look at other tasks: about a millisecond's work.
const PIECE_BYTES: usize = 8 * 1024;
/// Rows of a batch, as they are in the file: few where they are long.
const BATCH_BYTES: usize = 1024 * 1024;

/// What an import did, however it ended.
pub struct Import<E> {
    pub counts: Counts,
    /// None where the file's start was not seen.
    pub found: Option<Found>,
    pub ended: Result<(), Ended<E>>,
}

/// Why an import ended early. What was counted until then is saved.
#[derive(Debug)]
pub enum Ended<E> {
    /// The file cannot be read further.
    File(FileProblem),
    /// No more of it came.
    Input(E),
    Store(StoreError),
    /// A rejected row could not be kept.
    Rejected(io::Error),
}

/// Brings a file in. `rejected` is called for every row that is not taken, in order.
///
/// While a batch is saved the next one is read. Every row before a problem of the file is saved, so that the same
/// file gives the same counts however it comes.
pub async fn import<E>(
    mut pieces: impl Stream<Item = Result<Bytes, E>> + Unpin,
    options: ImportOptions,
    records: &dyn Records,
    clock: &dyn Clock,
    mut rejected: impl FnMut(&Rejected) -> io::Result<()>,
) -> Import<E> {
    let options = Arc::new(options);
    // One batch waits while one is saved and one is read.
    let (full, mut batches) = mpsc::channel(1);
    let mut reader = Reader::new(Arc::clone(&options));
    let reading = async {
        let mut batch = Batch::default();
        let mut ended = Ok(());
        'file: while ended.is_ok() {
            let piece = match pieces.next().await {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => {
                    ended = Err(Ended::Input(error));
                    break;
                }
                None => {
                    ended = reader.finish(&mut batch.read).map_err(Ended::File);
                    break;
                }
            };
            for piece in piece.chunks(PIECE_BYTES) {
                ended = reader.read(piece, &mut batch.read).map_err(Ended::File);
                // Where nobody saves any more, the reason is theirs.
                if !batch.send_full(&full).await {
                    break 'file;
                }
                if ended.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        batch.send_all(full).await;
        ended
    };
    let mut saver = Saver { options: &options, records, clock, counts: Counts::default(), rejected: &mut rejected };
    let saving = async {
        // Dropped at its end, so that reading ends, too.
        let mut batches = std::pin::pin!(&mut batches);
        while let Some(batch) = batches.recv().await {
            if let Err(error) = saver.save(batch).await {
                batches.close();
                return Err(error);
            }
        }
        Ok(())
    };
    let (read, saved) = futures::join!(reading, saving);
    Import { counts: saver.counts, found: reader.found(), ended: saved.and(read) }
}

/// Rows that were read and are not yet on their way.
#[derive(Default)]
struct Batch {
    read: Vec<Row>,
}

impl Batch {
    /// Hands over what makes a whole batch. False when nobody takes it.
    async fn send_full(&mut self, to: &mpsc::Sender<Vec<Row>>) -> bool {
        loop {
            let mut bytes = 0;
            let rows = self.read.iter().take(RECORDS_AT_ONCE).take_while(|row| {
                let fits = bytes < BATCH_BYTES;
                bytes += row.given.len_bytes();
                fits
            });
            let rows = rows.count();
            if rows < RECORDS_AT_ONCE && bytes < BATCH_BYTES {
                return true;
            }
            let rest = self.read.split_off(rows);
            if to.send(std::mem::replace(&mut self.read, rest)).await.is_err() {
                return false;
            }
        }
    }

    async fn send_all(mut self, to: mpsc::Sender<Vec<Row>>) {
        if self.send_full(&to).await && !self.read.is_empty() {
            // Where nobody saves any more, the reason is theirs.
            let _ = to.send(self.read).await;
        }
    }
}

struct Saver<'a, R> {
    options: &'a ImportOptions,
    records: &'a dyn Records,
    clock: &'a dyn Clock,
    counts: Counts,
    rejected: &'a mut R,
}

impl<R: FnMut(&Rejected) -> io::Result<()>> Saver<'_, R> {
    async fn save<E>(&mut self, batch: Vec<Row>) -> Result<(), Ended<E>> {
        let mut places = Vec::with_capacity(batch.len());
        let mut records = Vec::with_capacity(batch.len());
        for Row { line, given, record } in batch {
            let reason = match record {
                Ok(record) => {
                    records.push(record);
                    None
                }
                Err(reason) => Some(reason),
            };
            places.push((line, given, reason));
        }
        let saved = match records.is_empty() {
            true => Vec::new(),
            false if self.options.is_dry_run => self.try_out(records).await.map_err(Ended::Store)?,
            false => {
                let (kind, how, at) = (self.options.kind, self.options.how, self.clock.now());
                self.records.save_records(kind, records, how, at).await.map_err(Ended::Store)?
            }
        };
        let mut saved = saved.into_iter();
        for (line, given, reason) in places {
            let reason = match reason {
                Some(reason) => Some(reason),
                None => match saved.next() {
                    Some(Saved::Refused(reason)) => Some(reason),
                    Some(Saved::Created) => add(&mut self.counts.created),
                    Some(Saved::Updated) => add(&mut self.counts.updated),
                    Some(Saved::Unchanged) => add(&mut self.counts.unchanged),
                    // The ledger answers for each record.
                    None => None,
                },
            };
            self.counts.rows += 1;
            if let Some(reason) = reason {
                self.reject(line, reason, given).map_err(Ended::Rejected)?;
            }
        }
        Ok(())
    }

    fn reject(&mut self, line: u64, reason: String, given: Given) -> io::Result<()> {
        self.counts.rejected += 1;
        (self.rejected)(&Rejected { line, reason, row: given.cut() })
    }

    /// What saving would answer. Only within a batch it knows of records that were not there before.
    async fn try_out(&self, records: Vec<Record>) -> Result<Vec<Saved>, StoreError> {
        let ids = records.iter().map(|record| record.id.clone()).collect();
        let kept = self.records.records(self.options.kind, ids).await?;
        let mut kept: HashMap<_, _> = kept.into_iter().map(|kept| (kept.record.id.clone(), kept.record)).collect();
        let saved = records.into_iter().map(|record| {
            let id = record.id.clone();
            let Some(old) = kept.get(&id) else {
                kept.insert(id, record.without_nulls());
                return Saved::Created;
            };
            let new = match self.options.how {
                SaveHow::Replace => Ok(record.without_nulls()),
                SaveHow::Merge => old.clone().merged(record),
            };
            match new {
                Ok(new) if new == *old => Saved::Unchanged,
                Ok(new) => {
                    kept.insert(id, new);
                    Saved::Updated
                }
                Err(problem) => Saved::Refused(problem.to_string()),
            }
        });
        Ok(saved.collect())
    }
}

fn add(count: &mut u64) -> Option<String> {
    *count += 1;
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use futures::stream;
    use jiff::Timestamp;

    use super::super::Format;
    use super::*;
    use crate::domain::{RecordId, RecordKind, SystemClock};
    use crate::store::{KeptRecord, RecordFilter};

    /// Records in memory, and how many came at once.
    #[derive(Default)]
    struct Memory {
        kept: Mutex<BTreeMap<RecordId, Record>>,
        most_at_once: Mutex<usize>,
        is_away: bool,
    }

    #[async_trait]
    impl Records for Memory {
        async fn save_records(
            &self,
            _: RecordKind,
            records: Vec<Record>,
            how: SaveHow,
            _: Timestamp,
        ) -> Result<Vec<Saved>, StoreError> {
            if self.is_away {
                return Err(StoreError::Setup("away".into()));
            }
            let mut most = self.most_at_once.lock().unwrap();
            *most = (*most).max(records.len());
            let mut kept = self.kept.lock().unwrap();
            let mut save = |record: Record| {
                let old = kept.get(&record.id).cloned();
                let new = match (&old, how) {
                    (Some(old), SaveHow::Merge) => match old.clone().merged(record) {
                        Ok(new) => new,
                        Err(problem) => return Saved::Refused(problem.to_string()),
                    },
                    (None, _) | (_, SaveHow::Replace) => record.without_nulls(),
                };
                kept.insert(new.id.clone(), new.clone());
                match old {
                    None => Saved::Created,
                    Some(old) if old == new => Saved::Unchanged,
                    Some(_) => Saved::Updated,
                }
            };
            Ok(records.into_iter().map(&mut save).collect())
        }

        async fn records(&self, _: RecordKind, ids: Vec<RecordId>) -> Result<Vec<KeptRecord>, StoreError> {
            let kept = self.kept.lock().unwrap();
            let times = |record: &Record| KeptRecord {
                record: record.clone(),
                created_at: Timestamp::UNIX_EPOCH,
                updated_at: Timestamp::UNIX_EPOCH,
            };
            Ok(ids.iter().filter_map(|id| kept.get(id)).map(times).collect())
        }

        async fn list_records(
            &self,
            _: RecordKind,
            _: RecordFilter,
            _: Option<RecordId>,
            _: u32,
        ) -> Result<Vec<KeptRecord>, StoreError> {
            Ok(Vec::new())
        }

        async fn delete_record(&self, _: RecordKind, _: RecordId) -> Result<bool, StoreError> {
            Ok(false)
        }

        async fn record_fields(&self, _: RecordKind) -> Result<Vec<String>, StoreError> {
            Ok(Vec::new())
        }
    }

    fn options() -> ImportOptions {
        ImportOptions {
            kind: RecordKind::Contact,
            how: SaveHow::Merge,
            is_dry_run: false,
            format: Some(Format::Csv),
            encoding: None,
            delimiter: None,
            map: Vec::new(),
            region: None,
        }
    }

    async fn run(records: &Memory, options: ImportOptions, text: &str) -> (Import<Infallible>, Vec<u64>) {
        let pieces: Vec<_> = text.as_bytes().chunks(50_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let mut lines = Vec::new();
        let rejected = |rejected: &Rejected| {
            lines.push(rejected.line);
            Ok(())
        };
        let import = import(stream::iter(pieces), options, records, &SystemClock, rejected).await;
        (import, lines)
    }

    fn table(rows: usize) -> String {
        (0..rows).fold("id,name,phone\n".to_owned(), |text, id| text + &format!("c{id},Anna {id},\n"))
    }

    fn counts(rows: u64, created: u64, updated: u64, unchanged: u64, rejected: u64) -> Counts {
        Counts { rows, created, updated, unchanged, rejected }
    }

    #[tokio::test]
    async fn the_same_file_twice_changes_nothing() {
        let records = Memory::default();
        let text = table(5_000) + "c1,Boris,\nbad,Boris,12\n";
        let (first, lines) = run(&records, options(), &text).await;
        assert_eq!((first.counts, lines), (counts(5_002, 5_000, 1, 0, 1), vec![5_003]));
        assert!(first.ended.is_ok());
        assert_eq!(*records.most_at_once.lock().unwrap(), RECORDS_AT_ONCE);
        let (second, _) = run(&records, options(), &table(5_000).replace("c1,Anna 1,", "c1,Boris,")).await;
        assert_eq!(second.counts, counts(5_000, 0, 0, 5_000, 0));
    }

    #[tokio::test]
    async fn a_dry_run_says_what_would_become_of_it() {
        let records = Memory::default();
        run(&records, options(), &table(3)).await;
        let text = "id,name\nc1,Boris\nc2,Anna 2\nc9,Clara\nc9,Clara\nc9,Dora\n,x\n";
        let dry = ImportOptions { is_dry_run: true, ..options() };
        let (tried, lines) = run(&records, dry, text).await;
        assert_eq!((tried.counts, lines), (counts(6, 1, 2, 2, 1), vec![7]));
        let (done, _) = run(&records, options(), text).await;
        assert_eq!(done.counts, tried.counts);
    }

    #[tokio::test]
    async fn what_was_read_before_a_problem_is_saved() {
        let records = Memory::default();
        let (import, _) = run(&records, options(), &(table(700) + "x,\"open\n")).await;
        assert_eq!(import.counts, counts(700, 700, 0, 0, 0));
        let Err(Ended::File(problem)) = import.ended else { panic!("it has a problem") };
        assert_eq!(problem.line, 702);
        assert_eq!(records.kept.lock().unwrap().len(), 700);
    }

    #[tokio::test]
    async fn long_rows_come_in_small_batches() {
        let records = Memory::default();
        let name = "x".repeat(40_000);
        let text = (0..100).fold("id,name\n".to_owned(), |text, id| text + &format!("{id},{name}\n"));
        let (import, _) = run(&records, options(), &text).await;
        assert_eq!(import.counts.created, 100);
        assert!(*records.most_at_once.lock().unwrap() < 30);
    }

    #[tokio::test]
    async fn a_ledger_that_is_away_ends_it() {
        let records = Memory { is_away: true, ..Memory::default() };
        let (import, _) = run(&records, options(), &table(5_000)).await;
        assert!(matches!(import.ended, Err(Ended::Store(_))));
        assert_eq!(import.counts, Counts::default());
    }
}
