//! Authenticated Received Chain (RFC 8617): sealing what we forward. Chains that come in are verified in [`crate::auth`].

mod seal;
#[cfg(test)]
mod suite;

pub(crate) use seal::{SealError, Sealer};
