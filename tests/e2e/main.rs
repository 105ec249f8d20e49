//! End-to-end tests: the real daemon on loopback, and the real peers that a user would put beside it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod clients;
mod crash;
mod dovecot;
mod inbound;
mod outbound;
mod peers;
mod relaying;
mod submission;
