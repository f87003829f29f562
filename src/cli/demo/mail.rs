//! An email as a mail client shows it, in a box.

use crate::cli::client::printable;
use crate::simulator::Taken;

/// Within the box. With the frame and the demo's indent it fits into 80 columns.
const WIDTH: usize = 70;

/// Its headers, its text and its attachments. What is absent is left out.
pub(super) fn as_read(taken: &Taken) -> String {
    let author = taken.email.as_ref().and_then(|email| email.author.as_deref());
    let date = taken.email.iter().flat_map(|email| &email.headers).find(|(name, _)| name.eq_ignore_ascii_case("Date"));
    let headers = [
        ("From", author),
        ("To", Some(taken.recipient.as_str())),
        ("Subject", taken.subject.as_deref()),
        ("Date", date.map(|(_, date)| date.as_str())),
    ];
    let head = headers.into_iter().filter_map(|(name, value)| Some(format!("{name:<9}{}", value?)));
    let text = taken.text.as_deref().unwrap_or_default().trim().lines().map(str::to_owned);
    let files = taken.email.iter().flat_map(|email| &email.attachments);
    let files = files.map(|file| format!("Attached {} ({}, {} bytes)", file.name, file.content_type, file.size_bytes));
    let parts = [head.collect::<Vec<_>>(), text.collect(), files.collect()];

    let rule = "─".repeat(WIDTH + 2);
    let mut boxed = format!("┌{rule}┐\n");
    for (n, lines) in parts.iter().filter(|lines| !lines.is_empty()).enumerate() {
        if n > 0 {
            boxed.push_str(&format!("├{rule}┤\n"));
        }
        for line in lines.iter().flat_map(|line| wrapped(&printable(line))) {
            boxed.push_str(&format!("│ {line:<WIDTH$} │\n"));
        }
    }
    boxed.push_str(&format!("└{rule}┘\n"));
    boxed
}

/// The words of a line in lines that fit; a word that is longer than a line is cut.
fn wrapped(line: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split_inclusive(' ') {
        let fits = |line: &str, word: &str| line.chars().count() + word.trim_end().chars().count() <= WIDTH;
        let mut rest = word;
        if !lines.last().is_some_and(|last| fits(last, word)) {
            lines.push(String::new());
        }
        while !fits("", rest) {
            let cut = rest.char_indices().nth(WIDTH).map_or(rest.len(), |(at, _)| at);
            if let Some(last) = lines.last_mut() {
                last.push_str(&rest[..cut]);
            }
            lines.push(String::new());
            rest = &rest[cut..];
        }
        if let Some(last) = lines.last_mut() {
            last.push_str(rest);
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_boxed_with_its_headers_text_and_files() {
        let taken = serde_json::json!({
            "n": 7, "channel": "email", "account": "sim", "recipient": "anna@example.com", "subject": "Заказ\u{1b}[2J",
            "text": format!("Здравствуйте!\r\n\r\n{}конец\r\n", "слово ".repeat(13)),
            "ourId": null, "providerMessageId": "F", "at": "2026-01-01T00:00:00Z",
            "email": { "from": "x@y.z", "client": "c", "tls": false, "sizeBytes": 3, "author": "Север <news@example.com>",
                "headers": [["Date", "Thu, 1 Jan 2026 00:00:00 +0000"]],
                "attachments": [{ "name": "Счёт.pdf", "contentType": "application/pdf", "sizeBytes": 4 }] },
        });
        let taken: Taken = serde_json::from_value(taken).expect("an entry");
        insta::assert_snapshot!(as_read(&taken));
    }

    #[test]
    fn no_line_is_longer_than_the_box() {
        for text in ["x".repeat(500), "ab ".repeat(100), format!("a {} b", "y".repeat(70)), String::new()] {
            let lines = wrapped(&text);
            assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:?}");
            assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
        }
    }
}
