//! Message content as it arrives: DATA with its dots (RFC 5321 §4.5.2) and BDAT chunks (RFC 3030).

mod chunk;
mod data;
mod scan;

pub use chunk::ChunkCheck;
pub use data::{DataDecoder, Decoded};

use crate::server::{BareLineEnds, NulPolicy};

/// What content may hold; part of the listener's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRules {
    /// Most octets; 0: no limit.
    pub max_size: u64,
    /// Longest line in octets, without its CRLF.
    pub max_line: usize,
    /// See [`BareLineEnds`].
    pub bare_line_ends: BareLineEnds,
    /// See [`NulPolicy`].
    pub nul: NulPolicy,
}

impl ContentRules {
    /// How many more octets fit after `received`.
    fn room(&self, received: u64) -> u64 {
        if self.max_size == 0 { u64::MAX } else { self.max_size.saturating_sub(received) }
    }
}
