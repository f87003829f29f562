//! One entry as memory keeps it: a small struct and one string.

use jiff::Timestamp;

use super::taken::{Message, Taken, TakenQuery, TakenSms};
use crate::domain::{Channel, clock};
use crate::simulator::receipts::Fate;
use crate::simulator::{gateway, smtp, telegram, twilio, whatsapp};

/// The optional strings of an entry, in the order in which they follow the recipient.
const PARTS: usize = 6;

#[derive(Debug)]
pub(in crate::simulator) struct Entry {
    at_micros: i64,
    /// What the provider's id is made from.
    pub(in crate::simulator) id_bits: u64,
    /// Recipient, text, subject, HTML, raw, details, our id, one after the other.
    strings: Box<str>,
    recipient_length: u16,
    /// Length + 1 of each part; 0 for one that is absent.
    lengths: [u32; PARTS],
    pub(super) account: u16,
    pub(in crate::simulator) channel: Channel,
    /// What its receipts say, where the provider posts any.
    fate: Fate,
}

impl Entry {
    pub(super) fn new(channel: Channel, message: &Message, id_bits: u64, fate: Fate, at: Timestamp) -> Entry {
        let parts = [&message.text, &message.subject, &message.html, &message.raw, &message.details, &message.our_id];
        let size =
            message.recipient.len() + parts.iter().filter_map(|part| part.as_ref()).map(String::len).sum::<usize>();
        let mut strings = String::with_capacity(size);
        strings.push_str(&message.recipient);
        let lengths = parts.map(|part| {
            part.as_ref().map_or(0, |part| {
                strings.push_str(part);
                // No message is larger than what a request or a mail may be, far below 4 GiB.
                part.len() as u32 + 1
            })
        });
        Entry {
            at_micros: at.as_microsecond(),
            id_bits,
            strings: strings.into_boxed_str(),
            recipient_length: message.recipient.len() as u16,
            lengths,
            account: 0,
            channel,
            fate,
        }
    }

    pub(super) fn taken(&self, n: u64, account: String) -> Taken {
        let recipient = self.recipient();
        let [text, subject, html, raw, details, our_id] = self.parts().map(|part| part.map(str::to_owned));
        let details = details.as_deref();
        let sms: Option<TakenSms> =
            details.filter(|_| self.channel == Channel::Sms).and_then(|json| serde_json::from_str(json).ok());
        let is_gateway = sms.as_ref().is_some_and(|sms| sms.provider == gateway::PROVIDER);
        Taken {
            n,
            channel: self.channel,
            account,
            recipient: recipient.to_owned(),
            text,
            subject,
            html,
            raw,
            template: details
                .filter(|_| self.channel == Channel::WhatsApp)
                .and_then(|json| serde_json::from_str(json).ok()),
            sms,
            email: details.filter(|_| self.channel == Channel::Email).and_then(|json| serde_json::from_str(json).ok()),
            our_id,
            provider_message_id: match self.channel {
                Channel::WhatsApp => whatsapp::wamid(recipient, self.id_bits),
                Channel::Telegram => telegram::record_id(recipient, self.id_bits),
                Channel::Sms if is_gateway => gateway::message_id(self.id_bits).to_string(),
                Channel::Sms => twilio::message_sid(self.id_bits),
                Channel::Email => smtp::queue_id(self.id_bits),
            },
            receipt: matches!(self.channel, Channel::WhatsApp | Channel::Sms).then_some(self.fate),
            at: clock::from_micros(self.at_micros),
        }
    }

    /// `search` is the query's, in small letters.
    pub(super) fn fits(&self, query: &TakenQuery, search: Option<&str>) -> bool {
        query.channel.is_none_or(|channel| channel == self.channel)
            && query.recipient.as_deref().is_none_or(|recipient| recipient == self.recipient())
            && search.is_none_or(|search| self.says(search))
    }

    fn says(&self, search: &str) -> bool {
        let [text, subject, html, _, details, _] = self.parts();
        let template = details.filter(|_| self.channel == Channel::WhatsApp);
        let says = |part: &str| part.to_lowercase().contains(search);
        says(self.recipient()) || [text, subject, html, template].into_iter().flatten().any(says)
    }

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
}
