//! The configuration file as types, with validation, defaults and masking.

pub mod types;
pub mod units;

pub use types::*;
pub use units::{ByteSize, Rate};
