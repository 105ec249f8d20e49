//! The server's side of SMTP and LMTP as a state machine: octets in, events and replies out (docs/design.md, "smtp::server").

mod config;
mod event;

pub use config::{BareLineEnds, Extensions, FutureRelease, Limits, NulPolicy, Role, ServerConfig};
pub use event::{Abort, AuthRequest, AuthResult, Event, HeloKind, HeloName, Identity, Step, TlsInfo, Transaction};
