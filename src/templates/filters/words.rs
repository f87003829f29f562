//! `plural` and `phone`.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, State, Value};

use super::{Arguments, COST, given, language, plain, wrong};

/// `n | plural('заявка', 'заявки', 'заявок')`, `n | plural('lead', 'leads')`: the form alone, without the number.
pub(super) fn plural(state: &State<'_, '_>, value: &Value, forms: Rest<Value>) -> Result<Value, Error> {
    state.consume_fuel(COST)?;
    given(value)?;
    let language = language(state)?;
    if forms.len() != language.plural_forms() {
        return Err(wrong(format!(
            "{} has {} forms here, and {} are given: plural({})",
            language.name(),
            language.plural_forms(),
            forms.len(),
            if language.plural_forms() == 3 {
                "'заявка', 'заявки', 'заявок'"
            } else {
                "'lead', 'leads'"
            }
        )));
    }
    let no = || wrong("this is no number to count with");
    let text = match value.kind() {
        ValueKind::Number => value.to_string(),
        ValueKind::String => value.as_str().unwrap_or_default().trim().replace(',', "."),
        _ => return Err(no()),
    };
    let text = text.strip_prefix('-').unwrap_or(&text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(no());
    }
    // The last digits decide.
    let last = &whole[whole.len().saturating_sub(9)..];
    let mut number: u64 = last.parse().map_err(|_| no())?;
    if last.len() < whole.len() {
        number += 1_000_000_000;
    }
    let has_fraction = fraction.bytes().any(|digit| digit != b'0');
    let form = forms[language.plural(number, has_fraction)].clone();
    given(&form)?;
    plain(&form)?;
    Ok(form)
}

/// `contact.phone | phone`: `+7 999 123-45-67`. A number without `+` is read as one of `region`; what is no phone number
/// stays as it is, because what was typed there may still tell a person something.
pub(super) fn phone(state: &State<'_, '_>, value: &Value, placed: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    /// Longer than any number.
    const LONGEST: usize = 40;
    /// Reading a number is some hundred times an instruction.
    const COST: u64 = 400;
    state.consume_fuel(COST)?;
    given(value)?;
    plain(value)?;
    let arguments = Arguments::of(&placed, named)?;
    let region = arguments.first_or_named("region")?;
    arguments.finish()?;
    let region = match &region {
        Some(region) => {
            let code = region.as_str().unwrap_or_default();
            Some(code.parse::<phonenumber::country::Id>().map_err(|_| {
                let code: String = code.chars().take(20).collect();
                wrong(format!("there is no region `{code}`: one is like RU"))
            })?)
        }
        None => None,
    };
    let text = value.to_string();
    if text.len() > LONGEST {
        return Ok(value.clone());
    }
    let digits = text.trim();
    // Ledgers keep numbers with the plus or without it.
    let with_plus = format!("+{digits}");
    let given = if region.is_none() && !digits.starts_with('+') { &with_plus } else { digits };
    Ok(match phonenumber::parse(region, given) {
        Ok(number) if number.is_valid() => {
            Value::from(number.format().mode(phonenumber::Mode::International).to_string())
        }
        Ok(_) | Err(_) => value.clone(),
    })
}
