//! `date`, `time` and `datetime`: a moment as the person reads it, on their calendar and their clock.
//!
//! A moment (RFC 3339, seconds since 1970) is shown in the zone given, else the contact's, else UTC. A date or time
//! without a zone is shown as it is: nobody can say which moment it was.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, State, Value};

use super::language::Language;
use super::{Arguments, COST, given, language, rendering, wrong};

/// Longer than any way to write a moment.
const LONGEST: usize = 100;

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Shown {
    Date,
    Time,
    DateAndTime,
}

/// `value | date`, `date('short')`, `date('%d.%m.%Y', zone='Asia/Almaty')`.
pub(super) fn moment(
    shown: Shown,
    state: &State<'_, '_>,
    value: &Value,
    placed: &[Value],
    named: Kwargs,
) -> Result<String, Error> {
    state.consume_fuel(COST)?;
    given(value)?;
    let arguments = Arguments::of(placed, named)?;
    let style = arguments.first_or_named("style")?;
    let zone = arguments.named("zone")?;
    arguments.finish()?;
    let zone = zone.as_ref().map_or_else(|| rendering(state).zone.clone(), |zone| zone.as_str().map(Into::into));
    let language = language(state)?;
    let (at, has) = parse(value, zone.as_deref())?;
    if has == Shown::Date && shown != Shown::Date {
        return Err(wrong("this is a date without a time of day: show it with `date`"));
    }
    if has == Shown::Time && shown != Shown::Time {
        return Err(wrong("this is a time of day without a date: show it with `time`"));
    }
    let date = at.datetime().date();
    match style.as_ref().map(|style| style.as_str().unwrap_or_default()) {
        None | Some("long") => Ok(match shown {
            Shown::Date => long_date(language, date),
            Shown::Time => clock(language, &at),
            Shown::DateAndTime => format!("{}, {}", long_date(language, date), clock(language, &at)),
        }),
        Some("short") => Ok(match shown {
            Shown::Date => short_date(language, date),
            Shown::Time => clock(language, &at),
            Shown::DateAndTime => format!("{}, {}", short_date(language, date), clock(language, &at)),
        }),
        Some(pattern) if pattern.contains('%') => with_pattern(language, pattern, &at),
        Some(other) => {
            let other: String = other.chars().take(30).collect();
            Err(wrong(format!("there is no style `{other}`: short, long, or a pattern like %d.%m.%Y")))
        }
    }
}

fn long_date(language: Language, date: Date) -> String {
    let (day, month, year) = (date.day(), language.month(date.month()), date.year());
    match language {
        Language::Russian | Language::British => format!("{day} {month} {year}"),
        Language::American => format!("{month} {day}, {year}"),
    }
}

fn short_date(language: Language, date: Date) -> String {
    let (day, month, year) = (date.day(), date.month(), date.year());
    match language {
        Language::Russian => format!("{day:02}.{month:02}.{year}"),
        Language::British => format!("{day:02}/{month:02}/{year}"),
        Language::American => format!("{month}/{day}/{year}"),
    }
}

fn clock(language: Language, at: &Zoned) -> String {
    let (hour, minute) = (at.hour(), at.minute());
    match language {
        Language::Russian | Language::British => format!("{hour:02}:{minute:02}"),
        Language::American => {
            let half = if hour < 12 { "AM" } else { "PM" };
            format!("{}:{minute:02} {half}", if hour % 12 == 0 { 12 } else { hour % 12 })
        }
    }
}

/// As strftime writes it, with the language's own names.
fn with_pattern(language: Language, pattern: &str, at: &Zoned) -> Result<String, Error> {
    if pattern.len() > LONGEST {
        return Err(wrong("this pattern is too long"));
    }
    let mut written = String::new();
    let mut letters = pattern.chars();
    let first_three = |name: &str| name.chars().take(3).collect::<String>();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            written.push(letter);
            continue;
        }
        match letters.next() {
            Some('B') => written.push_str(language.month(at.month())),
            Some('b' | 'h') => written.push_str(&first_three(language.month(at.month()))),
            Some('A') => written.push_str(language.weekday(at.weekday().to_monday_zero_offset())),
            Some('a') => written.push_str(&first_three(language.weekday(at.weekday().to_monday_zero_offset()))),
            Some('%') => written.push('%'),
            next => {
                // Widths are left out: they could ask for any number of zeros.
                let (flag, letter) = if next == Some('-') { ("-", letters.next()) } else { ("", next) };
                let Some(letter) = letter.filter(|letter| "CdeFHIjklMmnPpRSsTtUuVWwYyZzDQ".contains(*letter)) else {
                    return Err(wrong("this pattern has a `%` with nothing behind it that a date could show"));
                };
                let piece = jiff::fmt::strtime::format(format!("%{flag}{letter}"), at);
                written.push_str(&piece.map_err(|error| wrong(error.to_string()))?);
            }
        }
    }
    Ok(written)
}

/// The moment on the calendar and clock to show, and what of it is known.
fn parse(value: &Value, zone: Option<&str>) -> Result<(Zoned, Shown), Error> {
    let shown_as_is = |at: DateTime, has| match at.to_zoned(TimeZone::UTC) {
        Ok(at) => Ok((at, has)),
        Err(error) => Err(wrong(error.to_string())),
    };
    let moment = |at: Timestamp| Ok((at.to_zoned(zone_of(zone)?), Shown::DateAndTime));
    let seconds = |seconds: i64| {
        Timestamp::from_second(seconds)
            .map_err(|_| wrong(format!("{seconds} is too far away for seconds since 1970: are these milliseconds?")))
    };
    let text = match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(text)) => text.trim(),
        (ValueKind::Number, _) => match value.as_i64().or_else(|| whole_seconds(value)) {
            Some(number) => return moment(seconds(number)?),
            None => return Err(wrong("this number is no moment")),
        },
        (kind, _) => return Err(wrong(format!("a {kind} is no moment"))),
    };
    let is_number = (9..=19).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if text.len() <= LONGEST {
        if is_number && let Ok(number) = text.parse() {
            return moment(seconds(number)?);
        }
        if let Ok(at) = text.parse::<Timestamp>() {
            return moment(at);
        }
        let has_time = text.contains(':');
        if has_time && let Ok(at) = text.parse::<DateTime>() {
            return shown_as_is(at, Shown::DateAndTime);
        }
        if !has_time
            && text.len() == 10
            && let Ok(date) = text.parse::<Date>()
        {
            return shown_as_is(date.at(0, 0, 0, 0), Shown::Date);
        }
        if let Some((at, has)) = as_in_russia(text) {
            return shown_as_is(at, has);
        }
    }
    let text: String = text.chars().take(40).collect();
    Err(wrong(format!(
        "`{text}` is no moment: give 2026-01-07, 07.01.2026, 2026-01-07T10:00:00+03:00 or seconds since 1970"
    )))
}

/// `07.01.2026`, `07.01.2026 12:30`, `12:30`, and seconds with either.
fn as_in_russia(text: &str) -> Option<(DateTime, Shown)> {
    match text.split_once(' ') {
        Some((date, time)) => Some((day(date)?.to_datetime(time_of_day(time.trim_start())?), Shown::DateAndTime)),
        None if text.contains(':') => Some((Date::ZERO.to_datetime(time_of_day(text)?), Shown::Time)),
        None => Some((day(text)?.at(0, 0, 0, 0), Shown::Date)),
    }
}

fn day(text: &str) -> Option<Date> {
    let mut pieces = text.split('.');
    let (day, month, year) = (digits(pieces.next()?, 2)?, digits(pieces.next()?, 2)?, pieces.next()?);
    let year = digits(year, 4).filter(|_| year.len() == 4 && pieces.next().is_none())?;
    Date::new(year, month.try_into().ok()?, day.try_into().ok()?).ok()
}

fn time_of_day(text: &str) -> Option<Time> {
    let mut pieces = text.split(':');
    let (hour, minute) = (digits(pieces.next()?, 2)?, pieces.next().filter(|minute| minute.len() == 2)?);
    let second = pieces.next().map_or(Some(0), |second| digits(second, 2))?;
    let minute = digits(minute, 2).filter(|_| pieces.next().is_none())?;
    Time::new(hour.try_into().ok()?, minute.try_into().ok()?, second.try_into().ok()?, 0).ok()
}

fn digits(text: &str, most: usize) -> Option<i16> {
    let fits = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

fn whole_seconds(value: &Value) -> Option<i64> {
    let seconds = f64::try_from(value.clone()).ok()?.floor();
    // Far beyond what can be shown, and exact in both.
    #[expect(clippy::cast_possible_truncation, reason = "the range was just looked at")]
    (seconds.abs() < 1e15).then_some(seconds as i64)
}

fn zone_of(name: Option<&str>) -> Result<TimeZone, Error> {
    let Some(name) = name else { return Ok(TimeZone::UTC) };
    TimeZone::get(name).map_err(|_| {
        let name: String = name.chars().take(60).collect();
        wrong(format!("there is no time zone `{name}`: one is like Europe/Moscow"))
    })
}
