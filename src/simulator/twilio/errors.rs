//! Twilio's refusals, as data: number, HTTP status, message.
//!
//! Numbers and titles as in Twilio's error dictionary; where it gives no HTTP status, 400.

use serde_json::json;

use crate::simulator::answer::Answer;

const TABLE: &[(u32, u16, &str)] = &[
    (10001, 403, "Account is not active"),
    (14107, 429, "Send rate to this number exceeded"),
    (20003, 401, "Authenticate"),
    (20005, 403, "Account is suspended"),
    (20404, 404, "The requested resource was not found"),
    (20429, 429, "Too Many Requests"),
    (20500, 500, "Internal Server Error"),
    (21211, 400, "Invalid 'To' Phone Number"),
    (21212, 400, "Invalid 'From' Number"),
    (21214, 400, "'To' phone number cannot be reached"),
    (21266, 400, "'To' and 'From' number cannot be the same"),
    (21408, 403, "Permission to send an SMS has not been enabled for the region indicated by the 'To' number"),
    (21602, 400, "Message body is required."),
    (21603, 400, "A 'From' phone number is required."),
    (21604, 400, "A 'To' phone number is required."),
    (21606, 400, "The 'From' phone number provided is not a valid message-capable Twilio phone number"),
    (21608, 400, "The number is unverified. Trial accounts cannot send messages to unverified numbers"),
    (21609, 400, "Invalid 'StatusCallback' URL"),
    (21610, 400, "Attempt to send to unsubscribed recipient"),
    (21611, 429, "This 'From' number has exceeded the maximum number of queued messages"),
    (21612, 400, "Message cannot be sent with the current combination of 'To' and/or 'From' parameters"),
    (21614, 400, "'To' number is not a valid mobile number"),
    (21617, 400, "The concatenated message body exceeds the 1600 character limit."),
    (21620, 400, "Invalid media URL(s)"),
    (21623, 400, "Number of media files exceeds allowed limit"),
    (21624, 400, "Invalid validity period value"),
    (21635, 400, "'To' number cannot be a landline"),
    (21654, 400, "ContentSid is not valid"),
    (21656, 400, "The ContentVariables parameter is invalid."),
    (21659, 400, "'From' is not a Twilio phone number or short code"),
    (21660, 400, "Mismatch between the 'From' number and the account"),
    (21661, 400, "'From' number is not SMS-capable"),
    (21701, 400, "The Messaging Service does not exist"),
    (21703, 400, "The Messaging Service does not have a phone number available to send a message"),
    (21704, 400, "The Messaging Service contains no phone numbers"),
    (21705, 400, "The Messaging Service Sid is invalid"),
    (21730, 503, "The system is under maintenance"),
    (21910, 400, "Invalid 'From' and 'To' pair. 'From' and 'To' should be of the same channel"),
    (30001, 429, "Queue overflow"),
    (30002, 403, "Account suspended"),
    (30022, 429, "US A2P 10DLC - Rate limits exceeded"),
    (30034, 400, "US A2P 10DLC - Message from an unregistered number"),
    (30450, 403, "Message delivery blocked"),
    (35118, 400, "MessagingServiceSid is required to schedule a message"),
    (60728, 429, "Hourly message limit exceeded"),
    (63016, 400, "Failed to send freeform message because you are outside the allowed window"),
    (63017, 429, "Account message rate exceeded"),
    (63018, 429, "Rate limit exceeded for channel"),
    (63024, 400, "Invalid message recipient"),
    (63038, 429, "Account exceeded the daily messages limit"),
];

/// What callbacks say later, and no answer does.
const FAILURES: &[(u32, &str)] = &[
    (30003, "Unreachable destination handset"),
    (30004, "Message blocked"),
    (30005, "Unknown destination handset"),
    (30006, "Landline or unreachable carrier"),
    (30007, "Message filtered"),
    (30008, "Unknown error"),
    (30032, "Toll-free number has not been verified"),
    (30036, "Validity period expired"),
];

/// What fails unless the scenario says how.
pub(super) const UNREACHABLE: u32 = 30003;

/// One refusal on its way into an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::simulator) struct Refusal {
    pub(in crate::simulator) code: u32,
    message: String,
}

impl Refusal {
    /// In the table's words.
    pub(in crate::simulator) fn of(code: u32) -> Self {
        Refusal::new(code, row(code).map_or("Unknown", |row| row.2))
    }

    pub(super) fn new(code: u32, message: impl Into<String>) -> Self {
        Refusal { code, message: message.into() }
    }

    pub(super) fn into_answer(self) -> Answer {
        let (code, status) = (self.code, row(self.code).map_or(400, |row| row.1));
        let more_info = format!("https://www.twilio.com/docs/errors/{code}");
        let body = json!({ "code": code, "message": self.message, "more_info": more_info, "status": status });
        Answer::json(status, &body)
    }
}

fn row(code: u32) -> Option<&'static (u32, u16, &'static str)> {
    TABLE.binary_search_by_key(&code, |row| row.0).ok().map(|index| &TABLE[index])
}

/// A code of the table, from its text in a scenario.
pub(super) fn parse_code(code: &str) -> Option<u32> {
    code.parse().ok().filter(|code| row(*code).is_some())
}

/// The text of a failure that comes later.
pub(super) fn failure(code: u32) -> Option<&'static str> {
    let later = FAILURES.iter().find(|(known, _)| *known == code).map(|(_, text)| *text);
    later.or_else(|| row(code).map(|row| row.2))
}

/// All codes that an answer may have, for a message that says what is known.
pub(super) fn known_codes() -> String {
    TABLE.iter().map(|row| row.0.to_string()).collect::<Vec<_>>().join(", ")
}

/// All codes that only callbacks have.
pub(super) fn known_failures() -> String {
    FAILURES.iter().map(|(code, _)| code.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_for_its_search() {
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn a_refusal_has_twilios_shape() {
        let answer = Refusal::of(21610).into_answer();
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let expected = json!({
            "code": 21610, "message": "Attempt to send to unsubscribed recipient", "status": 400,
            "more_info": "https://www.twilio.com/docs/errors/21610",
        });
        assert_eq!((answer.status, body), (400, expected));
    }
}
