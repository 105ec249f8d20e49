//! The message that tells a user when the mailbox has become 80 or 95 % full.

use std::time::SystemTime;

use pillarbox_message::notice::{self, Letter};
use pillarbox_smtp::Mailbox;

/// Percent at which a user is warned.
const MARKS: [u64; 2] = [95, 80];

/// What a delivery did to a mailbox, in octets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crossing {
    pub(crate) limit: u64,
    pub(crate) before: u64,
    pub(crate) after: u64,
}

impl Crossing {
    /// The highest mark that was passed. Once for each crossing, since the next delivery starts above it.
    pub(crate) fn mark(self) -> Option<u64> {
        let reached = |octets: u64, mark: u64| u128::from(octets) * 100 >= u128::from(self.limit) * u128::from(mark);
        MARKS.into_iter().find(|&mark| !reached(self.before, mark) && reached(self.after, mark))
    }
}

/// The warning, with CRLF line ends.
pub(crate) fn message(hostname: &str, user: &Mailbox, crossing: Crossing, now: SystemTime) -> Vec<u8> {
    let millis = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let letter = Letter { hostname, to: user, now: u64::try_from(millis).unwrap_or(u64::MAX), random: rand::random() };
    notice::quota_warning(&letter, crossing.after, crossing.limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_crossed_once_and_the_highest_counts() {
        for (before, after, mark) in
            [(0, 79, None), (79, 80, Some(80)), (80, 81, None), (94, 95, Some(95)), (10, 96, Some(95)), (95, 100, None), (96, 90, None)]
        {
            assert_eq!(Crossing { limit: 100, before, after }.mark(), mark, "{before} {after}");
        }
        assert_eq!(Crossing { limit: u64::MAX, before: 0, after: u64::MAX }.mark(), Some(95));
    }
}
