//! A real `NestJS` client, with the code that docs/nestjs.md gives to its team.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use super::server::Client;
use super::world::World;
use crate::support::eventually::{LONG, eventually};
use crate::support::node;
use crate::support::rabbitmq::{self, Shared, Vhost};

/// Seconds; more on a loaded machine. What waits for an answer that does not come ends after 10 s.
const CLIENT_LIMIT: Duration = Duration::from_secs(90);

/// A user who may do what docs/nestjs.md says such a client must, and its URL.
async fn producer(vhost: &Vhost<Shared>, name: &str, rights: [&str; 3]) -> String {
    let user = format!("{}_{name}", vhost.name);
    vhost.broker.ctl(&["add_user", &user, "secret"]).await;
    let [configure, write, read] = rights;
    vhost.broker.ctl(&["set_permissions", "-p", &vhost.name, &user, configure, write, read]).await;
    vhost.url_of(&user, "secret")
}

/// What is in the ledger, by the client's id; without one, by contact.
fn by_client(ledger: &[Value]) -> BTreeMap<String, Vec<&Value>> {
    let mut found: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for one in ledger {
        found.entry(one["externalId"].as_str().unwrap_or_default().to_owned()).or_default().push(one);
    }
    found
}

async fn quarantined(client: &Client, count: usize) -> Vec<String> {
    eventually(LONG, "what is poison is in quarantine", async || {
        let page = client.get("/v1/quarantine").await.ok();
        let items = page["items"].as_array().unwrap();
        let mut reasons: Vec<_> = items.iter().map(|item| item["reason"].as_str().unwrap().to_owned()).collect();
        reasons.sort();
        (items.iter().map(|item| item["times"].as_u64().unwrap()).sum::<u64>() == count as u64).then_some(reasons)
    })
    .await
}

/// `vestnik quarantine` shows it and drops one, whose id is returned.
async fn in_quarantine_by_command(world: &World, url: &str) -> String {
    let listed = world.run_json(&["quarantine", "list", "--url", url]).await;
    assert!(listed["items"].as_array().unwrap().iter().all(|item| item.get("body").is_none()), "{listed:#}");
    let bodies = world.run_json(&["quarantine", "list", "--bodies", "--url", url]).await;
    assert!(bodies["items"].as_array().unwrap().iter().all(|item| item["body"].is_string()), "{bodies:#}");
    let shown = world.run(&["quarantine", "list", "--url", url]).await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("unknown_pattern") && !shown.contains("+79990000001"), "{shown}");
    let id = listed["items"][0]["id"].as_str().unwrap().to_owned();
    let dropped = world.run_json(&["quarantine", "drop", &id, "--url", url]).await;
    assert_eq!(dropped, json!({ "dropped": [&id] }));
    assert_eq!(world.run(&["quarantine", "drop", &id, "--url", url]).await.status.code(), Some(2));
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nest_client_emits_asks_and_is_answered() {
    let Some(program) = node::nest_program().await else { return };
    let Some(broker) = rabbitmq::shared().await else { return };
    let vhost = Vhost::on(broker).await;
    let world = World::sqlite().await;
    let unrouted = json!({ "alternate-exchange": "notifications.unrouted" }).to_string();
    let policy = ["set_policy", "-p", &vhost.name, "--apply-to", "exchanges", "unrouted", "^notifications$", &unrouted];
    vhost.broker.ctl(&policy).await;
    let by_queue = producer(&vhost, "queue", ["^$", "^amq\\.default$", "^$"]).await;
    let by_topic = producer(&vhost, "topic", ["^notifications$", "^notifications$", "^$"]).await;
    let url = vhost.url();
    let server = world.server(&[("RABBITMQ_URL", &url)]).await;
    let client = server.client();
    client.put("/v1/templates/t1", &json!({ "text": "Order {{ contact.name }}" })).await.ok();
    for (id, phone) in [("c1", "+79990000011"), ("c2", "+79990000012"), ("c3", "+79990000013")] {
        let contact = json!({ "name": "Ann", "phone": phone });
        assert_eq!(client.put(&format!("/v1/contacts/{id}"), &contact).await.status, 201);
    }

    let mut nest = Command::new("node");
    nest.arg(program)
        .env("RABBITMQ_URL", &url)
        .env("QUEUE_PRODUCER_URL", by_queue)
        .env("TOPIC_PRODUCER_URL", by_topic)
        .env("VESTNIK_URL", &server.url)
        .env_remove("VESTNIK_KEY");
    let said = node::run(nest, CLIENT_LIMIT).await.unwrap_or_else(|reason| panic!("{reason}"));
    let said: Value = serde_json::from_str(&said).unwrap();

    let http = &said["http"];
    assert_eq!((&http["now"]["status"], &http["bulk"]["accepted"]), (&json!("sent"), &json!(3)), "{http:#}");
    assert_eq!((&http["auto"]["mode"], &http["auto"]["results"][0]["status"]), (&json!("sync"), &json!("sent")));
    assert!(http["refused"].as_str().unwrap().contains("none"), "{http:#}");

    let reasons = quarantined(&client, 6).await;
    let kept = |start: &str| reasons.iter().filter(|reason| reason.starts_with(start)).count();
    assert!(kept("unknown_pattern") >= 2 && kept("invalid_schema") == 1, "{reasons:?}");
    assert_eq!(said["poison"], json!({ "error": { "status": "error", "message": "unknown_pattern" } }));

    let dropped = in_quarantine_by_command(&world, &server.url).await;
    assert_eq!(client.get("/v1/quarantine").await.ok()["items"].as_array().unwrap().len() + 1, reasons.len());
    assert_eq!(client.delete(&format!("/v1/quarantine/{dropped}")).await.status, 404);

    let settled = ["queue", "topic"].map(|way| (way, &said[way]));
    eventually(LONG, "all that is due was sent", async || {
        let page = client.get("/v1/notifications?status=sent&limit=500").await.ok();
        // 5 over HTTP; the seed's; 7 by each way, one more by topic, and 2 with few rights.
        (page["items"].as_array().unwrap().len() == 5 + 1 + 7 + 7 + 1 + 2).then_some(())
    })
    .await;
    let ledger = client.ledger().await;
    let found = by_client(&ledger);
    let only = |id: &str| {
        let all = found.get(id).unwrap_or_else(|| panic!("{id} is not in the ledger: {:?}", found.keys()));
        assert_eq!(all.len(), 1, "{id}: {all:#?}");
        all[0]
    };
    let seed = only("seed-emit");
    assert_eq!(
        (&seed["status"], &seed["mode"], &seed["priority"], &seed["recipient"]),
        (&json!("sent"), &json!("async"), &json!("high"), &json!("+79990000001"))
    );
    for (way, said) in settled {
        assert_eq!(only(said["emitted"].as_str().unwrap())["status"], "sent");
        for (n, answer) in said["answers"].as_array().unwrap().iter().enumerate() {
            assert_eq!(
                (&answer["success"], &only(&format!("{way}-send-{n}"))["id"]),
                (&json!(true), &answer["messageId"])
            );
        }
        assert_eq!(said["again"], said["answers"][0], "the same id is the same notification");
        let refused = &said["refused"]["error"];
        assert!(refused["status"] == "error" && refused["message"].as_str().unwrap().contains("none"), "{said:#}");
        for (id, phone) in said["bulk"].as_array().unwrap().iter().zip(["11", "12", "13"]) {
            let one = only(id.as_str().unwrap());
            assert_eq!((&one["status"], &one["recipient"]), (&json!("sent"), &json!(format!("+799900000{phone}"))));
        }
    }
    assert_eq!(only("topic-low")["channel"], "sms");
    assert_eq!(said["fewRights"].as_array().unwrap().iter().filter(|answer| answer["success"] == true).count(), 2);
    for id in said["module"].as_array().unwrap() {
        let waiting = only(id.as_str().unwrap());
        assert_eq!(waiting["status"], "scheduled", "{waiting:#}");
        let path = format!("/v1/notifications/{}/cancel", waiting["id"].as_str().unwrap());
        client.post(&path, &json!({})).await.ok();
    }
    world.assert_books(&server, &[]).await;
    server.stop().await;
}
