//! Dates as RFC 5322 §3.3 writes them. The time is passed in; nothing here reads a clock.

use time::OffsetDateTime;

/// Milliseconds since the epoch, UTC: the one form of time that passes between rooms.
pub type UnixMillis = u64;

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Tue, 24 Nov 2026 06:42:19 +0000`. A time past the year 9999 is written as the last second of it.
pub fn rfc5322(at: UnixMillis) -> String {
    let mut text = String::with_capacity(31);
    push_rfc5322(&mut text, at);
    text
}

/// Like [`rfc5322`], appended to `out` without a further allocation.
pub fn push_rfc5322(out: &mut String, at: UnixMillis) {
    /// 9999-12-31T23:59:59Z, the last moment that RFC 5322's four-digit year can name.
    const LAST: i64 = 253_402_300_799;
    let seconds = i64::try_from(at / 1000).unwrap_or(LAST).min(LAST);
    let t = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let day = DAYS.get(usize::from(t.weekday().number_days_from_sunday())).copied().unwrap_or("Sun");
    let month = MONTHS.get(usize::from(u8::from(t.month())).wrapping_sub(1)).copied().unwrap_or("Jan");
    out.push_str(day);
    out.push_str(", ");
    two(out, t.day());
    out.push(' ');
    out.push_str(month);
    out.push(' ');
    let year = u16::try_from(t.year()).unwrap_or(9999);
    two(out, u8::try_from(year / 100).unwrap_or(99));
    two(out, u8::try_from(year % 100).unwrap_or(99));
    for (separator, value) in [(' ', t.hour()), (':', t.minute()), (':', t.second())] {
        out.push(separator);
        two(out, value);
    }
    out.push_str(" +0000");
}

/// Two digits.
fn two(out: &mut String, value: u8) {
    out.push(char::from(b'0' + (value / 10) % 10));
    out.push(char::from(b'0' + value % 10));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        assert_eq!(rfc5322(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(rfc5322(1_795_502_539_000), "Tue, 24 Nov 2026 06:42:19 +0000");
        assert_eq!(rfc5322(951_782_400_000), "Tue, 29 Feb 2000 00:00:00 +0000");
        assert_eq!(rfc5322(u64::MAX), "Fri, 31 Dec 9999 23:59:59 +0000");
    }

    proptest::proptest! {
        #[test]
        fn another_parser_reads_the_same_moment(seconds in 0u64..4_000_000_000) {
            let text = rfc5322(seconds * 1000);
            let message = format!("Date: {text}\r\n\r\n");
            let parsed = mail_parser::MessageParser::default().parse(message.as_bytes()).unwrap();
            proptest::prop_assert_eq!(parsed.date().unwrap().to_timestamp(), seconds as i64);
        }
    }
}
