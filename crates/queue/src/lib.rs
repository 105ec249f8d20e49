//! Taking responsibility: the journal, deferred mail, the schedule.
//!
//! [`Queue::accept`] answers once a message survives a power cut. From then on the queue hands its recipients, grouped by
//! [`Destination`], to a [`Transport`], tries again what is put off, and tells senders what became of their mail.
//!
//! # What a crash leaves, and what start-up makes of it
//!
//! | state of a message | on disk | after SIGKILL | after a power cut |
//! | --- | --- | --- | --- |
//! | received | its file under `spool/`, if it is large | removed | removed |
//! | journalled, not acknowledged | a record that no sync covers | delivered (the client, who heard nothing, may send again) | delivered, or cut off |
//! | acknowledged | a synced record (and a synced file) | delivered | delivered |
//! | stored at once ([`Queue::take`]) | a synced file in a mailbox, and nothing here | nothing to do (before the answer: the client may send again) | the same |
//! | handed over | the same | delivered again, marked as [`Delivery::replayed`]: a mailbox finds its earlier work | the same |
//! | taken by another host | a note, written before anything else is done | not sent again, but for the one message between the host's answer and the note | not sent again if a later sync covered the note |
//! | stored in a mailbox | a note | not stored again | replayed until [`Transport::sync`] has covered it and that was noted |
//! | failed | a note, in one write with the report | reported once | reported once |
//! | parking | files under `deferred/`, the envelope under another name | the journal counts; the files go | the same |
//! | parked | `deferred/XX/ID.json` and `.msg`, synced; then a note | the files count, with what the journal knows besides | the same |
//! | updated | the new envelope synced under another name, then renamed; meanwhile notes in the journal | the notes are applied | the same |
//! | finished | notes; then the envelope goes, and once that is durable the message | what is left goes | the same |
//!
//! A segment of the journal is used again only when nothing needs it, mail in mailboxes is synced, and whatever happened to its messages is
//! synced too. `tests/crash.rs` goes through all of this operation by operation, with every loss that no sync forbids.
//!
//! # The folder
//!
//! `journal/` (segments), `spool/` (large messages that the journal refers to), `deferred/` (parked mail, for people to read),
//! `deferred.index` (a cache for quick starts), `damaged/` (what could not be read), `node` (its id), `lock`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod adopt;
mod at_once;
pub mod body;
mod body_file;
mod body_writer;
mod budget;
pub mod clock;
mod deadlines;
mod deferred;
pub mod disk;
mod earlier;
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
mod lease;
mod operate;
mod queue;
mod recover;
mod report;
mod schedule;
mod serve;
mod start;
mod suspended;
pub mod transport;

pub use adopt::{AdoptError, Adopted, folder_id, known_folder_id};
pub use at_once::Taken;
pub use body::Body;
pub use body_writer::BodyWriter;
pub use deferred::ParkedFiles;
pub use disk::is_full;
pub use earlier::Remembered;
pub use envelope::{Door, Envelope, Recipient, Route, Source, Status, UnixMillis};
pub use feed::Feed;
pub use health::{DiskHealth, JournalHealth, QueueHealth};
pub use id::{BadQueueId, QueueId};
pub use lease::since_boot;
pub use operate::{DestinationSummary, ListFilter, RetryFilter};
pub use queue::{AcceptError, Hooks, Queue};
pub use schedule::Transports;
pub use start::{OpenError, Tools};
pub use transport::{Delivery, Destination, Outcome, Outcomes, Transport};

#[cfg(test)]
mod tests;
