//! Judging mail from outside, and signing our own.
//!
//! [`Screen`] is made once from the configuration; [`Screen::session`] gives each connection a [`ScreenSession`], which is asked at
//! connect, HELO, MAIL and RCPT, and at the end of DATA returns a [`Verdict`]. It never speaks to the client itself. [`Signer`] adds
//! DKIM signatures to mail that leaves, and ARC sets to mail that is forwarded.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod access;
mod arc;
pub mod auth;
pub mod dkim;
pub mod dns;
pub mod dnsbl;
pub mod facts;
mod greylist;
mod judge;
pub mod milter;
mod policy;
pub mod rates;
pub mod replies;
pub mod reports;
mod results;
mod screen;
mod sender;
mod session;
pub mod spf;
pub mod verdict;

pub use dkim::Signer;
pub use dns::Dns;
pub use facts::{Notice, Notify, SessionFacts};
pub use rates::UserRates;
pub use screen::{Screen, ScreenError};
pub use session::ScreenSession;
pub use verdict::{Action, Verdict};
