//! A table of the recipients of one call: whom, and the data that is each one's own.

use serde_json::{Map, Value};

use super::columns::{path, put};
use super::decode::Decoder;
use super::table::{Cells, Table};
use super::{FileProblem, known, start};
use crate::domain::{Channel, RecordKind};

/// One row: an address, a contact, or both; where both are missing an empty address, which fails by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct TableRecipient {
    pub recipient: Option<String>,
    pub contact_id: Option<String>,
    /// The other columns that say something; a dot in a header makes a record.
    pub data: Map<String, Value>,
}

impl TableRecipient {
    fn names_nobody(&self) -> bool {
        self.contact_id.is_none() && self.recipient.as_deref().is_none_or(str::is_empty)
    }
}

/// What a column is.
enum Column {
    Recipient,
    Contact,
    Data(Vec<String>),
    Nothing,
}

/// Reads a CSV file whose header names its columns.
///
/// `recipient` is the address, or else the column that the channel's
/// addresses have in exports (`phone`, телефон, `email`, …); `contactId` is the contact.
///
/// # Errors
/// With the line: what is no table, or has no such column; and a table in which no row names anybody.
pub fn read_recipients(bytes: &[u8], channel: Channel) -> Result<Vec<TableRecipient>, FileProblem> {
    start::check_is_text(bytes)?;
    let encoding = start::encoding(bytes, true);
    let mut decoder = Decoder::new(encoding);
    let text = decoder.decode(bytes.strip_prefix(encoding.mark()).unwrap_or(bytes), true);
    let mut table = Table::new(start::delimiter(text, true));
    let (mut columns, mut rows) = (None, Vec::new());
    let mut each = |line: u64, cells: &Cells<'_>| {
        let cells = texts(line, cells)?;
        if cells.iter().all(|cell| cell.trim().is_empty()) || (columns.is_none() && start::is_separator_row(&cells)) {
            return Ok(());
        }
        match &columns {
            None => columns = Some(header(line, &cells, channel)?),
            Some(columns) => rows.push(row(line, columns, cells)?),
        }
        Ok(())
    };
    table.read(text, &mut each)?;
    table.finish(&mut each)?;
    if rows.is_empty() {
        return Err(FileProblem::new(1, "there are no recipients: the first row names the columns, each other is one"));
    }
    if rows.iter().all(|row: &TableRecipient| row.names_nobody()) {
        return Err(FileProblem::new(1, "no row names a recipient or a contact: is it the right column?"));
    }
    Ok(rows)
}

fn texts(line: u64, cells: &Cells<'_>) -> Result<Vec<String>, FileProblem> {
    if cells.holds_nul() {
        return Err(FileProblem::nul(line));
    }
    let text = |cell: &[u8]| std::str::from_utf8(cell).map(str::to_owned);
    let texts: Result<_, _> = cells.iter().map(text).collect();
    texts.map_err(|_| FileProblem::new(line, "there are bytes here that are no text: save the file as CSV in UTF-8"))
}

fn header(line: u64, cells: &[String], channel: Channel) -> Result<Vec<Column>, FileProblem> {
    let is_named = |header: &str| header.eq_ignore_ascii_case("recipient");
    let by_name = cells.iter().any(|header| is_named(header.trim()));
    let of_channel = match channel {
        Channel::WhatsApp | Channel::Sms => "phone",
        Channel::Telegram => "telegramChatId",
        Channel::Email => "email",
    };
    let column = |header: &String| {
        let header = header.trim();
        match known::field(RecordKind::Deal, header) {
            _ if header.is_empty() => Column::Nothing,
            _ if is_named(header) => Column::Recipient,
            Some(field) if field == of_channel && !by_name => Column::Recipient,
            Some("contactId") => Column::Contact,
            _ => Column::Data(path(header)),
        }
    };
    let columns: Vec<Column> = cells.iter().map(column).collect();
    let count = |is_meant: fn(&Column) -> bool| columns.iter().filter(|column| is_meant(column)).count();
    let recipients = count(|column| matches!(column, Column::Recipient));
    let contacts = count(|column| matches!(column, Column::Contact));
    if recipients > 1 || contacts > 1 {
        let detail =
            format!("more than one column could name the recipients: call one of them recipient, like `{of_channel}`");
        return Err(FileProblem::new(line, detail));
    }
    if recipients + contacts == 0 {
        let seen = cells.iter().take(20).map(|header| header.trim()).collect::<Vec<_>>().join(", ");
        let detail =
            format!("no column names the recipients: call one recipient (or {of_channel}) or contactId; seen: {seen}");
        return Err(FileProblem::new(line, detail));
    }
    Ok(columns)
}

fn row(line: u64, columns: &[Column], cells: Vec<String>) -> Result<TableRecipient, FileProblem> {
    if cells.len() != columns.len() {
        let detail = format!("{} cells; the header has {}", cells.len(), columns.len());
        return Err(FileProblem::new(line, detail));
    }
    let mut row = TableRecipient { recipient: None, contact_id: None, data: Map::new() };
    for (column, cell) in columns.iter().zip(cells) {
        let text = cell.trim();
        match column {
            _ if text.is_empty() => {}
            Column::Recipient => row.recipient = Some(text.to_owned()),
            Column::Contact => row.contact_id = Some(text.to_owned()),
            Column::Data(path) => put(&mut row.data, path, &cell),
            Column::Nothing => {}
        }
    }
    if row.contact_id.is_none() {
        row.recipient.get_or_insert_default();
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str, channel: Channel) -> Result<Vec<Value>, FileProblem> {
        let shown = |row: TableRecipient| json!([row.recipient, row.contact_id, row.data]);
        Ok(read_recipients(text.as_bytes(), channel)?.into_iter().map(shown).collect())
    }

    #[test]
    fn columns_are_found_by_their_names() {
        let text = "Телефон;Email;order.number;city\r\n+7 999 123-45-67;a@example.com;7;\r\n\r\n8;;8;Тверь\r\n";
        let by_phone = [
            json!(["+7 999 123-45-67", null, { "Email": "a@example.com", "order": { "number": "7" } }]),
            json!(["8", null, { "order": { "number": "8" }, "city": "Тверь" }]),
        ];
        assert_eq!(read(text, Channel::Sms).unwrap(), by_phone);
        let by_email = read(text, Channel::Email).unwrap();
        assert_eq!(by_email[0][0], "a@example.com");
        assert_eq!(by_email[1][0], "", "one that has no address is no reason to refuse the others");
        let named = read("recipient,phone,contactId\n@ann,+7,c1\n,,c2\n", Channel::Telegram).unwrap();
        assert_eq!(named, [json!(["@ann", "c1", { "phone": "+7" }]), json!([null, "c2", {}])]);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        for (text, line, said) in [
            ("name\nAnn\n", 1, "no column names the recipients"),
            ("phone,mobile\n1,2\n", 1, "more than one column"),
            ("phone,name\n1,2\n3\n", 3, "1 cells; the header has 2"),
            ("phone\n", 1, "there are no recipients"),
            ("phone,name\n,Ann\n", 1, "no row names a recipient"),
            ("phone\n\"1\n", 2, "not closed"),
            ("PK\u{3}\u{4}", 1, "Excel"),
        ] {
            let problem = read(text, Channel::WhatsApp).unwrap_err();
            assert!(problem.line == line && problem.detail.contains(said), "{text:?}: {problem}");
        }
    }

    #[test]
    fn the_encoding_is_recognised() {
        let (windows, _, _) = encoding_rs::WINDOWS_1251.encode("Телефон;Имя\n1;Анна\n");
        let rows = read_recipients(&windows, Channel::Sms).unwrap();
        assert_eq!(rows[0].data, *json!({ "Имя": "Анна" }).as_object().unwrap());
    }
}
