//! For measuring: a sender and a receiver that cost as little as they can, crowds of idle connections, and the disk's own limit.
//!
//! What is here answers with an error where the rest of this crate panics: a server that fails under load is a finding.

pub mod black_hole;
mod connection;
pub mod crowd;
pub mod disk;
pub mod handshakes;
mod histogram;
pub mod lookups;
pub mod source;

pub use black_hole::BlackHole;
pub use connection::Access;
pub use histogram::Histogram;
pub use source::{Report, Source};
