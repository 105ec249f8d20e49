//! Taking responsibility: the journal, deferred mail, the schedule.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod adopt;
pub mod body;
mod body_file;
mod body_writer;
mod budget;
pub mod clock;
mod deadlines;
mod deferred;
pub mod disk;
pub mod envelope;
mod events;
pub mod fake;
pub mod feed;
mod finish;
mod health;
pub mod id;
mod journal;
mod keep_index;
mod keeper;
mod operate;
mod queue;
mod recover;
mod report;
mod schedule;
mod serve;
mod start;
mod suspended;
pub mod transport;

pub use adopt::{AdoptError, Adopted};
pub use body::Body;
pub use body_writer::BodyWriter;
pub use deferred::ParkedFiles;
pub use envelope::{Door, Envelope, Recipient, Route, Source, Status, UnixMillis};
pub use feed::Feed;
pub use health::{DiskHealth, JournalHealth, QueueHealth};
pub use id::{BadQueueId, QueueId};
pub use operate::{DestinationSummary, ListFilter, RetryFilter};
pub use queue::{AcceptError, Hooks, Queue};
pub use schedule::Transports;
pub use start::{OpenError, Tools};
pub use transport::{Delivery, Destination, Outcome, Outcomes, Transport};

#[cfg(test)]
mod tests;
