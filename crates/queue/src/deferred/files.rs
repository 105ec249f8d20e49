//! A message as the files that stand for it in the queue folder: what a backup keeps and a restore puts back.

use std::io;

use super::{Document, FORMAT};
use crate::envelope::Envelope;

/// The two files of a parked message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedFiles {
    /// Below the queue folder.
    pub envelope_name: String,
    /// Its content.
    pub envelope: Vec<u8>,
    /// Below the queue folder; it holds the message's octets.
    pub message_name: String,
}

impl ParkedFiles {
    /// The files for this envelope. A queue folder that holds such pairs and nothing else is opened like any other.
    ///
    /// # Errors
    /// When the envelope has no JSON form, which cannot be as long as its types are what they are.
    pub fn new(envelope: &Envelope) -> io::Result<Self> {
        let mut json = serde_json::to_vec_pretty(&Document { format: FORMAT, envelope }).map_err(io::Error::other)?;
        json.push(b'\n');
        let id = envelope.id.to_string();
        let stem = format!("deferred/{}/{id}", id.get(9..11).unwrap_or("00"));
        Ok(Self { envelope_name: format!("{stem}.json"), envelope: json, message_name: format!("{stem}.msg") })
    }
}
