//! The Transport for mailboxes: Maildir++, quota, folders, vacation, LMTP out.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod delivery;
mod folders;
mod hooks;
pub mod import;
mod lmtp;
pub mod maildir;
pub mod quota;
mod settings;
mod transport;
mod vacation;
mod way;
mod ways;

pub use hooks::{Hooks, Submit};
pub use quota::QuotaCheck;
pub use transport::{MAILDIR, MailboxTransport};
pub use way::{Backend, Way};
