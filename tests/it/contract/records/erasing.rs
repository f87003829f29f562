//! A person who is to be forgotten is nowhere any more, and the books balance before, during and after.

use std::time::Duration;

use serde_json::json;
use vestnik::domain::{Channel, HoldReason, RecordIds, RecordKind, Status};
use vestnik::store::{
    Begin, Close, Counts, ERASED, ErasureStep, NewNotification, Next, SaveHow, Settle, Suppression, SuppressionScope,
};

use super::dump::tables_with;
use super::{contact, find, id, record, save};
use crate::support::eventually::{LONG, eventually};
use crate::support::ledger::{Engine, TestLedger, promises};

promises!(
    nothing_of_a_person_is_left,
    leads_and_deals_go_a_few_at_a_time,
    addresses_go_from_deals_in_any_writing,
    an_id_that_is_an_address_goes_too,
    nothing_is_left_in_the_file_either,
    an_erasure_cut_off_anywhere_goes_on,
    others_keep_what_they_have,
    opt_outs_survive_without_the_address,
    somebody_who_is_not_there_can_be_erased,
    other_kinds_are_erased_too,
    erasures_are_listed_newest_first,
    erasures_that_run_at_once_do_each_thing_once,
);

const PHONE: &str = "+79991234567";
/// What may be found nowhere. The index knows the ends of the number, too.
const TRACES: &[&str] = &["9991234567", "1234567", "незабудкина", "zinaida", "770077", "vip-client"];

struct World {
    sent: NewNotification,
    failed: NewNotification,
    uncertain: NewNotification,
    scheduled: NewNotification,
    queued: NewNotification,
    sending: NewNotification,
    by_address: NewNotification,
    to_manager: NewNotification,
    of_another: NewNotification,
    suppressed: NewNotification,
    settled: NewNotification,
}

impl World {
    fn all(&self) -> [&NewNotification; 10] {
        let World { sent, failed, uncertain, scheduled, queued, sending, by_address, to_manager, suppressed, .. } =
            self;
        [sent, failed, uncertain, scheduled, queued, sending, by_address, to_manager, suppressed, &self.settled]
    }
}

async fn person(ledger: &TestLedger) {
    let fields = json!({
        "name": "Зинаида Незабудкина", "phone": PHONE, "email": "zinaida@example.com", "telegramChatId": 770_077,
    });
    save(ledger, vec![contact("c1", fields), contact("c2", json!({"phone": "+79990000002"}))], SaveHow::Merge).await;
    let lead = record(RecordKind::Lead, "42", json!({"contactId": "c1", "name": "Незабудкина", "phone": PHONE}));
    save(ledger, vec![lead, record(RecordKind::Lead, "43", json!({"contactId": "c2"}))], SaveHow::Merge).await;
    let deal = json!({"contactId": "c1", "title": "Rosen", "phone": PHONE, "email": "zinaida@example.com"});
    save(ledger, vec![record(RecordKind::Deal, "d1", deal)], SaveHow::Merge).await;
}

fn about(ledger: &TestLedger, begin: Begin) -> NewNotification {
    NewNotification {
        recipient: PHONE.into(),
        text: Some("Зинаида Незабудкина, привет".into()),
        data: Some(r#"{"name":"Незабудкина"}"#.into()),
        metadata: Some(r#"{"to":"zinaida@example.com"}"#.into()),
        external_id: Some("vip-client".into()),
        ..ledger.notification(begin)
    }
}

/// One of each state, made through the API.
async fn world(ledger: &TestLedger) -> World {
    person(ledger).await;
    let due = || about(ledger, ledger.due_now());
    let ended = Begin::Ended {
        status: Status::Suppressed,
        cause: "opted_out",
        error: vestnik::domain::ProviderError::new("x", PHONE),
    };
    let world = World {
        sent: due(),
        failed: due(),
        uncertain: due(),
        scheduled: about(ledger, Begin::Due { at: ledger.now() + Duration::from_secs(3600), scheduled: true }),
        queued: due(),
        sending: due(),
        by_address: NewNotification { records: RecordIds::default(), ..due() },
        to_manager: NewNotification {
            recipient: "+79995550001".into(),
            records: RecordIds { lead_id: Some(42), ..RecordIds::default() },
            ..due()
        },
        of_another: NewNotification {
            recipient: "+79990000002".into(),
            records: RecordIds { contact_id: Some("c2".into()), lead_id: Some(43), ..RecordIds::default() },
            text: Some("привет".into()),
            data: Some("{}".into()),
            metadata: Some("{}".into()),
            external_id: Some("x".into()),
            ..due()
        },
        suppressed: about(ledger, ended),
        settled: due(),
    };
    let World { sent, failed, uncertain, sending, by_address, to_manager, of_another, .. } = &world;
    let to_open = [sent, failed, uncertain, sending, by_address, to_manager, of_another];
    ledger.accept(to_open.map(Clone::clone).into()).await;
    ledger.open(&ledger.take().await).await;
    let close = |new: &NewNotification, next| Close {
        provider_message_id: Some(format!("wamid.{PHONE}.{}", new.id)),
        error: Some(vestnik::domain::ProviderError::new("131026", format!("no {PHONE}"))),
        ..ledger.close_of(new, 1, next)
    };
    let mut closes = vec![close(sent, Next::Sent), close(failed, Next::Failed), close(uncertain, Next::Uncertain)];
    closes.extend([by_address, to_manager].map(|new| close(new, Next::Sent)));
    closes.push(ledger.close_of(of_another, 1, Next::Sent));
    assert!(ledger.record(closes).await.iter().all(|closed| *closed));
    ledger.accept(vec![world.queued.clone(), world.settled.clone()]).await;
    assert_eq!(ledger.take().await.len(), 1);
    ledger.accept(vec![world.scheduled.clone(), world.suppressed.clone()]).await;
    let settle = Settle {
        epoch: ledger.epoch,
        id: world.settled.id,
        chunk: None,
        batch: None,
        status: Status::Cancelled,
        at: ledger.now(),
        actor: "Anna".into(),
        reason: "Незабудкина called".into(),
    };
    assert_eq!(ledger.store().settle(vec![settle]).await.unwrap(), [true]);
    for (channel, address) in
        [(Channel::WhatsApp, PHONE), (Channel::Sms, PHONE), (Channel::Email, "zinaida@example.com")]
    {
        suppress(ledger, channel, address, SuppressionScope::Marketing).await;
    }
    world
}

async fn suppress(ledger: &TestLedger, channel: Channel, address: &str, scope: SuppressionScope) {
    let reason = "Незабудкина asked".to_owned();
    let suppression = Suppression { channel, address: address.into(), scope, reason, created_at: ledger.now() };
    ledger.store().suppress(suppression).await.unwrap();
}

async fn step(ledger: &TestLedger) -> ErasureStep {
    let step = ledger.store().erase_some(3, ledger.now()).await.unwrap();
    ledger.assert_balances().await;
    step
}

/// Goes on until nothing goes any more.
async fn erase(ledger: &TestLedger) -> ErasureStep {
    for _ in 0..100 {
        let came_to = step(ledger).await;
        if came_to != ErasureStep::Went {
            return came_to;
        }
    }
    panic!("it never ends");
}

/// What was open when the person was erased ends, with a retry to come.
async fn end_sending(ledger: &TestLedger, world: &World) {
    let again = ledger.again(Duration::from_secs(5), HoldReason::Retry, Counts::Retry);
    let close = Close {
        error: Some(vestnik::domain::ProviderError::new("131026", format!("no {PHONE}"))),
        ..ledger.close_of(&world.sending, 1, again)
    };
    assert_eq!(ledger.record(vec![close]).await, [true]);
}

async fn assert_erased(ledger: &TestLedger, world: &World) {
    assert_eq!(tables_with(ledger, TRACES).await, [""; 0]);
    for (new, status) in world.all().into_iter().zip([
        Status::Sent,
        Status::Failed,
        Status::Uncertain,
        Status::Cancelled,
        Status::Cancelled,
        Status::Cancelled,
        Status::Sent,
        Status::Sent,
        Status::Suppressed,
        Status::Cancelled,
    ]) {
        let found = ledger.find(new.id).await;
        assert_eq!((found.status, found.recipient.as_str()), (status, ERASED));
        assert_eq!((found.text, found.data, found.metadata, found.external_id), (None, None, None, None));
        assert_eq!(found.records, new.records, "ids of records are no addresses");
    }
    let sent = ledger.find(world.sent.id).await.attempts.pop().unwrap();
    assert_eq!((sent.provider_message_id, sent.text_hash), (None, Some([3; 32])), "proof stays");
    ledger.assert_balances().await;
}

async fn nothing_of_a_person_is_left(mut ledger: TestLedger) {
    let world = world(&ledger).await;
    assert!(tables_with(&ledger, TRACES).await.len() >= 6, "the test would see it");
    let erasure =
        ledger.store().request_erasure(RecordKind::Contact, id(RecordKind::Contact, "c1"), ledger.now()).await;
    let erasure = erasure.unwrap();
    assert!(find(&ledger, RecordKind::Contact, "c1").await.is_none());
    ledger.assert_balances().await;

    assert_eq!(erase(&ledger).await, ErasureStep::Waits);
    assert!(find(&ledger, RecordKind::Lead, "42").await.is_none());
    let deal = find(&ledger, RecordKind::Deal, "d1").await.unwrap();
    assert_eq!(deal.record.fields().keys().collect::<Vec<_>>(), ["contactId", "title"]);
    assert_eq!(ledger.find(world.sending.id).await.recipient, PHONE, "what is being sent is let alone");
    assert_eq!(ledger.store().erasure(erasure.id).await.unwrap().unwrap().done_at, None);
    end_sending(&ledger, &world).await;
    assert_eq!(erase(&ledger).await, ErasureStep::Idle);

    assert_erased(&ledger, &world).await;
    let done = ledger.store().erasure(erasure.id).await.unwrap().unwrap();
    assert_eq!((done.notifications, done.done_at), (10, Some(ledger.now())));
    assert_eq!(ledger.raw_count("erasing").await, 0);
    // Nothing of it is handed out any more.
    ledger.advance(Duration::from_secs(7200)).await;
    ledger.epoch = ledger.begin_epoch().await;
    assert!(ledger.open(&ledger.take().await).await.is_empty());
    ledger.assert_balances().await;
}

/// However many, no commit is long; and the process ends after each step.
async fn leads_and_deals_go_a_few_at_a_time(mut ledger: TestLedger) {
    const EACH: usize = 60;
    const MOST: usize = 20;
    let of = |kind, n: usize| {
        let fields = json!({"contactId": "c1", "phone": format!("+7999000{n:04}"), "note": "79991110007"});
        record(kind, &n.to_string(), fields)
    };
    save(&ledger, vec![contact("c1", json!({"phone": PHONE}))], SaveHow::Merge).await;
    for kind in [RecordKind::Lead, RecordKind::Deal] {
        save(&ledger, (0..EACH).map(|n| of(kind, n)).collect(), SaveHow::Merge).await;
    }
    let last = record(RecordKind::Lead, "99", json!({"contactId": "c1", "phone": "+79991110007"}));
    save(&ledger, vec![last], SaveHow::Merge).await;
    let count = async |ledger: &TestLedger, what: &str| {
        let sql = format!("SELECT CAST(count(*) AS text) AS c FROM records WHERE {what}");
        ledger.raw_column(&sql).await[0].parse::<usize>().unwrap()
    };
    ledger.store().request_erasure(RecordKind::Contact, id(RecordKind::Contact, "c1"), ledger.now()).await.unwrap();
    assert!(find(&ledger, RecordKind::Contact, "c1").await.is_none());
    for (what, all) in [("kind = 2", EACH + 1), ("phone IS NOT NULL", EACH)] {
        let mut left = count(&ledger, what).await;
        assert!(left >= all, "the request itself leaves them: {left}");
        while left > 0 {
            assert_eq!(step(&ledger).await, ErasureStep::Went);
            ledger.reopen().await;
            let now = count(&ledger, what).await;
            assert!(now + MOST >= left, "{left} became {now}");
            left = now;
        }
    }
    assert_eq!(erase(&ledger).await, ErasureStep::Idle);
    assert_eq!(count(&ledger, "kind = 3").await, EACH);
    assert_eq!(tables_with(&ledger, &["999000", "9991110007"]).await, [""; 0]);
}

async fn addresses_go_from_deals_in_any_writing(ledger: TestLedger) {
    person(&ledger).await;
    // An address that only another deal tells.
    let other = json!({"contactId": "c1", "email": "z2@example.com"});
    let deal = json!({
        "contactId": "c1", "title": "Rosen", "note": "тел. 8 (999) 123-45-67", "write": "To ZINAIDA@example.com",
        "delivery": {"city": "Тверь", "phones": ["9991234567", "+79990000002"], "chat": 770_077}, "cc": "z2@Example.com",
    });
    let deals = vec![record(RecordKind::Deal, "d0", deal), record(RecordKind::Deal, "d2", other)];
    save(&ledger, deals, SaveHow::Merge).await;
    ledger.store().request_erasure(RecordKind::Contact, id(RecordKind::Contact, "c1"), ledger.now()).await.unwrap();
    assert_eq!(erase(&ledger).await, ErasureStep::Idle);
    let left = json!({
        "contactId": "c1", "title": "Rosen", "delivery": {"city": "Тверь", "phones": ["+79990000002"]},
    });
    let deal = find(&ledger, RecordKind::Deal, "d0").await.unwrap();
    assert_eq!(serde_json::Value::Object(deal.record.fields().clone()), left);
    assert_eq!(tables_with(&ledger, TRACES).await, [""; 0]);
    assert_eq!(tables_with(&ledger, &["z2@example"]).await, [""; 0]);
}

async fn an_id_that_is_an_address_goes_too(ledger: TestLedger) {
    for name in ["8 999 123-45-67", "zinaida@example.com"] {
        save(&ledger, vec![contact(name, json!({"phone": PHONE}))], SaveHow::Merge).await;
        let deal = json!({"contactId": name, "title": "Rosen"});
        save(&ledger, vec![record(RecordKind::Deal, "d1", deal)], SaveHow::Merge).await;
        let records = RecordIds { contact_id: Some(name.into()), ..RecordIds::default() };
        let sent = NewNotification { records, ..about(&ledger, ledger.due_now()) };
        ledger.accept(vec![sent.clone()]).await;
        let asked =
            ledger.store().request_erasure(RecordKind::Contact, id(RecordKind::Contact, name), ledger.now()).await;
        assert_eq!(erase(&ledger).await, ErasureStep::Idle);
        assert_eq!(ledger.find(sent.id).await.records.contact_id.as_deref(), Some(ERASED));
        let erasure = ledger.store().erasure(asked.unwrap().id).await.unwrap().unwrap();
        assert_eq!((erasure.record.as_str(), erasure.notifications), (ERASED, 1));
    }
    assert_eq!(tables_with(&ledger, &["9991234567", "123-45-67", "zinaida"]).await, [""; 0]);
}

/// Deleted rows are overwritten, and the write-ahead log is emptied when there is no work.
async fn nothing_is_left_in_the_file_either(ledger: TestLedger) {
    if ledger.engine != Engine::Sqlite {
        return;
    }
    let folder = ledger.dir.path().join("data");
    let traces = || {
        let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
        let bytes: Vec<_> = files.flat_map(|file| std::fs::read(file).unwrap()).collect();
        let has = |trace: &str| bytes.windows(trace.len()).any(|bytes| bytes == trace.as_bytes());
        TRACES.iter().copied().filter(|trace| has(trace)).collect::<Vec<_>>()
    };
    let world = world(&ledger).await;
    // Longer than a page.
    let long = json!({"contactId": "c1", "text": "незабудкина ".repeat(1000), "z": "zinaida@example.com"});
    save(&ledger, vec![record(RecordKind::Lead, "77", long)], SaveHow::Merge).await;
    assert!(!traces().is_empty(), "the test would see it");
    ledger.store().request_erasure(RecordKind::Contact, id(RecordKind::Contact, "c1"), ledger.now()).await.unwrap();
    assert_eq!(erase(&ledger).await, ErasureStep::Waits);
    end_sending(&ledger, &world).await;
    assert_eq!(erase(&ledger).await, ErasureStep::Idle);
    eventually(LONG, "no page holds anything of them", async || traces().is_empty().then_some(())).await;
}

/// The process ends after each step, one step further in each round.
async fn an_erasure_cut_off_anywhere_goes_on(mut ledger: TestLedger) {
    let world = world(&ledger).await;
    ledger.store().request_erasure(RecordKind::Contact, id(RecordKind::Contact, "c1"), ledger.now()).await.unwrap();
    let mut steps = 0;
    let mut is_sending = true;
    loop {
        steps += 1;
        match step(&ledger).await {
            ErasureStep::Went => ledger.reopen().await,
            ErasureStep::Waits => {
                assert!(std::mem::take(&mut is_sending));
                end_sending(&ledger, &world).await;
            }
            ErasureStep::Idle => break,
        }
    }
    assert!(steps > 5, "{steps} steps");
    assert_erased(&ledger, &world).await;
    let erasures = ledger.store().list_erasures(None, 10).await.unwrap();
    assert_eq!((erasures.len(), erasures[0].notifications), (1, 10));
}

async fn others_keep_what_they_have(ledger: TestLedger) {
    let world = world(&ledger).await;
    let before = ledger.find(world.of_another.id).await;
    end_sending(&ledger, &world).await;
    ledger.store().request_erasure(RecordKind::Contact, id(RecordKind::Contact, "c1"), ledger.now()).await.unwrap();
    assert_eq!(erase(&ledger).await, ErasureStep::Idle);
    assert_eq!(ledger.find(world.of_another.id).await, before);
    assert!(find(&ledger, RecordKind::Contact, "c2").await.is_some());
    assert!(find(&ledger, RecordKind::Lead, "43").await.is_some());
}

async fn opt_outs_survive_without_the_address(ledger: TestLedger) {
    let world = world(&ledger).await;
    end_sending(&ledger, &world).await;
    suppress(&ledger, Channel::Sms, "+79990000002", SuppressionScope::All).await;
    ledger.store().request_erasure(RecordKind::Contact, id(RecordKind::Contact, "c1"), ledger.now()).await.unwrap();
    assert_eq!(erase(&ledger).await, ErasureStep::Idle);
    let asked = || vec![PHONE.to_owned(), "+79990000002".to_owned(), "+79990000003".to_owned()];
    let mut found = ledger.store().suppressed(Channel::Sms, asked()).await.unwrap();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [("+79990000002".into(), SuppressionScope::All), (PHONE.into(), SuppressionScope::Marketing)];
    assert_eq!(found, expected);
    let listed = ledger.store().suppressions(None, 10).await.unwrap();
    assert_eq!(listed.len(), 4);
    let hashed = listed.iter().find(|one| one.channel == Channel::Email).unwrap();
    assert!(hashed.address.starts_with("sha256:") && hashed.address.len() == 71 && hashed.reason.is_empty());
    // Told again, it is known already; another scope is news.
    suppress(&ledger, Channel::Sms, PHONE, SuppressionScope::Marketing).await;
    assert_eq!(ledger.store().suppressions(None, 10).await.unwrap().len(), 4);
    suppress(&ledger, Channel::Sms, PHONE, SuppressionScope::All).await;
    assert_eq!(ledger.store().suppressed(Channel::Sms, vec![PHONE.into()]).await.unwrap().len(), 2);
    // Lifted by the address, or by the hash that a list shows.
    assert!(ledger.store().lift_suppression(Channel::Sms, PHONE.into()).await.unwrap());
    assert!(ledger.store().suppressed(Channel::Sms, vec![PHONE.into()]).await.unwrap().is_empty());
    assert!(ledger.store().lift_suppression(Channel::Email, hashed.address.clone()).await.unwrap());
    assert!(!ledger.store().lift_suppression(Channel::Email, "zinaida@example.com".into()).await.unwrap());
}

async fn somebody_who_is_not_there_can_be_erased(ledger: TestLedger) {
    let waiting = about(&ledger, ledger.due_now());
    ledger.accept(vec![waiting.clone()]).await;
    ledger.store().request_erasure(RecordKind::Contact, id(RecordKind::Contact, "c1"), ledger.now()).await.unwrap();
    assert_eq!(erase(&ledger).await, ErasureStep::Idle);
    assert_eq!(ledger.status(waiting.id).await, Status::Cancelled);
    assert_eq!(tables_with(&ledger, TRACES).await, [""; 0]);
}

async fn other_kinds_are_erased_too(ledger: TestLedger) {
    person(&ledger).await;
    let lead = NewNotification { recipient: "+79995550001".into(), ..about(&ledger, ledger.due_now()) };
    let records = RecordIds { lead_id: Some(42), company_id: Some("co".into()), ..RecordIds::default() };
    let lead = NewNotification { records, ..lead };
    ledger.accept(vec![lead.clone()]).await;
    ledger.store().request_erasure(RecordKind::Lead, id(RecordKind::Lead, "42"), ledger.now()).await.unwrap();
    assert_eq!(erase(&ledger).await, ErasureStep::Idle);
    assert_eq!(ledger.find(lead.id).await.recipient, ERASED);
    assert!(find(&ledger, RecordKind::Lead, "42").await.is_none());
    assert!(find(&ledger, RecordKind::Contact, "c1").await.is_some(), "only the lead was asked for");
    let company = NewNotification {
        records: RecordIds { company_id: Some("co".into()), ..RecordIds::default() },
        ..about(&ledger, ledger.due_now())
    };
    ledger.accept(vec![company.clone()]).await;
    ledger.store().request_erasure(RecordKind::Company, id(RecordKind::Company, "co"), ledger.now()).await.unwrap();
    assert_eq!(erase(&ledger).await, ErasureStep::Idle);
    assert_eq!(ledger.find(company.id).await.recipient, ERASED);
}

async fn erasures_are_listed_newest_first(ledger: TestLedger) {
    let mut asked = Vec::new();
    for name in ["a", "b", "c"] {
        let erasure = ledger.store().request_erasure(RecordKind::Deal, id(RecordKind::Deal, name), ledger.now()).await;
        asked.insert(0, erasure.unwrap());
    }
    assert_eq!(ledger.store().list_erasures(None, 2).await.unwrap(), asked[..2]);
    assert_eq!(ledger.store().list_erasures(Some(asked[1].id), 2).await.unwrap(), asked[2..]);
    assert_eq!(ledger.store().erasure(asked[0].id).await.unwrap().as_ref(), Some(&asked[0]));
}

async fn erasures_that_run_at_once_do_each_thing_once(ledger: TestLedger) {
    let (_, mut of_batch) = ledger.batch(230);
    for (n, new) in of_batch.iter_mut().enumerate() {
        new.records.contact_id = Some(format!("c{}", n % 2));
    }
    ledger.accept(of_batch).await;
    for name in ["c0", "c1", "c1"] {
        ledger.store().request_erasure(RecordKind::Contact, id(RecordKind::Contact, name), ledger.now()).await.unwrap();
    }
    let runner = || async { while ledger.store().erase_some(40, ledger.now()).await.unwrap() != ErasureStep::Idle {} };
    tokio::join!(runner(), runner(), runner());
    let erased: u64 = ledger.store().list_erasures(None, 10).await.unwrap().iter().map(|one| one.notifications).sum();
    assert_eq!(erased, 230);
    assert_eq!(ledger.store().totals().await.unwrap().of(Status::Cancelled), 230);
    ledger.assert_balances().await;
}
