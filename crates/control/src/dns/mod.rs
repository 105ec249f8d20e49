//! The DNS records that a hosted domain needs: what to publish, and whether the world sees it so.

mod certificates;
mod check;
mod facts;
mod judge;
mod records;

pub use certificates::{certificate_file, spki_sha256};
pub use check::check;
pub use facts::{Facts, public_addresses};
pub use records::{Role, ZoneRecord, records};
