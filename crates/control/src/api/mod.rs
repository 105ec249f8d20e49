//! The JSON that passes over the control socket; `--json` prints the same values. Fields may be added, none renamed.

mod directory;
mod nodes;
mod queue;
mod status;

pub use directory::*;
pub use nodes::*;
pub use queue::*;
pub use status::*;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since the epoch as RFC 3339 UTC to the second, the form of every time in the API.
pub fn rfc3339(millis: u64) -> String {
    let seconds = i64::try_from(millis / 1000).unwrap_or(i64::MAX);
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}

/// This moment in milliseconds since the epoch.
pub fn now_millis() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
