//! The ledger held against what the providers took.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use vestnik::domain::Channel;
use vestnik::simulator::Taken;

/// What a message is recognised by at the provider: our id where the channel carries it, else its recipient.
type Key = (Channel, String);

/// One notification, as far as the comparison goes.
struct Entry<'a> {
    json: &'a Value,
    id: &'a str,
    status: &'a str,
    attempts: &'a [Value],
}

impl<'a> Entry<'a> {
    fn of(json: &'a Value) -> Self {
        let text = |field: &str| json[field].as_str().unwrap_or_default();
        let attempts = json["attempts"].as_array().map_or(&[][..], Vec::as_slice);
        Entry { json, id: text("id"), status: text("status"), attempts }
    }

    fn key(&self) -> Key {
        match self.json["channel"].as_str() {
            Some("telegram") => (Channel::Telegram, self.json["recipient"].as_str().unwrap_or_default().to_owned()),
            // The provider's record has numbers without their `+`.
            Some("sms") => {
                let recipient = self.json["recipient"].as_str().unwrap_or_default();
                (Channel::Sms, recipient.trim_start_matches('+').to_owned())
            }
            Some("email") => (Channel::Email, self.id.to_owned()),
            _ => (Channel::WhatsApp, self.id.to_owned()),
        }
    }

    /// Attempts that reached the provider, or may have.
    fn may_have_arrived(&self) -> impl Iterator<Item = &'a Value> {
        let outcome = |attempt: &&Value| matches!(attempt["outcome"].as_str(), Some("accepted" | "ambiguous" | "lost"));
        self.attempts.iter().filter(outcome)
    }

    fn accepted(&self) -> impl Iterator<Item = &'a Value> {
        self.attempts.iter().filter(|attempt| attempt["outcome"] == "accepted")
    }
}

/// Every way in which a settled ledger (notifications with their attempts), the providers' record, and what callers
/// were answered contradict one another. Nothing is the proof that none was lost and none doubled unseen.
///
/// Telegram's messages and SMS carry no id of ours: a chat or number belongs to as many of them as the ledger holds for
/// it.
pub(super) fn disagreements(ledger: &[Value], taken: &[Taken], answers: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut taken_by: HashMap<Key, Vec<&Taken>> = HashMap::new();
    for message in taken {
        let by = match (message.channel, &message.our_id) {
            (Channel::WhatsApp, Some(id)) => id.clone(),
            // A Message-ID: ours, and our domain.
            (Channel::Email, Some(id)) => id.split('@').next().unwrap_or_default().to_owned(),
            _ => message.recipient.clone(),
        };
        taken_by.entry((message.channel, by)).or_default().push(message);
    }
    let mut entries_by: BTreeMap<String, (Key, Vec<Entry<'_>>)> = BTreeMap::new();
    for json in ledger {
        let entry = Entry::of(json);
        let key = entry.key();
        entries_by.entry(format!("{key:?}")).or_insert_with(|| (key, Vec::new())).1.push(entry);
    }
    for (key, entries) in entries_by.into_values() {
        compare(&entries, &taken_by.remove(&key).unwrap_or_default(), &mut wrong);
    }
    for message in taken_by.into_values().flatten() {
        wrong.push(format!("taken, but the ledger never accepted it: {message:?}"));
    }
    let by_id: HashMap<&str, &Value> = ledger.iter().filter_map(|json| Some((json["id"].as_str()?, json))).collect();
    for answer in answers {
        match answer["id"].as_str().and_then(|id| by_id.get(id)) {
            None => wrong.push(format!("LOST: a caller was told of it, the ledger does not know it: {answer}")),
            // What was on its way when it was answered has gone on.
            Some(found) if !in_flight(answer) && found["status"] != answer["status"] => {
                wrong.push(format!("a caller was told {}, the ledger says {found}", answer["status"]));
            }
            Some(_) => {}
        }
    }
    wrong
}

fn in_flight(answer: &Value) -> bool {
    matches!(answer["status"].as_str(), Some("pending" | "queued" | "sending"))
}

fn compare(entries: &[Entry<'_>], taken: &[&Taken], wrong: &mut Vec<String>) {
    for entry in entries {
        let accepted = entry.accepted().count();
        let arrived: Vec<_> = entry.may_have_arrived().collect();
        let is_right = match entry.status {
            // A person said so, of a send whose end nobody saw.
            "sent" | "failed" if entry.json["settled"].is_object() => accepted == 0 && !arrived.is_empty(),
            "sent" => accepted > 0,
            "uncertain" => accepted == 0 && !arrived.is_empty(),
            "failed" => accepted == 0 && arrived.iter().all(|attempt| attempt["flagged"] == true),
            "suppressed" | "expired" | "cancelled" => arrived.is_empty(),
            _ => false,
        };
        if in_flight(entry.json) && arrived.is_empty() {
            wrong.push(format!("LOST: accepted, and {} for ever: {}", entry.status, entry.json));
        } else if !is_right {
            wrong.push(format!("{} does not follow from its attempts: {}", entry.status, entry.json));
        }
        if arrived.len() > 1 && arrived.iter().any(|attempt| attempt["flagged"] != true) {
            wrong.push(format!("SILENT DUPLICATE: may have arrived twice, not both flagged: {}", entry.json));
        }
        for attempt in entry.accepted() {
            // Of an email it is its Message-ID and the server's words, the last of which is the server's id.
            let id = attempt["providerMessageId"].as_str().unwrap_or_default().rsplit(' ').next().unwrap_or_default();
            if taken.iter().filter(|message| message.provider_message_id == id).count() != 1 {
                wrong.push(format!("LOST: sent by the ledger, not taken as {id}: {}", entry.json));
            }
        }
    }
    let at_least: usize = entries.iter().map(|entry| entry.accepted().count()).sum();
    let at_most: usize = entries.iter().map(|entry| entry.may_have_arrived().count()).sum();
    if !(at_least..=at_most).contains(&taken.len()) {
        let entries: Vec<_> = entries.iter().map(|entry| entry.json.to_string()).collect();
        let what = if taken.len() > at_most { "SILENT DUPLICATE" } else { "LOST" };
        wrong.push(format!("{what}: taken {}, by the ledger {at_least} to {at_most}: {entries:?}", taken.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn attempt(outcome: &str, flagged: bool) -> Value {
        json!({ "outcome": outcome, "providerMessageId": "wamid.1", "flagged": flagged })
    }

    fn entry(status: &str, attempts: &[Value]) -> Value {
        json!({ "id": "a", "channel": "whatsapp", "recipient": "+79990000001", "status": status, "attempts": attempts })
    }

    fn message(our_id: &str, n: u64) -> Taken {
        Taken {
            n,
            channel: Channel::WhatsApp,
            account: "1".into(),
            recipient: "79990000001".into(),
            text: None,
            raw: None,
            subject: None,
            html: None,
            sms: None,
            email: None,
            receipt: None,
            template: None,
            our_id: Some(our_id.into()),
            provider_message_id: format!("wamid.{n}"),
            at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn first_word(ledger: &[Value], taken: &[Taken], answers: &[Value]) -> String {
        let wrong = disagreements(ledger, taken, answers);
        wrong.first().map_or(String::new(), |first| first.split(':').next().unwrap_or_default().to_owned())
    }

    #[test]
    fn what_agrees_is_left_alone() {
        let sent = entry("sent", &[attempt("accepted", false)]);
        let sent = std::slice::from_ref(&sent);
        assert_eq!(disagreements(sent, &[message("a", 1)], sent), Vec::<String>::new());
        for taken in [&[][..], &[message("a", 1)]] {
            assert_eq!(first_word(&[entry("uncertain", &[attempt("lost", false)])], taken, &[]), "");
        }
        let resent = entry("sent", &[attempt("lost", true), attempt("accepted", true)]);
        for taken in [&[message("a", 1)][..], &[message("a", 1), message("a", 2)]] {
            assert_eq!(first_word(std::slice::from_ref(&resent), taken, &[]), "");
        }
    }

    #[test]
    fn a_lost_message_is_found() {
        let sent = entry("sent", &[attempt("accepted", false)]);
        assert_eq!(first_word(std::slice::from_ref(&sent), &[], &[]), "LOST", "recorded as sent, never taken");
        assert_eq!(first_word(&[], &[], &[sent]), "LOST", "answered, and not in the ledger");
        let elsewhere = [message("a", 2)];
        assert_eq!(first_word(&[entry("sent", &[attempt("accepted", false)])], &elsewhere, &[]), "LOST");
        let stranger = first_word(&[], &[message("b", 1)], &[]);
        assert_eq!(stranger, "taken, but the ledger never accepted it");
    }

    #[test]
    fn a_duplicate_is_found() {
        let twice = [message("a", 1), message("a", 2)];
        assert_eq!(first_word(&[entry("sent", &[attempt("accepted", false)])], &twice, &[]), "SILENT DUPLICATE");
        assert_eq!(first_word(&[entry("uncertain", &[attempt("lost", false)])], &twice, &[]), "SILENT DUPLICATE");
        let unflagged = entry("sent", &[attempt("lost", false), attempt("accepted", true)]);
        assert_eq!(first_word(&[unflagged], &[message("a", 1)], &[]), "SILENT DUPLICATE");
        let failed = entry("failed", &[attempt("permanent", false)]);
        assert_eq!(first_word(&[failed], &[message("a", 1)], &[]), "SILENT DUPLICATE", "refused, and taken");
    }

    #[test]
    fn an_email_is_known_by_our_id_and_the_servers() {
        let mut attempt = attempt("accepted", false);
        attempt["providerMessageId"] = json!("<a@example.com> 2.0.0 Ok: queued as F");
        let sent =
            json!({ "id": "a", "channel": "email", "recipient": "b@c.d", "status": "sent", "attempts": [attempt] });
        let sent = std::slice::from_ref(&sent);
        let mail = Taken {
            channel: Channel::Email,
            our_id: Some("a@example.com".into()),
            provider_message_id: "F".into(),
            ..message("a", 1)
        };
        assert_eq!(first_word(sent, std::slice::from_ref(&mail), sent), "");
        let again = Taken { provider_message_id: "G".into(), ..mail.clone() };
        assert_eq!(first_word(sent, &[mail, again.clone()], &[]), "SILENT DUPLICATE");
        assert_eq!(first_word(sent, &[again], &[]), "LOST");
    }

    #[test]
    fn a_wrong_state_is_found() {
        let sent = entry("sent", &[attempt("accepted", false)]);
        let told = entry("failed", &[]);
        assert_eq!(disagreements(&[sent], &[message("a", 1)], &[told]).len(), 1);
        let unsettled = entry("sending", &[attempt("open", false)]);
        assert_eq!(first_word(&[unsettled], &[], &[]), "LOST", "it is settled when all is over");
    }
}
