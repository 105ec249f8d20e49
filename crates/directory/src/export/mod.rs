//! The plain-text export: all domains, users, aliases, credentials and settings as readable TOML, from which a directory can be rebuilt.

mod format;

pub use format::{Content, ExportError, FORMAT_VERSION, parse};

/// Name of the export that is kept beside the database, in STATE.
pub const FILE_NAME: &str = "directory-export.toml";
