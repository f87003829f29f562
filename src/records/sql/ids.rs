//! Ids as a query's parameter, and which record of the answer was meant by which id.

use std::collections::HashMap;

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::Trouble;
use crate::domain::RecordId;

/// What `$1` is an array of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdType {
    Text,
    Int2,
    Int4,
    Int8,
    Uuid,
}

impl IdType {
    /// # Errors
    /// Says what the parameter is instead, and what to write.
    pub(super) fn of(parameters: &[Type]) -> Result<Self, Trouble> {
        const WRITE: &str = "take the ids as `where id = any($1)`";
        match parameters {
            [Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::BPCHAR_ARRAY] => Ok(IdType::Text),
            [Type::INT2_ARRAY] => Ok(IdType::Int2),
            [Type::INT4_ARRAY] => Ok(IdType::Int4),
            [Type::INT8_ARRAY] => Ok(IdType::Int8),
            [Type::UUID_ARRAY] => Ok(IdType::Uuid),
            [] => Err(Trouble::new("its query has no $1, and would give the same rows whatever is asked for", WRITE)),
            [other] => match other.name().strip_prefix('_') {
                Some(element) => Err(Trouble::new(
                    format!("its query takes ids as {element}[], which none can be"),
                    "say what they are: `any($1::text[])`, `any($1::int8[])` or `any($1::uuid[])`",
                )),
                None => Err(Trouble::new(format!("its query takes one {} and not many", other.name()), WRITE)),
            },
            _ => Err(Trouble::new(format!("its query has {} parameters", parameters.len()), WRITE)),
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            IdType::Text => "text",
            IdType::Int2 => "smallint",
            IdType::Int4 => "integer",
            IdType::Int8 => "bigint",
            IdType::Uuid => "uuid",
        }
    }

    /// How the database writes this id; `None` when it is none of this type, and so cannot be there.
    ///
    /// A number has one form, so that `007` is not taken for `7`. A UUID may be written in any.
    fn canonical(self, id: &RecordId) -> Option<String> {
        let number = |number: Option<i64>| number.map(|n| n.to_string()).filter(|text| text == id.as_str());
        match self {
            IdType::Text => Some(id.as_str().to_owned()),
            IdType::Int2 => number(id.as_str().parse::<i16>().ok().map(i64::from)),
            IdType::Int4 => number(id.as_str().parse::<i32>().ok().map(i64::from)),
            IdType::Int8 => number(id.as_str().parse().ok()),
            IdType::Uuid => Uuid::try_parse(id.as_str()).ok().map(|uuid| uuid.to_string()),
        }
    }
}

/// Ids asked for, by the form that the database gives them.
pub(super) struct Asked {
    id_type: IdType,
    ids: HashMap<String, Vec<RecordId>>,
}

impl Asked {
    /// Ids that do not fit the type are left out: they are not there.
    pub(super) fn new(id_type: IdType, asked: Vec<RecordId>) -> Self {
        let mut ids: HashMap<String, Vec<RecordId>> = HashMap::with_capacity(asked.len());
        for id in asked {
            if let Some(canonical) = id_type.canonical(&id) {
                let same = ids.entry(canonical).or_default();
                if !same.contains(&id) {
                    same.push(id);
                }
            }
        }
        Asked { id_type, ids }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The ids as `$1`.
    pub(super) fn parameter(&self) -> Box<dyn ToSql + Send + Sync> {
        // What was made canonical above parses.
        fn parsed<T: std::str::FromStr>(ids: &HashMap<String, Vec<RecordId>>) -> Vec<T> {
            ids.keys().filter_map(|id| id.parse().ok()).collect()
        }
        match self.id_type {
            IdType::Text => Box::new(parsed::<String>(&self.ids)),
            IdType::Int2 => Box::new(parsed::<i16>(&self.ids)),
            IdType::Int4 => Box::new(parsed::<i32>(&self.ids)),
            IdType::Int8 => Box::new(parsed::<i64>(&self.ids)),
            IdType::Uuid => Box::new(parsed::<Uuid>(&self.ids)),
        }
    }

    /// The ids that mean this row, once: `None` when none was asked for, or not any more.
    pub(super) fn take(&mut self, row_id: &str) -> Option<Vec<RecordId>> {
        let same = self.ids.get_mut(row_id)?;
        // Left in place, empty: a second row for it is found by that.
        Some(std::mem::take(same))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RecordKind;

    fn id(text: &str) -> RecordId {
        RecordId::parse(RecordKind::Contact, text).expect("an id")
    }

    #[test]
    fn an_id_that_does_not_fit_is_not_asked_for() {
        for (id_type, misfits) in [
            (IdType::Int2, vec!["40000", "abc", "1.0"]),
            (IdType::Int4, vec!["3000000000", "007", "+7", "-0", "7 or 1=1"]),
            (IdType::Int8, vec!["9223372036854775808", "1e3", "'; drop table clients; --"]),
            (IdType::Uuid, vec!["7", "{", "00000000-0000-0000-0000-00000000000g"]),
        ] {
            let asked = Asked::new(id_type, misfits.into_iter().map(id).collect());
            assert!(asked.is_empty(), "{id_type:?}: {:?}", asked.ids);
        }
    }

    #[test]
    fn each_way_to_write_a_uuid_gets_its_row_once() {
        let small = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        let capital = small.to_uppercase();
        let mut asked = Asked::new(IdType::Uuid, vec![id(small), id(&capital), id(small)]);
        assert_eq!(asked.take(small), Some(vec![id(small), id(&capital)]));
        assert_eq!(asked.take(small), Some(vec![]));
        assert_eq!(asked.take("other"), None);
    }
}
