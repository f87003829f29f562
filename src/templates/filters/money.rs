//! `150000.5 | money` is `150 000,50 ₽` in Russian and `RUB 150,000.50` in English.
//!
//! Amounts are handled as the digits they are written in: no binary fraction comes near them. A text that could be read
//! in two ways is refused, because the wrong one is a thousand times the right one.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, State, Value};

use super::language::Language;
use super::{Arguments, COST, given, language, wrong};

const NO_BREAK: char = '\u{a0}';
/// More digits than any amount has.
const DIGITS: usize = 20;

struct Currency {
    code: &'static str,
    decimals: usize,
    in_russian: &'static str,
    /// A sign stands before the amount, a code with a space.
    in_english: &'static str,
}

const fn currency(code: &'static str, decimals: usize, in_russian: &'static str, in_english: &'static str) -> Currency {
    Currency { code, decimals, in_russian, in_english }
}

/// Signs as CLDR has them.
const CURRENCIES: &[Currency] = &[
    currency("RUB", 2, "₽", "RUB"),
    currency("USD", 2, "$", "$"),
    currency("EUR", 2, "€", "€"),
    currency("GBP", 2, "£", "£"),
    currency("AED", 2, "AED", "AED"),
    currency("AMD", 2, "AMD", "AMD"),
    currency("AZN", 2, "AZN", "AZN"),
    currency("BYN", 2, "Br", "BYN"),
    currency("CHF", 2, "CHF", "CHF"),
    currency("CNY", 2, "CN¥", "CN¥"),
    currency("GEL", 2, "₾", "GEL"),
    currency("ILS", 2, "₪", "₪"),
    currency("INR", 2, "₹", "₹"),
    currency("JPY", 0, "¥", "¥"),
    currency("KGS", 2, "сом", "KGS"),
    currency("KZT", 2, "₸", "KZT"),
    currency("PLN", 2, "zł", "PLN"),
    currency("TJS", 2, "TJS", "TJS"),
    currency("TRY", 2, "₺", "TRY"),
    currency("UAH", 2, "₴", "UAH"),
    currency("UZS", 2, "сум", "UZS"),
];

/// `amount | money`, `money('USD')`, `money(currency='USD', decimals=0)`. Without `decimals` a whole amount has none.
pub(super) fn money(state: &State<'_, '_>, value: &Value, placed: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    state.consume_fuel(COST)?;
    given(value)?;
    let arguments = Arguments::of(&placed, named)?;
    let code = arguments.first_or_named("currency")?;
    let decimals = arguments.named("decimals")?;
    arguments.finish()?;
    let code = code.as_ref().map_or("RUB", |code| code.as_str().unwrap_or_default());
    let Some(currency) = CURRENCIES.iter().find(|currency| currency.code.eq_ignore_ascii_case(code)) else {
        let known: Vec<_> = CURRENCIES.iter().map(|currency| currency.code).collect();
        let code: String = code.chars().take(20).collect();
        return Err(wrong(format!("money knows no currency `{code}`: it knows {}", known.join(", "))));
    };
    let decimals = match &decimals {
        Some(decimals) => match decimals.as_usize() {
            Some(decimals @ 0..=4) => Some(decimals),
            _ => return Err(wrong("money shows 0 to 4 decimals")),
        },
        None => None,
    };
    let amount = Amount::parse(value)?.rounded(decimals.unwrap_or(currency.decimals));
    let drops_zeros = decimals.is_none() && amount.fraction.bytes().all(|digit| digit == b'0');
    Ok(written(&amount, drops_zeros, currency, language(state)?))
}

fn written(amount: &Amount, drops_zeros: bool, currency: &Currency, language: Language) -> String {
    let (thousands, point) = match language {
        Language::Russian => (NO_BREAK, ','),
        Language::American | Language::British => (',', '.'),
    };
    let mut number = String::new();
    for (at, digit) in amount.whole.chars().enumerate() {
        if at > 0 && (amount.whole.len() - at).is_multiple_of(3) {
            number.push(thousands);
        }
        number.push(digit);
    }
    if !amount.fraction.is_empty() && !drops_zeros {
        number.push(point);
        number.push_str(&amount.fraction);
    }
    let minus = if amount.is_negative { "-" } else { "" };
    match language {
        Language::Russian => format!("{minus}{number}{NO_BREAK}{}", currency.in_russian),
        Language::American | Language::British => {
            let sign = currency.in_english;
            let space = if sign.ends_with(|c: char| c.is_ascii_alphabetic()) { "\u{a0}" } else { "" };
            format!("{minus}{sign}{space}{number}")
        }
    }
}

/// A decimal number, digit by digit.
#[derive(Debug, PartialEq)]
struct Amount {
    is_negative: bool,
    whole: String,
    fraction: String,
}

impl Amount {
    fn parse(value: &Value) -> Result<Amount, Error> {
        match (value.kind(), value.as_str()) {
            (ValueKind::String, Some(text)) => Amount::of_text(text),
            (ValueKind::Number, _) => {
                // Rust writes a float without an exponent, in full.
                let text = match f64::try_from(value.clone()) {
                    Ok(float) if value.as_i64().is_none() && !float.is_finite() => {
                        return Err(wrong("this is no amount of money"));
                    }
                    Ok(float) if value.as_i64().is_none() && float.abs() < 1e18 => format!("{float}"),
                    _ => value.to_string(),
                };
                let number = text.strip_prefix('-').unwrap_or(&text);
                let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
                Amount::of_digits(text.starts_with('-'), whole, fraction)
            }
            (kind, _) => Err(wrong(format!("a {kind} is no amount of money"))),
        }
    }

    /// What people and other programs write: `1234,50`, `1 234.50`, `1,234.50`, `-5`.
    fn of_text(text: &str) -> Result<Amount, Error> {
        let shown = || text.chars().take(30).collect::<String>();
        let no = || {
            wrong(format!("`{}` is no amount of money: digits, with one comma or point before the decimals", shown()))
        };
        let text: String = text.trim().chars().filter(|&c| !c.is_whitespace() && c != '\'').take(DIGITS * 3).collect();
        let number = text.strip_prefix(['-', '−']);
        let (is_negative, number) = (number.is_some(), number.unwrap_or(&text));
        let marks: Vec<(usize, char)> = number.char_indices().filter(|&(_, c)| matches!(c, ',' | '.')).collect();
        let same = marks.iter().all(|&(_, mark)| mark == marks[0].1);
        let point = match marks.as_slice() {
            [] => None,
            &[(at, _)] => {
                if number.len() - at == 4 && (1..=3).contains(&at) && !number.starts_with('0') {
                    return Err(wrong(format!(
                        "`{}` could be thousands or decimals: give a number, or decimals of two digits",
                        shown()
                    )));
                }
                Some(at)
            }
            _ if same => None,
            &[.., (at, mark)] if marks.iter().filter(|&&(_, other)| other == mark).count() == 1 => Some(at),
            _ => return Err(no()),
        };
        let (whole, fraction) = point.map_or((number, ""), |at| (&number[..at], &number[at + 1..]));
        let groups: Vec<&str> = whole.split([',', '.']).collect();
        if groups.iter().skip(1).any(|group| group.len() != 3) || whole.is_empty() {
            return Err(no());
        }
        Amount::of_digits(is_negative, &groups.concat(), fraction).map_err(|_| no())
    }

    fn of_digits(is_negative: bool, whole: &str, fraction: &str) -> Result<Amount, Error> {
        let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > DIGITS || !are_digits(whole) || !are_digits(fraction) {
            return Err(wrong("this is no amount of money"));
        }
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        Ok(Amount { is_negative, whole: whole.to_owned(), fraction: fraction.to_owned() })
    }

    /// Half goes up, away from zero, as in shops.
    fn rounded(&self, decimals: usize) -> Amount {
        let mut digits: Vec<u8> = self.whole.bytes().collect();
        digits.extend(self.fraction.bytes().chain(std::iter::repeat(b'0')).take(decimals));
        let goes_up = self.fraction.as_bytes().get(decimals).is_some_and(|&digit| digit >= b'5');
        let mut carries = goes_up;
        for digit in digits.iter_mut().rev() {
            if !carries {
                break;
            }
            carries = *digit == b'9';
            *digit = if carries { b'0' } else { *digit + 1 };
        }
        if carries {
            digits.insert(0, b'1');
        }
        let text = String::from_utf8(digits).expect("digits are ASCII");
        let (whole, fraction) = text.split_at(text.len() - decimals);
        let is_zero = text.bytes().all(|digit| digit == b'0');
        Amount { is_negative: self.is_negative && !is_zero, whole: whole.to_owned(), fraction: fraction.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        let amount = Amount::of_text(text).ok()?.rounded(2);
        Some(format!("{}{}.{}", if amount.is_negative { "-" } else { "" }, amount.whole, amount.fraction))
    }

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (text, amount) in [
            ("1234,50", "1234.50"),
            ("1234.5", "1234.50"),
            ("1 234,50", "1234.50"),
            ("1\u{a0}234\u{202f}567", "1234567.00"),
            ("1,234.50", "1234.50"),
            ("1.234.567,8", "1234567.80"),
            ("1,234,567", "1234567.00"),
            ("-5", "-5.00"),
            ("0.125", "0.13"),
            ("0.995", "1.00"),
            ("99.99999", "100.00"),
            ("1500.000", "1500.00"),
            ("-0.001", "0.00"),
            ("007", "7.00"),
        ] {
            assert_eq!(read(text).as_deref(), Some(amount), "{text}");
        }
        for text in
            ["", "-", "1,234", "1.234", "9.995", "1e5", "5 ₽", "1,2,3", "1.2,3.4", "12,34,567", "１２", "1..2", ",5"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn rounding_carries_through() {
        let up = |whole: &str, fraction: &str, decimals| {
            let amount = Amount::of_digits(false, whole, fraction).expect("digits").rounded(decimals);
            (amount.whole, amount.fraction)
        };
        assert_eq!(up("999", "995", 2), ("1000".into(), "00".into()));
        assert_eq!(up("0", "5", 0), ("1".into(), String::new()));
        assert_eq!(up("9", "5", 0), ("10".into(), String::new()));
        assert_eq!(up("1", "49", 1), ("1".into(), "5".into()));
        assert_eq!(up("10", "004", 2), ("10".into(), "00".into()));
    }
}
