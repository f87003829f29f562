//! What was taken: an append-only list, numbered from 1, in memory and (if wished) in a file.
//!
//! A message is in the list from the moment it counts as taken, before its answer leaves. One entry is a small struct
//! and one string, some 250 bytes with an average text: a million fit in a quarter of a gigabyte.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;

use super::{telegram, whatsapp};
use crate::domain::{Channel, clock};

/// One message that a provider took responsibility for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// Its place in the record, from 1.
    pub n: u64,
    pub channel: Channel,
    /// The sender: a phone number id, or a bot's id. Never a token.
    pub account: String,
    pub recipient: String,
    /// What the person reads; `None` for a WhatsApp template, whose text only Meta knows.
    pub text: Option<String>,
    /// The text as it was sent, where markup made it differ from `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// The `template` object of a WhatsApp template message, as it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<serde_json::Value>,
    /// The sender's own id (`biz_opaque_callback_data`); Telegram carries none.
    pub our_id: Option<String>,
    /// What the answer names the message; for Telegram `<chat id>:<message id>`.
    pub provider_message_id: String,
    pub at: Timestamp,
}

/// A message about to be recorded.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    pub(super) account: String,
    pub(super) recipient: String,
    pub(super) text: Option<String>,
    pub(super) raw: Option<String>,
    /// The `template` object as JSON.
    pub(super) template: Option<String>,
    pub(super) our_id: Option<String>,
}

/// What a reader of the record wants to see.
#[derive(Clone, Debug, Default)]
pub struct TakenQuery {
    /// Entries after this number only.
    pub after: u64,
    pub limit: usize,
    pub channel: Option<Channel>,
    pub recipient: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Record {
    // Held for one append, or for one slice of a page; never over an await.
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    list: Vec<Entry>,
    accounts: Vec<String>,
    account_numbers: HashMap<String, u16>,
    /// Lines on their way to the file, in the order of the list.
    file: Option<mpsc::Sender<Vec<u8>>>,
}

/// The optional strings of an entry, in the order in which they follow the recipient.
const PARTS: usize = 4;

#[derive(Debug)]
struct Entry {
    at_micros: i64,
    /// What the provider's id is made from.
    id_bits: u64,
    /// Recipient, text, raw, template, our id, one after the other.
    strings: Box<str>,
    recipient_length: u16,
    /// Length + 1 of each part; 0 for one that is absent.
    lengths: [u32; PARTS],
    account: u16,
    channel: Channel,
}

impl Record {
    /// Also appends every entry as a line of JSON to the file. The writing is a task of `tracker`'s, which ends with
    /// [`close_file`](Self::close_file) or with the record.
    pub(super) fn with_file(path: &Path, tracker: &TaskTracker) -> io::Result<Record> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        // Unbounded: what waits is what memory already holds once, and a slow disk must not slow the answers.
        let (sender, receiver) = mpsc::channel();
        tracker.spawn_blocking(move || {
            if let Err(error) = write_lines(file, &receiver) {
                tracing::error!(error = %error, "could not write the simulator's record; its file ends here");
            }
        });
        let entries = Entries { file: Some(sender), ..Entries::default() };
        Ok(Record { entries: Mutex::new(entries) })
    }

    pub(super) fn append(&self, channel: Channel, message: &Message, id_bits: u64, at: Timestamp) {
        let parts = [&message.text, &message.raw, &message.template, &message.our_id];
        let size =
            message.recipient.len() + parts.iter().filter_map(|part| part.as_ref()).map(String::len).sum::<usize>();
        let mut strings = String::with_capacity(size);
        strings.push_str(&message.recipient);
        let lengths = parts.map(|part| {
            part.as_ref().map_or(0, |part| {
                strings.push_str(part);
                // A request is 64 KiB at most.
                part.len() as u32 + 1
            })
        });
        let mut entries = self.lock();
        let account = entries.account_number(&message.account);
        let entry = Entry {
            at_micros: at.as_microsecond(),
            id_bits,
            strings: strings.into_boxed_str(),
            recipient_length: message.recipient.len() as u16,
            lengths,
            account,
            channel,
        };
        entries.list.push(entry);
        if entries.file.is_some()
            && let Some(taken) = entries.taken(entries.list.len() - 1)
        {
            entries.write_line(&taken);
        }
    }

    /// A page of the record, and the number to go on after; `None` when the end was reached.
    pub(super) fn page(&self, query: &TakenQuery) -> (Vec<Taken>, Option<u64>) {
        /// Entries looked at before the lock is given up for others: about a tenth of a millisecond.
        const SLICE: usize = 500;
        let mut found = Vec::new();
        let mut index = usize::try_from(query.after).unwrap_or(usize::MAX);
        loop {
            let entries = self.lock();
            for _ in 0..SLICE {
                let Some(entry) = entries.list.get(index) else { return (found, None) };
                if found.len() >= query.limit {
                    return (found, Some(index as u64));
                }
                if entry.fits(query) {
                    found.extend(entries.taken(index));
                }
                index += 1;
            }
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.lock().list.len() as u64
    }

    /// Forgets everything and counts from 1 again. The file is not cut: it gets a line that says so.
    pub(super) fn clear(&self, at: Timestamp) {
        let mut entries = self.lock();
        entries.list = Vec::new();
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
        let recipient = entry.recipient();
        let [text, raw, template, our_id] = entry.parts();
        Some(Taken {
            n: index as u64 + 1,
            channel: entry.channel,
            account: self.accounts.get(usize::from(entry.account)).cloned().unwrap_or_default(),
            recipient: recipient.to_owned(),
            text: text.map(str::to_owned),
            raw: raw.map(str::to_owned),
            template: template.and_then(|json| serde_json::from_str(json).ok()),
            our_id: our_id.map(str::to_owned),
            provider_message_id: provider_message_id(entry.channel, recipient, entry.id_bits),
            at: clock::from_micros(entry.at_micros),
        })
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

impl Entry {
    fn recipient(&self) -> &str {
        &self.strings[..usize::from(self.recipient_length)]
    }

    fn parts(&self) -> [Option<&str>; PARTS] {
        let mut start = usize::from(self.recipient_length);
        self.lengths.map(|length| {
            let length = (length as usize).checked_sub(1)?;
            start += length;
            Some(&self.strings[start - length..start])
        })
    }

    fn fits(&self, query: &TakenQuery) -> bool {
        query.channel.is_none_or(|channel| channel == self.channel)
            && query.recipient.as_deref().is_none_or(|recipient| recipient == self.recipient())
    }
}

fn provider_message_id(channel: Channel, recipient: &str, id_bits: u64) -> String {
    match channel {
        Channel::Telegram => telegram::record_id(recipient, id_bits),
        Channel::WhatsApp | Channel::Sms | Channel::Email => whatsapp::wamid(recipient, id_bits),
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
        let record = Record::default();
        let at = clock::from_micros(1_700_000_000_000_001);
        let mut template = message("79991234567", None);
        template.template = Some(r#"{"name":"a"}"#.to_owned());
        record.append(Channel::WhatsApp, &message("79991234568", Some("")), 1, at);
        record.append(Channel::WhatsApp, &template, 2, at);
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
        let record = Record::default();
        for n in 0..1500 {
            let recipient = if n % 2 == 0 { "2" } else { "1" };
            record.append(Channel::Telegram, &message(recipient, Some("x")), n, clock::from_micros(0));
        }
        let mut query = TakenQuery { limit: 400, recipient: Some("1".to_owned()), ..TakenQuery::default() };
        let (first, next) = record.page(&query);
        assert_eq!((first.len(), first[399].n), (400, 800));
        query.after = next.expect("more to come");
        let (second, next) = record.page(&query);
        assert_eq!((second.len(), next), (350, None));
    }
}
