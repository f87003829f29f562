//! What a day looks like: messages that arrive, and the ways they do not.

use anyhow::ensure;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::mail;
use super::stage::{BUSY_CHAT, Stage, UNKNOWN_NUMBER};
use crate::cli::client::{counted, field, printable};
use crate::cli::notifications::in_words;

/// Sample files, as they lie in `assets/`.
const RECORDS: [(&str, &str, &str); 4] = [
    ("companies", "companies.ndjson", include_str!("../../../assets/records/companies.ndjson")),
    ("contacts", "contacts.csv", include_str!("../../../assets/records/contacts.csv")),
    ("deals", "deals.ndjson", include_str!("../../../assets/records/deals.ndjson")),
    ("leads", "leads.csv", include_str!("../../../assets/records/leads.csv")),
];
const TEMPLATES: [(&str, &str); 3] = [
    ("templates/new-lead-alert.toml", include_str!("../../../assets/templates/new-lead-alert.toml")),
    ("templates/order-ready.toml", include_str!("../../../assets/templates/order-ready.toml")),
    ("templates/promo-campaign.toml", include_str!("../../../assets/templates/promo-campaign.toml")),
];

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    import_records(stage).await?;
    apply_templates(stage).await?;
    preview(stage).await?;
    send_by_each_channel(stage).await?;
    meet_a_refusal(stage).await?;
    meet_a_throttle(stage).await?;
    miss_a_variable(stage).await?;
    repeat_a_key(stage).await
}

async fn import_records(stage: &Stage) -> anyhow::Result<()> {
    stage.heading("The CRM's records, Russian and English: what is wrong is named by its line, the rest is taken")?;
    for (kind, file, content) in RECORDS {
        stage.lay_out(file, content)?;
        // One contact's phone number is none.
        let code = i32::from(kind == "contacts");
        let said = stage.run(&["import", kind, file], code).await?;
        ensure!(
            code == 0 || said.contains("line 10") || said.contains("1 rejected"),
            "the bad row was not named: {said}"
        );
    }
    stage.heading("The same file again changes nothing")?;
    let (kind, file, _) = RECORDS[1];
    stage.run(&["import", kind, file], 1).await?;
    let anna = stage.api.get("/v1/contacts/c-anna").await?;
    ensure!(anna["phone"] == "+79991234567" && anna["locale"] == "ru", "the record has another form: {anna}");
    ensure!(anna["_meta"]["createdAt"] == anna["_meta"]["updatedAt"], "the second import changed a record: {anna}");
    Ok(())
}

async fn apply_templates(stage: &Stage) -> anyhow::Result<()> {
    stage.heading("Templates, kept as files: all are checked before the first is saved")?;
    for (file, content) in TEMPLATES {
        stage.lay_out(file, content)?;
    }
    stage.say("$ vestnik templates apply templates --yes")?;
    let said = stage.run_quietly(&["templates", "apply", "templates", "--yes"], 0).await?;
    // All of each is new: the difference is the files, and only its end is shown.
    stage.say(&said.lines().rev().take(TEMPLATES.len()).collect::<Vec<_>>().join("\n"))?;
    stage.run(&["templates", "apply", "templates", "--check"], 0).await?;
    Ok(())
}

async fn preview(stage: &Stage) -> anyhow::Result<()> {
    stage.heading("A preview on a deal: its contact and manager come along, in the contact's language")?;
    let said = stage.run(&["preview", "order-ready", "--deal", "d-1042"], 0).await?;
    let said = said.replace('\u{a0}', " ");
    ensure!(said.contains("3 товара на 12 500,50 ₽"), "money or plurals came out otherwise: {said}");
    let said = stage.run(&["preview", "order-ready", "--deal", "d-1043", "--channel", "sms"], 0).await?;
    ensure!(said.contains("GSM-7, 1 part"), "the SMS was measured otherwise: {said}");
    Ok(())
}

async fn send_by_each_channel(stage: &Stage) -> anyhow::Result<()> {
    stage.heading("WhatsApp, to the deal's contact: what leaves is what was rendered, and the ledger knows it")?;
    let body = json!({ "channel": "whatsapp", "templateId": "order-ready", "context": { "dealId": "d-1042" } });
    let taken = send_and_show(stage, &body).await?;
    ensure!(parameters(&taken) == ["Анна Смирнова", "1042", "Невский пр., 28"], "other parameters left: {taken}");

    stage.heading("WhatsApp, another deal: its contact reads English")?;
    let body = json!({ "channel": "whatsapp", "templateId": "order-ready", "context": { "dealId": "d-1043" } });
    let taken = send_and_show(stage, &body).await?;
    ensure!(taken["template"]["language"]["code"] == "en", "another language left: {taken}");

    stage.heading("Telegram, to the manager of a lead: the markup is the template's, what people typed stays text")?;
    let body = json!({ "channel": "telegram", "recipient": "2001", "templateId": "new-lead-alert",
                       "context": { "leadId": 42 }, "data": { "lead": { "name": "Анна <Смирнова>" } } });
    let taken = send_and_show(stage, &body).await?;
    ensure!(
        field(&taken, "raw").contains("Анна &lt;Смирнова&gt;") && field(&taken, "text").contains("Анна <Смирнова>"),
        "a value was not escaped: {taken}"
    );

    stage.heading("SMS, in its own short words: measured before it is sent, for each part is billed")?;
    let body = json!({ "channel": "sms", "templateId": "order-ready", "context": { "dealId": "d-1042" } });
    let taken = send_and_show(stage, &body).await?;
    ensure!(
        taken["text"] == "Заказ №1042 готов: Невский пр., 28" && taken["sms"]["segments"] == 1,
        "another SMS left: {taken}"
    );

    stage.heading("Email, as a mail client shows it: the text was made of the template's HTML, which goes along")?;
    let body = json!({ "channel": "email", "templateId": "order-ready", "context": { "dealId": "d-1042" } });
    let taken = send_and_show(stage, &body).await?;
    ensure!(
        taken["subject"] == "Заказ №1042 готов"
            && field(&taken, "html").contains("style=\"")
            && taken["email"]["attachments"][0]["name"] == "Заказ 1042, как забрать.txt",
        "another email left: {taken}"
    );
    Ok(())
}

/// Values of the approved template that left.
fn parameters(taken: &Value) -> Vec<String> {
    let parameters = taken["template"]["components"][0]["parameters"].as_array().into_iter().flatten();
    parameters.map(|parameter| field(parameter, "text")).collect()
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
        field(&row["attempts"][0], "providerMessageId").ends_with(&field(&taken, "providerMessageId")),
        "the ledger names another message than the simulator took"
    );
    Ok(taken)
}

/// What the person reads; of an approved template, its name and values, for only Meta knows the rest.
fn as_read(taken: &Value) -> String {
    if taken["channel"] == "email"
        && let Ok(taken) = serde_json::from_value(taken.clone())
    {
        return mail::as_read(&taken);
    }
    let indent = |text: &str| text.lines().map(|line| format!("  │ {}\n", printable(line))).collect::<String>();
    if let Some(text) = taken["text"].as_str() {
        let sms = &taken["sms"];
        let size =
            sms["segments"].as_u64().map(|parts| format!("  {}, {}\n", field(sms, "encoding"), counted(parts, "part")));
        return indent(text) + &size.unwrap_or_default();
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
    let body = json!({ "channel": "whatsapp", "recipient": "+79991234567", "templateId": "order-ready",
                       "data": { "contact": { "name": "Анна" }, "deal": { "number": 1042 } } });
    let (status, answer) = stage.send(&body, None).await?;
    let error = &answer["errors"][0];
    stage.say(&format!("the API answered {}: {}", status.as_u16(), printable(&error.to_string())))?;
    ensure!(
        status == StatusCode::UNPROCESSABLE_ENTITY
            && error["variable"] == "deal.address"
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
    let body = json!({ "channel": "whatsapp", "templateId": "order-ready", "context": { "dealId": "d-1042" } });
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
