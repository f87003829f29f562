//! What the filters know of a language: its months, its plurals, its signs.
//!
//! Two languages are small enough for tables. Another one is a variant here, and the compiler names every place that has
//! to know it.

/// A language that the filters speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Russian,
    /// January 7, 2026; 2:30 PM.
    American,
    /// 7 January 2026; 14:30.
    British,
}

/// What a template that names no locale is written in.
pub(crate) const USUAL: Language = Language::Russian;

impl Language {
    /// `en` without a region, or with the United States, is American; any other English writes dates as Britain does.
    pub(crate) fn of_locale(locale: &str) -> Option<Language> {
        let small = locale.to_ascii_lowercase().replace('_', "-");
        let mut subtags = small.split('-');
        match (subtags.next(), subtags.next()) {
            (Some("ru"), _) => Some(Language::Russian),
            (Some("en"), None | Some("us")) => Some(Language::American),
            (Some("en"), Some(_)) => Some(Language::British),
            _ => None,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Language::Russian => "Russian",
            Language::American | Language::British => "English",
        }
    }

    /// As it stands in a date.
    pub(super) fn month(self, month: i8) -> &'static str {
        let months = match self {
            Language::Russian => &RUSSIAN_MONTHS,
            Language::American | Language::British => &ENGLISH_MONTHS,
        };
        months[usize::try_from(month - 1).unwrap_or(0).min(11)]
    }

    /// From Monday as 0.
    pub(super) fn weekday(self, day: i8) -> &'static str {
        let days = match self {
            Language::Russian => &RUSSIAN_DAYS,
            Language::American | Language::British => &ENGLISH_DAYS,
        };
        days[usize::try_from(day).unwrap_or(0).min(6)]
    }

    pub(super) const fn plural_forms(self) -> usize {
        match self {
            Language::Russian => 3,
            Language::American | Language::British => 2,
        }
    }

    /// Which of its forms goes with a number: the whole part, and whether there is more (CLDR's rules).
    pub(super) fn plural(self, whole: u64, has_fraction: bool) -> usize {
        match self {
            // «2,5 заявки» takes the form of «2 заявки».
            Language::Russian if has_fraction => 1,
            Language::Russian => match (whole % 10, whole % 100) {
                (_, 11..=14) => 2,
                (1, _) => 0,
                (2..=4, _) => 1,
                _ => 2,
            },
            Language::American | Language::British => usize::from(whole != 1 || has_fraction),
        }
    }
}

const RUSSIAN_MONTHS: [&str; 12] = [
    "января",
    "февраля",
    "марта",
    "апреля",
    "мая",
    "июня",
    "июля",
    "августа",
    "сентября",
    "октября",
    "ноября",
    "декабря",
];
const RUSSIAN_DAYS: [&str; 7] = ["понедельник", "вторник", "среда", "четверг", "пятница", "суббота", "воскресенье"];
const ENGLISH_MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const ENGLISH_DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
