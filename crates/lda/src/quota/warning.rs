//! The message that tells a user when the mailbox has become 80 or 95 % full.

use std::time::SystemTime;

use pillarbox_message::notice::{self, Letter};
use pillarbox_smtp::Mailbox;

/// Percent at which a user is warned.
const MARKS: [u64; 2] = [95, 80];

/// The highest mark that was passed on the way from `before` to `after` octets. Once for each crossing, since the next delivery starts above it.
pub(crate) fn crossed(limit: u64, before: u64, after: u64) -> Option<u64> {
    let reached = |octets: u64, mark: u64| u128::from(octets) * 100 >= u128::from(limit) * u128::from(mark);
    MARKS.into_iter().find(|&mark| !reached(before, mark) && reached(after, mark))
}

/// The warning, with CRLF line ends.
pub(crate) fn message(hostname: &str, user: &Mailbox, used: u64, limit: u64, now: SystemTime) -> Vec<u8> {
    let millis = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let letter = Letter { hostname, to: user, now: u64::try_from(millis).unwrap_or(u64::MAX), random: rand::random() };
    notice::quota_warning(&letter, used, limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_crossed_once_and_the_highest_counts() {
        for (before, after, mark) in
            [(0, 79, None), (79, 80, Some(80)), (80, 81, None), (94, 95, Some(95)), (10, 96, Some(95)), (95, 100, None), (96, 90, None)]
        {
            assert_eq!(crossed(100, before, after), mark, "{before} {after}");
        }
        assert_eq!(crossed(u64::MAX, 0, u64::MAX), Some(95));
    }
}
