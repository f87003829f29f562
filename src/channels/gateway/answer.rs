//! How the answers of a gateway are read: where its id and its code stand, and what each code means, by the settings.

use std::collections::{BTreeMap, BTreeSet};

use hyper::StatusCode;
use serde_json::Value;

use super::pattern::{Allowed, Constants, Pattern, Values};
use crate::channels::endpoint::ConfigProblem;
use crate::channels::http_client::HttpAnswer;
use crate::channels::outcomes::{Refusal, Verdict, word};
use crate::config::sms::AnswerSettings;
use crate::domain::{AccountRef, DownReason, Outcome};

/// Every other code of an answer whose status says yes.
const ANY_CODE: &str = "*";

/// The settings of `[sms.<account>.http.answer]`, checked.
pub(super) struct AnswerRules {
    /// None means any 2xx.
    accepted_status: BTreeSet<u16>,
    id: Pattern,
    error_codes: Vec<Pattern>,
    accepted_codes: BTreeSet<String>,
    codes: BTreeMap<String, Verdict>,
}

impl AnswerRules {
    pub(super) fn new(
        account: &AccountRef,
        settings: &AnswerSettings,
        constants: Constants<'_>,
    ) -> Result<Self, ConfigProblem> {
        let problem =
            |setting: &str, text: String| ConfigProblem::new(account, &format!("http.answer.{setting}"), text);
        let pointer = |setting: &str, text: &str| {
            if !text.starts_with('/') {
                return Err(problem(setting, "has to be a JSON pointer (RFC 6901) like /message/id".to_owned()));
            }
            Pattern::parse(text, constants, Allowed::Message).map_err(|text| problem(setting, text))
        };
        let mut codes = BTreeMap::new();
        for (code, meaning) in &settings.codes {
            let verdict = meaning.parse().map_err(|text| problem(&format!("codes.{code}"), text))?;
            codes.insert(code.clone(), verdict);
        }
        Ok(AnswerRules {
            accepted_status: settings.accepted_status.iter().copied().collect(),
            id: pointer("id", &settings.id)?,
            error_codes: settings
                .error_code
                .iter()
                .map(|text| pointer("error_code", text))
                .collect::<Result<_, _>>()?,
            accepted_codes: settings.accepted_codes.iter().cloned().collect(),
            codes,
        })
    }

    /// A yes is an accepted status with an id, and no code but an accepted one.
    pub(super) fn outcome(&self, answer: &HttpAnswer, values: &Values<'_>) -> Outcome {
        /// Longer than any id seen; what is longer is not one.
        const LONGEST_ID_BYTES: usize = 256;
        let body = answer.json::<Value>().unwrap_or_default();
        let code = self.code(&body, values);
        if self.says_yes(answer.status, code.as_deref())
            // A yes or no where the id should be is none.
            && let Some(id) = at(&body, &self.id, values).filter(|id| !matches!(id.as_str(), "false" | "true" | "0" | ""))
            && let Some(id) = word(&id, LONGEST_ID_BYTES)
        {
            return Outcome::Accepted { provider_message_id: id.to_owned(), note: None };
        }
        // A code that says yes, without an id: a yes that cannot be read.
        let code = code.filter(|code| !self.accepted_codes.contains(code));
        let verdict = code.as_deref().and_then(|code| self.codes.get(code)).copied();
        let verdict = verdict.or_else(|| self.by_status(answer.status, code.is_some()));
        Refusal { from_provider: code.is_some(), code, verdict, stated: None }.into_outcome(answer)
    }

    /// Whether an answer that has no id to give says that all is well.
    pub(super) fn is_fine(&self, answer: &HttpAnswer, values: &Values<'_>) -> bool {
        let body = answer.json::<Value>().unwrap_or_default();
        self.says_yes(answer.status, self.code(&body, values).as_deref())
    }

    fn says_yes(&self, status: StatusCode, code: Option<&str>) -> bool {
        let is_accepted_status = match self.accepted_status.is_empty() {
            true => status.is_success(),
            false => self.accepted_status.contains(&status.as_u16()),
        };
        is_accepted_status && code.is_none_or(|code| self.accepted_codes.contains(code))
    }

    fn code(&self, body: &Value, values: &Values<'_>) -> Option<String> {
        self.error_codes.iter().find_map(|pointer| at(body, pointer, values))
    }

    /// What a status means here, where it means anything else than everywhere.
    fn by_status(&self, status: StatusCode, has_code: bool) -> Option<Verdict> {
        match status.as_u16() {
            // A gateway's 403 is an address that is not allowed, or a key that may not send.
            401 | 403 => Some(Verdict::ChannelDown(DownReason::Auth)),
            200..=299 if has_code => self.codes.get(ANY_CODE).copied(),
            _ => None,
        }
    }
}

/// A text, a number or a truth value of the answer. What is null, or a list, is not there.
fn at(body: &Value, pointer: &Pattern, values: &Values<'_>) -> Option<String> {
    let pointer = pointer.written(values, |value| value.replace('~', "~0").replace('/', "~1").into());
    match body.pointer(&pointer)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
