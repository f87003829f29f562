//! A time as people give it: with an offset, with a zone, or as the clock on the wall of an account shows it.

use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, Zoned};

use super::AccountRef;

/// `2030-01-01T10:00:00+03:00`, `2030-01-01T10:00[Europe/Moscow]`, or `2030-01-01T10:00` without a zone.
///
/// An hour that comes twice, when clocks are put back, is the first of the two. One that clocks are put forward over is
/// none.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum GivenTime {
    Moment(Timestamp),
    /// To be read in the account's time zone.
    OnTheWall(DateTime),
}

/// Why a text is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GivenTimeError {
    #[error(
        "`{0}` is no time: expected one like 2030-01-01T10:00:00+03:00, 2030-01-01T10:00[Europe/Moscow], or \
         2030-01-01T10:00 in the account's time zone"
    )]
    Unreadable(String),
    #[error("there is no time zone `{0}`: expected a name like Europe/Moscow")]
    UnknownZone(String),
    #[error("`{0}` contradicts itself: in that zone the offset is another one at that time")]
    Contradiction(String),
    #[error("{time} is no time in {zone}: clocks are put forward over it; give a later one, or an offset, like +03:00")]
    PassedOver { time: DateTime, zone: String },
    #[error("{time} has no time zone: add an offset, like +03:00, or set `timezone` of the account {account}")]
    NoZone { time: DateTime, account: AccountRef },
}

impl GivenTime {
    /// The moment it is, to an account and in its time zone.
    ///
    /// # Errors
    /// When it has no zone and the account has none, or the zone no such time.
    pub fn moment(&self, zone: Option<&TimeZone>, account: &AccountRef) -> Result<Timestamp, GivenTimeError> {
        match (self, zone) {
            (GivenTime::Moment(moment), _) => Ok(*moment),
            (GivenTime::OnTheWall(time), Some(zone)) => in_zone(*time, zone),
            (GivenTime::OnTheWall(time), None) => Err(GivenTimeError::NoZone { time: *time, account: account.clone() }),
        }
    }
}

fn in_zone(time: DateTime, zone: &TimeZone) -> Result<Timestamp, GivenTimeError> {
    let ambiguous = zone.to_ambiguous_timestamp(time);
    let passed_over = || GivenTimeError::PassedOver { time, zone: zone.iana_name().unwrap_or("that zone").to_owned() };
    match ambiguous.offset() {
        AmbiguousOffset::Gap { .. } => Err(passed_over()),
        // Of two, the first.
        _ => ambiguous.earlier().map_err(|_| GivenTimeError::Unreadable(time.to_string())),
    }
}

impl FromStr for GivenTime {
    type Err = GivenTimeError;

    fn from_str(text: &str) -> Result<Self, GivenTimeError> {
        let unreadable = || GivenTimeError::Unreadable(text.to_owned());
        if let Some((_, zone)) = text.split_once('[') {
            let name = zone.trim_end_matches(']').trim_start_matches('!');
            let zone = TimeZone::get(name).map_err(|_| GivenTimeError::UnknownZone(name.to_owned()))?;
            // What has a zone may have an offset, too, and then they have to agree.
            let on_the_wall = text.parse::<DateTime>().ok();
            return match (text.parse::<Zoned>(), on_the_wall) {
                (Ok(zoned), Some(time)) if zoned.datetime() != time => in_zone(time, &zone).map(GivenTime::Moment),
                (Ok(zoned), _) => Ok(GivenTime::Moment(zoned.timestamp())),
                (Err(_), Some(_)) => Err(GivenTimeError::Contradiction(text.to_owned())),
                (Err(_), None) => Err(unreadable()),
            };
        }
        if let Ok(moment) = text.parse::<Timestamp>() {
            return Ok(GivenTime::Moment(moment));
        }
        // A day alone would mean midnight, which nobody means.
        let has_hour = text.contains(['T', 't', ' ']);
        let time = text.parse::<DateTime>().ok().filter(|_| has_hour);
        time.map(GivenTime::OnTheWall).ok_or_else(unreadable)
    }
}

impl TryFrom<String> for GivenTime {
    type Error = GivenTimeError;

    fn try_from(text: String) -> Result<Self, GivenTimeError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Channel;

    /// The moment a text means to an account in this zone, or why it means none.
    fn read_in(zone: Option<&str>, text: &str) -> String {
        let zone = zone.map(|name| TimeZone::get(name).expect("it is known"));
        let account = AccountRef { channel: Channel::WhatsApp, name: "main".into() };
        let moment = text.parse::<GivenTime>().and_then(|given| given.moment(zone.as_ref(), &account));
        moment.map_or_else(|error| error.to_string(), |moment| moment.to_string())
    }

    #[test]
    fn times_are_read_with_an_offset_a_zone_or_that_of_the_account() {
        for text in ["2030-01-01T10:00:00+03:00", "2030-01-01T07:00:00Z", "2030-01-01T10:00[Europe/Moscow]"] {
            assert_eq!(read_in(None, text), "2030-01-01T07:00:00Z", "{text}");
            assert_eq!(read_in(Some("Asia/Tokyo"), text), "2030-01-01T07:00:00Z", "{text}");
        }
        for text in ["2030-01-01T10:00", "2030-01-01 10:00", "2030-01-01T10:00:00"] {
            assert_eq!(read_in(Some("Europe/Moscow"), text), "2030-01-01T07:00:00Z", "{text}");
        }
    }

    #[test]
    fn an_hour_that_comes_twice_is_the_first_one() {
        for (zone, text) in [(Some("Europe/Berlin"), "2030-10-27T02:30"), (None, "2030-10-27T02:30[Europe/Berlin]")] {
            assert_eq!(read_in(zone, text), "2030-10-27T00:30:00Z", "{text}");
        }
        // An offset says which of the two.
        assert_eq!(read_in(None, "2030-10-27T02:30+01:00[Europe/Berlin]"), "2030-10-27T01:30:00Z");
    }

    #[test]
    fn what_is_no_time_is_refused_with_an_example() {
        let berlin = Some("Europe/Berlin");
        let refused = [
            read_in(None, "2030-01-01T10:00"),
            read_in(berlin, "tomorrow"),
            read_in(berlin, "2030-01-01"),
            read_in(berlin, "2030-13-01T10:00"),
            read_in(berlin, "2030-03-31T02:30"),
            read_in(None, "2030-03-31T02:30[Europe/Berlin]"),
            read_in(None, "2030-01-01T10:00[Mars/Phobos]"),
            read_in(None, "2030-01-01T10:00+05:00[Europe/Moscow]"),
            read_in(None, "soon[Europe/Moscow]"),
        ];
        insta::assert_snapshot!(refused.join("\n"), @"
        2030-01-01T10:00:00 has no time zone: add an offset, like +03:00, or set `timezone` of the account whatsapp.main
        `tomorrow` is no time: expected one like 2030-01-01T10:00:00+03:00, 2030-01-01T10:00[Europe/Moscow], or 2030-01-01T10:00 in the account's time zone
        `2030-01-01` is no time: expected one like 2030-01-01T10:00:00+03:00, 2030-01-01T10:00[Europe/Moscow], or 2030-01-01T10:00 in the account's time zone
        `2030-13-01T10:00` is no time: expected one like 2030-01-01T10:00:00+03:00, 2030-01-01T10:00[Europe/Moscow], or 2030-01-01T10:00 in the account's time zone
        2030-03-31T02:30:00 is no time in Europe/Berlin: clocks are put forward over it; give a later one, or an offset, like +03:00
        2030-03-31T02:30:00 is no time in Europe/Berlin: clocks are put forward over it; give a later one, or an offset, like +03:00
        there is no time zone `Mars/Phobos`: expected a name like Europe/Moscow
        `2030-01-01T10:00+05:00[Europe/Moscow]` contradicts itself: in that zone the offset is another one at that time
        `soon[Europe/Moscow]` is no time: expected one like 2030-01-01T10:00:00+03:00, 2030-01-01T10:00[Europe/Moscow], or 2030-01-01T10:00 in the account's time zone
        ");
    }
}
