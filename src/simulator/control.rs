//! Setting and reading the simulator over HTTP: everything under `/_sim/`.
//!
//! | request | does |
//! | --- | --- |
//! | `GET /_sim/health` | says that it runs |
//! | `GET`, `PUT /_sim/scenario` | shows or replaces the scenario; `next` shows what is still queued |
//! | `POST /_sim/next` | queues outcomes: a rule with its `channel`, or a list of them |
//! | `POST /_sim/reset` | as freshly started; `{"seed": n}` sets another seed |
//! | `GET /_sim/taken?after=&limit=&channel=&recipient=` | a page of the record |
//! | `GET /_sim/stats` | the figures |
//!
//! Wrong input is 400 with `{"error", "path"}` and changes nothing.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::Answer;
use super::record::{Taken, TakenQuery};
use super::request::{Method, Request, form_pairs};
use super::scenario::{Rule, Scenario, ScenarioError, parse_json};
use super::stage::Stage;
use super::{telegram, whatsapp};
use crate::domain::Channel;

const PREFIX: &str = "/_sim/";
const TAKEN_LIMIT: usize = 1_000;
const TAKEN_LIMIT_MOST: usize = 10_000;

pub(super) fn owns(path: &str) -> bool {
    path.starts_with(PREFIX)
}

pub(super) fn answer(stage: &Stage, request: &Request) -> Answer {
    let what = request.path().strip_prefix(PREFIX).unwrap_or_default();
    let answer = match (request.method, what) {
        (Method::Get, "health") => Ok(Answer::json(200, &json!({ "status": "ok", "seed": stage.seed() }))),
        (Method::Get, "scenario") => Ok(Answer::json(200, &scenario_with_queue(stage))),
        (Method::Put, "scenario") => Scenario::parse(&request.body).map(|scenario| {
            stage.set_scenario(scenario);
            Answer::json(200, &scenario_with_queue(stage))
        }),
        (Method::Post, "next") => queue(stage, &request.body),
        (Method::Post, "reset") => reset(stage, &request.body),
        (Method::Get, "taken") => taken(stage, request.query()),
        (Method::Get, "stats") => Ok(stats(stage)),
        (_, "health" | "scenario" | "next" | "reset" | "taken" | "stats") => {
            return Answer::json(405, &json!({ "error": "not with this method" }));
        }
        _ => return Answer::json(404, &json!({ "error": format!("nothing is at {}", request.path()) })),
    };
    answer.unwrap_or_else(|error| Answer::json(400, &json!({ "error": error.detail, "path": error.path })))
}

fn scenario_with_queue(stage: &Stage) -> Scenario {
    let mut scenario = Scenario::clone(&stage.scenario());
    scenario.whatsapp.next = stage.whatsapp().turns().queued();
    scenario.telegram.next = stage.telegram().turns().queued();
    scenario
}

fn queue(stage: &Stage, body: &[u8]) -> Result<Answer, ScenarioError> {
    let listed = match parse_json(body)? {
        Value::Array(listed) => listed,
        one => vec![one],
    };
    // All are checked before the first is queued.
    let rules: Vec<_> =
        listed.into_iter().enumerate().map(|(index, value)| next_rule(index, value)).collect::<Result<_, _>>()?;
    let queued = rules.len();
    for (channel, rule) in rules {
        let stand = if channel == Channel::WhatsApp { stage.whatsapp() } else { stage.telegram() };
        stand.turns().enqueue(rule);
    }
    Ok(Answer::json(200, &json!({ "queued": queued })))
}

fn next_rule(index: usize, mut value: Value) -> Result<(Channel, Rule), ScenarioError> {
    let path = format!("[{index}]");
    let channel = value.as_object_mut().and_then(|fields| fields.remove("channel"));
    let mut rule: Rule = serde_path_to_error::deserialize(value)
        .map_err(|error| ScenarioError::new(format!("{path}.{}", error.path()), error.inner().to_string()))?;
    match channel.as_ref().and_then(Value::as_str) {
        Some("whatsapp") => {
            rule.recipient = rule.recipient.as_deref().map(whatsapp::canonical_recipient);
            rule.check(&path, whatsapp::check_error_code)?;
            Ok((Channel::WhatsApp, rule))
        }
        Some("telegram") => {
            rule.check(&path, telegram::check_error_code)?;
            Ok((Channel::Telegram, rule))
        }
        Some(_) | None => Err(ScenarioError::new(format!("{path}.channel"), "expected `whatsapp` or `telegram`")),
    }
}

fn reset(stage: &Stage, body: &[u8]) -> Result<Answer, ScenarioError> {
    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Reset {
        seed: Option<u64>,
    }
    let reset: Reset = if body.is_empty() { Reset::default() } else { parse_json(body)? };
    stage.reset(reset.seed);
    Ok(Answer::json(200, &json!({ "seed": stage.seed() })))
}

fn taken(stage: &Stage, query: &str) -> Result<Answer, ScenarioError> {
    let mut wanted = TakenQuery { limit: TAKEN_LIMIT, ..TakenQuery::default() };
    for (name, value) in form_pairs(query) {
        let mistake = |detail: String| ScenarioError::new(name.as_str(), detail);
        match name.as_str() {
            "after" => {
                wanted.after = value.parse().map_err(|_| mistake("expected a number from the record".to_owned()))?;
            }
            "limit" => {
                wanted.limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=TAKEN_LIMIT_MOST).contains(limit))
                    .ok_or_else(|| mistake(format!("expected 1 to {TAKEN_LIMIT_MOST}")))?;
            }
            "channel" => wanted.channel = Some(value.parse().map_err(|error| mistake(format!("{error}")))?),
            // A plus sign is how people write numbers and how forms write spaces; no recipient in the record has one.
            "recipient" => wanted.recipient = Some(value.trim_start_matches(['+', ' ']).to_owned()),
            _ => return Err(mistake("expected after, limit, channel or recipient".to_owned())),
        }
    }
    #[derive(Serialize)]
    struct Page {
        items: Vec<Taken>,
        /// To go on after; null at the end.
        next: Option<u64>,
    }
    let (items, next) = stage.record.page(&wanted);
    Ok(Answer::json(200, &Page { items, next }))
}

fn stats(stage: &Stage) -> Answer {
    let (whatsapp, telegram) = (stage.whatsapp().figures.snapshot(), stage.telegram().figures.snapshot());
    Answer::json(
        200,
        &json!({
            "requests": whatsapp.requests + telegram.requests,
            "taken": stage.record.len(),
            "channels": { "whatsapp": whatsapp, "telegram": telegram },
        }),
    )
}
