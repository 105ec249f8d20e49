//! For tests alone: a scripted DNS, SMTP servers and clients that do as they are told, certificates, and the real daemon in a folder.
//!
//! Everything listens on 127.0.0.1 with a port that the system chooses. Nothing sleeps: whatever a test waits for is awaited,
//! with [`PATIENCE`] as the bound after which the test fails and says what it waited for. What goes wrong here panics, since that is
//! how a test ends.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation ends the test")]

pub mod certificates;
pub mod client;
pub mod daemon;
pub mod dialog;
pub mod disk;
pub mod dns;
pub mod load;
pub mod milter;
pub mod pattern;
pub mod postgres;
pub mod sink;
pub mod speed;
pub mod stream;
pub mod wait;

pub use certificates::{CertificateAuthority, Issued};
pub use client::Client;
pub use daemon::{Daemon, DaemonBuilder};
pub use dialog::{Dialog, Target};
pub use disk::SmallDisk;
pub use dns::{Data, DnsServer, Misbehaviour};
pub use load::{Load, LoadRun};
pub use milter::{Behaviour, Milter};
pub use postgres::Postgres;
pub use sink::{Answer, Sink, SinkBuilder, Stage};
pub use wait::PATIENCE;

/// A TCP port on 127.0.0.1 that was free a moment ago, for programs that cannot be told to choose one.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A fresh folder that vanishes with the value.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("pillarbox-test-").tempdir().unwrap()
}
