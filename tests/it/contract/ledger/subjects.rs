//! Templates, API keys, suppressions, accounts.

use std::sync::Arc;
use std::time::Duration;

use vestnik::domain::template::{TemplateBody, TemplateVariant};
use vestnik::domain::{AccountRef, Channel, TemplateId, TemplateVersion};
use vestnik::store::{NewApiKey, SavedTemplate, Scope, Suppression, SuppressionScope};

use crate::support::ledger::{TestLedger, promises};

promises!(
    a_template_s_versions_are_immutable,
    an_equal_body_keeps_its_version,
    a_deleted_template_hides_and_its_versions_stay_readable,
    templates_are_listed_by_name_in_pages,
    templates_saved_at_once_get_a_version_each,
    keys_are_found_by_hash_and_revoked,
    suppressions_are_kept_looked_up_and_lifted,
    suppressions_are_listed_in_pages_without_gaps,
    accounts_keep_their_numbers,
    accounts_numbered_at_once_are_distinct,
);

fn id(text: &str) -> TemplateId {
    TemplateId::parse(text).unwrap()
}

async fn save(ledger: &TestLedger, name: &str, text: &str) -> SavedTemplate {
    let body = TemplateBody::from(TemplateVariant { text: Some(text.into()), ..TemplateVariant::default() });
    ledger.store().save_template(id(name), Arc::new(body), ledger.now()).await.unwrap()
}

async fn a_template_s_versions_are_immutable(mut ledger: TestLedger) {
    let first = save(&ledger, "a", "one {{ x }}").await;
    ledger.advance(Duration::from_secs(1)).await;
    let second = save(&ledger, "a", "two").await;
    assert_eq!((first.template.version, second.template.version), (TemplateVersion(1), TemplateVersion(2)));
    ledger.reopen().await;
    let read = |version| ledger.store().template(id("a"), version);
    assert_eq!(read(None).await.unwrap(), Some(second.clone()));
    assert_eq!(read(Some(TemplateVersion(1))).await.unwrap(), Some(first));
    assert_eq!(read(Some(TemplateVersion(2))).await.unwrap(), Some(second));
    assert_eq!(read(Some(TemplateVersion(3))).await.unwrap(), None);
    assert_eq!(ledger.store().template(id("b"), None).await.unwrap(), None);
}

async fn an_equal_body_keeps_its_version(ledger: TestLedger) {
    let first = save(&ledger, "a", "one").await;
    ledger.advance(Duration::from_secs(1)).await;
    assert_eq!(save(&ledger, "a", "one").await, first);
    assert_eq!(save(&ledger, "a", "two").await.template.version, TemplateVersion(2));
    assert_eq!(save(&ledger, "a", "one").await.template.version, TemplateVersion(3));
}

async fn a_deleted_template_hides_and_its_versions_stay_readable(ledger: TestLedger) {
    let saved = save(&ledger, "a", "one").await;
    let delete = || ledger.store().delete_template(id("a"), ledger.now());
    assert!(delete().await.unwrap());
    assert!(!delete().await.unwrap());
    assert_eq!(ledger.store().template(id("a"), None).await.unwrap(), None);
    assert!(ledger.store().list_templates(None, 10).await.unwrap().is_empty());
    assert_eq!(ledger.store().template(id("a"), Some(TemplateVersion(1))).await.unwrap(), Some(saved));
    assert_eq!(save(&ledger, "a", "one").await.template.version, TemplateVersion(2), "its numbers go on");
    assert!(ledger.store().template(id("a"), None).await.unwrap().is_some());
}

async fn templates_are_listed_by_name_in_pages(ledger: TestLedger) {
    let names = ["B", "a", "a-b", "a.b", "a_b", "b", "z"];
    for name in names.iter().rev() {
        save(&ledger, name, "x").await;
    }
    save(&ledger, "b", "y").await;
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = ledger.store().list_templates(after, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.template.id.clone());
        listed.extend(page.iter().map(|saved| saved.template.id.to_string()));
    }
    assert_eq!(listed, names, "byte by byte, whatever the database's language");
}

async fn templates_saved_at_once_get_a_version_each(ledger: TestLedger) {
    let saves = (0..8).map(|n| {
        let ledger = &ledger;
        async move { save(ledger, "a", &n.to_string()).await.template.version.0 }
    });
    let mut versions = futures::future::join_all(saves).await;
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(ledger.raw_count("template_versions").await, 8);
}

async fn keys_are_found_by_hash_and_revoked(ledger: TestLedger) {
    let key = |n: u8, scopes: &[Scope]| NewApiKey {
        id: ledger.ids.next(),
        name: format!("key {n}"),
        hash: [n; 32],
        scopes: scopes.into(),
        created_at: ledger.now(),
    };
    let [first, second] = [key(1, &[Scope::Send, Scope::Read]), key(2, &[Scope::Admin])];
    ledger.store().add_key(first.clone()).await.unwrap();
    ledger.store().add_key(second.clone()).await.unwrap();
    ledger.store().add_key(NewApiKey { name: "again".into(), ..key(1, &[Scope::Admin]) }).await.unwrap();
    let found = ledger.store().key_by_hash([1; 32]).await.unwrap().unwrap();
    assert_eq!((found.id, found.name, found.scopes), (first.id, first.name, first.scopes), "it stays as it was");
    assert_eq!(ledger.store().key_by_hash([3; 32]).await.unwrap(), None);
    assert!(ledger.store().revoke_key(second.id, ledger.now()).await.unwrap());
    assert!(!ledger.store().revoke_key(second.id, ledger.now()).await.unwrap());
    assert!(!ledger.store().revoke_key(ledger.ids.next(), ledger.now()).await.unwrap());
    let keys = ledger.store().keys().await.unwrap();
    assert_eq!(keys.iter().map(|key| key.id).collect::<Vec<_>>(), [first.id, second.id]);
    assert_eq!(keys[1].revoked_at, Some(ledger.now()));
}

fn suppression(ledger: &TestLedger, address: &str, scope: SuppressionScope) -> Suppression {
    let (address, reason) = (address.to_owned(), "a person".to_owned());
    Suppression { channel: Channel::WhatsApp, address, scope, reason, created_at: ledger.now() }
}

async fn suppressions_are_kept_looked_up_and_lifted(ledger: TestLedger) {
    let all = suppression(&ledger, "+1", SuppressionScope::All);
    ledger.store().suppress(all.clone()).await.unwrap();
    ledger.store().suppress(Suppression { reason: "later".into(), ..all.clone() }).await.unwrap();
    ledger.store().suppress(suppression(&ledger, "+2", SuppressionScope::Marketing)).await.unwrap();
    let asked: Vec<String> = (0..1200).map(|n| format!("+{n}")).collect();
    let mut found = ledger.store().suppressed(Channel::WhatsApp, asked).await.unwrap();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, [("+1".into(), SuppressionScope::All), ("+2".into(), SuppressionScope::Marketing)]);
    assert_eq!(ledger.store().suppressions(None, 10).await.unwrap()[0], all, "the first reason stays");
    assert!(ledger.store().lift_suppression(Channel::WhatsApp, "+1".into()).await.unwrap());
    assert!(!ledger.store().lift_suppression(Channel::WhatsApp, "+1".into()).await.unwrap());
    assert_eq!(ledger.store().suppressions(None, 10).await.unwrap().len(), 1);
    assert!(ledger.store().suppressed(Channel::WhatsApp, vec![]).await.unwrap().is_empty());
}

/// An address with two scopes at the end of a page is not cut in half.
async fn suppressions_are_listed_in_pages_without_gaps(ledger: TestLedger) {
    for address in ["+3", "+1", "+2"] {
        for scope in [SuppressionScope::All, SuppressionScope::Marketing] {
            ledger.store().suppress(suppression(&ledger, address, scope)).await.unwrap();
        }
    }
    for limit in 1..=4 {
        let mut listed = Vec::new();
        let mut after = None;
        loop {
            let page = ledger.store().suppressions(after, limit).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some((last.channel, last.address.clone()));
            listed.extend(page.iter().map(|found| (found.address.clone(), found.scope.code())));
        }
        let expected: Vec<_> = ["+1", "+2", "+3"].iter().flat_map(|a| [1, 2].map(|s| ((*a).to_owned(), s))).collect();
        assert_eq!(listed, expected, "with a limit of {limit}");
    }
}

fn account(name: &str) -> AccountRef {
    AccountRef { channel: Channel::WhatsApp, name: name.into() }
}

async fn accounts_keep_their_numbers(mut ledger: TestLedger) {
    let first = ledger.store().accounts(vec![account("main"), account("second")]).await.unwrap();
    ledger.reopen().await;
    let telegram = AccountRef { channel: Channel::Telegram, name: "main".into() };
    let later = ledger.store().accounts(vec![telegram, account("second"), account("main")]).await.unwrap();
    assert_eq!(later.len(), 3);
    assert_eq!(later[..2], first[..]);
}

async fn accounts_numbered_at_once_are_distinct(ledger: TestLedger) {
    let calls = (0..6).map(|n| ledger.store().accounts(vec![account("main"), account(&format!("own {n}"))]));
    for answer in futures::future::join_all(calls).await {
        answer.unwrap();
    }
    let all = ledger.store().accounts(vec![]).await.unwrap();
    let mut numbers: Vec<_> = all.iter().map(|(id, _)| id.0).collect();
    numbers.dedup();
    assert_eq!((all.len(), numbers.len()), (7, 7));
}
