//! Units as the file writes them: sizes (`"25M"`), durations (`"5m"`), rates (`"500/h"`).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A size in octets. Written as an integer or with K, M, G, T (powers of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// So many MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
    /// Octets.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a size: write octets, or a number with K, M, G or T, such as \"25M\"");
        let trimmed = text.trim();
        let lower = trimmed.to_ascii_lowercase();
        let stem = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
        let (digits, shift) = match stem.chars().last() {
            Some('k') => (stem.strip_suffix('k'), 10),
            Some('m') => (stem.strip_suffix('m'), 20),
            Some('g') => (stem.strip_suffix('g'), 30),
            Some('t') => (stem.strip_suffix('t'), 40),
            _ => (Some(stem), 0),
        };
        let number: u64 = digits.unwrap_or("").trim().parse().map_err(|_| bad())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for ByteSize {
    /// The largest unit that leaves no remainder: `50M`, `1500`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"25M\", or a number of octets")
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(n))
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<ByteSize, E> {
                u64::try_from(n).map(ByteSize).map_err(|_| E::custom("a size cannot be negative"))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        d.deserialize_any(Visitor)
    }
}

/// So many in a period; `NONE` (written `""`) is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many; 0 is no limit.
    pub count: u32,
    /// In how long.
    pub period: Duration,
}

impl Rate {
    /// No limit.
    pub const NONE: Self = Self { count: 0, period: Duration::from_secs(1) };
    /// So many an hour.
    pub const fn per_hour(count: u32) -> Self {
        Self { count, period: Duration::from_secs(3600) }
    }
    /// Whether there is a limit.
    pub const fn is_limited(self) -> bool {
        self.count > 0
    }
}

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::NONE);
        }
        let bad = || format!("{text:?} is not a rate: write a number and s, m, h or d, such as \"500/h\"");
        let (count, unit) = text.split_once('/').ok_or_else(bad)?;
        let count: u32 = count.trim().parse().map_err(|_| bad())?;
        let seconds = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86400,
            _ => return Err(bad()),
        };
        if count == 0 {
            return Err(format!("{text:?} allows nothing: leave the rate empty for no limit"));
        }
        Ok(Self { count, period: Duration::from_secs(seconds) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_limited() {
            return Ok(());
        }
        let unit = match self.period.as_secs() {
            60 => "m",
            3600 => "h",
            86400 => "d",
            _ => "s",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// Durations as text: `"30s"`, `"5m"`, `"4h"`, `"5d"`, `"1h 30m"`.
pub mod duration_text {
    use super::*;

    /// Writes the shortest exact form.
    pub fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::format_duration(*value))
    }

    /// Reads text; a bare number is refused, since nobody knows its unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        super::parse_duration(&text).map_err(de::Error::custom)
    }
}

/// Lists of durations.
pub mod duration_list {
    use super::*;

    /// See [`duration_text::serialize`].
    pub fn serialize<S: Serializer>(values: &[Duration], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(values.iter().map(|v| super::format_duration(*v)))
    }

    /// See [`duration_text::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Duration>, D::Error> {
        Vec::<String>::deserialize(d)?.iter().map(|t| super::parse_duration(t).map_err(de::Error::custom)).collect()
    }
}

/// Reads `"5m"`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|_| format!("{text:?} is not a duration: write a number and a unit, such as \"30s\", \"5m\", \"4h\" or \"5d\""))
}

/// Writes a duration as the file would: `"5d"`, `"1h 30m"`, `"0s"`; milliseconds where there are any.
pub fn format_duration(value: Duration) -> String {
    let mut rest = value.as_secs();
    let mut parts = Vec::new();
    for (unit, seconds) in [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)] {
        if rest >= seconds {
            parts.push(format!("{}{unit}", rest / seconds));
            rest %= seconds;
        }
    }
    if value.subsec_millis() > 0 {
        parts.push(format!("{}ms", value.subsec_millis()));
    }
    if parts.is_empty() { "0s".into() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_rates_and_durations_are_read_as_people_write_them() {
        assert_eq!("25M".parse(), Ok(ByteSize::mib(25)));
        assert_eq!("1 GiB".parse(), Ok(ByteSize::mib(1024)));
        assert_eq!("1500".parse(), Ok(ByteSize(1500)));
        assert_eq!(Rate::per_hour(500).to_string(), "500/h");
        assert_eq!("".parse(), Ok(Rate::NONE));
        for bad in ["", "M", "-1", "1.5M", "99999999999999999999", "16777216T", "5X"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        for bad in ["5", "0/h", "5/w", "x/h", "/h"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
        for bad in ["5", "", "m", "-5m", "5 fortnights"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(octets in any::<u64>(), millis in 0u64..100_000_000_000, count in 1u32..) {
            prop_assert_eq!(ByteSize(octets).to_string().parse(), Ok(ByteSize(octets)));
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            let rate = Rate { count, period: Duration::from_secs(86400) };
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = text.parse::<ByteSize>();
            let _ = text.parse::<Rate>();
            let _ = parse_duration(&text);
        }
    }
}
