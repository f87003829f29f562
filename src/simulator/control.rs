//! Setting and reading the simulator over HTTP: everything under `/_sim/`.
//!
//! | request | does |
//! | --- | --- |
//! | `GET /_sim/health` | says that it runs |
//! | `GET`, `PUT /_sim/scenario` | shows or replaces the scenario; `next` shows what is still queued |
//! | `POST /_sim/next` | queues outcomes: a rule with its `channel`, or a list of them |
//! | `POST /_sim/reset` | as freshly started; `{"seed": n}` sets another seed |
//! | `GET /_sim/taken?after=&limit=&channel=&recipient=&search=` | a page of the record; `newest=true` turns it round |
//! | `GET /_sim/taken/{n}` | one entry |
//! | `GET /_sim/stats` | the figures |
//!
//! Wrong input is 400 with `{"error", "path"}` and changes nothing.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::Answer;
use super::record::{Taken, TakenQuery};
use super::request::{Method, Request, form_pairs};
use super::scenario::{Rule, Scenario, ScenarioError, canonical_recipient, parse_json};
use super::stage::Stage;
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
        (Method::Get, _) if what.starts_with("taken/") => {
            let n = what.trim_start_matches("taken/").parse().ok();
            match n.and_then(|n| stage.record.get(n)) {
                Some(taken) => Ok(Answer::json(200, &taken)),
                None => return Answer::json(404, &json!({ "error": "no such entry, or not kept any more" })),
            }
        }
        (_, "health" | "scenario" | "next" | "reset" | "taken" | "stats") => {
            return Answer::json(405, &json!({ "error": "not with this method" }));
        }
        _ => return Answer::json(404, &json!({ "error": format!("nothing is at {}", request.path()) })),
    };
    answer.unwrap_or_else(|error| Answer::json(400, &json!({ "error": error.detail, "path": error.path })))
}

fn scenario_with_queue(stage: &Stage) -> Scenario {
    let mut scenario = Scenario::clone(&stage.whole_scenario());
    for stand in stage.stands() {
        *scenario.next_mut(stand.channel) = stand.turns().queued();
    }
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
        stage.stand(channel).turns().enqueue(rule);
    }
    Ok(Answer::json(200, &json!({ "queued": queued })))
}

fn next_rule(index: usize, mut value: Value) -> Result<(Channel, Rule), ScenarioError> {
    let path = format!("[{index}]");
    let channel = value.as_object_mut().and_then(|fields| fields.remove("channel"));
    let mut rule: Rule = serde_path_to_error::deserialize(value)
        .map_err(|error| ScenarioError::new(format!("{path}.{}", error.path()), error.inner().to_string()))?;
    let channel: Channel = channel
        .as_ref()
        .and_then(|channel| channel.as_str()?.parse().ok())
        .ok_or_else(|| ScenarioError::new(format!("{path}.channel"), "expected whatsapp, telegram, sms or email"))?;
    rule.recipient = rule.recipient.as_deref().map(|to| canonical_recipient(channel, to));
    rule.check(&path, channel)?;
    Ok((channel, rule))
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
    let mut newest = false;
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
            "recipient" => wanted.recipient = Some(value.trim_start_matches(['+', ' ']).to_lowercase()),
            "search" => wanted.search = Some(value).filter(|value| !value.is_empty()),
            "newest" => newest = value == "true",
            _ => return Err(mistake("expected after, limit, channel, recipient, search or newest".to_owned())),
        }
    }
    #[derive(Serialize)]
    struct Page {
        items: Vec<Taken>,
        /// To go on after; null at the end.
        next: Option<u64>,
    }
    let (items, next) = if newest { (stage.record.newest(&wanted), None) } else { stage.record.page(&wanted) };
    Ok(Answer::json(200, &Page { items, next }))
}

fn stats(stage: &Stage) -> Answer {
    let figures: Vec<_> = stage.stands().iter().map(|stand| (stand.channel, stand.figures.snapshot())).collect();
    let channels: serde_json::Map<String, Value> =
        figures.iter().map(|(channel, figures)| (channel.to_string(), json!(figures))).collect();
    Answer::json(
        200,
        &json!({
            "requests": figures.iter().map(|(_, figures)| figures.requests).sum::<u64>(),
            "taken": stage.record.len(),
            "kept": stage.record.len() - stage.record.gone(),
            "channels": channels,
            "receipts": stage.receipts.figures(),
        }),
    )
}
