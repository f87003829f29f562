//! The accounts of all channels, with the right credentials and with wrong ones.

use futures::future::join_all;
use serde_json::{Value, json};

use super::on_both_ledgers;
use super::server::{email, sms, telegram, whatsapp};
use super::world::World;

on_both_ledgers!(
    doctor_asks_each_account_and_sends_nothing,
    wrong_credentials_stop_an_account_and_doctor_says_what_to_do,
);

const ACCOUNTS: [&str; 4] = ["whatsapp.main", "telegram.main", "sms.main", "email.main"];

/// What doctor says of each account.
async fn doctor(world: &World) -> Vec<Value> {
    let output = world.run(&["doctor", "--json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let of = |account: &str| checks.iter().find(|check| check["check"] == format!("account {account}")).cloned();
    ACCOUNTS.map(|account| of(account).unwrap_or_else(|| panic!("{account} is not checked: {report:#}"))).to_vec()
}

async fn doctor_asks_each_account_and_sends_nothing(world: World) {
    let server = world.server(&[]).await;
    let said = ["Vestnik Simulator", "id 1000001", "Vestnik Simulator", "encrypted by STARTTLS, signed in"];
    for (check, said) in doctor(&world).await.iter().zip(said) {
        assert_eq!(check["ok"], true, "{check:#}");
        assert!(check["seen"].as_str().unwrap().contains(said), "{check:#}");
    }
    assert_eq!(world.simulator.taken_count(), 0);
    world.assert_books(&server, &[]).await;
}

async fn wrong_credentials_stop_an_account_and_doctor_says_what_to_do(world: World) {
    world.scenario(json!({
        "whatsapp": { "tokens": ["another"] },
        "telegram": { "tokens": ["1000001:another"] },
        "sms": { "accounts": [{ "token": "another" }] },
        "email": { "users": { "sim": "another" } },
    }));
    let server = world.server(&[]).await;
    let bodies = [whatsapp("+79991234567"), telegram("42"), sms("+79991234567"), email("anna@example.org")];
    let answers = join_all(bodies.iter().map(async |body| server.send(body).await.ok())).await;
    for (answer, code) in answers.iter().zip(["190", "401", "20003", "535 5.7.8"]) {
        let error = &answer["error"];
        assert_eq!((&answer["status"], &error["class"]), (&json!("failed"), &json!("auth")), "{answer:#}");
        assert_eq!((&error["code"], &error["retryable"]), (&json!(code), &json!(false)), "{answer:#}");
        assert_eq!(answer["attempts"][0]["outcome"], "channel_down");
    }
    for (check, account) in doctor(&world).await.iter().zip(ACCOUNTS) {
        assert_eq!(check["ok"], false, "{check:#}");
        assert!(check["hint"].as_str().unwrap().contains(&format!("[{account}]")), "{check:#}");
    }
    assert_eq!(world.simulator.taken_count(), 0);
    world.assert_books(&server, &answers).await;
}
