//! Listeners, TLS, SMTP, submission and LMTP sessions.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod accept;
pub mod admission;
pub mod certificates;
mod commands;
mod connection;
mod draft;
mod intake;
pub mod listener;
mod local;
mod login;
mod message_end;
pub mod proxy;
pub mod routing;
pub mod service;
mod stream;
pub mod tls;

pub use accept::serve;
pub use listener::{BindError, Listener, Socket};
pub use local::{LocalMail, Refused};
pub use service::{Ingest, MailboxCheck, ReportIntake, Rooms, Settings, SettingsError};
