//! The time of day as the queue sees it, so that tests can rule it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::envelope::UnixMillis;

/// A clock that can be waited for.
#[async_trait::async_trait]
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> UnixMillis;
    /// Returns at `time`, or earlier; the caller looks at the clock again.
    async fn sleep_until(&self, time: UnixMillis);
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// The clock may be set while someone sleeps; it is looked at this often at least.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

#[async_trait::async_trait]
impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        // A clock before 1970 reads as 1970.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
    }

    async fn sleep_until(&self, time: UnixMillis) {
        let wait = Duration::from_millis(time.saturating_sub(self.now()));
        tokio::time::sleep(wait.min(LONGEST_SLEEP)).await;
    }
}

/// A duration in the unit of [`UnixMillis`].
pub(crate) fn millis(duration: Duration) -> UnixMillis {
    UnixMillis::try_from(duration.as_millis()).unwrap_or(UnixMillis::MAX)
}
