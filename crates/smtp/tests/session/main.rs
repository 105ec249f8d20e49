//! Whole server sessions, read as dialogs: what a client sends, what it is told, what the driver is asked.
#![allow(clippy::unwrap_used, clippy::panic)]

mod driver;

mod auth;
mod basic;
mod chunking;
mod extensions;
mod limits;
mod lmtp;
mod oracle;
mod smuggling;
mod splits;
mod tls;
