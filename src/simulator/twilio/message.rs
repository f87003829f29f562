//! Checks the form of a message as Twilio does, in its words.

use super::errors::Refusal;
use super::{is_sid, segments};
use crate::simulator::record::{Message, TakenSms};
use crate::simulator::request::{Request, form_pairs};
use crate::simulator::scenario::SmsScenario;
use crate::simulator::whatsapp;

const BODY_LIMIT_CHARS: usize = 1600;
const MEDIA_LIMIT: usize = 10;
const VALIDITY_SECONDS: std::ops::RangeInclusive<u32> = 1..=36_000;

/// A message that Twilio would take.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) message: Message,
    pub(super) sms: TakenSms,
}

pub(super) fn check(account: &str, request: &Request, scenario: &SmsScenario) -> Result<Checked, Refusal> {
    // Another body than a form is one without parameters.
    let is_form = request.content_type_is("application/x-www-form-urlencoded");
    let body = if is_form { std::str::from_utf8(&request.body).unwrap_or_default() } else { "" };
    let pairs: Vec<(String, String)> = form_pairs(body).collect();
    let get = |name: &str| {
        pairs.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    let to = get("To").ok_or_else(|| Refusal::of(21604))?;
    let address = Address::of(to);
    if !address.is_phone_number() {
        let said = format!("The 'To' number {to} is not a valid phone number.");
        return Err(Refusal::new(if address.is_whatsapp { 63024 } else { 21211 }, said));
    }
    let (from, service) = (get("From"), get("MessagingServiceSid"));
    check_sender(from, service, &address, scenario)?;
    let body = get("Body");
    let media = pairs.iter().filter(|(name, _)| name == "MediaUrl").count();
    let content = get("ContentSid");
    check_content(body, media, content, get("ContentVariables"))?;
    check_options(&get, service)?;
    let (encoding, segments) = segments::count(body.unwrap_or_default());
    let sms = TakenSms {
        provider: "twilio".to_owned(),
        to: to.to_owned(),
        from: from.map(str::to_owned),
        messaging_service_sid: service.map(str::to_owned),
        encoding: encoding.as_str().to_owned(),
        segments,
        status_callback: get("StatusCallback").map(str::to_owned),
    };
    let message = Message {
        account: account.to_owned(),
        recipient: whatsapp::canonical_recipient(to),
        text: body.map(str::to_owned),
        raw: content.map(|sid| format!("{sid} {}", get("ContentVariables").unwrap_or("{}"))),
        // Only keys that are not text could fail here.
        details: serde_json::to_string(&sms).ok(),
        ..Message::default()
    };
    Ok(Checked { message, sms })
}

/// A number, a name or a short code, in one of Twilio's channels.
struct Address<'a> {
    is_whatsapp: bool,
    value: &'a str,
}

impl<'a> Address<'a> {
    fn of(text: &'a str) -> Self {
        match text.strip_prefix("whatsapp:") {
            Some(value) => Address { is_whatsapp: true, value },
            None => Address { is_whatsapp: false, value: text },
        }
    }

    /// E.164: at most 15 digits; nothing shorter than 7 is a whole international number.
    fn is_phone_number(&self) -> bool {
        self.value.strip_prefix('+').is_some_and(|digits| {
            (7..=15).contains(&digits.len())
                && !digits.starts_with('0')
                && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
    }

    fn is_short_code(&self) -> bool {
        (3..=8).contains(&self.value.len()) && self.value.bytes().all(|byte| byte.is_ascii_digit())
    }

    /// Up to eleven letters, digits and some signs, one letter at least.
    fn is_name(&self) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || " +-_&".contains(c);
        self.value.len() <= 11
            && self.value.chars().all(plain)
            && self.value.contains(|c: char| c.is_ascii_alphabetic())
    }
}

fn check_sender(
    from: Option<&str>,
    service: Option<&str>,
    to: &Address<'_>,
    scenario: &SmsScenario,
) -> Result<(), Refusal> {
    let known = |sender: &str| scenario.senders.is_empty() || scenario.senders.iter().any(|known| known == sender);
    if let Some(sid) = service
        && (!is_sid(sid, "MG") || !known(sid))
    {
        return Err(Refusal::new(21705, format!("The Messaging Service Sid {sid} is invalid.")));
    }
    let Some(from) = from else {
        return if service.is_some() { Ok(()) } else { Err(Refusal::of(21603)) };
    };
    let sender = Address::of(from);
    if !sender.is_phone_number() && (sender.is_whatsapp || !sender.is_short_code() && !sender.is_name()) {
        return Err(Refusal::new(
            21212,
            format!("The 'From' number {from} is not a valid phone number, shortcode, or alphanumeric sender ID."),
        ));
    }
    if sender.is_whatsapp != to.is_whatsapp {
        return Err(Refusal::of(21910));
    }
    if sender.value == to.value {
        return Err(Refusal::of(21266));
    }
    match known(from) {
        true => Ok(()),
        false if sender.is_phone_number() => Err(Refusal::of(21606)),
        false => Err(Refusal::of(21659)),
    }
}

fn check_content(
    body: Option<&str>,
    media: usize,
    content: Option<&str>,
    variables: Option<&str>,
) -> Result<(), Refusal> {
    if media > MEDIA_LIMIT {
        return Err(Refusal::of(21623));
    }
    if let Some(sid) = content
        && !is_sid(sid, "HX")
    {
        return Err(Refusal::of(21654));
    }
    let is_object = |json: &str| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json).is_ok();
    if variables.is_some_and(|json| content.is_none() || !is_object(json)) {
        return Err(Refusal::of(21656));
    }
    match body {
        None if media == 0 && content.is_none() => Err(Refusal::of(21602)),
        Some(body) if body.trim().is_empty() && media == 0 => Err(Refusal::of(21602)),
        Some(body) if body.chars().count() > BODY_LIMIT_CHARS => Err(Refusal::of(21617)),
        Some(_) | None => Ok(()),
    }
}

fn check_options<'a>(get: &impl Fn(&str) -> Option<&'a str>, service: Option<&str>) -> Result<(), Refusal> {
    if let Some(url) = get("StatusCallback")
        && !is_callback_url(url)
    {
        return Err(Refusal::new(21609, format!("The 'StatusCallback' URL {url} is not a valid URL.")));
    }
    if let Some(seconds) = get("ValidityPeriod")
        && !seconds.parse().is_ok_and(|seconds: u32| VALIDITY_SECONDS.contains(&seconds))
    {
        return Err(Refusal::of(21624));
    }
    if (get("ScheduleType").is_some() || get("SendAt").is_some()) && service.is_none() {
        return Err(Refusal::of(35118));
    }
    Ok(())
}

/// An absolute address by HTTP, whose host has no underscore.
fn is_callback_url(url: &str) -> bool {
    let url = url.split('#').next().unwrap_or_default();
    url.parse::<hyper::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty() && !host.contains('_'))
    })
}
