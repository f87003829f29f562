//! Addresses, parsed once and valid ever after.

use std::fmt;
use std::str::FromStr as _;

use super::Channel;

/// Whom a message goes to, in the form its channel understands.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Recipient {
    Phone(PhoneNumber),
    Chat(ChatId),
    Email(EmailAddress),
}

/// Why a text is not an address of its channel. Says what was expected, never repeats the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    #[error("not a valid phone number: give it with its country code, like +7 999 123-45-67")]
    Phone,
    #[error("not a Telegram chat: give the numeric chat id, or @name of a public channel or group")]
    Chat,
    #[error("not an email address: give the bare address, like anna@example.com")]
    Email,
}

impl Recipient {
    /// Reads an address as people write it. `region` (`RU`, `DE`, …) is where a phone number without a country code
    /// is taken to be from.
    pub fn parse(
        channel: Channel,
        text: &str,
        region: Option<phonenumber::country::Id>,
    ) -> Result<Self, RecipientError> {
        match channel {
            Channel::WhatsApp | Channel::Sms => PhoneNumber::parse(text, region).map(Recipient::Phone),
            Channel::Telegram => ChatId::parse(text).map(Recipient::Chat),
            Channel::Email => EmailAddress::parse(text).map(Recipient::Email),
        }
    }

    /// Reads an address that was parsed once and kept as its [`Display`](fmt::Display) says it.
    pub fn kept(channel: Channel, text: &str) -> Result<Self, RecipientError> {
        match channel {
            // What the numbering plans say of it was asked when it came in: that costs more than all else here.
            Channel::WhatsApp | Channel::Sms if is_e164(text) => Ok(Recipient::Phone(PhoneNumber(text.to_owned()))),
            _ => Self::parse(channel, text, None),
        }
    }

    /// Enough to recognise it, not enough to use it: for logs.
    pub fn masked(&self) -> String {
        let whole = self.to_string();
        let shown = whole.chars().rev().take(2).collect::<Vec<_>>();
        format!("…{}", shown.into_iter().rev().collect::<String>())
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recipient::Phone(phone) => f.write_str(phone.as_str()),
            Recipient::Chat(chat) => chat.fmt(f),
            Recipient::Email(email) => f.write_str(email.as_str()),
        }
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

/// Whether it is written as E.164 wants it (ITU-T E.164 §6: at most 15 digits).
fn is_e164(text: &str) -> bool {
    text.strip_prefix('+')
        .is_some_and(|digits| (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A phone number in E.164: `+` and 7 to 15 digits, valid by its country's numbering plan.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PhoneNumber(String);

impl PhoneNumber {
    pub fn parse(text: &str, region: Option<phonenumber::country::Id>) -> Result<Self, RecipientError> {
        /// Longer than any way to write a number; keeps the parser from chewing on junk.
        const LONGEST_INPUT_BYTES: usize = 64;
        let text = text.trim();
        if text.len() > LONGEST_INPUT_BYTES {
            return Err(RecipientError::Phone);
        }
        let number = phonenumber::parse(region, text).map_err(|_| RecipientError::Phone)?;
        // `parse` takes short junk such as `12345`; only `is_valid` knows the numbering plans.
        if !phonenumber::is_valid(&number) || number.extension().is_some() {
            return Err(RecipientError::Phone);
        }
        Ok(PhoneNumber(number.format().mode(phonenumber::Mode::E164).to_string()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number without its `+`, as WhatsApp wants it.
    pub fn digits(&self) -> &str {
        &self.0[1..]
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "…{}", &self.0[self.0.len() - 2..])
    }
}

/// A Telegram chat: a signed 64-bit id (groups are negative), or `@name` of a public channel or group.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum ChatId {
    Numeric(i64),
    Name(String),
}

impl ChatId {
    pub fn parse(text: &str) -> Result<Self, RecipientError> {
        let text = text.trim();
        if let Some(name) = text.strip_prefix('@') {
            // Telegram's own rule: 4 to 32 of a-z, 0-9 and underscores, starting with a letter.
            let starts_well = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if starts_well && plain && (4..=32).contains(&name.len()) {
                return Ok(ChatId::Name(format!("@{name}")));
            }
            return Err(RecipientError::Chat);
        }
        match text.parse::<i64>() {
            Ok(id) if id != 0 && !text.starts_with('+') => Ok(ChatId::Numeric(id)),
            Ok(_) | Err(_) => Err(RecipientError::Chat),
        }
    }
}

impl fmt::Display for ChatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChatId::Numeric(id) => id.fmt(f),
            ChatId::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Debug for ChatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChatId(…)")
    }
}

/// An email address without display text: `anna@example.com`. The domain is kept as ASCII (IDNA, RFC 5891) in small
/// letters and has a dot; the part before the `@` is kept as written.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EmailAddress(String);

impl EmailAddress {
    pub fn parse(text: &str) -> Result<Self, RecipientError> {
        /// RFC 5321, 4.5.3.1: a path is 256 bytes with its brackets, a local part 64.
        const LONGEST_BYTES: usize = 254;
        let text = text.trim();
        // The library refuses most of these, but a header must never depend on it.
        let hostile = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>' | ',' | ';' | '"');
        if text.len() > LONGEST_BYTES || text.contains(hostile) {
            return Err(RecipientError::Email);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(RecipientError::Email)?;
        let domain = idna::domain_to_ascii_strict(domain).map_err(|_| RecipientError::Email)?;
        if !domain.contains('.') {
            return Err(RecipientError::Email);
        }
        let address = format!("{local}@{domain}");
        email_address::EmailAddress::from_str(&address).map_err(|_| RecipientError::Email)?;
        if address.len() > LONGEST_BYTES { Err(RecipientError::Email) } else { Ok(EmailAddress(address)) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailAddress(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phonenumber::country::Id::RU;

    #[test]
    fn phones_become_e164() {
        for (text, expected) in [
            ("+7 999 123-45-67", "+79991234567"),
            ("8 (999) 123-45-67", "+79991234567"),
            ("+49 30 901820", "+4930901820"),
        ] {
            assert_eq!(PhoneNumber::parse(text, Some(RU)).expect(text).as_str(), expected);
        }
    }

    #[test]
    fn junk_is_no_phone() {
        let long = "9".repeat(10_000);
        for text in ["", "12345", "+0000000000", "hello", "+7 999 123-45-67 ext. 5", "+7999\u{0}1234567x", &long] {
            assert!(PhoneNumber::parse(text, Some(RU)).is_err(), "{text} was taken");
        }
        assert!(PhoneNumber::parse("8 999 123-45-67", None).is_err());
    }

    #[test]
    fn chats_are_numbers_or_public_names() {
        assert_eq!(ChatId::parse("-1001234567890").expect("a group").to_string(), "-1001234567890");
        assert_eq!(ChatId::parse("@durov_news").expect("a channel").to_string(), "@durov_news");
        for text in ["", "0", "+5", "@ab", "@1abc", "@a b c d", "12.5", "99999999999999999999"] {
            assert!(ChatId::parse(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn emails_are_bare_addresses_with_an_ascii_domain() {
        for (text, expected) in
            [(" Anna.K+crm@Example.COM ", "Anna.K+crm@example.com"), ("анна@почта.рф", "анна@xn--80a1acny.xn--p1ai")]
        {
            assert_eq!(EmailAddress::parse(text).expect(text).as_str(), expected);
        }
    }

    #[test]
    fn junk_is_no_email() {
        let long = format!("{}@example.com", "a".repeat(250));
        for text in [
            "",
            "anna",
            "anna@localhost",
            "@example.com",
            "anna@",
            "Анна <anna@example.com>",
            "anna@example.com\r\nBcc: x@y.z",
            "a b@example.com",
            "\"a b\"@example.com",
            "a@b@example.com",
            "anna@[127.0.0.1]",
            "anna@exa mple.com",
            "anna@-.com",
            "a,b@example.com",
            "anna\u{0}@example.com",
            &long,
        ] {
            assert!(EmailAddress::parse(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn an_address_that_is_kept_is_read_as_it_was_parsed() {
        for (channel, text) in [
            (Channel::WhatsApp, "8 999 123-45-67"),
            (Channel::Sms, "+49 30 901820"),
            (Channel::Telegram, "-100200300"),
            (Channel::Email, "Anna@Пример.рф"),
        ] {
            let parsed = Recipient::parse(channel, text, Some(phonenumber::country::RU)).expect("an address");
            assert_eq!(Recipient::kept(channel, &parsed.to_string()), Ok(parsed));
        }
        // Of a person who was erased nothing is kept.
        assert_eq!(Recipient::kept(Channel::Sms, ""), Err(RecipientError::Phone));
    }

    #[test]
    fn nothing_prints_a_whole_address_by_accident() {
        let recipient = Recipient::parse(Channel::WhatsApp, "+79991234567", None).expect("a number");
        assert_eq!(format!("{recipient:?}"), "…67");
    }
}
