//! The plain-text export: all domains, users, aliases, credentials and settings as readable TOML, from which a directory can be rebuilt.

mod apply;
mod format;
mod render;
#[cfg(test)]
mod tests;

pub use apply::{ApplyOptions, Plan, PlanAction, PlanKind, PlannedChange, apply};
pub use format::{Content, ExportError, FORMAT_VERSION, parse};
pub(crate) use format::{parse_quota, revision};
pub use render::{ExportKeeper, render, write};

/// Name of the export that is kept beside the database, in STATE.
pub const FILE_NAME: &str = "directory-export.toml";
