//! What this room asks of the one that wires it: a door for generated mail, and the time.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use pillarbox_queue::Envelope;

/// Takes over a generated message with CRLF line ends (a vacation reply). The envelope has the null reverse path, `Door::Internal`, one recipient whose
/// route is not resolved yet, and an id of 0: whoever wires this gives it an id and a route, and accepts it into the queue.
pub type Submit = Arc<dyn Fn(Envelope, Vec<u8>) -> BoxFuture<'static, ()> + Send + Sync>;

/// The way out of this room.
#[derive(Clone)]
pub struct Hooks {
    /// See [`Submit`].
    pub submit: Submit,
    /// The time; the system's, unless a test rules it.
    pub now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// How long an idle LMTP connection is kept for the next message.
    pub lmtp_patience: Duration,
}

impl Hooks {
    /// With the system's clock.
    pub fn new(submit: Submit) -> Self {
        Self { submit, now: Arc::new(SystemTime::now), lmtp_patience: Duration::from_secs(2) }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}
