//! What a day looks like: messages that arrive, and the ways they do not.

use anyhow::{Context as _, ensure};
use hyper::StatusCode;
use serde_json::{Value, json};

use super::stage::{BUSY_CHAT, Stage, UNKNOWN_NUMBER};
use crate::cli::client::{field, printable};
use crate::cli::notifications::in_words;

const TEMPLATES: [(&str, &str); 4] = [
    ("new-lead-alert-ru", include_str!("../../../assets/templates/new-lead-alert-ru.json")),
    ("new-lead-alert-en", include_str!("../../../assets/templates/new-lead-alert-en.json")),
    ("order-ready-ru", include_str!("../../../assets/templates/order-ready-ru.json")),
    ("order-ready-en", include_str!("../../../assets/templates/order-ready-en.json")),
];

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    save_templates(stage).await?;
    send_by_each_channel(stage).await?;
    meet_a_refusal(stage).await?;
    meet_a_throttle(stage).await?;
    miss_a_variable(stage).await?;
    repeat_a_key(stage).await
}

/// Data of the sample templates.
pub(super) fn lead(id: u32) -> Value {
    let lead = json!({ "id": id, "name": "Анна <Смирнова>", "phone": "+7 999 123-45-67", "source": "сайт" });
    json!({ "lead": lead, "manager": "Пётр" })
}

fn order(name: &str) -> Value {
    json!({ "name": name, "order": { "number": 1042, "address": "Невский пр., 28" } })
}

async fn save_templates(stage: &Stage) -> anyhow::Result<()> {
    stage.heading("Templates: checked when they are saved, each save a version of its own")?;
    for (id, body) in TEMPLATES {
        let body: Value = serde_json::from_str(body).context("a sample template is JSON")?;
        let saved = stage.api.put(&format!("/v1/templates/{id}"), &body).await?;
        ensure!(saved["version"] == 1, "{id} was saved as version {}", saved["version"]);
        let variables: Vec<_> = saved["variables"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        stage.say(&format!("{id:<18} version 1, variables {}", variables.join(", ")))?;
    }
    Ok(())
}

async fn send_by_each_channel(stage: &Stage) -> anyhow::Result<()> {
    stage.heading(
        "WhatsApp, an approved template in Russian: what leaves is what was rendered, and the ledger knows it",
    )?;
    let body = json!({ "channel": "whatsapp", "recipient": "+7 999 123-45-67", "templateId": "order-ready-ru",
                       "data": order("Анна") });
    let taken = send_and_show(stage, &body).await?;
    let parameters = taken["template"]["components"][0]["parameters"].as_array().cloned().unwrap_or_default();
    let texts: Vec<_> = parameters.iter().filter_map(|parameter| parameter["text"].as_str()).collect();
    ensure!(texts == ["Анна", "1042", "Невский пр., 28"], "the template left with other parameters: {texts:?}");

    stage.heading("WhatsApp, a plain text in English")?;
    let body = json!({ "channel": "whatsapp", "recipient": "+44 7400 123456", "templateId": "new-lead-alert-en",
                       "data": lead(43) });
    let taken = send_and_show(stage, &body).await?;
    ensure!(field(&taken, "text").starts_with("New lead #43: Анна <Смирнова>"), "another text left: {taken}");

    stage.heading("Telegram, HTML: the markup is the template's, and what people typed stays text")?;
    let body = json!({ "channel": "telegram", "recipient": "1001", "templateId": "new-lead-alert-ru",
                       "data": lead(42) });
    let taken = send_and_show(stage, &body).await?;
    ensure!(
        field(&taken, "raw").contains("Анна &lt;Смирнова&gt;") && field(&taken, "text").contains("Анна <Смирнова>"),
        "a value was not escaped: {taken}"
    );
    Ok(())
}

/// Sends, and shows the three places: what the provider took, the answer, the ledger.
async fn send_and_show(stage: &Stage, body: &Value) -> anyhow::Result<Value> {
    let before = stage.taken_count().await?;
    let (status, answer) = stage.send(body, None).await?;
    ensure!(status == StatusCode::OK && answer["status"] == "sent", "not sent: {status} {answer}");
    let mut taken = stage.taken(before).await?;
    ensure!(taken.len() == 1, "the simulator took {} messages, not one", taken.len());
    let taken = taken.swap_remove(0);
    stage.say(&format!("the simulator took, for {}:", field(&taken, "recipient")))?;
    stage.say(&as_read(&taken))?;
    stage.say(&format!("the API answered {}: {}", status.as_u16(), short(&answer)))?;
    let row = stage.api.get(&format!("/v1/notifications/{}", field(&answer, "id"))).await?;
    stage.say("the ledger says:")?;
    stage.say(&in_words(&row))?;
    ensure!(
        row["attempts"][0]["providerMessageId"] == taken["providerMessageId"],
        "the ledger names another message than the simulator took"
    );
    Ok(taken)
}

/// What the person reads; of an approved template, its name and values, for only Meta knows the rest.
fn as_read(taken: &Value) -> String {
    let indent = |text: &str| text.lines().map(|line| format!("  │ {}\n", printable(line))).collect::<String>();
    if let Some(text) = taken["text"].as_str() {
        return indent(text);
    }
    let template = &taken["template"];
    let values: Vec<_> = template["components"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|component| component["parameters"].as_array().cloned().unwrap_or_default())
        .map(|parameter| field(&parameter, "text"))
        .collect();
    indent(&format!("[{} · {}] {}", field(template, "name"), field(&template["language"], "code"), values.join(" · ")))
}

/// The parts of an answer that matter here.
fn short(answer: &Value) -> String {
    let mut shown = json!({});
    for name in ["id", "status", "error", "retryAfter"] {
        if !answer[name].is_null() {
            shown[name] = answer[name].clone();
        }
    }
    printable(&shown.to_string())
}

async fn meet_a_refusal(stage: &Stage) -> anyhow::Result<()> {
    stage.heading("The provider refuses: the answer says why, and that trying again is pointless")?;
    let body = json!({ "channel": "whatsapp", "recipient": UNKNOWN_NUMBER, "text": "Здравствуйте!" });
    let (status, answer) = stage.send(&body, None).await?;
    stage.say(&format!("the API answered {}: {}", status.as_u16(), short(&answer)))?;
    ensure!(
        answer["status"] == "failed" && answer["error"]["code"] == "131026" && answer["error"]["retryable"] == false,
        "a refusal was answered otherwise"
    );
    Ok(())
}

async fn meet_a_throttle(stage: &Stage) -> anyhow::Result<()> {
    stage.heading("The provider says 429: the answer says when to try again, and other chats are not held up")?;
    let to = |chat: &str| json!({ "channel": "telegram", "recipient": chat, "text": "Здравствуйте!" });
    let (status, answer) = stage.send(&to(BUSY_CHAT), None).await?;
    stage.say(&format!("the API answered {}: {}", status.as_u16(), short(&answer)))?;
    let wait = answer["retryAfter"].as_f64().unwrap_or_default();
    ensure!(answer["status"] == "failed" && (6.0..=7.0).contains(&wait), "a throttle was answered otherwise");
    let (_, other) = stage.send(&to("1001"), None).await?;
    ensure!(other["status"] == "sent", "another chat was held up: {other}");
    stage.say("another chat, at once: sent")
}

async fn miss_a_variable(stage: &Stage) -> anyhow::Result<()> {
    stage.heading("A variable is missing: nothing is sent, and the place in the template is named")?;
    let before = stage.taken_count().await?;
    let body = json!({ "channel": "whatsapp", "recipient": "+79991234567", "templateId": "order-ready-ru",
                       "data": { "name": "Анна", "order": { "number": 1042 } } });
    let (status, answer) = stage.send(&body, None).await?;
    let error = &answer["errors"][0];
    stage.say(&format!("the API answered {}: {}", status.as_u16(), printable(&error.to_string())))?;
    ensure!(
        status == StatusCode::UNPROCESSABLE_ENTITY
            && error["variable"] == "order.address"
            && error["template"]["line"].is_u64()
            && error["template"]["column"].is_u64(),
        "a missing variable was answered otherwise: {answer}"
    );
    ensure!(stage.taken_count().await? == before, "something was sent all the same");
    Ok(())
}

async fn repeat_a_key(stage: &Stage) -> anyhow::Result<()> {
    stage.heading("The same Idempotency-Key twice: one message, one answer")?;
    let before = stage.taken_count().await?;
    let body = json!({ "channel": "whatsapp", "recipient": "+79991234567", "templateId": "order-ready-en",
                       "data": order("Anna") });
    let (_, first) = stage.send(&body, Some("order-1042-ready")).await?;
    let (_, second) = stage.send(&body, Some("order-1042-ready")).await?;
    let taken = stage.taken_count().await? - before;
    stage.say(&format!("first   {}", short(&first)))?;
    stage.say(&format!("second  {}", short(&second)))?;
    stage.say(&format!("the simulator took {taken}"))?;
    ensure!(first["id"].is_string() && first["id"] == second["id"] && taken == 1, "a repeated key sent again");
    let other = json!({ "channel": "whatsapp", "recipient": "+79991234567", "text": "something else" });
    let (status, _) = stage.send(&other, Some("order-1042-ready")).await?;
    stage.say(&format!("the key with another body: {}", status.as_u16()))?;
    ensure!(status == StatusCode::UNPROCESSABLE_ENTITY, "a key was taken for another request");
    Ok(())
}
