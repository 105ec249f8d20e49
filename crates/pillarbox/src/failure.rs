//! How the command fails: one line on standard error and an exit code.

use std::fmt;

use pillarbox_config::ConfigError;
use pillarbox_control::{ClientError, Kind};

/// Refused or failed.
pub(crate) const FAILED: u8 = 1;
/// The command line makes no sense.
pub(crate) const USAGE: u8 = 2;
/// No such thing.
pub(crate) const NOT_FOUND: u8 = 3;
/// It is there already.
pub(crate) const EXISTS: u8 = 4;
/// Daemon unreachable and the database locked (EX_UNAVAILABLE of sysexits.h).
pub(crate) const UNAVAILABLE: u8 = 69;

/// Why the command did not do it, and with which code it exits.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    /// What failed, why, what to do. Empty: all was said already.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(FAILED, message)
    }
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }
    /// Exit code 1 after the output has said why.
    pub(crate) fn said() -> Self {
        Self::new(FAILED, "")
    }
}

impl fmt::Display for Failure {
    /// One line, whatever the cause put into its text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for line in self.message.lines().map(str::trim).filter(|l| !l.is_empty()) {
            if !first {
                f.write_str("; ")?;
            }
            first = false;
            for c in line.chars() {
                if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
            }
        }
        Ok(())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Api(api) => match api.kind {
                Kind::NotFound => NOT_FOUND,
                Kind::Exists => EXISTS,
                Kind::Usage => USAGE,
                Kind::Denied | Kind::Refused | Kind::Unavailable => FAILED,
            },
            _ => FAILED,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::failed(error.to_string())
    }
}

/// For results of the system: says what was tried.
pub(crate) trait Trying<T> {
    /// Turns an error into `cannot WHAT: why`.
    fn trying(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Trying<T> for Result<T, E> {
    fn trying(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|e| Failure::failed(format!("cannot {what}: {e}")))
    }
}
