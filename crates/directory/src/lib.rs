//! Domains, users, aliases and credentials; route resolution and password checks.

pub mod records;
pub mod store;

pub use records::*;
pub use store::{Directory, DirectoryError};
