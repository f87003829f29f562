//! Names that columns have in exports, in English and Russian, and the fields they mean.

use crate::domain::RecordKind;

type Names = &'static [(&'static str, &'static [&'static str])];

/// Of every kind. Small letters and digits only: see [`plain`].
const OF_ALL: Names = &[
    ("id", &["id", "ид", "код", "идентификатор"]),
    (
        "phone",
        &[
            "phone",
            "phonenumber",
            "mobile",
            "mobilephone",
            "cell",
            "cellphone",
            "tel",
            "telephone",
            "телефон",
            "тел",
            "мобильный",
            "мобильныйтелефон",
            "мобтелефон",
            "мобтел",
            "сотовый",
            "сотовыйтелефон",
            "номертелефона",
        ],
    ),
    (
        "email",
        &[
            "email",
            "mail",
            "emailaddress",
            "почта",
            "элпочта",
            "электроннаяпочта",
            "адресэлектроннойпочты",
            "имейл",
            "емейл",
            "эладрес",
        ],
    ),
    (
        "telegramChatId",
        &[
            "telegramchatid",
            "telegram",
            "telegramid",
            "chatid",
            "tg",
            "телеграм",
            "телеграмм",
            "идтелеграм",
            "чаттелеграм",
        ],
    ),
    ("locale", &["locale", "language", "lang", "язык", "локаль"]),
    ("timezone", &["timezone", "tz", "часовойпояс", "таймзона"]),
    ("companyId", &["companyid", "идкомпании", "idкомпании", "компанияид", "компанияid", "кодкомпании"]),
    (
        "managerId",
        &[
            "managerid",
            "responsibleid",
            "ownerid",
            "идменеджера",
            "idменеджера",
            "менеджерид",
            "менеджерid",
            "кодменеджера",
            "идответственного",
            "idответственного",
            "ответственныйид",
            "ответственныйid",
        ],
    ),
    (
        "contactId",
        &["contactid", "идконтакта", "idконтакта", "контактид", "контактid", "кодконтакта", "идклиента", "кодклиента"],
    ),
];

const OF_CONTACTS: Names = &[
    ("name", &["name", "fullname", "имя", "фио", "полноеимя"]),
    ("firstName", &["firstname"]),
    ("lastName", &["lastname", "surname", "фамилия"]),
    ("middleName", &["middlename", "patronymic", "отчество"]),
];
const OF_LEADS: Names = &[
    ("id", &["leadid", "идлида", "idлида", "лидид", "номерлида"]),
    ("name", &["name", "leadname", "имя", "название", "названиелида"]),
    ("status", &["status", "stage", "статус", "стадия", "этап"]),
];
const OF_DEALS: Names = &[
    ("id", &["dealid", "идсделки", "idсделки", "сделкаид", "номерсделки"]),
    ("name", &["name", "dealname", "имя", "название", "названиесделки"]),
    ("status", &["status", "stage", "статус", "стадия", "этап"]),
];
const OF_COMPANIES: Names =
    &[("name", &["name", "companyname", "имя", "название", "наименование", "компания", "названиекомпании"])];

/// The field that a column with this header means in a table of this kind, if it is one of those known.
pub(super) fn field(kind: RecordKind, header: &str) -> Option<&'static str> {
    let header = plain(header);
    let own = match kind {
        RecordKind::Contact => OF_CONTACTS,
        RecordKind::Lead => OF_LEADS,
        RecordKind::Deal => OF_DEALS,
        RecordKind::Company => OF_COMPANIES,
    };
    let found = own.iter().chain(OF_ALL).find(|(_, names)| names.contains(&header.as_str()));
    let field = found.map(|(field, _)| *field)?;
    let is_self = matches!((kind, field), (RecordKind::Contact, "contactId") | (RecordKind::Company, "companyId"));
    // In a table of contacts, a contact's id is the row's own.
    Some(if is_self { "id" } else { field })
}

/// Small letters and digits only, so that `E-mail`, `e_mail` and `Email` are one name.
fn plain(header: &str) -> String {
    let small = header.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase);
    small.map(|letter| if letter == 'ё' { 'е' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_exports_are_known() {
        for (kind, header, expected) in [
            (RecordKind::Contact, "ИД", Some("id")),
            (RecordKind::Contact, "Код клиента", Some("id")),
            (RecordKind::Contact, "Моб. телефон", Some("phone")),
            (RecordKind::Contact, "Эл. почта", Some("email")),
            (RecordKind::Contact, "E-mail", Some("email")),
            (RecordKind::Contact, "telegram_chat_id", Some("telegramChatId")),
            (RecordKind::Contact, "Часовой пояс", Some("timezone")),
            (RecordKind::Contact, "ФИО", Some("name")),
            (RecordKind::Deal, "Контакт ИД", Some("contactId")),
            (RecordKind::Deal, "ID сделки", Some("id")),
            (RecordKind::Lead, "company_id", Some("companyId")),
            (RecordKind::Company, "Company ID", Some("id")),
            (RecordKind::Company, "Компания", Some("name")),
            (RecordKind::Contact, "Рабочий телефон", None),
            (RecordKind::Contact, "Город", None),
            (RecordKind::Contact, "", None),
        ] {
            assert_eq!(field(kind, header), expected, "{header} of {kind}");
        }
    }

    #[test]
    fn names_are_written_as_they_are_looked_up() {
        for names in [OF_ALL, OF_CONTACTS, OF_LEADS, OF_DEALS, OF_COMPANIES] {
            for name in names.iter().flat_map(|(_, names)| *names) {
                assert_eq!(plain(name), *name);
            }
        }
    }
}
