//! Exit codes of sysexits.h, which callers of sendmail and of a delivery agent know.

/// The command line makes no sense.
pub(crate) const USAGE: u8 = 64;
/// The message makes no sense.
pub(crate) const DATA: u8 = 65;
/// No such user.
pub(crate) const NO_USER: u8 = 67;
/// A file cannot be written.
pub(crate) const CANNOT_CREATE: u8 = 73;
/// Input cannot be read.
pub(crate) const IO: u8 = 74;
/// Try again.
pub(crate) const TEMPORARY: u8 = 75;
/// Refused.
pub(crate) const REFUSED: u8 = 77;
