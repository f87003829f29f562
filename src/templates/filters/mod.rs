//! Filters that make text, held to plain values, in the language of what is rendered.
//!
//! A list added to itself sixty times costs nothing until it is turned into text, and then minijinja works for years
//! before it asks for fuel. So whatever turns values into text refuses lists and records here; `~`, which does it too,
//! is left out of the language.

mod language;
mod money;
mod time;
mod words;

use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};

pub(super) use self::language::{Language, USUAL};
use self::time::Shown;
use super::data::{is_missing, rendering, there};

/// Fuel for one of the filters here: about what it takes, counted in the engine's own instructions.
const COST: u64 = 20;

/// What only makes sense in a language that is known here.
pub(super) const IN_A_LANGUAGE: &[&str] = &["money", "date", "time", "datetime", "plural"];

/// Items and bytes that `join` takes together; no channel takes a longer message.
const JOINED_ITEMS: usize = 10_000;
const JOINED_BYTES: usize = 64 * 1024;

pub(super) fn install(language: &mut Environment<'static>) {
    for (name, filter) in [
        ("capitalize", Value::from_function(filters::capitalize)),
        ("e", Value::from_function(filters::escape)),
        ("escape", Value::from_function(filters::escape)),
        ("format", Value::from_function(filters::format)),
        ("lines", Value::from_function(filters::lines)),
        ("lower", Value::from_function(filters::lower)),
        ("replace", Value::from_function(filters::replace)),
        ("split", Value::from_function(filters::split)),
        ("string", Value::from_function(filters::string)),
        ("title", Value::from_function(filters::title)),
        ("trim", Value::from_function(filters::trim)),
        ("upper", Value::from_function(filters::upper)),
        ("urlencode", Value::from_function(filters::urlencode)),
    ] {
        language.add_filter(name, move |state: &mut State<'_, '_>, arguments: Rest<Value>| {
            arguments.iter().filter(|argument| !argument.is_kwargs()).try_for_each(plain)?;
            filter.call(state, &arguments)
        });
    }
    for name in ["d", "default"] {
        language.add_filter(name, |state: &State<'_, '_>, value: &Value, others: Rest<Value>| {
            let missing = Value::UNDEFINED;
            filters::default(state, if is_missing(value) { &missing } else { value }, others)
        });
    }
    language.add_test("defined", |value: &Value| !is_missing(value));
    language.add_test("undefined", is_missing);
    language.add_filter("join", join);
    language.add_filter("money", money::money);
    language.add_filter("plural", words::plural);
    language.add_filter("phone", words::phone);
    for (name, shown) in [("date", Shown::Date), ("time", Shown::Time), ("datetime", Shown::DateAndTime)] {
        let filter = move |state: &State<'_, '_>, value: &Value, placed: Rest<Value>, named: Kwargs| {
            time::moment(shown, state, value, &placed, named)
        };
        language.add_filter(name, filter);
    }
}

/// What a filter was given beside its value: one thing by its place, the others by name.
struct Arguments {
    first: Option<Value>,
    named: Kwargs,
}

impl Arguments {
    /// A missing value is not the same as no value, so that the engine's own optional arguments will not do.
    fn of(placed: &[Value], named: Kwargs) -> Result<Arguments, Error> {
        placed.iter().try_for_each(given)?;
        if placed.len() > 1 {
            return Err(Error::from(ErrorKind::TooManyArguments));
        }
        Ok(Arguments { first: placed.first().cloned(), named })
    }

    fn named(&self, name: &str) -> Result<Option<Value>, Error> {
        if !self.named.has(name) {
            return Ok(None);
        }
        let value: Value = self.named.get(name)?;
        given(&value)?;
        Ok(Some(value))
    }

    /// The first, which has a name, too.
    fn first_or_named(&self, name: &str) -> Result<Option<Value>, Error> {
        let named = self.named(name)?;
        Ok(self.first.clone().or(named))
    }

    /// Refuses names that mean nothing.
    fn finish(&self) -> Result<(), Error> {
        self.named.assert_all_used()
    }
}

/// The language of what is rendered. One that is not known is an error only where it matters.
fn language(state: &State<'_, '_>) -> Result<Language, Error> {
    rendering(state).language.ok_or_else(|| wrong("dates, money and plurals are known in the languages ru and en only"))
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// An error that names the variable, where the value is missing.
fn given(value: &Value) -> Result<(), Error> {
    there(value)?;
    if value.is_undefined() {
        // Taking a number out of it fails with the engine's own trace of where it came from.
        from_args::<(f64,)>(std::slice::from_ref(value)).map(drop)?;
    }
    Ok(())
}

/// The whole of a value's worth of text, or an error that says what else to do.
pub(super) fn plain(value: &Value) -> Result<(), Error> {
    there(value)?;
    match value.kind() {
        kind @ (ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Plain) => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("a {kind} is no text: use `| join(', ')`, a loop, or one of its fields"),
        )),
        _ => Ok(()),
    }
}

/// `items | join(', ')`, also `join(', ', attribute='name')`. What is missing is left out.
fn join(items: &Value, separator: Option<Value>, options: Kwargs) -> Result<String, Error> {
    let too_long = |what: String| Error::new(ErrorKind::InvalidOperation, format!("join took more than {what}"));
    let attribute: Option<String> = options.get("attribute")?;
    options.assert_all_used()?;
    let separator = match separator {
        Some(separator) => {
            plain(&separator)?;
            separator.to_string()
        }
        None => String::new(),
    };
    let mut joined = String::new();
    let mut is_first = true;
    for (at, item) in items.try_iter()?.enumerate() {
        if at == JOINED_ITEMS {
            return Err(too_long(format!("{JOINED_ITEMS} items")));
        }
        let item = match &attribute {
            Some(name) => item.get_attr(name)?,
            None => item,
        };
        if item.is_undefined() {
            continue;
        }
        plain(&item)?;
        if !std::mem::take(&mut is_first) {
            joined.push_str(&separator);
        }
        match item.as_str() {
            Some(text) => joined.push_str(text),
            None => joined.push_str(&item.to_string()),
        }
        if joined.len() > JOINED_BYTES {
            return Err(too_long(format!("{JOINED_BYTES} bytes")));
        }
    }
    Ok(joined)
}
