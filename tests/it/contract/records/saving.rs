//! Records are kept as they were given, and nothing that anybody saved is lost.

use std::time::Duration;

use serde_json::{Value, json};
use vestnik::domain::{Record, RecordKind};
use vestnik::store::{RECORDS_AT_ONCE, RecordFilter, SaveHow, Saved};

use super::{contact, find, id, listed, record, save};
use crate::support::ledger::{TestLedger, promises};

promises!(
    the_same_again_changes_nothing,
    merging_keeps_what_is_not_named,
    replacing_drops_what_is_not_named,
    an_id_given_twice_is_written_in_order,
    a_merge_that_grows_too_much_is_refused_alone,
    records_saved_at_once_lose_nothing,
    a_record_deleted_meanwhile_is_made_anew,
    as_many_as_allowed_are_saved_in_one_call,
    kinds_are_apart,
    deleting_takes_it_out,
    names_of_fields_are_remembered,
    data_in_names_of_fields_is_not_remembered,
    odd_texts_come_back_as_they_were,
);

fn fields(record: &Record) -> Value {
    Value::Object(record.fields().clone())
}

async fn the_same_again_changes_nothing(mut ledger: TestLedger) {
    let given = || contact("c1", json!({"name": "Анна", "phone": "+79991234567", "score": 0.1, "gone": null}));
    assert_eq!(save(&ledger, vec![given()], SaveHow::Merge).await, [Saved::Created]);
    let first = find(&ledger, RecordKind::Contact, "c1").await.unwrap();
    assert_eq!(fields(&first.record), json!({"name": "Анна", "phone": "+79991234567", "score": 0.1}));
    ledger.advance(Duration::from_secs(5)).await;
    ledger.reopen().await;
    for how in [SaveHow::Merge, SaveHow::Replace] {
        assert_eq!(save(&ledger, vec![given()], how).await, [Saved::Unchanged]);
        assert_eq!(find(&ledger, RecordKind::Contact, "c1").await.unwrap(), first, "not even its times");
    }
    assert_eq!(save(&ledger, vec![contact("c1", json!({"name": "Анна Б."}))], SaveHow::Merge).await, [Saved::Updated]);
    let later = find(&ledger, RecordKind::Contact, "c1").await.unwrap();
    assert_eq!((later.created_at, later.updated_at), (first.created_at, ledger.now()));
}

async fn merging_keeps_what_is_not_named(ledger: TestLedger) {
    save(&ledger, vec![contact("c1", json!({"a": 1, "b": {"x": 1}, "c": 3}))], SaveHow::Merge).await;
    save(&ledger, vec![contact("c1", json!({"b": {"y": 2}, "c": null, "d": 4}))], SaveHow::Merge).await;
    let kept = find(&ledger, RecordKind::Contact, "c1").await.unwrap();
    assert_eq!(fields(&kept.record), json!({"a": 1, "b": {"y": 2}, "d": 4}));
}

async fn replacing_drops_what_is_not_named(ledger: TestLedger) {
    save(&ledger, vec![contact("c1", json!({"a": 1, "phone": "+79991234567"}))], SaveHow::Merge).await;
    save(&ledger, vec![contact("c1", json!({"b": 2, "c": null}))], SaveHow::Replace).await;
    let kept = find(&ledger, RecordKind::Contact, "c1").await.unwrap();
    assert_eq!(fields(&kept.record), json!({"b": 2}));
}

async fn an_id_given_twice_is_written_in_order(ledger: TestLedger) {
    let given = vec![
        contact("c1", json!({"a": 1, "b": 1})),
        contact("c2", json!({"a": 0})),
        contact("c1", json!({"a": 2})),
        contact("c1", json!({"a": 2})),
    ];
    let saved = save(&ledger, given, SaveHow::Merge).await;
    assert_eq!(saved, [Saved::Created, Saved::Created, Saved::Updated, Saved::Unchanged]);
    let kept = find(&ledger, RecordKind::Contact, "c1").await.unwrap();
    assert_eq!(fields(&kept.record), json!({"a": 2, "b": 1}));
}

async fn a_merge_that_grows_too_much_is_refused_alone(ledger: TestLedger) {
    let big = |field: &str| contact("big", json!({ field: "x".repeat(40_000) }));
    let small = |n: i32| contact("small", json!({ "n": n }));
    save(&ledger, vec![big("a"), small(1)], SaveHow::Merge).await;
    let saved = save(&ledger, vec![big("b"), small(2)], SaveHow::Merge).await;
    assert!(matches!(&saved[0], Saved::Refused(why) if why.contains("bytes")), "{saved:?}");
    assert_eq!(saved[1], Saved::Updated);
    let kept = find(&ledger, RecordKind::Contact, "big").await.unwrap();
    assert!(kept.record.fields().contains_key("a") && !kept.record.fields().contains_key("b"));
    assert_eq!(save(&ledger, vec![big("b")], SaveHow::Replace).await, [Saved::Updated]);
}

/// Many savers, each with fields of its own on the same few records, and somebody who saves nothing new.
async fn records_saved_at_once_lose_nothing(ledger: TestLedger) {
    const SAVERS: usize = 12;
    let saver = |n: usize| {
        let store = ledger.store().clone();
        let now = ledger.now();
        async move {
            for round in 0..4 {
                let given = (0..5).map(|c| contact(&format!("c{c}"), json!({ format!("f{n}_{round}"): n })));
                store.save_records(RecordKind::Contact, given.collect(), SaveHow::Merge, now).await.unwrap();
            }
        }
    };
    (0..SAVERS).map(saver).collect::<tokio::task::JoinSet<()>>().join_all().await;
    for c in 0..5 {
        let kept = find(&ledger, RecordKind::Contact, &format!("c{c}")).await.unwrap();
        assert_eq!(kept.record.fields().len(), SAVERS * 4, "of c{c}");
    }
}

/// Deleting and merging at once: what is there afterwards is never a mixture with what was deleted.
async fn a_record_deleted_meanwhile_is_made_anew(ledger: TestLedger) {
    for round in 0..20 {
        save(&ledger, vec![contact("c1", json!({"old": round}))], SaveHow::Replace).await;
        let merge = vec![contact("c1", json!({"new": round}))];
        let (saved, deleted) = tokio::join!(
            ledger.store().save_records(RecordKind::Contact, merge, SaveHow::Merge, ledger.now()),
            ledger.store().delete_record(RecordKind::Contact, id(RecordKind::Contact, "c1")),
        );
        assert!(deleted.unwrap());
        match find(&ledger, RecordKind::Contact, "c1").await {
            None => assert_eq!(saved.unwrap(), [Saved::Updated]),
            Some(kept) => {
                assert_eq!(saved.unwrap(), [Saved::Created]);
                assert_eq!(fields(&kept.record), json!({"new": round}));
            }
        }
    }
}

async fn as_many_as_allowed_are_saved_in_one_call(ledger: TestLedger) {
    let given = |value: &str| -> Vec<Record> {
        let one = |n| contact(&format!("c{n:04}"), json!({"value": value, "phone": format!("+7999{n:07}")}));
        (0..RECORDS_AT_ONCE).rev().map(one).collect()
    };
    for (value, becomes) in [("x", Saved::Created), ("x", Saved::Unchanged), ("y", Saved::Updated)] {
        let saved = save(&ledger, given(value), SaveHow::Merge).await;
        assert_eq!(saved.iter().filter(|one| **one == becomes).count(), RECORDS_AT_ONCE);
    }
    let ids: Vec<_> = (0..RECORDS_AT_ONCE + 50).map(|n| id(RecordKind::Contact, &format!("c{n:04}"))).collect();
    let mut found = ledger.store().records(RecordKind::Contact, ids).await.unwrap();
    found.sort_by(|a, b| a.record.id.cmp(&b.record.id));
    assert_eq!(found.len(), RECORDS_AT_ONCE);
    assert_eq!(found[7].record.text("phone"), Some("+79990000007"));
    assert!(ledger.store().records(RecordKind::Contact, vec![]).await.unwrap().is_empty());
    assert!(
        ledger.store().save_records(RecordKind::Deal, vec![], SaveHow::Merge, ledger.now()).await.unwrap().is_empty()
    );
}

async fn kinds_are_apart(ledger: TestLedger) {
    for kind in RecordKind::ALL.iter().copied() {
        save(&ledger, vec![record(kind, "7", json!({"of": kind.as_str()}))], SaveHow::Merge).await;
    }
    for kind in RecordKind::ALL.iter().copied() {
        assert_eq!(find(&ledger, kind, "7").await.unwrap().record.text("of"), Some(kind.as_str()));
        let filter = RecordFilter { text: Some(kind.as_str().into()), ..RecordFilter::default() };
        assert_eq!(listed(&ledger, kind, &filter, 10).await, ["7"]);
    }
    assert!(ledger.store().delete_record(RecordKind::Lead, id(RecordKind::Lead, "7")).await.unwrap());
    assert!(find(&ledger, RecordKind::Lead, "7").await.is_none());
    assert!(find(&ledger, RecordKind::Deal, "7").await.is_some());
}

async fn deleting_takes_it_out(ledger: TestLedger) {
    save(&ledger, vec![contact("c1", json!({"name": "Анна"}))], SaveHow::Merge).await;
    let delete = || ledger.store().delete_record(RecordKind::Contact, id(RecordKind::Contact, "c1"));
    assert!(delete().await.unwrap());
    assert!(!delete().await.unwrap());
    assert!(find(&ledger, RecordKind::Contact, "c1").await.is_none());
    assert!(listed(&ledger, RecordKind::Contact, &RecordFilter::default(), 10).await.is_empty());
    assert_eq!(save(&ledger, vec![contact("c1", json!({}))], SaveHow::Merge).await, [Saved::Created]);
}

async fn names_of_fields_are_remembered(mut ledger: TestLedger) {
    let names = |ledger: &TestLedger, kind| {
        let store = ledger.store().clone();
        async move { store.record_fields(kind).await.unwrap() }
    };
    assert!(names(&ledger, RecordKind::Contact).await.is_empty());
    let given = json!({"name": "x", "none": null, "address": {"city": "y", "geo": {"lat": 1}, "+7 999": 1, "e\n": 2}});
    save(&ledger, vec![contact("c1", given)], SaveHow::Merge).await;
    let expected = ["address", "address.city", "address.geo", "id", "name"];
    assert_eq!(names(&ledger, RecordKind::Contact).await, expected);
    assert!(names(&ledger, RecordKind::Deal).await.is_empty());
    ledger.reopen().await;
    ledger.store().delete_record(RecordKind::Contact, id(RecordKind::Contact, "c1")).await.unwrap();
    assert_eq!(names(&ledger, RecordKind::Contact).await, expected, "they stay");
    save(&ledger, vec![contact("c2", json!({"Name": "x"}))], SaveHow::Merge).await;
    assert_eq!(names(&ledger, RecordKind::Contact).await[0], "Name");
    assert_eq!(names(&ledger, RecordKind::Contact).await.len(), expected.len() + 1);
}

async fn data_in_names_of_fields_is_not_remembered(ledger: TestLedger) {
    let given = json!({
        "+7 995 999 88 77": "x", "79959998877": "x", "anna@example.com": "x", "тел 8 995 999 88 77": "x", "12": "x",
        "Доб. телефон 2": "x", "calls": {"_79959998877": 1, "last": 2},
    });
    save(&ledger, vec![contact("c1", given)], SaveHow::Merge).await;
    let names = async || ledger.store().record_fields(RecordKind::Contact).await.unwrap();
    let expected = ["calls", "calls.last", "id", "Доб. телефон 2"];
    assert_eq!(names().await, expected);
    // Refused, it leaves no name.
    let big = |field: &str| contact("c1", json!({ field: "x".repeat(40_000), format!("{field}too"): 1 }));
    save(&ledger, vec![big("a")], SaveHow::Merge).await;
    let saved = save(&ledger, vec![big("b")], SaveHow::Merge).await;
    assert!(matches!(saved[0], Saved::Refused(_)));
    assert_eq!(names().await, ["a", "atoo", "calls", "calls.last", "id", "Доб. телефон 2"]);
    for part in 0..3 {
        let many = (0..200).map(|n| (format!("f{part}_{n}"), json!(1)));
        save(&ledger, vec![contact("many", Value::Object(many.collect()))], SaveHow::Replace).await;
    }
    assert_eq!(names().await.len(), 500);
}

async fn odd_texts_come_back_as_they_were(ledger: TestLedger) {
    let odd = json!({
        "nul": "a\u{0}b", "quotes": "' \" \\ :* $1 ?1", "emoji": "👩‍👩‍👧", "big": u64::MAX, "small": 5e-324,
        "deep": [[[{"x": [null]}]]], "empty": "", "имя поля": "x",
    });
    for name in ["c'1\"", "тест / 1", "🙂", "$1"] {
        save(&ledger, vec![contact(name, odd.clone())], SaveHow::Merge).await;
        assert_eq!(fields(&find(&ledger, RecordKind::Contact, name).await.unwrap().record), odd);
    }
    assert_eq!(listed(&ledger, RecordKind::Contact, &RecordFilter::default(), 2).await.len(), 4);
}
