//! Records are found by address and by the beginnings of words, whatever is typed.

use serde_json::json;
use vestnik::domain::{Channel, Record, RecordKind};
use vestnik::store::{RECORDS_AT_ONCE, RecordFilter, SaveHow};

use super::{contact, id, listed, record, save};
use crate::support::ledger::{TestLedger, promises};

promises!(
    words_are_found_by_their_beginnings,
    phone_numbers_are_found_as_they_are_typed,
    addresses_are_found_exactly,
    whatever_is_typed_is_only_words,
    changes_and_deletions_reach_the_index,
    pages_are_complete_and_repeat_nothing,
    address_and_words_narrow_together,
);

fn text(text: &str) -> RecordFilter {
    RecordFilter { text: Some(text.into()), ..RecordFilter::default() }
}

fn address(channel: Channel, address: &str) -> RecordFilter {
    RecordFilter { address: Some((channel, address.into())), ..RecordFilter::default() }
}

async fn people(ledger: &TestLedger) {
    let given = vec![
        contact("a", json!({"name": "Пётр Ёлкин", "email": "Petr@Example.com", "city": {"name": "Орёл"}})),
        contact("b", json!({"name": "Петрова Анна", "phone": "+79991234567", "tags": ["VIP", "оптовик"]})),
        contact("c", json!({"name": "Anna O'Neil", "phone": "+447911123456", "note": "звонить 8 (495) 765-43-21"})),
        contact("d", json!({"name": "STRASSE Иоганн", "sum": 1500, "vip": true})),
    ];
    save(ledger, given, SaveHow::Merge).await;
    save(ledger, vec![record(RecordKind::Company, "a", json!({"name": "Анна и партнёры"}))], SaveHow::Merge).await;
}

async fn finds(ledger: &TestLedger, typed: &str, expected: &[&str]) {
    assert_eq!(listed(ledger, RecordKind::Contact, &text(typed), 10).await, expected, "of {typed:?}");
}

async fn words_are_found_by_their_beginnings(ledger: TestLedger) {
    people(&ledger).await;
    for (typed, expected) in [
        ("петр", &["a", "b"][..]),
        ("ПЁТР", &["a", "b"]),
        ("петр елк", &["a"]),
        ("анна", &["b"]),
        ("ann", &["c"]),
        ("o'neil", &["c"]),
        ("vip", &["b"]),
        ("опт анна", &["b"]),
        ("орел", &["a"]),
        ("рел", &[]),
        ("example", &["a"]),
        ("petr@exam", &["a"]),
        ("1500", &["d"]),
        ("strasse и\u{306}оганн", &[]),
        ("strasse иоганн", &["d"]),
        ("анна иоганн", &[]),
        ("", &["a", "b", "c", "d"]),
    ] {
        finds(&ledger, typed, expected).await;
    }
    assert_eq!(listed(&ledger, RecordKind::Company, &text("анна"), 10).await, ["a"]);
}

async fn phone_numbers_are_found_as_they_are_typed(ledger: TestLedger) {
    people(&ledger).await;
    for typed in ["+7 999 123-45-67", "8 (999) 123-45-67", "89991234567", "9991234567", "123-45-67", "4567", "8 999 1"]
    {
        finds(&ledger, typed, &["b"]).await;
    }
    finds(&ledger, "+44 7911", &["c"]).await;
    finds(&ledger, "7654321", &["c"]).await;
    finds(&ledger, "7 495 765 43 21 anna", &["c"]).await;
    finds(&ledger, "495 765 43 21 anna", &["c"]).await;
    finds(&ledger, "0000", &[]).await;
}

async fn addresses_are_found_exactly(ledger: TestLedger) {
    people(&ledger).await;
    let chat = json!({"telegramChatId": "-100123", "phone": "+79991234567"});
    save(&ledger, vec![contact("e", chat)], SaveHow::Merge).await;
    let find = async |channel, of: &str| listed(&ledger, RecordKind::Contact, &address(channel, of), 1).await;
    assert_eq!(find(Channel::WhatsApp, "+79991234567").await, ["b", "e"]);
    assert_eq!(find(Channel::Sms, "+79991234567").await, ["b", "e"]);
    assert_eq!(find(Channel::Sms, "+7999123456").await, [""; 0]);
    assert_eq!(find(Channel::Email, "Petr@example.com").await, ["a"]);
    assert_eq!(find(Channel::Telegram, "-100123").await, ["e"]);
    for odd in ["", "'", "\0", "%", "💬"] {
        assert!(find(Channel::Email, odd).await.is_empty());
    }
}

async fn whatever_is_typed_is_only_words(ledger: TestLedger) {
    people(&ledger).await;
    for hostile in
        ["'", "\"", "a\" OR \"b", "анна' | 'x':*", "анна & ! b", "NEAR(a b)", "words:анна", "(", "\\", "a\0b", ":*"]
    {
        let found = listed(&ledger, RecordKind::Contact, &text(hostile), 10).await;
        assert!(found.len() <= 4, "{hostile:?}");
    }
    finds(&ledger, "анна*", &["b"]).await;
    finds(&ledger, "\"анна\"", &["b"]).await;
    finds(&ledger, "анна OR пётр", &[]).await;
    finds(&ledger, "-:'*&|!()", &["a", "b", "c", "d"]).await;
    finds(&ledger, &"я".repeat(100_000), &[]).await;
    finds(&ledger, &"анна ".repeat(10_000), &["b"]).await;
    finds(&ledger, "анна'); DROP TABLE records; --", &[]).await;
    assert_eq!(ledger.raw_count("records").await, 5);
}

async fn changes_and_deletions_reach_the_index(ledger: TestLedger) {
    people(&ledger).await;
    save(&ledger, vec![contact("b", json!({"name": "Иванова Анна"}))], SaveHow::Merge).await;
    finds(&ledger, "петрова", &[]).await;
    finds(&ledger, "иванова", &["b"]).await;
    finds(&ledger, "анна", &["b"]).await;
    ledger.store().delete_record(RecordKind::Contact, id(RecordKind::Contact, "b")).await.unwrap();
    finds(&ledger, "анна", &[]).await;
    save(&ledger, vec![contact("f", json!({"name": "Анна"}))], SaveHow::Merge).await;
    finds(&ledger, "анна", &["f"]).await;
}

async fn pages_are_complete_and_repeat_nothing(ledger: TestLedger) {
    let one = |n: usize| {
        let name = if n.is_multiple_of(3) { "Анна" } else { "Пётр" };
        contact(&format!("{}", n * 7919 % 100_003), json!({"name": name, "phone": "+79991234567"}))
    };
    // More than the few that are looked up one by one.
    let given: Vec<Record> = (0..3500).map(one).collect();
    for chunk in given.chunks(RECORDS_AT_ONCE) {
        save(&ledger, chunk.to_vec(), SaveHow::Merge).await;
    }
    let ids = |keep: fn(usize) -> bool| {
        let mut ids: Vec<_> = (0..3500).filter(|n| keep(*n)).map(|n| given[n].id.to_string()).collect();
        ids.sort();
        ids
    };
    let (annas, all) = (ids(|n| n.is_multiple_of(3)), ids(|_| true));
    let phone = address(Channel::Sms, "+79991234567");
    let both = RecordFilter { text: Some("ан".into()), ..phone.clone() };
    for limit in [97, 1000] {
        assert_eq!(listed(&ledger, RecordKind::Contact, &RecordFilter::default(), limit).await, all);
        assert_eq!(listed(&ledger, RecordKind::Contact, &text("7999"), limit).await, all);
        assert_eq!(listed(&ledger, RecordKind::Contact, &text("анна"), limit).await, annas);
        assert_eq!(listed(&ledger, RecordKind::Contact, &phone, limit).await, all);
        assert_eq!(listed(&ledger, RecordKind::Contact, &both, limit).await, annas);
    }
}

async fn address_and_words_narrow_together(ledger: TestLedger) {
    people(&ledger).await;
    let filter = |words: &str| RecordFilter { text: Some(words.into()), ..address(Channel::Sms, "+79991234567") };
    assert_eq!(listed(&ledger, RecordKind::Contact, &filter("анна"), 10).await, ["b"]);
    assert!(listed(&ledger, RecordKind::Contact, &filter("елкин"), 10).await.is_empty());
}
