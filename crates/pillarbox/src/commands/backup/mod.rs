//! `pillarbox backup`, `pillarbox restore`: everything in one file, a zstd-compressed tar archive that other tools read too.
//!
//! `MANIFEST.json` comes first and says which version made it; then `config/`, `directory.toml`, `state/` (keys and certificates), `queue/` (two files a
//! message, as the queue keeps parked mail), with `--with-mail` also `mail/`; last `SHA256SUMS` over all of them, as sha256sum writes it. A backup without
//! that last entry was cut off.

mod create;
mod read;
mod restore;
mod write;

use serde::{Deserialize, Serialize};

pub(crate) use create::create;
pub(crate) use read::verify;
pub(crate) use restore::restore;

/// Format that this program writes, and the newest it reads.
const FORMAT: u32 = 1;
/// First entry.
const MANIFEST: &str = "MANIFEST.json";
/// Last entry.
const SUMS: &str = "SHA256SUMS";
/// The directory as text.
const DIRECTORY: &str = "directory.toml";

/// What the archive says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    /// Version of the program that wrote it.
    version: String,
    /// Of the server.
    hostname: String,
    /// RFC 3339 UTC.
    created: String,
    /// Mailboxes are in it.
    with_mail: bool,
}
