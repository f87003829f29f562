//! A scenario that changes with time.
//!
//! A phase holds from its time until the next phase's. What it names replaces what the scenario says (objects are
//! merged, as in RFC 7396; lists are replaced); what it does not name is as in the scenario itself, not as in the
//! phase before: `{ "afterMs": 60000 }` ends all troubles.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Scenario, ScenarioError};

/// What is different from a time on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Phase {
    /// Since the scenario was set.
    pub after_ms: u64,
    /// Parts of a scenario.
    #[serde(flatten)]
    pub changes: Map<String, Value>,
}

/// A scenario laid out in time.
#[derive(Debug)]
pub(in crate::simulator) struct Timeline {
    /// As it was set.
    whole: Arc<Scenario>,
    since: Timestamp,
    /// In the order of their times.
    phases: Vec<(Duration, Arc<Scenario>)>,
}

impl Timeline {
    /// `scenario` has been checked.
    pub(in crate::simulator) fn new(scenario: Scenario, since: Timestamp) -> Timeline {
        let laid_out = |(index, phase): (usize, &Phase)| {
            let scenario = merged(&scenario, index).ok()?;
            Some((Duration::from_millis(phase.after_ms), Arc::new(scenario)))
        };
        let phases = scenario.phases.iter().enumerate().filter_map(laid_out).collect();
        Timeline { whole: Arc::new(scenario), since, phases }
    }

    pub(in crate::simulator) fn whole(&self) -> &Arc<Scenario> {
        &self.whole
    }

    /// What holds now.
    pub(in crate::simulator) fn at(&self, now: Timestamp) -> &Arc<Scenario> {
        if self.phases.is_empty() {
            return &self.whole;
        }
        let passed = Duration::try_from(now.duration_since(self.since)).unwrap_or_default();
        let begun = self.phases.iter().rev().find(|(after, _)| *after <= passed);
        begun.map_or(&self.whole, |(_, scenario)| scenario)
    }
}

/// Every phase must be a scenario of its own, and later than the one before.
pub(super) fn check(scenario: &Scenario) -> Result<(), ScenarioError> {
    for (index, phase) in scenario.phases.iter().enumerate() {
        if index > 0 && phase.after_ms <= scenario.phases[index - 1].after_ms {
            return Err(ScenarioError::new(format!("phases[{index}].afterMs"), "expected a later time than before"));
        }
        for (part, change) in &phase.changes {
            if matches!(part.as_str(), "phases" | "seed") {
                return Err(ScenarioError::new(format!("phases[{index}].{part}"), "a phase has none of its own"));
            }
            if change.get("next").is_some() {
                let detail = "only in the scenario itself, or by `POST /_sim/next`";
                return Err(ScenarioError::new(format!("phases[{index}].{part}.next"), detail));
            }
        }
        merged(scenario, index)?;
    }
    Ok(())
}

fn merged(scenario: &Scenario, index: usize) -> Result<Scenario, ScenarioError> {
    let place = |path: String| format!("phases[{index}].{path}");
    let base = Scenario { phases: Vec::new(), ..scenario.clone() };
    let mut value =
        serde_json::to_value(base).map_err(|error| ScenarioError::new(place(String::new()), error.to_string()))?;
    merge(&mut value, Value::Object(scenario.phases[index].changes.clone()));
    let merged: Scenario = serde_path_to_error::deserialize(value)
        .map_err(|error| ScenarioError::new(place(error.path().to_string()), error.inner().to_string()))?;
    merged.checked().map_err(|error| ScenarioError::new(place(error.path), error.detail))
}

/// RFC 7396.
fn merge(target: &mut Value, change: Value) {
    match change {
        Value::Object(changes) => {
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            let Value::Object(fields) = target else { return };
            for (name, change) in changes {
                if change.is_null() {
                    fields.remove(&name);
                } else {
                    merge(fields.entry(name).or_insert(Value::Null), change);
                }
            }
        }
        other => *target = other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_holds_until_the_next_and_leaves_nothing_behind() {
        let json = br#"{
            "whatsapp": { "latencyMs": 5, "recipients": { "79990000001": { "ok": true } } },
            "phases": [
                { "afterMs": 1000, "whatsapp": { "errors": [{ "code": 131016, "share": 1 }] } },
                { "afterMs": 2000, "whatsapp": { "latencyMs": 9 } },
                { "afterMs": 3000 }
            ] }"#;
        let since = Timestamp::from_second(1_700_000_000).expect("a time");
        let timeline = Timeline::new(Scenario::parse(json).expect("a scenario"), since);
        let at = |ms: i64| {
            let now = since + jiff::SignedDuration::from_millis(ms);
            let whatsapp = &timeline.at(now).whatsapp;
            assert_eq!(whatsapp.recipients.len(), 1, "what a phase does not name stays");
            (whatsapp.errors.len(), whatsapp.latency_ms.at(0).as_millis())
        };
        assert_eq!([at(0), at(999), at(1000), at(1999)], [(0, 5), (0, 5), (1, 5), (1, 5)]);
        assert_eq!([at(2000), at(3000), at(9_000_000)], [(0, 9), (0, 5), (0, 5)]);
    }
}
