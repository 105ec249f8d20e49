//! Internet messages (RFC 5322) as bytes: reading headers, adding trace fields, fixing up submissions, converting bodies, writing reports.
//!
//! No network, no files, no clock: time and randomness are passed in. A message is a `&[u8]` with CRLF line ends; LF is tolerated
//! wherever something is read.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod address_list;
pub mod autoreply;
pub mod date;
pub mod downgrade;
pub mod encode;
pub mod header;
pub mod lines;
pub mod mime;
pub mod notice;
pub mod report;
pub mod submission;
pub mod trace;

pub use date::UnixMillis;
