//! Whole files and their pieces, good, bad and hostile.

use proptest::prelude::*;

use super::super::{Delimiter, Mapping, Rejected, RejectedFile, TextEncoding};
use super::*;
use crate::domain::RecordKind;
use crate::store::SaveHow;

fn options() -> ImportOptions {
    ImportOptions {
        kind: RecordKind::Contact,
        how: SaveHow::Merge,
        is_dry_run: false,
        format: None,
        encoding: None,
        delimiter: None,
        map: Vec::new(),
        region: None,
    }
}

/// What became of a file: every row in words, how it ended, and what it was found to be.
type Read = (Vec<String>, Result<(), FileProblem>, Option<Found>);

fn read<'a>(options: ImportOptions, pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let (mut reader, mut rows) = (Reader::new(Arc::new(options)), Vec::new());
    let mut ended = Ok(());
    for piece in pieces {
        ended = reader.read(piece, &mut rows);
        if ended.is_err() {
            break;
        }
    }
    if ended.is_ok() {
        ended = reader.finish(&mut rows);
    }
    let words = |row: &Row| match &row.record {
        Ok(record) => format!("{}: {} {}", row.line, record.id, Value::Object(record.fields().clone())),
        Err(reason) => format!("{}: rejected, {reason}", row.line),
    };
    (rows.iter().map(words).collect(), ended, reader.found())
}

fn whole(text: &[u8]) -> Read {
    read(options(), [text])
}

fn problem(text: &[u8]) -> String {
    whole(text).1.unwrap_err().to_string()
}

#[test]
fn a_table_becomes_records() {
    let (rows, ended, found) = whole(
        "\u{feff}ИД;Имя;Телефон;Город\r\n1;Анна;+7 999 123-45-67;\r\n\r\n2;\"Борис\nИванов\";12;Омск\n;;;\n3;x\n;y;;\n"
            .as_bytes(),
    );
    assert_eq!(ended, Ok(()));
    insta::assert_snapshot!(rows.join("\n"), @r#"
    2: 1 {"name":"Анна","phone":"+79991234567"}
    4: rejected, phone: not a valid phone number: give it with its country code, like +7 999 123-45-67
    7: rejected, 2 cells; the header has 4
    8: rejected, there is no id
    "#);
    let found = found.unwrap();
    assert_eq!((found.format, found.encoding), (Format::Csv, TextEncoding::Utf8));
    assert_eq!((found.delimiter.unwrap().as_char(), found.columns.len()), (';', 4));
}

#[test]
fn rejected_rows_come_back_as_they_were() {
    let map = ["Номер=id", "Доб. телефон=phone", "Телефон=work.phone", "Комментарий=", "Код=Код"];
    let map = map.iter().map(|text| Mapping::parse(text).unwrap()).collect();
    let text = "Номер;Код;Доб. телефон;Телефон;Комментарий;;Заметка\n\
        1;7;12;-;=1;x;=2+2\n2;;+79990000002;+7 1;'=1;;'-x\n3;;13;;;;'Анна\n";
    let options = ImportOptions { map, ..options() };
    let (mut reader, mut rows) = (Reader::new(Arc::new(options.clone())), Vec::new());
    reader.read(text.as_bytes(), &mut rows).unwrap();
    reader.finish(&mut rows).unwrap();
    let found = reader.found().unwrap();
    let write = |rows: Vec<Row>, found: &Found| {
        let mut file = RejectedFile::csv(Vec::new(), &found.columns, found.delimiter).unwrap();
        for row in rows {
            file.write(&Rejected { line: row.line, reason: "why; so".into(), row: row.given }).unwrap();
        }
        String::from_utf8(file.finish().unwrap()).unwrap()
    };
    let written = write(rows, &found);
    let header = "rejected line;rejected because;id;Код;phone;work.phone;dropped: Комментарий;;Заметка\n";
    assert!(written.trim_start_matches('\u{feff}').starts_with(header), "{written}");
    // The same records, without a map.
    assert_eq!(whole(written.as_bytes()).0, read(options, [text.as_bytes()]).0);
    let mut reader = Reader::new(Arc::new(super::tests::options()));
    let mut rows = Vec::new();
    reader.read(written.as_bytes(), &mut rows).unwrap();
    reader.finish(&mut rows).unwrap();
    assert_eq!(write(rows, &reader.found().unwrap()), written);
}

#[test]
fn the_line_in_which_excel_names_the_delimiter_is_no_header() {
    for text in ["sep=;\r\nid;name\r\n1;a,b,c\r\n", "sep=\t\nid\tname\n1\ta,b,c\n"] {
        let (rows, ended, _) = whole(text.as_bytes());
        assert_eq!((rows, ended), (vec!["3: 1 {\"name\":\"a,b,c\"}".to_owned()], Ok(())));
    }
    let given = ImportOptions { delimiter: Delimiter::parse(","), ..options() };
    assert_eq!(read(given, [&b"sep=;\nid,name\n1,a\n"[..]]).0, ["3: 1 {\"name\":\"a\"}"]);
}

#[test]
fn lines_of_json_become_records() {
    let text = r#"{"id": 1, "name": "Анна", "tags": ["vip"]}

        {"id": "2", "phone": null}
        [1]
        {"id": 3
        {"name": "x"}
        {"id": {}, "name": "x"}
        {"id": "4", "n": 1e999}"#;
    let (rows, ended, found) = whole(text.as_bytes());
    assert_eq!(ended, Ok(()));
    insta::assert_snapshot!(rows.join("\n"), @r#"
    1: 1 {"name":"Анна","tags":["vip"]}
    3: 2 {"phone":null}
    4: rejected, this is JSON, but no object
    5: rejected, this is no JSON: EOF while parsing an object at character 8
    6: rejected, there is no id
    7: rejected, id: expected a text or a number
    8: rejected, this is no JSON: number out of range at character 22
    "#);
    assert_eq!(found.unwrap().format, Format::Ndjson);
    let map = vec![Mapping::parse("key=id").unwrap(), Mapping::parse("secret=").unwrap()];
    let (rows, ..) = read(ImportOptions { map, ..options() }, [&br#"{"key": 1, "secret": 2, "a": 3}"#[..]]);
    assert_eq!(rows, [r#"1: 1 {"a":3}"#]);
}

#[test]
fn encodings_make_the_same_records() {
    let text = "ИД;Имя;Заметка\n1;Анна;Пример — №1\n";
    let (expected, ..) = whole(text.as_bytes());
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let (windows, ..) = encoding_rs::WINDOWS_1251.encode(text);
    for bytes in [&utf16[..], &[b"\xFE\xFF", &utf16[..]].concat(), &windows] {
        assert_eq!(whole(bytes).0, expected);
    }
}

#[test]
fn bytes_that_are_no_text_reject_their_row() {
    let mut text = b"id,name\n".to_vec();
    for id in 0..8_000 {
        text.extend_from_slice(format!("{id},Anna\n").as_bytes());
    }
    text.extend_from_slice(b"a,\xC3\nb,\xA9\nc,Anna\n");
    let (rows, ended, found) = whole(&text);
    assert_eq!((ended, found.unwrap().encoding), (Ok(()), TextEncoding::Utf8));
    let expected = [
        "8002: rejected, there are bytes here that are no text in utf-8",
        "8003: rejected, there are \
        bytes here that are no text in utf-8",
        "8004: c {\"name\":\"Anna\"}",
    ];
    assert_eq!(rows[8_000..], expected);
}

#[test]
fn files_that_cannot_be_read_say_where_and_why() {
    let wide = vec!["x"; 100_000].join(",");
    let all = [
        problem(b""),
        problem(b"\n\n;;\n"),
        problem(b"PK\x03\x04\0\0"),
        problem(b"[{\"id\": 1}]"),
        problem(b"id,name\n1,a\n2,\"b\n3,c\n"),
        problem(b"id,name\n1,a\n2,b\0\n"),
        problem(b"{\"id\": 1}\n\0\0\0\0"),
        problem(format!("id,name\n1,{}\n", "x".repeat(2_000_000)).as_bytes()),
        problem(wide.as_bytes()),
    ];
    insta::assert_snapshot!(all.join("\n"), @r"
    line 1: there is no header: the first row names the columns
    line 1: there is no header: the first row names the columns
    line 1: this is an Excel workbook (.xlsx) or another ZIP archive, no text: export it as CSV in UTF-8
    line 1: this is one JSON array: write one object a line instead, as `jq -c '.[]'` does
    line 3: a quote that is opened in the row that begins here is not closed before the end of the file
    line 3: there are NUL bytes here: this is no text, or text in UTF-16 that was not recognised; save it as CSV in UTF-8, or say its encoding
    line 2: there are NUL bytes here: this is no text, or text in UTF-16 that was not recognised; save it as CSV in UTF-8, or say its encoding
    line 2: the row that begins here is longer than 1024 KiB: is there a quote in it that is not closed?
    line 1: there are more than 1000 columns: is it the right delimiter?
    ");
    // What was read before counts.
    assert_eq!(whole(b"id,name\n1,a\n2,\"b\n3,c\n").0.len(), 1);
    let none = ImportOptions { format: Some(Format::Ndjson), ..options() };
    assert_eq!(read(none, [&b""[..]]).1, Ok(()));
}

/// Text that has much of what matters in it.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let parts: Vec<&[u8]> = vec![
        b"id;name\n",
        b"{\"id\":1}\n",
        b"\"",
        b"\r\n",
        b"\n",
        b";",
        b"1;a",
        b"\0",
        b"\xFF\xFE",
        b"\xEF\xBB\xBF",
        "Имя".as_bytes(),
        b"\xC8",
        b"{",
        b"[{",
        b",",
        b"i\0d\0;\0x\0\n\0",
    ];
    let part = prop::sample::select(parts);
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

// Enough to hit every state, in a build without optimisation.
proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn pieces_change_nothing(text in hostile(), cuts in prop::collection::vec(1_usize..9, 1..5)) {
        let expected = whole(&text);
        let mut rest = text.as_slice();
        let pieces = cuts.iter().cycle().map_while(|cut| {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            rest = after;
            (!piece.is_empty()).then_some(piece)
        });
        prop_assert_eq!(read(options(), pieces), expected);
    }

    #[test]
    fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let _ = whole(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn pieces_of_a_long_file_change_nothing(rows in 6_000_usize..9_000, size in 1_000_usize..70_000, broken: bool) {
        let mut text = "id;имя\n".to_owned().into_bytes();
        for id in 0..rows {
            text.extend_from_slice(format!("{id};Анна\n").as_bytes());
        }
        if broken {
            text.extend_from_slice(b"x;\xFF\ny;\"");
        }
        prop_assert_eq!(read(options(), text.chunks(size)), whole(&text));
    }
}
