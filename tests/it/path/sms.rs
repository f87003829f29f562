//! What only SMS has: parts that spend the account's limits, and a STOP that is answered to the next send.

use serde_json::{Value, json};
use vestnik::domain::Channel;

use super::on_both_ledgers;
use super::server::with;
use super::world::World;

on_both_ledgers!(an_sms_is_taken_once, who_replied_stop_is_suppressed_from_then_on, parts_spend_the_accounts_rate);

const PHONE: &str = "+79991234567";

fn sms(text: &str) -> Value {
    json!({ "channel": "sms", "recipient": PHONE, "text": text })
}

async fn an_sms_is_taken_once(world: World) {
    let server = world.server(&[("VESTNIK__HTTP__PUBLIC_URL", "https://notify.example.com")]).await;
    let answer = server.send(&sms("Заказ готов")).await.ok();
    assert_eq!((&answer["status"], &answer["recipient"]), (&json!("sent"), &json!(PHONE)));
    let taken = world.simulator.taken().pop().unwrap();
    assert_eq!(answer["attempts"][0]["providerMessageId"], taken.provider_message_id.as_str());
    let callback = format!("https://notify.example.com/v1/callbacks/sms.main?id={}", answer["id"].as_str().unwrap());
    assert_eq!(taken.sms.unwrap().status_callback, Some(callback));
    world.assert_books(&server, &[answer]).await;
}

async fn who_replied_stop_is_suppressed_from_then_on(world: World) {
    world.scenario(json!({ "sms": { "recipients": { PHONE: { "error": 21610 } } } }));
    let server = world.server(&[("VESTNIK__SMS__MAIN__LIMITS__PER_SECOND", "100")]).await;
    let first = server.send(&sms("x")).await.ok();
    assert_eq!((&first["status"], &first["error"]["class"]), (&json!("failed"), &json!("opted_out")));
    assert_eq!(first["error"]["code"], "21610");
    let requests = world.simulator.figures(Channel::Sms).requests;
    let second = server.send(&sms("x")).await.ok();
    assert_eq!(second["status"], "suppressed", "{second:#}");
    assert_eq!(world.simulator.figures(Channel::Sms).requests, requests, "it was not even asked");
    let listed = server.get("/v1/suppressions").await.ok();
    assert_eq!((&listed["items"][0]["channel"], &listed["items"][0]["address"]), (&json!("sms"), &json!(PHONE)));
    world.assert_books(&server, &[first, second]).await;
}

async fn parts_spend_the_accounts_rate(world: World) {
    let limits = [
        ("VESTNIK__SMS__MAIN__LIMITS__PER_SECOND", "0.2"),
        ("VESTNIK__SMS__MAIN__LIMITS__BURST", "3"),
        ("VESTNIK__SMS__MAIN__LIMITS__DIRECT_SHARE", "0"),
    ];
    let server = world.server(&limits).await;
    let three_parts = server.send(&sms(&"я".repeat(135))).await.ok();
    assert_eq!(three_parts["status"], "sent");
    assert_eq!(world.simulator.taken()[0].sms.as_ref().unwrap().segments, 3);
    // Of the burst nothing is left: a fourth part is five seconds away.
    let fourth = server.send(&with(sms("x"), json!({ "deadlineMs": 300 }))).await.ok();
    assert_eq!((&fourth["error"]["class"], &fourth["error"]["code"]), (&json!("throttled"), &json!("local_limit")));
    let wait = fourth["retryAfter"].as_f64().unwrap();
    assert!((1.0..=5.0).contains(&wait), "{wait}");
    world.assert_books(&server, &[three_parts, fourth]).await;
}
