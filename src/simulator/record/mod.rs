//! What was taken: an append-only list, numbered from 1, in memory and (if wished) in a file.
//!
//! A message is in the list from the moment it counts as taken, before its answer leaves. Memory keeps the newest
//! [`KEPT`] unless told otherwise. An entry is a small struct and one string, some 300 bytes with an average text: a
//! million fit in a third of a gigabyte. A mail is kept with its headers, text and HTML, and costs what they do.

mod entry;
mod taken;

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};

use jiff::Timestamp;
use serde::Serialize;
use tokio_util::task::TaskTracker;

use self::entry::Entry;
pub(super) use self::taken::Message;
pub use self::taken::{Taken, TakenAttachment, TakenEmail, TakenQuery, TakenSms};
use super::receipts::Fate;
use crate::domain::Channel;

/// How many messages memory keeps unless told otherwise.
pub const KEPT: usize = 1_000_000;

#[derive(Debug)]
pub(super) struct Record {
    // Held for one append, or for one slice of a page; never over an await.
    entries: Mutex<Entries>,
    /// How many are kept.
    most: usize,
}

#[derive(Debug, Default)]
struct Entries {
    list: VecDeque<Entry>,
    /// How many came before the list's first.
    gone: u64,
    accounts: Vec<String>,
    account_numbers: HashMap<String, u16>,
    /// Lines on their way to the file, in the order of the list.
    file: Option<mpsc::Sender<Vec<u8>>>,
}

impl Record {
    /// Keeps the newest `most` messages.
    pub(super) fn new(most: usize) -> Record {
        Record { entries: Mutex::default(), most }
    }

    /// Also appends every entry as a line of JSON to the file. The writing is a task of `tracker`'s, which ends with
    /// [`close_file`](Self::close_file) or with the record.
    pub(super) fn with_file(self, path: &Path, tracker: &TaskTracker) -> io::Result<Record> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        // Unbounded: what waits is what memory already holds once, and a slow disk must not slow the answers.
        let (sender, receiver) = mpsc::channel();
        tracker.spawn_blocking(move || {
            if let Err(error) = write_lines(file, &receiver) {
                tracing::error!(error = %error, "could not write the simulator's record; its file ends here");
            }
        });
        self.lock().file = Some(sender);
        Ok(self)
    }

    pub(super) fn append(&self, channel: Channel, message: &Message, id_bits: u64, fate: Fate, at: Timestamp) {
        let mut entry = Entry::new(channel, message, id_bits, fate, at);
        let mut entries = self.lock();
        entry.account = entries.account_number(&message.account);
        entries.list.push_back(entry);
        if entries.file.is_some()
            && let Some(taken) = entries.taken(entries.list.len() - 1)
        {
            entries.write_line(&taken);
        }
        if entries.list.len() > self.most {
            entries.gone += 1;
            let oldest = entries.list.pop_front();
            drop(entries);
            drop(oldest);
        }
    }

    /// A page of the record, and the number to go on after; `None` when the end was reached.
    pub(super) fn page(&self, query: &TakenQuery) -> (Vec<Taken>, Option<u64>) {
        /// Entries looked at before the lock is given up for others: about a tenth of a millisecond.
        const SLICE: usize = 500;
        let search = query.search.as_deref().map(str::to_lowercase);
        let mut found = Vec::new();
        let mut seen = query.after;
        loop {
            let entries = self.lock();
            seen = seen.max(entries.gone);
            for _ in 0..SLICE {
                let index = usize::try_from(seen - entries.gone).unwrap_or(usize::MAX);
                let Some(entry) = entries.list.get(index) else { return (found, None) };
                if found.len() >= query.limit {
                    return (found, Some(seen));
                }
                if entry.fits(query, search.as_deref()) {
                    found.extend(entries.taken(index));
                }
                seen += 1;
            }
        }
    }

    /// The newest that fit, newest first.
    pub(super) fn newest(&self, query: &TakenQuery) -> Vec<Taken> {
        let search = query.search.as_deref().map(str::to_lowercase);
        self.find(query.limit, |entry| entry.fits(query, search.as_deref()))
    }

    /// The entry of one channel whose id is made from these bits.
    pub(super) fn by_id(&self, channel: Channel, id_bits: u64) -> Option<Taken> {
        self.find(1, |entry| entry.id_bits == id_bits && entry.channel == channel).pop()
    }

    /// From the newest on. What is taken meanwhile is not seen.
    fn find(&self, limit: usize, fits: impl Fn(&Entry) -> bool) -> Vec<Taken> {
        const SLICE: u64 = 500;
        let mut found = Vec::new();
        let mut left = self.len();
        while left > 0 && found.len() < limit {
            let entries = self.lock();
            for n in (left.saturating_sub(SLICE)..left).rev() {
                let index = n.checked_sub(entries.gone).and_then(|index| usize::try_from(index).ok());
                let Some((index, entry)) = index.and_then(|index| Some((index, entries.list.get(index)?))) else {
                    return found;
                };
                if found.len() < limit && fits(entry) {
                    found.extend(entries.taken(index));
                }
            }
            left = left.saturating_sub(SLICE);
        }
        found
    }

    /// One entry by its number; `None` if it was not taken yet or is not kept any more.
    pub(super) fn get(&self, n: u64) -> Option<Taken> {
        let entries = self.lock();
        let index = n.checked_sub(entries.gone + 1)?;
        entries.taken(usize::try_from(index).ok()?)
    }

    /// How many were taken.
    pub(super) fn len(&self) -> u64 {
        let entries = self.lock();
        entries.gone + entries.list.len() as u64
    }

    /// How many of them memory does not keep any more.
    pub(super) fn gone(&self) -> u64 {
        self.lock().gone
    }

    /// Forgets everything and counts from 1 again. The file is not cut: it gets a line that says so.
    pub(super) fn clear(&self, at: Timestamp) {
        let mut entries = self.lock();
        (entries.list, entries.gone) = (VecDeque::new(), 0);
        entries.write_line(&serde_json::json!({ "reset": true, "at": at }));
    }

    /// Lets the file's writer finish.
    pub(super) fn close_file(&self) {
        self.lock().file = None;
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn account_number(&mut self, account: &str) -> u16 {
        if let Some(number) = self.account_numbers.get(account) {
            return *number;
        }
        // The scenario lists the accounts, so there are few; past 65,535 of them the last number is shared.
        let number = u16::try_from(self.accounts.len()).unwrap_or(u16::MAX);
        self.accounts.push(account.to_owned());
        self.account_numbers.insert(account.to_owned(), number);
        number
    }

    fn taken(&self, index: usize) -> Option<Taken> {
        let entry = self.list.get(index)?;
        let account = self.accounts.get(usize::from(entry.account)).cloned().unwrap_or_default();
        Some(entry.taken(self.gone + index as u64 + 1, account))
    }

    fn write_line(&self, value: &impl Serialize) {
        let Some(file) = &self.file else { return };
        if let Ok(mut line) = serde_json::to_vec(value) {
            line.push(b'\n');
            // The writer is gone only after a failure that it has reported.
            let _ = file.send(line);
        }
    }
}

/// How long lines gather before they are written.
const GATHERING: std::time::Duration = std::time::Duration::from_millis(2);

/// Writes until every sender is gone. The file is behind by little more than [`GATHERING`].
fn write_lines(file: std::fs::File, lines: &mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    let mut file = io::BufWriter::new(file);
    while let Ok(line) = lines.recv() {
        file.write_all(&line)?;
        // Under load one write then carries many lines, and nobody has to wake this thread for each.
        std::thread::sleep(GATHERING);
        while let Ok(line) = lines.try_recv() {
            file.write_all(&line)?;
        }
        file.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock;

    fn message(recipient: &str, text: Option<&str>) -> Message {
        Message {
            account: "100".to_owned(),
            recipient: recipient.to_owned(),
            text: text.map(str::to_owned),
            our_id: Some("id".to_owned()),
            ..Message::default()
        }
    }

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let record = Record::new(KEPT);
        let at = clock::from_micros(1_700_000_000_000_001);
        let mut template = message("79991234567", None);
        template.details = Some(r#"{"name":"a"}"#.to_owned());
        record.append(Channel::WhatsApp, &message("79991234568", Some("")), 1, Fate::Sent, at);
        record.append(Channel::WhatsApp, &template, 2, Fate::Sent, at);
        let (items, next) = record.page(&TakenQuery { limit: 10, ..TakenQuery::default() });
        assert_eq!(next, None);
        assert_eq!(items[0].text.as_deref(), Some(""));
        assert_eq!((items[1].n, items[1].at, items[1].text.as_deref()), (2, at, None));
        assert_eq!(items[1].template, Some(serde_json::json!({ "name": "a" })));
        assert_eq!(items[1].our_id.as_deref(), Some("id"));
        assert_ne!(items[0].provider_message_id, items[1].provider_message_id);
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended() {
        let record = Record::new(KEPT);
        for n in 0..1500 {
            let recipient = if n % 2 == 0 { "2" } else { "1" };
            record.append(Channel::Telegram, &message(recipient, Some("x")), n, Fate::Sent, clock::from_micros(0));
        }
        let mut query = TakenQuery { limit: 400, recipient: Some("1".to_owned()), ..TakenQuery::default() };
        let (first, next) = record.page(&query);
        assert_eq!((first.len(), first[399].n), (400, 800));
        query.after = next.expect("more to come");
        let (second, next) = record.page(&query);
        assert_eq!((second.len(), next), (350, None));
    }

    #[test]
    fn the_oldest_make_room_and_numbers_go_on() {
        let record = Record::new(3);
        for n in 0..10 {
            record.append(
                Channel::Telegram,
                &message(&format!("{n}"), Some("x")),
                n,
                Fate::Sent,
                clock::from_micros(0),
            );
        }
        let (items, next) = record.page(&TakenQuery { limit: 2, ..TakenQuery::default() });
        assert_eq!(items.iter().map(|item| item.n).collect::<Vec<_>>(), [8, 9]);
        assert_eq!((next, record.len(), record.gone()), (Some(9), 10, 7));
        assert_eq!(record.get(8).map(|taken| taken.recipient), Some("7".to_owned()));
        assert_eq!((record.get(7), record.get(11), record.get(0)), (None, None, None));
        let newest = record.newest(&TakenQuery { limit: 2, ..TakenQuery::default() });
        assert_eq!(newest.iter().map(|item| item.n).collect::<Vec<_>>(), [10, 9]);
        assert_eq!(record.by_id(Channel::Telegram, 8).map(|taken| taken.n), Some(9));
        assert_eq!(record.by_id(Channel::Telegram, 2), None);
    }

    #[test]
    fn a_search_knows_no_case_and_looks_into_everything_a_person_sees() {
        let record = Record::new(KEPT);
        let mut mail = message("anna@example.org", Some("Ваш заказ"));
        mail.subject = Some("Привет, Анна".to_owned());
        mail.html = Some("<b>Ready</b>".to_owned());
        mail.details = Some(r#"{"headers":[["X-Secret","unseen"]]}"#.to_owned());
        record.append(Channel::Email, &mail, 1, Fate::Sent, clock::from_micros(0));
        let mut template = message("79991234567", None);
        template.details = Some(r#"{"name":"order_ready"}"#.to_owned());
        record.append(Channel::WhatsApp, &template, 2, Fate::Sent, clock::from_micros(0));
        let found = |search: &str| {
            let search = Some(search.to_owned());
            let (items, _) = record.page(&TakenQuery { limit: 9, search, ..TakenQuery::default() });
            items.iter().map(|item| item.n).collect::<Vec<_>>()
        };
        for (search, expected) in
            [("ЗАКАЗ", vec![1]), ("анна", vec![1]), ("ready", vec![1, 2]), ("9123", vec![2]), ("unseen", vec![])]
        {
            assert_eq!(found(search), expected, "{search}");
        }
    }
}
