//! Whether a text holds an address, in the forms that people write it in.

use serde_json::{Map, Value as Json};

/// Shorter chat ids are in too many numbers that are none.
const SHORTEST_CHAT: usize = 6;
/// Digits of an id that may be a phone number.
const SHORTEST_PHONE: usize = 8;

/// The addresses of one person.
#[derive(Default)]
pub(super) struct Addresses {
    /// Digits, without the country code: what stands before them is written in many ways.
    phones: Vec<String>,
    /// In small letters.
    emails: Vec<String>,
    chats: Vec<String>,
}

impl Addresses {
    pub(super) fn add_phone(&mut self, phone: &str) {
        let digits = digits_of(phone);
        let code = phonenumber::parse(None, phone).map(|number| number.code().value().to_string());
        let national = code.ok().and_then(|code| digits.strip_prefix(code.as_str()).map(str::to_owned));
        self.phones.extend(Some(national.unwrap_or(digits)).filter(|digits| !digits.is_empty()));
    }

    pub(super) fn add_email(&mut self, email: &str) {
        self.emails.push(email.to_lowercase());
    }

    pub(super) fn add_chat(&mut self, chat: &str) {
        let chat = chat.trim_start_matches('-').to_lowercase();
        self.chats.extend((chat.len() >= SHORTEST_CHAT).then_some(chat));
    }

    /// The id of a record, if it looks like an address.
    pub(super) fn add_id(&mut self, id: &str) {
        if id.contains('@') {
            self.add_email(id);
        } else if id.starts_with('+') && digits_of(id).len() >= SHORTEST_PHONE {
            self.add_phone(id);
        }
    }

    pub(super) fn are_in(&self, text: &str) -> bool {
        let has_phone = || {
            text.split(char::is_alphabetic)
                .map(digits_of)
                .any(|run| self.phones.iter().any(|phone| run.contains(phone)))
        };
        let lower = text.to_lowercase();
        let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        self.emails.iter().any(|email| lower.contains(email))
            || lower.split(|letter| !is_word(letter) && letter != '@').any(|word| self.chats.iter().any(|c| c == word))
            || has_phone()
    }

    /// Whether the id of a record is an address: one of these, or one by its looks.
    pub(super) fn are_id(&self, id: &str) -> bool {
        id.contains('@') || id.starts_with('+') || self.are_in(id)
    }

    /// Takes out what has one of them in its name or its text, however deep. Whether there was any.
    pub(super) fn take_out(&self, fields: &mut Map<String, Json>) -> bool {
        let mut any = false;
        fields.retain(|name, value| {
            let stays = !self.are_in(name) && !self.take_out_of(value, &mut any);
            any |= !stays;
            stays
        });
        any
    }

    /// Whether the value itself is to go.
    fn take_out_of(&self, value: &mut Json, any: &mut bool) -> bool {
        match value {
            Json::String(text) => self.are_in(text),
            Json::Number(number) => self.are_in(&number.to_string()),
            Json::Array(items) => {
                items.retain_mut(|item| {
                    let goes = self.take_out_of(item, any);
                    *any |= goes;
                    !goes
                });
                false
            }
            Json::Object(fields) => {
                *any |= self.take_out(fields);
                false
            }
            Json::Null | Json::Bool(_) => false,
        }
    }
}

fn digits_of(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn addresses() -> Addresses {
        let mut addresses = Addresses::default();
        addresses.add_phone("+79991234567");
        addresses.add_email("Anna@Example.com");
        addresses.add_chat("770077");
        addresses.add_chat("12");
        addresses
    }

    #[test]
    fn an_address_is_found_in_any_usual_writing() {
        for text in [
            "+79991234567",
            "звонить 8 (999) 123-45-67 после 18:00",
            "8.999.123.45.67",
            "999\u{a0}123–45–67",
            "Анна <ANNA@example.COM>, утром",
            "tg 770077!",
        ] {
            assert!(addresses().are_in(text), "{text}");
        }
        for text in ["", "Анна", "+79991234568", "заказ 9991234 от 5.6.7", "17700779", "12", "anna@example.org"]
        {
            assert!(!addresses().are_in(text), "{text}");
        }
    }

    #[test]
    fn what_holds_an_address_goes_and_the_rest_stays() {
        let Json::Object(mut fields) = json!({
            "title": "Розы", "amount": 1200, "note": "тел. 8-999-123-45-67", "chat": 770_077,
            "delivery": {"to": "anna@example.com", "city": "Тверь", "more": [{"p": "9991234567"}, "x", "9991234567"]},
            "+7 999 123-45-67": true,
        }) else {
            panic!("fields are an object")
        };
        assert!(addresses().take_out(&mut fields));
        let left = json!({"title": "Розы", "amount": 1200, "delivery": {"city": "Тверь", "more": [{}, "x"]}});
        assert_eq!(Json::Object(fields.clone()), left);
        assert!(!addresses().take_out(&mut fields));
    }

    #[test]
    fn an_id_may_be_an_address() {
        for id in ["+79991234567", "89991234567", "anna@example.com", "other@example.com", "+1 202", "crm-9991234567"] {
            assert!(addresses().are_id(id), "{id}");
        }
        for id in ["c1", "550e8400-e29b-41d4-a716-446655440000", "12345678901"] {
            assert!(!addresses().are_id(id), "{id}");
        }
    }
}
