//! Meta's refusals, as data: number, HTTP status, title.
//!
//! Numbers and titles as in Meta's list of Cloud API error codes; the statuses as it gives them, or 400 where it
//! gives none.

use serde::Serialize;

use crate::simulator::answer::Answer;
use crate::simulator::chance;

const TABLE: &[(u32, u16, &str)] = &[
    (0, 401, "AuthException"),
    (1, 500, "API Unknown"),
    (2, 503, "API Service"),
    (3, 500, "API Method"),
    (4, 429, "API Too Many Calls"),
    (10, 403, "Permission Denied"),
    (33, 400, "Parameter value is not valid"),
    (100, 400, "Invalid parameter"),
    (190, 401, "Access token has expired"),
    (200, 403, "API Permission"),
    (368, 403, "Temporarily blocked for policies violations"),
    (80007, 429, "Rate limit issues"),
    (130429, 429, "Rate limit hit"),
    (130472, 400, "User's number is part of an experiment"),
    (130497, 403, "Business account is restricted from messaging users in this country"),
    (131000, 500, "Something went wrong"),
    (131005, 403, "Access denied"),
    (131008, 400, "Required parameter is missing"),
    (131009, 400, "Parameter value is not valid"),
    (131016, 503, "Service unavailable"),
    (131021, 400, "Recipient cannot be sender"),
    (131026, 400, "Message undeliverable"),
    (131030, 400, "Recipient phone number not in allowed list"),
    (131031, 403, "Account has been locked"),
    (131037, 400, "Display name not approved"),
    (131042, 400, "Business eligibility payment issue"),
    (131045, 500, "Incorrect certificate"),
    (131047, 400, "Re-engagement message"),
    (131048, 429, "Spam rate limit hit"),
    (131049, 400, "This message was not delivered to maintain healthy ecosystem engagement"),
    (131050, 400, "User has stopped receiving marketing messages from your business"),
    (131051, 400, "Unsupported message type"),
    (131052, 400, "Media download error"),
    (131053, 400, "Media upload error"),
    (131056, 429, "(Business Account, Consumer Account) pair rate limit hit"),
    (131057, 500, "Account in maintenance mode"),
    (131062, 400, "Business-scoped user id is not supported for this message"),
    (131063, 400, "Marketing templates are not allowed on this endpoint"),
    (131064, 400, "Messaging limit reached"),
    (132000, 400, "Number of parameters does not match the expected number of params"),
    (132001, 404, "Template name does not exist in the translation"),
    (132005, 400, "Translated text too long"),
    (132007, 400, "Template format character policy violated"),
    (132008, 400, "Parameter value does not match the template"),
    (132012, 400, "Parameter format does not match format in the created template"),
    (132015, 400, "Template is paused"),
    (132016, 400, "Template is disabled"),
    (132018, 400, "There's an issue with the parameters in your template"),
    (133010, 400, "Phone number not registered"),
    (135000, 400, "Generic user error"),
    (137000, 400, "Recipient identity key hash mismatch"),
];

/// One refusal on its way into an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::simulator) struct Refusal {
    pub(in crate::simulator) code: u32,
    /// In place of `(#code) title`.
    message: Option<String>,
    details: Option<String>,
    subcode: Option<u32>,
    kind: &'static str,
}

impl Refusal {
    pub(in crate::simulator) fn new(code: u32, details: impl Into<String>) -> Self {
        Refusal { code, message: None, details: Some(details.into()), subcode: None, kind: "OAuthException" }
    }

    /// A refusal by the Graph API itself, which knows no details.
    pub(in crate::simulator) fn graph(code: u32, message: impl Into<String>) -> Self {
        Refusal { code, message: Some(message.into()), details: None, subcode: None, kind: "OAuthException" }
    }

    /// What the Graph API says of an object it does not show.
    pub(in crate::simulator) fn unknown_object(verb: &str, id: &str) -> Self {
        let message = format!(
            "Unsupported {verb} request. Object with ID '{id}' does not exist, cannot be loaded due to missing \
             permissions, or does not support this operation. Please read the Graph API documentation at \
             https://developers.facebook.com/docs/graph-api"
        );
        Refusal { code: 100, message: Some(message), details: None, subcode: Some(33), kind: "GraphMethodException" }
    }

    /// A refusal that a scenario asks for.
    pub(in crate::simulator) fn scripted(code: u32) -> Self {
        Refusal::new(code, format!("{} (asked for by the scenario)", title(code).unwrap_or("Unknown")))
    }

    pub(in crate::simulator) fn into_answer(self) -> Answer {
        #[derive(Serialize)]
        struct Envelope {
            error: Body,
        }
        #[derive(Serialize)]
        struct Body {
            message: String,
            #[serde(rename = "type")]
            kind: &'static str,
            code: u32,
            #[serde(skip_serializing_if = "Option::is_none")]
            error_subcode: Option<u32>,
            #[serde(skip_serializing_if = "Option::is_none")]
            error_data: Option<ErrorData>,
            fbtrace_id: String,
        }
        #[derive(Serialize)]
        struct ErrorData {
            messaging_product: &'static str,
            details: String,
        }
        let code = self.code;
        let message = self.message.unwrap_or_else(|| format!("(#{code}) {}", title(code).unwrap_or("Unknown")));
        let trace = chance::mixed(chance::text_hash(self.details.as_deref().unwrap_or(&message)));
        let error = Body {
            message,
            kind: self.kind,
            code,
            error_subcode: self.subcode,
            error_data: self.details.map(|details| ErrorData { messaging_product: "whatsapp", details }),
            fbtrace_id: format!("A{trace:016x}Vst"),
        };
        Answer::json(status(code), &Envelope { error })
    }
}

/// A failure as a webhook tells it.
pub(in crate::simulator) fn in_webhook(code: u32) -> serde_json::Value {
    let title = title(code).unwrap_or("Unknown");
    serde_json::json!({
        "code": code,
        "title": title,
        "message": title,
        "error_data": { "details": format!("{title} (asked for by the scenario)") },
        "href": "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
    })
}

fn row(code: u32) -> Option<&'static (u32, u16, &'static str)> {
    TABLE.binary_search_by_key(&code, |row| row.0).ok().map(|index| &TABLE[index])
}

fn title(code: u32) -> Option<&'static str> {
    row(code).map(|row| row.2)
}

fn status(code: u32) -> u16 {
    row(code).map_or(400, |row| row.1)
}

/// A code of the table, from its text in a scenario.
pub(in crate::simulator) fn parse_code(code: &str) -> Option<u32> {
    code.parse().ok().filter(|code| row(*code).is_some())
}

/// All codes, for a message that says what is known.
pub(in crate::simulator) fn known_codes() -> String {
    TABLE.iter().map(|row| row.0.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_for_its_search() {
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn a_refusal_has_metas_shape() {
        let answer = Refusal::new(131026, "Message Undeliverable.").into_answer();
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(answer.status, 400);
        assert_eq!(body["error"]["message"], "(#131026) Message undeliverable");
        assert_eq!(body["error"]["type"], "OAuthException");
        assert_eq!(body["error"]["error_data"]["messaging_product"], "whatsapp");
        assert_eq!(body["error"]["error_data"]["details"], "Message Undeliverable.");
    }
}
