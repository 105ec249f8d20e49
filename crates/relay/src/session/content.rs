//! The message as it goes over the wire.

use bytes::{Bytes, BytesMut};
use pillarbox_message::downgrade;
use pillarbox_queue::Body;
use pillarbox_smtp::client::LineEnds;

/// A message is sent in one write with its envelope up to this many octets; longer ones wait until a recipient was accepted.
pub(super) const INLINE: usize = 64 * 1024;

/// What follows DATA or BDAT.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Lines with CRLF ends, in memory.
    Lines(Bytes),
    /// Lines, read as they are sent.
    Stream(Body),
    /// Any octets, for BDAT alone (RFC 3030 §3).
    Binary(Body),
}

impl Content {
    /// From a body. A short one is read and checked once for line ends, so that it can be written as it is.
    pub(crate) async fn lines(body: &Body) -> std::io::Result<Self> {
        match body.in_memory() {
            Some(bytes) => Ok(Self::from_bytes(bytes)),
            None if body.len() <= INLINE as u64 => Ok(Self::from_bytes(body.bytes().await?)),
            None => Ok(Self::Stream(body.clone())),
        }
    }

    /// From octets in memory.
    pub(crate) fn from_bytes(bytes: Bytes) -> Self {
        if bytes.ends_with(b"\r\n") && !downgrade::has_bare_cr_lf(&bytes) {
            return Self::Lines(bytes);
        }
        let (mut ends, mut out) = (LineEnds::new(), BytesMut::with_capacity(bytes.len() + 2));
        ends.encode(&bytes, &mut out);
        ends.finish(&mut out);
        Self::Lines(out.freeze())
    }

    /// Octets, for SIZE=.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Lines(bytes) => bytes.len() as u64,
            Self::Stream(body) | Self::Binary(body) => body.len(),
        }
    }
}
