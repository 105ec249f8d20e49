//! Taking responsibility: the journal, deferred mail, the schedule.

pub mod envelope;
pub mod id;

pub use envelope::{Door, Envelope, Recipient, Route, Source, Status, UnixMillis};
pub use id::{BadQueueId, QueueId};
