//! The Transport for mailboxes: Maildir++, quota, folders, vacation, LMTP out.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod delivery;
mod hooks;
pub mod maildir;
mod settings;
mod transport;
mod way;

pub use hooks::{Hooks, Submit};
pub use transport::{MAILDIR, MailboxTransport};
pub use way::{Backend, Way};
