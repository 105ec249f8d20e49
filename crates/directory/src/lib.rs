//! Domains, users, aliases and credentials; route resolution and password checks.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod auth;
pub mod clock;
pub mod dovecot;
mod durable;
pub mod export;
pub mod import;
pub mod keeper;
pub mod memory;
mod movable;
mod open;
pub mod ops;
pub mod password;
mod postgres;
pub mod records;
pub mod resolve;
pub mod sender;
mod sled_store;
pub mod srs;
pub mod state;
pub mod store;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
mod tables;
mod transfer;

pub use auth::{AuthOutcome, AuthPolicy, Authenticator, GuessLimits, ScramOutcome};
pub use clock::{Clock, ManualClock, SystemClock};
pub use memory::MemoryDirectory;
pub use movable::{Movable, Progress};
pub use open::{Place, open};
pub use ops::OpsError;
pub use postgres::{NodeEntry, NodeInfo, NodeState, PostgresDirectory, PostgresOptions, Registry};
pub use records::*;
pub use resolve::{Resolution, ResolvePolicy, Resolved, RouteStep, StepKind, Target, is_role_address, resolve, resolve_at};
pub use sender::{may_send_as, may_send_as_with};
pub use sled_store::{SledDirectory, SledOptions};
pub use srs::Srs;
pub use store::{Directory, DirectoryError};
pub use transfer::{Adapt, Transferred};
