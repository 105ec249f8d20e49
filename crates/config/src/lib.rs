//! The configuration file as types, with validation, defaults and masking.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod defaults;
pub mod endpoint;
pub mod error;
pub mod hostname;
pub mod load;
pub mod reference;
pub mod render;
mod resolv_conf;
pub mod types;
pub mod units;
mod validate;

pub use endpoint::{ListenAddress, NextHop};
pub use error::{ConfigError, Problem};
pub use load::DEFAULT_PATH;
pub use reference::{KEYS, Key};
pub use resolv_conf::resolv_conf;
pub use types::*;
pub use units::{ByteSize, Rate, format_duration, parse_duration};
