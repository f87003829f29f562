//! Tables of a provider's numeric error codes: data, in the modules of the providers.

use std::time::Duration;

use super::outcomes::Verdict;
use crate::domain::ThrottleScope;

/// One code or one range of codes.
#[derive(Clone, Copy, Debug)]
pub struct CodeRow {
    pub first: i64,
    pub last: i64,
    pub verdict: Verdict,
    pub meaning: &'static str,
}

/// The row of a code, if it is known.
pub fn row(table: &'static [CodeRow], code: i64) -> Option<&'static CodeRow> {
    table.iter().find(|row| (row.first..=row.last).contains(&code))
}

pub(super) const fn one(code: i64, verdict: Verdict, meaning: &'static str) -> CodeRow {
    CodeRow { first: code, last: code, verdict, meaning }
}

pub(super) const fn rest(scope: ThrottleScope, seconds: u64) -> Verdict {
    Verdict::Throttled(scope, Duration::from_secs(seconds))
}

pub(super) const MINUTE: u64 = 60;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

#[cfg(test)]
pub(super) fn assert_no_code_has_two_rows(table: &[CodeRow]) {
    for (n, row) in table.iter().enumerate() {
        assert!(row.first <= row.last);
        for other in &table[n + 1..] {
            assert!(row.last < other.first || other.last < row.first, "{} and {}", row.first, other.first);
        }
    }
}
