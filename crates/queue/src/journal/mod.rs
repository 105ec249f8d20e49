//! The journal: what makes a message ours. Acceptance appends here, and one flush of the disk serves everyone who waits.
//!
//! It is short-lived: a message leaves as soon as its recipients are settled, or when files under `deferred/` stand for it.

mod committer;
mod company;
mod inbox;
mod notes;
mod record;
mod replay;
mod segment;
mod writer;

pub(crate) use committer::{Journal, JournalError, Placed};
pub(crate) use inbox::NewMessage;
pub(crate) use notes::{FileRef, Note, Start, message_head};
pub(crate) use record::Kind;
pub(crate) use replay::{Recovered, RecoveredBody, Replay, ReplayError, replay};
pub(crate) use segment::{Hold, Pool, SIZES, remove_if_there};
