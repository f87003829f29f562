//! How long an answer takes.

use std::fmt;
use std::time::Duration;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::chance;

/// The time between a read request and its answer, in milliseconds: one number for always the same, or three.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Latency {
    Fixed(f64),
    Spread(LatencySpread),
}

/// `min` plus a log-normal part that puts half of all answers under `p50` and 99 % under `p99`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencySpread {
    pub min: f64,
    pub p50: f64,
    pub p99: f64,
}

/// No answer is made to wait longer, however far out in the tail: an hour.
const LONGEST_MS: f64 = 3_600_000.0;

impl Default for Latency {
    fn default() -> Self {
        Latency::Fixed(0.0)
    }
}

impl Latency {
    /// The latency that a throw stands for.
    pub(super) fn at(&self, throw: u64) -> Duration {
        let milliseconds = match *self {
            Latency::Fixed(milliseconds) => milliseconds,
            Latency::Spread(LatencySpread { min, p50, p99 }) => {
                /// Under this a spread is flat to the eye, and the logarithm stays finite.
                const SMALLEST_PART_MS: f64 = 0.001;
                let median = (p50 - min).max(SMALLEST_PART_MS);
                let high = (p99 - min).max(median);
                let sigma = (high / median).ln() / chance::normal_quantile(0.99);
                // Half a step above zero: the quantile of zero itself is infinite.
                let share = chance::unit(throw).max(f64::EPSILON);
                min + median * (sigma * chance::normal_quantile(share)).exp()
            }
        };
        Duration::from_secs_f64(milliseconds.clamp(0.0, LONGEST_MS) / 1000.0)
    }

    /// Says what is wrong with the numbers.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match *self {
            Latency::Fixed(milliseconds) if (0.0..=LONGEST_MS).contains(&milliseconds) => Ok(()),
            Latency::Spread(LatencySpread { min, p50, p99 })
                if 0.0 <= min && min <= p50 && p50 <= p99 && p99 <= LONGEST_MS =>
            {
                Ok(())
            }
            Latency::Fixed(_) => Err("expected milliseconds from 0 to 3600000"),
            Latency::Spread(_) => Err("expected 0 <= min <= p50 <= p99 <= 3600000 milliseconds"),
        }
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrSpread;

        impl<'de> Visitor<'de> for NumberOrSpread {
            type Value = Latency;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("milliseconds, or {\"min\", \"p50\", \"p99\"} in milliseconds")
            }

            fn visit_f64<E: de::Error>(self, milliseconds: f64) -> Result<Latency, E> {
                Ok(Latency::Fixed(milliseconds))
            }

            fn visit_u64<E: de::Error>(self, milliseconds: u64) -> Result<Latency, E> {
                Ok(Latency::Fixed(milliseconds as f64))
            }

            fn visit_i64<E: de::Error>(self, milliseconds: i64) -> Result<Latency, E> {
                Ok(Latency::Fixed(milliseconds as f64))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Latency, A::Error> {
                LatencySpread::deserialize(de::value::MapAccessDeserializer::new(map)).map(Latency::Spread)
            }
        }

        deserializer.deserialize_any(NumberOrSpread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_keeps_its_percentiles() {
        let latency = Latency::Spread(LatencySpread { min: 20.0, p50: 80.0, p99: 900.0 });
        let mut drawn: Vec<_> = (0..100_000).map(|n| latency.at(chance::mixed(n)).as_secs_f64() * 1000.0).collect();
        drawn.sort_by(f64::total_cmp);
        assert!(drawn[0] >= 20.0);
        assert!((drawn[50_000] - 80.0).abs() < 2.0, "p50 {}", drawn[50_000]);
        assert!((drawn[99_000] - 900.0).abs() < 60.0, "p99 {}", drawn[99_000]);
    }

    #[test]
    fn an_odd_spread_is_refused_and_a_flat_one_is_flat() {
        assert!(Latency::Spread(LatencySpread { min: 5.0, p50: 1.0, p99: 9.0 }).check().is_err());
        assert!(Latency::Fixed(-1.0).check().is_err());
        assert!(Latency::Fixed(f64::NAN).check().is_err());
        let flat = Latency::Spread(LatencySpread { min: 5.0, p50: 5.0, p99: 5.0 });
        assert!((flat.at(chance::mixed(1)).as_secs_f64() - 0.005).abs() < 1e-4);
    }
}
