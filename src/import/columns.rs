//! What the columns of a table mean.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Mapping, known, rejected};
use crate::domain::RecordKind;

/// A table with more columns than this has only its first ones named in an error.
const NAMED: usize = 30;

/// A column and the field that it becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub header: String,
    /// `None` for one that is dropped.
    pub field: Option<String>,
}

/// The columns of one table: each has a field of its own, and one is the id.
pub(super) struct Columns {
    pub(super) all: Vec<Column>,
    /// For each column the names from the record's top to its field.
    paths: Vec<Option<Vec<String>>>,
    id: usize,
    /// A table of rejected rows that was written here.
    pub(super) is_ours: bool,
}

impl Columns {
    /// Reads a header. `map` goes before what is known, and that before the header itself.
    pub(super) fn read(kind: RecordKind, header: &[String], map: &[Mapping]) -> Result<Self, String> {
        let same = |one: &str, other: &str| one.trim().to_lowercase() == other.trim().to_lowercase();
        if let Some(lost) = map.iter().find(|mapping| !header.iter().any(|header| same(header, &mapping.header))) {
            return Err(format!("there is no column “{}” to map; {}", lost.header, seen(header)));
        }
        let is_ours = rejected::is_ours(header);
        let field = |header: &String| {
            let header = header.trim();
            match map.iter().find(|mapping| same(header, &mapping.header)) {
                Some(mapping) => mapping.field.clone(),
                None if header.is_empty() => None,
                None if is_ours => rejected::field(header).map(str::to_owned),
                None => Some(known::field(kind, header).unwrap_or(header).to_owned()),
            }
        };
        let all: Vec<Column> =
            header.iter().map(|header| Column { header: header.trim().to_owned(), field: field(header) }).collect();
        let paths: Vec<_> = all.iter().map(|column| column.field.as_deref().map(path)).collect();
        for (at, path) in paths.iter().enumerate() {
            let Some(path) = path else { continue };
            let clash = paths[..at].iter().position(|before| before.as_ref().is_some_and(|before| clash(before, path)));
            if let Some(before) = clash {
                let (one, other) = (&all[before], &all[at]);
                // Of a record and a field in it, the record.
                let field = one.field.iter().chain(&other.field).min_by_key(|field| field.len());
                return Err(format!(
                    "the columns “{}” and “{}” both fill the field {}: map one of them to another field, or to none \
                     with “{}=”",
                    one.header,
                    other.header,
                    field.map_or("", String::as_str),
                    other.header,
                ));
            }
        }
        let Some(id) = paths.iter().position(|path| path.as_ref().is_some_and(|path| path.as_slice() == ["id"])) else {
            return Err(format!("no column is the id: map one to it, like “Number=id”; {}", seen(header)));
        };
        Ok(Columns { all, paths, id, is_ours })
    }

    /// The id and the other fields of a row. Cells without text say nothing.
    pub(super) fn fields<'a>(&self, cells: &'a [String]) -> (&'a str, Map<String, Value>) {
        let mut fields = Map::new();
        for (at, (path, cell)) in self.paths.iter().zip(cells).enumerate() {
            if let Some(path) = path
                && at != self.id
                && !cell.trim().is_empty()
            {
                put(&mut fields, path, cell);
            }
        }
        (&cells[self.id], fields)
    }
}

/// Names parted by dots are records within records; any other text is one name.
pub(super) fn path(field: &str) -> Vec<String> {
    let is_name = |part: &str| {
        part.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
            && part.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-' | ' '))
            && part.trim() == part
    };
    if field.split('.').all(is_name) { field.split('.').map(str::to_owned).collect() } else { vec![field.to_owned()] }
}

/// Whether one is the other, or a record that holds it.
fn clash(one: &[String], other: &[String]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

pub(super) fn put(fields: &mut Map<String, Value>, path: &[String], cell: &str) {
    match path {
        [] => {}
        [name] => {
            fields.insert(name.clone(), cell.into());
        }
        [name, rest @ ..] => {
            let inner = fields.entry(name.as_str()).or_insert_with(|| Map::new().into());
            if let Value::Object(inner) = inner {
                put(inner, rest, cell);
            }
        }
    }
}

fn seen(header: &[String]) -> String {
    let short = |header: &String| format!("“{}”", header.trim().chars().take(60).collect::<String>());
    let names: Vec<_> = header.iter().take(NAMED).map(short).collect();
    let more = if header.len() > NAMED { ", …" } else { "" };
    format!("the header has {}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(header: &str, map: &[&str]) -> Result<Columns, String> {
        let header: Vec<_> = header.split(';').map(str::to_owned).collect();
        let map: Vec<_> = map.iter().map(|text| Mapping::parse(text).unwrap()).collect();
        Columns::read(RecordKind::Contact, &header, &map)
    }

    fn fields(columns: &Columns, row: &str) -> Value {
        let cells: Vec<_> = row.split(';').map(str::to_owned).collect();
        let (id, fields) = columns.fields(&cells);
        json!([id, fields])
    }

    #[test]
    fn headers_become_fields() {
        let columns = read("Код; Моб. тел. ;Город;address.city;address.street;№ п.п.;", &[]).unwrap();
        let expected = json!(["7", {
            "phone": "+7", "Город": "Омск", "address": { "city": "Omsk", "street": "Mira" }, "№ п.п.": "1"
        }]);
        assert_eq!(fields(&columns, "7;+7;Омск;Omsk;Mira;1;ignored"), expected);
        assert_eq!(fields(&columns, "7; ;;;Mira;;"), json!(["7", { "address": { "street": "Mira" } }]));
    }

    #[test]
    fn a_map_goes_first() {
        let columns = read("Код;Телефон;Доб. телефон;Secret", &["телефон=work.phone", "Доб. телефон=phone", "Secret="]);
        let expected = json!(["7", { "work": { "phone": "1" }, "phone": "2" }]);
        assert_eq!(fields(&columns.unwrap(), "7;1;2;3"), expected);
    }

    #[test]
    fn what_a_header_leaves_open_is_said() {
        let wrong = |header, map: &[&str]| read(header, map).err().unwrap();
        let all = [
            wrong("Телефон;Имя", &[]),
            wrong("id;Телефон;Моб. тел.", &[]),
            wrong("id;address;address.city", &[]),
            wrong("id;name", &["Nmae=name"]),
            wrong("id;name", &["id="]),
        ];
        insta::assert_snapshot!(all.join("\n"), @r"
        no column is the id: map one to it, like “Number=id”; the header has “Телефон”, “Имя”
        the columns “Телефон” and “Моб. тел.” both fill the field phone: map one of them to another field, or to none with “Моб. тел.=”
        the columns “address” and “address.city” both fill the field address: map one of them to another field, or to none with “address.city=”
        there is no column “Nmae” to map; the header has “id”, “name”
        no column is the id: map one to it, like “Number=id”; the header has “id”, “name”
        ");
    }
}
