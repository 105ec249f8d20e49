//! Our own DKIM (RFC 6376, RFC 8463): keys, their DNS records, and signatures on mail that leaves.

mod canonical;
mod carry;
mod field;
pub mod keys;
mod rotate;
mod signer;

pub use carry::Carry;
pub use keys::{KeyError, NewKey, SigningKey, generate_keys};
pub use rotate::{RotateError, Rotation, records, rotate};
pub use signer::{SignError, Signer};

pub(crate) use canonical::{body_hash, relaxed_field};
pub(crate) use field::{fold_base64, fold_names, signed_fields};
