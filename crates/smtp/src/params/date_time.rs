//! RFC 3339 dates as HOLDUNTIL carries them (RFC 4865 §6), to and from seconds since the epoch. No clock, no time zones but offsets.

use std::fmt::Write as _;

const DAY: i64 = 86_400;

/// Writes `2030-01-31T12:00:00Z`. Years past 9999 are cut to its end.
pub fn format_date_time(unix: u64) -> String {
    /// 9999-12-31T23:59:59Z.
    const LAST: i64 = 253_402_300_799;
    let unix = i64::try_from(unix).unwrap_or(LAST).min(LAST);
    let (year, month, day) = civil_from_days(unix.div_euclid(DAY));
    let second = unix.rem_euclid(DAY);
    let mut out = String::with_capacity(20);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60);
    out
}

/// Parses an RFC 3339 `date-time`; fractions of a second are dropped, a leap second counts as the next. `None` when malformed or
/// before 1970.
pub fn parse_date_time(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let (marker, rest) = rest.split_at_checked(1)?;
    let (time, rest) = rest.split_at_checked(8)?;
    let [year, month, day] = fields(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = fields(time, ':', [2, 2, 2])?;
    if !marker.eq_ignore_ascii_case("t") || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 {
                return None;
            }
            fraction.get(digits..)?
        }
        None => rest,
    };
    let offset = match zone.split_at_checked(1)? {
        (z, "") if z.eq_ignore_ascii_case("z") => 0,
        (sign @ ("+" | "-"), hours) => {
            let [hours, minutes] = fields(hours, ':', [2, 2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if sign == "-" { -1 } else { 1 }
        }
        _ => return None,
    };
    let days = days_from_civil(year, month, day);
    // Round trip: finds the 31st of June and the 29th of February in common years.
    if civil_from_days(days) != (year, month, day) {
        return None;
    }
    u64::try_from(days * DAY + hour * 3600 + minute * 60 + second - offset).ok()
}

/// Fields of fixed widths of digits between separators.
fn fields<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut out = [0; N];
    let mut parts = text.split(separator);
    for (slot, width) in out.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *slot = part.parse().ok()?;
    }
    if parts.next().is_some() { None } else { Some(out) }
}

/// Days since 1970-01-01 of a date in the Gregorian calendar (years counted from March, so that leap days come last).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_dates() {
        assert_eq!(format_date_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(parse_date_time("2000-02-29T12:34:56Z"), Some(951_827_696));
        assert_eq!(parse_date_time("2000-02-29t13:34:56.789+01:00"), Some(951_827_696));
        assert_eq!(parse_date_time("1969-12-31T23:59:59-00:01"), Some(59));
        assert_eq!(format_date_time(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn malformed_dates() {
        for text in [
            "",
            "2030-01-01",
            "2030-01-01T00:00:00",
            "2030-13-01T00:00:00Z",
            "2030-02-29T00:00:00Z",
            "2030-06-31T00:00:00Z",
            "2030-00-10T00:00:00Z",
            "2030-01-01T24:00:00Z",
            "2030-01-01T00:00:00.Z",
            "2030-01-01T00:00:00+1:00",
            "2030-01-01T00:00:00ZZ",
            "1969-12-31T23:59:59Z",
            "+030-01-01T00:00:00Z",
            "2030-01-0é00:00:00Z",
        ] {
            assert_eq!(parse_date_time(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(unix in 0u64..253_402_300_800) {
            prop_assert_eq!(parse_date_time(&format_date_time(unix)), Some(unix));
        }

        #[test]
        fn any_text(text in ".{0,40}") {
            let _ = parse_date_time(&text);
        }
    }
}
