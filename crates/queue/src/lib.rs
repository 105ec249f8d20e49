//! Taking responsibility: the journal, deferred mail, the schedule.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod body;
mod body_writer;
pub mod disk;
pub mod envelope;
pub mod fake;
pub mod feed;
pub mod id;
mod journal;
pub mod transport;

pub use body::Body;
pub use body_writer::BodyWriter;
pub use envelope::{Door, Envelope, Recipient, Route, Source, Status, UnixMillis};
pub use feed::Feed;
pub use id::{BadQueueId, QueueId};
pub use transport::{Delivery, Destination, Outcome, Outcomes, Transport};
